"""Features in files: the rows that were asked for, in any order, whatever the file and however small the buffer."""

import copy
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from unrote import Recipe, Split, Task, fit
from unrote.data import ArrayInputs, as_inputs, open_features
from unrote.data.parquet_rows import ParquetRows
from unrote.data.rows import NpyRows, open_npy
from unrote.errors import CheckpointError, DataError, OptionError
from unrote.training.order import Order

N, D = 1000, 12
VALUES = np.random.default_rng(0).normal(size=(N, D)).astype(np.float16)
BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "memory.py"


def write(path: Path, kind: str) -> Path:
    """The values as a file of a kind."""
    if kind.startswith("npy"):
        dtype = {"npy": "<f2", "npy single": "<f4", "npy double": "<f8", "npy big-endian": ">f4"}[kind]
        path = path.with_suffix(".npy")
        np.save(path, VALUES.astype(dtype))
        return path
    path = path.with_suffix(".parquet")
    if kind == "parquet":
        columns = {f"f{j}": pa.array(VALUES[:, j].astype(np.float32)) for j in range(D)}
    elif kind == "parquet half":
        columns = {f"f{j}": pa.array(VALUES[:, j]) for j in range(D)}
    elif kind == "parquet lists":
        columns = {"x": pa.array(VALUES.astype(np.float32).tolist(), pa.list_(pa.float32()))}
    else:
        flat = pa.array(VALUES.astype(np.float32).ravel())
        columns = {"x": pa.FixedSizeListArray.from_arrays(flat, D)}
    parquet.write_table(pa.table(columns), path, row_group_size=16)
    return path


KINDS = ["npy", "npy single", "npy double", "npy big-endian"]
KINDS += ["parquet", "parquet half", "parquet lists", "parquet fixed lists"]
BUFFER = 64 * D * 8


@pytest.mark.parametrize("kind", KINDS)
def test_rows_in_any_order(tmp_path: Path, kind: str) -> None:
    inputs = open_features(write(tmp_path / "x", kind), buffer=BUFFER)
    assert (len(inputs), inputs.shape, inputs.tensor) == (N, (D,), None)
    random = torch.Generator().manual_seed(0)
    for index in (
        torch.tensor([7]),
        torch.tensor([3, 3, 999, 0]),
        torch.randint(N, (5, 3), generator=random),
    ):
        got = inputs[index]
        assert got.dtype == (torch.float64 if "double" in kind else torch.float32)
        assert np.array_equal(got.numpy(), VALUES[index.numpy()])


@pytest.mark.parametrize("kind", ["npy", "parquet"])
@pytest.mark.parametrize("per_member", [False, True])
@pytest.mark.parametrize("batch", [1, 7, 64, 400, N])
def test_minibatches_read_ahead(tmp_path: Path, kind: str, per_member: bool, batch: int) -> None:
    """Minibatches smaller and larger than the buffer, in order, at random, and in blocks."""
    inputs = open_features(write(tmp_path / "x", kind), buffer=BUFFER)
    seeds = (0, 1) if per_member else 0
    for blocks in (None, inputs.blocks):
        order = Order(N, batch, seeds, None, blocks)
        indices = list(order.minibatches(3, 3 + min(order.steps_per_epoch, 40)))
        count = 0
        for index, x in zip(indices, inputs.batches(iter(indices)), strict=True):
            assert np.array_equal(x.numpy(), VALUES[index.numpy()])
            count += 1
        assert count == len(indices)


@settings(max_examples=60)
@given(
    n=st.integers(1, 400),
    row=st.integers(1, 40),
    buffer=st.integers(80, 4000),
    picks=st.lists(st.integers(0, 399), min_size=1, max_size=80),
)
def test_runs_of_rows(
    tmp_path_factory: pytest.TempPathFactory, n: int, row: int, buffer: int, picks: list[int]
) -> None:
    """However rows lie and whatever the limits of a single read, each value is read from its own place."""
    from unrote.data import rows as module

    path = tmp_path_factory.mktemp("runs") / "x.npy"
    values = np.arange(n * row, dtype=np.int16).reshape(n, row)
    np.save(path, values)
    opened = open_npy(path, max(buffer, 4 * row))
    wanted = np.unique([p % n for p in picks])
    old = module._GAP, module._SPAN
    try:
        module._GAP, module._SPAN = buffer // 7, buffer // 3
        assert np.array_equal(opened.read(wanted), values[wanted])
    finally:
        module._GAP, module._SPAN = old


def test_slices_of_a_memory_map_are_read_where_they_are(tmp_path: Path) -> None:
    whole = np.load(write(tmp_path / "x", "npy"), mmap_mode="r", allow_pickle=False)
    for part in (whole, whole[10:20], whole[900:], whole[::2], whole[:, 3:5], whole[100:200][50:]):
        inputs = as_inputs(part)
        assert np.array_equal(inputs[torch.arange(len(part))].numpy(), np.asarray(part))


def test_a_subset_stays_in_its_file(tmp_path: Path) -> None:
    inputs = open_features(write(tmp_path / "x", "npy"), buffer=BUFFER)
    chosen = torch.tensor([5, 900, 17, 5, 400])
    subset = inputs.subset(chosen)
    assert isinstance(subset, ArrayInputs)
    assert subset.tensor is None
    assert np.array_equal(subset[torch.tensor([4, 0, 3])].numpy(), VALUES[[400, 5, 5]])
    twice = subset.subset(torch.tensor([1, 0]))
    assert np.array_equal(twice[torch.arange(2)].numpy(), VALUES[[900, 5]])
    split = Split(inputs, np.arange(N) % 2).subset(chosen)
    assert split.y.tolist() == [1, 0, 1, 1, 0]


@pytest.mark.parametrize("kind", ["npy", "parquet"])
def test_files_go_to_other_processes(tmp_path: Path, kind: str) -> None:
    inputs = open_features(write(tmp_path / "x", kind), buffer=BUFFER)
    sent = pickle.loads(pickle.dumps(inputs))  # noqa: S301, our own
    for other in (sent, copy.deepcopy(inputs)):
        assert other.fingerprint() == inputs.fingerprint()


def task_of(x: Any) -> Task:
    y = (VALUES[:, 0] + VALUES[:, 1] > 0).astype(int)
    return Task("rows", train=Split(x, y, (VALUES[:, 2] > 0).astype(int)), test=Split(VALUES, y))


def test_a_file_that_the_buffer_holds_trains_as_an_array_does(tmp_path: Path) -> None:
    recipe = Recipe("adam", 0.05, batch_size=32, epochs=2)
    path = write(tmp_path / "x", "npy")
    results = [
        fit(task_of(x), "mat", model="linear", recipe=recipe).stack.state_dict()
        for x in (VALUES, open_features(path), path, np.load(path, mmap_mode="r"))
    ]
    for other in results[1:]:
        assert all(torch.equal(other[name], value) for name, value in results[0].items())


@pytest.mark.parametrize("kind", ["npy", "parquet"])
def test_blocks_train_as_well_and_alike_each_time(tmp_path: Path, kind: str) -> None:
    recipe = Recipe("adam", 0.05, batch_size=32, epochs=4)
    inputs = open_features(write(tmp_path / "x", kind), buffer=BUFFER)
    assert inputs.blocks is not None
    fitted = [fit(task_of(inputs), "mat", model="linear", recipe=recipe) for _ in range(2)]
    first, second = (f.stack.state_dict() for f in fitted)
    assert all(torch.equal(first[name], second[name]) for name in first)
    task = task_of(VALUES)
    free = fit(task, "mat", model="linear", recipe=recipe)
    blocks_right, free_right = (
        float((f.predict(VALUES) == task.train.y).float().mean()) for f in (fitted[0], free)
    )
    assert blocks_right > free_right - 0.03 > 0.8


class TestRefused:
    def test_what_is_no_such_file(self, tmp_path: Path) -> None:
        path = tmp_path / "x.npy"
        with pytest.raises(DataError, match="No such file"):
            open_features(path)
        for content in (b"", b"\x93NUMPY", b"junk" * 100, b"PK\x03\x04"):
            path.write_bytes(content)
            with pytest.raises(DataError, match=r"cannot be read as \.npy"):
                open_features(path)

    def test_pickled_objects(self, tmp_path: Path) -> None:
        class Trap:
            def __reduce__(self) -> Any:
                return Path.write_text, (tmp_path / "ran", "it")

        path = tmp_path / "x.npy"
        np.save(path, np.array([[Trap()]], dtype=object), allow_pickle=True)
        with pytest.raises(DataError, match=r"cannot be read as \.npy"):
            open_features(path)
        assert not (tmp_path / "ran").exists()

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            (np.zeros(5), "one example per row"),
            (np.zeros((5, 2), dtype="U3"), "numbers of up to 64 bits"),
            (np.zeros((5, 2), dtype=complex), "numbers of up to 64 bits"),
            (np.asfortranarray(np.zeros((5, 2))), "column by column"),
        ],
    )
    def test_other_arrays(self, tmp_path: Path, values: np.ndarray, message: str) -> None:
        np.save(tmp_path / "x.npy", values)
        with pytest.raises(DataError, match=message):
            open_features(tmp_path / "x.npy")

    def test_a_file_that_became_shorter(self, tmp_path: Path) -> None:
        path = write(tmp_path / "x", "npy")
        inputs = open_features(path)
        os.truncate(path, 5000)
        with pytest.raises(DataError, match="breaks off before row 999"):
            inputs[torch.tensor([999])]

    def test_numbers_that_are_not_finite(self, tmp_path: Path) -> None:
        values = VALUES.copy()
        values[777, 3] = np.inf
        np.save(tmp_path / "x.npy", values)
        with pytest.raises(DataError, match="first in row 777"):
            open_features(tmp_path / "x.npy", buffer=BUFFER)
        table = pa.table({"a": pa.array([1.0] * 50 + [None, 2.0])})
        parquet.write_table(table, tmp_path / "x.parquet", row_group_size=8)
        with pytest.raises(DataError, match="first in row 50"):
            open_features(tmp_path / "x.parquet", buffer=1024)

    @pytest.mark.parametrize(
        ("columns", "message"),
        [
            ({"a": ["x", "y"]}, "'a' of .* has type string: numbers are wanted"),
            ({"a": [1, None]}, "missing values"),
            ({"a": [[1.0, 2.0], [3.0]]}, "not a list of 2 values"),
            ({"a": pa.array([], pa.float32())}, "no rows"),
        ],
    )
    def test_other_parquet_files(self, tmp_path: Path, columns: dict[str, Any], message: str) -> None:
        parquet.write_table(pa.table(columns), tmp_path / "x.parquet")
        with pytest.raises(DataError, match=message):
            open_features(tmp_path / "x.parquet")

    def test_row_groups_beyond_the_buffer(self, tmp_path: Path) -> None:
        path = write(tmp_path / "x", "parquet")
        with pytest.raises(
            DataError, match=r"row group of 16 rows, 768 bytes.*row_group_size=1.*buffer=1536"
        ):
            ParquetRows(path, buffer=960)
        ParquetRows(path, buffer=1536)

    def test_options(self, tmp_path: Path) -> None:
        path = write(tmp_path / "x", "npy")
        with pytest.raises(OptionError, match="room for two"):
            open_features(path, buffer=30)
        with pytest.raises(OptionError, match="columns="):
            open_features(path, columns=["a"])
        with pytest.raises(DataError, match="no single column 'b'"):
            open_features(write(tmp_path / "x", "parquet"), columns=["b"])


def test_other_blocks_are_another_run(tmp_path: Path) -> None:
    """A run that goes on with another buffer would see another order, so its checkpoint is refused."""
    path = write(tmp_path / "x", "npy")
    recipe = Recipe("sgd", 0.1, batch_size=32, epochs=1)
    x = open_features(path, buffer=BUFFER)
    fit(task_of(x), "erm", model="linear", recipe=recipe, checkpoint=tmp_path / "run")
    fit(
        task_of(open_features(path, buffer=BUFFER)),
        "erm",
        model="linear",
        recipe=recipe,
        checkpoint=tmp_path / "run",
    )
    other = open_features(path, buffer=2 * BUFFER)
    with pytest.raises(CheckpointError, match="another run"):
        fit(task_of(other), "erm", model="linear", recipe=recipe, checkpoint=tmp_path / "run")
    assert open_features(path).fingerprint() == as_inputs(VALUES).fingerprint()


def test_chosen_columns(tmp_path: Path) -> None:
    inputs = open_features(write(tmp_path / "x", "parquet"), columns=["f3", "f1"])
    assert np.array_equal(inputs[torch.arange(N)].numpy(), VALUES[:, [3, 1]])


def test_an_open_map_is_read_through_its_file(tmp_path: Path) -> None:
    mapped = np.load(write(tmp_path / "x", "npy"), mmap_mode="r", allow_pickle=False)
    inputs = as_inputs(mapped)
    assert isinstance(inputs, ArrayInputs)
    assert isinstance(inputs._file, NpyRows)
    private = np.load(tmp_path / "x.npy", mmap_mode="c", allow_pickle=False)
    private[3] = 9  # what was written to a private map is in no file
    assert as_inputs(private)[torch.tensor([3])].tolist() == [[9.0] * D]


def peak(path: Path, *arguments: str) -> dict[str, Any]:
    """What the benchmark measures in a process of its own."""
    command = [sys.executable, str(BENCHMARK), "--json", "--file", str(path), *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


MEASURED = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="only Linux counts a peak from a moment on"
)
FIFTIETH = 25_623


@MEASURED
@pytest.mark.parametrize(("kind", "buffer", "most"), [("npy", "2.5", 0.5), ("parquet", "4", 0.75)])
def test_memory(tmp_path: Path, kind: str, buffer: str, most: float) -> None:
    """A fiftieth of the largest file, 100 MB: XRM and MAT take a share of it; Parquet's decoder has buffers too."""
    found = peak(tmp_path / f"x.{kind}", "--rows", str(FIFTIETH), "--buffer", buffer)
    assert found["file_mb"] == pytest.approx(FIFTIETH * 2048 * 2 / 2**20, rel=0.02)
    assert found["peak_mb"] - found["before_mb"] < most * found["file_mb"], found
    assert found["worst_group"] > 0.5


@MEASURED
def test_memory_is_measured(tmp_path: Path) -> None:
    """Rows read through the map itself stay in memory: the measure sees them."""
    found = peak(tmp_path / "x.npy", "--rows", str(FIFTIETH), "--method", "erm", "--touch-map")
    assert found["peak_mb"] - found["before_mb"] > 0.9 * found["file_mb"], found

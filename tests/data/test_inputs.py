from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset

from unrote.data import ArrayInputs, DatasetInputs, Inputs, as_inputs
from unrote.errors import DataError

VALUES = np.random.default_rng(0).normal(size=(50, 3, 2)).astype(np.float32)


class Items(Dataset[Any]):
    """A map-style data set; `make` forms an item of its row."""

    def __init__(self, kind: str = "tensor") -> None:
        self.kind = kind

    def __len__(self) -> int:
        return len(VALUES)

    def __getitem__(self, i: int) -> Any:
        row = torch.from_numpy(VALUES[i])
        if self.kind == "tuple":
            return row, i % 2, "a string that nobody reads"
        if self.kind == "mapping":
            return {"first": row, "second": row[:, 0]}
        return row


def memory_map(path: Path, dtype: type) -> np.memmap:
    file = np.memmap(path, dtype=dtype, mode="w+", shape=VALUES.shape)
    file[:] = VALUES
    file.flush()
    return np.memmap(path, dtype=dtype, mode="r", shape=VALUES.shape)


INDICES = [
    torch.tensor([7]),
    torch.tensor([3, 3, 49, 0]),
    torch.arange(50).flip(0),
    torch.tensor([[1, 2], [2, 40]]),
]


@pytest.mark.parametrize("index", INDICES, ids=["one", "repeats", "backwards", "per member"])
@pytest.mark.parametrize("kind", ["tensor", "array", "view", "dataset", "tuples", "memory map"])
def test_examples_at_an_index(tmp_path: Path, kind: str, index: Tensor) -> None:
    twice = np.repeat(VALUES, 2, axis=2)
    source = {
        "tensor": lambda: torch.from_numpy(VALUES),
        "array": lambda: VALUES,
        "view": lambda: twice[:, :, ::2],
        "dataset": Items,
        "tuples": lambda: Items("tuple"),
        "memory map": lambda: memory_map(tmp_path / "x", np.float32),
    }[kind]()
    inputs = as_inputs(source)
    assert len(inputs) == 50
    assert inputs.shape == (3, 2)
    got = inputs[index]
    assert got.dtype == torch.float32
    assert np.array_equal(got.numpy(), VALUES[index.numpy()])


def test_a_mapping_keeps_its_keys() -> None:
    inputs = as_inputs(Items("mapping"))
    assert inputs.shape == ()
    got = inputs[torch.tensor([[4, 5, 6]])]
    assert np.array_equal(got["first"].numpy(), VALUES[None, 4:7])
    assert np.array_equal(got["second"].numpy(), VALUES[None, 4:7, :, 0])


def test_half_precision_memory_map(tmp_path: Path) -> None:
    file = memory_map(tmp_path / "x", np.float16)
    inputs = as_inputs(file)
    assert isinstance(inputs, ArrayInputs)
    assert inputs.tensor is None  # it was not read into memory
    index = torch.tensor([40, 2, 2, 49])
    got = inputs[index]
    assert got.dtype == torch.float32
    assert np.array_equal(got.numpy(), VALUES.astype(np.float16).astype(np.float32)[index.numpy()])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_tensor(dtype: torch.dtype) -> None:
    half = torch.from_numpy(VALUES).to(dtype)
    got = as_inputs(half)[torch.arange(50)]
    assert got.dtype == torch.float32
    assert torch.equal(got, half.float())


def test_not_finite_in_a_memory_map(tmp_path: Path) -> None:
    file = np.memmap(tmp_path / "x", dtype=np.float16, mode="w+", shape=(9000, 2))
    file[8500, 1] = np.inf  # beyond the first block that is checked
    with pytest.raises(DataError, match="first in row 8500"):
        as_inputs(file)


@pytest.mark.parametrize("kind", ["tensor", "tuple", "mapping"])
def test_workers_change_nothing(kind: str) -> None:
    order = list(torch.randperm(50, generator=torch.Generator().manual_seed(0)).split(8))
    alone, helped = (list(DatasetInputs(Items(kind), workers).batches(order)) for workers in (0, 2))
    assert len(alone) == len(helped) == len(order)
    for one, other, index in zip(alone, helped, order, strict=True):
        if kind == "mapping":
            assert one.keys() == other.keys()
            assert all(torch.equal(one[key], other[key]) for key in one)
            one = one["first"]
        else:
            assert torch.equal(one, other)
        assert np.array_equal(one.numpy(), VALUES[index.numpy()])


def test_workers_leave_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    list(DatasetInputs(Items(), workers=2).batches([torch.arange(4), torch.arange(4, 8)]))
    assert torch.equal(before, torch.random.get_rng_state())


def test_batches_of_an_array() -> None:
    order = [torch.tensor([3, 1]), torch.tensor([[0], [2]])]
    got = list(as_inputs(VALUES).batches(order))
    assert [tuple(x.shape) for x in got] == [(2, 3, 2), (2, 1, 3, 2)]
    assert all(np.array_equal(x.numpy(), VALUES[i.numpy()]) for x, i in zip(got, order, strict=True))


def test_members_of_their_own_cannot_share_workers() -> None:
    with pytest.raises(DataError, match="workers=0"):
        DatasetInputs(Items(), workers=2).batches([torch.tensor([[0], [2]])])


def test_inputs_pass_through() -> None:
    inputs = ArrayInputs(VALUES)
    assert as_inputs(inputs) is inputs
    assert isinstance(inputs, Inputs)


def test_fingerprint(tmp_path: Path) -> None:
    changed = VALUES.copy()
    changed[17, 0, 0] += 1
    same = [as_inputs(v).fingerprint() for v in (VALUES, memory_map(tmp_path / "x", np.float32), Items())]
    assert len(set(same)) == 1
    other = [as_inputs(v).fingerprint() for v in (changed, VALUES[:49], VALUES.reshape(50, 6))]
    assert len({*same, *other}) == 4


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.arange(3.0), r"shape \(3,\)"),
        (torch.zeros(0, 3), "empty"),
        (np.zeros((3, 0)), "empty"),
        (np.array([["a"], ["b"]]), "encode the columns"),
        ([[1.0], [2.0]], "type list"),
        ({"x": [1.0]}, "type dict"),
        (3, "type int"),
    ],
)
def test_what_is_no_input(x: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        as_inputs(x)


def test_an_empty_dataset() -> None:
    class Nothing(Items):
        def __len__(self) -> int:
            return 0

    with pytest.raises(DataError, match="empty"):
        as_inputs(Nothing())

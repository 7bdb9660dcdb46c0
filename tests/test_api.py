"""`fit` and `evaluate`: what they give, and that bad input is refused in words and leaves nothing on disk."""

import dataclasses
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from toys import assert_same_bits, differ, planted_task

import unrote
from unrote.data import Split, Task
from unrote.errors import (
    CheckpointError,
    DataError,
    HiddenGroupsError,
    OptionError,
    UnknownNameError,
    UnroteError,
)
from unrote.methods import METHODS, Fitted
from unrote.models import ModuleStack, StackedLinear, StackedMLP
from unrote.training import Recipe

RECIPE = Recipe("adam", 0.05, batch_size=16, epochs=3)
TASK = planted_task()
X, Y, A = TASK.train.x[torch.arange(64)], TASK.train.y, TASK.train.attribute


def contents(folder: Path) -> dict[str, bytes]:
    """Every file under a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def mat(tmp_path_factory: pytest.TempPathFactory) -> tuple[Fitted, Path]:
    """What `fit` gives by default, and the folder of its checkpoints, for `folder` to copy."""
    kept = tmp_path_factory.mktemp("mat")
    return unrote.fit(TASK, recipe=RECIPE, checkpoint=kept), kept


@pytest.fixture
def folder(mat: tuple[Fitted, Path], tmp_path: Path) -> Path:
    """The checkpoints of a finished MAT run."""
    return shutil.copytree(mat[1], tmp_path / "run")


class TestFit:
    def test_on_arrays_of_ones_own(self) -> None:
        task = unrote.Task("mine", train=unrote.Split(X.numpy(), Y.numpy()))
        fitted = unrote.fit(task, method="mat", recipe=RECIPE)
        predicted = fitted.predict(X.numpy())
        assert predicted.shape == (64,)
        assert set(predicted.tolist()) <= {0, 1}
        assert torch.equal(predicted, fitted.logits(X).argmax(1))

    def test_is_a_function_of_the_seed(self, mat: tuple[Fitted, Path]) -> None:
        one = mat[0].stack.state_dict()
        other, another = (unrote.fit(TASK, recipe=RECIPE, seed=seed).stack.state_dict() for seed in (0, 1))
        assert_same_bits(one, other)
        assert differ(one, another)

    @pytest.mark.parametrize(
        ("model", "kind"),
        [("linear", StackedLinear), ("mlp", StackedMLP), (lambda: nn.Linear(8, 2), ModuleStack)],
        ids=["linear", "mlp", "function"],
    )
    def test_trains_the_model_it_is_given(self, model: Any, kind: type) -> None:
        assert type(unrote.fit(TASK, "erm", model=model, recipe=RECIPE).stack) is kind

    def test_passes_settings_to_the_method(self) -> None:
        fitted = unrote.fit(TASK, "mat", temperature=0.7, held_out=np.zeros((64, 2)), recipe=RECIPE)
        # held-out logits that say nothing: the shift is the log class prior, 1/2 each
        torch.testing.assert_close(fitted.artefacts["shift"], torch.full((64, 2), math.log(0.5 + 1e-6)))
        assert fitted.method.settings()["temperature"] == 0.7

    def test_hides_group_labels_unless_they_are_needed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        seen: list[Task] = []

        def look(self: Any, session: Any) -> Any:
            seen.append(session.task)
            raise InterruptedError

        monkeypatch.setattr(METHODS["mat"], "fit", look)
        wanted = {
            None: [False] * 3,
            "none": [False] * 3,
            "val": [False, True, False],
            "train": [True, True, False],
        }
        for regime, visible in wanted.items():
            with pytest.raises(InterruptedError):
                unrote.fit(TASK, "mat", regime=regime)  # type: ignore[arg-type]
            assert [split.has_attribute for split in seen.pop().splits.values()] == visible

    def test_resumes_from_its_folder(self, mat: tuple[Fitted, Path], folder: Path) -> None:
        before = contents(folder)
        assert before
        again = unrote.fit(TASK, recipe=RECIPE, checkpoint=str(folder))
        assert_same_bits(again.stack.state_dict(), mat[0].stack.state_dict())
        assert contents(folder) == before

    def test_shows_no_progress_unless_asked(self, capfd: pytest.CaptureFixture[str]) -> None:
        unrote.fit(TASK, "erm", recipe=RECIPE)
        assert capfd.readouterr() == ("", "")
        unrote.fit(TASK, "erm", recipe=RECIPE, progress=True)
        shown = capfd.readouterr()
        assert shown.out == ""
        assert "12/12" in shown.err


class TestEvaluate:
    def test_is_accuracy_counted_by_group(self) -> None:
        fitted = unrote.fit(TASK, "erm", recipe=RECIPE)
        for name, split in TASK.splits.items():
            report = unrote.evaluate(fitted, TASK, name)
            right = (fitted.predict(split.x) == split.y).tolist()
            cells: dict[tuple[int, int], list[bool]] = {}
            for label, attribute, correct in zip(
                split.y.tolist(), split.attribute.tolist(), right, strict=True
            ):
                cells.setdefault((label, attribute), []).append(correct)
            for found in report.groups:
                label, attribute = (int(part) for part in found.name.split(", "))
                assert found.n == len(cells[label, attribute])
            accuracies = {cell: sum(correct) / len(correct) for cell, correct in cells.items()}
            assert report.average == pytest.approx(sum(right) / len(right))
            assert report.worst_group.accuracy == pytest.approx(min(accuracies.values()))

    def test_of_a_split_that_is_not_there(self) -> None:
        fitted = unrote.fit(TASK, "erm", recipe=RECIPE)
        with pytest.raises(OptionError, match="no split 'tset': it has train, validation, test"):
            unrote.evaluate(fitted, TASK, "tset")

    def test_without_group_labels(self) -> None:
        fitted = unrote.fit(TASK, "erm", recipe=RECIPE)
        with pytest.raises(HiddenGroupsError):
            unrote.evaluate(fitted, planted_task(attributes=False))


def with_value(value: float) -> torch.Tensor:
    x = X.clone()
    x[17, 3] = value
    return x


Act = Callable[[Path], Any]

BAD_DATA: dict[str, tuple[Act, str]] = {
    "fewer labels": (lambda _: Split(X, Y[:-1]), "y has 63 entries, the inputs 64"),
    "more labels": (lambda _: Split(X, Y.repeat(2)), "y has 128 entries, the inputs 64"),
    "fewer attributes": (lambda _: Split(X, Y, A[:-1]), "attribute has 63 entries, the inputs 64"),
    "labels that are not integers": (lambda _: Split(X, Y + 0.5), "y has type .*float32"),
    "labels that are text": (lambda _: Split(X, np.array(["cat"] * 64)), "y has type <U3"),
    "negative labels": (lambda _: Split(X, Y - 1), "y has -1 in row 0"),
    "labels beyond the classes": (
        lambda _: Task("t", Split(X, Y + 1), class_names=("a", "b")),
        "train has label 2, but there are 2 classes",
    ),
    "test labels beyond the classes": (
        lambda _: Task("t", Split(X, Y), test=Split(X, Y + 3), class_names=("a", "b")),
        "test has label 4",
    ),
    "attributes beyond their names": (
        lambda _: Task("t", Split(X, Y, A + 1), attribute_names=("a", "b")),
        "train has attribute 2",
    ),
    "a single class": (lambda _: Task("t", Split(X, torch.ones_like(Y))), "all training labels are class 1"),
    "NaN": (lambda _: Split(with_value(math.nan), Y), "NaN or infinity, first in row 17"),
    "infinity": (lambda _: Split(with_value(-math.inf).numpy(), Y), "NaN or infinity, first in row 17"),
    "an empty split": (lambda _: Split(X[:0], Y[:0]), "empty"),
    "no features": (lambda _: Split(X[:, :0], Y), "empty"),
    "a vector of features": (lambda _: Split(X[:, 0], Y), r"shape \(64,\)"),
    "splits of different shapes": (
        lambda _: Task("t", Split(X, Y), test=Split(X[:, :5], Y)),
        r"test examples have shape \(5,\), training examples \(8,\)",
    ),
}

BAD_OPTIONS: dict[str, tuple[Act, type[UnroteError], str]] = {
    "an unknown task": (
        lambda _: unrote.load_task("digist"),
        UnknownNameError,
        "unknown task 'digist': did you mean 'digits'",
    ),
    "an unknown method": (
        lambda c: unrote.fit(TASK, "amt", checkpoint=c),
        UnknownNameError,
        "unknown method 'amt': did you mean 'mat'",
    ),
    "an unknown model": (
        lambda c: unrote.fit(TASK, model="liner", checkpoint=c),
        UnknownNameError,
        "unknown model 'liner': did you mean 'linear'",
    ),
    "a module for a model": (
        lambda c: unrote.fit(TASK, model=nn.Linear(8, 2), checkpoint=c),
        OptionError,
        "the model is a Linear.*pass a function",
    ),
    "a model with another number of logits": (
        lambda c: unrote.fit(TASK, "erm", model=lambda: nn.Linear(8, 3), checkpoint=c),
        OptionError,
        r"logits of shape .*3\)",
    ),
    "an unknown setting": (
        lambda c: unrote.fit(TASK, "mat", temprature=1, checkpoint=c),
        OptionError,
        "no setting 'temprature': it has temperature",
    ),
    "an unknown regime": (
        lambda c: unrote.fit(TASK, "erm", regime="test", checkpoint=c),  # type: ignore[arg-type]
        OptionError,
        "'test'",
    ),
    "a regime that is too weak": (
        lambda c: unrote.fit(TASK, "rwg", regime="val", checkpoint=c),
        OptionError,
        "'rwg' needs .*'train'.*not 'val'",
    ),
    "rates for members that are not there": (
        lambda c: unrote.fit(TASK, "erm", recipe=Recipe(learning_rate=(0.1, 0.2), epochs=1), checkpoint=c),
        OptionError,
        "learning_rate has 2 values for 1 members",
    ),
    "a temperature out of range": (
        lambda c: unrote.fit(TASK, "mat", temperature=-1.0, recipe=RECIPE, checkpoint=c),
        OptionError,
        "temperature -1",
    ),
    "held-out logits of another shape": (
        lambda c: unrote.fit(TASK, "mat", held_out=np.zeros((63, 2)), checkpoint=c),
        DataError,
        r"shape \(63, 2\)",
    ),
}


@pytest.mark.usefixtures("shapes_unchecked")
class TestRefuses:
    @pytest.mark.parametrize("case", BAD_DATA)
    def test_data(self, case: str) -> None:
        act, message = BAD_DATA[case]
        with pytest.raises(DataError, match=message):
            act(Path())

    @pytest.mark.parametrize("case", BAD_OPTIONS)
    def test_options_and_leaves_nothing_on_disk(self, tmp_path: Path, case: str) -> None:
        act, error, message = BAD_OPTIONS[case]
        with pytest.raises(error, match=message):
            act(tmp_path / "checkpoint")
        assert list(tmp_path.iterdir()) == []


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def of_another_format(path: Path) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 99, "version": "7.0"}))


@pytest.mark.usefixtures("shapes_unchecked")
class TestRefusesCheckpoints:
    """Of a finished MAT run; each refusal names the reason and changes no file."""

    def refuses(
        self, folder: Path, message: str, task: Task = TASK, method: str = "mat", **options: Any
    ) -> None:
        before = contents(folder)
        with pytest.raises(CheckpointError, match=message):
            unrote.fit(task, method, checkpoint=folder, **{"recipe": RECIPE, **options})
        assert contents(folder) == before

    @pytest.mark.parametrize("kind", ["json", "safetensors"])
    def test_that_are_truncated(self, folder: Path, kind: str) -> None:
        for path in folder.rglob(f"*.{kind}"):
            truncate(path)
        self.refuses(folder, "delete it|does not match its recorded hash")

    def test_of_another_version(self, folder: Path) -> None:
        for path in folder.rglob("*.json"):
            of_another_format(path)
        self.refuses(folder, "has format 99.*use unrote 7.0")

    def test_of_another_task(self, folder: Path) -> None:
        other = dataclasses.replace(TASK, name="other")
        self.refuses(folder, "belongs to another run .*task: 'planted' there, 'other' here", other)

    def test_of_other_data_of_the_same_name(self, folder: Path) -> None:
        self.refuses(folder, "belongs to another run .*data: ", planted_task(seed=1))

    def test_of_another_seed(self, folder: Path) -> None:
        self.refuses(folder, "seed: 0 there, 1 here", seed=1)

    def test_of_another_recipe(self, folder: Path) -> None:
        self.refuses(
            folder, "recipe: .*'epochs': 3.* there, .*'epochs': 4", recipe=Recipe("adam", 0.05, epochs=4)
        )

    def test_of_another_setting(self, folder: Path) -> None:
        self.refuses(folder, "temperature: 'auto' there, 0.5 here", temperature=0.5)

    def test_of_another_method(self, folder: Path) -> None:
        self.refuses(folder, "method: 'mat' there, 'erm' here", method="erm")

    def test_of_another_model(self, folder: Path) -> None:
        self.refuses(folder, "belongs to another run .model", model="linear")

    def test_of_a_model_with_the_same_parameters(self, tmp_path: Path) -> None:
        def model(p: float) -> Callable[[], nn.Module]:
            return lambda: nn.Sequential(nn.Linear(8, 4), nn.Dropout(p), nn.Linear(4, 2))

        unrote.fit(TASK, "erm", recipe=RECIPE, model=model(0.0), checkpoint=tmp_path)
        self.refuses(tmp_path, "model", method="erm", model=model(0.5))

    def test_of_another_method_before_other_stages_write(self, tmp_path: Path) -> None:
        """MAT on ERM's folder: its twins would train, and be saved, before ERM's checkpoint is met."""
        unrote.fit(TASK, "erm", recipe=RECIPE, checkpoint=tmp_path)
        self.refuses(tmp_path, "method: 'erm' there, 'mat' here")

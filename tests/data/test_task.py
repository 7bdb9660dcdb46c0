from typing import Any

import numpy as np
import pytest
import torch

from unrote.data import Split, Task
from unrote.errors import DataError, HiddenGroupsError, OptionError, UnroteError

X = np.arange(12, dtype=np.float32).reshape(6, 2)
Y = np.array([0, 1, 0, 1, 0, 1])
A = np.array([0, 0, 1, 1, 2, 2])


def task(**changes: Any) -> Task:
    splits = {name: Split(X, Y, A) for name in ("train", "validation", "test")}
    return Task("toy", **{**splits, **changes})


class TestSplit:
    def test_holds_what_it_is_given(self) -> None:
        split = Split(X, Y, A)
        assert len(split) == 6
        assert torch.equal(split.x[torch.arange(6)], torch.from_numpy(X))
        assert split.y.dtype == split.attribute.dtype == torch.int64
        assert split.y.tolist() == Y.tolist()
        assert split.attribute.tolist() == A.tolist()

    @pytest.mark.parametrize(
        "y", [Y.tolist(), Y.astype(np.uint8), Y.astype(bool), torch.tensor(Y, dtype=torch.int32)]
    )
    def test_labels_of_any_integer_type(self, y: Any) -> None:
        assert Split(X, y).y.tolist() == Y.tolist()

    @pytest.mark.parametrize(
        ("y", "message"),
        [
            (Y[:5], "y has 5 entries, the inputs 6"),
            (Y.astype(float), "type float64: integers"),
            (torch.tensor(Y) * 1.0, "type float32: integers"),
            (Y - 1, "y has -1 in row 0"),
            (Y[:, None], r"y has shape \(6, 1\)"),
            (np.int64(1), r"y has shape \(\)"),
            (["a", "b"] * 3, "encode them first"),
            ([None] * 6, "encode them first"),
        ],
    )
    def test_labels_that_are_none(self, y: Any, message: str) -> None:
        with pytest.raises(DataError, match=message):
            Split(X, y)

    def test_attributes_are_checked_alike(self) -> None:
        with pytest.raises(DataError, match="attribute has 5 entries, the inputs 6"):
            Split(X, Y, A[:5])
        with pytest.raises(DataError, match="attribute has -1 in row 0"):
            Split(X, Y, A - 1)

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    def test_inputs_that_are_not_finite(self, bad: float) -> None:
        x = X.copy()
        x[3, 1] = bad
        with pytest.raises(DataError, match="NaN or infinity, first in row 3"):
            Split(x, Y)

    @pytest.mark.parametrize("x", [X[:0], np.zeros((6, 0))])
    def test_empty(self, x: np.ndarray) -> None:
        with pytest.raises(DataError, match="empty"):
            Split(x, Y[: len(x)])

    def test_subset(self) -> None:
        part = Split(X, Y, A).subset(torch.tensor([5, 0, 3]))
        assert part.x[torch.arange(3)].tolist() == X[[5, 0, 3]].tolist()
        assert part.y.tolist() == [1, 0, 1]
        assert part.attribute.tolist() == [2, 0, 1]


class TestTask:
    def test_names_default_to_numbers(self) -> None:
        assert task().class_names == ("0", "1")
        assert task().attribute_names == ("0", "1", "2")
        bare = Split(X, Y)
        assert task(train=bare, validation=bare, test=bare).attribute_names == ()

    def test_names_cover_every_split(self) -> None:
        """A class or an attribute may first be seen in the test split."""
        test = Split(X, Y + 1, A + 1)
        assert task(test=test).class_names == ("0", "1", "2")
        assert task(test=test).attribute_names == ("0", "1", "2", "3")

    def test_groups(self) -> None:
        toy = task(class_names=("no", "yes"), attribute_names=("red", "green", "blue"))
        assert (toy.n_classes, toy.n_attributes, toy.n_groups) == (2, 3, 6)
        names = [f"{('no', 'yes')[y]}, {('red', 'green', 'blue')[a]}" for y, a in zip(Y, A, strict=True)]
        assert [toy.group_names[g] for g in toy.group(toy.train)] == names
        assert len(set(toy.group_names)) == 6

    def test_optional_splits(self) -> None:
        assert list(task(validation=None).splits) == ["train", "test"]
        assert list(task(validation=None, test=None).splits) == ["train"]

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"train": Split(X, Y * 0)}, "all training labels are class 0"),
            (
                {"test": Split(X, Y * 2), "class_names": ("no", "yes")},
                r"test has label 2, .*\(no, yes\).* 0 to 1",
            ),
            (
                {"validation": Split(X, Y, A + 1), "attribute_names": ("a", "b", "c")},
                "validation has attribute 3",
            ),
            ({"test": Split(X[:, :1], Y, A)}, r"test examples have shape \(1,\), training examples \(2,\)"),
        ],
    )
    def test_splits_that_do_not_fit(self, changes: dict[str, Any], message: str) -> None:
        with pytest.raises(DataError, match=message):
            task(**changes)

    def test_fingerprint_tells_training_data_apart(self) -> None:
        x, y = X.copy(), Y.copy()
        x[0, 0] += 1
        y[0] = 1
        prints = [task(train=train).fingerprint() for train in (Split(X, Y), Split(x, Y), Split(X, y))]
        assert len(set(prints)) == 3
        assert task().fingerprint() == prints[0]


class TestRegimes:
    @pytest.mark.parametrize(
        ("regime", "visible"), [("none", set()), ("val", {"validation"}), ("train", {"train", "validation"})]
    )
    def test_who_sees_what(self, regime: Any, visible: set[str]) -> None:
        whole = task()
        seen = whole.for_regime(regime)
        assert seen.attribute_names == whole.attribute_names
        for name, split in seen.splits.items():
            assert split.has_attribute == (name in visible)
            assert torch.equal(split.y, whole.splits[name].y)
            if name in visible:
                assert split.attribute.tolist() == A.tolist()
                continue
            with pytest.raises(HiddenGroupsError, match=f"hidden in the annotation regime '{regime}'"):
                _ = split.attribute
            with pytest.raises(HiddenGroupsError):
                seen.group(split)
            with pytest.raises(HiddenGroupsError):
                _ = split.subset(torch.tensor([0, 1])).attribute
        assert all(split.has_attribute for split in whole.splits.values())  # the whole task is left as it was

    def test_the_attribute_is_gone_not_masked(self) -> None:
        marked = np.array([7, 8, 9, 7, 8, 9])
        hidden = task(train=Split(X, Y, marked)).for_regime("none").train
        held = [value for value in vars(hidden).values() if isinstance(value, torch.Tensor)]
        assert not any(value.tolist() == marked.tolist() for value in held)

    def test_hidden_groups_are_an_attribute_error(self) -> None:
        """So that `hasattr` and `getattr` with a default answer as for any other missing attribute."""
        hidden = task().for_regime("none").train
        assert not hasattr(hidden, "attribute")
        assert issubclass(HiddenGroupsError, UnroteError)

    def test_without_annotation(self) -> None:
        with pytest.raises(HiddenGroupsError, match="no group labels"):
            _ = Split(X, Y).attribute

    @pytest.mark.usefixtures("shapes_unchecked")
    def test_unknown_regime(self) -> None:
        with pytest.raises(OptionError, match="'validation': 'none', 'val' or 'train'"):
            task().for_regime("validation")  # type: ignore[arg-type]

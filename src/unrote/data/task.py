"""Task and Split: labelled data, the groups in it, and what an annotation regime lets a run see of them."""

import hashlib
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from unrote.data.inputs import Inputs, as_inputs
from unrote.errors import DataError, HiddenGroupsError, OptionError

Regime = Literal["none", "val", "train"]
"""Where group labels may be used: nowhere, on the validation split, on both training and validation splits."""


def as_labels(values: Any, name: str, n: int | None = None) -> Int[Tensor, " n"]:
    """Class or attribute indices as an int64 tensor.

    Raises:
        DataError: if they are not a vector of integers of at least 0, or not `n` of them.
    """
    try:
        array = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    except ValueError as error:
        raise DataError(f"{name} is ragged: a vector (n,) of integers is wanted") from error
    if array.ndim != 1:
        raise DataError(f"{name} has shape {array.shape}: a vector (n,) is wanted")
    if array.dtype.kind not in "iub":
        raise DataError(f"{name} has type {array.dtype}: integers 0, 1, ... are wanted; encode them first")
    if n is not None and len(array) != n:
        raise DataError(f"{name} has {len(array)} entries, the inputs {n}: one entry per example is wanted")
    if not len(array):
        raise DataError(f"{name} is empty: at least one example is wanted")
    labels = torch.from_numpy(array.astype(np.int64))
    if int(labels.min()) < 0:
        row = int(labels.argmin())
        raise DataError(f"{name} has {int(labels[row])} in row {row}: integers from 0 are wanted")
    return labels


class Split:
    """n examples with their labels and, where they are known, attributes.

    Args:
        x: tensor, array or memory map (n, ...), or a map-style `Dataset`.
        y: (n,) class indices.
        attribute: (n,) attribute indices, or None where nobody annotated them.
        hidden_in: the regime in which the attribute exists but may not be seen; set by `Task.for_regime`.
        membership: (n, G) of bool, which overlapping groups an example is in, where a task is scored by such.
    """

    def __init__(
        self,
        x: Any,
        y: Any,
        attribute: Any = None,
        *,
        hidden_in: Regime | None = None,
        membership: Any = None,
    ) -> None:
        self.x: Inputs = as_inputs(x)
        self.y: Int[Tensor, " n"] = as_labels(y, "y", len(self.x))
        self._attribute = None if attribute is None else as_labels(attribute, "attribute", len(self.x))
        self._hidden_in = hidden_in
        self.membership = None if membership is None else _as_membership(membership, len(self.x))

    def __len__(self) -> int:
        return len(self.x)

    @property
    def has_attribute(self) -> bool:
        """Whether the attribute is annotated and may be seen."""
        return self._attribute is not None

    @property
    def attribute(self) -> Int[Tensor, " n"]:
        """Attribute of each example, (n,).

        Raises:
            HiddenGroupsError: if the regime hides it, or nobody annotated it.
        """
        if self._attribute is not None:
            return self._attribute
        if self._hidden_in is not None:
            raise HiddenGroupsError(
                f"group labels of this split are hidden in the annotation regime {self._hidden_in!r}: "
                "choose a method that does not need them, groups='xrm', or another regime"
            )
        raise HiddenGroupsError("this split has no group labels: pass attribute=, or use groups='xrm'")

    def without_attribute(self, regime: Regime) -> "Split":
        """The same examples with the attribute gone, not merely masked."""
        return Split(self.x, self.y, hidden_in=regime)

    def subset(self, index: Int[Tensor, " m"]) -> "Split":
        """The examples at `index`, copied."""
        attribute = None if self._attribute is None else self._attribute[index]
        membership = None if self.membership is None else self.membership[index]
        return Split(
            self.x.subset(index), self.y[index], attribute, hidden_in=self._hidden_in, membership=membership
        )


def _as_membership(values: Any, n: int) -> Bool[Tensor, "n G"]:
    membership = torch.as_tensor(values)
    if membership.ndim != 2 or len(membership) != n or membership.dtype != torch.bool:
        raise DataError(
            f"membership of shape {tuple(membership.shape)} and type {membership.dtype}: truth values "
            f"({n}, G), a row per example, are wanted"
        )
    return membership


@dataclass(frozen=True)
class Task:
    """A classification task: its splits and the names of its classes and attributes.

    Groups are pairs of class and attribute: g = y * n_attributes + a.

    Args:
        name: short identifier, as in the task registry.
        train: what is learned from; needs at least two classes.
        validation: what choices are made on.
        test: what is reported.
        class_names: one per class.
        attribute_names: one per attribute value; empty where there are no group labels.
        shortcut: one line on what the attribute is and how it came about.
        overlapping_names: of the groups that the task is scored by, where an example can be in several or in
            none; one per column of the splits' `membership`. Empty where groups are class and attribute.

    Raises:
        DataError: if labels or attributes lie outside the names, training has one class, or shapes differ.
    """

    name: str
    train: Split
    validation: Split | None = None
    test: Split | None = None
    class_names: tuple[str, ...] = ()
    attribute_names: tuple[str, ...] = ()
    shortcut: str = ""
    overlapping_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        splits = self.splits
        if not self.class_names:
            n = 1 + max(int(split.y.max()) for split in splits.values())
            object.__setattr__(self, "class_names", tuple(map(str, range(n))))
        if not self.attribute_names:
            seen = [int(s.attribute.max()) for s in splits.values() if s.has_attribute]
            names = tuple(map(str, range(1 + max(seen)))) if seen else ()
            object.__setattr__(self, "attribute_names", names)
        if len(self.train.y.unique()) < 2:
            raise DataError(
                f"task {self.name!r}: all training labels are class {int(self.train.y[0])}, two are wanted"
            )
        for where, split in splits.items():
            self._check(where, split)

    def _check(self, where: str, split: Split) -> None:
        if int(split.y.max()) >= self.n_classes:
            raise DataError(
                f"task {self.name!r}: {where} has label {int(split.y.max())}, but there are {self.n_classes} "
                f"classes ({', '.join(self.class_names)}): labels run from 0 to {self.n_classes - 1}"
            )
        if split.has_attribute and int(split.attribute.max()) >= self.n_attributes:
            raise DataError(
                f"task {self.name!r}: {where} has attribute {int(split.attribute.max())}, but there are "
                f"{self.n_attributes} attribute names: attributes run from 0 to {self.n_attributes - 1}"
            )
        columns = 0 if split.membership is None else split.membership.shape[1]
        if columns not in (0, len(self.overlapping_names)):
            raise DataError(
                f"task {self.name!r}: {where} has {columns} overlapping groups, {len(self.overlapping_names)} "
                "have a name: one name each is wanted"
            )
        if split.x.shape != self.train.x.shape:
            raise DataError(
                f"task {self.name!r}: {where} examples have shape {split.x.shape}, training examples "
                f"{self.train.x.shape}: they must be equal"
            )

    @property
    def splits(self) -> dict[str, Split]:
        """The splits that exist, by name, in the order train, validation, test."""
        named = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: split for name, split in named.items() if split is not None}

    @property
    def n_classes(self) -> int:
        """Number of classes C."""
        return len(self.class_names)

    @property
    def n_attributes(self) -> int:
        """Number of attribute values, 0 where there are no group labels."""
        return len(self.attribute_names)

    @property
    def n_groups(self) -> int:
        """Number of groups, n_classes * n_attributes."""
        return self.n_classes * self.n_attributes

    @property
    def group_names(self) -> tuple[str, ...]:
        """Name of each group, "class, attribute", in the order of group indices."""
        return tuple(f"{c}, {a}" for c in self.class_names for a in self.attribute_names)

    def group(self, split: Split) -> Int[Tensor, " n"]:
        """Group of each example of a split, (n,): y * n_attributes + attribute."""
        return split.y * self.n_attributes + split.attribute

    @property
    def scored_group_names(self) -> tuple[str, ...]:
        """Names of the groups that the task is scored by: overlapping ones if it has such, else `group_names`."""
        return self.overlapping_names or self.group_names

    def scored_groups(self, split: Split) -> Int[Tensor, " n"] | Bool[Tensor, "n G"]:
        """The groups that a split is scored by: (n, G) membership where they overlap, else (n,) indices.

        Raises:
            HiddenGroupsError: if the regime hides them, or nobody annotated them.
        """
        if self.overlapping_names and split.membership is not None:
            return split.membership
        return self.group(split)

    def for_regime(self, regime: Regime) -> "Task":
        """The task as a run in an annotation regime sees it: attributes it may not use are removed.

        The test split loses them in every regime: tests are scored by whoever holds the whole task.

        Raises:
            OptionError: if there is no such regime.
        """
        if regime not in get_args(Regime):
            raise OptionError(f"annotation regime {regime!r}: 'none', 'val' or 'train' is wanted")
        hidden = {"none": ("train", "validation", "test"), "val": ("train", "test"), "train": ("test",)}[
            regime
        ]
        seen: dict[str, Any] = {
            name: split.without_attribute(regime) for name, split in self.splits.items() if name in hidden
        }
        return replace(self, **seen)

    def fingerprint(self) -> str:
        """A short hash of the training data, to tell whether a checkpoint belongs to this task."""
        digest = hashlib.blake2b(self.train.x.fingerprint().encode(), digest_size=8)
        digest.update(self.train.y.numpy().tobytes())
        return digest.hexdigest()

"""The groups that a record tells examples apart by: annotated ones, else those that XRM's twins infer."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Int
from torch import Tensor

from unrote.data import Task
from unrote.heldout import XRMResult
from unrote.table_runs import INFERRED


@dataclass(frozen=True)
class GroupView:
    """Groups of a task's splits.

    Args:
        task: all of it, group labels included where there are any.
        twins: XRM's, or None where nobody trained them.
    """

    task: Task
    twins: XRMResult | None

    @property
    def kind(self) -> Literal["annotated", "inferred"] | None:
        """Where groups come from; None if there are none."""
        if self.task.train.has_attribute:
            return "annotated"
        return None if self.twins is None else "inferred"

    @property
    def names(self) -> tuple[str, ...]:
        """Of the groups in `of`."""
        return {"annotated": self.task.group_names, "inferred": INFERRED, None: ()}[self.kind]

    @property
    def scored_names(self) -> tuple[str, ...]:
        """Of the groups in `scored`; the classes where there are no groups."""
        if self.kind == "annotated":
            return self.task.scored_group_names
        return self.names or self.task.class_names

    def of(self, split: str) -> Int[Tensor, " n"] | None:
        """The group of each example of a split, one each; None where they are not known."""
        examples = self.task.splits[split]
        if self.kind == "annotated":
            return self.task.group(examples) if examples.has_attribute else None
        if self.twins is None:
            return None
        return self.minority(split)

    def minority(self, split: str) -> Int[Tensor, " n"] | None:
        """Inferred group of each example of a split: 1 where a twin is wrong about it; None without twins."""
        if self.twins is None:
            return None
        if split == "train":
            return self.twins.mistakes[self.twins.best].long()
        if self.twins.trained is None:
            return None
        pair = slice(2 * self.twins.best, 2 * self.twins.best + 2)
        examples = self.task.splits[split]
        wrong = self.twins.trained.predict_classes(examples.x)[pair] != examples.y
        return wrong.any(0).long()

    def scored(self, split: str) -> Any:
        """What a split's accuracies are by: (n,) indices or (n, G) membership; the classes where nothing is known."""
        examples = self.task.splits[split]
        if self.kind == "annotated" and examples.has_attribute:
            return self.task.scored_groups(examples)
        if self.kind == "inferred" and (found := self.of(split)) is not None:
            return found
        return examples.y if self.kind is None else None


def training_counts(view: GroupView) -> Int[Tensor, " G"] | None:
    """Training examples of each scored group, where an example is in one of them; else None."""
    if view.kind != "annotated" or view.task.overlapping_names:
        return None
    return torch.bincount(view.task.group(view.task.train), minlength=view.task.n_groups)

"""The part of the influence matrix that a page shows: as many training and test examples of each group."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from unrote.data import Task
from unrote.errors import UnroteError
from unrote.memorization import influence_matrix
from unrote.record.contents import content
from unrote.record.curves import scored_split
from unrote.record.groups import GroupView
from unrote.record.runs import Trained
from unrote.seeding import generator
from unrote.tables import TableTask

_SIDE = 48  # rows and columns at most: more cells than these nobody can point at


def influence_part(
    task: Task,
    table: TableTask | None,
    trained: Mapping[str, Trained],
    view: GroupView,
    shown: Mapping[str, Any],
    arrays: dict[str, np.ndarray],
    missing: dict[str, str],
) -> dict[str, Any] | None:
    """The influence of some training examples on some others under each method; the numbers go into the arrays.

    Influence is that on the loss of the other example, in nats: what leaving the training example out adds to it,
    to first order.

    Args:
        task: with all the group labels there are.
        table: the tables it was made of, if it was.
        trained: what was trained, by name.
        view: of its groups.
        shown: what stands for the examples of a split.
        arrays: added to.
        missing: added to.
    """
    split = scored_split(task)
    if split is None:
        missing["influence"] = "there is no test or validation split whose examples could be influenced"
        return None
    groups = {name: view.of(name) for name in ("train", split)}
    rows, columns = (_sample(groups[name], len(task.splits[name]), name) for name in ("train", split))
    target, found = task.splits[split], False
    for k, (name, one) in enumerate(trained.items()):
        try:
            if not one.fitted.stack_alone:
                missing[f"{name}: influence"] = "it is more than one model, so it has no head to read"
                continue
            tested = torch.from_numpy(columns)
            matrix = influence_matrix(
                one.fitted, task.train.x, task.train.y, target.x[tested], target.y[tested]
            )
            arrays[f"{k}.influence"] = (matrix[rows] / len(task.train)).astype(np.float32)
            found = True
        except UnroteError as error:
            missing[f"{name}: influence"] = str(error)
    if not found:
        missing["influence"] = "no method has a head whose influence can be computed"
        return None
    arrays["influence.train"], arrays["influence.test"] = rows.astype(np.int32), columns.astype(np.int32)
    arrays["influence.test_y"] = target.y.numpy()[columns].astype(np.int32)
    if (group := groups[split]) is not None:
        arrays["influence.test_group"] = group.numpy()[columns].astype(np.int32)
    lines = {}
    for side, where, index in (("train", "train", rows), ("test", split, columns)):
        seen = content(task.splits[where], index, table, where, shown.get(where))
        if seen.pictures is not None:
            arrays[f"influence.{side}_pictures"] = seen.pictures
        lines[side] = seen.lines
    return {"train": lines["train"], "test": lines["test"], "split": split}


def _sample(group: Any, n: int, name: str) -> np.ndarray:
    """Rows drawn at random, as many of each group as the smallest allows, ordered by group."""
    random = generator(0, "influence shown", name)
    index = torch.zeros(n, dtype=torch.long) if group is None else group
    present = [(index == g).nonzero().flatten() for g in index.unique()]
    share = max(1, _SIDE // len(present))
    each = max(1, min(share, *(len(rows) for rows in present)))
    drawn = [rows[torch.randperm(len(rows), generator=random)[: min(each, len(rows))]] for rows in present]
    return torch.cat(drawn)[:_SIDE].numpy()

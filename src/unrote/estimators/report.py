"""What `report()` gives: figures that print as a table, and `to_dict()` for everything else."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Int, Shaped

from unrote.estimators.findings import HeldOutFindings
from unrote.metrics import GroupReport, SubsetAccuracy, group_report


@dataclass(frozen=True)
class MemorizedRow:
    """A training row that the model knows far better than models that did not train on it.

    Args:
        row: its index in the training data.
        label: its label.
        memorization: p_train(label) - p_heldout(label), in [-1, 1].
    """

    row: int
    label: str
    memorization: float


@dataclass(frozen=True, repr=False)
class TrainingReport:
    """A classifier on the data that it was trained on.

    Args:
        classifier: its name.
        n: training rows.
        accuracy: on them.
        classes: accuracy on each class.
        inferred_groups: accuracy where held-out predictions are right, and where they are wrong; empty if
            there are no held-out predictions.
        rote_share: share of the rows that the model gets right and held-out predictions get wrong; None if
            there are none. With "kfold", whose models are trained as the final one is, this is what was
            learned by rote. XRM's twins are made to learn shortcuts: with them, part of it may be rows that
            the model gets right by a better rule, and `report(X, y)` on new data tells which.
        flip_rate: share of labels that XRM's twins ended up changing; None without twins.
        most_memorized: rows in falling order of memorization.
    """

    classifier: str
    n: int
    accuracy: float
    classes: tuple[SubsetAccuracy, ...]
    inferred_groups: tuple[SubsetAccuracy, ...]
    rote_share: float | None
    flip_rate: float | None
    most_memorized: tuple[MemorizedRow, ...]

    def to_dict(self) -> dict[str, Any]:
        """What JSON can hold; what is missing is null."""
        return {
            **asdict(self),
            "classes": [one.to_dict() for one in self.classes],
            "inferred_groups": [one.to_dict() for one in self.inferred_groups],
            "most_memorized": [asdict(one) for one in self.most_memorized],
        }

    def __repr__(self) -> str:
        lines = [f"{self.classifier} on its {self.n:,} training rows: accuracy {self.accuracy:.3f}", ""]
        lines += _table(("class", "rows", "accuracy"), map(_training_row, self.classes))
        if self.inferred_groups:
            lines += [
                "",
                *_table(("inferred group", "rows", "accuracy"), map(_training_row, self.inferred_groups)),
            ]
        else:
            lines += ["", "no held-out predictions: held_out='kfold' shows what is learned by rote"]
        if self.rote_share is not None:
            lines += ["", f"right in training, wrong when held out: {self.rote_share:.1%} of the rows"]
        if self.flip_rate is not None:
            lines += [f"flip rate of the twins: {self.flip_rate:.3f}"]
        if self.most_memorized:
            rows = ((f"{one.row}", one.label, f"{one.memorization:.3f}") for one in self.most_memorized)
            lines += ["", "most memorized", *_table(("row", "label", "memorization"), rows)]
        return "\n".join(lines)


@dataclass(frozen=True, repr=False)
class EvaluationReport:
    """A classifier on data that it was not trained on.

    Args:
        classifier: its name.
        figures: accuracies with exact intervals; see `GroupReport`. Groups are pairs of class and attribute,
            or the classes where no attributes were given.
        by_group: whether attributes were given.
    """

    classifier: str
    figures: GroupReport
    by_group: bool

    def to_dict(self) -> dict[str, Any]:
        """What JSON can hold: the figures of `GroupReport`."""
        return self.figures.to_dict()

    def __repr__(self) -> str:
        figures = self.figures
        header = ("rows", "accuracy", f"{figures.level:.0%} interval")
        lines = [f"{self.classifier} on {figures.n:,} rows: accuracy {figures.average:.3f}", ""]
        lines += _table(("class", *header), map(_evaluation_row, figures.class_accuracy))
        if self.by_group:
            lines += ["", *_table(("group", *header), map(_evaluation_row, figures.groups))]
            worst = figures.worst_group
            lines += ["", f"worst group: {worst.name}, accuracy {worst.accuracy:.3f}"]
            lines += [f"mean over groups: {figures.group_mean:.3f}"]
        return "\n".join(lines)


def training_report(
    classifier: str,
    class_names: Sequence[str],
    y: Int[np.ndarray, " n"],
    right: Bool[np.ndarray, " n"],
    found: HeldOutFindings | None,
    n_memorized: int,
) -> TrainingReport:
    """Sum up a fit.

    Args:
        classifier: its name.
        class_names: C names.
        y: (n,) class indices.
        right: (n,) whether the model is right about the row.
        found: what held-out predictions tell, or None.
        n_memorized: how many rows to list at most.
    """
    # -1 stands for any wrong class: accuracies do not depend on which
    predicted = np.where(right, y, -1)
    group = np.zeros(len(y), dtype=np.int64) if found is None else found.groups
    names = ("", "") if found is None else found.group_names
    figures = group_report(y, predicted, group, names, class_names=class_names)
    rows: tuple[MemorizedRow, ...] = ()
    if found is not None:
        top = np.argsort(-found.memorization, kind="stable")[:n_memorized]
        rows = tuple(MemorizedRow(int(i), class_names[y[i]], float(found.memorization[i])) for i in top)
    return TrainingReport(
        classifier=classifier,
        n=len(y),
        accuracy=float(right.mean()),
        classes=figures.class_accuracy,
        inferred_groups=() if found is None else figures.groups,
        rote_share=None if found is None else float((right & (found.logits.argmax(1) != y)).mean()),
        flip_rate=None if found is None else found.flip_rate,
        most_memorized=rows,
    )


def evaluation_report(
    classifier: str,
    class_names: Sequence[str],
    y: Int[np.ndarray, " n"],
    predicted: Int[np.ndarray, " n"],
    attributes: tuple[Shaped[np.ndarray, " A"], Int[np.ndarray, " n"]] | None,
    level: float,
) -> EvaluationReport:
    """Score predictions by group, or by class alone.

    Args:
        classifier: name.
        class_names: C names.
        y: (n,) class indices.
        predicted: (n,) class indices.
        attributes: the A different attribute labels and the index of each example's, or None.
        level: of the intervals.
    """
    group, names = y, list(class_names)
    if attributes is not None:
        labels, attribute = attributes
        group = y * len(labels) + attribute
        names = [f"{name}, {label}" for name in class_names for label in labels.tolist()]
    figures = group_report(y, predicted, group, names, level=level, class_names=class_names)
    return EvaluationReport(classifier, figures, attributes is not None)


def _training_row(one: SubsetAccuracy) -> tuple[str, str, str]:
    return one.name, f"{one.n:,}", "" if one.accuracy is None else f"{one.accuracy:.3f}"


def _evaluation_row(one: SubsetAccuracy) -> tuple[str, str, str, str]:
    interval = "" if one.interval is None else f"{one.interval[0]:.3f} to {one.interval[1]:.3f}"
    return (*_training_row(one), interval)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines with the first column to the left and the others to the right."""
    cells = [header, *rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    return [
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]

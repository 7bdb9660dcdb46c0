"""Audit of a table: is there a shortcut, which rows are learned by rote, how good is a model on inferred groups.

    train XRM's twins                       who disagrees with what is easiest to learn: the inferred minority
    train ERM, and ERM on 4 of 5 folds      what is known of a row with and without it in the training set
    train MAT                               what is left to learn once the easy answer is given
    memorization of row i = p(y_i) by the model trained on i - p(y_i) by the one that was not

A shortcut leaves two traces that neither noise nor hard rows leave together: twins trained on different rows agree
which rows break it, and those rows can be got right by features that hold for all. The verdict asks for both, on
training rows that each model was not trained on (unrote.automatic); docs/automatic.md says how often it was right.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from unrote.automatic import Evidence, settings
from unrote.errors import OptionError
from unrote.memorization.compare import KINDS, noise_map
from unrote.methods.shortcut_search import first_shortcut
from unrote.table_runs import (
    Scores,
    confidence_in_label,
    inferred_minority,
    method_for_tables,
    open_session,
    score,
)
from unrote.tables import Dates, Numbers, Strings, Table, TableTask
from unrote.tables.columns import as_strings

Kind = Literal["signs", "unclear", "none", "unknown"]

MEMORIZED = 0.5
"""A row counts as learned by rote if its memorization is above this."""

DOUBTFUL = 0.05
"""A label is in doubt if a model trained without the row gives it less than this."""

_MILD = 2.0  # MAT's temperature here, whatever the verdict: what it does to rows that break the easiest rule
_FEW_ROWS = 20  # of the minority in the test: below, its accuracy is anybody's guess
_GOOD = 0.70  # ERM's accuracy on the minority above which it hardly relies on a shortcut
_GAIN_IF_GOOD = 0.15  # in its accuracy there, by MAT


@dataclass(frozen=True)
class Verdict:
    """Whether there is a shortcut, in a word and in a sentence or two.

    Args:
        kind: "signs" of one, "unclear", "none" seen, or "unknown" as there is too little to go by.
        title: a few words.
        reason: the figures behind it.
    """

    kind: Kind
    title: str
    reason: str


@dataclass(frozen=True)
class RoteRow:
    """A training row and how it was learned.

    Args:
        row: its number in the table; 1 is the first below the header.
        name: its number, or its file.
        label: its class.
        held_out_prediction: the class that a model trained without it predicts.
        p_train: probability of its label by a model trained with it.
        p_held_out: likewise, trained without it.
        memorization: the difference.
        inferred_minority: whether XRM's twins disagree with its label.
        values: of a few columns, as strings.
    """

    row: int
    name: str
    label: str
    held_out_prediction: str
    p_train: float
    p_held_out: float
    memorization: float
    inferred_minority: bool
    values: dict[str, str]


@dataclass(frozen=True)
class Share:
    """How much of a group of training rows is in the inferred minority.

    Args:
        name: of the group, or of the class.
        n: training rows.
        minority: share of them in the inferred minority.
        part: share of the inferred minority that is of this group.
    """

    name: str
    n: int
    minority: float
    part: float


@dataclass(frozen=True)
class Audit:
    """What an audit found.

    Args:
        source: name of the table.
        target: the column of classes.
        group: the column of attributes; None if there is none.
        rows: rows in each split.
        verdict: is there a shortcut.
        evidence: the measurements that the verdict is from.
        flip_rate: share of training labels that XRM's twins talked each other out of.
        degenerate: whether XRM put all of some class on one side, so that its groups say nothing.
        minority_share: of the training rows, in the inferred minority.
        held_out_accuracy: of ERM on training rows, each predicted by a model trained without it.
        train_accuracy: of ERM on the rows it was trained on.
        memorized_share: of the training rows, with memorization above `MEMORIZED`.
        doubtful_share: of the training rows, whose label a model trained without them gives less than `DOUBTFUL`.
        erm: scores on the test rows.
        mat: likewise.
        rote: the most memorized rows, the most memorized first.
        classes: inferred minority by class.
        composition: inferred minority by class and attribute; empty where there is no group column.
        kinds: inferred minority by kind of row on the map of memorization and held-out probability, which tells
            rare rows from doubtful ones; see `unrote.memorization.noise_map`.
        by_row: what `RoteRow` has, but for values, of every training row, by name; in the order of the table.
    """

    source: str
    target: str
    group: str | None
    rows: dict[str, int]
    verdict: Verdict
    evidence: Evidence
    flip_rate: float
    degenerate: bool
    minority_share: float
    held_out_accuracy: float
    train_accuracy: float
    memorized_share: float
    doubtful_share: float
    erm: Scores
    mat: Scores
    rote: tuple[RoteRow, ...]
    classes: tuple[Share, ...]
    composition: tuple[Share, ...]
    kinds: tuple[Share, ...]
    by_row: Mapping[str, Sequence[Any] | np.ndarray] = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """What JSON can hold: all but `by_row`."""
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "by_row"}
        return plain | {
            "verdict": asdict(self.verdict),
            "evidence": self.evidence.to_dict(),
            "erm": self.erm.to_dict(),
            "mat": self.mat.to_dict(),
            "rote": [asdict(row) for row in self.rote],
            "classes": [asdict(share) for share in self.classes],
            "composition": [asdict(share) for share in self.composition],
            "kinds": [asdict(share) for share in self.kinds],
        }


def audit_table(
    made: TableTask,
    *,
    model: str | None = None,
    epochs: int | None = None,
    seed: int = 0,
    top: int = 20,
    columns: int = 3,
    progress: bool = False,
) -> Audit:
    """Look for a shortcut in a table, and for rows that are learned by rote.

    Args:
        made: with a test split; see `unrote.tables.make_task`.
        model: "linear", "mlp" or "cnn"; default by the shape of an example.
        epochs: passes over the training rows; default by their number.
        seed: of everything random.
        top: how many rows to list.
        columns: how many columns of a row to show.
        progress: whether to show progress bars.

    Raises:
        OptionError: if there are no test rows.
    """
    if made.task.test is None:
        raise OptionError("an audit needs rows that no model was trained on: leave a test share, such as 0.2")
    erm_method, mat_method = method_for_tables("erm"), method_for_tables("mat", {"temperature": _MILD})
    session = open_session(made, erm_method, model=model, epochs=epochs, seed=seed, progress=progress)
    y, test = made.task.train.y, made.task.test
    twins = session.xrm()
    minority = twins.mistakes[twins.best].bool()
    erm, mat = erm_method.fit(session), mat_method.fit(session)
    held_out = session.held_out("kfold").logits
    test_minority = inferred_minority(twins.stack, made, "test")
    predictions = erm.predict(test.x), mat.predict(test.x)
    erm_scores, mat_scores = (score(made, one, test_minority) for one in predictions)
    evidence = first_shortcut(session, twins.held_out(), settings((0.1,))).evidence
    trained = erm.logits(made.task.train.x)
    degenerate = bool(twins.degenerate[twins.best])
    by_row = _by_row(made, trained, held_out, minority)
    order = np.argsort(-by_row["memorization"], kind="stable")
    kinds = torch.from_numpy(noise_map(by_row["memorization"], by_row["p_held_out"]))
    task = made.task
    group = task.group(task.train) if task.train.has_attribute else None
    return Audit(
        source=made.tables["train"].source,
        target=made.target,
        group=made.group,
        rows={name: len(split) for name, split in task.splits.items()},
        verdict=judge(erm_scores, mat_scores, evidence, degenerate=degenerate),
        evidence=evidence,
        flip_rate=float((twins.labels[twins.best] != y).float().mean()),
        degenerate=degenerate,
        minority_share=float(minority.float().mean()),
        held_out_accuracy=float((held_out.argmax(-1) == y).float().mean()),
        train_accuracy=float((trained.argmax(-1) == y).float().mean()),
        memorized_share=float((by_row["memorization"] > MEMORIZED).mean()),
        doubtful_share=float((by_row["p_held_out"] < DOUBTFUL).mean()),
        erm=erm_scores,
        mat=mat_scores,
        rote=tuple(_rote_row(made, by_row, int(i), columns) for i in order[:top]),
        classes=_shares(task.class_names, y, minority),
        composition=() if group is None else _shares(task.group_names, group, minority),
        kinds=_shares(KINDS, kinds, minority),
        by_row=by_row,
    )


def judge(erm: Scores, mat: Scores, evidence: Evidence, *, degenerate: bool) -> Verdict:
    """The verdict on a table.

    Args:
        erm: scores on its test rows of a model trained as usual.
        mat: of a model trained against the inferred shortcut.
        evidence: from its training rows; alone decides whether there are signs of a shortcut.
        degenerate: whether XRM put all of some class on one side.
    """
    few = erm.inferred[1].n < _FEW_ROWS
    if degenerate or few:
        why = (
            "the twins put all rows of a class on one side, so the groups they infer say nothing"
            if degenerate
            else f"only {erm.inferred[1].n} test rows break what is easiest to learn, too few to judge by"
        )
        return Verdict("unknown", "No verdict", f"{why[0].upper()}{why[1:]}.")
    (usual_rest, usual), (_, against) = (_accuracies(scores.inferred) for scores in (erm, mat))
    cost = _accuracies([erm.overall])[0] - _accuracies([mat.overall])[0]
    figures = (
        f"ERM is right on {usual_rest:.0%} of the inferred majority and {usual:.0%} of the inferred minority; "
        f"MAT is right on {against:.0%} of the minority, "
        f"and on {abs(cost):.1%} {'fewer' if cost > 0 else 'more'} of all rows."
    )
    agreed = (
        f"two differ on {evidence.agreement.differ:.1%} of the rows, kappa {evidence.agreement.kappa:.2f}"
    )
    if evidence.shortcut:
        reason = (
            f"Models that saw different rows agree which ones are exceptions ({agreed}), and these can be got "
            f"right by something else that holds for all (p = {evidence.p_value:.2g})."
        )
        return Verdict("signs", "Signs of a shortcut", f"{reason} {figures}")
    if not evidence.agreement.easy_rule:
        reason = f"Models that saw different rows do not agree on an easy rule and its exceptions ({agreed})."
        return Verdict("none", "No sign of a shortcut", f"{reason} {figures}")
    if usual >= _GOOD and against - usual < _GAIN_IF_GOOD:
        reason = "Rows that break the rule which is easiest to learn are mostly got right all the same."
        return Verdict("none", "No sign of a shortcut", f"{reason} {figures}")
    reason = (
        "There is an easy rule, but its exceptions look like noise or hard rows at least as much as a "
        f"shortcut's: that they can be learned is not shown (p = {evidence.p_value:.2g})."
    )
    return Verdict("unclear", "Not clear", f"{reason} {figures}")


def _accuracies(subsets: Any) -> list[float]:
    return [np.nan if one.accuracy is None else one.accuracy for one in subsets]


def _shares(
    names: Sequence[str], index: Int[Tensor, " n"], minority: Bool[Tensor, " n"]
) -> tuple[Share, ...]:
    n = torch.bincount(index, minlength=len(names))
    hits = torch.bincount(index[minority], minlength=len(names))
    total = max(int(hits.sum()), 1)
    return tuple(
        Share(name, int(k), int(h) / int(k), int(h) / total)
        for name, k, h in zip(names, n, hits, strict=True)
        if int(k)
    )


def _by_row(
    made: TableTask,
    trained: Float[Tensor, "n C"],
    held_out: Float[Tensor, "n C"],
    minority: Bool[Tensor, " n"],
) -> dict[str, Any]:
    """How every training row was learned, by what is said of it."""
    y, rows, names = made.task.train.y, made.rows["train"], made.task.class_names
    p_train, p_held_out = confidence_in_label(trained, y), confidence_in_label(held_out, y)
    return {
        "row": rows + 1,
        "name": [made.tables["train"].row_name(int(row)) for row in rows],
        "label": [names[c] for c in y.tolist()],
        "held_out_prediction": [names[c] for c in held_out.argmax(-1).tolist()],
        "p_train": p_train,
        "p_held_out": p_held_out,
        "memorization": p_train - p_held_out,
        "inferred_minority": minority.numpy(),
    }


def _rote_row(made: TableTask, by_row: Mapping[str, Any], example: int, columns: int) -> RoteRow:
    table, row = made.tables["train"], int(made.rows["train"][example])
    said = {name: values[example] for name, values in by_row.items()}
    shown = [] if made.group is None else [made.group]
    shown += [name for name in made.preprocessor.kinds if isinstance(table[name], (Numbers, Strings, Dates))]
    return RoteRow(
        # numpy's scalars are not JSON's
        **{name: v.item() if isinstance(v, np.generic) else v for name, v in said.items()},
        values={name: _value(table, name, row) for name in shown[:columns]},
    )


def _value(table: Table, name: str, row: int) -> str:
    column = as_strings(table[name].take(np.array([row])))
    return "" if column.codes[0] < 0 else column.levels[column.codes[0]]

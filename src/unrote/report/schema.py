"""What a record of trained classifiers says, field by field; checked whenever one is read.

Numbers of single examples are in arrays beside it, named here:

    y, group, inferred, held_out, p_held_out   (n,) label, group, inferred minority, held-out class and p(label)
    K.predicted, K.p_train                     (n,) what method K says of the training examples
    K.memorization, K.self_influence           (n,) scores of memorization
    K.shift                                    (n,) shift of the label less the largest of the other classes
    pictures                                   (p, h, w, 3) of the first p examples that are listed
    influence.train, influence.test            (r,), (t,) rows of the training and of the other split
    influence.test_y, influence.test_group     (t,)
    influence.train_pictures, influence.test_pictures
    K.influence                                (r, t)

A label is an index into the class names; -1 stands for "unknown" in `group`.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

FORMAT = 1
"""Raised whenever older readers would misread what is written."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Accuracy(_Part):
    """Accuracy on a subset: its name, size, share right and exact interval; None for no examples."""

    name: str
    n: int = Field(ge=0)
    accuracy: float | None
    interval: tuple[float, float] | None


class Scores(_Part):
    """Accuracies of one method on a split that it did not train on; see `unrote.metrics.GroupReport`."""

    n: int
    level: float
    groups: list[Accuracy]
    worst_group: Accuracy
    average: float
    reweighted_average: float | None
    group_mean: float
    class_accuracy: list[Accuracy]


class Curves(_Part):
    """What was seen as training went: a value per look in `steps`, by name; "test/GROUP" is an accuracy."""

    steps: list[int]
    series: dict[str, list[float | None]]


class Shift(_Part):
    """The calibrated shift: its temperature and P[k][c], how often c is true where held-out models say k."""

    temperature: float | None
    confusion: list[list[float]]


class MethodRecord(_Part):
    """One method's classifier.

    Args:
        name: of the method, such as "mat"; with a suffix where a method was trained in several ways.
        reference: paper.
        regime: where group labels were used.
        settings: hyper-parameters.
        training: recipe, model, seed and seconds, as far as they are known.
        scores: on the split that the record names; None where it has none.
        curves: None where nothing was written down while it trained.
        shift: None where the method has none.
        memorized: share of the training examples learned by rote; None where it was not measured.
        notes: on how the scores of memorization were made.
    """

    name: str
    reference: str
    regime: str
    settings: dict[str, Any]
    training: dict[str, Any]
    scores: Scores | None
    curves: Curves | None
    shift: Shift | None
    memorized: float | None
    notes: list[str]


class HeldOut(_Part):
    """Where held-out predictions came from, and how good they are."""

    source: str
    accuracy: float
    flip_rate: float | None
    degenerate: bool | None


class Data(_Part):
    """The task.

    Args:
        name: of the task or file.
        fingerprint: of the training examples and labels.
        shape: of one example.
        shortcut: what is known of it in words; None where nothing is.
        class_names: C names.
        group_names: of the groups in `group`.
        groups: whether they are annotated or inferred; None where there are none.
        rows: examples of each split.
        group_sizes: training examples of each group.
        scored_split: the split that scores and curves are of.
    """

    name: str
    fingerprint: str
    shape: list[int]
    shortcut: str | None
    class_names: list[str]
    group_names: list[str]
    groups: Literal["annotated", "inferred"] | None
    rows: dict[str, int]
    group_sizes: list[int]
    scored_split: str | None


class Examples(_Part):
    """The training examples that are listed, the most memorized first.

    Args:
        kind: what an example is.
        index: rows of the training split.
        names: what they are called.
        columns: names of the columns, for rows of a table.
        content: texts, or rows of cells; empty for pictures, which are an array.
    """

    kind: Literal["picture", "text", "row", "nothing"]
    index: list[int]
    names: list[str]
    columns: list[str]
    content: list[str] | list[list[str]]


class InfluenceContent(_Part):
    """The examples of the influence matrix as text; empty for pictures, which are arrays."""

    train: list[str]
    test: list[str]
    split: str


class Contents(_Part):
    """A record of classifiers trained on one task.

    Args:
        format: of the record.
        created: when, ISO 8601.
        versions: of unrote and what it stands on.
        environment: machine, system, threads.
        data: the task.
        methods: in the order in which they are compared.
        held_out: None where there are no held-out predictions.
        memorized_above: memorization above which an example counts as learned by rote.
        examples: those that are listed.
        influence: None where there is no influence matrix.
        missing: why a part is not there, by part.
        arrays: file name and hash of the arrays.
    """

    format: int
    created: str
    versions: dict[str, str]
    environment: dict[str, str]
    data: Data
    methods: list[MethodRecord]
    held_out: HeldOut | None
    memorized_above: float
    examples: Examples
    influence: InfluenceContent | None
    missing: dict[str, str]
    arrays: tuple[str, str]

"""Training on a table: which model and how long by default, and how the result is scored.

The defaults were chosen on the adult table (32,000 training rows) and are meant to be quick and not far wrong: a
perceptron with one hidden layer, Adam, some 600 steps or 5 passes over the rows, whichever is more.
"""

import math
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, fields
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from unrote._version import __version__
from unrote.api import make_method
from unrote.automatic import Chosen
from unrote.errors import OptionError, SavedModelError
from unrote.methods import METHODS, Fitted, Method, Session
from unrote.metrics import GroupReport, SubsetAccuracy, clopper_pearson, group_report
from unrote.models import MODELS, Stack, stack_builder
from unrote.saved import SavedModel
from unrote.tables import TableTask
from unrote.training import Recipe

INFERRED = ("inferred majority", "inferred minority")
"""What an example is by XRM's twins: the minority is where one of them is wrong about the label."""


def default_model(shape: tuple[int, ...]) -> str:
    """The model for examples of a shape: a perceptron for rows, a convolutional network for pictures."""
    return "cnn" if len(shape) == 3 else "mlp"


def default_recipe(n: int, epochs: int | None = None) -> Recipe:
    """How a model of n rows is trained: about 600 steps, and from 5 to 60 passes."""
    batch_size = 128 if n < 20_000 else 256 if n < 200_000 else 1024
    if epochs is None:
        epochs = min(max(math.ceil(600 / math.ceil(n / batch_size)), 5), 60)
    return Recipe("adam", 1e-3, weight_decay=1e-4, epochs=epochs, batch_size=batch_size)


def open_session(
    made: TableTask,
    method: Method,
    *,
    model: str | None = None,
    epochs: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Session:
    """What a method is given to train on a table.

    A method that needs groups gets those of the group column, or inferred ones where there is no such column.

    Args:
        made: see `unrote.tables.make_task`.
        method: decides whether group labels may be seen.
        model: "linear", "mlp" or "cnn"; default by the shape of an example.
        epochs: passes over the training rows; default by their number.
        seed: of everything random.
        progress: whether to show progress bars.

    Raises:
        OptionError: if the method needs group labels and cannot take inferred ones, and there are none.
        UnknownNameError: if there is no such model.
    """
    annotated = made.group is not None
    if method.needs != "none" and not annotated and not method.uses_groups:
        raise OptionError(
            f"method {method.name!r} needs group labels: name their column with --group, or choose a method "
            "without them, such as 'mat'"
        )
    task = made.task
    return Session(
        task=task.for_regime(method.needs if annotated else "none"),
        groups="true" if annotated or not method.uses_groups else "xrm",
        build=stack_builder(model or default_model(task.train.x.shape), task.train.x.shape, task.n_classes),
        recipe=default_recipe(len(task.train), epochs),
        seed=seed,
        progress=progress,
    )


def method_for_tables(name: str, settings: Mapping[str, Any] | None = None) -> Method:
    """A method by name, with settings that were given as text.

    Raises:
        UnknownNameError: if there is no such method.
        OptionError: if a setting does not exist, is of another type than its default, or out of range.
    """
    settings = settings or {}
    described: Any = METHODS[name]  # every method is a dataclass, which its base class cannot say
    known = {f.name: f for f in fields(described)}
    for key, value in settings.items():
        field = known.get(key)
        if field is None or field.default is MISSING or _fits(value, field):
            continue
        wanted = "a number or 'auto'" if _is_number_or_auto(field) else f"one such as {field.default!r}"
        raise OptionError(f"setting {key}={value!r} of method {name!r}: {wanted} is wanted")
    return make_method(name, **settings)


def _fits(value: Any, field: Field[Any]) -> bool:
    """Whether a setting is of its default's type; of others than numbers, strings and truth values, anything is."""
    if _is_number_or_auto(field):
        return value == "auto" or _is_number(value)
    if _is_number(field.default):
        return _is_number(value)
    return not isinstance(field.default, (str, bool)) or isinstance(value, type(field.default))


def _is_number_or_auto(field: Field[Any]) -> bool:
    return field.type == float | Literal["auto"]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


@dataclass(frozen=True)
class Scores:
    """How a classifier does on rows that it never saw.

    Args:
        overall: on all of them.
        classes: on each class.
        inferred: on the inferred majority and minority.
        groups: by class and attribute, with the worst of them; None where there is no group column.
    """

    overall: SubsetAccuracy
    classes: tuple[SubsetAccuracy, ...]
    inferred: tuple[SubsetAccuracy, ...]
    groups: GroupReport | None

    def to_dict(self) -> dict[str, Any]:
        """What JSON can hold."""
        return {
            "overall": self.overall.to_dict(),
            "classes": [one.to_dict() for one in self.classes],
            "inferred_groups": [one.to_dict() for one in self.inferred],
            "groups": None if self.groups is None else [one.to_dict() for one in self.groups.groups],
            "worst_group": None if self.groups is None else self.groups.worst_group.to_dict(),
        }


def score(made: TableTask, predictions: Int[Tensor, " m"], minority: Bool[Tensor, " m"]) -> Scores:
    """Score predictions of the test rows.

    Args:
        made: with a test split.
        predictions: (m,) classes.
        minority: (m,) whether a row is in the inferred minority.
    """
    task, test = made.task, made.task.test
    assert test is not None
    by_inferred = group_report(test.y, predictions, minority.long(), INFERRED, class_names=task.class_names)
    by_group = None
    if test.has_attribute:
        by_group = group_report(test.y, predictions, task.group(test), task.group_names)
    return Scores(
        overall=accuracy_of("all", predictions == test.y),
        classes=by_inferred.class_accuracy,
        inferred=by_inferred.groups,
        groups=by_group,
    )


def accuracy_of(name: str, right: Bool[Tensor, " m"]) -> SubsetAccuracy:
    """The share of rows that are right, with its 95% interval; nothing for no rows."""
    n, hits = len(right), int(right.sum())
    if not n:
        return SubsetAccuracy(name, 0, None, None)
    low, high = clopper_pearson(hits, n)
    return SubsetAccuracy(name, n, hits / n, (float(low), float(high)))


def inferred_minority(twins: Stack, made: TableTask, split: str) -> Bool[Tensor, " n"]:
    """Which rows of a split either of XRM's twins is wrong about."""
    examples = made.task.splits[split]
    return (twins.predict_classes(examples.x) != examples.y).any(0)


@dataclass(frozen=True)
class TableFit:
    """A classifier trained on a table.

    Args:
        made: the task it was trained on.
        fitted: the classifier.
        session: how it was trained.
        model: name of its model.
        scores: on the test rows; None if there are none.
    """

    made: TableTask
    fitted: Fitted
    session: Session
    model: str
    scores: Scores | None

    @property
    def automatic(self) -> Chosen | None:
        """Whether the training rows show a shortcut, and what was chosen for it; None where that was given."""
        return self.fitted.artefacts.get("automatic")

    def saved(self) -> SavedModel:
        """The classifier, ready to be saved.

        Raises:
            SavedModelError: if it is more than a model: an ensemble, or a memory of the training rows.
        """
        if not self.fitted.stack_alone:
            raise SavedModelError(
                f"what {self.fitted.method.name!r} trains is more than one model and cannot be saved: choose "
                "another method, such as 'mat'"
            )
        recipe = self.session.recipe
        return SavedModel(
            stack=self.fitted.stack,
            model=self.model,
            shape=tuple(self.made.task.train.x.shape),
            class_names=self.made.task.class_names,
            preprocessor=self.made.preprocessor,
            target=self.made.target,
            method=self.fitted.method.name,
            settings={k: v for k, v in self.fitted.method.settings().items() if k != "method"},
            about={
                "trained_by": f"unrote {__version__}",
                "source": self.made.tables["train"].source,
                "rows": {name: len(rows) for name, rows in self.made.rows.items()},
                "group": self.made.group,
                "seed": self.session.seed,
                "epochs": recipe.epochs,
                "batch_size": recipe.batch_size,
                "learning_rate": recipe.learning_rate,
                "weight_decay": recipe.weight_decay,
                "automatic": None if self.automatic is None else self.automatic.to_dict(),
                "scores": None if self.scores is None else self.scores.to_dict(),
            },
        )


def fit_table(
    made: TableTask,
    method: Method,
    *,
    model: str | None = None,
    epochs: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> TableFit:
    """Train a classifier on a table and score it on the test rows.

    Args:
        made: see `unrote.tables.make_task`.
        method: see `method_for_tables`.
        model: "linear", "mlp" or "cnn"; default by the shape of an example.
        epochs: passes over the training rows; default by their number.
        seed: of everything random.
        progress: whether to show progress bars.
    """
    session = open_session(made, method, model=model, epochs=epochs, seed=seed, progress=progress)
    fitted = method.fit(session)
    scores = None
    if made.task.test is not None:
        # the twins that a method without them does not have are trained for scoring alone
        minority = inferred_minority(session.xrm().stack, made, "test")
        scores = score(made, fitted.predict(made.task.test.x), minority)
    name = model or default_model(made.task.train.x.shape)
    assert name in MODELS
    return TableFit(made, fitted, session, name, scores)


def confidence_in_label(logits: Float[Tensor, "n C"], y: Int[Tensor, " n"]) -> Float[np.ndarray, " n"]:
    """Probability that logits (n, C) give to each row's label, (n,)."""
    log_p = torch.log_softmax(logits, -1)
    return log_p.gather(1, y.unsqueeze(1)).squeeze(1).exp().numpy()

"""What the estimators share: from checked arrays through a session to fitted attributes, and prediction."""

import copy
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Shaped
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted, check_random_state

from unrote.automatic import Chosen
from unrote.data import Split, Task
from unrote.data.options import check_count, check_number
from unrote.errors import UnroteError
from unrote.estimators.findings import find_held_out, softmax
from unrote.estimators.inputs import (
    Scaling,
    TrainingData,
    as_array,
    check_groups,
    check_new_data,
    check_training_data,
    known_codes,
    user_errors,
)
from unrote.estimators.modules import Module, model_builder
from unrote.estimators.parameters import PrefixedParameters
from unrote.estimators.report import EvaluationReport, TrainingReport, evaluation_report, training_report
from unrote.heldout import HeldOut
from unrote.methods import GroupSource, Method, Session
from unrote.models import ModuleStack, Stack
from unrote.training import Recipe

AnyClassifier = TypeVar("AnyClassifier", bound="BaseClassifier")


class NotTrainedError(UnroteError, NotFittedError):  # type: ignore[misc]
    """A classifier was asked before `fit`."""


class BaseClassifier(PrefixedParameters, ClassifierMixin, BaseEstimator, ABC):  # type: ignore[misc]
    """A scikit-learn classifier around a method. See its subclasses for parameters and attributes."""

    _prefixes: ClassVar[tuple[str, ...]] = ("module",)

    module: Module | None
    held_out: Any
    standardize: bool
    optimizer: Literal["sgd", "adam", "adamw"]
    learning_rate: float | str
    weight_decay: float
    batch_size: int | str | None
    epochs: int | str
    random_state: int | np.random.RandomState | np.random.Generator | None
    verbose: bool | int

    @abstractmethod
    def _plan(self, held_out: Any) -> "Plan":
        """The method to fit with, and whose groups it gets.

        Args:
            held_out: where held-out predictions come from, or the predictions themselves, or None.
        """

    def fit(
        self: AnyClassifier, X: Any, y: Any, sample_weight: Any = None, *, held_out: Any = None
    ) -> AnyClassifier:
        """Train on labelled examples.

        Args:
            X: (n_samples, n_features) array, data frame, tensor or sparse matrix; (n_samples, ...) where
                `module` takes such examples.
            y: (n_samples,) labels of any one type.
            sample_weight: (n_samples,) at least 0. The loss of each example is multiplied by it in the final
                model and in the models behind the held-out predictions (a held-out twin or fold weighs the
                examples that it trains on), and so are the means behind the shift and the standardisation. A
                row of weight 0 is trained on nowhere, but gets held-out predictions as any other. Only ratios
                matter. None weighs all the same.
            held_out: (n_samples, n_classes) held-out logits or probabilities, in place of the parameter
                `held_out`. As an argument of `fit` they can be routed, so that cross-validation hands each
                fold its own rows.

        Returns:
            The estimator itself.
        """
        self._train(X, y, sample_weight, None, held_out)
        return self

    def _train(self, X: Any, y: Any, sample_weight: Any, groups: Any, held_out: Any) -> None:
        module_parameters = self._parameters_of("module")
        seed = seed_of(self.random_state)
        source = self.held_out if held_out is None else held_out
        if not (source is None or isinstance(source, (str, HeldOut))):
            with user_errors():
                source = np.asarray(as_array(source), dtype=np.float32)
        plan = self._plan(source)
        data = check_training_data(self, X, y, sample_weight, allow_nd=self.module is not None)
        shape, n_classes = data.x.shape[1:], len(data.classes)
        build, linear = model_builder(self.module, module_parameters, shape, n_classes)
        scaling = Scaling.of(data.x, data.weight) if self.standardize and data.x.ndim == 2 else Scaling()
        task = make_task(data, scaling, groups if plan.sees_groups else None)
        session = Session(
            task=task,
            build=build,
            recipe=self._recipe(len(data.y), linear),
            seed=seed,
            groups=plan.groups,
            sample_weight=None if data.weight is None else torch.from_numpy(data.weight),
            progress=bool(self.verbose),
        )
        fitted = plan.method.fit(session)
        self.classes_, self._example_shape = data.classes, tuple(shape)
        self.feature_mean_, self.feature_scale_ = scaling.mean, scaling.scale
        # what was made on the way can be as large as the data; the rest is the classifier
        self.fitted_, self.seed_ = replace(fitted, artefacts={}), seed
        self.history_ = [
            {name: value[0] if isinstance(value, list) else value for name, value in record.items()}
            for record in fitted.training.history
        ]
        shift = fitted.artefacts.get("shift")
        self.shift_ = None if shift is None else shift.numpy()
        self.automatic_: Chosen | None = fitted.artefacts.get("automatic")
        logits = self._logits(task.train.x)
        self._codes, self._right = data.y.astype(np.int32), logits.argmax(1) == data.y
        self._found = find_held_out(fitted, session, source, logits)
        self.held_out_logits_ = None if self._found is None else self._found.logits
        self.inferred_groups_ = None if self._found is None else self._found.groups
        self.flip_rate_ = None if self._found is None else self._found.flip_rate
        self.memorization_ = None if self._found is None else self._found.memorization

    def _recipe(self, n: int, linear: bool) -> Recipe:
        size: int | None = 128 if n < 20_000 else 256 if n < 200_000 else 1024
        if self.batch_size != "auto":
            size = None if self.batch_size is None else check_count("batch_size", self.batch_size, 1)
        epochs = max(5, math.ceil(1000 / math.ceil(n / (size or n))))
        if self.epochs != "auto":
            epochs = check_count("epochs", self.epochs, 1)
        rate = 1e-2 if linear else 1e-3
        if self.learning_rate != "auto":
            rate = check_number("learning_rate", self.learning_rate, 0.0)
        return Recipe(
            optimizer=self.optimizer,
            learning_rate=rate,
            weight_decay=check_number("weight_decay", self.weight_decay, 0.0),
            batch_size=size,
            epochs=epochs,
        )

    def _logits(self, inputs: Any) -> Float[np.ndarray, "n C"]:
        # In 64 bits an example's prediction does not depend on which others are predicted along with it, to
        # all digits that 32 bits have. Modules of one's own may not bear another type, and stay as they are.
        fitted = self.fitted_
        if not isinstance(fitted.stack, ModuleStack):
            exact = copy.deepcopy(fitted.stack).cpu().double()
            fitted = replace(fitted, training=replace(fitted.training, stack=exact))
        return fitted.logits(inputs).double().numpy()

    @property
    def stack_(self) -> Stack:
        """The trained model, a stack of one.

        Raises:
            NotTrainedError: before `fit`.
        """
        self._check_fitted()
        stack: Stack = self.fitted_.stack
        return stack

    def _check_fitted(self) -> None:
        try:
            check_is_fitted(self, "classes_")
        except NotFittedError as error:
            raise NotTrainedError(str(error)) from error

    def _new_logits(self, X: Any) -> Float[np.ndarray, "n C"]:
        self._check_fitted()
        X = check_new_data(self, X)
        return self._logits(Scaling(self.feature_mean_, self.feature_scale_).apply(X))

    def decision_function(self, X: Any) -> Float[np.ndarray, "n *C"]:
        """Logits, in which no shift takes part.

        Args:
            X: examples as in `fit`.

        Returns:
            (n_samples, n_classes) logits; with two classes (n_samples,), that of the second less that of the
            first.
        """
        logits = self._new_logits(X)
        return logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits

    def predict(self, X: Any) -> Shaped[np.ndarray, " n"]:
        """The most probable label of each example.

        Args:
            X: examples as in `fit`.

        Returns:
            (n_samples,) labels.
        """
        codes = self._new_logits(X).argmax(1)
        return self.classes_[codes]  # type: ignore[no-any-return]

    def predict_proba(self, X: Any) -> Float[np.ndarray, "n C"]:
        """Probabilities of the classes, in the order of `classes_`.

        Args:
            X: examples as in `fit`.

        Returns:
            (n_samples, n_classes), rows sum to 1.
        """
        return softmax(self._new_logits(X))

    def predict_log_proba(self, X: Any) -> Float[np.ndarray, "n C"]:
        """Logarithms of `predict_proba`, exact where a probability is too small for a float.

        Args:
            X: examples as in `fit`.

        Returns:
            (n_samples, n_classes).
        """
        logits = torch.from_numpy(self._new_logits(X))
        return logits.log_softmax(-1).numpy()

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Accuracy.

        Args:
            X: examples as in `fit`.
            y: (n_samples,) true labels.
            sample_weight: (n_samples,), or None.

        Returns:
            Share of the examples (of their weight) predicted right.
        """
        with user_errors():
            return float(super().score(X, as_array(y), as_array(sample_weight)))

    def report(
        self, X: Any = None, y: Any = None, *, groups: Any = None, n_memorized: int = 10, level: float = 0.95
    ) -> TrainingReport | EvaluationReport:
        """How the classifier does: on its training data, or on other data by true group.

        Args:
            X: examples that were not trained on; None reports on the training data.
            y: (n_samples,) their labels.
            groups: (n_samples,) their attribute labels; None reports by class alone.
            n_memorized: how many of the most memorized training rows to list.
            level: of the intervals of accuracies on other data, between 0 and 1.

        Returns:
            An object that prints as a table; `to_dict()` gives its figures.

        Raises:
            OptionError: if `n_memorized` or `level` is out of range.
            DataError: if labels and examples do not match.
        """
        self._check_fitted()
        names = tuple(map(str, self.classes_.tolist()))
        if X is None:
            check_count("n_memorized", n_memorized, 0)
            name = type(self).__name__
            return training_report(name, names, self._codes, self._right, self._found, n_memorized)
        predicted = self._new_logits(X).argmax(1)
        codes = known_codes(y, self.classes_, len(predicted))
        attributes = None if groups is None else check_groups(groups, len(predicted))
        return evaluation_report(type(self).__name__, names, codes, predicted, attributes, level)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.input_tags.three_d_array = self.module is not None
        return tags


@dataclass(frozen=True)
class Plan:
    """What an estimator's parameters come to.

    Args:
        method: ready to fit.
        groups: whose groups the method gets, if it uses any.
        sees_groups: whether the labels that the user passes as `groups` are shown to it.
    """

    method: Method
    groups: GroupSource = "true"
    sees_groups: bool = False


def make_task(data: TrainingData, scaling: Scaling, groups: Any) -> Task:
    """The training set as a task without other splits; groups that the method must not see are not in it."""
    names, attribute = ((), None) if groups is None else check_groups(groups, len(data.y))
    return Task(
        name="fit",
        train=Split(scaling.apply(data.x), data.y, attribute),
        class_names=tuple(map(str, data.classes.tolist())),
        attribute_names=tuple(map(str, names)),
    )


def seed_of(random_state: Any) -> int:
    """An integer as it is; otherwise one drawn from the generator, or from numpy's global one for None.

    Raises:
        OptionError: if an integer is negative.
        DataError: if it is nothing that can be drawn from.
    """
    if isinstance(random_state, np.random.Generator):
        return int(random_state.integers(2**31 - 1))
    if isinstance(random_state, Integral):
        return check_count("random_state", random_state, 0)
    with user_errors():
        return int(check_random_state(random_state).randint(2**31 - 1))

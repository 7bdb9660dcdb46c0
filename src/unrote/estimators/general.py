"""Any registered method as a scikit-learn classifier."""

from typing import Any, ClassVar, Literal

import numpy as np

from unrote.api import make_method
from unrote.errors import OptionError
from unrote.estimators.base import BaseClassifier, Plan
from unrote.estimators.modules import Module
from unrote.methods import METHODS


class UnroteClassifier(BaseClassifier):
    """Any method of unrote by name: `UnroteClassifier("jtt", method__upweight=50)`.

    Named for the library rather than for groups, because most methods never see a group label. Those that need
    them get them from `fit(X, y, groups=...)`, or infer their own; all others cannot see them, even if they are
    passed, so that one call can compare methods of both kinds.

    Args:
        method: name of a method, such as "jtt", "lff" or "groupdro"; `unrote methods` lists them.
        module: the model. None is linear for up to 32 features and a perceptron with one hidden layer of 256 for
            more; see `MATClassifier`.
        held_out: None, or where held-out predictions come from: "xrm", "kfold", or an (n_samples, n_classes)
            array; see `MATClassifier`. A method that feeds on them gets these, or by default its own; for others
            they are there to be looked at.
        infer_groups: "xrm" or "eiil" infers the groups for a method that needs them; None takes those passed to
            `fit`.
        standardize: whether each feature of a table is brought to mean 0 and standard deviation 1 by what `fit`
            saw (sparse ones to standard deviation 1 alone, so that they stay sparse). Examples of more than two
            dimensions are left as they are.
        optimizer: "adam", "adamw" (decoupled weight decay) or "sgd" (momentum 0.9).
        learning_rate: in [0, inf); "auto" is 0.01 for a linear model and 0.001 for any other.
        weight_decay: in [0, inf); except for "adamw", an L2 penalty.
        batch_size: rows per step, in [1, inf), or None for all; "auto" is 128 for less than 20,000 rows, 256 for
            less than 200,000, else 1,024.
        epochs: passes over the data, in [1, inf); "auto" is what makes 1,000 steps, and 5 at least.
        random_state: an integer, a `RandomState`, a numpy `Generator`, or None for numpy's global generator.
        verbose: whether to show progress bars, on standard error.
        **parameters: `method__NAME=value` sets a hyper-parameter of the method, `module__NAME=value` calls the
            module's class or function with `NAME=value`. Both can be searched.

    Attributes:
        classes_: (n_classes,) sorted labels.
        n_features_in_: number of features; of examples with more dimensions, the size of the first.
        feature_names_in_: (n_features_in_,) column names, where `X` had names that are all strings.
        held_out_logits_: (n_samples, n_classes); this and the next three are None if neither the method nor
            `held_out` asked for held-out predictions.
        inferred_groups_: (n_samples,) 1 where held-out predictions (with twins: either twin) are wrong, else 0.
        flip_rate_: share of the labels that the twins ended up changing; None without twins.
        memorization_: (n_samples,) p_train(y_i) - p_heldout(y_i), in [-1, 1].
        shift_: (n_samples, n_classes) of a method that computes one from held-out predictions, else None.
        history_: one dict per epoch: "step", "epoch" and "loss", the mean training loss since the last.
        feature_mean_: (n_features_in_,) subtracted from the features; None where nothing is.
        feature_scale_: (n_features_in_,) the features are divided by; None where they are not.
        fitted_: what `unrote.fit` would have given; `stack_` is its model, a stack of one.
        seed_: the seed that `random_state` came to.

    References:
        Each method names its paper: `unrote methods`, or the head of its file under `unrote/methods`.

    Examples:
        >>> from sklearn.datasets import load_breast_cancer
        >>> from unrote import UnroteClassifier
        >>> X, y = load_breast_cancer(return_X_y=True)
        >>> classifier = UnroteClassifier("rwg", infer_groups="xrm", random_state=0).fit(X, y)
        >>> bool(classifier.score(X, y) > 0.9)
        True
    """

    _prefixes: ClassVar[tuple[str, ...]] = ("module", "method")

    def __init__(
        self,
        method: str = "mat",
        module: Module | None = None,
        *,
        held_out: Any = None,
        infer_groups: str | None = None,
        standardize: bool = True,
        optimizer: Literal["sgd", "adam", "adamw"] = "adam",
        learning_rate: float | str = "auto",
        weight_decay: float = 1e-3,
        batch_size: int | str | None = "auto",
        epochs: int | str = "auto",
        random_state: int | np.random.RandomState | np.random.Generator | None = None,
        verbose: bool | int = False,
        **parameters: Any,
    ) -> None:
        self.method = method
        self.module = module
        self.held_out = held_out
        self.infer_groups = infer_groups
        self.standardize = standardize
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.epochs = epochs
        self.random_state = random_state
        self.verbose = verbose
        self._set_extra(parameters)

    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        *,
        groups: Any = None,
        held_out: Any = None,
    ) -> "UnroteClassifier":
        """Train on labelled examples.

        Args:
            X: (n_samples, n_features) array, data frame, tensor or sparse matrix; (n_samples, ...) where
                `module` takes such examples.
            y: (n_samples,) labels of any one type.
            sample_weight: (n_samples,) at least 0, for methods whose loss can take them; see
                `MATClassifier.fit`. Counts of classes and groups that a method takes are of rows.
            groups: (n_samples,) attribute of each example, of any one label type; a group is a class with an
                attribute. Methods without need of them do not see them. To pass them through a pipeline or a
                search, `set_fit_request(groups=True)`.
            held_out: (n_samples, n_classes) held-out logits or probabilities, in place of the parameter.

        Returns:
            The estimator itself.
        """
        self._train(X, y, sample_weight, groups, held_out)
        return self

    def _plan(self, held_out: Any) -> Plan:
        settings = self._parameters_of("method")
        kind = METHODS[self.method]
        fields = getattr(kind, "__dataclass_fields__", {})
        if held_out is not None and "held_out" in fields:
            settings.setdefault("held_out", held_out)
        if "hold_out" in fields:  # methods that refit a head; `fit(X, y)` has no validation split to do it on
            settings.setdefault("hold_out", "train")
        method = make_method(self.method, **settings)
        if self.infer_groups is not None:
            if self.infer_groups not in ("xrm", "eiil"):
                raise OptionError(f"infer_groups={self.infer_groups!r}: 'xrm', 'eiil' or None is wanted")
            if not method.uses_groups:
                raise OptionError(f"method {self.method!r} takes no inferred groups: leave infer_groups out")
            return Plan(method, groups=self.infer_groups)  # type: ignore[arg-type]
        if method.needs == "val":
            raise OptionError(
                f"method {self.method!r} needs a validation split with group labels, which fit(X, y) does not "
                "have: use unrote.fit on a Task that has one"
            )
        return Plan(method, sees_groups=method.needs == "train")

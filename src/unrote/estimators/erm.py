"""The baseline as a scikit-learn classifier."""

from typing import Any, Literal

import numpy as np

from unrote.api import make_method
from unrote.estimators.base import BaseClassifier, Plan
from unrote.estimators.modules import Module


class ERMClassifier(BaseClassifier):
    """Empirical risk minimisation: the same models and training as `MATClassifier`, without a shift.

    It is what MAT is compared with, and, given held-out predictions, shows what plain training learns by rote.

    Args:
        module: the model. None is linear for up to 32 features and a perceptron with one hidden layer of 256 for
            more; see `MATClassifier`.
        held_out: None, or where held-out predictions come from: "xrm", "kfold", or an (n_samples, n_classes)
            array; see `MATClassifier`. They take no part in training, they are there to be looked at. With
            "kfold" `memorization_` is how much more probable the model finds a label for having trained on it.
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
        **module_parameters: `module__NAME=value` calls the module's class or function with `NAME=value`.

    Attributes:
        classes_: (n_classes,) sorted labels.
        n_features_in_: number of features; of examples with more dimensions, the size of the first.
        feature_names_in_: (n_features_in_,) column names, where `X` had names that are all strings.
        held_out_logits_: (n_samples, n_classes); this and the next three are None without `held_out`.
        inferred_groups_: (n_samples,) 1 where held-out predictions (with twins: either twin) are wrong, else 0.
        flip_rate_: share of the labels that the twins ended up changing; None without twins.
        memorization_: (n_samples,) p_train(y_i) - p_heldout(y_i), in [-1, 1].
        shift_: None.
        history_: one dict per epoch: "step", "epoch" and "loss", the mean training loss since the last.
        feature_mean_: (n_features_in_,) subtracted from the features; None where nothing is.
        feature_scale_: (n_features_in_,) the features are divided by; None where they are not.
        fitted_: what `unrote.fit` would have given; `stack_` is its model, a stack of one.
        seed_: the seed that `random_state` came to.

    References:
        Feldman and Zhang, "What Neural Networks Memorize and Why", NeurIPS 2020, arXiv 2008.03703, on
        memorization as a difference between held-in and held-out predictions.

    Examples:
        >>> from sklearn.datasets import load_breast_cancer
        >>> from unrote import ERMClassifier
        >>> X, y = load_breast_cancer(return_X_y=True)
        >>> classifier = ERMClassifier(held_out="kfold", random_state=0).fit(X, y)
        >>> bool(classifier.memorization_.max() > 0.5)
        True
    """

    def __init__(
        self,
        module: Module | None = None,
        *,
        held_out: Any = None,
        standardize: bool = True,
        optimizer: Literal["sgd", "adam", "adamw"] = "adam",
        learning_rate: float | str = "auto",
        weight_decay: float = 1e-3,
        batch_size: int | str | None = "auto",
        epochs: int | str = "auto",
        random_state: int | np.random.RandomState | np.random.Generator | None = None,
        verbose: bool | int = False,
        **module_parameters: Any,
    ) -> None:
        self.module = module
        self.held_out = held_out
        self.standardize = standardize
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.epochs = epochs
        self.random_state = random_state
        self.verbose = verbose
        self._set_extra(module_parameters)

    def _plan(self, held_out: Any) -> Plan:
        return Plan(make_method("erm"))

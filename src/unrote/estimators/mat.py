"""MAT as a scikit-learn classifier."""

from typing import Any, Literal

import numpy as np

from unrote.api import make_method
from unrote.data.options import check_number
from unrote.errors import OptionError
from unrote.estimators.base import BaseClassifier, Plan
from unrote.estimators.modules import Module


class MATClassifier(BaseClassifier):
    """Memorization-aware training: a classifier that does not learn by rote, and needs no group labels.

    Models that never saw an example say what a shortcut already explains of it; training adds that to the
    logits, so that only what the shortcut does not explain is left to learn. Prediction uses the model alone.

    Where there is a shortcut, accuracy on the groups that it fails rises, and average accuracy on data that
    obeys the shortcut falls. Where the rows show none, this is plain training, and `automatic_` says why. At a
    `temperature` of one's own it trains against whatever is easiest to learn, which costs accuracy where that is
    no shortcut. Training takes some eight times as long as `ERMClassifier`'s, three times at a given temperature.

    Args:
        module: the model. None is linear for up to 32 features and a perceptron with one hidden layer of 256 for
            more; "linear", "mlp" and "cnn" (small, for pictures (channels, height, width)) name one. An
            `nn.Module` class or a function that makes a module is called once per model with the parameters
            `module__NAME=value`. A module is a prototype: every model, the held-out ones too, starts as a copy of
            it and of its parameters, or, with `module__NAME` parameters, is a new one of its class. It maps a
            float32 minibatch (b, ...) to logits (b, n_classes). Only with `module` may `X` have more than two
            dimensions.
        held_out: where held-out predictions come from: "xrm" (twins that train on half of the data each and learn
            shortcuts ever more purely), "trunk" (linear twins on the features of a network that has begun to learn,
            at a third of the cost), "auto" (the first for a linear model, else the second, unless these know little
            and the first more), "kfold" (5 models, each trained on four fifths), "alo" (a linear head, in closed
            form), or an (n_samples, n_classes) array of held-out logits or probabilities of your own, as from
            `cross_val_predict(..., method="predict_proba")`, columns in the order of `classes_`. Predictions of
            rows that a model trained on will not do: they leave nothing to learn.
        temperature: of the held-out logits, in (0, inf). Low ones trust the held-out predictions' hard choice and
            undo more of the shortcut; high ones near class balancing. The paper searches 0.001, 0.01 and 0.1.
            "auto" has the training rows say whether there is a shortcut, and which temperature undoes it.
        standardize: whether each feature of a table is brought to mean 0 and standard deviation 1 by what `fit`
            saw (sparse ones to standard deviation 1 alone, so that they stay sparse). Examples of more than two
            dimensions are left as they are.
        optimizer: "adam", "adamw" (decoupled weight decay) or "sgd" (momentum 0.9).
        learning_rate: in [0, inf); "auto" is 0.01 for a linear model and 0.001 for any other.
        weight_decay: in [0, inf); except for "adamw", an L2 penalty: weight_decay / 2 times the squared
            parameters, added to the mean loss.
        batch_size: rows per step, in [1, inf), or None for all; "auto" is 128 for less than 20,000 rows, 256 for
            less than 200,000, else 1,024.
        epochs: passes over the data, in [1, inf); "auto" is what makes 1,000 steps, and 5 at least.
        random_state: of the models, the order of the rows and the twins. An integer gives the same classifier
            each time, bit for bit on a CPU, and the one that `unrote.fit` gives for that seed; a `RandomState` or
            a numpy `Generator` is drawn from; None draws from numpy's global generator.
        verbose: whether to show progress bars, on standard error.
        **module_parameters: `module__NAME=value` calls the module's class or function with `NAME=value`.

    Attributes:
        classes_: (n_classes,) sorted labels.
        n_features_in_: number of features; of examples with more dimensions, the size of the first.
        feature_names_in_: (n_features_in_,) column names, where `X` had names that are all strings.
        held_out_logits_: (n_samples, n_classes) what models that did not train on a row say of it.
        shift_: (n_samples, n_classes) what was added to the logits in training: log-probabilities, times the strength
            that was chosen; 0 where this is plain training.
        inferred_groups_: (n_samples,) 1 where either twin is wrong about the label (its exceptions to the
            shortcut), else 0; with other held-out predictions, 1 where these are wrong.
        flip_rate_: share of the labels that the twins ended up changing, larger where the shortcut is purer; 0 if
            all rows of some class are in one inferred group. None without twins.
        automatic_: `unrote.automatic.Chosen`, whether there is a shortcut and how it was trained against; None at
            a given temperature.
        memorization_: (n_samples,) p_train(y_i) - p_heldout(y_i), in [-1, 1]: how much more probable the model
            finds a row's label than held-out models do. Near 1, the row was learned by rote, or (with twins,
            which learn shortcuts) by a rule that they have not.
        history_: one dict per epoch: "step", "epoch" and "loss", the mean training loss since the last.
        feature_mean_: (n_features_in_,) subtracted from the features; None where nothing is.
        feature_scale_: (n_features_in_,) the features are divided by; None where they are not.
        fitted_: what `unrote.fit` would have given; `stack_` is its model, a stack of one.
        seed_: the seed that `random_state` came to.

    References:
        Bayat, Pezeshki, Dohmatob, Lopez-Paz, Vincent, "The Pitfalls of Memorization: When Memorization Hurts
        Generalization", ICLR 2025, arXiv 2412.07684.
        Pezeshki, Bouchacourt, Ibrahim, Ballas, Vincent, Lopez-Paz, "Discovering Environments with XRM", 2023,
        arXiv 2309.16748.

    Examples:
        >>> from sklearn.datasets import load_breast_cancer
        >>> from unrote import MATClassifier
        >>> X, y = load_breast_cancer(return_X_y=True)
        >>> classifier = MATClassifier(random_state=0).fit(X, y)
        >>> bool(classifier.score(X, y) > 0.9)
        True
    """

    def __init__(
        self,
        module: Module | None = None,
        *,
        held_out: Any = "auto",
        temperature: float | Literal["auto"] = "auto",
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
        self.temperature = temperature
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
        if held_out is None:
            raise OptionError(
                "held_out=None: 'auto', 'xrm', 'trunk', 'kfold', 'alo' or an (n, C) array is wanted; MAT feeds on it"
            )
        temperature = self.temperature
        if temperature != "auto":
            temperature = check_number("temperature", temperature, 0.0)
        return Plan(make_method("mat", temperature=temperature, held_out=held_out))

"""What the scores need of a model, whatever made it: the head and what it is given, or logits.

Read are: stacks of ours and whatever carries one (`stack` or `stack_`), scikit-learn's linear classifiers (alone or
last in a pipeline), and any `nn.Module` whose last linear layer gives the logits.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor, nn

from unrote.errors import DataError, OptionError
from unrote.memorization.hessian import HeadData
from unrote.memorization.kernels import linear
from unrote.models import ModuleStack, Stack


@dataclass(frozen=True)
class Head:
    """A softmax head, the examples it sees and their labels.

    Args:
        features: (n, d) what it is given.
        logits: (n, C) what it gives.
        y: (n,) labels, from 0.
        weight: (C, d).
        bias: (C,); None where there is none.
        penalty: the lambda of `mean loss + lambda/2 |W|^2` it was trained with, if the model tells.
        bias_penalised: whether that holds for the bias.
    """

    features: Any
    logits: Float[np.ndarray, "n C"]
    y: Int[np.ndarray, " n"]
    weight: Float[np.ndarray, "C d"]
    bias: Float[np.ndarray, " C"] | None
    penalty: float | None = None
    bias_penalised: bool = True

    def data(self, weight: Any = None) -> HeadData:
        """What the Hessian is made of."""
        return HeadData(self.features, softmax(self.logits), self.bias is not None, weight)


def softmax(logits: Float[np.ndarray, "*n C"]) -> Float[np.ndarray, "*n C"]:
    """Probabilities in double precision."""
    below = np.asarray(logits, dtype=np.float64)
    p: np.ndarray = np.exp(below - below.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    return p


def own(values: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The value of each row in the column of its label."""
    result: np.ndarray = np.take_along_axis(values, y[:, None], 1)[:, 0]
    return result


def labels(y: Any, n: int, n_classes: int) -> Int[np.ndarray, " n"]:
    """Labels as an array of class indices.

    Raises:
        DataError: if there is not one whole number from 0 to C - 1 per example.
    """
    array = y.detach().cpu().numpy() if isinstance(y, Tensor) else np.asarray(y)
    if array.shape != (n,):
        raise DataError(f"labels of shape {array.shape} for {n} examples: one each is wanted")
    if array.dtype.kind not in "iub" or array.min() < 0 or array.max() >= n_classes:
        raise DataError(
            f"labels of type {array.dtype} from {array.min()} to {array.max()}: whole numbers from 0 to "
            f"{n_classes - 1} are wanted, one per class"
        )
    result: np.ndarray = array.astype(np.int64)
    return result


def read_head(model: Any, X: Any, y: Any, *, head: str | None = None) -> Head:
    """The head of a model, and what it is given for each example.

    Args:
        model: a stack of one, what carries one, a linear classifier of scikit-learn, or an `nn.Module`.
        X: n examples, as the model takes them.
        y: (n,) labels, as the model was fitted to.
        head: dotted name of an `nn.Module`'s last linear layer, where it is not the last one.

    Raises:
        OptionError: if no head is found.
    """
    if isinstance(model, Head):
        return model
    if hasattr(model, "coef_") or hasattr(model, "steps"):
        return _of_scikit_learn(model, X, y)
    stack = as_stack(model, head=head)
    features = stack.predict_features(X)[0].numpy()
    weight, bias = (value.double().cpu().numpy() for value in stack.head())
    logits = linear(features, weight.astype(features.dtype)).astype(np.float64) + bias
    targets = labels(y, len(features), stack.n_classes)
    has_bias = stack.live_head()[1] is not None
    return _finite(Head(features, logits, targets, weight, bias if has_bias else None))


def _finite(head: Head) -> Head:
    if not np.isfinite(head.logits).all():
        raise DataError(
            "the model's logits have NaN or infinity: it diverged, or its inputs have such values"
        )
    return head


def as_stack(model: Any, *, head: str | None = None) -> Stack:
    """The model as a stack of one; a module is wrapped, not copied.

    Raises:
        OptionError: if it is no model that can be read, or has several members.
    """
    stack = model
    for name in ("stack", "stack_"):
        if not isinstance(stack, (Stack, nn.Module)) and hasattr(stack, name):
            stack = getattr(stack, name)
    if isinstance(stack, nn.Module) and not isinstance(stack, Stack):
        stack = _wrapped(stack, head)
    if not isinstance(stack, Stack):
        raise OptionError(
            f"a {type(model).__name__} has no head that can be read: a stack, a fitted classifier of unrote, a "
            "linear classifier of scikit-learn or an nn.Module is wanted"
        )
    if stack.n_members != 1:
        raise OptionError(f"a stack of {stack.n_members}: choose one with stack.select([member])")
    return stack


def _wrapped(module: nn.Module, head: str | None) -> ModuleStack:
    named = dict(module.named_modules())
    found = [m for m in module.modules() if isinstance(m, nn.Linear)]
    layer = named.get(head) if head is not None else found[-1] if found else None
    if not isinstance(layer, nn.Linear):
        wanted = f"no linear layer is named {head!r}" if head else "there is no nn.Linear in it"
        raise OptionError(
            f"the head of {type(module).__name__} was not found: {wanted}; head= must name the nn.Linear that "
            "gives the logits, or use a score that needs no head (curvature, trak, tracin with parameters=)"
        )
    if layer.out_features < 2:
        raise OptionError(
            f"the head of {type(module).__name__} gives one output: two logits are wanted for two classes"
        )
    return ModuleStack(lambda: module, layer.out_features, head=head)


def _of_scikit_learn(model: Any, X: Any, y: Any) -> Head:
    estimator = model
    if hasattr(model, "steps"):
        X, estimator = model[:-1].transform(X) if len(model.steps) > 1 else X, model[-1]
    if not hasattr(estimator, "coef_") or not hasattr(estimator, "predict_proba"):
        raise OptionError(
            f"{type(estimator).__name__} gives no class probabilities by a linear head: LogisticRegression, or "
            "SGDClassifier(loss='log_loss'), is wanted; for least squares see `least_squares_leave_one_out`"
        )
    features = np.asarray(X.toarray() if hasattr(X, "toarray") else X)
    coef, intercept = np.asarray(estimator.coef_, np.float64), np.atleast_1d(estimator.intercept_)
    n_classes = len(estimator.classes_)
    known = np.asarray(estimator.classes_)
    index = np.searchsorted(known, np.asarray(y)).clip(0, n_classes - 1)
    if not (known[index] == np.asarray(y)).all():
        raise DataError("labels that the classifier was not fitted to: pass those of its training examples")
    if len(coef) == 1:  # p(second) = sigmoid(s) is the softmax of -s/2 and s/2, whose |W|^2 is |w|^2 / 2
        coef, intercept = np.concatenate([-coef, coef]) / 2, np.array([-0.5, 0.5]) * intercept[0]
    elif type(estimator).__name__ == "SGDClassifier":
        raise OptionError(f"SGDClassifier fits {n_classes} separate classifiers: two classes are wanted")
    penalty = _penalty(estimator, len(features))
    if n_classes == 2 and penalty is not None:
        penalty *= 2
    has_bias = bool(getattr(estimator, "fit_intercept", True))
    logits = features @ coef.T + intercept
    bias = intercept if has_bias else None
    return _finite(Head(features, logits, index, coef, bias, penalty, bias_penalised=False))


def _penalty(estimator: Any, n: int) -> float | None:
    """The L2 penalty of scikit-learn's estimator in our units; None where it has none, or another one."""
    ratio, kind = getattr(estimator, "l1_ratio", None), getattr(estimator, "penalty", "l2")
    if kind in ("l1", None) or (kind in ("elasticnet", "deprecated") and ratio):
        return None
    if hasattr(estimator, "alpha"):
        return float(estimator.alpha)
    C = np.ravel(getattr(estimator, "C_", getattr(estimator, "C", np.inf)))[0]
    return float(1 / (C * n)) if np.isfinite(C) and C > 0 else None

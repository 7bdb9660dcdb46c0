"""Refitting the last layer on a trained model's features: what the methods that do so share.

    keep an ERM model's features; take labelled examples that the model never trained on
    weigh or choose them; fit a new head: multinomial logistic regression, penalised by L2 or L1
    put the head in place of the old one; what standardised the features is folded into it

A linear model's features are its inputs, so for it a refitted head is a new linear model of the inputs.
"""

import inspect
import warnings
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from unrote.data.inputs import Inputs
from unrote.errors import DataError, OptionError
from unrote.methods.base import Fitted, Method
from unrote.methods.session import Session
from unrote.models import Stack
from unrote.seeding import generator
from unrote.supervision import Supervision
from unrote.training import Supervised, TrainingResult

HoldOut = Literal["train", "validation"]
"""Which labelled examples ERM is kept from: a share of training, or the validation split (its labels alone)."""

Head = tuple[Float[Tensor, "C F"], Float[Tensor, " C"]]
"""Weight and bias of a last linear layer, in double precision."""


def check_hold_out(hold_out: str, share: float) -> None:
    """Refuse other values of the two options that say what is held out.

    Raises:
        OptionError: if they are none.
    """
    if hold_out not in ("train", "validation"):
        raise OptionError(f"hold_out={hold_out!r}: 'train' or 'validation' is wanted")
    if not 0 < share < 1:
        raise OptionError(f"share={share!r}: a share of training above 0 and below 1 is wanted")


@dataclass(frozen=True)
class HeldOutExamples:
    """An ERM model, and labelled examples that it never trained on.

    Args:
        training: of the model, a stack of one.
        x: n examples.
        y: (n,) their labels.
        weight: (n,) what each counts: the session's sample weights of training examples, else 1.
    """

    training: TrainingResult
    x: Inputs
    y: Int[Tensor, " n"]
    weight: Float[Tensor, " n"]

    @property
    def stack(self) -> Stack:
        """The model."""
        return self.training.stack

    def features(self) -> Float[Tensor, "n F"]:
        """What the model's head is given, in double precision."""
        return features(self.stack, self.x)

    def logits(self) -> Float[Tensor, "n C"]:
        """The model's logits."""
        return self.stack.predict(self.x)[0]


def features(stack: Stack, x: Any) -> Float[Tensor, "n F"]:
    """What the head of a stack of one is given for each example, in double precision."""
    return stack.predict_features(x)[0].double()


def erm_and_held_out(
    session: Session, hold_out: HoldOut, share: float = 0.2, *, length: float = 1.0
) -> HeldOutExamples:
    """An ERM model, trained once per session, and the labelled examples that it was kept from.

    Args:
        session: the run.
        hold_out: "train" keeps the model from a share of the training examples, chosen at random within each
            class; "validation" trains on all and takes the validation split.
        share: of the training examples that are held out.
        length: share of the recipe's steps.

    Raises:
        OptionError: if the validation split is wanted and there is none.
    """
    if hold_out == "validation":
        if session.task.validation is None:
            raise OptionError(
                f"task {session.task.name!r} has no validation split: hold_out='train' takes a share of training"
            )
        split = session.validation
        return HeldOutExamples(session.erm(length), split.x, split.y, torch.ones(len(split)))
    rows = stratified_share(session.y, share, session.seed)
    name = f"erm-{length:g}-without-{share:g}"
    if name not in session.artefacts:
        weight = torch.ones(len(session.y))
        weight[rows] = 0.0
        session.artefacts[name] = session.train(
            Supervised(Supervision(session.y, weight=weight)),
            stage=name,
            recipe=session.recipe.shortened(length),
        )
    held_out = session.task.train.x.subset(rows)
    return HeldOutExamples(session.artefacts[name], held_out, session.y[rows], training_weight(session)[rows])


def training_weight(session: Session) -> Float[Tensor, " n"]:
    """What each training example counts: the session's sample weights, or 1."""
    return torch.ones(len(session.y)) if session.sample_weight is None else session.sample_weight


def stratified_share(y: Int[Tensor, " n"], share: float, seed: int) -> Int[Tensor, " m"]:
    """Rows of a share of every class, in order: at least one, and never a whole class.

    A class with a single example keeps it out of the share, with a warning.
    """
    random = generator(seed, "hold out", f"{share:g}")
    chosen = []
    for label in y.unique().tolist():
        rows = (y == label).nonzero().squeeze(1)
        if len(rows) == 1:
            warnings.warn(
                f"class {label} has one training example, so none is held out: a head refitted on the others "
                "cannot know the class; hold out the validation split instead",
                UserWarning,
                stacklevel=2,
            )
        n = min(max(1, round(share * len(rows))), len(rows) - 1)
        chosen.append(rows[torch.randperm(len(rows), generator=random)[:n]])
    return torch.cat(chosen).sort().values


def halves(group: Int[Tensor, " n"], seed: int) -> tuple[Int[Tensor, " a"], Int[Tensor, " b"]]:
    """Rows of two random halves of every group; the first has the odd example, so it has every group."""
    first, second = [], []
    for g in group.unique():
        rows = (group == g).nonzero().squeeze(1)
        rows = rows[torch.randperm(len(rows), generator=generator(seed, "halves", int(g)))]
        first.append(rows[: (len(rows) + 1) // 2])
        second.append(rows[(len(rows) + 1) // 2 :])
    return torch.cat(first), torch.cat(second)


@dataclass(frozen=True)
class Standardizer:
    """Takes features to mean 0 and deviation 1; a constant feature is only centred."""

    mean: Float[Tensor, " F"]
    scale: Float[Tensor, " F"]

    @classmethod
    def of(cls, x: Float[Tensor, "n F"]) -> "Standardizer":
        """By the mean and deviation of examples, in double precision whatever theirs."""
        mean, scale = x.mean(0), x.std(0, correction=0)
        rounding = 10 * torch.finfo(x.dtype).eps * mean.abs()  # all that deviates in a constant feature
        return cls(mean.double(), torch.where(scale > rounding, scale, 1.0).double())

    def __call__(self, x: Float[Tensor, "n F"]) -> Float[Tensor, "n F"]:
        """Standardised features."""
        return (x - self.mean) / self.scale

    def fold(self, head: Head) -> Head:
        """The head on plain features that gives the logits which `head` gives on standardised ones."""
        weight = head[0] / self.scale
        return weight, head[1] - weight @ self.mean


def fit_head(
    x: Float[Tensor, "n F"],
    y: Int[Tensor, " n"],
    n_classes: int,
    *,
    penalty: float,
    weight: Float[Tensor, " n"] | None = None,
    start: Head | None = None,
) -> Head:
    """Multinomial logistic regression, drawn towards a head: a convex problem, solved by L-BFGS.

    Minimises `sum_i w_i CE(W x_i + b, y_i) / sum_i w_i + penalty * (|W - W0|^2 + |b - b0|^2)`.

    Args:
        x: (n, F) features, in double precision.
        y: (n,) labels.
        n_classes: C.
        penalty: above 0, else the weights of separable classes would grow without end.
        weight: (n,) at least 0, some above; default equal.
        start: W0 and b0; default zero.

    Raises:
        OptionError: if the penalty is not above 0.
    """
    if not penalty > 0:
        raise OptionError(f"penalty={penalty!r}: a number above 0 is wanted")
    from scipy.optimize import minimize

    anchor = torch.zeros(n_classes, x.shape[1] + 1, dtype=torch.float64)
    if start is not None:
        anchor = torch.cat([start[0].cpu(), start[1].cpu().unsqueeze(1)], dim=1).double()
    x = torch.cat([x, x.new_ones(len(x), 1)], dim=1)
    w = torch.full((len(x),), 1 / len(x), dtype=x.dtype) if weight is None else weight.double() / weight.sum()
    truth = F.one_hot(y, n_classes).to(x.dtype)

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        theta = torch.from_numpy(flat).view_as(anchor)
        log_p = F.log_softmax(x @ theta.mT, dim=1)
        away = theta - anchor
        value = -(w @ (truth * log_p).sum(1)) + penalty * away.square().sum()
        slope = (w.unsqueeze(1) * (log_p.exp() - truth)).mT @ x + 2 * penalty * away
        return float(value), slope.flatten().numpy()

    found = minimize(loss, anchor.flatten().numpy(), jac=True, method="L-BFGS-B", options={"maxiter": 1000})
    theta = torch.from_numpy(found.x).view_as(anchor)
    return theta[:, :-1].clone(), theta[:, -1].clone()


def fit_sparse_head(
    x: Float[Tensor, "n F"],
    y: Int[Tensor, " n"],
    n_classes: int,
    *,
    C: float,
    weight: Float[Tensor, " n"] | None = None,
    seed: int = 0,
) -> Head:
    """L1-penalised logistic regression by scikit-learn's liblinear; one class against the rest if C > 2.

    Minimises, for each class, `|w| + |b| + C * sum_i w_i loss_i`. A class without examples never wins.

    Args:
        x: (n, F) features, standardised.
        y: (n,) labels of at least two classes.
        n_classes: number of classes.
        C: inverse strength of the penalty.
        weight: (n,) above 0; default 1.
        seed: of the order of the solver's coordinates.

    Raises:
        DataError: if all labels are of one class.
    """
    from sklearn.linear_model import LogisticRegression

    # scikit-learn 1.8 renamed the option
    old = inspect.signature(LogisticRegression).parameters.get("penalty")
    kind = {"penalty": "l1"} if old is not None and old.default == "l2" else {"l1_ratio": 1.0}
    present = y.unique().tolist()
    if len(present) < 2:
        raise DataError(
            f"all {len(y)} examples to fit a head to are of class {present[0]}, two classes are wanted: hold out "
            "more examples"
        )
    head = torch.zeros(n_classes, x.shape[1] + 1, dtype=torch.float64)
    head[:, -1] = _NEVER
    for label in present[1:] if len(present) == 2 else present:
        solver = LogisticRegression(C=C, solver="liblinear", max_iter=1000, random_state=seed, **kind)
        solver.fit(x.numpy(), (y == label).numpy(), None if weight is None else weight.numpy())
        head[label] = torch.from_numpy(np.append(solver.coef_[0], solver.intercept_[0]))
    if len(present) == 2:  # p(second) = sigmoid(s) is the softmax of -s/2 and s/2
        head[present[1]] /= 2
        head[present[0]] = -head[present[1]]
    return head[:, :-1], head[:, -1].clone()


_NEVER = -1e4  # the logit of a class that the head has no example of


def average(heads: list[Head]) -> Head:
    """The head with the mean weights and biases of several."""
    weights, biases = zip(*heads, strict=True)
    return torch.stack(weights).mean(0), torch.stack(biases).mean(0)


def predicted(head: Head, x: Float[Tensor, "n F"]) -> Int[Tensor, " n"]:
    """Class that a head predicts for each example's features."""
    return (x @ head[0].mT + head[1]).argmax(1)


def group_scores(right: Float[Tensor, " n"], group: Int[Tensor, " n"]) -> tuple[float, float]:
    """The worst group's share of right predictions, and the mean over groups, which settles ties."""
    means = torch.stack([right[group == g].double().mean() for g in group.unique()])
    return float(means.min()), float(means.mean())


def with_head(method: Method, session: Session, training: TrainingResult, head: Head) -> Fitted:
    """The classifier that a trained stack of one is with another head; the stack itself stays as it is.

    Where the session evaluates, the history ends with a record of the refitted model. Early stopping has no say:
    the head is fitted once.
    """
    stack = training.stack.select([0])
    stack.set_head(head[0].to(stack.device), head[1].to(stack.device))
    stack.eval()
    history = list(training.history)
    if session.evaluate is not None:
        metrics = {name: value.tolist() for name, value in session.evaluate(stack).items()}
        history.append({**{k: history[-1][k] for k in ("step", "epoch", "loss")}, **metrics})
    return Fitted(method, replace(training, stack=stack, history=history), dict(session.artefacts))

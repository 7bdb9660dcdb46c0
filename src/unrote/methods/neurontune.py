"""NeuronTune: silence the neurons that speak for the mistakes (Zheng et al. 2025, arXiv 2505.24048, ICML 2025).

    train ERM; look at held-out examples
    score[c, j] = median of feature j over the mistakes of class c, less its median over the right ones of class c
    a feature is biased if score[c, j] > threshold for every class c with mistakes and right ones
    refit the head on the training examples with the biased features at zero and the classes balanced,
        penalised by the way from ERM's head

Features that are high where the model errs are taken to carry the shortcut. The sum of |score| over classes
and features (`fitness` among the artefacts) is the paper's criterion to choose a model by, without group
labels. ERM knows its training examples by heart, so they tell nothing: held out is the validation split
(labels without groups).

Needs no groups. Made for features that are rectified, where silence is zero. A linear model's features are
its inputs: inputs that are high where it errs are dropped.
"""

import warnings
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from unrote.errors import OptionError
from unrote.methods.balance import equal_weights
from unrote.methods.base import Fitted, Method, register
from unrote.methods.heads import (
    HoldOut,
    check_hold_out,
    erm_and_held_out,
    features,
    fit_head,
    training_weight,
    with_head,
)
from unrote.methods.losses import check_positive
from unrote.methods.search import LogUniform, hyper
from unrote.methods.session import Session


@register("neurontune", needs="none", reference="Zheng et al. 2025, arXiv 2505.24048")
@dataclass(frozen=True)
class NeuronTune(Method):
    """Silence biased neurons, then refit the head.

    Args:
        threshold: above which a score makes a feature biased, at least 0.
        penalty: on the way from ERM's head, > 0.
        hold_out: "validation" looks for mistakes among the validation examples, "train" among a share of training
            that ERM is kept from.
        share: of training that is held out, above 0 and below 1.

    Raises:
        OptionError: if one is out of range.
    """

    threshold: float = hyper(0.0)
    penalty: float = hyper(1e-4, LogUniform(1e-6, 1e-2))
    hold_out: HoldOut = "validation"
    share: float = hyper(0.2)

    def __post_init__(self) -> None:
        check_positive("threshold", self.threshold, zero=True)
        check_positive("penalty", self.penalty)
        check_hold_out(self.hold_out, self.share)

    def fit(self, session: Session) -> Fitted:
        """Train ERM, find its biased features, refit its head without them."""
        held_out = erm_and_held_out(session, self.hold_out, self.share)
        stack = held_out.stack
        right = held_out.logits().argmax(1) == held_out.y
        score = spuriousness(held_out.features(), held_out.y, right, session.task.n_classes)
        biased = biased_features(score, self.threshold)
        session.artefacts |= {"biased_features": biased, "fitness": float(score.nan_to_num().abs().sum())}
        _warn_if_useless(biased, right)
        kept = (~biased).double()
        weight, bias = stack.head()
        x, y = features(stack, session.task.train.x) * kept, session.y
        weight, bias = fit_head(
            x,
            y,
            session.task.n_classes,
            penalty=self.penalty,
            weight=equal_weights(y) * training_weight(session),
            start=(weight.cpu() * kept, bias),
        )
        return with_head(self, session, held_out.training, (weight * kept, bias))


def spuriousness(
    x: Float[Tensor, "n F"], y: Int[Tensor, " n"], right: Bool[Tensor, " n"], n_classes: int
) -> Float[Tensor, "C F"]:
    """Median of each feature over a class's mistakes less that over its right ones; NaN where it lacks either."""
    score = torch.full((n_classes, x.shape[1]), torch.nan, dtype=x.dtype)
    for c in range(n_classes):
        wrong_ones, right_ones = x[(y == c) & ~right], x[(y == c) & right]
        if len(wrong_ones) and len(right_ones):
            score[c] = wrong_ones.quantile(0.5, dim=0) - right_ones.quantile(0.5, dim=0)
    return score


def biased_features(score: Float[Tensor, "C F"], threshold: float) -> Bool[Tensor, " F"]:
    """Which features score above the threshold in every class that has scores; none where no class has."""
    scored = score[~score.isnan().any(1)]
    return (scored > threshold).all(0) if len(scored) else torch.zeros(score.shape[1], dtype=torch.bool)


def _warn_if_useless(biased: Bool[Tensor, " F"], right: Bool[Tensor, " n"]) -> None:
    if bool(biased.all()):
        raise OptionError("every feature counts as biased, so none is left: raise threshold=")
    if bool(right.all()):
        warnings.warn(
            "the model is right about all held-out examples, so no feature counts as biased and the result is "
            "ERM with a class-balanced head; hold out more",
            UserWarning,
            stacklevel=3,
        )

"""CnC: correct-n-contrast (Zhang et al. 2022, arXiv 2203.01517, ICML 2022).

    scout = ERM for a share of the steps; guess[i] = its prediction, taken for the attribute
    from scratch, on minibatches in which half of each class are examples that the scout is wrong about:
        z = the features, scaled to length 1
        positives of i: same class, another guess;  negatives of i: another class, the same guess
        contrast_i = mean over positives p of
                     -log(exp(z_i z_p / T) / sum over positives and negatives j of exp(z_i z_j / T))
        minimise contrast * mean contrast_i + (1 - contrast) * mean CE

What looks different to the shortcut but is of one class is drawn together, what looks the same to it but is
of two classes is driven apart. Both sides of a pair are anchors, as in the paper's two-sided loss; positives
and negatives are those of the minibatch, where the paper draws some for every anchor. A scout trained for
long is right about everything: nothing is left to contrast, and the method warns and is ERM.

Needs no groups. A linear model learns no features: what is left for it is the cross-entropy on these
minibatches.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from unrote.data.options import check_number
from unrote.methods.base import Fitted, Method, register
from unrote.methods.biased import mistakes, training_logits
from unrote.methods.losses import check_positive
from unrote.methods.search import Choice, Uniform, hyper
from unrote.methods.session import Session
from unrote.models import Stack
from unrote.supervision import Supervision, take_examples
from unrote.training import Batch, Objective


@dataclass
class Contrasted(Objective):
    """Cross-entropy, and the contrast of features between classes and guesses.

    Args:
        supervision: of the cross-entropy.
        guess: (n,) class that the scout takes each example for.
        contrast: share of the contrastive loss.
        temperature: T.
    """

    supervision: Supervision
    guess: Int[Tensor, " n"]
    contrast: float
    temperature: float

    def with_weight(self, weight: Float[Tensor, " n"]) -> "Contrasted":
        """The weights multiply the cross-entropies; minibatches and contrasts stay as they are."""
        return replace(self, supervision=self.supervision.weighted(weight))

    def prepare(self, stack: Stack, n_examples: int) -> None:
        """Refuse what the supervision does not fit, and move to the stack's device."""
        self.supervision.check(n_examples, stack.n_members, stack.n_classes)
        self.supervision, self.guess = self.supervision.to(stack.device), self.guess.to(stack.device)
        if not stack.learns_features:
            self.contrast = 0.0

    def loss(self, stack: Stack, batch: Batch) -> Float[Tensor, " S"]:
        """The weighted sum of both losses."""
        rows = self.supervision.batch(batch.index)
        features, logits = stack.features_and_logits(batch.x, per_member=batch.per_member)
        plain = (1 - self.contrast) * rows.loss(logits)
        if not self.contrast:
            return plain
        guess = take_examples(self.guess, batch.index, False)
        return plain + self.contrast * contrastive_loss(features, rows.target, guess, self.temperature)


def contrastive_loss(
    features: Float[Tensor, "S B F"], y: Int[Tensor, "s B"], guess: Int[Tensor, "s B"], temperature: float
) -> Float[Tensor, " S"]:
    """Mean contrast of each member over the examples that have a positive and a negative; 0 if none has."""

    def pairs(values: Int[Tensor, "s B"]) -> Bool[Tensor, "s B B"]:
        return values.unsqueeze(2) == values.unsqueeze(1)

    positive, negative = pairs(y) & ~pairs(guess), ~pairs(y) & pairs(guess)
    anchor = positive.any(2) & negative.any(2)
    z = F.normalize(features, dim=-1)
    similarity = z @ z.mT / temperature
    # an anchor's logarithm runs over its own pairs; where there are none, over anything finite, and is left out
    pool = (positive | negative) | ~anchor.unsqueeze(2)
    log_share = similarity - similarity.masked_fill(~pool, -torch.inf).logsumexp(2, keepdim=True)
    each = -(positive * log_share).sum(2) / positive.sum(2).clamp_min(1)
    return (anchor * each).sum(1) / anchor.sum(1).clamp_min(1)


@register("cnc", needs="none", reference="Zhang et al. 2022, arXiv 2203.01517")
@dataclass(frozen=True)
class CnC(Method):
    """Correct-n-contrast.

    Args:
        contrast: share of the contrastive loss, from 0 to 1.
        temperature: T of the contrast, > 0.
        share: of the steps, after which the scout stops, in (0, 1].
    """

    contrast: float = hyper(0.5, Uniform(0.5, 0.75))
    temperature: float = hyper(0.1, Choice((0.05, 0.1)))
    share: float = hyper(0.1, Choice((0.05, 0.1, 0.2, 0.5)))

    def __post_init__(self) -> None:
        check_number("contrast", self.contrast, 0.0, 1.0)
        check_positive("temperature", self.temperature, usual="0.05 to 0.1")

    def fit(self, session: Session) -> Fitted:
        """Train the scout, then the model from scratch."""
        scout = session.erm(self.share).stack
        wrong = mistakes(session, scout, f"lower share={self.share:g} of CnC")
        guess = training_logits(session, scout).argmax(-1)
        session.artefacts |= {"cnc_guess": guess}
        contrast = self.contrast if bool(wrong.any()) else 0.0
        objective = Contrasted(Supervision(session.y), guess, contrast, self.temperature)
        sampling = half_wrong(session.y, wrong) if bool(wrong.any()) else None
        return self.fitted(session, session.train(objective, settings=self.settings(), sampling=sampling))


def half_wrong(y: Int[Tensor, " n"], wrong: Bool[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Chances under which half of each class are mistakes, if it has both kinds; classes keep their shares."""
    kind = 2 * y + wrong.long()
    size = torch.bincount(kind, minlength=2 * (int(y.max()) + 1)).view(-1, 2)
    kinds = (size > 0).sum(1)
    return size.sum(1)[y] / (kinds[y] * size.flatten()[kind])

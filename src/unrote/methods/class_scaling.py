"""Class-wise scaling: ERM with each class's probability scaled (Seo and Han 2024, arXiv 2412.15311).

    train ERM
    choose s, one positive number per class, by greedy search on the validation split:
        in turn, set each s[c] to what makes the lowest class accuracy highest, until nothing improves
    predict the class with the largest s[c] * p(c | x)

Needs the labels of training and validation examples, and no training beyond ERM's: log p + log s is ERM's logits
with another bias. The paper searches by group accuracy; without group labels, class accuracy takes its place. It
is a baseline: what it reaches needs no method at all. What is scored while training goes on is ERM.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unrote.methods.base import Fitted, SupervisionMethod, register
from unrote.methods.session import Session
from unrote.supervision import Supervision
from unrote.training import TrainingResult

_ROUNDS = 20  # over all classes; two or three are usual


@register("class_scaling", needs="none", reference="Seo and Han 2024, arXiv 2412.15311")
@dataclass(frozen=True)
class ClassScaling(SupervisionMethod):
    """ERM with class-wise scaling."""

    def supervision(self, session: Session) -> Supervision:
        """Nothing but the labels; refuses a task without validation split before anything is trained."""
        _ = session.validation
        return Supervision(session.y)

    def fitted(self, session: Session, result: TrainingResult, member: int = 0) -> Fitted:
        """ERM's classifier with the log scales added to its bias."""
        fitted = super().fitted(session, result, member)
        scale = best_offsets(fitted.logits(session.validation.x), session.validation.y)
        weight, bias = fitted.stack.head()
        fitted.stack.set_head(weight, bias + scale.to(bias))
        fitted.artefacts["log_scale"] = scale
        return fitted


def best_offsets(logits: Float[Tensor, "n C"], y: Int[Tensor, " n"]) -> Float[Tensor, " C"]:
    """Offsets of the logits that make the lowest class accuracy highest, by coordinate ascent from 0.

    Exact for two classes. Of equal lowest accuracies the one with the higher mean over classes is taken, and of
    those the least change. Classes without examples keep the offset 0 and do not count.

    Args:
        logits: of examples that the model was not trained on.
        y: their labels.
    """
    logits, present = logits.double(), y.unique()
    offset, reached = logits.new_zeros(logits.shape[1]), (-1.0, -1.0)
    for _ in range(_ROUNDS):
        before = reached
        for c in present.tolist():
            change, scores = _candidates(logits + offset, y, c, present)
            best = max(range(len(change)), key=lambda k: (scores[k], -abs(change[k])))
            if scores[best] > reached:
                reached = scores[best]
                offset[c] += change[best]
        if reached == before:
            break
    return offset


def _candidates(
    logits: Float[Tensor, "n C"], y: Int[Tensor, " n"], c: int, present: Int[Tensor, " K"]
) -> tuple[list[float], list[tuple[float, float]]]:
    """Changes of class c's offset, one per set of examples that can come to be predicted c, and their scores.

    A score is the lowest and the mean accuracy of the classes present.
    """
    others = logits.index_fill(1, torch.tensor([c]), -torch.inf)
    rival, predicted = others.max(1)
    lead, order = (rival - logits[:, c]).sort()  # an example is predicted c once the change exceeds its lead
    distinct = lead.unique()
    between = (distinct[1:] + distinct[:-1]) / 2
    change = torch.cat([lead.new_zeros(1), distinct[:1] - 1, between, distinct[-1:] + 1])
    of_class = y[order].unsqueeze(1) == present
    won = of_class & (present == c)
    lost = of_class & (predicted[order].unsqueeze(1) == present) & (present != c)
    # hits of each class when the first 0, 1, ..., n examples are predicted c
    gained = torch.cat([won.new_zeros(1, len(present)).long(), (won.long() - lost.long()).cumsum(0)])
    hits = lost.sum(0) + gained[torch.searchsorted(lead, change)]
    accuracy = hits / of_class.sum(0)
    return change.tolist(), list(zip(accuracy.amin(1).tolist(), accuracy.mean(1).tolist(), strict=True))

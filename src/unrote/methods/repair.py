"""REPAIR: weights that keep the attribute from predicting the class (Li & Vasconcelos 2019, arXiv 1904.07811).

    weight[i] = sigmoid(s[i]), all s = 0
    repeat:
        R = weighted cross-entropy of the best linear softmax reader of the class from the attribute
        H = entropy of the weighted class frequencies
        s <- a step of Adam down 1 - R / H                (the bias: the share of H that the attribute explains)
    minimise the weighted mean cross-entropy

The attribute is one of a few values, so the best linear reader on its indicators is known: it gives the weighted
frequencies of the classes with each attribute, and the inner training of the paper is not needed. Examples of one
group have the same gradient, so one s per group is enough. Weights that take the bias to 0 are many (equal groups
are among them); descent from equal weights finds some that stay near the class and attribute frequencies there
are. The paper then resamples by the weights; here they weight the loss.

Needs the group of every training example.
"""

import warnings
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unrote.errors import OptionError
from unrote.methods.base import SupervisionMethod, register
from unrote.methods.losses import check_positive
from unrote.methods.search import Choice, LogUniform, hyper
from unrote.methods.session import Session
from unrote.supervision import Supervision


def representation_bias(mass: Float[Tensor, "C A"]) -> Float[Tensor, ""]:
    """1 - R / H of the weighted groups: 0 where the attribute says nothing of the class, 1 where it says all.

    Args:
        mass: total weight of each group, some of it in two classes; 0 for a group without examples.
    """
    share = mass / mass.sum()
    entropy = -torch.special.xlogy(share.sum(1), share.sum(1)).sum()
    # a group without examples must not send 0 * infinity back to its weight
    there = share[mass > 0]
    with_attribute = share.sum(0).expand_as(share)[mass > 0]
    risk = -(there * (there / with_attribute).log()).sum()
    bias: Tensor = 1 - risk / entropy
    return bias


def repair_weights(
    size: Int[Tensor, "C A"], steps: int, step_size: float
) -> tuple[Float[Tensor, "C A"], float]:
    """The weight of an example of each group, and the bias that is left.

    Args:
        size: examples in each group.
        steps: of Adam.
        step_size: of Adam.
    """
    present = size.sum(1) > 0  # a class without examples has no frequency to take the logarithm of
    count = size[present].double()
    score = torch.zeros_like(count, requires_grad=True)
    optimizer = torch.optim.Adam([score], lr=step_size)
    for _ in range(steps):
        optimizer.zero_grad()
        representation_bias(count * score.sigmoid()).backward()
        optimizer.step()
    weight = torch.zeros_like(size, dtype=torch.double)
    weight[present] = score.detach().sigmoid()
    return weight, float(representation_bias(size[present] * weight[present]))


@register("repair", needs="train", reference="Li and Vasconcelos 2019, arXiv 1904.07811")
@dataclass(frozen=True)
class REPAIR(SupervisionMethod):
    """Representation bias removal.

    Args:
        steps: of the descent, at least 0; 0 is ERM.
        step_size: of the descent.
    """

    steps: int = hyper(1000, Choice((100, 300, 1000, 3000)))
    step_size: float = hyper(0.03, LogUniform(1e-3, 1.0))

    def supervision(self, session: Session) -> Supervision:
        """The labels, and the weights that remove the bias.

        Raises:
            OptionError: if a setting is out of range.
        """
        check_positive("step_size", self.step_size, usual="0.03")
        if self.steps < 0:
            raise OptionError(f"steps={self.steps}: at least 0 is wanted")
        groups = session.training_groups()
        size = groups.size.view(-1, groups.n_attributes)
        weight, bias = repair_weights(size, self.steps, self.step_size)
        if bias > 0.1 and self.steps:
            warnings.warn(
                f"under REPAIR's weights the attribute still explains {bias:.0%} of the class: take more steps, "
                "or other groups should some class have one attribute only",
                UserWarning,
                stacklevel=2,
            )
        session.artefacts["bias"] = bias
        return Supervision(session.y, weight=weight.float().flatten()[groups.index])

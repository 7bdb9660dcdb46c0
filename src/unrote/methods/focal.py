"""Focal loss: less weight for what the model already gets right (Lin et al. 2017, arXiv 1708.02002).

    p_y = softmax(f(x_i)) at i's label
    minimise the mean of (1 - p_y)^gamma * CE(f(x_i), y_i)

Needs the labels alone. The factor is part of the loss: gradients flow through it.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unrote.methods.base import register
from unrote.methods.losses import LossMethod, check_positive
from unrote.methods.search import LogUniform, hyper
from unrote.supervision import cross_entropy


@register("focal", needs="none", reference="Lin et al. 2017, arXiv 1708.02002")
@dataclass(frozen=True)
class Focal(LossMethod):
    """Focal loss.

    Args:
        gamma: how strongly confident examples are discounted, at least 0; 0 is ERM, 2 the paper's.
    """

    gamma: float = hyper(2.0, LogUniform(0.5, 5.0))

    def __post_init__(self) -> None:
        check_positive("gamma", self.gamma, zero=True, usual="0.5 to 5")

    def losses(self, logits: Float[Tensor, "S B C"], target: Int[Tensor, "s B"]) -> Float[Tensor, "S B"]:
        """Cross-entropy, discounted."""
        entropy = cross_entropy(logits, target)
        # 1 - p, without cancellation; the floor keeps the power's slope finite at p = 1 for gamma below 1
        wrong = (-torch.expm1(-entropy)).clamp_min(torch.finfo(entropy.dtype).tiny)
        return wrong**self.gamma * entropy

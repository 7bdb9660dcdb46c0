"""Spectral decoupling: a penalty on the logits instead of the weights (Pezeshki et al. 2021, arXiv 2011.09468).

    minimise the mean of CE(f(x_i), y_i) + penalty/2 * |f(x_i)|^2

Needs the labels alone. Once a strong feature explains an example, cross-entropy's gradient for every other one is
gone (gradient starvation); the penalty stops logits from growing and so leaves the others something to learn. It
takes the place of weight decay: set the recipe's to 0. Train for long: what starved grows slowly.
"""

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from unrote.methods.base import register
from unrote.methods.losses import LossMethod, check_positive
from unrote.methods.search import LogUniform, hyper
from unrote.supervision import cross_entropy


@register("spectral_decoupling", needs="none", reference="Pezeshki et al. 2021, arXiv 2011.09468")
@dataclass(frozen=True)
class SpectralDecoupling(LossMethod):
    """Spectral decoupling.

    Args:
        penalty: the paper's lambda, at least 0; 0 is ERM.
    """

    penalty: float = hyper(0.03, LogUniform(1e-4, 1e-1))

    def __post_init__(self) -> None:
        check_positive("penalty", self.penalty, zero=True, usual="1e-4 to 0.1")

    def losses(self, logits: Float[Tensor, "S B C"], target: Int[Tensor, "s B"]) -> Float[Tensor, "S B"]:
        """Cross-entropy and penalty."""
        return cross_entropy(logits, target) + self.penalty / 2 * logits.square().sum(-1)

"""sigma-damp: margins that count less the larger they are (Puli et al. 2023, arXiv 2308.12553).

    m_i = log odds of i's label, log(p_y / (1 - p_y))       with two classes, the difference of their logits
    minimise the mean of log(1 + exp(-d_i)) with d_i = m_i * (1 - sigmoid(m_i / T))

Needs the labels alone. The damped margin d is largest at m = 1.28 T, so every example is pulled to that one
margin, which the feature that never fails can give to all of them. The sigmoid takes the margin with its sign:
one that took its size would push an example that is wrong by more than 1.28 T further away. Train for long: it
acts once margins are large.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from unrote.methods.base import register
from unrote.methods.losses import LossMethod, check_positive, log_odds
from unrote.methods.search import LogUniform, hyper


@register("sigma_damp", needs="none", reference="Puli et al. 2023, arXiv 2308.12553")
@dataclass(frozen=True)
class SigmaDamp(LossMethod):
    """Logistic loss of damped margins.

    Args:
        temperature: T, above 0, in units of the margin; towards infinity it is ERM with margins halved.
    """

    temperature: float = hyper(1.0, LogUniform(0.5, 8.0))

    def __post_init__(self) -> None:
        check_positive("temperature", self.temperature, usual="0.5 to 8")

    def losses(self, logits: Float[Tensor, "S B C"], target: Int[Tensor, "s B"]) -> Float[Tensor, "S B"]:
        """Logistic loss of damped margins."""
        margin = log_odds(logits, target)
        return F.softplus(-margin * torch.sigmoid(-margin / self.temperature))

"""MARG-LOG: a penalty that grows with the logarithm of the margin (Puli et al. 2023, arXiv 2308.12553).

    m_i = log odds of i's label, log(p_y / (1 - p_y))       with two classes, the difference of their logits
    minimise the mean of CE(f(x_i), y_i) + penalty * log(1 + m_i^2)

Needs the labels alone. Cross-entropy rewards ever larger margins, and a shortcut offers them; with the penalty
every example has the same best margin, which the feature that never fails can give to all of them. The paper's
model has one output f, and |f| is the size of the margin; the log odds are that for any number of classes. Train
for long: it acts once margins are large.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from unrote.methods.base import register
from unrote.methods.losses import LossMethod, check_positive, log_odds
from unrote.methods.search import LogUniform, hyper


@register("marg_log", needs="none", reference="Puli et al. 2023, arXiv 2308.12553")
@dataclass(frozen=True)
class MargLog(LossMethod):
    """Cross-entropy with a logarithmic penalty on margins.

    Args:
        penalty: the paper's lambda, at least 0; 0 is ERM.
    """

    penalty: float = hyper(0.1, LogUniform(1e-3, 1.0))

    def __post_init__(self) -> None:
        check_positive("penalty", self.penalty, zero=True, usual="0.001 to 1")

    def losses(self, logits: Float[Tensor, "S B C"], target: Int[Tensor, "s B"]) -> Float[Tensor, "S B"]:
        """Cross-entropy and penalty."""
        margin = log_odds(logits, target)
        return F.softplus(-margin) + self.penalty * torch.log1p(margin.square())

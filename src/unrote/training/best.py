"""Early stopping, member by member: each keeps the parameters of its own best evaluation."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unrote.errors import OptionError
from unrote.models import Stack


@dataclass(frozen=True)
class EarlyStopping:
    """Keep each member's parameters from the evaluation at which a metric was best.

    Args:
        metric: a key of what `evaluate` returns.
        patience: evaluations without improvement after which a member is done; None trains to the end.
        maximize: whether larger is better.

    Raises:
        OptionError: if the patience is below 1.
    """

    metric: str
    patience: int | None = None
    maximize: bool = True

    def __post_init__(self) -> None:
        if self.patience is not None and self.patience < 1:
            raise OptionError(f"patience={self.patience}: at least 1 evaluation, or None, is wanted")


class BestMembers:
    """The best parameters of each member so far."""

    def __init__(self, stack: Stack, rule: EarlyStopping) -> None:
        self.stack, self.rule = stack, rule
        self.score: Float[Tensor, " S"] = torch.full((stack.n_members,), -math.inf)
        self.step: Int[Tensor, " S"] = torch.full((stack.n_members,), -1)
        self.stale: Int[Tensor, " S"] = torch.zeros(stack.n_members, dtype=torch.long)
        self.parameters = stack.snapshot()

    @property
    def finished(self) -> bool:
        """Whether every member has run out of patience."""
        return self.rule.patience is not None and bool((self.stale >= self.rule.patience).all())

    def update(self, metrics: Mapping[str, Tensor], step: int) -> None:
        """Take note of an evaluation after `step` steps.

        Raises:
            OptionError: if the metric is not among those evaluated.
        """
        if self.rule.metric not in metrics:
            raise OptionError(
                f"early stopping on {self.rule.metric!r}, but the evaluation gives: {', '.join(sorted(metrics))}"
            )
        score = metrics[self.rule.metric].cpu().float()
        score = score if self.rule.maximize else -score
        patient = torch.ones_like(self.stale, dtype=torch.bool)
        if self.rule.patience is not None:
            # a member that ran out of patience stays as it was, though its neighbours train on
            patient = self.stale < self.rule.patience
        better = patient & (score > self.score)
        self.stale = torch.where(better, 0, self.stale + patient.long())
        self.score = torch.where(better, score, self.score)
        self.step = torch.where(better, step, self.step)
        if bool(better.any()):
            self.stack.copy_members(self.parameters, better.to(self.stack.device))

    def state(self) -> dict[str, Tensor]:
        """Everything, by name, for a checkpoint."""
        counters = {"score": self.score, "step": self.step, "stale": self.stale}
        return {**counters, **{f"parameters.{name}": value for name, value in self.parameters.items()}}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `state` gave."""
        self.score, self.step, self.stale = state["score"], state["step"], state["stale"]
        for name, value in self.parameters.items():
            value.copy_(state[f"parameters.{name}"])

"""SGD and Adam for parameters whose first dimension is the members of a stack.

torch.optim takes one learning rate per tensor; a sweep held in one tensor needs one per member. The updates are
torch.optim's own, member by member: a stack of S ends where S separate runs end (a test holds that).
"""

import ctypes
import math
from collections.abc import Iterable, Mapping, Sequence
from ctypes import c_double, c_int64, c_void_p
from typing import Any, TypeAlias

import torch
from torch import Tensor

from unrote.compiled import NUMBERS, library

_WORTH_THREADS = 2**15  # elements


class StackedOptimizer:
    """Learning rate and weight decay per member, broadcast against each parameter.

    It has as much of `torch.optim.Optimizer` as training and checkpoints use, and is none: to make one of those,
    torch loads its compiler first, which takes longer than to train a head.
    """

    def __init__(
        self, parameters: Iterable[Tensor], learning_rate: Sequence[float], weight_decay: Sequence[float]
    ) -> None:
        self.param_groups: list[dict[str, Any]] = [{"params": list(parameters)}]
        self.state: dict[Tensor, dict[str, Tensor]] = {}
        self._learning_rate, self._weight_decay = learning_rate, weight_decay
        self._plain_rates: dict[torch.dtype, tuple[Tensor, Tensor]] = {}
        self._rates: dict[Tensor, tuple[Tensor | float, Tensor | float]] = {}  # as they broadcast, made once

    def rates(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Learning rates and weight decays, (S,) each and on the CPU, as compiled code reads them; made once."""
        if dtype not in self._plain_rates:
            rates = torch.tensor([self._learning_rate, self._weight_decay], dtype=dtype)
            self._plain_rates[dtype] = rates[0], rates[1]
        return self._plain_rates[dtype]

    @property
    def _parameters(self) -> list[Tensor]:
        return self.param_groups[0]["params"]  # type: ignore[no-any-return]

    @torch.no_grad()
    def step(self) -> None:
        """Update every parameter that has a gradient; what is left of the gradient is of no further use."""
        for p in self._parameters:
            if p.grad is not None:
                if p not in self._rates:
                    self._rates[p] = _per_member(self._learning_rate, p), _per_member(self._weight_decay, p)
                self._update(p, p.grad, self.state.setdefault(p, {}), *self._rates[p])

    def _update(
        self,
        p: Tensor,
        grad: Tensor,
        state: dict[str, Tensor],
        learning_rate: Tensor | float,
        weight_decay: Tensor | float,
    ) -> None:
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """What is kept between steps, by the parameter's place."""
        return {"state": {k: self.state[p] for k, p in enumerate(self._parameters) if self.state.get(p)}}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self.state = {self._parameters[k]: dict(kept) for k, kept in state_dict["state"].items()}


Optimizer: TypeAlias = StackedOptimizer | torch.optim.Optimizer


def _per_member(values: Sequence[float], p: Tensor) -> Tensor | float:
    """A number where all members agree (the common case, and the fastest), else (S, 1, ...)."""
    if all(value == values[0] for value in values):
        return values[0]
    return torch.tensor(values, dtype=p.dtype, device=p.device).view(-1, *[1] * (p.ndim - 1))


def _decay(p: Tensor, grad: Tensor, weight_decay: Tensor | float) -> None:
    """Add the L2 penalty's gradient, in place: a fresh tensor of this size costs more than the sum."""
    if isinstance(weight_decay, Tensor):
        grad.addcmul_(p, weight_decay)
    elif weight_decay:
        grad.add_(p, alpha=weight_decay)


class StackedSGD(StackedOptimizer):
    """torch.optim.SGD per member: weight decay as an L2 gradient, heavy-ball momentum."""

    def __init__(
        self,
        parameters: Iterable[Tensor],
        learning_rate: Sequence[float],
        weight_decay: Sequence[float],
        momentum: float = 0.0,
    ) -> None:
        super().__init__(parameters, learning_rate, weight_decay)
        self.momentum = momentum

    def _update(
        self,
        p: Tensor,
        grad: Tensor,
        state: dict[str, Tensor],
        learning_rate: Tensor | float,
        weight_decay: Tensor | float,
    ) -> None:
        _decay(p, grad, weight_decay)
        if self.momentum:
            if "momentum" in state:
                kept = state["momentum"]
                grad = torch.add(grad, kept, alpha=self.momentum, out=kept)
            else:
                grad = state["momentum"] = grad.clone()
        if isinstance(learning_rate, Tensor):
            # the gradient has done its work and its memory serves the step; addcmul_ would be slower, as it does
            # not vectorise over a factor that repeats
            p.sub_(torch.mul(grad, learning_rate, out=p.grad))
        else:
            p.add_(grad, alpha=-learning_rate)


class _Adam(ctypes.Structure):
    """`struct adam` of adam.c, member by member."""

    _fields_ = (
        ("members", c_int64),
        ("size", c_int64),
        ("p", c_void_p),
        ("mean", c_void_p),
        ("square", c_void_p),
        ("gradient", c_void_p),
        ("rate", c_void_p),
        ("decay", c_void_p),
        ("decoupled", c_int64),
        ("beta1", c_double),
        ("beta2", c_double),
        ("epsilon", c_double),
        ("correction1", c_double),
        ("correction2", c_double),
        ("threads", c_int64),
    )


class StackedAdam(StackedOptimizer):
    """torch.optim.Adam per member, or AdamW if `decoupled`; betas .9, .999, epsilon 1e-8."""

    betas, epsilon = (0.9, 0.999), 1e-8

    def __init__(
        self,
        parameters: Iterable[Tensor],
        learning_rate: Sequence[float],
        weight_decay: Sequence[float],
        *,
        decoupled: bool = False,
    ) -> None:
        super().__init__(parameters, learning_rate, weight_decay)
        self.decoupled = decoupled

    def _compiled(self, p: Tensor, grad: Tensor, state: dict[str, Tensor], step: int) -> bool:
        """Whether compiled code could take the step, which it then has: one pass over memory in place of seven."""
        kept = (p, grad, state["mean"], state["square"])
        if p.device.type != "cpu" or p.dtype not in NUMBERS:
            return False
        if any(value.dtype != p.dtype or not value.is_contiguous() for value in kept):
            return False
        found = library("adam", REAL=NUMBERS[p.dtype])
        if found is None:
            return False
        rate, decay = self.rates(p.dtype)
        found.adam(
            ctypes.byref(
                _Adam(
                    members=len(p),
                    size=p.numel() // len(p),
                    p=p.data_ptr(),
                    mean=state["mean"].data_ptr(),
                    square=state["square"].data_ptr(),
                    gradient=grad.data_ptr(),
                    rate=rate.data_ptr(),
                    decay=decay.data_ptr(),
                    decoupled=self.decoupled,
                    beta1=self.betas[0],
                    beta2=self.betas[1],
                    epsilon=self.epsilon,
                    correction1=1 - self.betas[0] ** step,
                    correction2=1 - self.betas[1] ** step,
                    threads=torch.get_num_threads() if p.numel() > _WORTH_THREADS else 1,
                )
            )
        )
        return True

    def _update(
        self,
        p: Tensor,
        grad: Tensor,
        state: dict[str, Tensor],
        learning_rate: Tensor | float,
        weight_decay: Tensor | float,
    ) -> None:
        beta1, beta2 = self.betas
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float64)
            state["mean"], state["square"] = torch.zeros_like(p), torch.zeros_like(p)
        state["step"] += 1
        step = int(state["step"])
        if self._compiled(p, grad, state, step):
            return
        if self.decoupled:
            p.mul_(1 - learning_rate * weight_decay)
        else:
            _decay(p, grad, weight_decay)
        state["mean"].lerp_(grad, 1 - beta1)
        state["square"].mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        # the gradient has done its work and its memory serves the step
        denominator = (
            torch.sqrt(state["square"], out=grad).div_(math.sqrt(1 - beta2**step)).add_(self.epsilon)
        )
        scale = learning_rate / (1 - beta1**step)
        if isinstance(scale, Tensor):
            p.sub_(torch.div(state["mean"], denominator, out=denominator).mul_(scale))
        else:
            p.addcdiv_(state["mean"], denominator, value=-scale)


def stacked_optimizer(
    parameters: Iterable[Tensor],
    name: str,
    learning_rate: Sequence[float],
    weight_decay: Sequence[float],
    momentum: float = 0.0,
) -> StackedOptimizer:
    """An optimiser by name, for parameters (S, ...).

    Args:
        parameters: each with the members in its first dimension.
        name: "sgd", "adam" or "adamw".
        learning_rate: one per member.
        weight_decay: one per member.
        momentum: of SGD.
    """
    if name == "sgd":
        return StackedSGD(parameters, learning_rate, weight_decay, momentum)
    return StackedAdam(parameters, learning_rate, weight_decay, decoupled=name == "adamw")

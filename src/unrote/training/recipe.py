"""How parameters are updated, whatever the method."""

import math
from dataclasses import asdict, dataclass, replace
from numbers import Integral, Real
from typing import Any, Literal

from unrote.errors import OptionError


@dataclass(frozen=True)
class Recipe:
    """How parameters are updated, whatever the method.

    Args:
        optimizer: "sgd", "adam" (weight decay as an L2 gradient) or "adamw" (decoupled).
        learning_rate: one, or one per member.
        weight_decay: one, or one per member.
        momentum: of SGD.
        batch_size: examples per step; None takes all of them in every step.
        epochs: passes over the training set; give this or `steps`.
        steps: updates; give this or `epochs`.
        clip_norm: what the Euclidean norm of each member's gradient is cut down to; None leaves it.

    Raises:
        OptionError: if a value is out of range, or not exactly one of `epochs` and `steps` is given.
    """

    optimizer: Literal["sgd", "adam", "adamw"] = "adam"
    learning_rate: float | tuple[float, ...] = 1e-3
    weight_decay: float | tuple[float, ...] = 0.0
    momentum: float = 0.9
    batch_size: int | None = 128
    epochs: int | None = None
    steps: int | None = None
    clip_norm: float | None = None

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.steps is None):
            raise OptionError(f"epochs={self.epochs} and steps={self.steps}: give exactly one of them")
        if self.optimizer not in ("sgd", "adam", "adamw"):
            raise OptionError(f"optimizer {self.optimizer!r}: 'sgd', 'adam' or 'adamw' is wanted")
        value: Any
        for name in ("epochs", "steps", "batch_size"):
            value = getattr(self, name)
            if value is not None and (not _is(value, Integral) or value < 1):
                raise OptionError(f"{name}={value!r}: a whole number of at least 1 is wanted")
        for name in ("learning_rate", "weight_decay"):
            value = getattr(self, name)
            values: tuple[Any, ...] = value if isinstance(value, tuple) else (value,)
            if not values or not all(_is(v, Real) and 0 <= v < math.inf for v in values):
                raise OptionError(f"{name}={value!r}: one finite number of at least 0, or a tuple, is wanted")
        if not _is(self.momentum, Real) or not 0 <= self.momentum < 1:
            raise OptionError(f"momentum={self.momentum!r}: at least 0 and below 1 is wanted")
        if self.clip_norm is not None and not (_is(self.clip_norm, Real) and 0 < self.clip_norm < math.inf):
            raise OptionError(f"clip_norm={self.clip_norm!r}: a finite number above 0, or None, is wanted")

    def described(self) -> dict[str, Any]:
        """Its fields by name; what was added later only where it is set, so that older checkpoints still fit."""
        return {k: v for k, v in asdict(self).items() if not (k == "clip_norm" and v is None)}

    def total_steps(self, steps_per_epoch: int) -> int:
        """Number of updates, where one pass over the training set takes `steps_per_epoch`."""
        return self.steps if self.steps is not None else (self.epochs or 0) * steps_per_epoch

    def shortened(self, share: float) -> "Recipe":
        """The recipe with a share of its length, at least one epoch or step.

        Raises:
            OptionError: if the share is not above 0 and at most 1.
        """
        if not 0 < share <= 1:
            raise OptionError(f"a share of {share} of the training: above 0 and at most 1 is wanted")
        if self.steps is not None:
            return replace(self, steps=max(1, round(share * self.steps)))
        return replace(self, epochs=max(1, round(share * (self.epochs or 1))))

    def lengthened(self, times: int) -> "Recipe":
        """The recipe with a multiple of its length."""
        if self.steps is not None:
            return replace(self, steps=times * self.steps)
        return replace(self, epochs=times * (self.epochs or 1))

    def per_member(self, name: Literal["learning_rate", "weight_decay"], n_members: int) -> list[float]:
        """A setting as one number per member.

        Raises:
            OptionError: if it was given for another number of members.
        """
        value = getattr(self, name)
        if not isinstance(value, tuple):
            return [value] * n_members
        if len(value) != n_members:
            raise OptionError(
                f"{name} has {len(value)} values for {n_members} members: give one, or one each"
            )
        return list(value)

    def repeated(self, times: int) -> "Recipe":
        """The recipe of a stack in which each member stands `times` times in a row."""

        def repeat(value: float | tuple[float, ...]) -> float | tuple[float, ...]:
            return tuple(v for v in value for _ in range(times)) if isinstance(value, tuple) else value

        return replace(self, learning_rate=repeat(self.learning_rate), weight_decay=repeat(self.weight_decay))


def _is(value: Any, kind: type) -> bool:
    """isinstance, for numpy's numbers too; apart, so that a type checker still takes them for int and float."""
    return isinstance(value, kind) and not isinstance(value, bool)

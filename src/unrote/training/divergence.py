"""Members whose loss left the finite numbers: which, when, and on which examples."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Bool, Int
from torch import Tensor

from unrote.errors import DivergedError, DivergedWarning
from unrote.training.order import Order
from unrote.training.recipe import Recipe

_SHOWN = 16  # indices in a message


@dataclass(frozen=True)
class Divergence:
    """The first loss of a member that was NaN or infinite.

    Args:
        member: whose.
        step: of training, from 0.
        indices: of the minibatch's examples.
    """

    member: int
    step: int
    indices: tuple[int, ...]

    def __str__(self) -> str:
        shown = ", ".join(map(str, self.indices[:_SHOWN]))
        rest = f", ... ({len(self.indices)} in all)" if len(self.indices) > _SHOWN else ""
        return f"member {self.member} at step {self.step}, on examples {shown}{rest}"


def divergences(diverged_at: Int[Tensor, " S"], order: Order) -> list[Divergence]:
    """All members that diverged.

    Args:
        diverged_at: (S,) the step, -1 where there is none.
        order: which examples each step saw.
    """
    found, seen = [], {}
    for member, step in enumerate(diverged_at.tolist()):
        if step >= 0:
            if step not in seen:
                seen[step] = next(order.minibatches(step, step + 1))
            index = seen[step]
            rows = index[member] if index.ndim == 2 else index
            found.append(Divergence(member, step, tuple(rows.tolist())))
    return found


def describe(found: Sequence[Divergence], new: Bool[Tensor, " S"], recipe: Recipe) -> None:
    """Say which members diverged.

    Args:
        found: all of them.
        new: (S,) those not yet spoken of.
        recipe: of the run.

    Raises:
        DivergedError: if no member is left.
    """
    if len(found) == len(new):
        steps = sorted({one.step for one in found})
        raise DivergedError(
            f"the loss of every member became NaN or infinite (at step {steps[0]} to {steps[-1]}): "
            f"lower the learning rate, now {recipe.learning_rate}, or look at the examples: "
            + "; ".join(map(str, found[:4]))
            + ("; ..." if len(found) > 4 else "")
        )
    fresh = [one for one in found if bool(new[one.member])]
    more = f" and {len(fresh) - 4} more members" if len(fresh) > 4 else ""
    warnings.warn(
        f"the loss became NaN or infinite: {'; '.join(map(str, fresh[:4]))}{more}; the other members go on",
        DivergedWarning,
        stacklevel=4,
    )

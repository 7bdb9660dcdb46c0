"""Mixed inputs, for methods that train on convex combinations of examples (mixup, Zhang et al. 2018)."""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from unrote.data.inputs import Example, map_tensors
from unrote.errors import OptionError
from unrote.models import Stack
from unrote.seeding import derive_seed


def mixed(x: Example, partner: Int[Tensor, " B"], share: Float[Tensor, " B"]) -> Example:
    """share[i] * x[i] + (1 - share[i]) * x[partner[i]], tensor by tensor.

    Args:
        x: a minibatch (B, ...), or a mapping or tuple of such.
        partner: (B,) positions in the minibatch.
        share: (B,) what stays of each example, in [0, 1].

    Raises:
        OptionError: if a tensor is not of floating-point numbers, as token indices are not.
    """

    def mix(t: Tensor) -> Tensor:
        if not t.is_floating_point():
            raise OptionError(
                f"inputs of type {t.dtype} cannot be mixed: floating-point tensors are wanted, such as "
                "pictures or features; for text, train on features of the text, or choose another method"
            )
        kept = share.to(t).view(-1, *[1] * (t.ndim - 1))
        return kept * t + (1 - kept) * t[partner]

    return map_tensors(x, mix)


def mixed_logits(
    stack: Stack, x: Example, partner: Int[Tensor, " B"], share: Float[Tensor, " B"]
) -> Float[Tensor, "S B C"]:
    """Logits of mixtures of examples; of mixed last features where the inputs themselves cannot be mixed.

    The last layer is linear, so that mixed features give mixed logits (the "manifold mixup" of token indices).

    Args:
        stack: all members see the same mixtures.
        x: a minibatch.
        partner: (B,) positions in the minibatch.
        share: (B,) what stays of each example, in [0, 1].
    """
    mixable = can_be_mixed(x)
    logits: Tensor = stack(mixed(x, partner, share) if mixable else x)
    if mixable:
        return logits
    kept = share.to(logits).unsqueeze(1)
    return kept * logits + (1 - kept) * logits[:, partner]


def logits_with_mixtures(
    stack: Stack, x: Example, partner: Int[Tensor, " B"], share: Float[Tensor, " B"]
) -> Float[Tensor, "2 B C"]:
    """Logits of the examples by the first of two members, of their mixtures by the second; see `mixed_logits`."""
    if can_be_mixed(x):
        both = map_tensors(x, lambda t: torch.stack([t, mixed(t, partner, share)]))
        logits: Tensor = stack(both, per_member=True)
        return logits
    logits = stack(x)
    kept = share.to(logits).unsqueeze(1)
    return torch.stack([logits[0], kept * logits[1] + (1 - kept) * logits[1][partner]])


def can_be_mixed(x: Example) -> bool:
    """Whether all tensors are of floating-point numbers: pictures and features are, token indices are not."""
    floating: list[bool] = []
    map_tensors(x, lambda t: floating.append(t.is_floating_point()))
    return all(floating)


def beta_share(alpha: float, seed: int, *purpose: str | int) -> float:
    """One draw from Beta(alpha, alpha), a function of seed and purpose alone."""
    return float(np.random.default_rng(derive_seed(seed, *purpose)).beta(alpha, alpha))


def random_partners(n: int, random: torch.Generator) -> Int[Tensor, " n"]:
    """A random permutation of the positions in a minibatch of n."""
    return torch.randperm(n, generator=random)


class Partners:
    """Draws, for any example, one that is like it in one respect and unlike it in another.

    Args:
        like: (n,) from 0, what partners share.
        unlike: (n,) from 0, what they differ in.
    """

    def __init__(self, like: Int[Tensor, " n"], unlike: Int[Tensor, " n"]) -> None:
        cell = like * (int(unlike.max()) + 1) + unlike
        # in this order the examples alike are neighbours, and among them those not unlike either
        self.order = cell.sort(stable=True).indices
        size, start = torch.bincount(like), torch.bincount(like).cumsum(0) - torch.bincount(like)
        own_size = torch.bincount(cell)
        own_start = own_size.cumsum(0) - own_size
        self.start, self.own_start = start[like], own_start[cell]
        self.own_size, self.available = own_size[cell], size[like] - own_size[cell]

    def draw(self, index: Int[Tensor, "*B"], chance: Float[Tensor, "*B"]) -> Int[Tensor, "*B"]:
        """A partner of each example, each equally likely; the example itself where it has none.

        Args:
            index: of the examples.
            chance: uniform in [0, 1), one per example.
        """
        place = self.start[index] + (chance * self.available[index]).long()
        place = torch.where(place >= self.own_start[index], place + self.own_size[index], place)
        lonely = self.available[index] == 0
        return torch.where(lonely, index, self.order[place.clamp_max(len(self.order) - 1)])

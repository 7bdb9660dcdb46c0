"""Which examples each step sees."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unrote.errors import OptionError
from unrote.seeding import generator


@dataclass(frozen=True)
class Order:
    """Which examples each step sees: a fresh permutation every epoch, a function of the seed and the step alone.

    Args:
        n_examples: size of the training set.
        batch_size: examples per step; None takes all in their own order.
        seeds: one seed for an order that all members share, or one per member.
        sampling: (n,) at least 0; draws examples with replacement in proportion to it, instead of permuting.
        blocks: rows of a block and of a window, for examples in a file that should be read in blocks: blocks are
            shuffled, then examples within each window of that many rows. None permutes freely.

    Raises:
        OptionError: if `sampling` cannot be drawn from.
    """

    n_examples: int
    batch_size: int | None
    seeds: int | tuple[int, ...] = 0
    sampling: Float[Tensor, " n"] | None = None
    blocks: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if (weights := self.sampling) is None:
            return
        if len(weights) != self.n_examples:
            raise OptionError(
                f"sampling has {len(weights)} values for {self.n_examples} examples: one each is wanted"
            )
        if not (bool((weights >= 0).all()) and 0 < float(weights.sum()) < math.inf):
            raise OptionError("sampling: finite numbers of at least 0, some above, are wanted")

    @property
    def steps_per_epoch(self) -> int:
        """Number of minibatches in one epoch; the last may be smaller."""
        return math.ceil(self.n_examples / (self.batch_size or self.n_examples))

    def epoch(self, epoch: int) -> Int[Tensor, "*S n"]:
        """The order of one epoch, (n,) or (S, n)."""
        if isinstance(self.seeds, int):
            return self._draw(self.seeds, epoch)
        return torch.stack([self._draw(seed, epoch) for seed in self.seeds])

    def _draw(self, seed: int, epoch: int) -> Int[Tensor, " n"]:
        random = generator(seed, "order", epoch)
        if self.sampling is not None:
            return torch.multinomial(self.sampling, self.n_examples, replacement=True, generator=random)
        if self.batch_size is None:
            return torch.arange(self.n_examples)
        if self.blocks is not None:
            return self._draw_blocks(*self.blocks, random)
        return torch.randperm(self.n_examples, generator=random)

    def _draw_blocks(self, block: int, window: int, random: torch.Generator) -> Int[Tensor, " n"]:
        starts = torch.randperm(math.ceil(self.n_examples / block), generator=random) * block
        rows = (starts.unsqueeze(1) + torch.arange(block)).flatten()
        rows = rows[rows < self.n_examples]  # the last block may be smaller
        return torch.cat([part[torch.randperm(len(part), generator=random)] for part in rows.split(window)])

    def minibatches(self, start: int, stop: int) -> Iterator[Int[Tensor, "*S B"]]:
        """The indices of steps `start` to `stop`, (B,) or (S, B)."""
        size, per_epoch = self.batch_size or self.n_examples, self.steps_per_epoch
        order = self.epoch(start // per_epoch)
        for step in range(start, stop):
            place = step % per_epoch
            if place == 0 and step > start:
                order = self.epoch(step // per_epoch)
            yield order[..., place * size : (place + 1) * size]

"""The order of the examples: a permutation each epoch, and a function of seed and step alone."""

import math
from itertools import islice

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unrote.errors import OptionError
from unrote.training import Order

sizes = st.integers(1, 40)
seeds = st.one_of(st.integers(0, 2**40), st.tuples(st.integers(0, 99), st.integers(100, 199)))


@given(sizes, st.one_of(st.none(), st.integers(1, 50)), seeds, st.integers(0, 5))
def test_every_epoch_is_a_permutation(
    n: int, batch_size: int | None, seed: int | tuple[int, ...], epoch: int
) -> None:
    order = Order(n, batch_size, seed)
    per_epoch = order.steps_per_epoch
    batches = list(order.minibatches(epoch * per_epoch, (epoch + 1) * per_epoch))
    assert len(batches) == per_epoch == math.ceil(n / (batch_size or n))
    seen = torch.cat(batches, dim=-1)
    assert seen.shape == ((n,) if isinstance(seed, int) else (2, n))
    assert torch.equal(seen.sort(-1).values, torch.arange(n).expand_as(seen))
    # all minibatches are full but the last of an epoch
    assert [batch.shape[-1] for batch in batches[:-1]] == [batch_size] * (per_epoch - 1)


@given(sizes, st.integers(1, 12), seeds, st.integers(0, 30), st.integers(0, 30))
def test_can_start_at_any_step(
    n: int, batch_size: int, seed: int | tuple[int, ...], start: int, more: int
) -> None:
    """What a resumed run is shown is what an unbroken one would have been."""
    order = Order(n, batch_size, seed)
    straight = islice(order.minibatches(0, start + more), start, None)
    resumed = list(order.minibatches(start, start + more))
    assert len(resumed) == more
    assert all(torch.equal(one, other) for one, other in zip(straight, resumed, strict=True))


@given(sizes, st.integers(1, 12), st.tuples(st.integers(0, 99), st.integers(100, 199)))
def test_member_with_a_seed_of_its_own_has_the_order_of_that_seed(
    n: int, batch_size: int, own: tuple[int, int]
) -> None:
    together = Order(n, batch_size, own).minibatches(0, 9)
    first, second = (Order(n, batch_size, seed).minibatches(0, 9) for seed in own)
    for both, one, other in zip(together, first, second, strict=True):
        assert torch.equal(both, torch.stack([one, other]))


def test_epochs_and_seeds_differ() -> None:
    drawn = [Order(50, 10, seed).epoch(epoch).tolist() for seed in range(5) for epoch in range(5)]
    assert len({tuple(order) for order in drawn}) == 25


def test_all_examples_at_once_stay_in_their_order() -> None:
    assert torch.equal(Order(7, None, 3).epoch(2), torch.arange(7))


def test_positions_are_uniform() -> None:
    """Over 3,000 epochs each example stands in each place equally often: chi-square, 4 standard deviations."""
    n, epochs = 6, 3000
    counts = torch.zeros(n, n)
    order = Order(n, 2, 11)
    for epoch in range(epochs):
        counts[torch.arange(n), order.epoch(epoch)] += 1
    expected = epochs / n
    chi_square = float(((counts - expected) ** 2 / expected).sum())
    degrees = (n - 1) ** 2
    assert abs(chi_square - degrees) < 4 * math.sqrt(2 * degrees)


class TestSampling:
    weights = torch.tensor([1.0, 0.0, 2.0, 5.0])

    def test_draws_in_proportion(self) -> None:
        order = Order(4, 2, 0, self.weights)
        drawn = torch.cat([order.epoch(epoch) for epoch in range(4000)])
        share = self.weights / self.weights.sum()
        for example, count in enumerate(torch.bincount(drawn, minlength=4).tolist()):
            p = float(share[example])
            assert abs(count - p * len(drawn)) <= 4 * math.sqrt(len(drawn) * p * (1 - p))

    def test_draws_with_replacement(self) -> None:
        epochs = [Order(4, 2, 0, self.weights).epoch(epoch).tolist() for epoch in range(20)]
        assert any(len(set(epoch)) < 4 for epoch in epochs)
        assert all(len(epoch) == 4 for epoch in epochs)

    def test_members_draw_by_their_own_seeds(self) -> None:
        together = Order(4, 2, (5, 6), self.weights).epoch(3)
        for k, seed in enumerate((5, 6)):
            assert torch.equal(together[k], Order(4, 2, seed, self.weights).epoch(3))

    @pytest.mark.parametrize(
        ("sampling", "message"),
        [
            ([1.0, 2.0, 3.0], "3 values for 4 examples"),
            ([1.0, -1.0, 0.0, 1.0], "at least 0"),
            ([1.0, math.nan, 0.0, 1.0], "at least 0"),
            ([1.0, math.inf, 0.0, 1.0], "at least 0"),
            ([0.0, 0.0, 0.0, 0.0], "at least 0"),
        ],
        ids=["length", "negative", "NaN", "infinity", "all zero"],
    )
    def test_refuses(self, sampling: list[float], message: str) -> None:
        with pytest.raises(OptionError, match=message):
            Order(4, 2, 0, torch.tensor(sampling))


@given(
    n=st.integers(1, 300),
    block=st.integers(1, 40),
    per_window=st.integers(1, 8),
    seed=seeds,
    epoch=st.integers(0, 3),
)
def test_an_order_of_blocks(
    n: int, block: int, per_window: int, seed: int | tuple[int, ...], epoch: int
) -> None:
    """Every example once, each epoch anew; those of a window come from as few blocks as it holds."""
    window = block * per_window
    order = Order(n, 7, seed, None, (block, window))
    drawn = order.epoch(epoch)
    assert torch.equal(drawn.sort(-1).values, torch.arange(n).expand_as(drawn))
    assert torch.equal(order.epoch(epoch), drawn)
    for rows in drawn.reshape(-1, n):
        for part in rows.split(window):
            # one more where the file's smaller last block has moved the others' bounds
            assert len((part // block).unique()) <= per_window + 1


def test_an_order_of_blocks_mixes_well() -> None:
    """Neighbours in a file seldom meet in a minibatch, and an example's place says little about its next."""
    order = Order(10_000, 50, 0, None, (20, 1000))
    first, second = order.epoch(0), order.epoch(1)
    together = (first[1:] - first[:-1]).abs() == 1
    assert float(together.float().mean()) < 0.01
    places = torch.stack([first.argsort(), second.argsort()]).double()
    assert abs(float(torch.corrcoef(places)[0, 1])) < 0.15

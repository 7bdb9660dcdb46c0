"""Counts of cells against counts by hand."""

import numpy as np
import pytest
import torch

from unrote.errors import OptionError
from unrote.methods.balance import check_volume, effective_size, equal_subset, equal_weights, log_prior

CELL = torch.tensor([3, 0, 0, 3, 0, 5, 3, 0])  # 4 of cell 0, 3 of cell 3, 1 of cell 5


def test_weights_make_each_cell_count_the_same() -> None:
    wanted = [8 / (3 * {0: 4, 3: 3, 5: 1}[int(c)]) for c in CELL]
    torch.testing.assert_close(equal_weights(CELL), torch.tensor(wanted))
    assert float(equal_weights(CELL).mean()) == pytest.approx(1.0)


def test_a_subset_has_as_many_of_each_cell_as_the_smallest() -> None:
    cell = torch.cat([CELL, torch.tensor([5, 0, 0])])
    for seed in range(5):
        chosen = equal_subset(cell, torch.Generator().manual_seed(seed))
        assert set(chosen.tolist()) == {0.0, 1.0}
        assert torch.bincount(cell[chosen > 0]).tolist() == [2, 0, 0, 2, 0, 2]


def test_every_example_of_a_cell_is_as_likely_to_be_in_a_subset() -> None:
    drawn = torch.stack([equal_subset(CELL, torch.Generator().manual_seed(seed)) for seed in range(3000)])
    wanted = 1 / torch.bincount(CELL)[CELL]
    torch.testing.assert_close(drawn.mean(0), wanted, atol=0.03, rtol=0)  # 3 standard errors


def test_cells_of_one_size_are_taken_whole() -> None:
    cell = torch.tensor([1, 0, 0, 1])
    assert equal_subset(cell, torch.Generator()).tolist() == [1, 1, 1, 1]
    assert equal_weights(cell).tolist() == [1, 1, 1, 1]


def test_log_prior() -> None:
    found = log_prior(torch.tensor([0, 0, 0, 1]), 2)
    torch.testing.assert_close(found, torch.tensor([3 / 4, 1 / 4]).log())


def test_a_class_without_examples_has_the_prior_of_the_largest() -> None:
    found = log_prior(torch.tensor([0, 0, 0, 2]), 4)
    torch.testing.assert_close(found, torch.tensor([3 / 4, 3 / 4, 1 / 4, 3 / 4]).log())


@pytest.mark.parametrize("volume", [1.5, 10.0, 1e4])
def test_effective_size(volume: float) -> None:
    beta, size = 1 - 1 / volume, np.array([0, 1, 2, 50, 3000])
    wanted = [sum(beta**k for k in range(n)) for n in size]  # the geometric series that the quotient is
    np.testing.assert_allclose(effective_size(torch.from_numpy(size), volume), wanted, rtol=1e-6)


def test_effective_size_runs_from_one_to_the_size() -> None:
    size = torch.tensor([0, 1, 7, 10**6])
    assert effective_size(size, 1.0).tolist() == [0, 1, 1, 1]
    torch.testing.assert_close(effective_size(size, 1e13), size.float(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("volume", [0.5, -1.0, float("nan")])
def test_volumes_below_one_are_refused(volume: float) -> None:
    with pytest.raises(OptionError, match="at least 1 is wanted"):
        check_volume(volume)

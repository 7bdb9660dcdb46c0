"""Making classes or groups count the same: weights, subsets and priors from counts over the whole training set.

A cell is a class or a group. Cells without examples are left out: they neither count nor divide by zero.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unrote.errors import OptionError


def equal_weights(cell: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Weights under which each cell counts the same: n / (number of cells * size of i's cell), of mean 1."""
    size = torch.bincount(cell)
    return len(cell) / ((size > 0).sum() * size[cell]).float()


def equal_subset(cell: Int[Tensor, " n"], random: torch.Generator) -> Float[Tensor, " n"]:
    """1 for as many examples of each cell as the smallest has, drawn without replacement; 0 for the others."""
    size = torch.bincount(cell)
    smallest = int(size[size > 0].min())
    order = torch.randperm(len(cell), generator=random)
    # stable, so that each cell's examples stay in the random order and their place among them is a random rank
    by_cell = order[cell[order].sort(stable=True).indices]
    rank = torch.empty_like(order)
    rank[by_cell] = torch.arange(len(cell)) - (size.cumsum(0) - size)[cell[by_cell]]
    return (rank < smallest).float()


def log_prior(y: Int[Tensor, " n"], n_classes: int) -> Float[Tensor, " C"]:
    """Log share of each class.

    A class without examples is given the largest share instead of log 0: nothing then speaks for predicting it.
    """
    size = torch.bincount(y, minlength=n_classes)
    return (torch.where(size > 0, size, size.max()) / len(y)).log()


def effective_size(size: Int[Tensor, " K"], volume: float) -> Float[Tensor, " K"]:
    """Effective number of examples of each cell, (1 - beta^size) / (1 - beta) with beta = 1 - 1/volume.

    Each example covers one of `volume` places at random; this is how many places are covered on average. It runs
    from 1 (volume 1) to `size` (volume towards infinity).

    Args:
        size: examples in each cell.
        volume: at least 1; the paper's N.
    """
    if volume == 1:
        return (size > 0).float()
    # log and exponential of numbers near 0 and 1, where 1 - beta^size would lose its digits
    log_beta = torch.log1p(torch.tensor(-1.0 / volume, dtype=torch.float64))
    return (-volume * torch.expm1(size * log_beta)).float()


def check_volume(volume: float) -> None:
    """Refuse a volume that no beta belongs to.

    Raises:
        OptionError: if it is below 1.
    """
    if not volume >= 1:
        raise OptionError(f"volume={volume}: at least 1 is wanted; beta = 0.9999 of the papers is volume=1e4")

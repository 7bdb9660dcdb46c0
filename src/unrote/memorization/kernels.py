"""Products with symmetric and triangular matrices, cut into blocks so that the half that is known is left out.

torch has no syrk, trmm or potri of its own and its triangular solve is slow; general products of blocks run at the
full rate of the machine, and leave out (1 - 1/k)/2 of the operations where a matrix is cut into k.
"""

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

_BASE = 512  # below this a triangular system is solved by LAPACK
_MOST_VALUES = 2**24  # of a temporary


def cuts(q: int, n_pairs: int) -> list[tuple[int, int]]:
    """Blocks of q columns: narrower where many products are stacked, so that each product stays large."""
    width = 128 if n_pairs > 4 else 512
    k = max(1, min(8, q // width))
    edges = [round(i * q / k) for i in range(k + 1)]
    return list(pairwise(edges))


class WeightedGrams:
    """x' diag(w_k) x of several weights at once, summed over chunks of rows; lower triangles alone.

    Args:
        q: columns of x.
        n_pairs: number of weights K.
        dtype: of the sums.
    """

    def __init__(self, q: int, n_pairs: int, dtype: torch.dtype) -> None:
        self.n_pairs, self.cuts = n_pairs, cuts(q, n_pairs)
        self.sums = [torch.zeros(n_pairs * (e - s), e, dtype=dtype) for s, e in self.cuts]

    def add(self, x: Float[Tensor, "B q"], weights: Float[Tensor, "B K"]) -> None:
        """Add a chunk of rows."""
        widest = max(e - s for s, e in self.cuts)
        size = max(128, _MOST_VALUES // (self.n_pairs * widest))
        for part, w in zip(x.split(size), weights.split(size), strict=True):
            for (s, e), total in zip(self.cuts, self.sums, strict=True):
                left = (part[:, None, s:e] * w[:, :, None]).reshape(len(part), -1)
                torch.addmm(total, left.mT, part[:, :e], out=total)

    def write(self, pair: int, out: Float[Tensor, "q q"], *, mirrored: bool) -> None:
        """Write one of the sums to `out`: its lower triangle, or all of it."""
        for (s, e), total in zip(self.cuts, self.sums, strict=True):
            rows = total.view(self.n_pairs, e - s, e)[pair]
            out[s:e, :e] = rows
            if mirrored:
                out[:s, s:e] = rows[:, :s].mT


class Quadratics:
    """x_i' K x_i for several K at once, each folded onto its lower triangle.

    Args:
        matrices: (q, q) each; need not be symmetric.
    """

    def __init__(self, matrices: list[Float[Tensor, "q q"]]) -> None:
        self.n_pairs, self.cuts = len(matrices), cuts(len(matrices[0]), len(matrices))
        self.blocks = [torch.cat([_folded(k, s, e) for k in matrices], 1) for s, e in self.cuts]

    def __call__(self, x: Float[Tensor, "B q"]) -> Float[Tensor, "B K"]:
        """One number per row and matrix, in double precision."""
        size = max(128, _MOST_VALUES // self.blocks[0].shape[1])
        return torch.cat([self._chunk(part) for part in x.split(size)])

    def _chunk(self, x: Float[Tensor, "B q"]) -> Float[Tensor, "B K"]:
        found = torch.zeros(len(x), self.n_pairs, dtype=torch.float64)
        for (s, e), block in zip(self.cuts, self.blocks, strict=True):
            product = (x[:, s:] @ block).view(len(x), self.n_pairs, e - s)
            found += (product @ x[:, s:e, None]).squeeze(2)
        return found


def _folded(k: Float[Tensor, "q q"], s: int, e: int) -> Tensor:
    """Columns s to e of tril(K) + tril(K', -1), from row s on."""
    return k[s:, s:e].tril() + k[s:e, s:].mT.tril(-1)


def solve_lower(factor: Float[Tensor, "P P"], right: Float[Tensor, "P k"]) -> Float[Tensor, "P k"]:
    """L^-1 B, written over B."""
    p = len(factor)
    if p <= _BASE:
        right.copy_(torch.linalg.solve_triangular(factor, right, upper=False))
        return right
    h = p // 2
    solve_lower(factor[:h, :h], right[:h])
    torch.addmm(right[h:], factor[h:, :h], right[:h], alpha=-1, out=right[h:])
    solve_lower(factor[h:, h:], right[h:])
    return right


def solve_upper(factor: Float[Tensor, "P P"], right: Float[Tensor, "P k"]) -> Float[Tensor, "P k"]:
    """L'^-1 B, written over B."""
    p = len(factor)
    if p <= _BASE:
        right.copy_(torch.linalg.solve_triangular(factor.mT, right, upper=True))
        return right
    h = p // 2
    solve_upper(factor[h:, h:], right[h:])
    torch.addmm(right[:h], factor[h:, :h].mT, right[h:], alpha=-1, out=right[:h])
    solve_upper(factor[:h, :h], right[:h])
    return right


def invert_lower(factor: Float[Tensor, "P P"]) -> None:
    """Write L^-1 over L, whose upper triangle is 0."""
    p = len(factor)
    if p <= _BASE:
        eye = torch.eye(p, dtype=factor.dtype)
        factor.copy_(torch.linalg.solve_triangular(factor, eye, upper=False))
        return
    h = p // 2
    invert_lower(factor[:h, :h])
    invert_lower(factor[h:, h:])
    factor[h:, :h] = -(factor[h:, h:] @ (factor[h:, :h] @ factor[:h, :h]))


def inverse_from_factor(factor: Float[Tensor, "P P"]) -> Float[Tensor, "P P"]:
    """The lower triangle of (L L')^-1, with blocks above it that are not to be read; L is overwritten."""
    invert_lower(factor)
    p, result = len(factor), torch.empty_like(factor)
    k = max(1, min(8, p // 256))
    edges = [round(i * p / k) for i in range(k + 1)]
    for s, e in pairwise(edges):
        result[s:e, :e] = factor[s:, s:e].mT @ factor[s:, :e]
    return result

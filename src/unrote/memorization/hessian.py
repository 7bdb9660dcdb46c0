"""The Hessian of a softmax head, factorised once: what each example's features weigh in it.

    H = (1/n) sum_i w_i a_i a_i' (x) (diag p_i - p_i p_i') + damping * I        a_i: features, and a 1 for the bias
    M_i = (a_i (x) I)' (nH)^-1 (a_i (x) I)                                      (m, m), m = C - 1

All scores of a head come from M_i. Class 0 is taken as reference: the parameters are the differences to it, which
leaves m q unknowns instead of C q (for two classes a single q x q system). Every block of H is symmetric, a sum of
w_i p_ia p_ib a_i a_i' up to its sign, so that its lower triangle will do, at half the operations. The damping
of all C classes, least over what the softmax cannot see, is damping * (I - 11'/C) there: nothing is approximated.

Where examples are fewer than unknowns the same M_i comes from the n m x n m system of the examples (Woodbury).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from unrote.errors import DataError, OptionError
from unrote.memorization.kernels import (
    Quadratics,
    WeightedGrams,
    inverse_from_factor,
    solve_lower,
    solve_upper,
)

MOST_UNKNOWNS = 30_000
"""Systems larger than this are refused: 7 GB in double precision, and hours."""

AUTOMATIC = 1e-3
"""The damping where none is given: this share of the mean eigenvalue of the Hessian."""


@dataclass(frozen=True)
class HeadData:
    """A head's view of n examples.

    Args:
        features: (n, d) what the head is given; an array, a memory map or a tensor, read in chunks.
        p: (n, C) its probabilities, in double precision.
        bias: whether it has a bias.
        weight: (n,) what each example counted in training; None for 1.
    """

    features: Any
    p: Float[np.ndarray, "n C"]
    bias: bool = True
    weight: Float[np.ndarray, " n"] | None = None

    @property
    def n(self) -> int:
        """Number of examples."""
        return len(self.p)

    @property
    def q(self) -> int:
        """Features, and one more for the bias."""
        return int(self.features.shape[1]) + self.bias

    @property
    def m(self) -> int:
        """Classes but one."""
        return int(self.p.shape[1]) - 1

    @property
    def w(self) -> Float[np.ndarray, " n"]:
        """What each example counts."""
        return np.ones(self.n) if self.weight is None else np.asarray(self.weight, dtype=np.float64)

    @property
    def total(self) -> float:
        """What all count; the mean in H is over it."""
        return float(self.w.sum())

    def chunks(self, dtype: Any) -> Iterator[tuple[slice, np.ndarray]]:
        """Slices of the examples with their features, (rows, q) and a column of ones for the bias."""
        size = max(256, min(8192, 2**24 // self.q))
        for start in range(0, self.n, size):
            rows = slice(start, min(start + size, self.n))
            yield rows, augmented(self.features[rows], self.bias, dtype)

    def mean_eigenvalue(self) -> float:
        """Of the undamped Hessian, over the m q unknowns."""
        squares = np.concatenate(
            [np.einsum("iq,iq->i", a, a, dtype=np.float64) for _, a in self.chunks(np.float32)]
        )
        spread = 1.0 - np.einsum("ic,ic->i", self.p, self.p)
        return float((self.w * squares * spread.clip(0)).sum() / (self.total * self.m * self.q))


def augmented(features: Any, bias: bool, dtype: Any) -> np.ndarray:
    """Features as (rows, q), C-ordered, with a last column of ones for the bias."""
    rows = features.detach().cpu().numpy() if isinstance(features, Tensor) else np.asarray(features)
    result = np.ones((len(rows), rows.shape[1] + bias), dtype=dtype)
    result[:, : rows.shape[1]] = rows
    return result


def residuals(p: Float[np.ndarray, "n C"], y: np.ndarray) -> Float[np.ndarray, "n C"]:
    """Residuals p - onehot(y); of the label's own class the sum of the others, which keeps its digits near p = 1."""
    r = p.copy()
    rows = np.arange(len(y))
    r[rows, y] = 0.0
    r[rows, y] = -r.sum(1)
    return r


class Factor:
    """The Cholesky factor of nH, m q unknowns with class 0 as reference.

    Args:
        data: the examples.
        damping: above 0, or 0 where H itself is regular; the L2 penalty if the head was trained with one.
        damp_bias: whether the damping holds for the bias too; scikit-learn's penalty leaves it out.
        dtype: "float32" or "float64".

    Raises:
        OptionError: if H is singular, or too large.
    """

    def __init__(self, data: HeadData, damping: float, *, damp_bias: bool, dtype: str) -> None:
        self.data, self.damping, self.name = data, damping, dtype
        self.dtype = torch.float32 if dtype == "float32" else torch.float64
        size = data.m * data.q
        if size > MOST_UNKNOWNS:
            raise OptionError(
                f"{size:,} unknowns ({data.m} times {data.q}): at most {MOST_UNKNOWNS:,} are solved exactly; "
                "reduce the features (a random projection, PCA), or use trak or tracin"
            )
        self.matrix = self._factorise(self._hessian(damp_bias))
        self.flops = data.n * data.q**2 * data.m * (data.m + 1) / 2 + size**3 / 3

    def chunks(self) -> Iterator[tuple[slice, Tensor]]:
        """The data's chunks as tensors of the factor's precision."""
        for rows, x in self.data.chunks(np.float32 if self.name == "float32" else np.float64):
            yield rows, torch.from_numpy(x)

    def _hessian(self, damp_bias: bool) -> Float[Tensor, "P P"]:
        """The lower triangle of nH, made chunk by chunk, so that the features need not fit in memory."""
        data, m, q = self.data, self.data.m, self.data.q
        pairs = [(a, b) for a in range(m) for b in range(a + 1)]
        grams = WeightedGrams(q, len(pairs), self.dtype)
        first, second = (torch.tensor(index) for index in zip(*pairs, strict=True))
        w = torch.from_numpy(data.w)
        for rows, x in self.chunks():
            p = torch.from_numpy(data.p[rows])
            rest = 1.0 - p[:, 1:] if m > 1 else p[:, :1]  # of two classes 1 - p with all its digits
            spread = -p[:, 1 + first] * p[:, 1 + second]
            spread[:, first == second] = p[:, 1:] * rest.clamp_min(0)
            grams.add(x, (spread * w[rows].unsqueeze(1)).to(self.dtype))
        added = torch.full((q,), data.total * self.damping, dtype=self.dtype)
        if data.bias and not damp_bias:
            added[-1] = 0.0
        h = torch.zeros(m * q, m * q, dtype=self.dtype)
        for pair, (a, b) in enumerate(pairs):
            block = h[a * q : (a + 1) * q, b * q : (b + 1) * q]
            grams.write(pair, block, mirrored=a != b)
            block.diagonal().add_(added, alpha=(a == b) - 1 / (m + 1))
        return h

    def _factorise(self, h: Float[Tensor, "P P"]) -> Float[Tensor, "P P"]:
        factor: Tensor
        factor, info = torch.linalg.cholesky_ex(h)
        pivots = factor.diagonal()
        # a pivot this small is rounding: the matrix has a direction that no example and no damping holds
        ratio = float(pivots.min() / pivots.max()) ** 2 if int(info) == 0 else 0.0
        if not ratio > 4 * torch.finfo(self.dtype).eps:
            raise OptionError(
                f"the Hessian of the head is singular with damping={self.damping:g} in {self.name}: some "
                "direction of the features has no curvature (repeated or constant features, fewer examples than "
                "unknowns, saturated probabilities); pass a damping above 0, such as 1e-4, or leave it out"
            )
        return factor

    def solve(self, columns: Float[Tensor, "P k"]) -> Float[Tensor, "P k"]:
        """(nH)^-1 applied to columns, which are overwritten."""
        self.flops += 2.0 * columns.numel() * len(columns)
        return solve_upper(self.matrix, solve_lower(self.matrix, columns))

    def self_products(self, r: Float[np.ndarray, "n m"]) -> Float[np.ndarray, " n"]:
        """g_i' (nH)^-1 g_i, by one triangular solve: cheaper than `leverage` where examples are few."""
        size, found = self.data.m * self.data.q, np.empty(self.data.n)
        for rows, x in self.chunks():
            residual = torch.from_numpy(r[rows]).to(self.dtype)
            parts = []
            for part, own in zip(x.split(1024), residual.split(1024), strict=True):
                columns = (own.mT[:, None, :] * part.mT[None]).reshape(size, len(part))
                solve_lower(self.matrix, columns)
                parts.append((columns * columns).sum(0))
            found[rows] = torch.cat(parts).double().numpy()
        self.flops += self.data.n * float(size) ** 2
        return found

    def leverage(self) -> Float[np.ndarray, "n m m"]:
        """M_i of every example. With several classes the factor is inverted in place, and cannot solve any more."""
        data, m, q = self.data, self.data.m, self.data.q
        found = np.empty((data.n, m, m))
        self.flops += data.n * q**2 * m * (m + 1) / 2
        if m == 1:
            for rows, x in self.chunks():
                parts = [solve_lower(self.matrix, part.mT.contiguous()) for part in x.split(1024)]
                found[rows, 0, 0] = torch.cat([(z * z).sum(0) for z in parts]).double().numpy()
            return found
        inverse, self.matrix = inverse_from_factor(self.matrix), torch.empty(0, 0)
        self.flops += 2 * (m * q) ** 3 / 3
        pairs = [(a, b) for a in range(m) for b in range(a + 1)]
        blocks = [inverse[a * q : (a + 1) * q, b * q : (b + 1) * q] for a, b in pairs]
        blocks = [k.tril() + k.tril(-1).mT if a == b else k for k, (a, b) in zip(blocks, pairs, strict=True)]
        apply = Quadratics(blocks)
        first, second = np.array(pairs).T
        for rows, x in self.chunks():
            found[rows, first, second] = found[rows, second, first] = apply(x).numpy()
        return found


def dual_leverage(data: HeadData, damping: float) -> tuple[Float[np.ndarray, "n m m"], float]:
    """M_i by the system of the examples, in double precision, and the operations it took.

    With K = A A', mu = n * damping and (diag p - pp') = R R' per example in an orthonormal frame of the classes:
    M_ij = (1/mu) (K_ij I - k_i' R (mu I + R' K R)^-1 R' k_j). The bias must be damped.

    Raises:
        DataError: if `damping` is not above 0, for which the form does not hold.
    """
    if not damping > 0:
        raise DataError(f"damping={damping:g} with fewer examples than unknowns: above 0 is wanted")
    n, m, mu = data.n, data.m, data.total * damping
    a = torch.from_numpy(augmented(data.features, data.bias, np.float64))
    kernel = a @ a.mT
    frame = class_frame(m + 1)
    p = torch.from_numpy(data.p)
    spread = frame.mT @ (torch.diag_embed(p) - p.unsqueeze(2) * p.unsqueeze(1)) @ frame
    spread = spread * torch.from_numpy(data.w).view(-1, 1, 1)
    values, vectors = torch.linalg.eigh(spread)
    root = vectors * values.clamp_min(0).sqrt().unsqueeze(1)  # (n, m, m), spread = root root'
    flat = root.mT.reshape(n * m, m)  # row (i, s): column s of example i's root
    wide = kernel.repeat_interleave(m, 0)  # (n m, n)
    system = (flat @ flat.mT) * wide.repeat_interleave(m, 1)
    system.diagonal().add_(mu)
    factor = torch.linalg.cholesky(system)
    right = (wide.unsqueeze(2) * flat.unsqueeze(1)).reshape(n * m, n * m)
    z = torch.linalg.solve_triangular(factor, right, upper=False).view(n * m, n, m)
    seen = torch.einsum("ria,rib->iab", z, z)
    own = kernel.diagonal().view(-1, 1, 1) * torch.eye(m, dtype=torch.float64)
    turned = frame[1:] - frame[:1]  # from the frame to differences to class 0
    found = turned @ ((own - seen) / mu) @ turned.mT
    return found.numpy(), float(n**2 * data.q + (n * m) ** 3 / 3 + (n * m) ** 3)


def class_frame(n_classes: int) -> Float[Tensor, "C m"]:
    """Orthonormal columns orthogonal to the vector of ones, (C, C - 1)."""
    ones = torch.ones(n_classes, 1, dtype=torch.float64)
    full = torch.cat([ones, torch.eye(n_classes, dtype=torch.float64)[:, 1:]], 1)
    frame: Tensor = torch.linalg.qr(full).Q[:, 1:]
    return frame


def primal_flops(data: HeadData) -> float:
    """Operations of `Factor` and its `leverage`."""
    n, m, q = data.n, data.m, data.q
    size = float(m * q)
    inverse = 0.0 if m == 1 else 2 * size**3 / 3
    return float(n * q**2 * m * (m + 1)) + size**3 / 3 + inverse


def dual_flops(data: HeadData) -> float:
    """Operations of `dual_leverage`."""
    return data.n**2 * float(data.q) + 4 / 3 * float(data.n * data.m) ** 3

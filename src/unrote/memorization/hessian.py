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
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from unrote.errors import DataError, OptionError
from unrote.memorization.kernels import (
    add_gram,
    cholesky,
    chunk_rows,
    inverse_from_factor,
    invert_lower,
    quadratic,
    solve,
    solve_lower,
    times_lower,
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

    def _slices(self, columns: int) -> Iterator[slice]:
        size = chunk_rows(columns)
        return (slice(start, min(start + size, self.n)) for start in range(0, self.n, size))

    def chunks(self, dtype: Any, columns: int | None = None) -> Iterator[tuple[slice, np.ndarray]]:
        """Slices of the examples with a copy of their features, (rows, q), and a column of ones for the bias.

        The copies share their memory: each is gone when the next is asked for. They are small enough for as many
        columns, by default q, to stay in the processor's cache.
        """
        memory = np.empty((min(chunk_rows(columns or self.q), self.n), self.q), dtype)
        for rows in self._slices(columns or self.q):
            yield rows, augmented(self.features[rows], self.bias, dtype, memory[: rows.stop - rows.start])

    def squared_norms(self) -> Float[np.ndarray, " n"]:
        """|a_i|^2 of each example."""
        parts = (_array(self.features[rows]).astype(np.float32, copy=False) for rows in self._slices(self.q))
        return np.concatenate([np.einsum("id,id->i", part, part) for part in parts]) + self.bias

    def mean_eigenvalue(self) -> float:
        """Of the undamped Hessian, over the m q unknowns."""
        spread = 1.0 - np.einsum("ic,ic->i", self.p, self.p)
        return float((self.w * self.squared_norms() * spread.clip(0)).sum() / (self.total * self.m * self.q))


def _array(values: Any) -> np.ndarray:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)


def augmented(
    features: Any, bias: bool, dtype: Any, out: np.ndarray | None = None
) -> Float[np.ndarray, "n q"]:
    """A copy of features as (n, q), C-ordered, a last column of ones for the bias; written to `out`, if given."""
    rows = _array(features)
    result = np.empty((len(rows), rows.shape[1] + bias), dtype) if out is None else out
    result[:, : rows.shape[1]] = rows
    result[:, rows.shape[1] :] = 1
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
        self.data, self.damping, self.dtype = data, damping, np.dtype(dtype)
        size = data.m * data.q
        if size > MOST_UNKNOWNS:
            raise OptionError(
                f"{size:,} unknowns ({data.m} times {data.q}): at most {MOST_UNKNOWNS:,} are solved exactly; "
                "reduce the features (a random projection, PCA), or use trak or tracin"
            )
        # of a symmetric matrix the blocks below the diagonal will do
        self._pairs = [(a, b) for b, a in combinations_with_replacement(range(data.m), 2)]
        self.matrix = self._factorise(self._hessian(damp_bias))
        self.flops = data.n * data.q**2 * data.m * (data.m + 1) / 2 + size**3 / 3

    def chunks(self) -> Iterator[tuple[slice, np.ndarray]]:
        """The data's chunks in the factor's precision."""
        return self.data.chunks(self.dtype)

    def _block(self, matrix: Float[np.ndarray, "P P"], a: int, b: int) -> Float[np.ndarray, "q q"]:
        """A view of the block of classes a and b."""
        q = self.data.q
        return matrix[a * q : (a + 1) * q, b * q : (b + 1) * q]

    def _hessian(self, damp_bias: bool) -> Float[np.ndarray, "P P"]:
        """The lower triangle of nH, made chunk by chunk, so that the features need not fit in memory."""
        data, m, q = self.data, self.data.m, self.data.q
        sums = [np.zeros((q, q), self.dtype, order="F") for _ in self._pairs]
        w = data.w
        for rows, x in self.chunks():
            p, own = data.p[rows], w[rows]
            rest = 1.0 - p if m > 1 else p[:, ::-1]  # of two classes 1 - p with all its digits
            scaled = np.empty_like(x) if m > 1 else x
            for (a, b), total in zip(self._pairs, sums, strict=True):
                spread = own * p[:, 1 + a] * (rest if a == b else p)[:, 1 + b]
                np.multiply(x, np.sqrt(spread.clip(0)).astype(x.dtype)[:, None], out=scaled)
                add_gram(total, scaled, sign=1 if a == b else -1)
        added = np.full(q, data.total * self.damping, self.dtype)
        if data.bias and not damp_bias:
            added[-1] = 0.0
        h = np.zeros((m * q, m * q), self.dtype, order="F")
        for a, b in self._pairs:
            block, total = self._block(h, a, b), sums.pop(0)
            block[:] = total if a == b else total + np.tril(total, -1).T
            block[np.diag_indices(q)] += ((a == b) - 1 / (m + 1)) * added
        return h

    def _factorise(self, h: Float[np.ndarray, "P P"]) -> Float[np.ndarray, "P P"]:
        factor, regular = cholesky(h)
        pivots = factor.diagonal()
        # a pivot this small is rounding: the matrix has a direction that no example and no damping holds
        ratio = float(pivots.min() / pivots.max()) ** 2 if regular else 0.0
        if not ratio > 4 * np.finfo(self.dtype).eps:
            raise OptionError(
                f"the Hessian of the head is singular with damping={self.damping:g} in {self.dtype}: some "
                "direction of the features has no curvature (repeated or constant features, fewer examples than "
                "unknowns, saturated probabilities); pass a damping above 0, such as 1e-4, or leave it out"
            )
        return factor

    def solve(self, gradients: Float[np.ndarray, "k P"]) -> Float[np.ndarray, "k P"]:
        """(nH)^-1 applied to each row, which is overwritten."""
        self.flops += 2.0 * gradients.size * gradients.shape[1]
        return solve(self.matrix, gradients)

    def self_products(self, r: Float[np.ndarray, "n m"]) -> Float[np.ndarray, " n"]:
        """g_i' (nH)^-1 g_i, by one triangular solve: cheaper than `leverage` where examples are few."""
        size, found = self.data.m * self.data.q, np.empty(self.data.n)
        for rows, x in self.data.chunks(self.dtype, size):
            z = solve_lower(self.matrix, class_products(r[rows], x))
            found[rows] = np.einsum("ip,ip->i", z, z)
        self.flops += self.data.n * float(size) ** 2
        return found

    def leverage(self) -> Float[np.ndarray, "n m m"]:
        """M_i of every example. The factor is inverted in place, and cannot solve any more."""
        data = self.data
        found = np.empty((data.n, data.m, data.m))
        self.flops += data.n * data.q**2 * data.m * (data.m + 1) / 2
        if data.m == 1:
            self.flops += data.q**3 / 3
            inverse = invert_lower(self.matrix)
            for rows, x in self.chunks():
                z = times_lower(inverse, x, overwrite=True)
                found[rows, 0, 0] = np.einsum("iq,iq->i", z, z)
        else:
            self.flops += 2 * (data.m * data.q) ** 3 / 3
            inverse = inverse_from_factor(self.matrix)
            forms = [quadratic(self._block(inverse, a, b), symmetric=a == b) for a, b in self._pairs]
            for rows, x in self.chunks():
                for (a, b), form in zip(self._pairs, forms, strict=True):
                    found[rows, a, b] = found[rows, b, a] = np.einsum("iq,iq->i", times_lower(form, x), x)
        self.matrix = np.empty((0, 0), self.dtype)
        return found


def class_products(r: Float[np.ndarray, "k m"], x: Float[np.ndarray, "k q"]) -> Float[np.ndarray, "k P"]:
    """r_i (x) a_i of each row, in the precision of x: its gradient by the m q unknowns."""
    products: np.ndarray = r.astype(x.dtype)[:, :, None] * x[:, None, :]
    return products.reshape(len(x), -1)


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
    a = augmented(data.features, data.bias, np.float64)
    kernel = a @ a.T
    frame = class_frame(m + 1)
    spread = frame.T @ (data.p[:, :, None] * (np.eye(m + 1) - data.p[:, None, :])) @ frame
    values, vectors = np.linalg.eigh(spread * data.w[:, None, None])
    root = vectors * np.sqrt(values.clip(0))[:, None, :]  # (n, m, m), spread = root root'
    flat = root.transpose(0, 2, 1).reshape(n * m, m)  # row (i, s): column s of example i's root
    wide = kernel.repeat(m, 1)  # (n, n m)
    system = (flat @ flat.T) * wide.repeat(m, 0)
    system[np.diag_indices(n * m)] += mu
    factor, _ = cholesky(system.T)  # by columns; it is symmetric
    right = (wide[:, None, :] * flat.T[None]).reshape(n * m, n * m)
    z = solve_lower(factor, right).reshape(n, m, n * m)
    seen = z @ z.transpose(0, 2, 1)
    own = kernel.diagonal()[:, None, None] * np.eye(m)
    turned = frame[1:] - frame[:1]  # from the frame to differences to class 0
    found: np.ndarray = turned @ ((own - seen) / mu) @ turned.T
    return found, float(n**2 * data.q + (n * m) ** 3 / 3 + (n * m) ** 3)


def class_frame(n_classes: int) -> Float[np.ndarray, "C m"]:
    """Orthonormal columns orthogonal to the vector of ones, (C, C - 1)."""
    full = np.concatenate([np.ones((n_classes, 1)), np.eye(n_classes)[:, 1:]], 1)
    frame: np.ndarray = np.linalg.qr(full)[0][:, 1:]
    return frame


def primal_flops(data: HeadData) -> float:
    """Operations of `Factor` and its `leverage`."""
    n, m, q = data.n, data.m, data.q
    size = float(m * q)
    inverse = size**3 / 3 if m == 1 else 2 * size**3 / 3
    return float(n * q**2 * m * (m + 1)) + size**3 / 3 + inverse


def dual_flops(data: HeadData) -> float:
    """Operations of `dual_leverage`."""
    return data.n**2 * float(data.q) + 4 / 3 * float(data.n * data.m) ** 3

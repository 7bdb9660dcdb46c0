"""Products and systems of symmetric and triangular matrices: BLAS and LAPACK, at half of a general product's cost.

These routines want matrices stored by columns: factors and sums are, and a C-ordered (rows, q) array is to them the
matrix `x.T`, taken as it lies.
"""

import numpy as np
import scipy  # its linear algebra loads when it is first used: methods that need none import this too
from jaxtyping import Float

_AT_ONCE = 2**21
"""Numbers in a chunk of rows, which is read and written several times and should stay in the cache."""


def chunk_rows(q: int) -> int:
    """How many rows of q columns to take at once."""
    return max(256, min(8192, _AT_ONCE // q))


def add_gram(total: Float[np.ndarray, "q q"], x: Float[np.ndarray, "B q"], *, sign: int = 1) -> None:
    """Add sign * x'x to the lower triangle of `total`."""
    scipy.linalg.get_blas_funcs("syrk", (total,))(float(sign), x.T, beta=1.0, c=total, lower=1, overwrite_c=1)


def linear(x: Float[np.ndarray, "n q"], weight: Float[np.ndarray, "C q"]) -> Float[np.ndarray, "n C"]:
    """W x_i of each row; both of one precision."""
    product: np.ndarray = scipy.linalg.get_blas_funcs("gemm", (x, weight))(1.0, weight.T, x.T, trans_a=1)
    return product.T


def cross_products(r: Float[np.ndarray, "n C"], x: Float[np.ndarray, "n q"]) -> Float[np.ndarray, "C q"]:
    """The sum of r_i x_i' over the rows; both of one precision."""
    product: np.ndarray = scipy.linalg.get_blas_funcs("gemm", (x, r))(1.0, x.T, r.T, trans_b=1)
    return product.T


def cholesky(h: Float[np.ndarray, "P P"]) -> tuple[Float[np.ndarray, "P P"], bool]:
    """L with L L' = H from H's lower triangle, which it overwrites; False where H is not positive definite."""
    factor: np.ndarray
    factor, info = scipy.linalg.get_lapack_funcs("potrf", (h,))(h, lower=1, overwrite_a=1)
    return factor, info == 0


def solve(factor: Float[np.ndarray, "P P"], rows: Float[np.ndarray, "k P"]) -> Float[np.ndarray, "k P"]:
    """(L L')^-1 applied to each row, written over it."""
    solved: np.ndarray = scipy.linalg.get_lapack_funcs("potrs", (factor,))(
        factor, rows.T, lower=1, overwrite_b=1
    )[0]
    return solved.T


def solve_lower(factor: Float[np.ndarray, "P P"], rows: Float[np.ndarray, "k P"]) -> Float[np.ndarray, "k P"]:
    """L^-1 applied to each row, written over it."""
    solved: np.ndarray = scipy.linalg.get_blas_funcs("trsm", (factor,))(
        1.0, factor, rows.T, lower=1, overwrite_b=1
    )
    return solved.T


def invert_lower(factor: Float[np.ndarray, "P P"]) -> Float[np.ndarray, "P P"]:
    """L^-1, written over L."""
    inverse: np.ndarray = scipy.linalg.get_lapack_funcs("trtri", (factor,))(factor, lower=1, overwrite_c=1)[0]
    return inverse


def inverse_from_factor(factor: Float[np.ndarray, "P P"]) -> Float[np.ndarray, "P P"]:
    """The lower triangle of (L L')^-1, written over L; what lies above it is not to be read."""
    inverse: np.ndarray = scipy.linalg.get_lapack_funcs("potri", (factor,))(factor, lower=1, overwrite_c=1)[0]
    return inverse


def times_lower(
    lower: Float[np.ndarray, "q q"], x: Float[np.ndarray, "B q"], *, overwrite: bool = False
) -> Float[np.ndarray, "B q"]:
    """L x_i of each row, written over it if that is wanted."""
    product: np.ndarray = scipy.linalg.get_blas_funcs("trmm", (lower,))(
        1.0, lower, x.T, lower=1, overwrite_b=overwrite
    )
    return product.T


def quadratic(k: Float[np.ndarray, "q q"], *, symmetric: bool) -> Float[np.ndarray, "q q"]:
    """The lower triangle T, by columns, whose x' T x is x' K x; of a symmetric K the lower triangle will do."""
    return np.asfortranarray(np.tril(k) + (np.tril(k, -1) if symmetric else np.triu(k, 1).T))

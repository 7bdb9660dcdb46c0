"""The influence of every training example on every test example, block by block.

    I_ij = g_i' (H + damping I)^-1 g_j        i: training example, j: test example

To first order, leaving i out adds I_ij / n to the loss of j: where it is positive, i helps j. A block of test
examples is solved for, one product with the training features gives its columns, and nothing of size n x P is held.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from unrote.errors import DataError, OptionError
from unrote.memorization.head_solver import factorise
from unrote.memorization.hessian import Factor, augmented, class_products, residuals
from unrote.memorization.reading import Head, read_head, softmax
from unrote.memorization.self_influence import prepared


def influence_matrix(
    model: Any,
    X: Any,
    y: Any,
    X_test: Any = None,
    y_test: Any = None,
    *,
    path: str | Path | None = None,
    damping: float | None = None,
    head: str | None = None,
    weight: Any = None,
    dtype: str | None = None,
    block: int = 256,
) -> Float[np.ndarray, "n m"]:
    """Influence of every training example on every test example, (n, m).

    Args:
        model: as for `self_influence`.
        X: n training examples.
        y: (n,) labels.
        X_test: m examples; default the training ones, which gives the matrix with self-influence on its diagonal.
        y_test: (m,) their labels.
        path: a .npy file to write to and to give back as a memory map; None holds the matrix in memory.
        damping: as for `self_influence`.
        head: dotted name of an `nn.Module`'s last linear layer.
        weight: (n,) what each training example counted.
        dtype: "float32" or "float64".
        block: test examples solved for at once.

    Raises:
        OptionError: if no head is found, or the Hessian is singular.
        DataError: if the file cannot be written.
    """
    train, test, factor = _opened(
        model, X, y, X_test, y_test, damping=damping, head=head, weight=weight, dtype=dtype
    )
    shape, kind = (len(train.y), len(test.y)), factor.dtype
    if path is None:
        matrix: np.ndarray = np.empty(shape, kind)
    else:
        try:
            matrix = np.lib.format.open_memmap(path, mode="w+", dtype=kind, shape=shape)
        except OSError as error:
            raise DataError(f"cannot write {path}: {error.strerror}") from error
    for columns, rows, values in _blocks(train, test, factor, block):
        matrix[rows, columns] = values
    if isinstance(matrix, np.memmap):
        matrix.flush()
    return matrix


def top_influencers(
    model: Any,
    X: Any,
    y: Any,
    X_test: Any,
    y_test: Any,
    *,
    k: int = 10,
    by: Literal["helpful", "harmful", "largest"] = "helpful",
    damping: float | None = None,
    head: str | None = None,
    weight: Any = None,
    dtype: str | None = None,
    block: int = 256,
) -> tuple[Int[np.ndarray, "m k"], Float[np.ndarray, "m k"]]:
    """The k training examples with the most influence on each test example, and their influence; both (m, k).

    The matrix is never formed: each block is read off and forgotten.

    Args:
        model: as for `self_influence`.
        X: n training examples.
        y: (n,) labels.
        X_test: m test examples.
        y_test: (m,) their labels.
        k: how many, at most n.
        by: "helpful" those whose loss would rise most without them, "harmful" the opposite, "largest" either.
        damping: as for `self_influence`.
        head: dotted name of an `nn.Module`'s last linear layer.
        weight: (n,) what each training example counted.
        dtype: "float32" or "float64".
        block: test examples solved for at once.

    Raises:
        OptionError: if `k` or `by` is out of range, no head is found, or the Hessian is singular.
    """
    if by not in ("helpful", "harmful", "largest"):
        raise OptionError(f"by={by!r}: 'helpful', 'harmful' or 'largest' is wanted")
    train, test, factor = _opened(
        model, X, y, X_test, y_test, damping=damping, head=head, weight=weight, dtype=dtype
    )
    if not 1 <= k <= len(train.y):
        raise OptionError(f"k={k} of {len(train.y)} training examples: 1 to {len(train.y)} is wanted")
    index = np.empty((len(test.y), k), np.int64)
    values = np.empty((len(test.y), k))
    kept: tuple[Tensor, Tensor] | None = None
    for columns, rows, part in _blocks(train, test, factor, block):
        found = torch.from_numpy(part)
        names = torch.arange(rows.start, rows.stop)[:, None].expand(found.shape)
        if rows.start:
            assert kept is not None
            found, names = torch.cat([kept[0], found]), torch.cat([kept[1], names])
        rank = found if by == "helpful" else -found if by == "harmful" else found.abs()
        best = rank.topk(min(k, len(found)), 0).indices
        kept = found.gather(0, best), names.gather(0, best)
        values[columns, : len(best)], index[columns, : len(best)] = kept[0].mT.numpy(), kept[1].mT.numpy()
    return index, values


def _opened(
    model: Any, X: Any, y: Any, X_test: Any, y_test: Any, *, head: str | None, **options: Any
) -> tuple[Head, Head, Factor]:
    if (X_test is None) != (y_test is None):
        raise OptionError("test examples without labels, or labels without examples: give both or neither")
    train, data, settled = prepared(model, X, y, head=head, refit=False, form="primal", **options)
    test = train if X_test is None else read_head(model, X_test, y_test, head=head)
    return train, test, factorise(data, settled)[0]


def _blocks(train: Head, test: Head, factor: Factor, block: int) -> Iterator[tuple[slice, slice, np.ndarray]]:
    """Columns, rows and values of each block; all rows of some columns before the next columns.

    Raises:
        OptionError: if `block` is not at least 1.
    """
    if block < 1:
        raise OptionError(f"block={block}: at least 1 test example at once is wanted")
    data = factor.data
    r = torch.from_numpy(residuals(data.p, train.y)[:, 1:].astype(factor.dtype))
    r_test = residuals(softmax(test.logits), test.y)[:, 1:]
    for start in range(0, len(test.y), block):
        columns = slice(start, min(start + block, len(test.y)))
        own = class_products(r_test[columns], augmented(test.features[columns], data.bias, factor.dtype))
        solved = torch.from_numpy(data.total * factor.solve(own)).view(len(own), data.m, data.q)
        wide = solved.permute(2, 1, 0).reshape(data.q, -1)  # (q, m t)
        for rows, x in factor.chunks():
            product = (torch.from_numpy(x) @ wide).view(len(x), data.m, -1)
            yield columns, rows, torch.einsum("im,imt->it", r[rows], product).numpy()

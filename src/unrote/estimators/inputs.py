"""What users hand over (numpy, pandas, torch, lists, sparse matrices) as what training takes.

scikit-learn's own checks decide what is valid; their errors become `UnroteError`s with the same words. Rows are
standardised in 64 bits and held in 32: a column of time stamps keeps its digits, and a table of a million rows
costs one copy in 32 bits beside the user's own.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from scipy import sparse
from sklearn.preprocessing import StandardScaler
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, column_or_1d, validate_data
from torch import Tensor

from unrote.data import ArrayInputs, Inputs
from unrote.errors import DataError, DataTypeError, UnroteError

_ROWS = 8192  # rows that are in 64 bits at a time


@contextmanager
def user_errors() -> Iterator[None]:
    """Turn what scikit-learn's checks raise into errors of ours, which are ValueError or TypeError too.

    Raises:
        UnroteError: as it is.
        DataError: for a ValueError.
        DataTypeError: for a TypeError.
    """
    try:
        yield
    except UnroteError:
        raise
    except ValueError as error:
        raise DataError(str(error)) from error
    except TypeError as error:
        raise DataTypeError(str(error)) from error


def as_array(values: Any) -> Any:
    """A tensor as an array (it may be on a device, have a gradient, or half precision); all else as it is."""
    if not isinstance(values, Tensor):
        return values
    values = values.detach().cpu()
    return (values.float() if values.dtype in (torch.bfloat16, torch.float16) else values).numpy()


@dataclass(frozen=True)
class TrainingData:
    """A checked training set.

    Args:
        x: (n, ...) dense, or (n, d) in compressed rows.
        y: (n,) index into `classes`.
        classes: (C,) sorted labels, C of at least 2.
        weight: (n,) at least 0; None where all weigh the same.
    """

    x: Any
    y: Int[np.ndarray, " n"]
    classes: Shaped[np.ndarray, " C"]
    weight: Float[np.ndarray, " n"] | None


def check_training_data(
    estimator: Any, X: Any, y: Any, sample_weight: Any, *, allow_nd: bool
) -> TrainingData:
    """Check a training set, and set the estimator's `n_features_in_` and `feature_names_in_`.

    Args:
        estimator: whose `fit` this is.
        X: (n, d), or (n, ...) with `allow_nd`.
        y: (n,) labels of any one type.
        sample_weight: (n,), a number or None.
        allow_nd: whether rows may have more than one dimension.

    Raises:
        DataError: if values, shapes or labels are not valid, or fewer than two classes have a weight above 0.
    """
    with user_errors():
        X, y = validate_data(
            estimator, as_array(X), as_array(y), accept_sparse="csr", allow_nd=True, multi_output=False
        )
        _refuse_nd(X, allow_nd)
        classes, codes = _encode(y, "y")
        check_classification_targets(y)
        weight = None
        if sample_weight is not None:
            weight = _check_sample_weight(
                as_array(sample_weight), X, dtype=np.float32, ensure_non_negative=True
            )
    weighted = codes if weight is None else codes[weight > 0]
    if len(np.unique(weighted)) < 2:
        where = "" if len(classes) < 2 else " among the rows with a sample weight above 0"
        raise DataError(
            f"y has one class{where}, {classes[weighted[0]]!r}: rows of at least two classes are wanted"
        )
    return TrainingData(X, codes, classes, weight)


def check_new_data(estimator: Any, X: Any) -> Any:
    """Check examples to predict against those of `fit`: number and names of the columns, shape of an example.

    Raises:
        DataError: if they are others, or values are not valid.
    """
    with user_errors():
        X = validate_data(estimator, as_array(X), accept_sparse="csr", allow_nd=True, reset=False)
    if X.shape[1:] != estimator._example_shape:
        raise DataError(
            f"X has examples of shape {X.shape[1:]}, but {type(estimator).__name__} was fitted on examples "
            f"of shape {estimator._example_shape}"
        )
    return X


def _refuse_nd(X: Any, allow_nd: bool) -> None:
    if X.ndim > 2 and not allow_nd:
        raise DataError(
            f"X has {X.ndim} dimensions, and the default model takes a table, (n_samples, n_features): pass "
            "module='cnn' or an nn.Module of your own for pictures and the like, or flatten the examples"
        )


def _encode(
    labels: Shaped[np.ndarray, " n"], name: str
) -> tuple[Shaped[np.ndarray, " C"], Int[np.ndarray, " n"]]:
    """The sorted different labels, and the index of each label among them.

    Raises:
        DataError: if the labels are of types that cannot be compared.
    """
    try:
        classes, codes = np.unique(labels, return_inverse=True)
    except TypeError as error:
        raise DataError(
            f"{name} has labels that cannot be sorted ({error}): use one type, and drop rows without a label"
        ) from error
    return classes, codes.reshape(-1).astype(np.int64)


def check_groups(groups: Any, n: int) -> tuple[Shaped[np.ndarray, " A"], Int[np.ndarray, " n"]]:
    """The sorted different attribute labels, and the index of each example's among them.

    Args:
        groups: (n,) labels of any one type.
        n: number of examples.

    Raises:
        DataError: if there is not one label per example, or one is missing.
    """
    with user_errors():
        labels = column_or_1d(as_array(groups))
    if len(labels) != n:
        raise DataError(f"groups has {len(labels)} entries for {n} examples: one each is wanted")
    missing = np.array([label is None or label != label for label in labels.tolist()])
    if missing.any():
        raise DataError(f"groups has no label in row {int(missing.argmax())}: give each example one")
    return _encode(labels, "groups")


def known_codes(y: Any, classes: Shaped[np.ndarray, " C"], n: int) -> Int[np.ndarray, " n"]:
    """The index of each label among the classes of the fit.

    Raises:
        DataError: if there is not one per example, or one is no class of the fit.
    """
    with user_errors():
        labels = column_or_1d(as_array(y))
    if len(labels) != n:
        raise DataError(f"y has {len(labels)} entries, X has {n}: one label per example is wanted")
    index, found = {label: code for code, label in enumerate(classes.tolist())}, labels.tolist()
    codes = np.array([index.get(label, -1) for label in found], dtype=np.int64)
    if (codes < 0).any():
        row = int((codes < 0).argmax())
        raise DataError(
            f"y has {found[row]!r} in row {row}, which is no class of the fit: {', '.join(map(repr, index))}"
        )
    return codes


@dataclass(frozen=True)
class Scaling:
    """What is subtracted from each feature, and what it is divided by.

    Args:
        mean: (d,), or None where nothing is: sparse features stay sparse.
        scale: (d,) above 0, or None for features that are left as they are.
    """

    mean: Float[np.ndarray, " d"] | None = None
    scale: Float[np.ndarray, " d"] | None = None

    @staticmethod
    def of(x: Any, weight: Float[np.ndarray, " n"] | None) -> "Scaling":
        """Weighted mean and standard deviation of each feature; constant features are divided by 1."""
        scaler = StandardScaler(with_mean=not sparse.issparse(x))
        # rows of weight 0 are as good as absent; those of a chunk may be all of it, which the scaler refuses
        kept = np.arange(x.shape[0]) if weight is None else np.flatnonzero(weight)
        for rows in np.array_split(kept, -(-len(kept) // _ROWS)):
            scaler.partial_fit(
                x[rows].astype(np.float64), sample_weight=None if weight is None else weight[rows]
            )
        return Scaling(None if sparse.issparse(x) else scaler.mean_, scaler.scale_)

    def apply(self, x: Any) -> Inputs:
        """The examples as the models see them, in 32 bits.

        Raises:
            DataError: if a value is beyond what 32 bits can hold.
        """
        # what overflows becomes infinite, which the inputs refuse with the number of the row
        with np.errstate(over="ignore"):
            if sparse.issparse(x):
                values = x.data if self.scale is None else x.data / self.scale[x.indices]
                return SparseInputs(
                    sparse.csr_array((values.astype(np.float32), x.indices, x.indptr), x.shape)
                )
            if self.scale is None or self.mean is None:
                # a copy only where torch could not use the array as it is
                return ArrayInputs(np.require(x, np.float32, ["C", "W"]))
            values = np.empty(x.shape, np.float32)
            for start in range(0, len(x), _ROWS):
                rows = slice(start, start + _ROWS)
                values[rows] = (x[rows].astype(np.float64) - self.mean) / self.scale
        return ArrayInputs(values)


class SparseInputs(Inputs):
    """A sparse matrix with one example per row; a minibatch is dense.

    Args:
        rows: (n, d) float32 in compressed rows.

    Raises:
        DataError: if there is NaN or infinity among the values.
    """

    def __init__(self, rows: sparse.csr_array) -> None:
        bad = ~np.isfinite(rows.data)
        if bad.any():
            row = int(np.searchsorted(rows.indptr, bad.argmax(), side="right")) - 1
            raise DataError(f"inputs have NaN or infinity, first in row {row}: impute or drop such rows")
        self._rows = rows

    def __len__(self) -> int:
        return int(self._rows.shape[0])

    @property
    def shape(self) -> tuple[int, ...]:
        """(d,)."""
        return (int(self._rows.shape[1]),)

    def __getitem__(self, index: Int[Tensor, "*B"]) -> Float[Tensor, "*B d"]:
        dense = self._rows[index.reshape(-1).numpy()].toarray()
        return torch.from_numpy(dense).reshape(*index.shape, *self.shape)

"""Inputs made of columns: wide tables and many pictures, without a dense array of floats for all of them."""

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from scipy.sparse import csr_matrix
from torch import Tensor

from unrote.data import Inputs

DENSE_VALUES = 1 << 26
"""Up to so many values (256 MB) a table is held as one tensor, which is the fastest to draw minibatches from."""


def as_examples(dense: Float[np.ndarray, "n a"], sparse: csr_matrix | None) -> "Tensor | MixedInputs":
    """The columns as one tensor if it is small, else held apart and joined minibatch by minibatch."""
    tensor = torch.from_numpy(dense)
    if sparse is None:
        return tensor
    if dense.shape[0] * (dense.shape[1] + sparse.shape[1]) <= DENSE_VALUES:
        return torch.cat([tensor, torch.from_numpy(sparse.toarray())], 1)
    return MixedInputs(tensor, sparse)


class MixedInputs(Inputs):
    """Dense columns followed by sparse ones, (n, a + b); a minibatch is dense.

    Args:
        dense: (n, a) float32.
        sparse: (n, b) float32.
    """

    def __init__(self, dense: Float[Tensor, "n a"], sparse: csr_matrix) -> None:
        self._dense, self._sparse = dense, sparse

    def __len__(self) -> int:
        return len(self._dense)

    @property
    def shape(self) -> tuple[int, ...]:
        """(a + b,)."""
        return (self._dense.shape[1] + self._sparse.shape[1],)

    def __getitem__(self, index: Int[Tensor, "*B"]) -> Float[Tensor, "*B d"]:
        rows = index.reshape(-1)
        sparse = torch.from_numpy(self._sparse[rows.numpy()].toarray())
        return torch.cat([self._dense[rows], sparse], 1).reshape(*index.shape, *self.shape)


class PictureInputs(Inputs):
    """Pictures held as they were read (bytes, mostly), standardised per channel minibatch by minibatch.

    Args:
        values: (n, c, h, w).
        mean: (c,) subtracted.
        scale: (c,) divided by, above 0.
    """

    def __init__(
        self,
        values: Shaped[np.ndarray, "n c h w"],
        mean: Float[np.ndarray, " c"],
        scale: Float[np.ndarray, " c"],
    ) -> None:
        self._values = torch.from_numpy(np.ascontiguousarray(values))
        self._mean, self._scale = (torch.from_numpy(v).float().view(-1, 1, 1) for v in (mean, scale))

    def __len__(self) -> int:
        return len(self._values)

    @property
    def shape(self) -> tuple[int, ...]:
        """(c, h, w)."""
        return tuple(self._values.shape[1:])

    def __getitem__(self, index: Int[Tensor, "*B"]) -> Float[Tensor, "*B c h w"]:
        return (self._values[index].float() - self._mean) / self._scale

"""Inputs: what a model is shown, whatever holds it: a tensor, an array, a memory map, a `Dataset`.

The training loop asks for minibatches by index and never cares which of these it reads.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from torch.utils.data import DataLoader, Subset, default_collate

from unrote.errors import DataError

Example: TypeAlias = Any
"""A tensor with a leading batch dimension, or a mapping or tuple of such (as Hugging Face models take)."""

_CHECK_ROWS = 8192


def map_tensors(x: Example, function: Any) -> Example:
    """Apply `function` to each tensor of a batch, keeping mappings and tuples as they are."""
    if isinstance(x, Mapping):
        return {key: map_tensors(value, function) for key, value in x.items()}
    if isinstance(x, (tuple, list)):
        return tuple(map_tensors(value, function) for value in x)
    return function(x)


def batch_length(x: Example) -> int:
    """Number of examples in a batch."""
    if isinstance(x, Mapping):
        return batch_length(next(iter(x.values())))
    return batch_length(x[0]) if isinstance(x, (tuple, list)) else int(x.shape[0])


class Inputs(ABC):
    """n examples that can be read by index."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: Int[Tensor, "*B"]) -> Example:
        """The examples at `index`, (*B, ...); floating point in at least 32 bits."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Shape of one example, () where examples are not single tensors."""

    def subset(self, index: Int[Tensor, " m"]) -> "Inputs":
        """The examples at `index`, as inputs of their own."""
        return ArrayInputs(self[index])

    def batches(self, order: Iterable[Tensor]) -> Iterator[Example]:
        """The minibatches of `order`, one after the other; a source may read ahead."""
        return (self[index] for index in order)

    def fingerprint(self) -> str:
        """A short hash of up to 256 examples spread over the inputs, to tell one data set from another."""
        digest = hashlib.blake2b(f"{len(self)}:{self.shape}".encode(), digest_size=8)
        rows = torch.linspace(0, len(self) - 1, min(len(self), 256)).long()

        def add(values: Tensor) -> Tensor:
            digest.update(values.contiguous().cpu().numpy().tobytes())
            return values

        map_tensors(self[rows], add)
        return digest.hexdigest()


class ArrayInputs(Inputs):
    """A tensor, an array or a memory map with one example per row.

    Half-precision memory maps stay on disk in half precision and are widened minibatch by minibatch.

    Raises:
        DataError: if there are no rows, or NaN or infinity among them.
    """

    def __init__(self, values: Tensor | np.ndarray) -> None:
        if values.ndim < 2:
            raise DataError(
                f"inputs of shape {tuple(values.shape)}: (n, ...) with one example per row is wanted"
            )
        if 0 in values.shape:
            raise DataError(
                f"inputs of shape {tuple(values.shape)} are empty: at least one example is wanted"
            )
        self._map = values if isinstance(values, np.memmap) else None
        if self._map is None:
            tensor = values.detach() if isinstance(values, Tensor) else torch.from_numpy(_native(values))
            narrow = tensor.is_floating_point() and tensor.dtype.itemsize < 4
            self._tensor = tensor.float() if narrow else tensor
        self._n, self._shape = len(values), tuple(values.shape[1:])
        self._check_finite()

    def _check_finite(self) -> None:
        for start in range(0, self._n, _CHECK_ROWS):
            rows = self[torch.arange(start, min(start + _CHECK_ROWS, self._n))]
            if not rows.is_floating_point():
                return
            if bool(
                torch.isfinite(rows.sum())
            ):  # one pass; only a sum that is not finite needs a closer look
                continue
            bad = ~torch.isfinite(rows.flatten(1)).all(1)
            if bool(bad.any()):
                raise DataError(
                    f"inputs have NaN or infinity, first in row {start + int(bad.nonzero()[0])}: "
                    "impute or drop such rows"
                )

    def __len__(self) -> int:
        return self._n

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one example."""
        return self._shape

    @property
    def tensor(self) -> Tensor | None:
        """All examples at once, if they are in memory."""
        return None if self._map is not None else self._tensor

    def __getitem__(self, index: Int[Tensor, "*B"]) -> Tensor:
        if self._map is None:
            # five times as fast as indexing, for rows of a few thousand numbers
            return self._tensor.index_select(0, index) if index.ndim == 1 else self._tensor[index]
        # sorted reads walk the file forwards; the inverse permutation restores the caller's order
        flat = index.reshape(-1).numpy()
        unique, inverse = np.unique(flat, return_inverse=True)
        rows = torch.from_numpy(_native(self._map[unique]))
        return rows[torch.from_numpy(inverse)].reshape(*index.shape, *self._shape)


def _native(values: np.ndarray) -> np.ndarray:
    """The array in a type that torch computes with: floating point in 32 or 64 bits, integers as they are."""
    kind, size = values.dtype.kind, values.dtype.itemsize
    if kind == "f":
        wanted = np.dtype(np.float32 if size <= 4 else np.float64)
    elif kind == "u" and size > 1:
        wanted = np.dtype(np.int64)  # torch has hardly any arithmetic on wide unsigned integers
    else:
        wanted = values.dtype.newbyteorder("=")
    return np.ascontiguousarray(values, dtype=wanted)


class DatasetInputs(Inputs):
    """A map-style `torch.utils.data.Dataset` whose items are x, or tuples that start with x.

    Args:
        dataset: has `__len__` and `__getitem__`.
        workers: loading processes; 0 loads in this one. The examples and their order do not depend on it.
        collate: makes a minibatch of a list of x; default torch's. Examples of different lengths are padded here.
    """

    def __init__(
        self,
        dataset: Any,
        workers: int = 0,
        collate: Callable[[list[Any]], Example] | None = None,
    ) -> None:
        if not len(dataset):
            raise DataError("the dataset is empty: at least one example is wanted")
        self.dataset, self.workers = dataset, workers
        self.collate = default_collate if collate is None else collate
        first = self._first(dataset[0])
        self._shape = tuple(first.shape) if isinstance(first, Tensor) else ()

    @staticmethod
    def _first(item: Any) -> Any:
        return item[0] if isinstance(item, (tuple, list)) else item

    def _collate(self, items: list[Any]) -> Example:
        return self.collate([self._first(item) for item in items])

    def __len__(self) -> int:
        return len(self.dataset)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one example."""
        return self._shape

    def __getitem__(self, index: Int[Tensor, "*B"]) -> Example:
        batch = self._collate([self.dataset[int(i)] for i in index.reshape(-1)])
        return map_tensors(batch, lambda t: t.reshape(*index.shape, *t.shape[1:]))

    def batches(self, order: Iterable[Tensor]) -> Iterator[Example]:
        """The minibatches of `order`, read ahead by worker processes if there are any.

        Raises:
            DataError: if members have minibatches of their own and there are workers.
        """
        if not self.workers:
            return super().batches(order)
        plan = [index.tolist() for index in order]
        if plan and isinstance(plan[0][0], list):
            raise DataError(
                "members with minibatches of their own cannot share loading workers: set workers=0"
            )
        loader = DataLoader(
            self.dataset,
            batch_sampler=plan,
            num_workers=self.workers,
            collate_fn=self._collate,
            generator=torch.Generator(),  # else the workers' seed is drawn from the global one
        )
        return iter(loader)

    def subset(self, index: Int[Tensor, " m"]) -> "DatasetInputs":
        """The examples at `index`, read when they are asked for."""
        return DatasetInputs(Subset(self.dataset, index.tolist()), self.workers, self.collate)


def as_inputs(x: Any) -> Inputs:
    """Wrap whatever holds the examples.

    Raises:
        DataError: if `x` is none of: tensor, array, memory map, map-style `Dataset`, `Inputs`.
    """
    if isinstance(x, Inputs):
        return x
    if isinstance(x, (Tensor, np.ndarray)):
        if isinstance(x, np.ndarray) and x.dtype.kind not in "fiub":
            raise DataError(f"inputs of type {x.dtype}: numbers are wanted; encode the columns first")
        return ArrayInputs(x)
    if hasattr(x, "to_numpy"):  # a table has a length and can be indexed, but not by row
        raise DataError(f"inputs of type {type(x).__name__}: pass its numbers, {type(x).__name__}.to_numpy()")
    if hasattr(x, "__getitem__") and hasattr(x, "__len__") and not isinstance(x, (list, tuple, dict, str)):
        return DatasetInputs(x)
    raise DataError(
        f"inputs of type {type(x).__name__}: "
        "a tensor, a numpy array, a memory map or a map-style Dataset is wanted"
    )

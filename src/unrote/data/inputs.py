"""Inputs: what a model is shown, whatever holds it: a tensor, an array, a memory map, a `Dataset`.

The training loop asks for minibatches by index and never cares which of these it reads.
"""

import copy
import hashlib
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from torch.utils.data import DataLoader, Subset, default_collate

from unrote.data.rows import BUFFER, ChosenRows, RowFile, mapped_rows, native, open_npy
from unrote.errors import DataError, OptionError

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


def _sum(values: Tensor) -> float:
    """The sum, on this thread where it can be: torch's threads go on spinning afterwards, in the way of BLAS'."""
    if values.device.type != "cpu":
        return float(values.sum())
    with np.errstate(invalid="ignore", over="ignore"):
        return float(values.numpy().sum())


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

    @property
    def blocks(self) -> tuple[int, int] | None:
        """Rows of a block, and of the blocks held at a time, of a source to be read in blocks; else None."""
        return None

    def subset(self, index: Int[Tensor, " m"]) -> "Inputs":
        """The examples at `index`, as inputs of their own."""
        return ArrayInputs(self[index])

    def batches(self, order: Iterable[Tensor]) -> Iterator[Example]:
        """The minibatches of `order`, one after the other; a source may read ahead."""
        return (self[index] for index in order)

    def fingerprint(self) -> str:
        """A short hash of up to 256 examples spread over the inputs, to tell one data set from another."""
        # blocks decide the order of training, which a run that goes on must keep
        blocks = "" if self.blocks is None else f":{self.blocks}"
        digest = hashlib.blake2b(f"{len(self)}:{self.shape}{blocks}".encode(), digest_size=8)
        rows = torch.linspace(0, len(self) - 1, min(len(self), 256)).long()

        def add(values: Tensor) -> Tensor:
            digest.update(values.contiguous().cpu().numpy().tobytes())
            return values

        map_tensors(self[rows], add)
        return digest.hexdigest()


class ArrayInputs(Inputs):
    """A tensor, an array, a memory map or a file of features with one example per row.

    What is in a file stays there: its rows are read minibatch by minibatch, and half precision is widened then.

    Raises:
        DataError: if there are no rows, or NaN or infinity among them.
    """

    def __init__(self, values: "Tensor | np.ndarray | RowFile") -> None:
        shape = (len(values), *values.shape) if isinstance(values, RowFile) else tuple(values.shape)
        if len(shape) < 2:
            raise DataError(f"inputs of shape {shape}: (n, ...) with one example per row is wanted")
        if 0 in shape:
            raise DataError(f"inputs of shape {shape} are empty: at least one example is wanted")
        self._file: RowFile | None = mapped_rows(values) if isinstance(values, np.memmap) else None
        if isinstance(values, RowFile):
            self._file = values
        elif self._file is None:
            tensor = values.detach() if isinstance(values, Tensor) else torch.from_numpy(native(values))
            narrow = tensor.is_floating_point() and tensor.dtype.itemsize < 4
            self._tensor = tensor.float() if narrow else tensor
        self._n, self._shape = shape[0], shape[1:]
        self._check_finite()

    def _check_finite(self) -> None:
        if (bad := self._first_not_finite()) is not None:
            raise DataError(f"inputs have NaN or infinity, first in row {bad}: impute or drop such rows")

    def _first_not_finite(self) -> int | None:
        if self._file is not None:
            return self._file.first_not_finite()
        if not self._tensor.is_floating_point():
            return None
        for start in range(0, self._n, _CHECK_ROWS):
            rows = self._tensor[start : start + _CHECK_ROWS]
            # one pass; only a sum that is not finite needs a closer look
            if not math.isfinite(_sum(rows)):
                bad = (~torch.isfinite(rows.flatten(1)).all(1)).nonzero()
                if len(bad):
                    return start + int(bad[0])
        return None

    def __len__(self) -> int:
        return self._n

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one example."""
        return self._shape

    @property
    def tensor(self) -> Tensor | None:
        """All examples at once, if they are in memory."""
        return None if self._file is not None else self._tensor

    @property
    def blocks(self) -> tuple[int, int] | None:
        """See `Inputs.blocks`; None for what is in memory, or small enough to be read whole."""
        return None if self._file is None else self._file.blocks

    def subset(self, index: Int[Tensor, " m"]) -> "ArrayInputs":
        """The examples at `index`: copied if they are in memory, and left in their file if they are there."""
        if self._file is None:
            return ArrayInputs(self[index])
        chosen = copy.copy(self)
        chosen._file, chosen._n = ChosenRows(self._file, index.numpy()), len(index)
        return chosen

    def __getitem__(self, index: Int[Tensor, "*B"]) -> Tensor:
        if self._file is not None:
            return self._file.at(index)
        # five times as fast as indexing, for rows of a few thousand numbers
        return self._tensor.index_select(0, index) if index.ndim == 1 else self._tensor[index]

    def batches(self, order: Iterable[Tensor]) -> Iterator[Tensor]:
        """See `Inputs.batches`; examples in memory that follow one another are not copied."""
        for index in order:
            run = self._run(index) if self._file is None else None
            yield self[index] if run is None else self._tensor[run]

    @staticmethod
    def _run(index: Int[Tensor, "*B"]) -> slice | None:
        """The rows as a slice, where each is the one after the one before."""
        if index.ndim != 1 or not index.numel():
            return None
        rows = index.numpy()  # whose elements are read in a tenth of the time
        first, last = int(rows[0]), int(rows[-1])
        follows = last - first == rows.size - 1 and np.array_equal(rows, np.arange(first, last + 1))
        return slice(first, last + 1) if follows else None


class DatasetInputs(Inputs):
    """A map-style `torch.utils.data.Dataset` whose items are x, or tuples that start with x.

    Args:
        dataset: has `__len__` and `__getitem__`.
        workers: loading processes; 0 loads in this one. The examples and their order do not depend on it.
        collate: makes a minibatch of a list of x; default torch's. Examples of different lengths are padded here.
        pin: whether minibatches are put in page-locked memory, from which a GPU copies them while it computes;
            nothing happens where there is no GPU.
    """

    def __init__(
        self,
        dataset: Any,
        workers: int = 0,
        collate: Callable[[list[Any]], Example] | None = None,
        *,
        pin: bool = False,
    ) -> None:
        if not len(dataset):
            raise DataError("the dataset is empty: at least one example is wanted")
        self.dataset, self.workers, self.pin = dataset, workers, pin and torch.cuda.is_available()
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
            batches = super().batches(order)
            return (map_tensors(x, Tensor.pin_memory) for x in batches) if self.pin else batches
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
            pin_memory=self.pin,
            generator=torch.Generator(),  # else the workers' seed is drawn from the global one
        )
        return iter(loader)

    def subset(self, index: Int[Tensor, " m"]) -> "DatasetInputs":
        """The examples at `index`, read when they are asked for."""
        return DatasetInputs(Subset(self.dataset, index.tolist()), self.workers, self.collate, pin=self.pin)


def open_features(
    path: "str | os.PathLike[str]", *, columns: Sequence[str] | None = None, buffer: int = BUFFER
) -> ArrayInputs:
    """Features in a file that may be larger than memory.

    Args:
        path: a .npy file (n, ...) in row-major order, or a .parquet file with a column per feature, or with one
            column of lists.
        columns: names of the features' columns in a Parquet file; default all.
        buffer: bytes of the file that are held at a time. Minibatches of a larger file are drawn from shuffled
            blocks of rows: as many blocks as half the buffer holds are mixed at a time.

    Raises:
        DataError: if the file cannot be read, or has other than finite numbers.
        OptionError: if the buffer does not hold two rows, or columns are named for a .npy file.
        MissingPackageError: if pyarrow is needed and not installed.
    """
    path = Path(path)
    if path.suffix.lower() in (".parquet", ".pq"):
        from unrote.data.parquet_rows import ParquetRows

        return ArrayInputs(ParquetRows(path, columns, buffer))
    if columns is not None:
        raise OptionError(f"columns= are for Parquet files, {path} is none: leave them out")
    return ArrayInputs(open_npy(path, buffer))


def as_inputs(x: Any) -> Inputs:
    """Wrap whatever holds the examples.

    Raises:
        DataError: if `x` is none of: tensor, array, memory map, path of features, map-style `Dataset`, `Inputs`.
    """
    if isinstance(x, Inputs):
        return x
    if isinstance(x, RowFile):
        return ArrayInputs(x)
    if isinstance(x, Path):
        return open_features(x)
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

"""MAT in a PyTorch loop of one's own: held-out logits, the loss, and a data set that says which example is which.

    logits = unrote.held_out_logits(Net, train)                  # from twins that never saw the example
    criterion = unrote.MATLoss(unrote.mat_shift(logits, y, temperature=0.1))
    for x, y, index in DataLoader(unrote.IndexedDataset(train), batch_size=64, shuffle=True):
        loss = criterion(net(x), y, index)

The index is the one thing a loop has to carry beside x and y: the shift belongs to an example, not to its place
in a minibatch. It survives shuffling, dropped minibatches, workers and several processes, as it is part of the
item.
"""

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset, TensorDataset, default_collate

from unrote.data.inputs import ArrayInputs, DatasetInputs, Inputs
from unrote.data.task import as_labels
from unrote.errors import DataError, OptionError
from unrote.heldout import (
    XRMResult,
    begun,
    default_twins,
    kfold,
    shorter_for_twins,
    stands_on_trunk,
    trunk,
    xrm,
)
from unrote.models import ModuleStack
from unrote.presets import DEFAULT
from unrote.training import Recipe

INDEX = "index"
"""The key of the example's index in items and minibatches that are mappings."""


def held_out_logits(
    module_factory: Callable[[], nn.Module],
    dataset: Any,
    *,
    n_classes: int | None = None,
    labels: Any = None,
    method: Literal["auto", "xrm", "trunk", "kfold"] = "auto",
    recipe: Recipe | None = None,
    collate: Callable[[list[Any]], Any] | None = None,
    workers: int = 0,
    device: torch.device | str | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Float[Tensor, "n C"]:
    """Logits of each training example from a model that did not train on it.

    Args:
        module_factory: called once per model; gives an `nn.Module` that maps a minibatch (B, ...) to logits
            (B, C), or to an object with `.logits`. Make it as you make the model to be trained: the logits
            should show the shortcut that this model would take.
        dataset: map-style with items (x, y), or the pair of tensors x (n, ...) and y (n,).
        n_classes: C; default the largest label plus one.
        labels: (n,) class indices; read off the items if not given, which loads every example once.
        method: "xrm", twins that make the shortcut purer as they train; "trunk", twins that are linear heads on the
            features of a model that has begun to learn (`unrote.heldout.trunk`), at a third of the cost; "auto", the
            second, but the first for linear models, for models whose last linear layer is not to be found, and where
            such heads know little and networks more; or "kfold", five-fold cross-fitting.
        recipe: how the model itself is trained; twins that learn features train for half of it, though for 400 steps
            if it has so many. Default: Adam, 1e-3, 60 epochs.
        collate: makes a minibatch of a list of x; default torch's. For x of different lengths, pad here.
        workers: loading processes for a data set.
        device: where the models are trained; default where the factory puts them.
        seed: of everything random.
        progress: whether to show a progress bar.

    Returns:
        (n, C) on the CPU, row i for example i whatever order training took.

    Raises:
        DataError: if the data set is empty, or labels do not fit it.
        OptionError: if `method` is none of these, or the factory gives no classifier.
    """
    if method not in ("auto", "xrm", "trunk", "kfold"):
        raise OptionError(f"method={method!r}: 'auto', 'xrm', 'trunk' or 'kfold' is wanted")
    x, y = _inputs_and_labels(dataset, labels, collate, workers)
    n_classes = int(y.max()) + 1 if n_classes is None else n_classes
    if int(y.max()) >= n_classes:
        raise DataError(
            f"label {int(y.max())} for n_classes={n_classes}: labels run from 0 to {n_classes - 1}"
        )
    trained = recipe or DEFAULT.recipe

    def build(seeds: Sequence[int]) -> ModuleStack:
        stack = ModuleStack(module_factory, n_classes, seeds)
        if trained.batch_size is not None:  # what fits in memory to train on fits to predict
            stack.predict_batch_size = trained.batch_size
        return stack if device is None else stack.to(device)

    def bar(source: str) -> str | None:
        return f"held-out: {source}" if progress else None

    if method == "kfold":
        return kfold(x, y, build, trained, seed=seed, progress=bar("kfold")).logits
    model = build([0])
    has_trunk, learns_features = stands_on_trunk(model), model.learns_features
    del model  # made for this alone

    def heads() -> XRMResult:
        network = begun(x, y, build, trained, n_classes=n_classes, seed=seed, progress=bar("trunk"))
        return trunk(x, y, network, n_classes=n_classes, seed=seed, progress=bar("trunk"))

    def networks() -> XRMResult:
        own = shorter_for_twins(trained, len(y)) if learns_features else trained
        return xrm(x, y, build, own, n_classes=n_classes, seeds=[seed], progress=bar("xrm"))

    if method == "auto":
        return default_twins(heads if has_trunk else None, networks).held_out().logits
    return (heads if method == "trunk" else networks)().held_out().logits


def _inputs_and_labels(
    dataset: Any, labels: Any, collate: Callable[[list[Any]], Any] | None, workers: int
) -> tuple[Inputs, Int[Tensor, " n"]]:
    """The examples and their labels, read off the items where they were not given.

    Raises:
        DataError: if the data set is not one that can be read by index, or its labels are no class indices.
    """
    # two tensors are read by rows, many times faster than item by item
    if isinstance(dataset, TensorDataset) and len(dataset.tensors) == 2 and collate is None:
        dataset = dataset.tensors
    if isinstance(dataset, tuple):
        if len(dataset) != 2:
            raise DataError(f"a tuple of {len(dataset)}: the pair (x, y) or a map-style Dataset is wanted")
        x, y = dataset
        return ArrayInputs(torch.as_tensor(x)), as_labels(y if labels is None else labels, "y", len(x))
    if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        raise DataError(
            f"a {type(dataset).__name__} cannot be read by index: a map-style Dataset, or the pair (x, y), "
            "is wanted; an iterable data set has no example i for held-out row i to belong to"
        )
    inputs = DatasetInputs(dataset, workers, collate)
    if labels is None:
        labels = class_indices(_second(dataset[i], i) for i in range(len(inputs)))
    return inputs, as_labels(labels, "labels", len(inputs))


def _second(item: Any, i: int) -> Any:
    if not isinstance(item, (tuple, list)) or len(item) < 2:
        raise DataError(f"item {i} is a {type(item).__name__}: (x, y) is wanted, or pass labels=")
    return item[1]


def class_indices(values: Iterable[Any]) -> Int[Tensor, " n"]:
    """Labels as items hold them (numbers, arrays or tensors of one integer each) as a vector.

    Raises:
        DataError: if one is not an integer.
    """
    indices = []
    for i, value in enumerate(values):
        try:
            indices.append(operator.index(value))
        except TypeError as error:
            raise DataError(
                f"item {i} has the label {value!r}: a class index 0, 1, ... is wanted; encode the labels first"
            ) from error
    return torch.tensor(indices, dtype=torch.long)


class MATLoss(nn.Module):
    """Cross-entropy of shifted logits: what held-out predictions already explain earns nothing.

    In training mode the loss is CE(logits + shift[index], y). In evaluation mode it is plain cross-entropy, and
    the index is not needed: like dropout, the shift is for training alone. Predictions always use the logits
    as the model gives them.

    The shift is a buffer: it moves with `.to(...)` and is saved with the module that holds the loss.

    Args:
        shift: (n, C), one row per training example, as `unrote.mat_shift` gives.
        reduction: "mean" over the minibatch, or "none".

    Raises:
        DataError: if the shift is not a finite matrix.
        OptionError: if the reduction is neither "mean" nor "none".
    """

    shift: Tensor

    def __init__(self, shift: Float[Tensor, "n C"], reduction: Literal["mean", "none"] = "mean") -> None:
        super().__init__()
        if reduction not in ("mean", "none"):
            raise OptionError(f"reduction={reduction!r}: 'mean' or 'none' is wanted")
        self.reduction = reduction
        self.register_buffer("shift", as_shift(shift))

    def forward(
        self, logits: Float[Tensor, "B _"], y: Int[Tensor, " B"], index: Int[Tensor, " _"] | None = None
    ) -> Float[Tensor, "..."]:
        """The loss of a minibatch.

        Args:
            logits: (B, C).
            y: (B,) class indices.
            index: (B,) which training examples these are; needed in training mode only.

        Returns:
            A scalar, or (B,) for the reduction "none".

        Raises:
            DataError: if labels are not class indices; in training mode, also if the index is missing, out of
                range, or not one per row of logits.
        """
        if y.ndim != 1 or y.is_floating_point():
            raise DataError(
                f"labels of shape {tuple(y.shape)} and type {y.dtype}: a vector of class indices is wanted; MAT "
                "knows no mixed labels and not more than one class per example"
            )
        if self.training:
            if index is None:
                raise DataError(
                    "MATLoss in training mode needs the index of each example: wrap the training data set in "
                    "unrote.IndexedDataset; for validation examples call .eval() on the loss"
                )
            logits = logits + shift_rows(self.shift, index, logits)
        return F.cross_entropy(logits, y, reduction=self.reduction)

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"{len(self.shift)} examples, {self.shift.shape[1]} classes, reduction={self.reduction!r}"


def as_shift(shift: Any) -> Float[Tensor, "n C"]:
    """A shift as a tensor without gradient.

    Raises:
        DataError: if it is not a finite matrix.
    """
    values = torch.as_tensor(shift).detach()
    if values.ndim != 2 or not values.is_floating_point():
        raise DataError(
            f"a shift of shape {tuple(values.shape)} and type {values.dtype}: (n, C) numbers are wanted, one "
            "row per training example, as unrote.mat_shift gives for one temperature"
        )
    if not bool(torch.isfinite(values).all()):
        raise DataError("the shift has NaN or infinity; floor the probabilities before the logarithm")
    return values


def shift_rows(shift: Float[Tensor, "n C"], index: Int[Tensor, " _"], logits: Tensor) -> Tensor:
    """The rows of the shift that belong to a minibatch of logits, on their device.

    Args:
        shift: (n, C).
        index: (B,), 0 to n - 1.
        logits: (B, C).

    Raises:
        DataError: if the index is out of range, or does not fit the logits, or the classes differ.
    """
    if index.ndim != 1 or index.is_floating_point() or tuple(logits.shape) != (len(index), shift.shape[1]):
        raise DataError(
            f"logits of shape {tuple(logits.shape)} and an index of shape {tuple(index.shape)}, "
            f"{index.dtype}: ({len(index)}, {shift.shape[1]}) and ({len(logits)},) integers are wanted, a "
            "column per class of the shift and an index per row"
        )
    # on an accelerator an index out of range would kill the process, and say nothing of where
    if len(index) and not 0 <= int(index.min()) <= int(index.max()) < len(shift):
        raise DataError(
            f"indices run from {int(index.min())} to {int(index.max())}, but the shift has {len(shift)} rows: "
            "number the training examples from 0, in the order in which the held-out logits were made"
        )
    return shift[index.to(shift.device)].to(logits.device)


class IndexedDataset(Dataset[Any]):
    """A map-style data set whose items also say which example they are.

    An item (x, y) becomes (x, y, index), and a mapping gets the key "index"; torch's own collation makes a
    vector of the indices. The index is the position in the data set wrapped here, so wrap the very data set
    that the held-out logits were made from, and take subsets of the wrapper, not the other way round.

    Args:
        dataset: map-style; its items are tuples or mappings.

    Raises:
        DataError: if the data set cannot be read by index.
    """

    def __init__(self, dataset: Any) -> None:
        if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
            raise DataError(
                f"a {type(dataset).__name__} cannot be read by index: a map-style Dataset is wanted"
            )
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        position = int(index)
        return with_index(self.dataset[position], position % len(self))

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """Several items at once, which some data sets read many times faster (Arrow tables)."""
        read = getattr(self.dataset, "__getitems__", None)
        items = read(indices) if read is not None else [self.dataset[int(i)] for i in indices]
        return [with_index(item, int(i) % len(self)) for item, i in zip(items, indices, strict=True)]


class IndexedCollate:
    """A collate function that leaves the index alone, for one that knows nothing of it.

    Args:
        collate: makes a minibatch of a list of items without index; default torch's own.
    """

    def __init__(self, collate: Callable[[list[Any]], Any] = default_collate) -> None:
        self.collate = collate

    def __call__(self, items: list[Any]) -> Any:
        """The minibatch of `collate`, and the index beside it as `IndexedDataset` would have it."""
        pairs = [split_index(item) for item in items]
        batch = self.collate([item for item, _ in pairs])
        return with_index(batch, torch.tensor([int(index) for _, index in pairs]))


def with_index(item: Any, index: Any) -> Any:
    """An item or minibatch with its index added.

    Raises:
        DataError: if it is neither a tuple nor a mapping, or has an index already.
    """
    if isinstance(item, Mapping):
        if INDEX in item:
            raise DataError(
                f"items already have {INDEX!r}, which could be anything: rename that column, "
                "or drop it; the position in the data set takes its place"
            )
        return {**item, INDEX: index}
    if isinstance(item, (tuple, list)):
        return (*item, index)
    raise DataError(f"an item of type {type(item).__name__}: a tuple such as (x, y) or a mapping is wanted")


def split_index(item: Any) -> tuple[Any, Any]:
    """An item or minibatch of an `IndexedDataset` without its index, and the index.

    Raises:
        DataError: if there is no index.
    """
    if isinstance(item, Mapping) and INDEX in item:
        return {key: value for key, value in item.items() if key != INDEX}, item[INDEX]
    if isinstance(item, (tuple, list)) and len(item) > 1:
        return item[:-1], item[-1]
    raise DataError(
        f"a {type(item).__name__} without an index: wrap the training data set in unrote.IndexedDataset"
    )

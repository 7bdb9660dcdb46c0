"""MAT for a LightningModule as it stands: two lines change, none of them in the module.

    logits = unrote.held_out_logits(Net, train)
    shift = unrote.mat_shift(logits, y, temperature=0.1)

    loader = DataLoader(unrote.IndexedDataset(train), batch_size=64, shuffle=True)  # was DataLoader(train, ...)
    trainer = Trainer(callbacks=[MATCallback(shift)])                               # was Trainer()
    trainer.fit(Net(), loader)

While `training_step` runs, the callback takes the index off the minibatch, so that the step sees what it always
saw, and adds the shift to the logits inside every cross-entropy over the minibatch, however it is called:
`F.cross_entropy`, `nn.CrossEntropyLoss`, `F.nll_loss` after a log-softmax, or a Hugging Face model that computes
its own loss. Nothing else changes: metrics logged in `training_step` see the logits as the model gives them, and
so do validation, test and prediction. A step in which no such cross-entropy was seen is an error, not an ERM run.

It works for modules and trainers of the older name `pytorch_lightning` too, as long as `lightning` is installed.
Several processes (DDP) need nothing more: each holds the shift and looks up its own examples by their index.
The shift is in every checkpoint; `MATCallback()` without one goes on with the checkpoint's.

Three limits. The module's own hooks on minibatches (`on_train_batch_start`, `on_after_batch_transfer`) see the
index as the last item. A `training_step` compiled whole cannot be seen into and is refused: compile the network
inside it. A cross-entropy that activation checkpointing runs again in the backward pass is out of sight then:
keep the loss outside the checkpointed part.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from unrote.errors import CheckpointError, DataError, OptionError
from unrote.integrations import require
from unrote.torch_api import IndexedDataset, as_shift, shift_rows, split_index

require("lightning", "lightning")

from lightning.pytorch import Callback, LightningModule, Trainer  # noqa: E402


class MATCallback(Callback):
    """Trains any LightningModule whose loss is a cross-entropy by MAT.

    Args:
        shift: (n, C), one row per training example, as `unrote.mat_shift` gives. None takes it from the
            checkpoint that training goes on from.
    """

    def __init__(self, shift: Float[Tensor, "n C"] | None = None) -> None:
        self.shift = None if shift is None else as_shift(shift).cpu()
        self._put_back: Callable[[], None] | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the data set and take hold of `training_step`.

        Raises:
            OptionError: if there is no shift, neither given nor in a checkpoint.
            DataError: if the training data set has no index, or another number of examples than the shift.
        """
        if self.shift is None:
            raise OptionError(
                "MATCallback() without a shift goes on from a checkpoint, and there is none: "
                "pass the shift, or ckpt_path= to fit"
            )
        _check_dataset(trainer.train_dataloader, len(self.shift))
        original: Callable[..., Any] = pl_module.training_step
        own = pl_module.__dict__.get("training_step")  # Lightning puts a compiled step there
        shifted = _ShiftedCrossEntropy(self.shift.to(pl_module.device))

        @functools.wraps(original)
        def training_step(batch: Any, *args: Any, **kwargs: Any) -> Any:
            batch, index = split_index(batch)
            with shifted.of(index):
                return original(batch, *args, **kwargs)

        def put_back() -> None:
            del pl_module.__dict__["training_step"]
            if own is not None:
                pl_module.__dict__["training_step"] = own

        pl_module.__dict__["training_step"] = training_step
        self._put_back = put_back

    def _release(self) -> None:
        if self._put_back is not None:
            self._put_back()
        self._put_back = None

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give `training_step` back."""
        self._release()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Give `training_step` back."""
        self._release()

    def state_dict(self) -> dict[str, Any]:
        """The shift, for a checkpoint."""
        return {} if self.shift is None else {"shift": self.shift}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the shift from a checkpoint.

        Raises:
            CheckpointError: if it is not the one that was given.
        """
        saved = as_shift(state_dict["shift"]).cpu()
        if self.shift is not None and not (
            saved.shape == self.shift.shape and torch.allclose(saved, self.shift.to(saved.dtype))
        ):
            raise CheckpointError(
                f"the checkpoint's shift {tuple(saved.shape)} is not the one given {tuple(self.shift.shape)}: "
                "pass MATCallback() without a shift to go on with the checkpoint's, or start a new run"
            )
        self.shift = saved


def _check_dataset(loader: Any, n: int) -> None:
    """Refuse a loader whose minibatches would end in something that is not the index.

    Raises:
        DataError: if its data set is not indexed, or has another number of examples than the shift has rows.
    """
    dataset = getattr(loader, "dataset", None)
    while dataset is not None and not isinstance(dataset, IndexedDataset):
        dataset = getattr(dataset, "dataset", None)  # a Subset of an indexed data set has the right index
    if dataset is None:
        raise DataError(
            "the training data set does not say which example is which: "
            "wrap it, DataLoader(unrote.IndexedDataset(train), ...)"
        )
    if len(dataset) != n:
        raise DataError(
            f"the shift has {n} rows, the indexed training data set {len(dataset)} examples: they must be "
            "the same examples in the same order; take subsets after indexing, not before"
        )


class _ShiftedCrossEntropy(TorchFunctionMode):
    """While it is entered, a cross-entropy over the minibatch's classes gets shifted logits.

    One object serves all steps: compiled parts of the model are compiled anew for each new one.
    """

    def __init__(self, shift: Float[Tensor, "n C"]) -> None:
        super().__init__()
        self.shift = shift
        self.index: Tensor | None = None
        self.hits = 0

    def of(self, index: Int[Tensor, " B"]) -> "_ShiftedCrossEntropy":
        """This mode, for the examples of the next minibatch."""
        self.index, self.hits = index, 0
        return self

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        super().__exit__(kind, error, traceback)  # type: ignore[no-untyped-call]
        if error is None and not self.hits:
            assert self.index is not None
            raise OptionError(
                f"training_step computed no cross-entropy of ({len(self.index)}, {self.shift.shape[1]}) logits "
                "that MATCallback could see: use F.cross_entropy or nn.CrossEntropyLoss on one logit per class "
                "(and compile the network, not the step); for any other loop there is unrote.MATLoss"
            )

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        # inside a compiled function the shift would be traced in and then added once more, or not at all
        if func in (F.cross_entropy, F.nll_loss) and not torch.compiler.is_compiling():
            named = {**dict(zip(("input", "target"), args, strict=False)), **kwargs}
            logits, target = named["input"], named["target"]
            assert self.index is not None
            if tuple(logits.shape) == (len(self.index), self.shift.shape[1]):
                if target.is_floating_point():
                    raise OptionError(
                        "the target of the cross-entropy is a distribution over classes: MAT needs one class "
                        "per example; turn off label mixing"
                    )
                self.hits += 1
                logits = logits + shift_rows(self.shift, self.index, logits)
                if func is F.nll_loss:  # log-softmax of shifted log-probabilities is that of shifted logits
                    logits = F.log_softmax(logits, dim=-1)
                args, kwargs = ((logits, *args[1:]), kwargs) if args else ((), {**kwargs, "input": logits})
        return func(*args, **kwargs)

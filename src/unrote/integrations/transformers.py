"""MAT for sequence classification with Hugging Face: `Trainer` becomes `MATTrainer`, and gets a shift.

    trainer = MATTrainer(model_init=model_init, args=args, train_dataset=train, eval_dataset=test,
                         processing_class=tokenizer)                                # was Trainer(...)
    logits = trainer.held_out_logits()                                              # twins made by model_init
    trainer.shift = unrote.mat_shift(logits, y, temperature=0.1)
    trainer.train()

Training minimises the cross-entropy of shifted logits; evaluation and prediction use the logits as they are, and
the evaluation loss is plain cross-entropy. The index of each example is added to the training items, kept past
the removal of unused columns and past the user's own data collator, and taken off before the model runs.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader

from unrote.errors import DataError, OptionError
from unrote.integrations import require
from unrote.torch_api import (
    INDEX,
    IndexedCollate,
    IndexedDataset,
    MATLoss,
    as_shift,
    class_indices,
    held_out_logits,
)
from unrote.training import Recipe

require("transformers", "transformers")
require("accelerate", "transformers")

from transformers import Trainer, TrainingArguments  # noqa: E402

_LABELS = ("labels", "label", "label_ids")


class MATTrainer(Trainer):
    """A `Trainer` that trains a classifier by MAT.

    Args:
        *args: as `Trainer` takes.
        shift: (n, C), one row per example of `train_dataset`, as `unrote.mat_shift` gives; may be set as an
            attribute later, but before `train()`.
        **kwargs: as `Trainer` takes.

    Raises:
        OptionError: if a loss function of one's own or label smoothing is asked for, which MAT's loss replaces.
        DataError: if the shift is not a finite matrix.
    """

    def __init__(self, *args: Any, shift: Float[Tensor, "n C"] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.compute_loss_func is not None:
            raise OptionError("MATTrainer has a loss of its own: leave compute_loss_func out")
        if self.args.label_smoothing_factor:
            raise OptionError(
                f"label_smoothing_factor={self.args.label_smoothing_factor}: MAT needs one class per example; "
                "set it to 0"
            )
        # through this hook Trainer accounts for gradient accumulation and several processes by itself
        self.compute_loss_func = self._loss
        self._mat_loss: MATLoss | None = None
        self._index: Tensor | None = None
        if shift is not None:
            self.shift = shift

    @property
    def shift(self) -> Float[Tensor, "n C"] | None:
        """The shift, on the device of training; None before it is set."""
        return None if self._mat_loss is None else self._mat_loss.shift

    @shift.setter
    def shift(self, shift: Float[Tensor, "n C"]) -> None:
        self._mat_loss = MATLoss(as_shift(shift), reduction="none").to(self.args.device)

    def held_out_logits(
        self,
        *,
        labels: Any = None,
        n_classes: int | None = None,
        method: Literal["auto", "xrm", "trunk", "kfold"] = "auto",
        recipe: Recipe | None = None,
        progress: bool = False,
    ) -> Float[Tensor, "n C"]:
        """Logits of each training example from a model of `model_init` that did not train on it.

        Items are collated, and columns that the model does not take are dropped, as in training.

        Args:
            labels: (n,) class indices; read off `train_dataset` if not given.
            n_classes: C; default `config.num_labels` of the model.
            method: "auto", "xrm", "trunk" or "kfold"; see `unrote.held_out_logits`.
            recipe: how the model itself is trained; default `recipe_of` the training arguments.
            progress: whether to show a progress bar.

        Returns:
            (n, C) on the CPU, in the order of `train_dataset`.

        Raises:
            OptionError: if there is no `model_init`, or it is not known how many classes there are.
            DataError: if there is no training data set with one label per example.
        """
        if self.model_init is None:
            raise OptionError("held-out logits need fresh models: pass model_init= instead of model=")
        n_classes = n_classes or getattr(getattr(self.model, "config", None), "num_labels", None)
        if n_classes is None:
            raise OptionError("the model has no config.num_labels: pass n_classes=")
        dataset = self._indexable()
        keys = (*self.label_names, *_LABELS)
        # the very collator of training, which may want the labels; the models are not to see them
        collator = self._get_collator_with_removed_columns(self.data_collator, description="held-out")

        def collate(items: list[Any]) -> dict[str, Tensor]:
            return {key: value for key, value in collator(items).items() if key not in keys}

        return held_out_logits(
            self.call_model_init,
            dataset,
            n_classes=n_classes,
            labels=_read_labels(dataset, keys) if labels is None else labels,
            method=method,
            recipe=recipe or recipe_of(self.args),
            collate=collate,
            workers=self.args.dataloader_num_workers,
            device=self.args.device,
            seed=self.args.seed,
            progress=progress,
        )

    def get_train_dataloader(self) -> DataLoader[Any]:
        """The training minibatches of `Trainer`, each with the index of its examples.

        Raises:
            OptionError: if there is no shift yet.
            DataError: if the training data set cannot be read by index, or does not fit the shift.
        """
        dataset, collator = self._indexable(), self.data_collator
        if self.shift is None:
            raise OptionError(
                "no shift: set trainer.shift = unrote.mat_shift(trainer.held_out_logits(), labels, temperature)"
            )
        if len(dataset) != len(self.shift):
            raise DataError(
                f"the shift has {len(self.shift)} rows, train_dataset {len(dataset)} examples: "
                "they must be the same examples in the same order"
            )
        # for the time of this call only, as evaluation has no index
        self._set_signature_columns_if_needed()
        columns = self._signature_columns
        self.train_dataset, self.data_collator = IndexedDataset(dataset), IndexedCollate(collator)
        self._signature_columns = [*(columns or ()), INDEX]  # type: ignore[assignment]  # None only at first
        try:
            return super().get_train_dataloader()
        finally:
            self.train_dataset, self.data_collator, self._signature_columns = dataset, collator, columns

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """See `Trainer.compute_loss`; the index is taken off the inputs first.

        Raises:
            DataError: if the model is being trained on a minibatch without an index or labels.
        """
        index = inputs.pop(INDEX, None)
        self._index = index if model.training else None
        if model.training and self._index is None:
            raise DataError(
                "a training minibatch has no index: a get_train_dataloader of your own should wrap its data set "
                "in unrote.IndexedDataset and its collator in unrote.IndexedCollate"
            )
        if model.training and "labels" not in inputs:
            raise DataError("a training minibatch has no 'labels': MAT trains on one class index per example")
        return super().compute_loss(model, inputs, *args, **kwargs)

    def _loss(self, outputs: Any, labels: Any, num_items_in_batch: Any = None) -> Tensor:
        logits = outputs["logits"] if isinstance(outputs, Mapping) else outputs[0]
        if self._index is None or self._mat_loss is None:
            losses = F.cross_entropy(logits, labels, reduction="none")
        else:
            losses = self._mat_loss(logits, labels, self._index)
        return losses.mean() if num_items_in_batch is None else losses.sum() / num_items_in_batch

    def _indexable(self) -> Any:
        """The training data set.

        Raises:
            DataError: if there is none, or it cannot be read by index.
        """
        dataset = self.train_dataset
        if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
            raise DataError(
                f"train_dataset is a {type(dataset).__name__}: a data set with a length, whose items can be "
                "read by index, is wanted"
            )
        return dataset


def recipe_of(args: TrainingArguments) -> Recipe:
    """A recipe for held-out models after the training arguments.

    AdamW with their learning rate, weight decay, effective batch size and length, rounded up to whole epochs.
    The rate stays constant and gradients are not clipped, so give a recipe of your own where those matter.
    """
    return Recipe(
        "adamw",
        args.learning_rate,
        args.weight_decay,
        batch_size=args.train_batch_size * args.gradient_accumulation_steps * args.world_size,
        epochs=None if args.max_steps > 0 else math.ceil(args.num_train_epochs),
        steps=args.max_steps if args.max_steps > 0 else None,
    )


def _read_labels(dataset: Any, keys: Sequence[str]) -> Int[Tensor, " n"]:
    """The labels of a data set, under the first of the keys that its items have.

    Raises:
        DataError: if they have none of them, or what is there is not a class index.
    """
    first = dataset[0]
    key = next((key for key in keys if isinstance(first, Mapping) and key in first), None)
    if key is None:
        raise DataError(
            f"items of train_dataset have none of {', '.join(keys)}: name the labels so, or pass labels="
        )
    # a table knows its columns, and need not tokenise every row for the sake of the label
    columns = getattr(dataset, "column_names", None) or ()
    values = dataset[key] if key in columns else (dataset[i][key] for i in range(len(dataset)))
    return class_indices(values)

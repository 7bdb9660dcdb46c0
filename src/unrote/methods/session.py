"""What a method is given: the task as its annotation regime shows it, models, a recipe, a seed.

A session makes what several methods need (twins, held-out logits, an ERM reference, inferred groups) once, and
knows how to train, save and resume each stage of a run.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from unrote.checkpoint import Checkpoints, content_hash
from unrote.data import Split, Task
from unrote.errors import OptionError
from unrote.heldout import (
    HeldOut,
    XRMResult,
    alo,
    begun,
    default_twins,
    infer_environments,
    kfold,
    precomputed,
    shorter_for_twins,
    stands_on_trunk,
    trunk,
    trunk_recipe,
    xrm,
)
from unrote.models import Processes, Stack, StackBuilder
from unrote.seeding import derive_seed
from unrote.supervision import Supervision
from unrote.training import (
    EarlyStopping,
    Evaluate,
    Objective,
    Recipe,
    Supervised,
    TrainingResult,
    processes_of,
    train,
)

Made = TypeVar("Made")

GroupSource = Literal["true", "xrm", "eiil"]
"""Whose groups a method that needs them gets: annotated ones, or inferred ones."""

EIIL_SHARE = 0.1
"""Share of the recipe that EIIL's reference model trains for: too short to learn more than the shortcut."""

HeldOutSource = Literal["auto", "xrm", "trunk", "kfold", "alo"] | HeldOut | np.ndarray | Tensor
"""How held-out logits are made, or the logits (or probabilities) themselves, (n, C)."""


@dataclass(frozen=True)
class Groups:
    """Groups of one split, true or inferred.

    Args:
        attribute: (n,) attribute of each example, from 0 to `n_attributes` - 1.
        index: (n,) group of each example, y * n_attributes + attribute.
        n_attributes: number of attribute values.
        count: number of groups, those without examples included.
    """

    attribute: Int[Tensor, " n"]
    index: Int[Tensor, " n"]
    n_attributes: int
    count: int

    @property
    def size(self) -> Int[Tensor, " G"]:
        """Number of examples in each group."""
        return torch.bincount(self.index, minlength=self.count)


@dataclass(frozen=True)
class _Kind:
    """What the models are."""

    heads: bool
    learns_features: bool
    stands_on_trunk: bool
    processes: Processes | None


@dataclass
class Session:
    """What a method is given: the task as its annotation regime shows it, and how to train.

    Args:
        task: attributes outside the regime are gone, not masked.
        build: makes stacks of models for the task.
        recipe: how the final model is trained.
        seed: of everything random.
        order_seed: of the minibatch order of models trained for the method; None takes `seed`. Runs that may
            train as one stack share it, so that a run's order does not depend on which runs its neighbours are.
        groups: whose groups methods that need them get: "true" ones, or those inferred by "xrm" or "eiil".
        sample_weight: (n,) multiplies the loss of each training example, in the models behind held-out logits
            too; None weighs all the same.
        held_out_recipe: how the models behind held-out logits are trained; None takes `recipe` (see `twin_recipe`).
        evaluate: scores the final model while it trains; None scores nothing.
        evaluate_every: steps between evaluations; default once an epoch.
        early_stopping: which metric chooses the parameters that are kept.
        checkpoint_folder: where each stage saves and resumes; None saves nothing.
        checkpoint_every: steps between checkpoints; None saves every 30 seconds.
        progress: whether to show progress bars.
        artefacts: what was made on the way (twins, held-out logits, shifts), by name; made once per session.
    """

    task: Task
    build: StackBuilder
    recipe: Recipe
    seed: int = 0
    order_seed: int | None = None
    groups: GroupSource = "true"
    sample_weight: Float[Tensor, " n"] | None = None
    held_out_recipe: Recipe | None = None
    evaluate: Evaluate | None = None
    evaluate_every: int | None = None
    early_stopping: EarlyStopping | None = None
    checkpoint_folder: Path | None = None
    checkpoint_every: int | None = None
    progress: bool = False
    artefacts: dict[str, Any] = field(default_factory=dict)

    @property
    def y(self) -> Int[Tensor, " n"]:
        """Training labels."""
        return self.task.train.y

    @property
    def validation(self) -> Split:
        """The validation split.

        Raises:
            OptionError: if the task has none.
        """
        if self.task.validation is None:
            raise OptionError(f"task {self.task.name!r} has no validation split, which this method needs")
        return self.task.validation

    def train(
        self,
        objective: Objective,
        *,
        stage: str = "train",
        settings: Mapping[str, Any] | None = None,
        members: int | Sequence[int] = 1,
        recipe: Recipe | None = None,
        x: Any = None,
        sampling: Float[Tensor, " n"] | None = None,
        start: Stack | None = None,
    ) -> TrainingResult:
        """Train models on an objective, as the session says.

        Args:
            objective: what is minimised.
            stage: name of this training among those of the run; the last is "train", which alone is evaluated.
            settings: whatever decides the outcome beside task, recipe and seed, for the checkpoint's identity.
            members: how many models, or a seed for each.
            recipe: how to train; default the session's.
            x: examples; default the training split's.
            sampling: (n,) draws examples with replacement in proportion to it.
            start: trained models whose parameters these begin with, as many; default fresh ones.
        """
        seeds = (
            [derive_seed(self.seed, "model", m) for m in range(members)]
            if isinstance(members, int)
            else members
        )
        recipe, final = recipe or self.recipe, stage == "train"
        if self.sample_weight is not None and x is None:
            objective = objective.with_weight(self.sample_weight)
        stack = self.build(seeds)
        if start is not None:
            stack.load_state_dict(start.state_dict())
        return train(
            stack,
            self.task.train.x if x is None else x,
            objective,
            recipe,
            seed=derive_seed(self.seed if self.order_seed is None else self.order_seed, "order", stage),
            sampling=sampling,
            evaluate=self.evaluate if final else None,
            evaluate_every=self.evaluate_every,
            early_stopping=self.early_stopping if final else None,
            checkpoints=self.checkpoints(stage, recipe, settings or {}),
            progress=stage if self.progress else None,
        )

    def _once(self, name: str, make: Callable[[], Made]) -> Made:
        """The artefact of that name, made if it is not there yet."""
        if name not in self.artefacts:
            self.artefacts[name] = make()
        made: Made = self.artefacts[name]
        return made

    def erm(self, share: float = 1.0) -> TrainingResult:
        """An ERM model trained for a share of the recipe's steps; once per session and share."""
        name, recipe = f"erm-{share:g}", self.recipe.shortened(share)
        return self._once(
            name, lambda: self.train(Supervised(Supervision(self.y)), stage=name, recipe=recipe)
        )

    def held_out(self, source: HeldOutSource = "auto") -> HeldOut:
        """Held-out logits of the training examples; made once per session.

        Args:
            source: "auto" is "xrm" where the examples are features already, or XRM's twins are at hand, else "trunk",
                unless its heads know too little and networks more (`default_twins`).

        Raises:
            OptionError: if `source` is neither one of those named nor an array.
        """
        if isinstance(source, HeldOut):
            return source
        if not isinstance(source, str):
            return precomputed(source, len(self.y), self.task.n_classes)
        sources: dict[str, Callable[[], HeldOut]] = {
            "auto": lambda: self._twins().held_out(),
            "xrm": lambda: self.xrm().held_out(),
            "trunk": lambda: self._trunk().held_out(),
            "kfold": self._kfold,
            "alo": self._alo,
        }
        if source not in sources:
            raise OptionError(
                f"held_out={source!r}: {', '.join(map(repr, sources))} or an (n, C) array is wanted"
            )
        return sources[source]()

    def _alo(self) -> HeldOut:
        x, n_classes = self.task.train.x, self.task.n_classes
        return self._once("alo", lambda: alo(x, self.y, n_classes, weight=self.sample_weight))

    def _kfold(self) -> HeldOut:
        recipe = self.held_out_recipe or self.recipe
        return self._once(
            "kfold",
            lambda: kfold(
                self.task.train.x,
                self.y,
                self.build,
                recipe,
                seed=self.seed,
                weight=self.sample_weight,
                checkpoints=self.checkpoints("kfold", recipe, {}),
                progress="held-out: k-fold" if self.progress else None,
            ),
        )

    def _twins(self) -> XRMResult:
        """XRM's twins: those at hand, else heads or models of the model's own kind; the same each time."""
        at_hand = "xrm" in self.artefacts and "trunk" not in self.artefacts
        heads = self._trunk if self._kind.stands_on_trunk and not at_hand else None
        return default_twins(heads, self.xrm, self._kind.processes)

    def _trunk(self) -> XRMResult:
        recipe = trunk_recipe(len(self.y))
        return self._once(
            "trunk",
            lambda: trunk(
                self.task.train.x,
                self.y,
                self._begun(),
                n_classes=self.task.n_classes,
                seed=self.seed,
                recipe=recipe,
                weight=self.sample_weight,
                validation=self._labelled_validation,
                checkpoints=self.checkpoints("trunk", recipe, {}),
                progress="held-out: twins on the trunk" if self.progress else None,
            ),
        )

    def _begun(self) -> Stack:
        """A network that has begun to learn."""
        recipe = self.held_out_recipe or self.recipe
        return begun(
            self.task.train.x,
            self.y,
            self.build,
            recipe,
            n_classes=self.task.n_classes,
            seed=self.seed,
            weight=self.sample_weight,
            checkpoints=self.checkpoints("begun", recipe, {}),
            progress="held-out: the network begins" if self.progress else None,
        )

    @property
    def _labelled_validation(self) -> tuple[Any, Int[Tensor, " m"]] | None:
        validation = self.task.validation
        return None if validation is None else (validation.x, validation.y)

    @cached_property
    def _kind(self) -> _Kind:
        stack = self.build([0])  # made for this alone, and not kept
        return _Kind(stack.computes_all, stack.learns_features, stands_on_trunk(stack), processes_of(stack))

    @property
    def heads(self) -> bool:
        """Whether the models are heads on features, which train as one stack in little time."""
        return self._kind.heads

    @cached_property
    def twin_recipe(self) -> Recipe:
        """How twins are trained: `held_out_recipe`, else as the final model, if features are learned half as long."""
        if self.held_out_recipe is not None:
            return self.held_out_recipe
        return shorter_for_twins(self.recipe, len(self.y)) if self._kind.learns_features else self.recipe

    def xrm(self) -> XRMResult:
        """XRM's twins on the training and validation examples; trained once per session."""
        recipe = self.twin_recipe
        return self._once(
            "xrm",
            lambda: xrm(
                self.task.train.x,
                self.y,
                self.build,
                recipe,
                n_classes=self.task.n_classes,
                seeds=[self.seed],
                weight=self.sample_weight,
                validation=self._labelled_validation,
                checkpoints=self.checkpoints("xrm", recipe, {}),
                progress="held-out: XRM twins" if self.progress else None,
            ),
        )

    def training_groups(self) -> Groups:
        """Groups of the training examples: true, or inferred if the session says so."""
        return self._groups(self.task.train, 0)

    def validation_groups(self) -> Groups:
        """Groups of the validation examples: true, or inferred if the session says so."""
        return self._groups(self.validation, 1)

    def _groups(self, split: Split, which: Literal[0, 1]) -> Groups:
        if self.groups == "true":
            attribute, n_attributes = split.attribute, self.task.n_attributes
        else:
            attribute, n_attributes = self._inferred()[which], 2
        index = split.y * n_attributes + attribute
        return Groups(attribute, index, n_attributes, self.task.n_classes * n_attributes)

    def _inferred(self) -> tuple[Int[Tensor, " n"], Int[Tensor, " m"]]:
        """Inferred attributes of training and validation examples."""
        if self.groups == "xrm":
            twins = self.xrm()
            empty = twins.mistakes.new_zeros(0)
            checked = twins.validation_mistakes
            return twins.mistakes[twins.best], empty if checked is None else checked[twins.best]
        return self._once("eiil", self._inferred_by_eiil)

    def _inferred_by_eiil(self) -> tuple[Int[Tensor, " n"], Int[Tensor, " m"]]:
        reference = self.erm(EIIL_SHARE).stack
        splits = [split for split in (self.task.train, self.task.validation) if split is not None]
        inferred = [infer_environments(reference.predict(split.x)[0], split.y) for split in splits]
        return inferred[0], inferred[-1]

    def checkpoints(self, stage: str, recipe: Recipe, settings: Mapping[str, Any]) -> Checkpoints | None:
        """Where one stage of the run saves, identified by everything that decides its outcome."""
        if self.checkpoint_folder is None:
            return None
        weight = self.sample_weight
        identity = {
            **({} if weight is None else {"sample_weight": content_hash(weight.numpy().tobytes())}),
            **({} if self.order_seed is None else {"order_seed": self.order_seed}),
            "task": self.task.name,
            "data": self.task.fingerprint(),
            "model": self._model,
            "stage": stage,
            "seed": self.seed,
            "groups": self.groups,
            "recipe": recipe.described(),
            **settings,
        }
        return Checkpoints(self.checkpoint_folder / stage, identity, every=self.checkpoint_every)

    @cached_property
    def _model(self) -> str:
        """Hash of what the model is: layers and their settings, shapes of parameters."""
        stack = self.build([0])
        shapes = {name: tuple(value.shape) for name, value in stack.state_dict().items()}
        return content_hash(f"{stack} {shapes}".encode())

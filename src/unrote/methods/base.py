"""What a method is, and what it is given.

A method is a frozen dataclass: its fields are its hyper-parameters. It gets a `Session` (task, models, recipe,
seed) and gives back a `Fitted`. Most methods only decide what training tells the loss, and are a
`SupervisionMethod` of a few lines.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from unrote.checkpoint import Checkpoints
from unrote.data import Regime, Task
from unrote.errors import OptionError
from unrote.heldout import HeldOut, XRMResult, kfold, precomputed, xrm
from unrote.models import Stack, StackBuilder
from unrote.registry import Registry
from unrote.seeding import derive_seed
from unrote.supervision import Supervision
from unrote.training import (
    EarlyStopping,
    Evaluate,
    Objective,
    Recipe,
    Supervised,
    TrainingResult,
    train,
)

HeldOutSource = Literal["xrm", "kfold"] | HeldOut | np.ndarray | Tensor
"""How held-out logits are made, or the logits (or probabilities) themselves, (n, C)."""


@dataclass
class Session:
    """What a method is given: the task as its annotation regime shows it, and how to train.

    Args:
        task: attributes outside the regime are gone, not masked.
        build: makes stacks of models for the task.
        recipe: how the final model is trained.
        seed: of everything random.
        held_out_recipe: how the models behind held-out logits are trained; None takes `recipe`.
        evaluate: scores the final model while it trains; None scores nothing.
        evaluate_every: steps between evaluations; default once an epoch.
        early_stopping: which metric chooses the parameters that are kept.
        checkpoint_folder: where each stage saves and resumes; None saves nothing.
        checkpoint_every: steps between checkpoints; None saves every 30 seconds.
        progress: whether to show progress bars.
    """

    task: Task
    build: StackBuilder
    recipe: Recipe
    seed: int = 0
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

    def train(self, method: "Method", objective: Objective, **options: Any) -> "Fitted":
        """Train one model on an objective, as the session says.

        Args:
            method: whose run this is, for the checkpoint's identity.
            objective: what is minimised.
            **options: passed on to `unrote.training.train`.
        """
        stack = self.build([derive_seed(self.seed, "model")])
        result = train(
            stack,
            self.task.train.x,
            objective,
            self.recipe,
            seed=derive_seed(self.seed, "order"),
            evaluate=self.evaluate,
            evaluate_every=self.evaluate_every,
            early_stopping=self.early_stopping,
            checkpoints=self.checkpoints("train", {"method": method.name, **method.settings()}),
            progress=f"{method.name}: training" if self.progress else None,
            **options,
        )
        return Fitted(method, result, dict(self.artefacts))

    def held_out(self, source: HeldOutSource = "xrm") -> HeldOut:
        """Held-out logits of the training examples; made once per session and kept in its artefacts.

        Raises:
            OptionError: if `source` is neither "xrm", "kfold" nor an array.
        """
        if isinstance(source, HeldOut):
            return source
        if not isinstance(source, str):
            return precomputed(source, len(self.y), self.task.n_classes)
        if source == "xrm":
            return self.xrm().held_out()
        if source != "kfold":
            raise OptionError(f"held_out={source!r}: 'xrm', 'kfold' or an (n, C) array is wanted")
        if "kfold" not in self.artefacts:
            self.artefacts["kfold"] = kfold(
                self.task.train.x,
                self.y,
                self.build,
                self.held_out_recipe or self.recipe,
                seed=self.seed,
                checkpoints=self.checkpoints("kfold", {}),
                progress="held-out: k-fold" if self.progress else None,
            )
        result: HeldOut = self.artefacts["kfold"]
        return result

    def xrm(self) -> XRMResult:
        """XRM's twins on the training and validation examples; trained once per session."""
        if "xrm" not in self.artefacts:
            validation = self.task.validation
            self.artefacts["xrm"] = xrm(
                self.task.train.x,
                self.y,
                self.build,
                self.held_out_recipe or self.recipe,
                n_classes=self.task.n_classes,
                seeds=[self.seed],
                validation=None if validation is None else (validation.x, validation.y),
                checkpoints=self.checkpoints("xrm", {}),
                progress="held-out: XRM twins" if self.progress else None,
            )
        result: XRMResult = self.artefacts["xrm"]
        return result

    def checkpoints(self, stage: str, settings: Mapping[str, Any]) -> Checkpoints | None:
        """Where one stage of the run saves, identified by everything that decides its outcome."""
        if self.checkpoint_folder is None:
            return None
        recipe = self.recipe if stage == "train" else self.held_out_recipe or self.recipe
        identity = {
            "task": self.task.name,
            "data": self.task.fingerprint(),
            "stage": stage,
            "seed": self.seed,
            "recipe": asdict(recipe),
            **settings,
        }
        return Checkpoints(self.checkpoint_folder / stage, identity, every=self.checkpoint_every)


@dataclass
class Fitted:
    """A trained classifier.

    Args:
        method: what trained it.
        training: stack, history, best steps.
        artefacts: what the method made on the way, by name ("xrm", "shift", ...).
    """

    method: "Method"
    training: TrainingResult
    artefacts: dict[str, Any]

    @property
    def stack(self) -> Stack:
        """The trained model, a stack of one."""
        return self.training.stack

    def logits(self, x: Any) -> Float[Tensor, "n C"]:
        """Logits of examples, without any shift."""
        return self.stack.predict(x)[0]

    def predict(self, x: Any) -> Int[Tensor, " n"]:
        """Predicted class of examples."""
        return self.logits(x).argmax(-1)


class Method(ABC):
    """A way to train a classifier; subclasses are frozen dataclasses whose fields are hyper-parameters."""

    name: ClassVar[str]
    needs: ClassVar[Regime]
    reference: ClassVar[str]

    @abstractmethod
    def fit(self, session: Session) -> Fitted:
        """Train on the session's task."""

    def settings(self) -> dict[str, Any]:
        """Hyper-parameters, JSON-ready; arrays by their shape and sum."""
        return {name: _describe(getattr(self, name)) for name in getattr(self, "__dataclass_fields__", {})}


class SupervisionMethod(Method):
    """A method that fixes target, weight and shift before training and leaves the loop alone."""

    @abstractmethod
    def supervision(self, session: Session) -> Supervision:
        """What training tells the loss about each example."""

    def fit(self, session: Session) -> Fitted:
        """Train on the session's task."""
        supervision = self.supervision(session)
        stack_device = session.build([0]).device
        return session.train(self, Supervised(supervision.to(stack_device)))


def _describe(value: Any) -> Any:
    if isinstance(value, HeldOut):
        value = value.logits
    if isinstance(value, (np.ndarray, Tensor)):
        return {"shape": list(value.shape), "sum": float(torch.as_tensor(value).double().sum())}
    return value


METHODS: Registry[type[Method]] = Registry("method", "unrote.methods")

AnyMethod = TypeVar("AnyMethod", bound=type[Method])


def register(name: str, *, needs: Regime, reference: str) -> Callable[[AnyMethod], AnyMethod]:
    """Register a method in its own file.

    Args:
        name: as users give it.
        needs: the weakest annotation regime it can run in.
        reference: paper and arXiv number.
    """

    def add(method: AnyMethod) -> AnyMethod:
        method.name, method.needs, method.reference = name, needs, reference
        METHODS.add(name, method)
        return method

    return add

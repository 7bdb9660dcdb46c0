"""What a method is.

A method is a frozen dataclass: its fields are its hyper-parameters. It gets a `Session` (task, models, recipe,
seed) and gives back a `Fitted`. Most methods only decide what training tells the loss, and are a
`SupervisionMethod` of a few lines.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from unrote.data import Regime
from unrote.heldout import HeldOut
from unrote.methods.session import Session
from unrote.models import Stack
from unrote.registry import Registry
from unrote.seeding import derive_seed
from unrote.supervision import Supervision
from unrote.training import Supervised, TrainingResult


@dataclass
class Fitted:
    """A trained classifier.

    Args:
        method: what trained it.
        training: stack of one, history, best steps.
        artefacts: what was made on the way, by name ("xrm", "shift", ...).
    """

    stack_alone: ClassVar[bool] = True
    """Whether the stack alone gives the logits; not so where an ensemble or a memory stands on its features."""

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
    uses_groups: ClassVar[bool]
    reference: ClassVar[str]

    @abstractmethod
    def fit(self, session: Session) -> Fitted:
        """Train on the session's task."""

    @classmethod
    def fit_many(cls, methods: Sequence["Method"], sessions: Sequence[Session]) -> list[Fitted]:
        """Train several configurations; one after the other, where the method has no faster way."""
        return [method.fit(session) for method, session in zip(methods, sessions, strict=True)]

    def settings(self) -> dict[str, Any]:
        """Name and hyper-parameters, JSON-ready; arrays by their shape and sum."""
        fields = getattr(self, "__dataclass_fields__", {})
        return {"method": self.name, **{name: _describe(getattr(self, name)) for name in fields}}

    def fitted(self, session: Session, result: TrainingResult, member: int = 0) -> Fitted:
        """The classifier that one member of a trained stack is."""
        if result.stack.n_members > 1:
            history = [
                {name: [v[member]] if isinstance(v, list) else v for name, v in record.items()}
                for record in result.history
            ]
            rows = slice(member, member + 1)
            stack = result.stack.select([member])
            result = TrainingResult(stack, history, result.best_step[rows], result.diverged_at[rows])
        return Fitted(self, result, dict(session.artefacts))


class SupervisionMethod(Method):
    """A method that fixes target, weight and shift before training and leaves the loop alone.

    Many configurations train as one stack.
    """

    @abstractmethod
    def supervision(self, session: Session) -> Supervision:
        """What training tells the loss about each example."""

    def fit(self, session: Session) -> Fitted:
        """Train on the session's task."""
        result = session.train(Supervised(self.supervision(session)), settings=self.settings())
        return self.fitted(session, result)

    @classmethod
    def fit_many(cls, methods: Sequence[Method], sessions: Sequence[Session]) -> list[Fitted]:
        """Train configurations of one task, seed and length as one stack, each with its own rates.

        Members share the minibatch order of the first session, so a member's result differs from that of
        `fit` by no more than another order of the examples would change it.
        """
        first = sessions[0]
        each = [
            method.supervision(session)
            for method, session in zip(methods, sessions, strict=True)
            if isinstance(method, SupervisionMethod)
        ]
        recipe = replace(
            first.recipe,
            learning_rate=tuple(session.recipe.per_member("learning_rate", 1)[0] for session in sessions),
            weight_decay=tuple(session.recipe.per_member("weight_decay", 1)[0] for session in sessions),
        )
        result = first.train(
            Supervised(Supervision.stack(each)),
            settings={"members": [method.settings() for method in methods]},
            members=[derive_seed(session.seed, "model", 0) for session in sessions],
            recipe=recipe,
        )
        pairs = enumerate(zip(methods, sessions, strict=True))
        return [method.fitted(session, result, member) for member, (method, session) in pairs]


def _describe(value: Any) -> Any:
    if isinstance(value, HeldOut):
        value = value.logits
    if isinstance(value, (np.ndarray, Tensor)):
        return {"shape": list(value.shape), "sum": float(torch.as_tensor(value).double().sum())}
    return value


METHODS: Registry[type[Method]] = Registry("method", "unrote.methods")

AnyMethod = TypeVar("AnyMethod", bound=type[Method])


def register(
    name: str, *, needs: Regime, reference: str, uses_groups: bool | None = None
) -> Callable[[AnyMethod], AnyMethod]:
    """Register a method in its own file.

    Args:
        name: as users give it.
        needs: the weakest annotation regime it can run in with true groups.
        reference: paper and arXiv number.
        uses_groups: whether it can run on inferred groups too; default whether it needs any.
    """

    def add(method: AnyMethod) -> AnyMethod:
        method.name, method.needs, method.reference = name, needs, reference
        method.uses_groups = needs != "none" if uses_groups is None else uses_groups
        METHODS.add(name, method)
        return method

    return add

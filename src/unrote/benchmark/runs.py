"""One run: everything that decides its outcome, and the key it is stored under."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal

from unrote._version import __version__
from unrote.checkpoint import content_hash
from unrote.data import Regime
from unrote.methods import METHODS, GroupSource, Method
from unrote.training import Recipe

Kind = Literal["twins", "method"]

SHARED_ORDER = 0
"""The minibatch order of all runs that may share one. Constant, so that a run does not depend on its neighbours."""

STACKED_MODELS = ("linear", "mlp")
"""Models whose members train as one matrix product; of others a stack is a list, with nothing gained."""

# what can change an outcome; not how runs are planned, kept and shown
_CODE = ("supervision", "seeding", "shift", "data", "models", "training", "heldout", "methods")


@dataclass(frozen=True)
class Run:
    """One training run of the protocol.

    Args:
        kind: "twins" (XRM) or "method".
        label: of the task in the spec.
        task: its name, options and fingerprint.
        model: name of the model.
        recipe: fields of the recipe, one learning rate and one weight decay.
        evaluate_every: steps between evaluations; None evaluates once an epoch.
        method: its name; "xrm" for twins.
        settings: its hyper-parameters.
        groups: whose groups the method gets.
        regime: what of the group labels the training may see.
        seed: of everything random but the shared order.
        order_seed: of the minibatch order; None is an order of the run's own.
        twins: key of the run whose twins it uses; None if it uses none.
        code: version of the code.
    """

    kind: Kind
    label: str
    task: Mapping[str, Any]
    model: str
    recipe: Mapping[str, Any]
    evaluate_every: int | None
    method: str
    settings: Mapping[str, Any]
    groups: GroupSource
    regime: Regime
    seed: int
    order_seed: int | None
    twins: str | None
    code: str

    @cached_property
    def key(self) -> str:
        """Hash of everything that decides the outcome; the label is but a name."""
        identity = {name: value for name, value in asdict(self).items() if name != "label"}
        return content_hash(json.dumps(identity, sort_keys=True).encode())

    @cached_property
    def neighbours(self) -> str:
        """What runs must agree on to train as one stack."""
        own = {"settings", "seed", "twins"}
        shared = {name: value for name, value in asdict(self).items() if name not in own}
        rates = ("learning_rate", "weight_decay")
        shared["recipe"] = {name: value for name, value in self.recipe.items() if name not in rates}
        return json.dumps(shared, sort_keys=True)

    @property
    def stacks(self) -> bool:
        """Whether many such runs train as one."""
        return self.order_seed is not None

    def made_recipe(self) -> Recipe:
        """The recipe itself."""
        return Recipe(**self.recipe)

    def configuration(self) -> dict[str, Any]:
        """What the search varies, for people."""
        rates = {name: self.recipe[name] for name in ("learning_rate", "weight_decay")}
        return {**rates, **self.settings}

    def to_json(self) -> str:
        """For the store, and for another process."""
        return json.dumps(asdict(self), sort_keys=True)

    @staticmethod
    def from_json(text: str) -> "Run":
        """What `to_json` wrote."""
        return Run(**json.loads(text))


def can_stack(method: str, model: str) -> bool:
    """Whether many configurations of a method train as one stack on a model."""
    if model not in STACKED_MODELS:
        return False
    return method == "xrm" or METHODS[method].fit_many.__func__ is not Method.fit_many.__func__  # type: ignore[attr-defined]


def chunks(runs: Iterable[Run], limit: int) -> list[list[Run]]:
    """Runs that train as one stack, together; the order of runs decides which.

    Args:
        runs: without repetition.
        limit: members of one stack, at most.
    """
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.neighbours if run.stacks else run.key, []).append(run)
    return [group[at : at + limit] for group in groups.values() for at in range(0, len(group), limit)]


@cache
def code_version() -> str:
    """The version, and a hash of the source that decides what a run gives."""
    package = Path(__file__).parents[1]
    digest = hashlib.blake2b(digest_size=6)
    for path in sorted(package.rglob("*.py")):
        name = path.relative_to(package).with_suffix("").parts
        if name[0] in _CODE or name == ("benchmark", "execution"):
            digest.update("/".join(name).encode() + b"\0" + path.read_bytes())
    return f"{__version__}+{digest.hexdigest()}"

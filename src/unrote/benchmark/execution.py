"""Runs carried out: trained, looked at as they train, and written down. Nothing here knows of search or selection.

The training sees the task as its annotation regime shows it. The looks are taken by whoever holds the whole task:
they count right answers per group, of validation and test split, for selection and table to read what they may.
"""

import json
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from safetensors.torch import load as load_tensors
from safetensors.torch import save as dump_tensors
from torch import Tensor

from unrote.api import make_method
from unrote.benchmark.runs import Run
from unrote.data import Split, Task
from unrote.errors import DivergedError
from unrote.heldout import XRMResult, xrm
from unrote.methods import Fitted, Method, Session, SupervisionMethod
from unrote.models import Stack, stack_builder

Status = Literal["done", "diverged", "failed"]


@dataclass(frozen=True)
class Outcome:
    """What came of a run.

    Args:
        key: of the run.
        status: "done", "diverged" (its loss left the finite numbers) or "failed" (it raised).
        result: JSON-ready: looks and counts, or the twins' flip rate; None if it failed.
        error: what it raised.
        seconds: its share of the time its stack took.
        artefact: held-out logits and inferred groups of twins.
    """

    key: str
    status: Status
    result: dict[str, Any] | None = None
    error: str | None = None
    seconds: float = 0.0
    artefact: bytes | None = None


def execute(runs: Sequence[Run], task: Task, twins: Mapping[str, bytes]) -> list[Outcome]:
    """Carry out runs that may train as one stack; what fails is an outcome too.

    Args:
        runs: all of the same neighbours.
        task: with all its group labels.
        twins: artefacts by key, of those the runs use.
    """
    carry_out = _train_twins if runs[0].kind == "twins" else _train_methods
    start = time.perf_counter()
    try:
        outcomes = carry_out(runs, task, twins)
    except Exception as error:
        if len(runs) > 1:  # one of them spoils the stack: each by itself tells which
            return [outcome for run in runs for outcome in execute([run], task, twins)]
        status: Status = "diverged" if isinstance(error, DivergedError) else "failed"
        text = "".join(traceback.format_exception(error)).strip()
        outcomes = [Outcome(runs[0].key, status, error=f"{type(error).__name__}: {error}\n\n{text}")]
    share = (time.perf_counter() - start) / len(runs)
    return [replace(outcome, seconds=share) for outcome in outcomes]


def _train_twins(runs: Sequence[Run], task: Task, twins: Mapping[str, bytes]) -> list[Outcome]:
    first, seen = runs[0], task.for_regime("none")
    validation = seen.validation
    recipe = replace(
        first.made_recipe(),
        learning_rate=tuple(float(run.recipe["learning_rate"]) for run in runs),
        weight_decay=tuple(float(run.recipe["weight_decay"]) for run in runs),
    )
    result = xrm(
        seen.train.x,
        seen.train.y,
        stack_builder(first.model, seen.train.x.shape, seen.n_classes),
        recipe,
        n_classes=seen.n_classes,
        seeds=[run.seed for run in runs],
        order_seed=first.order_seed,
        evaluate=None if validation is None else lambda stack: {"validation": _accuracy(stack, validation)},
        evaluate_every=first.evaluate_every,
        validation=None if validation is None else (validation.x, validation.y),
    )
    return [_twin_outcome(run, result, k) for k, run in enumerate(runs)]


def _accuracy(stack: Stack, split: Split) -> Float[Tensor, " S"]:
    return (stack.predict_classes(split.x) == split.y).float().mean(1)


def _twin_outcome(run: Run, result: XRMResult, k: int) -> Outcome:
    record = {
        "flip_rate": float(result.flip_rate[k]),
        "degenerate": bool(result.degenerate[k]),
        # of both twins, to see whether they learn at all
        "steps": [look["step"] for look in result.history],
        "validation": [
            look["validation"][2 * k : 2 * k + 2] for look in result.history if "validation" in look
        ],
    }
    if not bool(torch.isfinite(result.logits[k]).all()):
        return Outcome(run.key, "diverged", record, "a twin's parameters became NaN or infinite")
    kept = {
        "logits": result.logits[k].contiguous(),
        "assigned": result.assigned[k].contiguous(),
        "labels": result.labels[k].to(torch.int32).contiguous(),
        "mistakes": result.mistakes[k].bool(),
    }
    if result.validation_mistakes is not None:
        kept["validation_mistakes"] = result.validation_mistakes[k].bool()
    return Outcome(run.key, "done", record, artefact=dump_tensors(kept))


def read_twins(artefact: bytes, task: Task) -> XRMResult:
    """The twins of a finished run, without their models."""
    kept = load_tensors(artefact)
    checked = kept.get("validation_mistakes")
    return XRMResult(
        logits=kept["logits"].unsqueeze(0),
        assigned=kept["assigned"].unsqueeze(0),
        labels=kept["labels"].long().unsqueeze(0),
        y=task.train.y,
        mistakes=kept["mistakes"].long().unsqueeze(0),
        validation_mistakes=None if checked is None else checked.long().unsqueeze(0),
        validation_y=None if task.validation is None else task.validation.y,
    )


def _train_methods(runs: Sequence[Run], task: Task, twins: Mapping[str, bytes]) -> list[Outcome]:
    first = runs[0]
    methods = [make_method(run.method, **run.settings) for run in runs]
    found = {key: read_twins(artefact, task) for key, artefact in twins.items()}
    own = [found[run.twins] if run.twins is not None else None for run in runs]
    looks = Looks(task, own)
    seen = task.for_regime(first.regime)
    build = stack_builder(first.model, seen.train.x.shape, seen.n_classes)
    sessions = [
        Session(
            task=seen,
            build=build,
            recipe=run.made_recipe(),
            seed=run.seed,
            order_seed=run.order_seed,
            groups=run.groups,
            evaluate=looks,
            evaluate_every=first.evaluate_every,
            artefacts={} if mine is None else {"xrm": mine},
        )
        for run, mine in zip(runs, own, strict=True)
    ]
    kind = type(methods[0])
    fitted = kind.fit_many(methods, sessions) if len(runs) > 1 else [methods[0].fit(sessions[0])]
    return [
        _method_outcome(run, looks, member, one)
        for member, (run, one) in enumerate(zip(runs, fitted, strict=True))
    ]


def _method_outcome(run: Run, looks: "Looks", member: int, fitted: Fitted) -> Outcome:
    steps = [record for record in fitted.training.history if looks.keys <= record.keys()]
    if not _history_is_of_the_classifier(fitted):
        final = looks.of_classifier(fitted, member)
        end = fitted.training.history[-1]["step"] if fitted.training.history else 0
        if not steps or any(steps[-1][name][0] != value for name, value in final.items()):
            # its head was fitted after the training whose looks these are: only the end is of this classifier
            steps = [{"step": end, **{name: [value] for name, value in final.items()}}]
        elif len(steps) > 1 and steps[-2]["step"] == steps[-1]["step"]:
            steps = steps[-1:]
    diverged = int(fitted.training.diverged_at[0])
    result = {
        "steps": [record["step"] for record in steps],
        "right": {
            name: [[int(record[f"{name}/{g}"][0]) for g in range(len(n))] for record in steps]
            for name, n in looks.sizes(member).items()
        },
        "n": looks.sizes(member),
        "diverged_at": diverged,
    }
    if diverged >= 0:
        return Outcome(run.key, "diverged", result, f"the loss became NaN or infinite at step {diverged}")
    return Outcome(run.key, "done", result)


def _history_is_of_the_classifier(fitted: Fitted) -> bool:
    """Whether nothing is done to the model after the one training that was looked at."""
    kind = type(fitted.method)
    plain = kind.fit is SupervisionMethod.fit and kind.fitted is Method.fitted
    return plain and type(fitted) is Fitted


class Looks:
    """Counts right answers of every member, per group and class of validation and test split.

    Args:
        task: with all its group labels.
        twins: those whose inferred groups a member's validation examples are counted by, or None.
    """

    def __init__(self, task: Task, twins: Sequence[XRMResult | None]) -> None:
        self.splits = {n: s for n, s in task.splits.items() if n in ("validation", "test")}
        self.shared: dict[str, Float[Tensor, "m G"]] = {}
        for name, split in self.splits.items():
            self.shared[f"{name}.classes"] = _one_hot(split.y, task.n_classes)
            if (groups := group_membership(task, split)) is not None:
                self.shared[f"{name}.groups"] = groups
        self.inferred = [_inferred_groups(one, task) for one in twins]
        self._all_inferred: Tensor | None = None
        present = [one for one in self.inferred if one is not None]
        if present:
            # members without twins count in no group; a stack has either all or none of them
            empty = torch.zeros_like(present[0])
            self._all_inferred = torch.stack([empty if one is None else one for one in self.inferred])
        sizes = self.sizes(0)
        self.keys = {f"{name}/{g}" for name, n in sizes.items() for g in range(len(n))}

    def sizes(self, member: int) -> dict[str, list[int]]:
        """Examples in each subset, as a member sees them."""
        found = {name: of.sum(0).long().tolist() for name, of in self.shared.items()}
        if self._all_inferred is not None:
            found["validation.inferred"] = self._all_inferred[member].sum(0).long().tolist()
        return found

    def __call__(self, stack: Stack) -> dict[str, Float[Tensor, " S"]]:
        """Counts by "subsets/index", a number per member; the training loop's `evaluate`."""
        right = {name: stack.predict_classes(split.x) == split.y for name, split in self.splits.items()}
        return self._count(right, self._all_inferred)

    def of_classifier(self, fitted: Fitted, member: int) -> dict[str, float]:
        """The same counts of a finished classifier, whatever it is made of."""
        right = {n: (fitted.predict(s.x) == s.y).unsqueeze(0) for n, s in self.splits.items()}
        inferred = None if self._all_inferred is None else self._all_inferred[member : member + 1]
        return {name: float(value[0]) for name, value in self._count(right, inferred).items()}

    def _count(
        self, right: Mapping[str, Bool[Tensor, "S m"]], inferred: Float[Tensor, "S v I"] | None
    ) -> dict[str, Float[Tensor, " S"]]:
        found = {name: right[name.split(".")[0]].float() @ of for name, of in self.shared.items()}
        if inferred is not None:
            hits = right["validation"].float()
            if len(inferred) != len(hits):  # a method that trains a few models together, for one run
                inferred = inferred[:1].expand(len(hits), -1, -1)
            found["validation.inferred"] = torch.einsum("sv,svi->si", hits, inferred)
        return {
            f"{name}/{g}": column for name, hits in found.items() for g, column in enumerate(hits.unbind(1))
        }


def group_membership(task: Task, split: Split) -> Float[Tensor, "m G"] | None:
    """Which of the groups that a task is scored by each example is in; None where nobody annotated them."""
    if not split.has_attribute and split.membership is None:
        return None
    groups = task.scored_groups(split)
    return groups.float() if groups.ndim == 2 else _one_hot(groups, task.n_groups)


def _one_hot(index: Int[Tensor, " m"], size: int) -> Float[Tensor, "m G"]:
    return torch.nn.functional.one_hot(index, size).float()


def _inferred_groups(twins: XRMResult | None, task: Task) -> Float[Tensor, "v I"] | None:
    if twins is None or twins.validation_mistakes is None or task.validation is None:
        return None
    return _one_hot(2 * task.validation.y + twins.validation_mistakes[0], 2 * task.n_classes)


def dump_outcome(outcome: Outcome) -> str:
    """The result as JSON, for the store."""
    return json.dumps(outcome.result, allow_nan=False)

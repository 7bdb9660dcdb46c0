"""Training several methods on one task for a record: XRM's twins once for all, and curves by group."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from unrote.api import make_method
from unrote.data import Task
from unrote.errors import OptionError
from unrote.methods import Fitted, Method, Session
from unrote.models import stack_builder
from unrote.presets import DEFAULT, PRESETS
from unrote.record.curves import LOOKS, curve_evaluator
from unrote.record.groups import GroupView
from unrote.table_runs import method_for_tables, open_session
from unrote.tables import TableTask
from unrote.training import Recipe


@dataclass(frozen=True)
class Trained:
    """One method's classifier, and how it came about.

    Args:
        fitted: the classifier.
        regime: where group labels were used.
        training: recipe, model, seed and seconds, JSON-ready.
    """

    fitted: Fitted
    regime: str
    training: dict[str, Any]


def train_methods(
    data: Task | TableTask,
    methods: Sequence[str],
    *,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    model: str | None = None,
    recipe: Recipe | None = None,
    epochs: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> dict[str, Trained]:
    """Train methods on the same data, from the same seed, and write down accuracy by group as they go.

    XRM's twins are trained once, also where no method needs them: the record tells inferred groups by them.

    Args:
        data: a task, or one made of tables.
        methods: names; each once.
        settings: hyper-parameters, by method.
        model: "linear", "mlp" or "cnn"; default by the data.
        recipe: how to train; default by the data.
        epochs: passes over the training examples; default the recipe's.
        seed: of everything random.
        progress: whether to show progress bars.

    Raises:
        OptionError: if a method needs group labels that the data do not have, or none is named.
        UnknownNameError: if there is no such method or model.
    """
    if not methods:
        raise OptionError("no methods: name at least one, such as 'erm' or 'mat'")
    given = settings or {}
    for name in given:
        if name not in methods:
            raise OptionError(f"settings of {name!r}, which is not among the methods: {', '.join(methods)}")
    make = method_for_tables if isinstance(data, TableTask) else _make
    made = {name: make(name, dict(given.get(name, {}))) for name in dict.fromkeys(methods)}
    sessions = {
        name: open_session(data, method, model=model, seed=seed, progress=progress)
        if isinstance(data, TableTask)
        else _open(data, method, model, seed, progress)
        for name, method in made.items()
    }
    for session in sessions.values():
        session.recipe = _recipe(recipe or session.recipe, epochs)
    twins = next(iter(sessions.values())).xrm()
    evaluate = curve_evaluator(GroupView(data.task if isinstance(data, TableTask) else data, twins))
    trained = {}
    for name, method in made.items():
        session = sessions[name]
        how, n = session.recipe, len(session.task.train)
        steps = how.total_steps(-(-n // (how.batch_size or n)))
        session.evaluate, session.evaluate_every = evaluate, max(1, steps // LOOKS)
        session.artefacts["xrm"] = twins
        start = time.perf_counter()
        fitted = method.fit(session)
        training = {
            "seconds": round(time.perf_counter() - start, 2),
            "seed": seed,
            "model": model or _model_name(data),
            **({"groups": session.groups} if method.uses_groups else {}),
            **{key: value for key, value in asdict(how).items() if value is not None},
        }
        trained[name] = Trained(fitted, _regime(session), training)
    return trained


def _recipe(recipe: Recipe, epochs: int | None) -> Recipe:
    return recipe if epochs is None else replace(recipe, steps=None, epochs=epochs)


def _make(name: str, settings: Mapping[str, Any]) -> Method:
    return make_method(name, **settings)


def _open(task: Task, method: Method, model: str | None, seed: int, progress: bool) -> Session:
    annotated = task.train.has_attribute
    if method.needs != "none" and not annotated and not method.uses_groups:
        raise OptionError(
            f"method {method.name!r} needs group labels, which task {task.name!r} does not have: choose a method "
            "without them, such as 'mat'"
        )
    preset = PRESETS.get(task.name, DEFAULT)
    return Session(
        task=task.for_regime(method.needs if annotated else "none"),
        groups="true" if annotated or not method.uses_groups else "xrm",
        build=stack_builder(model or preset.model, task.train.x.shape, task.n_classes),
        recipe=preset.recipe,
        seed=seed,
        progress=progress,
    )


def _regime(session: Session) -> str:
    if session.task.train.has_attribute:
        return "train"
    validation = session.task.validation
    return "val" if validation is not None and validation.has_attribute else "none"


def _model_name(data: Task | TableTask) -> str:
    if isinstance(data, TableTask):
        from unrote.table_runs import default_model

        return default_model(data.task.train.x.shape)
    model = PRESETS.get(data.name, DEFAULT).model
    return model if isinstance(model, str) else getattr(model, "__name__", "custom")

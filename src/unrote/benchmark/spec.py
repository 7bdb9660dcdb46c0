"""What a benchmark runs: tasks, methods, criteria by annotation regime, the size of the search, seeds, a budget."""

import sys
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from unrote.api import make_method
from unrote.benchmark.toml_lines import line_of
from unrote.data import Regime, task_names, task_sources
from unrote.errors import OptionError, UnknownNameError, UnroteError
from unrote.methods import METHODS, GroupSource
from unrote.models.builders import MODELS
from unrote.selection import allows, check_criterion

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Location = tuple[str | int, ...]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Range(_Part):
    """Numbers between two others, drawn uniformly, or uniformly in the logarithm."""

    low: float
    high: float
    log: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> "Range":
        if not self.low < self.high:
            raise ValueError(f"low={self.low:g}, high={self.high:g}: low must be below high")
        if self.log and self.low <= 0:
            raise ValueError(f"low={self.low:g}: a range in the logarithm starts above 0")
        return self


Value: TypeAlias = bool | int | float | str
Values: TypeAlias = Annotated[list[Value], Field(min_length=1)]
Space: TypeAlias = Value | Values | Range
"""A single value, a list to choose from, or a range."""
Rate: TypeAlias = float | Annotated[list[float], Field(min_length=1)] | Range


class RecipeSpec(_Part):
    """How models are trained; see `Recipe`. The two rates may be searched."""

    optimizer: Literal["sgd", "adam", "adamw"] = "adam"
    learning_rate: Rate = 1e-3
    weight_decay: Rate = 0.0
    momentum: float = Field(0.9, ge=0, lt=1)
    batch_size: int | None = Field(128, ge=1)
    epochs: int | None = Field(default=None, ge=1)
    steps: int | None = Field(default=None, ge=1)
    clip_norm: float | None = Field(default=None, gt=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _one_length(self) -> "RecipeSpec":
        if (self.epochs is None) == (self.steps is None):
            raise ValueError(f"epochs={self.epochs} and steps={self.steps}: give exactly one of them")
        return self


class TaskSpec(_Part):
    """One task and the model trained on it.

    Args:
        name: as `load_task` takes it.
        options: of the task.
        label: what the table calls it; default the name.
        model: "linear", "mlp" or "cnn"; default by the task.
        recipe: default by the task.
        evaluate_every: steps between evaluations; default the spec's.
        optional: whether to go on without it where its data cannot be had.
    """

    name: str
    options: dict[str, Any] = {}
    label: str = ""
    model: str | None = None
    recipe: RecipeSpec | None = None
    evaluate_every: int | None = Field(default=None, ge=1)
    optional: bool = False

    @property
    def shown(self) -> str:
        """What the table calls it."""
        return self.label or self.name


class MethodSpec(_Part):
    """One method.

    Args:
        name: as `unrote methods` lists it.
        groups: whose groups it gets: "true" ones, or those inferred by "xrm" or "eiil".
        label: what the table calls it; default the name, after the source of inferred groups.
        settings: hyper-parameters that are not searched.
        search: what is searched instead of the ranges that the method declares.
        tries: configurations tried; default the spec's.
        regimes: those it is reported in; default all of the spec that it can run in.
    """

    name: str
    groups: GroupSource = "true"
    label: str = ""
    settings: dict[str, Any] = {}
    search: dict[str, Space] | None = None
    tries: int | None = Field(default=None, ge=1)
    regimes: list[Regime] | None = None

    @property
    def shown(self) -> str:
        """What the table calls it."""
        return self.label or (self.name if self.groups == "true" else f"{self.groups} + {self.name}")

    @property
    def needs(self) -> Regime:
        """The weakest regime it can run in."""
        return METHODS[self.name].needs if self.groups == "true" else "none"


class XRMSpec(_Part):
    """The search for XRM's twins, always by the largest flip rate; rates default to the task's recipe."""

    search: int | None = Field(default=None, ge=1)
    learning_rate: Rate | None = None
    weight_decay: Rate | None = None


def _named(items: Any) -> Any:
    """A list in which a bare name stands for a table with that name."""
    return [{"name": x} if isinstance(x, str) else x for x in items] if isinstance(items, list) else items


class Spec(_Part):
    """What a benchmark runs.

    Args:
        name: of the benchmark.
        description: one line.
        tasks: at least one.
        methods: at least one.
        criteria: for each annotation regime reported, the criteria that choose in it.
        search: configurations tried per method and task, the first with defaults.
        seeds: re-runs of each choice, with seeds 1, 2, ...
        search_seed: of the draws, and of the runs of the search.
        evaluate_every: steps between evaluations, each of which may be chosen; default once an epoch.
        xrm: the search for twins.
        oracle: whether to re-run what the test split's own groups would choose, as a yardstick.
        shared_order: whether runs that can train as one stack share the order of their minibatches; else every
            run has an order of its own, and trains alone.
        stack: members of one stack at most.
        budget_minutes: no run starts after that; None runs all.
    """

    name: str
    description: str = ""
    tasks: Annotated[list[TaskSpec], BeforeValidator(_named), Field(min_length=1)]
    methods: Annotated[list[MethodSpec], BeforeValidator(_named), Field(min_length=1)]
    criteria: dict[Regime, Annotated[list[str], Field(min_length=1)]] = Field(min_length=1)
    search: int = Field(10, ge=1)
    seeds: int = Field(3, ge=1)
    search_seed: int = Field(0, ge=0)
    evaluate_every: int | None = Field(default=None, ge=1)
    xrm: XRMSpec = XRMSpec()
    oracle: bool = True
    shared_order: bool = True
    stack: int = Field(64, ge=1)
    budget_minutes: float | None = Field(default=None, gt=0)

    @property
    def final_seeds(self) -> list[int]:
        """Seeds of the re-runs: none is the search's."""
        return list(range(self.search_seed + 1, self.search_seed + 1 + self.seeds))

    def regimes_of(self, method: MethodSpec) -> list[Regime]:
        """The regimes a method is reported in."""
        wanted = method.regimes or list(self.criteria)
        return [regime for regime in self.criteria if regime in wanted and allows(regime, method.needs)]

    @property
    def uses_inferred_groups(self) -> bool:
        """Whether a criterion reads the groups that XRM's twins infer."""
        return any("worst_group_inferred" in names for names in self.criteria.values())


def spec_problems(spec: Spec) -> Iterator[tuple[Location, object, str]]:
    """Location, value and complaint of everything that is well-formed and cannot be run."""
    for regime, names in spec.criteria.items():
        for k, name in enumerate(names):
            if fault := _fault(check_criterion, name, regime):
                yield ("criteria", regime, k), name, fault
    for k, task in enumerate(spec.tasks):
        yield from _task_problems(task, ("tasks", k))
    for k, method in enumerate(spec.methods):
        yield from _method_problems(spec, method, ("methods", k))
    for key, items in (("tasks", spec.tasks), ("methods", spec.methods)):
        shown = [item.shown for item in items]
        for k, label in enumerate(shown):
            if label in shown[:k]:
                yield (key, k), None, f"a second entry called {label!r}: give it a label of its own"


def _task_problems(task: TaskSpec, at: Location) -> Iterator[tuple[Location, object, str]]:
    if task.model is not None and task.model not in MODELS:
        yield (*at, "model"), task.model, str(UnknownNameError("model", task.model, MODELS))
    if task.name not in task_names():
        yield (*at, "name"), task.name, str(UnknownNameError("task", task.name, task_names()))
        return
    valid = task_sources()[task.name].options
    for option in task.options:
        if option not in valid:
            message = f"task {task.name!r} has no option {option!r}: valid: {', '.join(valid)}"
            yield (*at, "options", option), None, message


def _method_problems(spec: Spec, method: MethodSpec, at: Location) -> Iterator[tuple[Location, object, str]]:
    if method.name not in METHODS.names():
        yield (*at, "name"), method.name, str(UnknownNameError("method", method.name, METHODS.names()))
        return
    if method.groups != "true" and not METHODS[method.name].uses_groups:
        message = f"method {method.name!r} takes no inferred groups: leave groups out"
        yield (*at, "groups"), method.groups, message
    if fault := _fault(make_method, method.name, **method.settings):
        yield (*at, "settings"), None, fault
    fields = getattr(METHODS[method.name], "__dataclass_fields__", {})
    for setting, space in (method.search or {}).items():
        if setting not in fields:
            message = (
                f"method {method.name!r} has no setting {setting!r}: it has {', '.join(fields) or 'none'}"
            )
            yield (*at, "search", setting), None, message
            continue
        ends = [space.low, space.high] if isinstance(space, Range) else space
        for value in ends if isinstance(ends, list) else [ends]:
            if fault := _fault(make_method, method.name, **{setting: value}):
                yield (*at, "search", setting), None, fault
    for k, regime in enumerate(method.regimes or ()):
        if regime not in spec.criteria:
            yield (*at, "regimes", k), regime, f"no criteria for regime {regime!r}: give criteria.{regime}"
        elif not allows(regime, method.needs):
            message = f"method {method.name!r} needs the regime {method.needs!r}, not {regime!r}"
            yield (*at, "regimes", k), regime, f"{message}, or groups = 'xrm'"
    if not spec.regimes_of(method):
        message = (
            f"method {method.name!r} needs the annotation regime {method.needs!r}, and criteria has only "
            f"{', '.join(spec.criteria)}: add criteria.{method.needs}, or set groups = 'xrm'"
        )
        yield at, method.name, message


def _fault(check: Any, *arguments: Any, **options: Any) -> str | None:
    try:
        check(*arguments, **options)
    except (UnroteError, TypeError) as error:
        return str(error)
    return None


def parse_spec(text: str, source: str) -> Spec:
    """A spec from the text of a TOML file.

    Args:
        text: of the file.
        source: its name, for messages.

    Raises:
        OptionError: if it is not TOML, or something in it is missing, unknown or out of range; names the lines.
    """
    try:
        values = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # numbers too long to read and brackets too deep, too
        raise OptionError(f"{source} is not TOML: {error}") from error
    try:
        spec = Spec.model_validate(values)
    except ValidationError as error:
        found = [(tuple(e["loc"]), e.get("input"), e["msg"]) for e in error.errors(include_url=False)]
        raise OptionError(_complaint(text, source, [_clean(*one, values) for one in found])) from error
    if problems := list(spec_problems(spec)):
        raise OptionError(_complaint(text, source, problems))
    return spec


def _clean(location: Location, value: object, message: str, values: Any) -> tuple[Location, object, str]:
    """A location without the steps that pydantic adds for the members of unions, which the file does not have."""
    path: list[str | int] = []
    at: Any = values
    for step in location:
        if (isinstance(at, dict) and step in at) or (isinstance(at, list) and isinstance(step, int)):
            at = at[step]  # type: ignore[index]
        elif step != location[-1] or message != "Field required":
            continue
        path.append(step)
    return tuple(path), value, message.removeprefix("Value error, ")


def _complaint(text: str, source: str, problems: Sequence[tuple[Location, object, str]]) -> str:
    lines = []
    for location, value, message in problems:
        line = line_of(text, location, value)
        where = source if line is None else f"{source}, line {line}"
        at = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in location).lstrip(".")
        lines.append(f"{where}: {at}: {message}" if at else f"{where}: {message}")
    return "\n".join(dict.fromkeys(lines))


def spec_names() -> list[str]:
    """Names of the built-in specs."""
    folder = resources.files("unrote.benchmark") / "specs"
    return sorted(Path(item.name).stem for item in folder.iterdir() if item.name.endswith(".toml"))


def spec_text(spec: str | Path) -> tuple[str, str]:
    """The text of a spec and its name for messages: of a file, or of a built-in one.

    Raises:
        OptionError: if there is neither.
    """
    path = Path(spec)
    if str(spec) in spec_names() and not path.is_file():
        file = resources.files("unrote.benchmark") / "specs" / f"{spec}.toml"
        return file.read_text(encoding="utf-8"), f"{spec} (built in)"
    try:
        return path.read_text(encoding="utf-8"), str(path)
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(
            f"no spec {str(spec)!r}: a TOML file is wanted, or one of {', '.join(spec_names())} "
            f"({getattr(error, 'strerror', None) or error})"
        ) from error


def load_spec(spec: str | Path) -> Spec:
    """A spec from a TOML file, or a built-in one by name.

    Raises:
        OptionError: if there is none, or it cannot be run; names the lines at fault.
    """
    return parse_spec(*spec_text(spec))

"""The configurations of a random search.

Configuration k is a function of the spec's search seed, the method and k alone: a larger search tries what the
smaller one tried, and more, and a finished run is found again.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from unrote.benchmark.spec import MethodSpec, Range, RecipeSpec, Space, Spec
from unrote.methods import METHODS, Choice, LogUniform, Search, Uniform
from unrote.seeding import generator

_RATES = ("learning_rate", "weight_decay")


def as_search(space: Space) -> Search | None:
    """The search range that a spec's value stands for; None for a single value."""
    if isinstance(space, Range):
        return LogUniform(space.low, space.high) if space.log else Uniform(space.low, space.high)
    return Choice(tuple(space)) if isinstance(space, list) else None


def middle(space: Space) -> Any:
    """What the first configuration takes: the value itself, the first of a list, the middle of a range."""
    if isinstance(space, Range):
        return math.sqrt(space.low * space.high) if space.log else (space.low + space.high) / 2
    return space[0] if isinstance(space, list) else space


def recipe_fields(recipe: RecipeSpec, rates: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a recipe with the given rates."""
    fixed = recipe.model_dump(exclude=set(_RATES))
    return {**fixed, **{name: float(rates[name]) for name in _RATES}}


def configurations(
    spec: Spec, method: MethodSpec, recipe: RecipeSpec, label: str
) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """The recipe fields and method settings of each configuration, without repetition.

    The first has the method's defaults and the middle of the recipe's ranges; the rest are drawn.

    Args:
        spec: says how many and from which seed.
        method: its settings are kept, its search ranges searched.
        recipe: of the task.
        label: of the task: each task has draws of its own.
    """
    settings = method_spaces(method)
    spaces = {name: as_search(getattr(recipe, name)) for name in _RATES} | settings
    fixed = {name: middle(getattr(recipe, name)) for name in _RATES} | method.settings

    def draw(k: int) -> Iterator[tuple[str, Any]]:
        for name, space in spaces.items():
            if space is not None and k > 0:
                yield name, space.sample(generator(spec.search_seed, "search", label, method.name, name, k))

    return _distinct(recipe, fixed, [dict(draw(k)) for k in range(method.tries or spec.search)])


def method_spaces(method: MethodSpec) -> dict[str, Search]:
    """What is searched of a method: what the spec says, else the ranges that the method declares."""
    if method.search is not None:
        found = {name: as_search(space) for name, space in method.search.items()}
        return {name: space for name, space in found.items() if space is not None}
    fields = getattr(METHODS[method.name], "__dataclass_fields__", {})
    declared = {name: field.metadata.get("search") for name, field in fields.items()}
    return {n: s for n, s in declared.items() if s is not None and n not in method.settings}


def twin_configurations(spec: Spec, recipe: RecipeSpec, label: str) -> list[dict[str, Any]]:
    """The recipe fields of each configuration of XRM's twins, without repetition."""
    ranges = {name: getattr(spec.xrm, name) for name in _RATES}
    wanted = {name: getattr(recipe, name) if own is None else own for name, own in ranges.items()}

    def draw(name: str, k: int) -> Any:
        space = as_search(wanted[name])
        if space is None or k == 0:
            return middle(wanted[name])
        random: torch.Generator = generator(spec.search_seed, "search", label, "xrm", name, k)
        return space.sample(random)

    draws = [{name: draw(name, k) for name in _RATES} for k in range(spec.xrm.search or spec.search)]
    return [fields for fields, _ in _distinct(recipe, {}, draws)]


def _distinct(
    recipe: RecipeSpec, fixed: Mapping[str, Any], draws: Sequence[Mapping[str, Any]]
) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    found: list[tuple[dict[str, Any], dict[str, Any]]] = []
    for drawn in draws:
        values = {**fixed, **drawn}
        settings = {name: value for name, value in values.items() if name not in _RATES}
        pair = recipe_fields(recipe, values), settings
        if pair not in found:
            found.append(pair)
    return found

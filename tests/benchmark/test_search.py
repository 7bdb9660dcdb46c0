import math

import pytest
from benchmark_toys import small_spec

from unrote.benchmark.search import configurations, twin_configurations
from unrote.benchmark.spec import MethodSpec, Range, RecipeSpec, Spec
from unrote.training import Recipe

RECIPE = RecipeSpec(learning_rate=Range(low=1e-4, high=1e-2, log=True), weight_decay=[0.0, 0.1], steps=5)


def drawn(spec: Spec, **method: object) -> list[tuple[dict[str, object], dict[str, object]]]:
    return configurations(spec, MethodSpec.model_validate({"name": "mat", **method}), RECIPE, "toy")


def test_the_first_has_defaults_and_the_middle_of_the_ranges() -> None:
    recipe, settings = drawn(small_spec())[0]
    assert recipe["learning_rate"] == pytest.approx(1e-3)
    assert recipe["weight_decay"] == 0.0
    assert settings == {}


def test_draws_stay_within_the_ranges() -> None:
    found = drawn(small_spec(search=40))
    assert len(found) == 40
    rates = [math.log10(recipe["learning_rate"]) for recipe, _ in found]
    assert -4 <= min(rates) < -3.5
    assert -2.5 < max(rates) <= -2
    assert {recipe["weight_decay"] for recipe, _ in found} == {0.0, 0.1}
    assert {s["temperature"] for _, s in found[1:]} <= {0.001, 0.01, 0.1, 0.3, 1.0, 2.0}


def test_a_larger_search_tries_what_the_smaller_one_did() -> None:
    assert drawn(small_spec(search=7))[:4] == drawn(small_spec(search=4))


def test_another_seed_another_task_another_method_draw_anew() -> None:
    base = drawn(small_spec(search=3))
    assert drawn(small_spec(search=3, search_seed=1))[1:] != base[1:]
    other_task = configurations(small_spec(search=3), MethodSpec(name="mat"), RECIPE, "other")
    assert other_task[1:] != base[1:]


def test_what_is_not_searched_is_the_same_in_every_recipe() -> None:
    recipe = RECIPE.model_copy(update={"clip_norm": 0.5, "optimizer": "sgd"})
    found = configurations(small_spec(search=3), MethodSpec(name="mat"), recipe, "toy")
    made = [Recipe(**fields) for fields, _ in found]
    assert {(one.clip_norm, one.optimizer, one.steps) for one in made} == {(0.5, "sgd", 5)}


def test_fixed_settings_are_not_searched() -> None:
    found = drawn(small_spec(search=5), settings={"temperature": 0.5})
    assert {settings["temperature"] for _, settings in found} == {0.5}


def test_a_search_of_ones_own() -> None:
    found = drawn(small_spec(search=5), search={"temperature": {"low": 5.0, "high": 6.0}})
    assert all(5 <= settings["temperature"] <= 6 for _, settings in found[1:])


def test_without_anything_to_search_there_is_one_configuration() -> None:
    recipe = RecipeSpec(steps=5)
    assert len(configurations(small_spec(search=5), MethodSpec(name="erm"), recipe, "toy")) == 1
    assert len(twin_configurations(small_spec(search=5), recipe, "toy")) == 1


def test_twins_can_have_ranges_of_their_own() -> None:
    spec = small_spec(xrm={"search": 4, "learning_rate": [0.5, 0.6]})
    assert {recipe["learning_rate"] for recipe in twin_configurations(spec, RECIPE, "toy")} <= {0.5, 0.6}

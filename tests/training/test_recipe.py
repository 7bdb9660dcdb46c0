"""What a recipe refuses, and how it spreads over members."""

import math
from typing import Any

import pytest

from unrote.errors import OptionError
from unrote.training import Recipe


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "epochs=None and steps=None"),
        ({"epochs": 1, "steps": 1}, "epochs=1 and steps=1"),
        ({"epochs": 0}, "epochs=0"),
        ({"steps": -3}, "steps=-3"),
        ({"steps": 2.5}, "steps=2.5"),
        ({"epochs": 1, "batch_size": 0}, "batch_size=0"),
        ({"epochs": 1, "batch_size": 1.5}, "batch_size=1.5"),
        ({"epochs": 1, "optimizer": "adma"}, "optimizer 'adma'"),
        ({"epochs": 1, "learning_rate": -0.1}, "learning_rate=-0.1"),
        ({"epochs": 1, "learning_rate": math.nan}, "learning_rate=nan"),
        ({"epochs": 1, "learning_rate": math.inf}, "learning_rate=inf"),
        ({"epochs": 1, "learning_rate": ()}, r"learning_rate=\(\)"),
        ({"epochs": 1, "learning_rate": [0.1, 0.2]}, r"learning_rate=\[0.1, 0.2\]"),
        ({"epochs": 1, "learning_rate": "fast"}, "learning_rate='fast'"),
        ({"epochs": 1, "learning_rate": (0.1, -1.0)}, r"learning_rate=\(0.1, -1.0\)"),
        ({"epochs": 1, "weight_decay": -1.0}, "weight_decay=-1.0"),
        ({"epochs": 1, "momentum": -0.1}, "momentum=-0.1"),
        ({"epochs": 1, "momentum": 1.0}, "momentum=1.0"),
        ({"epochs": 1, "momentum": math.nan}, "momentum=nan"),
    ],
)
@pytest.mark.usefixtures("shapes_unchecked")
def test_refuses(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Recipe(**options)


def test_steps_and_epochs() -> None:
    assert Recipe(steps=7).total_steps(100) == 7
    assert Recipe(epochs=3).total_steps(5) == 15


def test_one_number_is_every_members() -> None:
    recipe = Recipe(learning_rate=0.1, weight_decay=(0.0, 0.5, 1.0), epochs=1)
    assert recipe.per_member("learning_rate", 3) == [0.1] * 3
    assert recipe.per_member("weight_decay", 3) == [0.0, 0.5, 1.0]
    with pytest.raises(OptionError, match="weight_decay has 3 values for 2 members"):
        recipe.per_member("weight_decay", 2)


def test_repeated_gives_both_twins_of_a_pair_the_same() -> None:
    recipe = Recipe(learning_rate=(0.1, 0.2), weight_decay=0.5, epochs=1).repeated(2)
    assert recipe.learning_rate == (0.1, 0.1, 0.2, 0.2)
    assert recipe.weight_decay == 0.5

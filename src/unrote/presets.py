"""How each built-in task is trained unless told otherwise, and methods as their papers have them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from unrote.training import Recipe


@dataclass(frozen=True)
class Preset:
    """A model by name (or a function that makes one) and the recipe it is trained with."""

    model: str | Callable[[], nn.Module]
    recipe: Recipe


DEFAULT = Preset("mlp", Recipe("adam", 1e-3, epochs=60, batch_size=128))

PRESETS = {
    "digits": Preset("mlp", Recipe("adam", 1e-3, epochs=60, batch_size=128)),
    "fashion": Preset("cnn", Recipe("adam", 1e-3, epochs=15, batch_size=128)),
    "reviews": Preset("linear", Recipe("adam", 1e-2, epochs=60, batch_size=128)),
    "interpretable": Preset("linear", Recipe("sgd", 1e-2, momentum=0.0, epochs=1000, batch_size=None)),
}
"""By task name."""

PAPER_SETTINGS: Mapping[str, Mapping[str, Any]] = {"mat": {"temperature": 0.1, "held_out": "xrm"}}
"""By method name, where our default differs from the paper's: MAT's looks for a shortcut first, and asks heads."""

"""One look for all pictures: quiet axes, few colours that colour-blind readers can tell apart."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib
from matplotlib.axes import Axes

METHOD_COLOURS = {"erm": "#8c8c8c", "mat": "#0b6e4f", "rwg": "#3b6fb6"}
MAJORITY, MINORITY = "#3b6fb6", "#d1495b"

_STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.grid": False,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "svg.hashsalt": "unrote",  # element ids that do not change from run to run
}


@contextmanager
def house_style() -> Iterator[None]:
    """Draw in the house style, without touching the user's settings or needing a screen."""
    with matplotlib.rc_context(_STYLE):
        yield


def percent_axis(axes: Axes) -> None:
    """A vertical axis of accuracies from 0 to 100%."""
    axes.set_ylim(0, 1.04)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0%", "25%", "50%", "75%", "100%"])

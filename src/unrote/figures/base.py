"""What a figure is: numbers from our own runs, the claims they bear out or not, and a picture.

A figure is one file: a function `draw(seed, fast, progress) -> FigureResult`, registered under the name it has
in the paper.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from unrote.api import make_method
from unrote.figures.style import house_style
from unrote.methods import Method
from unrote.presets import PAPER_SETTINGS
from unrote.registry import Registry


def paper_method(name: str) -> Method:
    """A method with the settings of its paper."""
    return make_method(name, **PAPER_SETTINGS.get(name, {}))


@dataclass(frozen=True)
class Claim:
    """Something the paper says, put so that numbers decide it.

    Args:
        text: the claim with our numbers in it.
        holds: whether they bear it out.
    """

    text: str
    holds: bool


@dataclass(frozen=True)
class NumberTable:
    """The numbers that the claims rest on, for people.

    Args:
        columns: names; the first says what a row is.
        rows: cells as text, one per column.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class FigureResult:
    """A drawn figure.

    Args:
        numbers: what is drawn, JSON-ready.
        claims: what it shows.
        picture: the drawing.
        table: the numbers behind it that are worth printing; None prints none.
    """

    numbers: dict[str, Any]
    claims: tuple[Claim, ...]
    picture: Figure
    table: NumberTable | None = None

    def save(self, stem: Path) -> list[Path]:
        """Write PNG and SVG beside each other; gives their paths."""
        stem.parent.mkdir(parents=True, exist_ok=True)
        paths = [stem.with_suffix(suffix) for suffix in (".png", ".svg")]
        with house_style():
            self.picture.draw_without_rendering()
            self.picture.set_layout_engine("none")  # it would move things a little at each drawing
            for path in paths:
                # no date in the file, so that the same run gives the same bytes
                metadata = {"Date": None} if path.suffix == ".svg" else {}
                self.picture.savefig(path, dpi=160, metadata=metadata)
        return paths


Draw = Callable[..., FigureResult]


@dataclass(frozen=True)
class FigureSource:
    """A registered figure: its name in the paper, a line on what it shows, and the function that draws it."""

    name: str
    title: str
    draw: Draw


FIGURES: Registry[FigureSource] = Registry("figure", "unrote.figures")


def register_figure(name: str, title: str) -> Callable[[Draw], Draw]:
    """Register a function `draw(*, seed, fast, progress)` under the figure's name in the paper."""

    def add(draw: Draw) -> Draw:
        FIGURES.add(name, FigureSource(name, title, draw))
        return draw

    return add

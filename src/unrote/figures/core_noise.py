"""Noise added to the core features instead of appended beside them.

In the paper the noise that can be learned by heart has inputs of its own. Here it is added to the inputs that carry
the core feature: to one input (nothing can be learned by heart from one number), and to 1,798 inputs that carry the
core feature together, each a little of it, as the pixels of a picture do. For each, ERM and MAT over noise levels,
and the accuracy of the core feature alone, which the noise lowers too.

The paper appends its noise. The question is its readers'.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import norm
from torch import Tensor

from unrote.data import Split, Task
from unrote.data.planted import plant_attribute
from unrote.figures.base import Claim, FigureResult, NumberTable, paper_method, register_figure
from unrote.figures.linear_setup import linear_session
from unrote.figures.style import METHOD_COLOURS, house_style, percent_axis
from unrote.seeding import derive_seed, generator

_CORE_NOISE, _SCALE = 0.12, 5.0
_LEVELS = (0.1, 0.3, 0.5, 0.8)
_PLACES = {
    "appended": "noise in inputs of its own",
    "one": "noise added to one core input",
    "spread": "noise added to many core inputs",
}


@register_figure("noise", "noise added to the core features instead of appended")
def draw(*, seed: int = 1, fast: bool = False, progress: bool = False) -> FigureResult:
    """Draw the figure.

    Args:
        seed: of data and training.
        fast: a quarter of the examples and of the dimensions, one level of noise.
        progress: whether to show progress bars.
    """
    n, dims = (250, 449) if fast else (1000, 1798)
    levels = (0.5,) if fast else _LEVELS
    panels = {place: [_point(place, s, n, dims, seed, progress) for s in levels] for place in _PLACES}
    numbers = {"seed": seed, "n": n, "dims": dims, "panels": panels}
    return FigureResult(numbers, _claims(panels), _draw(panels), _table(panels))


def noisy_core(place: str, sigma: float, n: int, dims: int, seed: int) -> Task:
    """The interpretable setup with its noise appended, added to one core input, or to `dims` core inputs.

    The core feature spread over the inputs is 1 in length, as the single one is. The spurious feature, of scale 5, is
    the last input.
    """

    def part(name: str, size: int, alignment: float) -> Split:
        random = generator(seed, "noisy core", name)
        y = (torch.arange(size) % 2)[torch.randperm(size, generator=random)]
        attribute = plant_attribute(y, 2, alignment, derive_seed(seed, "noisy core", name))
        core = (2.0 * y - 1 + _CORE_NOISE * torch.randn(size, generator=random)).unsqueeze(1)
        spurious = _SCALE * (
            2.0 * attribute - 1 + _CORE_NOISE * torch.randn(size, generator=random)
        ).unsqueeze(1)
        noise = sigma * torch.randn(size, dims, generator=random)
        inputs: dict[str, Float[Tensor, "n d"]] = {
            "appended": torch.cat([core, noise], 1),
            "one": core + noise[:, :1],
            "spread": core / math.sqrt(dims) + noise,
        }
        return Split(torch.cat([inputs[place], spurious], 1), y, attribute)

    return Task(
        "noisy core",
        train=part("train", n, 0.9),
        test=part("test", 4000, 0.5),
        class_names=("-1", "+1"),
        attribute_names=("-1", "+1"),
    )


def _point(place: str, sigma: float, n: int, dims: int, seed: int, progress: bool) -> dict[str, Any]:
    task = noisy_core(place, sigma, n, dims, seed)
    spread = math.hypot(_CORE_NOISE, 0.0 if place == "appended" else sigma)
    found: dict[str, Any] = {"sigma": sigma, "core_alone": float(norm.cdf(1 / spread))}
    for method in ("erm", "mat"):
        fitted = paper_method(method).fit(linear_session(task, seed, progress=progress))
        assert task.test is not None
        correct = fitted.predict(task.test.x) == task.test.y
        minority = task.test.y != task.test.attribute
        found[f"{method}_minority"] = float(correct[minority].float().mean())
        found[f"{method}_majority"] = float(correct[~minority].float().mean())
    return found


def _claims(panels: dict[str, list[dict[str, Any]]]) -> tuple[Claim, ...]:
    at = {place: next(p for p in points if p["sigma"] == 0.5) for place, points in panels.items()}
    appended, one, spread = (at[place] for place in _PLACES)
    difference = abs(spread["erm_minority"] - appended["erm_minority"])
    return (
        Claim(
            f"noise 0.5 added to many core inputs traps ERM as appended noise does: minority accuracy "
            f"{spread['erm_minority']:.2f} against {appended['erm_minority']:.2f} appended",
            difference < 0.15 and spread["erm_minority"] < 0.35,
        ),
        Claim(
            f"MAT recovers there too: {spread['mat_minority']:.2f}, where the core feature alone gives "
            f"{spread['core_alone']:.2f} (appended: {appended['mat_minority']:.2f})",
            spread["mat_minority"] > spread["erm_minority"] + 0.3,
        ),
        Claim(
            f"noise added to one core input cannot be learned by heart: ERM's minority accuracy "
            f"{one['erm_minority']:.2f} is above {spread['erm_minority']:.2f}, though the inputs tell as much",
            one["erm_minority"] > spread["erm_minority"] + 0.1,
        ),
    )


def _table(panels: dict[str, list[dict[str, Any]]]) -> NumberTable:
    names = ("erm_majority", "erm_minority", "mat_majority", "mat_minority", "core_alone")
    rows = [
        (f"{_PLACES[place]}, s = {point['sigma']:g}", *(f"{point[name]:.3f}" for name in names))
        for place, points in panels.items()
        for point in points
    ]
    heads = ("ERM majority", "ERM minority", "MAT majority", "MAT minority", "core feature alone")
    return NumberTable(("test accuracy with", *heads), tuple(rows))


def _draw(panels: dict[str, list[dict[str, Any]]]) -> Figure:
    with house_style():
        figure = Figure(figsize=(10, 4.0), layout="constrained")
        places = figure.subplots(1, 3, sharey=True)
        for axes, (place, points) in zip(places, panels.items(), strict=True):
            _draw_place(axes, points)
            axes.set_title(_PLACES[place].capitalize())
        places[0].set_ylabel("test accuracy")
        figure.legend(*places[0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
        figure.suptitle(
            "Noise on the core feature's own inputs traps ERM as appended noise does, if there are many",
            fontsize=12,
            fontweight="bold",
            x=0.01,
            ha="left",
        )
    return figure


def _draw_place(axes: Axes, points: Sequence[dict[str, Any]]) -> None:
    levels = [point["sigma"] for point in points]
    core = [point["core_alone"] for point in points]
    axes.plot(levels, core, color="black", lw=1.2, ls="--", label="core feature alone")
    for method in ("erm", "mat"):
        for group, style in (("minority", "-"), ("majority", ":")):
            values = [point[f"{method}_{group}"] for point in points]
            colour = METHOD_COLOURS[method]
            name = f"{method.upper()}, {group}"
            axes.plot(levels, values, style, marker="o", ms=4, color=colour, lw=2, label=name)
    axes.set_xlabel("noise s")
    axes.set_xticks(levels)
    percent_axis(axes)

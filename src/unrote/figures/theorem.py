"""Theorem 2.2: with noise to learn by heart, the minority gets what the spurious feature gives it.

On the interpretable setup the paper says that without example features ERM's accuracy on the minority goes to 1,
and that with them (in many more dimensions than log n) it goes to the spurious feature's own, which is 0. Three
answers are put side by side: gradient descent for the 1,000 steps of figure 1; the separator with the largest
margin, which is where gradient descent ends; and the limit of that separator as n and d grow together. The setup is
varied in noise, scale of the spurious feature, n and d.

Reference: Bayat et al. 2025, arXiv 2412.07684, theorem 2.2. The limit: Gordon 1988; for the largest margin
Montanari et al. 2019, arXiv 1911.01544.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from unrote.figures.base import Claim, FigureResult, NumberTable, register_figure
from unrote.figures.margins import Setup, descend, largest_margin, limit, stable_rate, three_numbers
from unrote.figures.style import MAJORITY, MINORITY, house_style, percent_axis
from unrote.progress import progress_bar

_STEPS = 1000  # of figure 1
_PAPER_RATE, _PAPER_CLEAN_RATE = 1e-2, 3e-2
_PAPER_STABLE = 0.0747  # `stable_rate` of figure 1's data; rates elsewhere keep their ratio to the stable one


@dataclass(frozen=True)
class _Sweep:
    """One panel: a field of the setup and the values it takes."""

    field: str
    label: str
    values: tuple[float, ...]
    log: bool


_SWEEPS = (
    _Sweep("sigma", "noise s of the example features", (0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1, 1.5, 2), False),
    _Sweep("spurious_scale", "scale of the spurious feature", (0.5, 1, 2, 5, 10, 20), True),
    _Sweep("n", "training examples n", (30, 100, 300, 600, 1000, 2000, 4000), True),
    _Sweep("noise_dims", "example features d", (10, 100, 300, 1000, 1798, 3000, 10000), True),
)


@register_figure("theorem", "what ERM comes to with noise to learn by heart: theorem 2.2, by three roads")
def draw(*, seed: int = 1, fast: bool = False, progress: bool = False) -> FigureResult:
    """Draw the theorem.

    Args:
        seed: of the data.
        fast: a quarter of the examples and of the dimensions, one draw per point, a shorter descent.
        progress: whether to show progress bars.
    """
    factor, draws = (4, 1) if fast else (1, 2)
    paper = Setup().smaller(factor)
    total = sum(len(sweep.values) for sweep in _SWEEPS)
    panels: list[dict[str, Any]] = []
    done = 0
    with progress_bar("theorem 2.2", total, show=progress) as advance:
        for sweep in _SWEEPS:
            points = []
            for value in sweep.values:
                points.append(_point(_at(sweep, value, factor), seed, draws))
                done += 1
                advance(done, sweep.label)
            panels.append({"field": sweep.field, "label": sweep.label, "log": sweep.log, "points": points})
    numbers = {
        "seed": seed,
        "n": paper.n,
        "noise_dims": paper.noise_dims,
        "steps": _STEPS,
        "training": _training(paper, seed, 10_000 if fast else 50_000),
        "panels": panels,
    }
    # fewer examples in fewer draws lie further from a limit of many
    return FigureResult(numbers, _claims(numbers, 0.15 if fast else 0.1), _draw(numbers), _table(numbers))


def _at(sweep: _Sweep, value: float, factor: int) -> Setup:
    setup = _replaced(Setup(), sweep.field, value)
    return setup.smaller(factor)


def _replaced(setup: Setup, field: str, value: float) -> Setup:
    """The setup with another value of one field; counts are rounded."""
    changed: dict[str, Any] = {field: round(value) if field in ("n", "noise_dims") else value}
    return replace(setup, **changed)


def _point(setup: Setup, seed: int, draws: int) -> dict[str, Any]:
    """Minority accuracy on new examples by each road, and where on the axes it lies."""
    exact: list[float] = []
    descended: list[float] = []
    for draw_ in range(draws):
        z = setup.examples(seed + draw_)
        if setup.sigma == 0:
            z = z[:, :2]  # columns of zeros
        rate = (_PAPER_RATE if setup.sigma else _PAPER_CLEAN_RATE) * stable_rate(z) / _PAPER_STABLE
        for weight, found in ((largest_margin(z), exact), (descend(z, rate, [_STEPS])[0], descended)):
            found.append(setup.accuracy(three_numbers(weight))[1])
    return {
        "sigma": setup.sigma,
        "spurious_scale": setup.spurious_scale,
        "n": setup.n,
        "noise_dims": setup.noise_dims,
        "largest_margin": exact,
        "gradient_descent": descended,
        "limit": setup.accuracy(limit(setup))[1] if setup.sigma else setup.accuracy((1.0, 0.0, 0.0))[1],
    }


def _training(setup: Setup, seed: int, steps: int) -> dict[str, Any]:
    """Minority accuracy as gradient descent goes on, at the stable rate, in steps of the paper's."""
    z = setup.examples(seed)
    rate = stable_rate(z)
    record = np.unique(np.geomspace(1, steps, 40).astype(int)).tolist()
    weights = descend(z, rate, record)
    return {
        "steps": [step * rate / _PAPER_RATE for step in record],
        "minority": [setup.accuracy(three_numbers(weight))[1] for weight in weights],
        "largest_margin": setup.accuracy(three_numbers(largest_margin(z)))[1],
    }


def _points(numbers: dict[str, Any], field: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = next(p["points"] for p in numbers["panels"] if p["field"] == field)
    return found


def _claims(numbers: dict[str, Any], tolerance: float) -> tuple[Claim, ...]:
    clean = _points(numbers, "sigma")[0]
    wide = _points(numbers, "noise_dims")[-1]
    every = [point for panel in numbers["panels"] for point in panel["points"]]
    gap = max(abs(fmean(point["largest_margin"]) - point["limit"]) for point in every)
    training = numbers["training"]
    exact = training["largest_margin"]
    short = float(np.interp(_STEPS, training["steps"], training["minority"]))
    end, factor = training["minority"][-1], training["steps"][-1] / _STEPS
    without = min(*clean["largest_margin"], *clean["gradient_descent"])
    with_noise = max(*wide["largest_margin"], *wide["gradient_descent"])
    return (
        Claim(
            f"without noise: minority accuracy {without:.2f} by gradient descent and largest margin",
            without >= 0.99,
        ),
        Claim(
            f"with noise in d = {wide['noise_dims']:,} dimensions for n = {wide['n']:,}: {with_noise:.2f}, "
            "as of the spurious feature alone (0.00)",
            with_noise <= 0.05,
        ),
        Claim(f"the limit predicts the largest margin's accuracy to within {gap:.2f}", gap <= tolerance),
        Claim(
            f"gradient descent goes towards the largest margin's {exact:.2f}: {short:.2f} after 1,000 steps, "
            f"{end:.2f} after {factor:,.0f} times as many",
            abs(end - exact) < abs(short - exact) / 2,
        ),
    )


def _table(numbers: dict[str, Any]) -> NumberTable:
    rows = []
    for panel in numbers["panels"]:
        for point in panel["points"]:
            rows.append(
                (
                    f"{panel['label']} = {point[panel['field']]:g}",
                    f"{fmean(point['gradient_descent']):.3f}",
                    f"{fmean(point['largest_margin']):.3f}",
                    f"{point['limit']:.3f}",
                )
            )
    head = ("minority test accuracy at", "gradient descent, 1,000 steps", "largest margin", "limit")
    return NumberTable(head, tuple(rows))


def _draw(numbers: dict[str, Any]) -> Figure:
    with house_style():
        figure = Figure(figsize=(10.5, 6.2), layout="constrained")
        axes = figure.subplots(2, 3)
        for place, panel in zip(axes.flat, numbers["panels"], strict=False):
            _draw_sweep(place, panel, numbers)
        _draw_training(axes[1, 1], numbers["training"])
        _draw_legend(axes[1, 2], numbers)
        for place in axes[:, 0]:
            place.set_ylabel("minority test accuracy")
        figure.suptitle(
            "The more room for noise, the less a linear classifier learns of the core feature",
            fontsize=12,
            fontweight="bold",
            x=0.01,
            ha="left",
        )
    return figure


def _draw_sweep(axes: Axes, panel: dict[str, Any], numbers: dict[str, Any]) -> None:
    field, points = panel["field"], panel["points"]
    values = [point[field] for point in points]
    _theorem_lines(axes)
    grid, predicted = _limit_curve(points, field)
    axes.plot(grid, predicted, color=MINORITY, lw=2)
    _dots(axes, values, [point["largest_margin"] for point in points], filled=True)
    _dots(axes, values, [point["gradient_descent"] for point in points], filled=False)
    if panel["log"]:
        axes.set_xscale("log")
        shown = [value for value in values if all(value >= 2 * other for other in values if other < value)]
        axes.set_xticks(shown, [f"{value:g}" if value < 1000 else f"{value / 1000:.3g}k" for value in shown])
        axes.minorticks_off()
    here = {"n": numbers["n"], "noise_dims": numbers["noise_dims"], "sigma": 0.5, "spurious_scale": 5}
    axes.axvline(here[field], color="0.85", lw=6, zorder=0)
    axes.set_xlabel(panel["label"])
    percent_axis(axes)


def _limit_curve(points: Sequence[dict[str, Any]], field: str) -> tuple[list[float], list[float]]:
    """The predicted limit, finely enough for a smooth line; through the points where it needs no more."""
    fields = ("sigma", "spurious_scale", "n", "noise_dims")
    start = Setup(**{name: points[-1][name] for name in fields})
    low, high = (next(p[field] for p in order if p[field]) for order in (points, points[::-1]))
    grid = np.geomspace(low, high, 40)
    setups = [_replaced(start, field, float(value)) for value in grid]
    predicted = [setup.accuracy(limit(setup))[1] for setup in setups]
    return grid.tolist(), predicted


def _theorem_lines(axes: Axes) -> None:
    for height in (0, 1):
        axes.axhline(height, color="black", lw=1, ls="--", zorder=1)


def _dots(axes: Axes, values: Sequence[float], found: Sequence[Sequence[float]], *, filled: bool) -> None:
    colour = MINORITY if filled else MAJORITY
    face = colour if filled else "white"
    means = [fmean(each) for each in found]
    axes.plot(values, means, "o" if filled else "s", mfc=face, mec=colour, mew=1.5, ms=5.5, clip_on=False)


def _draw_training(axes: Axes, training: dict[str, Any]) -> None:
    _theorem_lines(axes)
    axes.axhline(training["largest_margin"], color=MINORITY, lw=2)
    axes.plot(training["steps"], training["minority"], color=MAJORITY, lw=2)
    short = float(np.interp(_STEPS, training["steps"], training["minority"]))
    axes.plot([_STEPS], [short], "s", mfc="white", mec=MAJORITY, mew=1.5, ms=5.5)
    axes.annotate(
        f"figure 1 stops here: {short:.0%}",
        (_STEPS, short),
        xytext=(7, -9),
        textcoords="offset points",
        color=MAJORITY,
    )
    axes.annotate(
        f"where it is going: {training['largest_margin']:.0%}",
        (training["steps"][0], training["largest_margin"]),
        xytext=(0, 4),
        textcoords="offset points",
        color=MINORITY,
    )
    axes.set_xscale("log")
    axes.set_xlabel("steps of gradient descent (at rate 0.01)")
    percent_axis(axes)


def _draw_legend(axes: Axes, numbers: dict[str, Any]) -> None:
    axes.set_axis_off()
    axes.plot([], [], "s", mfc="white", mec=MAJORITY, mew=1.5, label="gradient descent, 1,000 steps")
    axes.plot([], [], "o", color=MINORITY, label="separator of largest margin, solved")
    axes.plot([], [], color=MINORITY, lw=2, label="its limit for large n and d, predicted")
    axes.plot([], [], color="black", lw=1, ls="--", label="theorem 2.2: 100% without noise, 0% with")
    axes.plot([], [], color="0.85", lw=6, label="the setup of figure 1")
    axes.legend(loc="upper left", bbox_to_anchor=(0, 0.95), fontsize=9, borderaxespad=0, labelspacing=0.9)
    axes.text(
        0,
        0.2,
        f"Where not varied: s = 0.5, scale 5,\nn = {numbers['n']:,}, d = {numbers['noise_dims']:,}; "
        "90% of training\nis majority.",
        transform=axes.transAxes,
        color="0.35",
        va="top",
    )

"""Figure 5: where ERM, reweighting and shifting go, and where they end.

A separable problem in two features, core and spurious, with a minority for which the spurious one is wrong. The
direction w / |w| of a linear classifier is followed as it trains; drawn at radius log t, as the direction changes
ever more slowly. On separable data every one of the three has the separator of largest margin as its limit (Soudry
et al. 2018; the weights of reweighting and the shifts of shifting are finite, and training margins are not). What
differs is the way there, on which any training stops.

Reference: Bayat et al. 2025, arXiv 2412.07684, figure 5.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.special import expit
from torch import Tensor

from unrote.data import Split, Task
from unrote.figures.base import Claim, FigureResult, NumberTable, paper_method, register_figure
from unrote.figures.margins import largest_margin
from unrote.figures.style import METHOD_COLOURS, house_style
from unrote.methods import Session
from unrote.methods.base import SupervisionMethod
from unrote.models import StackedLinear
from unrote.seeding import generator
from unrote.supervision import Supervision
from unrote.training import Recipe

_N, _MINORITY = 200, 10
_SPURIOUS_SCALE, _NOISE = 2.0, 0.2
_RATE = 0.2
_METHODS = {"erm": "ERM", "rwg": "reweighting", "group_shift": "shifting"}
_COLOURS = {**METHOD_COLOURS, "group_shift": METHOD_COLOURS["mat"]}
_EARLY = 30  # a step at which the ways have parted


@register_figure("5", "ERM, reweighting and shifting on their way to the largest margin")
def draw(*, seed: int = 0, fast: bool = False, progress: bool = False) -> FigureResult:
    """Draw figure 5.

    Args:
        seed: of data and training.
        fast: a tenth of the steps.
        progress: no bars are needed, it takes seconds.
    """
    task = two_features(seed)
    x: Tensor = task.train.x[torch.arange(_N)]
    best = largest_margin(x.double() * (2.0 * task.train.y - 1).unsqueeze(1))
    goal = _angle(best.tolist())
    steps = 10_000 if fast else 100_000
    paths = {name: _path(name, task, seed, steps) for name in _METHODS}
    numbers = {"seed": seed, "largest_margin_degrees": goal, "paths": paths}
    return FigureResult(numbers, _claims(paths, goal), _draw(paths, goal), _table(paths, goal))


def two_features(seed: int) -> Task:
    """200 examples of a core and a spurious feature, 10 of them with the spurious one of the other class."""
    random = generator(seed, "two features")
    y = torch.arange(_N) % 2
    attribute = y.clone()
    attribute[:_MINORITY] = 1 - attribute[:_MINORITY]
    signs = torch.stack([2.0 * y - 1, _SPURIOUS_SCALE * (2.0 * attribute - 1)], dim=1)
    x = signs + _NOISE * torch.tensor([1.0, _SPURIOUS_SCALE]) * torch.randn(_N, 2, generator=random)
    return Task(
        "two features", Split(x, y, attribute), class_names=("-1", "+1"), attribute_names=("-1", "+1")
    )


def _path(method: str, task: Task, seed: int, steps: int) -> list[dict[str, float]]:
    """Step, direction in degrees from the core feature's axis, and length of the weights."""
    session = Session(
        task=task.for_regime("train"),
        build=lambda seeds: StackedLinear(2, 2, seeds, bias=False, init="zeros"),
        recipe=Recipe("sgd", _RATE, momentum=0.0, steps=steps, batch_size=None),
        seed=seed,
    )
    made = paper_method(method)
    assert isinstance(made, SupervisionMethod)
    wanted = sorted(set(np.unique(np.geomspace(1, steps, 120).astype(int)).tolist()) | {_EARLY})
    return [
        {"step": step, "degrees": _angle(weights), "length": math.hypot(*weights)}
        for step, weights in zip(wanted, follow(task.train, made.supervision(session), wanted), strict=True)
    ]


def follow(split: Split, told: Supervision, record: Sequence[int]) -> list[tuple[float, float]]:
    """Full-batch gradient descent from zero of a softmax over two classes, as the training loop does it.

    Args:
        split: n examples of two features and two classes.
        told: what training is told about each: weight and shift.
        record: steps to record, ascending.

    Returns:
        Core and spurious weight, of the difference of the two columns, after each of those steps.
    """
    sign = 2.0 * split.y.double() - 1
    z = split.x[torch.arange(len(split))].double() * sign.unsqueeze(1)
    weight = torch.ones(len(split)).double() if told.weight is None else told.weight.double().flatten()
    shift = torch.zeros(len(split), 2) if told.shift is None else told.shift.reshape(-1, 2)
    offset = (sign * (shift[:, 1] - shift[:, 0]).double()).numpy()
    # in numpy, whose calls on small arrays cost a fifth of torch's
    pull, margins = (weight / weight.sum()).unsqueeze(1).mul(z).numpy().T.copy(), z.numpy()
    w, step, recorded = np.zeros(2), 0, []
    for stop in record:
        for _ in range(stop - step):
            w += 2 * _RATE * (pull @ expit(-(margins @ w + offset)))
        step = stop
        recorded.append((float(w[0]), float(w[1])))
    return recorded


def _angle(weights: Sequence[float]) -> float:
    """Degrees from the core feature's axis, positive towards the spurious feature."""
    return math.degrees(math.atan2(weights[1], weights[0]))


def _at(path: Sequence[dict[str, float]], step: int) -> float:
    return next(point["degrees"] for point in path if point["step"] >= step)


def _claims(paths: dict[str, list[dict[str, float]]], goal: float) -> tuple[Claim, ...]:
    off = {name: abs(path[-1]["degrees"] - goal) for name, path in paths.items()}
    early = {name: _at(path, _EARLY) for name, path in paths.items()}
    last = int(paths["erm"][-1]["step"])
    end = [path[-1]["degrees"] for path in paths.values()]
    spread, left = max(early.values()) - min(early.values()), max(end) - min(end)
    return (
        Claim(
            f"after {_EARLY} steps the ways have parted: ERM {early['erm']:.0f}, reweighting {early['rwg']:.0f}, "
            f"shifting {early['group_shift']:.0f} degrees from the core feature towards the spurious one",
            early["erm"] > early["rwg"] > early["group_shift"] and spread > 15,
        ),
        Claim(
            f"after {last:,} steps they are within {left:.0f} degrees of each other instead of {spread:.0f}, and off "
            f"the largest margin's direction by: ERM {off['erm']:.1f}, reweighting {off['rwg']:.1f}, "
            f"shifting {off['group_shift']:.1f}",
            left < spread / 4 and max(off.values()) < 10,
        ),
    )


def _table(paths: dict[str, list[dict[str, float]]], goal: float) -> NumberTable:
    last = int(paths["erm"][-1]["step"])
    steps = [step for step in (1, 10, 100, 1000, 10_000) if step < last] + [last]
    rows = [
        (_METHODS[name], *(f"{_at(path, step):.1f}" for step in steps), f"{path[-1]['length']:.1f}")
        for name, path in paths.items()
    ]
    rows.append(("largest margin", *[f"{goal:.1f}"] * len(steps), ""))
    return NumberTable(
        ("degrees off the core feature at step", *(f"{step:,}" for step in steps), "length"), tuple(rows)
    )


def _draw(paths: dict[str, list[dict[str, float]]], goal: float) -> Figure:
    with house_style():
        figure = Figure(figsize=(10, 4.6), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=[1.25, 1])
        _draw_plane(left, paths, goal)
        _draw_angles(right, paths, goal)
        figure.suptitle(
            "Weights and shifts change the way, not the end: all lead to the separator of largest margin",
            fontsize=12,
            fontweight="bold",
            x=0.01,
            ha="left",
        )
    return figure


def _draw_plane(axes: Axes, paths: dict[str, list[dict[str, float]]], goal: float) -> None:
    far = math.log10(paths["erm"][-1]["step"])
    reach = far * 1.12
    radians = math.radians(goal)
    axes.plot(
        [0, reach * math.cos(radians)],
        [0, reach * math.sin(radians)],
        color="black",
        lw=1.2,
        ls="--",
        zorder=1,
    )
    for decade in range(1, int(far) + 1):
        arc = np.radians(np.linspace(-90, 90, 90))
        axes.plot(decade * np.cos(arc), decade * np.sin(arc), color="0.9", lw=0.8, zorder=0)
        axes.text(
            decade * math.cos(math.pi / 6),
            -decade * math.sin(math.pi / 6),
            f"step {10**decade:,}",
            color="0.5",
            fontsize=7,
            ha="center",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
        )
    for name, path in paths.items():
        radius = [math.log10(point["step"]) for point in path]
        angle = np.radians([point["degrees"] for point in path])
        axes.plot(radius * np.cos(angle), radius * np.sin(angle), color=_COLOURS[name], lw=2.4)
        axes.plot(
            radius[-1] * np.cos(angle[-1]), radius[-1] * np.sin(angle[-1]), "o", color=_COLOURS[name], ms=5
        )
    axes.set_aspect("equal")
    axes.set_xlim(0, reach)
    axes.set_ylim(-0.5 * reach, 0.5 * reach)
    axes.set_title("Direction of the weights, further out as steps go by")
    axes.set_xlabel("towards the core feature")
    axes.set_ylabel("towards the spurious feature")
    axes.set_xticks([])
    axes.set_yticks([])


def _draw_angles(axes: Axes, paths: dict[str, list[dict[str, float]]], goal: float) -> None:
    axes.axhline(goal, color="black", lw=1.2, ls="--", label="largest margin")
    for name, path in paths.items():
        steps, degrees = [point["step"] for point in path], [point["degrees"] for point in path]
        axes.plot(steps, degrees, color=_COLOURS[name], lw=2.4, label=_METHODS[name])
    axes.set_xscale("log")
    axes.set_xlabel("step of gradient descent")
    axes.set_ylabel("degrees off the core feature, towards the spurious")
    axes.set_title("The angle as it closes")
    axes.legend(loc="upper right")

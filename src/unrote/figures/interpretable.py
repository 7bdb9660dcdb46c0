"""Figure 1: memorization makes a shortcut stick, and MAT undoes it.

Three runs of a linear classifier on the paper's interpretable setup: ERM without example features (nothing can
be learned by heart), ERM with them, MAT with them. Above, the accuracy of majority and minority in training and
test as training goes; below, where the learned boundary lies between core and spurious feature.

Reference: Bayat et al. 2025, arXiv 2412.07684, figure 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from unrote.data import Split, Task, load_task
from unrote.figures.base import Claim, FigureResult, paper_method, register_figure
from unrote.figures.linear_setup import linear_session
from unrote.figures.style import MAJORITY, MINORITY, house_style, percent_axis
from unrote.metrics import group_accuracy
from unrote.models import Stack
from unrote.presets import PRESETS

_TEST_EXAMPLES = 10_000  # 5,000 of the minority: its accuracy is known to within a point


@dataclass(frozen=True)
class _Panel:
    title: str
    method: str
    sigma: float
    learning_rate: float


_PANELS = (
    _Panel("ERM, nothing to memorize", "erm", 0.0, 3e-2),
    _Panel("ERM, can memorize", "erm", 0.5, 1e-2),
    _Panel("MAT, can memorize", "mat", 0.5, 1e-2),
)


@register_figure("1", "memorization keeps a shortcut alive; MAT does without")
def draw(*, seed: int = 1234, fast: bool = False, progress: bool = False) -> FigureResult:
    """Draw figure 1.

    Args:
        seed: of data and training.
        fast: score a tenth of the test examples.
        progress: whether to show progress bars.
    """
    n_test = _TEST_EXAMPLES // 10 if fast else _TEST_EXAMPLES
    runs = [_run(panel, seed, n_test, progress) for panel in _PANELS]
    return FigureResult(
        numbers={"seed": seed, "n_test": n_test, "panels": runs},
        claims=_claims(runs),
        picture=_draw(runs, seed),
    )


def _run(panel: _Panel, seed: int, n_test: int, progress: bool) -> dict[str, Any]:
    task = load_task("interpretable", sigma=panel.sigma, seed=seed, n_test=n_test)
    session = linear_session(
        task,
        seed,
        recipe=replace(PRESETS["interpretable"].recipe, learning_rate=panel.learning_rate),
        evaluate=lambda stack: _majority_and_minority(stack, task),
        evaluate_every=20,
        progress=progress,
    )
    fitted = paper_method(panel.method).fit(session)
    history = fitted.training.history
    names = [f"{split}_{group}" for split in ("train", "test") for group in ("majority", "minority")]
    weight = fitted.stack.snapshot()["weight"][0]
    shown = slice(0, 400)
    return {
        "title": panel.title,
        "method": panel.method,
        "sigma": panel.sigma,
        "steps": [record["step"] for record in history],
        **{name: [record[name][0] for record in history] for name in names},
        # of the difference of the two logits: the boundary is where it is 0
        "core_and_spurious_weight": (weight[1] - weight[0])[:2].tolist(),
        "points": _core_and_spurious(task.train)[shown].tolist(),
        "classes": task.train.y[shown].tolist(),
    }


def _core_and_spurious(split: Split) -> Float[Tensor, "n 2"]:
    x: Tensor = split.x[torch.arange(len(split))]
    return x[:, :2]


def _majority_and_minority(stack: Stack, task: Task) -> dict[str, Float[Tensor, " S"]]:
    result: dict[str, Tensor] = {}
    for name, split in (("train", task.train), ("test", task.test)):
        assert split is not None
        correct = stack.predict_classes(split.x) == split.y
        accuracy = group_accuracy(correct, (split.y != split.attribute).long(), 2)
        result |= {f"{name}_majority": accuracy[:, 0], f"{name}_minority": accuracy[:, 1]}
    return result


def _claims(runs: Sequence[dict[str, Any]]) -> tuple[Claim, ...]:
    clean, erm, mat = (run["test_minority"][-1] for run in runs)
    majority = runs[2]["test_majority"][-1]
    learned = runs[1]["train_minority"][-1]
    return (
        Claim(f"nothing to memorize, ERM: minority test accuracy {clean:.2f}", clean >= 0.99),
        Claim(
            f"noise to memorize, ERM: minority accuracy {learned:.2f} in training, {erm:.2f} in test",
            learned >= 0.99 and erm <= 0.2,
        ),
        Claim(
            f"noise to memorize, MAT: minority test accuracy {mat:.2f} (majority {majority:.2f})",
            mat >= 0.88,
        ),
    )


def _draw(runs: Sequence[dict[str, Any]], seed: int) -> Figure:
    with house_style():
        figure = Figure(figsize=(10, 5.6), layout="constrained")
        rows = figure.subplots(2, 3, height_ratios=[1.15, 1])
        for column, run in enumerate(runs):
            _draw_curves(rows[0, column], run, first=column == 0)
            _draw_boundary(rows[1, column], run, first=column == 0)
        figure.suptitle(
            f"A linear classifier that can learn noise by heart hardly uses the core feature  (seed {seed})",
            fontsize=12,
            fontweight="bold",
            x=0.01,
            ha="left",
        )
    return figure


def _draw_curves(axes: Axes, run: dict[str, Any], first: bool) -> None:
    for group, colour in (("majority", MAJORITY), ("minority", MINORITY)):
        axes.plot(run["steps"], run[f"train_{group}"], color=colour, ls=":", lw=1.6)
        axes.plot(run["steps"], run[f"test_{group}"], color=colour, lw=2.2)
    end = run["test_minority"][-1]
    axes.annotate(
        f"minority, test: {end:.0%}",
        (run["steps"][-1], end),
        xytext=(0, -12 if end > 0.5 else 8),
        textcoords="offset points",
        ha="right",
        color=MINORITY,
        fontweight="bold",
    )
    axes.set_title(f"{run['title']}  (noise {run['sigma']:g})")
    axes.set_xlabel("training step")
    percent_axis(axes)
    if first:
        axes.set_ylabel("accuracy")
        axes.plot([], [], color="0.4", lw=2.2, label="test")
        axes.plot([], [], color="0.4", lw=1.6, ls=":", label="training")
        axes.plot([], [], color=MAJORITY, lw=5, label="majority: shortcut holds")
        axes.plot([], [], color=MINORITY, lw=5, label="minority: it does not")
        axes.legend(loc="center right", fontsize=8)


def _draw_boundary(axes: Axes, run: dict[str, Any], first: bool) -> None:
    points, classes = np.array(run["points"]), np.array(run["classes"])
    for label, marker in ((0, "o"), (1, "^")):
        own = points[classes == label]
        minority = (own[:, 1] > 0) != bool(label)
        for group, colour in ((~minority, MAJORITY), (minority, MINORITY)):
            axes.scatter(own[group, 1], own[group, 0], s=11, marker=marker, color=colour, alpha=0.55, lw=0)
    core, spurious = run["core_and_spurious_weight"]
    horizontal = np.array([-8.0, 8.0])
    axes.plot(horizontal, -spurious / core * horizontal, color="black", lw=2)
    axes.set_xlim(-8, 8)
    axes.set_ylim(-2, 2)
    axes.set_xlabel("spurious feature")
    if first:
        axes.set_ylabel("core feature")
        axes.text(7.8, -spurious / core * 2 + 0.1, "learned boundary", ha="right", fontsize=8)

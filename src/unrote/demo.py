"""The demonstration: ERM and MAT on handwritten digits, by group, and what ERM learned by rote."""

import time
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from unrote.api import evaluate, fit
from unrote.data import Task, load_task
from unrote.figures.style import METHOD_COLOURS, house_style, percent_axis
from unrote.methods import Fitted
from unrote.metrics import GroupReport

_SHOWN = 12  # training digits in the picture


@dataclass(frozen=True)
class Trained:
    """One method's classifier, its test report and how long it took."""

    method: str
    fitted: Fitted
    report: GroupReport
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """What JSON can hold."""
        return {"method": self.method, "seconds": round(self.seconds, 2), **self.report.to_dict()}


def run_demo(seed: int = 0, *, progress: bool = False) -> tuple[Task, list[Trained]]:
    """Train ERM and MAT on the digits task; neither sees a group label.

    Args:
        seed: of data and training.
        progress: whether to show progress bars.

    Returns:
        The task, and ERM and MAT in this order.
    """
    task = load_task("digits", seed=seed)
    results = []
    for method in ("erm", "mat"):
        start = time.perf_counter()
        fitted = fit(task, method, regime="none", seed=seed, progress=progress)
        results.append(Trained(method, fitted, evaluate(fitted, task), time.perf_counter() - start))
    return task, results


def learned_by_rote(task: Task, erm: Fitted, mat: Fitted) -> Float[Tensor, " n"]:
    """How much ERM owes its answer on a training example to having seen its label, (n,) in [-1, 1].

    The probability of the label under the classifier that trained on it, less that under the twin that did not.
    """
    y = task.train.y.unsqueeze(1)
    seen = erm.logits(task.train.x).softmax(1).gather(1, y)
    unseen = mat.artefacts["held_out"].logits.softmax(1).gather(1, y)
    score: Tensor = (seen - unseen).squeeze(1)
    return score


def draw_demo(task: Task, results: list[Trained]) -> Figure:
    """The picture: digits that ERM learned by rote, and both classifiers' accuracy by group."""
    erm, mat = results
    score = learned_by_rote(task, erm.fitted, mat.fitted)
    rows = score.argsort(descending=True)[:_SHOWN]
    with house_style():
        figure = Figure(figsize=(10.5, 4.4), layout="constrained")
        left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=[1, 1.15])[0]
        digits = left.subplots(3, _SHOWN // 3)
        for axes, row in zip(digits.flat, rows.tolist(), strict=True):
            _draw_digit(axes, task, row)
        left.suptitle(
            "Learned by rote: training digits on the wrong background\n", fontsize=10.5, fontweight="bold"
        )
        left.supxlabel("most digits 0-4 are on red, most digits 5-9 on blue", fontsize=9)
        _draw_accuracy(right.subplots(), task, results)
    return figure


def _draw_digit(axes: Axes, task: Task, row: int) -> None:
    image = task.train.x[torch.tensor([row])][0]
    # the two channels as red and blue, so that the tint is seen and a stroke, bright in both, stays light
    axes.imshow(torch.stack([image[0], image.min(0).values, image[1]], dim=-1).numpy())
    axes.set_title(task.class_names[int(task.train.y[row])], loc="center", fontsize=9, fontweight="normal")
    axes.set_axis_off()


def _draw_accuracy(axes: Axes, task: Task, results: list[Trained]) -> None:
    width = 0.38
    for place, result in enumerate(results):
        positions = [g + (place - 0.5) * width for g in range(task.n_groups)]
        accuracy = [group.accuracy or 0.0 for group in result.report.groups]
        intervals = [group.interval or (0.0, 0.0) for group in result.report.groups]
        errors = [
            [a - low for a, (low, _) in zip(accuracy, intervals, strict=True)],
            [high - a for a, (_, high) in zip(accuracy, intervals, strict=True)],
        ]
        colour = METHOD_COLOURS[result.method]
        axes.bar(positions, accuracy, width * 0.94, color=colour, label=result.method.upper())
        axes.errorbar(positions, accuracy, errors, fmt="none", ecolor="black", elinewidth=1, capsize=2)
        for x, a in zip(positions, accuracy, strict=True):
            axes.text(x, 0.02, f"{a:.0%}", ha="center", color="white", fontweight="bold", fontsize=9)
    names = [f"{c}\non {colour}" for c in task.class_names for colour in ("red", "blue")]
    axes.set_xticks(range(task.n_groups), names)
    percent_axis(axes)
    axes.set_title("Test accuracy by group (95% interval)")
    axes.legend(loc="upper right", bbox_to_anchor=(1.0, 1.12), ncols=2)

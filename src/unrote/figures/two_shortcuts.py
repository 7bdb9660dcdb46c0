"""Two shortcuts at once: what MAT does where held-out predictions lean on one of them.

The interpretable setup with a second spurious feature. Each agrees with the class in 90% of training, independently
of the other; in the test all four cases are as frequent. ERM, MAT without group labels as the paper has it, MAT that
looks for a second rule behind the first (`shortcuts=2`), and MAT with the exact shift log p(y | both attributes),
which is what the calibrated shift stands in for.

The paper plants one shortcut. The question is its readers'.
"""

from statistics import fmean

import torch
from jaxtyping import Bool
from matplotlib.figure import Figure
from torch import Tensor

from unrote.api import make_method
from unrote.data import Regime, Split, Task
from unrote.data.planted import plant_attribute
from unrote.figures.base import Claim, FigureResult, NumberTable, paper_method, register_figure
from unrote.figures.linear_setup import linear_session
from unrote.figures.style import METHOD_COLOURS, house_style, percent_axis
from unrote.seeding import derive_seed, generator

_SCALES = (5.0, 3.0)
_METHODS = {
    "erm": "ERM",
    "mat": "MAT, no groups",
    "mat, two": "MAT, no groups, one rule behind the other",
    "group_shift": "exact shift, both known",
}
_COLOURS = {
    **METHOD_COLOURS,
    "mat": "#8fc1a9",
    "mat, two": METHOD_COLOURS["mat"],
    "group_shift": METHOD_COLOURS["rwg"],
}
_CASES = ("both hold", "large one fails", "small one fails", "both fail")


@register_figure("two-shortcuts", "two shortcuts at once")
def draw(*, seed: int = 1, fast: bool = False, progress: bool = False) -> FigureResult:
    """Draw the figure.

    Args:
        seed: of the first draw of data and training.
        fast: a quarter of the examples and of the dimensions, one draw instead of two.
        progress: whether to show progress bars.
    """
    n, dims, draws = (250, 449, 1) if fast else (1000, 1797, 2)
    accuracy: dict[str, list[list[float]]] = {method: [] for method in _METHODS}
    for one in range(seed, seed + draws):
        task = two_shortcuts(n, dims, one)
        for method in _METHODS:
            accuracy[method].append(_accuracy(method, task, one, progress))
    mean = {method: [fmean(case) for case in zip(*found, strict=True)] for method, found in accuracy.items()}
    numbers = {"seed": seed, "n": n, "noise_dims": dims, "cases": _CASES, "accuracy": accuracy, "mean": mean}
    return FigureResult(numbers, _claims(mean), _draw(accuracy, mean), _table(mean))


def two_shortcuts(n: int, noise_dims: int, seed: int, sigma: float = 0.5) -> Task:
    """The interpretable setup with two spurious features, of scales 5 and 3.

    The attribute is 2 * a + b, where a and b are the classes that the two features speak for.
    """

    def part(name: str, size: int, alignment: float) -> Split:
        random = generator(seed, "two shortcuts", name)
        y = (torch.arange(size) % 2)[torch.randperm(size, generator=random)]
        speaks = [plant_attribute(y, 2, alignment, derive_seed(seed, name, which)) for which in range(2)]
        columns = [2.0 * y - 1 + 0.12 * torch.randn(size, generator=random)]
        for scale, attribute in zip(_SCALES, speaks, strict=True):
            columns.append(scale * (2.0 * attribute - 1 + 0.12 * torch.randn(size, generator=random)))
        noise = sigma * torch.randn(size, noise_dims, generator=random)
        return Split(torch.cat([torch.stack(columns, 1), noise], 1), y, 2 * speaks[0] + speaks[1])

    names = ("- -", "- +", "+ -", "+ +")
    return Task(
        "two shortcuts",
        train=part("train", n, 0.9),
        test=part("test", 4000, 0.5),
        class_names=("-1", "+1"),
        attribute_names=names,
    )


def _accuracy(method: str, task: Task, seed: int, progress: bool) -> list[float]:
    regime: Regime = "train" if method == "group_shift" else "none"
    session = linear_session(task, seed, regime, progress=progress)
    made = make_method("mat", temperature=0.1, shortcuts=2) if method == "mat, two" else paper_method(method)
    fitted = made.fit(session)
    assert task.test is not None
    correct = fitted.predict(task.test.x) == task.test.y
    return [float(correct[rows].float().mean()) for rows in _rows(task.test)]


def _rows(split: Split) -> list[Bool[Tensor, " n"]]:
    """Which examples belong to each of `_CASES`."""
    large, small = split.attribute // 2 != split.y, split.attribute % 2 != split.y
    return [~large & ~small, large & ~small, ~large & small, large & small]


def _claims(mean: dict[str, list[float]]) -> tuple[Claim, ...]:
    erm, mat, two, exact = (mean[method] for method in _METHODS)
    return (
        Claim(f"ERM: accuracy {erm[3]:.2f} where both shortcuts fail", erm[3] < 0.1),
        Claim(
            f"the exact shift with both attributes known: {exact[3]:.2f} there, worst case {min(exact):.2f}",
            min(exact) > 0.6,
        ),
        Claim(
            f"MAT without groups frees the model of one shortcut ({max(mat[1:3]):.2f} where it fails) and leaves it "
            f"to the other ({min(mat[1:3]):.2f}; ERM {min(erm[1:3]):.2f}); where both fail {mat[3]:.2f}",
            max(mat[1:3]) > 0.9 and min(mat[1:3]) < min(erm[1:3]) and mat[3] < 0.5,
        ),
        Claim(
            f"MAT without groups that looks for a rule behind the first: {two[3]:.2f} where both fail, worst case "
            f"{min(two):.2f}, as with both known",
            min(two) > min(exact) - 0.03,
        ),
    )


def _table(mean: dict[str, list[float]]) -> NumberTable:
    rows = tuple((_METHODS[method], *(f"{a:.3f}" for a in cases)) for method, cases in mean.items())
    return NumberTable(("test accuracy where", *_CASES), rows)


def _draw(accuracy: dict[str, list[list[float]]], mean: dict[str, list[float]]) -> Figure:
    width = 0.21
    with house_style():
        figure = Figure(figsize=(9, 4.2), layout="constrained")
        axes = figure.subplots()
        for place, method in enumerate(_METHODS):
            positions = [case + (place - 1.5) * width for case in range(len(_CASES))]
            axes.bar(positions, mean[method], width * 0.92, color=_COLOURS[method], label=_METHODS[method])
            for x, a, case in zip(positions, mean[method], range(len(_CASES)), strict=True):
                each = [found[case] for found in accuracy[method]]
                if len(each) > 1:
                    axes.plot([x] * len(each), each, "_", color="black", ms=9, alpha=0.6)
                above = max(each) + 0.015
                axes.text(x, above, f"{a:.0%}", ha="center", fontweight="bold", color=_COLOURS[method])
        axes.set_xticks(range(len(_CASES)), [f"{case}" for case in _CASES])
        percent_axis(axes)
        axes.set_ylim(0, 1.12)
        axes.set_ylabel("test accuracy")
        axes.set_xlabel(
            f"test examples, by shortcut (scales: large {_SCALES[0]:g}, small {_SCALES[1]:g}; core feature 1)"
        )
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4)
        figure.suptitle(
            "With two shortcuts, MAT leaves the model on one, unless it looks behind the first",
            fontsize=12,
            fontweight="bold",
            x=0.01,
            ha="left",
        )
    return figure

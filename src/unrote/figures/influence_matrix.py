"""Figure 4: which training examples speak for which targets, ordered by group.

The influence of a training example on a target is g_i' (H + damping I)^-1 g_j, with the gradients of the head's loss:
positive where leaving the example out would add to the target's loss. All training examples and all test examples are
taken for the numbers; the picture shows as many of each group, drawn at random, as the smallest of them allows.

Reference: Bayat et al. 2025, arXiv 2412.07684, figure 4.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import SymLogNorm
from matplotlib.figure import Figure

from unrote.data import Split
from unrote.figures.base import Claim, FigureResult, NumberTable, register_figure
from unrote.figures.rote import METHODS_SHOWN, Trained, tasks, trained
from unrote.figures.style import house_style
from unrote.memorization import influence_matrix
from unrote.seeding import generator

_EACH = 40  # examples of a group in the picture
_GROUPS = ("majority", "minority")


@register_figure("4", "the influence matrix: under ERM the minority speaks for itself")
def draw(
    *, seed: int = 0, fast: bool = False, progress: bool = False, features: Path | None = None
) -> FigureResult:
    """Draw figure 4, on the digits and the reviews.

    Args:
        seed: of data and training, and of the examples shown.
        fast: the digits alone.
        progress: whether to show progress bars.
        features: a file of features of the user's own, such as Waterbirds', to show too.
    """
    rows = [_row(trained(task, seed, progress), seed) for task in tasks(seed, fast, features)]
    return FigureResult({"seed": seed, "tasks": rows}, _claims(rows), _draw(rows), _table(rows))


def _row(made: Trained, seed: int) -> dict[str, Any]:
    train, test = made.task.train, made.task.test
    assert test is not None
    shown = [_shown(made.task.group(split), seed) for split in (train, test)]
    methods = {}
    for method in METHODS_SHOWN:
        matrix = influence_matrix(made.fitted[method], train.x, train.y.numpy(), test.x, test.y.numpy())
        matrix = matrix / len(train)
        methods[method] = {
            "blocks": _blocks(np.abs(matrix), train, test),
            "signed": _blocks(matrix, train, test),
            "shown": matrix[np.ix_(shown[0].numpy(), shown[1].numpy())].tolist(),
        }
    # of the rows and columns shown: where a group ends, and its name
    groups = [made.task.group(split)[rows] for split, rows in zip((train, test), shown, strict=True)]
    return {
        "task": made.task.name,
        "group_names": list(made.task.group_names),
        "sizes": [torch.bincount(g, minlength=made.task.n_groups).tolist() for g in groups],
        "methods": methods,
    }


def _shown(groups: torch.Tensor, seed: int) -> torch.Tensor:
    """Rows to show, ordered by group: the same number of each that has any, at most `_EACH`."""
    present = [(groups == g).nonzero().flatten() for g in groups.unique()]
    each = min(_EACH, *(len(rows) for rows in present))
    random = generator(seed, "influence matrix shown")
    return torch.cat([rows[torch.randperm(len(rows), generator=random)[:each]] for rows in present])


def _blocks(matrix: np.ndarray, train: Split, test: Split) -> list[list[float]]:
    """Mean over all pairs: rows training majority and minority, columns test majority and minority."""
    rows, columns = ((split.y != split.attribute).numpy() for split in (train, test))
    return [[float(matrix[np.ix_(rows == r, columns == c)].mean()) for c in (0, 1)] for r in (0, 1)]


def _weight(row: dict[str, Any], method: str) -> float:
    """How much more a minority example weighs on the minority's targets than a majority example does."""
    (_, majority), (_, minority) = row["methods"][method]["blocks"]
    return float(minority / majority)


def _claims(rows: list[dict[str, Any]]) -> tuple[Claim, ...]:
    claims = []
    for row in rows:
        erm, mat = _weight(row, "erm"), _weight(row, "mat")
        claims.append(
            Claim(
                f"{row['task']}: on minority targets a minority training example weighs {erm:.1f} times as much as a "
                f"majority one under ERM, {mat:.1f} times under MAT",
                erm > 2 and mat < erm / 2,
            )
        )
    return tuple(claims)


def _table(rows: list[dict[str, Any]]) -> NumberTable:
    cells = []
    for row in rows:
        for method, found in row["methods"].items():
            for r, group in enumerate(_GROUPS):
                values = (f"{found[kind][r][c]:.2g}" for c in (0, 1) for kind in ("blocks", "signed"))
                cells.append((f"{row['task']}, {METHODS_SHOWN[method]}, {group}", *values))
    head = (
        "influence / n of a training example of",
        "majority: mean size",
        "mean",
        "minority: mean size",
        "mean",
    )
    return NumberTable(head, tuple(cells))


def _draw(rows: list[dict[str, Any]]) -> Figure:
    with house_style():
        figure = Figure(figsize=(10.5, 0.7 + 4.2 * len(rows)), layout="constrained")
        grid = figure.subplots(len(rows), 2, squeeze=False)
        for line, row in enumerate(rows):
            everything = np.abs([row["methods"][m]["shown"] for m in METHODS_SHOWN])
            high = float(np.quantile(everything, 0.995))
            norm = SymLogNorm(linthresh=high / 300, vmin=-high, vmax=high)
            for axes, method in zip(grid[line], METHODS_SHOWN, strict=True):
                image = axes.imshow(row["methods"][method]["shown"], cmap="RdBu_r", norm=norm, aspect="auto")
                _draw_groups(axes, row, first=method == "erm")
                axes.set_title(
                    f"{row['task'].capitalize()}, {METHODS_SHOWN[method]}: minority weighs "
                    f"{_weight(row, method):.1f} times majority"
                )
            bar = figure.colorbar(image, ax=grid[line], pad=0.01, shrink=0.8, ticks=[-high, 0, high])
            bar.ax.set_yticklabels(["contradicts", "none", "supports"])
        figure.suptitle(
            "Under ERM, minority targets hang on single minority examples",
            fontsize=12,
            fontweight="bold",
            x=0.01,
            ha="left",
        )
    return figure


def _draw_groups(axes: Axes, row: dict[str, Any], first: bool) -> None:
    for which, set_ticks in ((0, axes.set_yticks), (1, axes.set_xticks)):
        sizes = [size for size in row["sizes"][which] if size]
        names = [name for name, size in zip(row["group_names"], row["sizes"][which], strict=True) if size]
        ends = np.cumsum(sizes)
        for end in ends[:-1]:
            (axes.axhline if which == 0 else axes.axvline)(end - 0.5, color="black", lw=0.8)
        shown = [name.replace(", ", ",\n") for name in names]
        set_ticks(
            ends - np.array(sizes) / 2 - 0.5, shown if which == 1 or first else [""] * len(shown), fontsize=7
        )
    axes.tick_params(length=0)
    axes.set_xlabel("test examples, by class and attribute")
    if first:
        axes.set_ylabel("training examples (each group at equal size)")

"""Figure 2: whom a classifier has learned by heart, by group, under ERM and under MAT.

Self-influence says how much an example's own gradient moves the head that fits it. Divided by n it is, to first
order, the loss that leaving the example out would add to its own. ERM and MAT are trained on the same task without
group labels; the score is then split by whether the shortcut holds for the example (majority) or not (minority). It
is that of the plain cross-entropy, without MAT's shift, for both.

Reference: Bayat et al. 2025, arXiv 2412.07684, figure 2.
"""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from unrote.figures.base import Claim, FigureResult, NumberTable, register_figure
from unrote.figures.rote import METHODS_SHOWN, Trained, tasks, trained
from unrote.figures.style import MAJORITY, MINORITY, house_style
from unrote.memorization import compare, self_influence

_GROUPS = ("majority", "minority")
_COLOURS = {"majority": MAJORITY, "minority": MINORITY}
_EDGES = (1e-4, 1e-3, 1e-2, 1e-1)
_INTERVALS = ("< 0.0001", "to 0.001", "to 0.01", "to 0.1", "> 0.1")
_SHADES = ("#eeeeee", "#cfcfcf", "#a5a5a5", "#6b6b6b", "#1f1f1f")
_SMALLEST = 1e-8


@register_figure("2", "self-influence by group: ERM has learned the minority by heart")
def draw(
    *, seed: int = 0, fast: bool = False, progress: bool = False, features: Path | None = None
) -> FigureResult:
    """Draw figure 2, on the digits and the reviews.

    Args:
        seed: of data and training.
        fast: the digits alone.
        progress: whether to show progress bars.
        features: a file of features of the user's own, such as Waterbirds', to show too.
    """
    rows = [_row(trained(task, seed, progress)) for task in tasks(seed, fast, features)]
    return FigureResult(
        {"seed": seed, "edges": _EDGES, "tasks": rows}, _claims(rows), _draw(rows), _table(rows)
    )


def _row(made: Trained) -> dict[str, Any]:
    minority = made.minority.numpy()
    train = made.task.train
    found = compare(
        made.fitted, train.x, train.y.numpy(), minority, score=self_influence, group_names=_GROUPS
    )
    methods = {}
    for method in METHODS_SHOWN:
        score = found.scores[method].values / len(train)
        groups = {}
        for g, group in enumerate(_GROUPS):
            own = score[minority == g]
            counts = np.bincount(np.searchsorted(_EDGES, own), minlength=len(_INTERVALS))
            groups[group] = {
                "n": len(own),
                "median": float(np.median(own)),
                "shares": (counts / len(own)).tolist(),
                "scores": own.tolist(),
            }
        auc = next(k.auc for k in found.kept if k.method == method and k.group == "minority")
        methods[method] = {"groups": groups, "auc": auc, "worst_group": made.worst_group(method)}
    return {"task": made.task.name, "methods": methods}


def _claims(rows: list[dict[str, Any]]) -> tuple[Claim, ...]:
    claims = []
    for row in rows:
        erm, mat = (row["methods"][method] for method in METHODS_SHOWN)
        big = [m["groups"]["minority"]["shares"][-1] for m in (erm, mat)]
        claims.append(
            Claim(
                f"{row['task']}: a minority example scores above a majority one with probability {erm['auc']:.2f} "
                f"under ERM, {mat['auc']:.2f} under MAT",
                erm["auc"] > 0.8 and mat["auc"] < erm["auc"] - 0.2,
            )
        )
        claims.append(
            Claim(
                f"{row['task']}: {big[0]:.0%} of the minority score above 0.1 under ERM, {big[1]:.0%} under MAT",
                big[1] < big[0] / 2,
            )
        )
    return tuple(claims)


def _table(rows: list[dict[str, Any]]) -> NumberTable:
    cells = []
    for row in rows:
        for method, found in row["methods"].items():
            for group, of in found["groups"].items():
                shares = (f"{share:.1%}" for share in of["shares"])
                cells.append(
                    (
                        f"{row['task']}, {METHODS_SHOWN[method]}, {group}",
                        f"{of['n']:,}",
                        f"{of['median']:.2g}",
                        *shares,
                    )
                )
    return NumberTable(("self-influence / n of", "examples", "median", *_INTERVALS), tuple(cells))


def _draw(rows: list[dict[str, Any]]) -> Figure:
    with house_style():
        figure = Figure(figsize=(10.5, 0.9 + 2.7 * len(rows)), layout="constrained")
        grid = figure.subplots(len(rows), 3, squeeze=False, width_ratios=[1, 1, 1.15])
        for line, row in enumerate(rows):
            top = max(_draw_distribution(grid[line, k], row, m) for k, m in enumerate(METHODS_SHOWN))
            for axes in grid[line, :2]:
                axes.set_ylim(0, 1.25 * top)
            _draw_shares(grid[line, 2], row)
            grid[line, 0].set_ylabel("share of the group")
            grid[line, 2].set_title(f"{row['task'].capitalize()}: share of examples per interval")
        for axes in grid[-1, :2]:
            axes.set_xlabel("self-influence / n  (loss added by leaving out)")
        figure.suptitle(
            "ERM learns the minority by heart, MAT does not",
            fontsize=12,
            fontweight="bold",
            x=0.01,
            ha="left",
        )
    return figure


def _draw_distribution(axes: Axes, row: dict[str, Any], method: str) -> float:
    """Histograms of both groups over the logarithm of the score; gives the highest share."""
    found, highest = row["methods"][method], 0.0
    bins = np.geomspace(_SMALLEST, 100, 41).tolist()
    for group, of in found["groups"].items():
        scores = np.clip(of["scores"], _SMALLEST, None)
        colour = _COLOURS[group]
        weights = np.full(len(scores), 1 / len(scores))
        name = f"{group} ({of['n']:,})"
        shares, *_ = axes.hist(scores, bins, weights=weights, color=colour, alpha=0.45, label=name)
        axes.hist(scores, bins, weights=weights, color=colour, histtype="step", lw=1.5)
        axes.axvline(max(of["median"], _SMALLEST), color=colour, lw=1.2, ls="--")
        highest = max(highest, float(np.max(shares)))
    axes.set_xscale("log")
    axes.set_title(
        f"{row['task'].capitalize()}, {METHODS_SHOWN[method]}  (worst group {found['worst_group']:.0%})"
    )
    axes.set_yticks([])
    if method == "erm":
        axes.plot([], [], color="0.4", lw=1.2, ls="--", label="median")
        axes.legend(loc="upper left", fontsize=8)
    return highest


def _draw_shares(axes: Axes, row: dict[str, Any]) -> None:
    bars = [(method, group) for method in METHODS_SHOWN for group in _GROUPS]
    for height, (method, group) in enumerate(bars):
        left = 0.0
        shares = row["methods"][method]["groups"][group]["shares"]
        for interval, share, shade in zip(_INTERVALS, shares, _SHADES, strict=True):
            label = interval if height == 0 else None
            axes.barh(height, share, left=left, height=0.72, color=shade, label=label)
            if share >= 0.08:
                ink = "white" if shade in _SHADES[3:] else "black"
                axes.text(
                    left + share / 2, height, f"{share:.0%}", ha="center", va="center", color=ink, fontsize=8
                )
            left += share
    axes.set_yticks(range(len(bars)), [f"{METHODS_SHOWN[method]}, {group}" for method, group in bars])
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xticks([])
    axes.spines[["bottom", "left"]].set_visible(False)
    axes.legend(
        loc="upper center", bbox_to_anchor=(0.45, 0.0), ncols=5, fontsize=7, handlelength=1, columnspacing=1
    )

"""Figure 3: memorization that is good, bad or ugly.

A network is fitted to 20 noisy values of a smooth function, until it gives each of them back. Beside the number that
the function depends on, each example has features of its own: 30 numbers of noise.

    good  a little noise: the function is learned from x, and only its label's noise by heart from the features
    bad   ten times as much: examples are told apart by their features, and little is learned from x
    ugly  none: the function itself must bend to each noisy label

Away from the examples the features are 0, and what the network says there shows which of the three it did.

Reference: Bayat et al. 2025, arXiv 2412.07684, figure 3.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

from unrote.figures.base import Claim, FigureResult, NumberTable, register_figure
from unrote.figures.style import METHOD_COLOURS, MINORITY, house_style
from unrote.progress import progress_bar
from unrote.seeding import generator, global_seed

_N, _DIMS, _LABEL_NOISE, _HIDDEN = 20, 30, 0.08, 300
_RANGE = 1.5
_SHOWN = 1.2  # the ends are extrapolation on one side
_MAX_STEPS = 100_000


@dataclass(frozen=True)
class _Kind:
    name: str
    sigma: float
    what: str


_KINDS = (
    _Kind("good", 1e-4, "the function is learned,\nits noise by heart"),
    _Kind("bad", 1e-3, "examples are learned by heart,\nthe function is not"),
    _Kind("ugly", 0.0, "the function itself\nbends to the noise"),
)


def target(x: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """The smooth function: tanh(x) + 0.5 tanh(-5 x)."""
    return torch.tanh(x) + 0.5 * torch.tanh(-5 * x)


@register_figure("3", "memorization that is good, bad or ugly: a regression")
def draw(*, seed: int = 0, fast: bool = False, progress: bool = False) -> FigureResult:
    """Draw figure 3.

    Args:
        seed: of data and network.
        fast: train until the loss is 1e-4 instead of 1e-6.
        progress: whether to show progress bars.
    """
    stop = 1e-4 if fast else 1e-6
    runs = [_run(kind, seed, stop, progress) for kind in _KINDS]
    numbers = {"seed": seed, "stop": stop, "label_noise": _LABEL_NOISE, "runs": runs}
    return FigureResult(numbers, _claims(numbers), _draw(runs), _table(runs))


def _run(kind: _Kind, seed: int, stop: float, progress: bool) -> dict[str, Any]:
    x = torch.linspace(-_RANGE, _RANGE, _N)
    # the same labels and the same directions of the features in all three
    labels = target(x) + _LABEL_NOISE * torch.randn(_N, generator=generator(seed, "labels"))
    features = kind.sigma * torch.randn(_N, _DIMS, generator=generator(seed, "features"))
    network, steps, loss = _fit(_inputs(x, features), labels, seed, stop, kind.name if progress else None)
    grid = torch.linspace(-_RANGE, _RANGE, 601)
    with torch.no_grad():
        between = network(_inputs(grid, torch.zeros(len(grid), _DIMS)))[:, 0]
        bare = network(_inputs(x, torch.zeros(_N, _DIMS)))[:, 0]
    shown = grid.abs() <= _SHOWN
    inner = x.abs() <= _SHOWN
    return {
        "name": kind.name,
        "sigma": kind.sigma,
        "what": kind.what,
        "steps": steps,
        "loss": loss,
        "error": _rms(between[shown] - target(grid)[shown]),
        "label_error": _rms((labels - target(x))[inner]),
        "by_heart": _rms((bare - labels)[inner]),
        "x": x.tolist(),
        "labels": labels.tolist(),
        "grid": grid.tolist(),
        "predicted": between.tolist(),
        "truth": target(grid).tolist(),
    }


def _inputs(x: Float[Tensor, " n"], features: Float[Tensor, "n e"]) -> Float[Tensor, "n d"]:
    return torch.cat([x.unsqueeze(1), features], dim=1)


def _rms(values: Tensor) -> float:
    return float(values.square().mean().sqrt())


def _fit(
    x: Float[Tensor, "n d"], labels: Float[Tensor, " n"], seed: int, stop: float, progress: str | None
) -> tuple[nn.Module, int, float]:
    """A network with two hidden layers, trained until its mean squared error is below `stop`."""
    with global_seed(seed, "network"):
        network = nn.Sequential(
            nn.Linear(x.shape[1], _HIDDEN),
            nn.Tanh(),
            nn.Linear(_HIDDEN, _HIDDEN),
            nn.Tanh(),
            nn.Linear(_HIDDEN, 1),
        )
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    with progress_bar(progress or "", _MAX_STEPS, show=progress is not None) as advance:
        for step in range(1, _MAX_STEPS + 1):
            loss = (network(x)[:, 0] - labels).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if step % 50 == 0:
                advance(step, f"loss {loss.item():.1e}")
            if loss.item() < stop:
                break
    return network, step, loss.item()


def _claims(numbers: dict[str, Any]) -> tuple[Claim, ...]:
    good, bad, ugly = numbers["runs"]
    stop, noise = numbers["stop"], numbers["label_noise"]
    worst = max(run["loss"] for run in numbers["runs"])
    return (
        Claim(f"all three give back every noisy label: mean squared error at most {worst:.1e}", worst < stop),
        Claim(
            f"good: between the examples the function is learned to within {good['error']:.3f}, "
            f"under the labels' noise of {noise:g}; without its features an example's label is off by "
            f"{good['by_heart']:.3f}",
            good["error"] < noise and good["by_heart"] > noise / 4,
        ),
        Claim(
            f"bad: with ten times the noise the function is missed by {bad['error']:.3f}",
            bad["error"] > 1.5 * good["error"],
        ),
        Claim(
            f"ugly: without noise the function bends and is missed by {ugly['error']:.3f}, "
            f"and every label is given back without features ({ugly['by_heart']:.3f} off)",
            ugly["error"] > 1.2 * good["error"] and ugly["by_heart"] < noise / 4,
        ),
    )


def _table(runs: Sequence[dict[str, Any]]) -> NumberTable:
    rows = [
        (
            run["name"],
            f"{run['sigma']:g}",
            f"{run['steps']:,}",
            f"{run['loss']:.1e}",
            f"{run['error']:.3f}",
            f"{run['by_heart']:.3f}",
        )
        for run in runs
    ]
    return NumberTable(
        (
            "memorization",
            "noise s",
            "steps",
            "training loss",
            "error between examples",
            "label off without e",
        ),
        tuple(rows),
    )


def _draw(runs: Sequence[dict[str, Any]]) -> Figure:
    with house_style():
        figure = Figure(figsize=(10, 3.9), layout="constrained")
        places = figure.subplots(1, 3, sharey=True)
        for axes, run in zip(places, runs, strict=True):
            _draw_run(axes, run)
        places[0].set_ylabel("value")
        figure.legend(*places[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
        figure.suptitle(
            "Three ways to learn 20 noisy values by heart: all fit every dot, one knows the function",
            fontsize=12,
            fontweight="bold",
            x=0.01,
            ha="left",
        )
    return figure


def _draw_run(axes: Axes, run: dict[str, Any]) -> None:
    axes.plot(run["grid"], run["truth"], color="0.55", lw=1.6, ls="--", label="the true function")
    axes.plot(
        run["grid"],
        run["predicted"],
        color=METHOD_COLOURS["mat"],
        lw=2.2,
        label="the network, the examples' own features at 0",
    )
    axes.scatter(
        run["x"],
        run["labels"],
        s=22,
        color=MINORITY,
        zorder=3,
        lw=0,
        label="noisy training examples; with their features all are fitted",
    )
    axes.set_xlim(-_SHOWN, _SHOWN)
    axes.set_ylim(-0.62, 0.62)
    axes.set_title(f"{run['name'].capitalize()}  (noise {run['sigma']:g})")
    axes.text(0.03, 0.97, run["what"], transform=axes.transAxes, va="top")
    axes.text(
        0.97,
        0.03,
        f"error between examples {run['error']:.3f}",
        transform=axes.transAxes,
        ha="right",
        color=METHOD_COLOURS["mat"],
        fontweight="bold",
    )
    axes.set_xlabel("x")

"""The charts of single examples as Vega-Lite specifications: self-influence, shift, influence matrix."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from unrote.report.charts import COLOURS, Spec, base_spec, colour_by

_BINS = 24
_DECADES = 8  # of self-influence that a chart shows; what is smaller still is all the same: none


def spread_values(
    scores: Sequence[np.ndarray], group: np.ndarray, names: Sequence[str]
) -> list[list[dict[str, Any]]]:
    """For each method, each group's share of examples in each of the same intervals of the score, on a log scale.

    Args:
        scores: (n,) of each method, at least 0.
        group: (n,) of each example; -1 is left out.
        names: of the groups.
    """
    positive = np.concatenate([one[one > 0] for one in scores] or [np.ones(1)])
    low, high = (np.log10(np.quantile(positive, q)) for q in (0.005, 1.0)) if len(positive) else (0.0, 1.0)
    low = max(low, high - _DECADES)
    edges = np.logspace(np.floor(low), max(np.ceil(high), np.floor(low) + 1), _BINS + 1)
    result = []
    for one in scores:
        clipped = one.clip(edges[0], edges[-1])  # what is smaller counts in the first interval
        lines = []
        for g, name in enumerate(names):
            own = clipped[group == g]
            if not len(own):
                continue
            counts, _ = np.histogram(own, edges)
            lines += [
                {
                    "group": name,
                    "from": float(a),
                    "to": float(b),
                    "share": float(c / len(own)),
                    "count": int(c),
                }
                for a, b, c in zip(edges[:-1], edges[1:], counts, strict=True)
            ]
        result.append(lines)
    return result


def spread_chart(values: list[dict[str, Any]], names: Sequence[str], title: str, top: float) -> Spec:
    """How self-influence is spread in each group.

    Args:
        values: of one method; see `spread_values`.
        names: of the groups.
        title: of the method.
        top: the largest share in any method's chart, so that all have the same axis.
    """
    edges = [min(one["from"] for one in values), max(one["to"] for one in values)]
    encoding: Spec = {
        "x": {
            "field": "from",
            "type": "quantitative",
            "title": "self-influence (log scale)",
            "scale": {"type": "log", "domain": edges},
            "axis": {"format": "~g", "tickCount": 5, "grid": False},
        },
        "y": {
            "field": "share",
            "type": "quantitative",
            "title": None,
            "scale": {"domain": [0, top]},
            "axis": {"format": "%", "tickCount": 4},
        },
        "color": colour_by("group", names),
        "tooltip": [
            {"field": "group"},
            {"field": "from", "format": ".2g"},
            {"field": "to", "format": ".2g"},
            {"field": "share", "format": ".1%"},
            {"field": "count", "format": ",", "title": "examples"},
        ],
    }
    return base_spec(
        values,
        f"Share of each group's training examples by self-influence under {title}",
        height=200,
        layer=[
            {
                "mark": {"type": "area", "interpolate": "step-after", "opacity": 0.18, "line": False},
                "encoding": {**encoding, "y": {**encoding["y"], "stack": None}},
            },
            {"mark": {"type": "line", "interpolate": "step-after", "strokeWidth": 2}, "encoding": encoding},
        ],
    )


def shift_values(shift: np.ndarray, group: np.ndarray, names: Sequence[str]) -> list[dict[str, Any]]:
    """Quantiles of the shift towards the label in each group."""
    values = []
    for g, name in enumerate(names):
        own = shift[group == g]
        if len(own):
            q = np.quantile(own, (0.05, 0.25, 0.5, 0.75, 0.95)).tolist()
            values.append(
                {
                    "group": name,
                    "n": len(own),
                    **dict(zip(("q05", "q25", "q50", "q75", "q95"), q, strict=True)),
                }
            )
    return values


def shift_chart(values: list[dict[str, Any]], title: str) -> Spec:
    """How far the shift speaks for the label: middle half, 90%, median, by group."""
    groups = [one["group"] for one in values]
    y = {
        "field": "group",
        "type": "nominal",
        "sort": groups,
        "title": None,
        "axis": {"labelExpr": "split(datum.label, ', ')", "domain": False, "ticks": False, "labelPadding": 8},
    }
    x = {"type": "quantitative", "title": "shift towards the label", "axis": {"tickCount": 5}}
    tip = [
        {"field": "group"},
        *(
            {"field": q, "format": ".2f", "title": t}
            for q, t in (("q05", "5% below"), ("q50", "median"), ("q95", "95% below"))
        ),
    ]
    colour = colour_by("group", groups)
    return base_spec(
        values,
        f"Shift of {title} towards the label, by group",
        height=40 * len(groups) + 10,
        layer=[
            {
                "mark": {"type": "rule", "stroke": "#8889", "strokeDash": [4, 3]},
                "encoding": {"x": {"datum": 0}},
            },
            {
                "mark": {"type": "rule", "strokeWidth": 2},
                "encoding": {"y": y, "color": colour, "x": {"field": "q05", **x}, "x2": {"field": "q95"}},
            },
            {
                "mark": {"type": "bar", "height": 12},
                "encoding": {
                    "y": y,
                    "color": colour,
                    "x": {"field": "q25", **x},
                    "x2": {"field": "q75"},
                    "tooltip": tip,
                },
            },
            {
                "mark": {"type": "point", "filled": True, "size": 60, "opacity": 1},
                "encoding": {"y": y, "color": colour, "x": {"field": "q50", **x}, "tooltip": tip},
            },
        ],
    )


def influence_values(matrix: np.ndarray) -> list[dict[str, Any]]:
    """A line per cell: row, column, influence."""
    return [
        {"row": r, "column": c, "influence": float(matrix[r, c])}
        for r in range(matrix.shape[0])
        for c in range(matrix.shape[1])
    ]


def influence_chart(
    values: list[dict[str, Any]],
    marks: Mapping[str, Sequence[tuple[int, str]]],
    high: float,
    title: str,
    split: str,
) -> Spec:
    """The influence matrix: one colour where the training example helps, another where it harms.

    Args:
        values: see `influence_values`.
        marks: for "row" and "column", where each group begins.
        high: influence at which colours are full, the same for all methods.
        title: of the method.
        split: that the columns are of.
    """
    cells = {
        "name": "cells",
        "mark": {"type": "rect", "stroke": None},
        "encoding": {
            "x": _side("column", f"{split} examples, by group"),
            "y": _side("row", "training examples, by group"),
            "color": {
                "condition": {"test": "datum.influence < 0", "value": COLOURS[1]},
                "value": COLOURS[0],
            },
            "fillOpacity": _fullness(max(high, 1e-12)),
        },
    }
    lines = [
        {
            "data": {"values": [{"at": int(place)} for place, _ in marks[side] if place]},
            "mark": {"type": "rule", "stroke": "currentColor", "strokeWidth": 1, "strokeOpacity": 0.6},
            "encoding": {channel: {"field": "at", "type": "ordinal", "bandPosition": 0}},
        }
        for side, channel in (("row", "y"), ("column", "x"))
        if len(marks[side]) > 1
    ]
    return base_spec(
        values,
        f"Influence of training examples (rows) on other examples (columns) under {title}",
        height=300,
        layer=[cells, *lines],
        transform=[{"calculate": "abs(datum.influence)", "as": "size"}],
    )


def _side(field: str, title: str) -> Spec:
    """One side of the matrix, without a label for each example."""
    return {
        "field": field,
        "type": "ordinal",
        "title": title,
        "axis": {"labels": False, "ticks": False, "domain": False},
        "scale": {"padding": 0},
    }


def _fullness(limit: float) -> Spec:
    """How full a cell's colour is: logarithmic in the influence but near 0, as a few are far larger than most."""
    scale = {"type": "symlog", "constant": limit / 300, "domain": [0, limit], "range": [0, 1], "clamp": True}
    return {"field": "size", "type": "quantitative", "scale": scale, "legend": None}

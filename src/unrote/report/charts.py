"""The charts of accuracy as Vega-Lite specifications, with the figures in them.

Colours of text and lines are "currentColor", so that the page's style sheet decides them: light, dark or printed.
Every chart has its figures in `data.values`, and the page has them as a table too.
"""

from collections.abc import Sequence
from typing import Any

from unrote.report.saved_run import RunRecord

COLOURS = ("#3b82c4", "#d9730d", "#2a9d6f", "#a465c9", "#d64550", "#129aa8", "#b08900", "#d1609c")
"""Legible on white and on near-black; told apart by dashes and shapes too."""

FEW_GROUPS = 4
"""Groups that a chart with a line for each can hold; above, it shows the worst and the average."""


Spec = dict[str, Any]

_CONFIG: Spec = {
    "background": "transparent",
    "view": {"stroke": None},
    "font": "system-ui, sans-serif",
    "axis": {
        "labelColor": "currentColor",
        "titleColor": "currentColor",
        "tickColor": "currentColor",
        "domainColor": "currentColor",
        "gridColor": "#8886",
        "gridWidth": 0.5,
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "labelLimit": 170,
    },
    "axisX": {"labelOverlap": "greedy"},
}


def base_spec(values: list[dict[str, Any]], description: str, **rest: Any) -> Spec:
    """A chart as wide as its place on the page.

    Args:
        values: the figures.
        description: for those who do not see it.
        **rest: of the specification.
    """
    return {
        "description": description,
        "data": {"name": "figures", "values": values},
        "width": "container",
        "autosize": {"type": "fit-x", "contains": "padding"},
        "config": _CONFIG,
        **rest,
    }


def colour_by(field: str, names: Sequence[str]) -> Spec:
    """Colours by a field, the same for the same names on all charts; the legend is the page's own."""
    colours = [COLOURS[k % len(COLOURS)] for k in range(len(names))]
    return {
        "field": field,
        "type": "nominal",
        "scale": {"domain": list(names), "range": colours},
        "legend": None,
    }


_SHAPES = ("circle", "diamond", "square", "triangle-up", "cross", "triangle-down")


def accuracy_values(record: RunRecord, titles: Sequence[str]) -> list[dict[str, Any]]:
    """A line per group and method: accuracy with its interval."""
    return [
        {
            "group": one.name,
            "method": title,
            "accuracy": one.accuracy,
            "low": None if one.interval is None else one.interval[0],
            "high": None if one.interval is None else one.interval[1],
            "n": one.n,
            "worst": one == method.scores.worst_group,
        }
        for title, method in zip(titles, record.contents.methods, strict=True)
        if method.scores is not None
        for one in method.scores.groups
        if one.n
    ]


def accuracy_chart(values: list[dict[str, Any]], titles: Sequence[str]) -> Spec:
    """Accuracy by group and method: a point and its interval."""
    groups = list(dict.fromkeys(one["group"] for one in values))
    y = {
        "field": "group",
        "type": "nominal",
        "sort": groups,
        "title": None,
        "axis": {"labelExpr": "split(datum.label, ', ')", "domain": False, "ticks": False, "labelPadding": 8},
        "scale": {"paddingInner": 0.25},
    }
    place = {
        "y": y,
        "yOffset": {"field": "method", "sort": list(titles)},
        "color": colour_by("method", titles),
    }
    shape = {"field": "method", "scale": {"domain": list(titles), "range": list(_SHAPES)}, "legend": None}
    x = {"type": "quantitative", "scale": {"domain": [0, 1]}, "axis": {"format": "%", "tickCount": 5}}
    tip = [
        {"field": "method", "title": "method"},
        {"field": "group", "title": "group"},
        {"field": "accuracy", "format": ".1%"},
        {"field": "low", "format": ".1%", "title": "95% from"},
        {"field": "high", "format": ".1%", "title": "to"},
        {"field": "n", "format": ",", "title": "examples"},
    ]
    return base_spec(
        values,
        "Accuracy of each method on each group, with 95% intervals",
        height=len(groups) * (14 + 18 * len(titles)),
        layer=[
            {
                "mark": {"type": "rule", "strokeWidth": 2},
                "encoding": {
                    **place,
                    "x": {"field": "low", "title": "accuracy", **x},
                    "x2": {"field": "high"},
                },
            },
            {
                "mark": {"type": "point", "filled": True, "size": 75, "opacity": 1},
                "encoding": {
                    **place,
                    "shape": shape,
                    "x": {"field": "accuracy", "title": "accuracy", **x},
                    "tooltip": tip,
                },
            },
        ],
    )


def curve_values(record: RunRecord, k: int) -> list[dict[str, Any]]:
    """A line per look, split and group of method k; with many groups the worst and the average alone."""
    method = record.contents.methods[k]
    if method.curves is None:
        return []
    found: dict[str, dict[str, list[float | None]]] = {}
    for name, series in method.curves.series.items():
        split, separator, group = name.partition("/")
        if separator:
            found.setdefault(split, {})[group] = series
    values = []
    for split, series_of in found.items():
        groups = [g for g in series_of if g != "average"]
        shown = {g: series_of[g] for g in groups}
        if len(groups) > FEW_GROUPS:
            looks = zip(*(series_of[g] for g in groups), strict=True)
            worst = [min((v for v in look if v is not None), default=None) for look in looks]
            shown = {"worst group": worst, "average": series_of.get("average", [])}
        elif not groups:
            shown = {"average": series_of.get("average", [])}
        values += [
            {"step": step, "split": split, "group": group, "accuracy": value}
            for group, series in shown.items()
            for step, value in zip(method.curves.steps, series, strict=False)
            if value is not None
        ]
    return values


def curve_chart(values: list[dict[str, Any]], groups: Sequence[str], title: str) -> Spec:
    """Accuracy by training step: unbroken on examples that were held back, dashed on those trained on."""
    splits = sorted({one["split"] for one in values}, key=lambda name: name == "train")
    return base_spec(
        values,
        f"Accuracy of {title} by group as training goes",
        height=230,
        mark={"type": "line", "strokeWidth": 2},
        encoding={
            "x": {"field": "step", "type": "quantitative", "title": "training step", "axis": {"grid": False}},
            "y": {
                "field": "accuracy",
                "type": "quantitative",
                "title": None,
                "scale": {"domain": [0, 1]},
                "axis": {"format": "%", "tickCount": 5},
            },
            "color": colour_by("group", groups),
            "strokeDash": {
                "field": "split",
                "scale": {"domain": splits, "range": [[1, 0], [3, 4]][: len(splits)]},
                "legend": None,
            },
            "tooltip": [
                {"field": "group"},
                {"field": "split"},
                {"field": "step"},
                {"field": "accuracy", "format": ".1%"},
            ],
        },
    )

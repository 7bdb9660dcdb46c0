"""The page: one HTML file with its style, its scripts, its figures and nothing from anywhere else.

Every text from the data goes through Jinja's escaping or, in JSON, has no "<" left. Should something slip through all
the same, the page's own policy (Content-Security-Policy) lets no script run but those whose hash it names, and no
request leave the page.
"""

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any

import numpy as np

from unrote.errors import MissingPackageError
from unrote.report import charts, example_charts
from unrote.report.listing import influence_examples, listing
from unrote.report.saved_run import RunRecord
from unrote.report.schema import MethodRecord
from unrote.report.words import headline, method_title, percent, summary, with_interval

_LARGE = 12  # classes: a table of more by more is no table for people
_STRONGEST = 8  # pairs of the influence matrix that are told in a table


def render_page(record: RunRecord) -> str:
    """The page about a record, as HTML.

    Args:
        record: of one run, or of several merged into one.

    Raises:
        MissingPackageError: if Jinja2 or vl-convert is not installed.
    """
    try:
        import jinja2
        from markupsafe import Markup
    except ImportError as error:
        raise MissingPackageError("the page needs Jinja2: pip install 'unrote[report]'") from error
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_file),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    environment.filters |= {"zip": zip, "percent": percent, "interval": with_interval, "number": _number}
    scripts = [_chart_library(), _file("page.js")]
    data = {"charts": _charts(record), "listing": listing(record), "influence": influence_examples(record)}
    return environment.get_template("page.html.j2").render(
        **_view(record, data),
        data=data,
        style=Markup(_file("page.css")),
        scripts=[Markup(script) for script in scripts],
        hashes=[_hash(script) for script in scripts],
    )


def _file(name: str) -> str:
    return (resources.files("unrote.report") / "templates" / name).read_text(encoding="utf-8")


@cache
def _chart_library() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script, from the package that carries them.

    Raises:
        MissingPackageError: if it is not installed.
    """
    try:
        import vl_convert
    except ImportError as error:
        raise MissingPackageError(
            "the page's charts need vl-convert: pip install 'unrote[report]'"
        ) from error
    bundle = str(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"))
    # what would end a script element early; equal in a JavaScript string or regular expression
    bundle = bundle.replace("\r\n", "\n").replace(
        "\r", "\n"
    )  # as the browser reads it, before it takes the hash
    return bundle.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _hash(script: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"


def _titles(record: RunRecord) -> list[str]:
    return [method_title(method.name) for method in record.contents.methods]


def _charts(record: RunRecord) -> dict[str, Any]:
    """Every chart that the record has the figures for, by its element on the page."""
    titles, found = _titles(record), {}
    accuracy = charts.accuracy_values(record, titles)
    if accuracy:
        found["accuracy"] = charts.accuracy_chart(accuracy, titles)
    curves = [charts.curve_values(record, k) for k in range(len(titles))]
    groups = _curve_groups(curves)
    for k, (title, values) in enumerate(zip(titles, curves, strict=True)):
        if values:
            found[f"curves-{k}"] = charts.curve_chart(values, groups, title)
    return found | _score_charts(record, titles) | _influence_charts(record, titles)


def _curve_groups(curves: Sequence[list[dict[str, Any]]]) -> list[str]:
    return list(dict.fromkeys(one["group"] for values in curves for one in values))


def _score_charts(record: RunRecord, titles: Sequence[str]) -> dict[str, Any]:
    """Charts of what is known of each training example: self-influence and the shift."""
    group, names, found = _groups(record)
    result: dict[str, Any] = {}
    scores = {k: s for k in range(len(titles)) if (s := record.of_method(k, "self_influence")) is not None}
    lines = example_charts.spread_values(list(scores.values()), group, names) if scores else []
    top = max((one["share"] for values in lines for one in values), default=1.0)
    for k, values in zip(scores, lines, strict=True):
        if values:
            result[f"spread-{k}"] = example_charts.spread_chart(values, found, titles[k], top)
    for k, title in enumerate(titles):
        shift = record.of_method(k, "shift")
        if shift is not None:
            result[f"shift-{k}"] = example_charts.shift_chart(
                example_charts.shift_values(shift, group, names), title
            )
    return result


def _groups(record: RunRecord) -> tuple[np.ndarray, list[str], list[str]]:
    """Each training example's group, the groups' names, and those that have examples; one of all without groups."""
    names = record.contents.data.group_names
    group = record.arrays.get("group")
    if group is None or not names:
        return np.zeros(record.contents.data.rows["train"], np.int32), ["all examples"], ["all examples"]
    return group, names, [name for g, name in enumerate(names) if (group == g).any()]


def _influence_charts(record: RunRecord, titles: Sequence[str]) -> dict[str, Any]:
    matrices = {k: m for k in range(len(titles)) if (m := record.of_method(k, "influence")) is not None}
    examples = influence_examples(record)
    if not matrices or examples is None:
        return {}
    high = float(np.quantile(np.abs(np.concatenate([m.ravel() for m in matrices.values()])), 0.995))
    marks = {side: _starts(examples[side]["groups"]) for side in ("row", "column")}
    return {
        f"influence-{k}": example_charts.influence_chart(
            example_charts.influence_values(m), marks, high, titles[k], examples["split"]
        )
        for k, m in matrices.items()
    }


def _starts(groups: Sequence[str]) -> list[tuple[int, str]]:
    """Where each group of a sorted list begins."""
    return [(place, name) for place, name in enumerate(groups) if place == 0 or groups[place - 1] != name]


def _view(record: RunRecord, data: dict[str, Any]) -> dict[str, Any]:
    """What the template needs beside the data."""
    contents, titles = record.contents, _titles(record)
    accuracy = charts.accuracy_values(record, titles)
    drawn: dict[str, Any] = data["charts"]
    curves = [charts.curve_values(record, k) for k in range(len(titles))]
    return {
        "contents": contents,
        "titles": titles,
        "headline": headline(record),
        "sentences": summary(record),
        "tiles": [_tile(title, method) for title, method in zip(titles, contents.methods, strict=True)],
        "accuracy": {
            "groups": list(dict.fromkeys(one["group"] for one in accuracy)),
            "legend": _legend(titles),
        },
        "curves": {"legend": _legend(_curve_groups(curves)), "ends": [_ends(values) for values in curves]},
        "spread": {"legend": _legend(_groups(record)[2]), "rows": _spread_rows(record, titles)},
        "confusions": _confusions(record, titles),
        "strongest": _strongest(record, titles),
        "influence": data["influence"],
        "charts_of": {
            kind: sorted(k for k in range(len(titles)) if f"{kind}-{k}" in drawn) for kind in _KINDS
        },
        "has_accuracy": "accuracy" in drawn,
        "influence_groups": _starts(data["influence"]["row"]["groups"]) if data["influence"] else [],
        "settings": _settings(contents.methods),
        "none_by_rote": not any(method.memorized for method in contents.methods),
    }


_KINDS = ("curves", "spread", "shift", "influence")


def _legend(names: Sequence[str]) -> list[tuple[str, str]]:
    """Name and colour."""
    return [(name, charts.COLOURS[k % len(charts.COLOURS)]) for k, name in enumerate(names)]


def _tile(title: str, method: MethodRecord) -> dict[str, Any]:
    return {"title": title, "scores": method.scores, "memorized": method.memorized}


def _ends(values: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The last look at each group of each split."""
    return list({(one["split"], one["group"]): one for one in values}.values())


def _spread_rows(record: RunRecord, titles: Sequence[str]) -> list[dict[str, Any]]:
    """A line of the table beside the distribution for each method and group."""
    group, names, _ = _groups(record)
    rows = []
    for k, title in enumerate(titles):
        scores, memorization = record.of_method(k, "self_influence"), record.of_method(k, "memorization")
        for g, name in enumerate(names):
            own = group == g
            if scores is None or memorization is None or not own.any():
                continue
            rote = memorization[own] > record.contents.memorized_above
            rows.append(
                {
                    "method": title,
                    "group": name,
                    "n": int(own.sum()),
                    "median": float(np.median(scores[own])),
                    "high": float(np.quantile(scores[own], 0.95)),
                    "rote": int(rote.sum()),
                    "share": float(rote.mean()),
                }
            )
    return rows


def _confusions(record: RunRecord, titles: Sequence[str]) -> list[dict[str, Any]]:
    """What held-out predictions say of the label, for each method with a shift; none where classes are many."""
    return [
        {"title": title, "temperature": method.shift.temperature, "rows": method.shift.confusion}
        for title, method in zip(titles, record.contents.methods, strict=True)
        if method.shift is not None and len(method.shift.confusion) <= _LARGE
    ]


def _strongest(record: RunRecord, titles: Sequence[str]) -> list[dict[str, Any]]:
    """The pairs of largest influence under each method, strongest first, as a table tells them."""
    examples, found = influence_examples(record), []
    if examples is None:
        return []
    for k, title in enumerate(titles):
        matrix = record.of_method(k, "influence")
        if matrix is None:
            continue
        for place in np.argsort(-np.abs(matrix), axis=None, kind="stable")[:_STRONGEST].tolist():
            r, c = divmod(place, matrix.shape[1])
            found.append({"method": title, "row": r, "column": c, "influence": float(matrix[r, c])})
    return found


def _settings(methods: Sequence[MethodRecord]) -> list[tuple[str, list[str]]]:
    """A line per setting: its name and its value under each method."""
    told = [
        {
            "group labels used": _REGIMES.get(m.regime, m.regime),
            **m.settings,
            **m.training,
            "paper": m.reference,
        }
        for m in methods
    ]
    names = dict.fromkeys(name for one in told for name in one)
    return [(name.replace("_", " "), [_value(one.get(name, "-")) for one in told]) for name in names]


_REGIMES = {"none": "none", "val": "for validation", "train": "in training and validation"}


def _value(value: Any) -> str:
    return _number(value) if isinstance(value, float) else str(value)


def _number(value: float) -> str:
    """A number in as few characters as tell it: 1,250, 48, 0.055, 1e-05."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"

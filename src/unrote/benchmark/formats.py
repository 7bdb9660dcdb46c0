"""The table as text: for a terminal, Markdown, LaTeX, CSV or JSON."""

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from unrote.benchmark.tables import METRICS, Row, Table, TaskTable
from unrote.selection import CRITERIA

COLUMNS = ("method", "regime", "chosen by", "tried", "n", *METRICS.values(), "to oracle")
"""Of the tables for people."""


def heading(task: TaskTable) -> list[str]:
    """What the numbers of a task rest on, in lines."""
    info = task.info
    sizes, classes = info.sizes or {}, info.class_sizes or {}
    lines = []
    for split in ("train", "validation", "test"):
        if split in sizes:
            counts = "; ".join(
                f"{n:,} {name}" for name, n in zip(info.group_names, sizes[split], strict=True)
            )
            total = sum(classes[split]) if split in classes else sum(sizes[split])
            kind = "overlapping group" if info.overlapping else "group"
            lines.append(f"{split} n = {total:,} by {kind}: {counts}")
        elif split in classes:
            counts = "; ".join(
                f"{n:,} {name}" for name, n in zip(info.class_names, classes[split], strict=True)
            )
            lines.append(f"{split} n = {sum(classes[split]):,} by class (no group labels): {counts}")
    lines.append(f"model {info.model}; {task.seconds:,.0f} s of training in all")
    return [*lines, task.twins] if task.twins else lines


def notes(table: Table) -> list[str]:
    """What the columns mean, and what is missing."""
    used = {row.criterion: None for task in table.tasks for row in task.rows}
    lines = [
        "Test accuracy in percent: mean ± standard deviation over n seeds [95% t interval of the mean].",
        table.settings[0].upper() + table.settings[1:] + ".",
        "average: the test split as it is; re-weighted average: groups weighted by their shares of the training "
        "split; group mean: all groups alike.",
        "to oracle: points of worst-group accuracy that choosing by the test split's own groups would add.",
        *(f"{name}: {CRITERIA[name].description}." for name in used),
    ]
    lines += [f"{label} is missing: {why}" for label, why in table.missing.items()]
    if table.pending:
        lines.append(f"NOT FINISHED: at least {table.pending} runs are still to come.")
    return lines


def percent(row: Row, metric: str, *, interval: bool = False) -> str:
    """Mean and deviation of a metric, and the interval of the mean; empty if there is none."""
    found = row.spread(metric)
    if found is None:
        return ""
    text = f"{100 * found.mean:.1f}"
    if found.deviation is not None:
        text += f" ± {100 * found.deviation:.1f}"
    if interval and found.interval is not None:
        low, high = (min(1.0, max(0.0, end)) for end in found.interval)
        text += f" [{100 * low:.0f}, {100 * high:.0f}]"
    return text


def cells(row: Row) -> list[str]:
    """One row for people, in the order of `COLUMNS`."""
    ended = sum(value is not None for value in row.values["average"])
    trouble = [f"{row.diverged} diverged"] * bool(row.diverged) + [f"{row.failed} failed"] * bool(row.failed)
    lost = f" ({row.lost} lost)" if row.lost else ""
    regime = "TEST" if row.is_oracle else row.regime
    return [
        row.method,
        regime,
        row.criterion + (" (test labels)" if row.is_oracle else ""),
        f"{row.tried}{lost}",
        ", ".join([f"{ended}/{len(row.seeds)}" if ended < len(row.seeds) else str(ended), *trouble]),
        *(percent(row, metric, interval=metric == "worst_group") for metric in METRICS),
        row.note or ("" if row.gap is None else f"{100 * row.gap:+.1f}"),
    ]


def leaders(task: TaskTable) -> set[int]:
    """Indices of the best rows by worst-group accuracy, one per regime, the oracle's aside."""
    best: dict[str, tuple[float, int]] = {}
    metric = "worst_group" if task.info.sizes and "test" in task.info.sizes else "worst_class"
    for k, row in enumerate(task.rows):
        found = row.spread(metric)
        if found is not None and not row.is_oracle and found.mean > best.get(row.regime, (-1.0, -1))[0]:
            best[row.regime] = found.mean, k
    return {k for _, k in best.values()}


def as_markdown(table: Table) -> str:
    """For a README or an issue."""
    lines = []
    for task in table.tasks:
        bold = leaders(task)
        lines += [f"### {task.info.label}", "", *heading_paragraph(task), ""]
        lines += [_markdown_row(COLUMNS), _markdown_row(["---"] * 3 + ["---:"] * (len(COLUMNS) - 3))]
        for k, row in enumerate(task.rows):
            shown = cells(row)
            if k in bold:
                shown[0], shown[-2] = f"**{shown[0]}**", f"**{shown[-2]}**"
            lines.append(_markdown_row(shown))
        lines.append("")
    return "\n".join([*lines, *(f"- {note}" for note in notes(table))]) + "\n"


def heading_paragraph(task: TaskTable) -> list[str]:
    """The heading as one paragraph of Markdown."""
    return [line + ("  " if k + 1 < len(heading(task)) else "") for k, line in enumerate(heading(task))]


def _markdown_row(items: Sequence[str]) -> str:
    return "| " + " | ".join(item.replace("|", "\\|") for item in items) + " |"


_LATEX = {"&": r"\&", "%": r"\%", "#": r"\#", "_": r"\_", "$": r"\$", "{": r"\{", "}": r"\}", "±": r"$\pm$"}
_LATEX |= {"<": r"\textless{}", ">": r"\textgreater{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_LATEX |= {"\\": r"\textbackslash{}"}


def _latex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)


def as_latex(table: Table) -> str:
    """One tabular per task; needs the package booktabs."""
    lines = []
    for task in table.tasks:
        bold = leaders(task)
        lines += ["\\begin{table}", "\\centering", f"\\caption{{{_latex(_caption(table, task))}}}"]
        lines += [f"\\begin{{tabular}}{{lll{'r' * (len(COLUMNS) - 3)}}}", "\\toprule"]
        lines += [" & ".join(map(_latex, COLUMNS)) + " \\\\", "\\midrule"]
        for k, row in enumerate(task.rows):
            shown = [_latex(cell) for cell in cells(row)]
            if k in bold:
                shown[-2] = f"\\textbf{{{shown[-2]}}}"
            lines.append(" & ".join(shown) + " \\\\")
        lines += ["\\bottomrule", "\\end{tabular}", "\\end{table}", ""]
    return "\n".join(lines)


def _caption(table: Table, task: TaskTable) -> str:
    return " ".join([f"{task.info.label}.", *(f"{line}." for line in heading(task)), *notes(table)])


def _records(table: Table) -> Iterator[dict[str, Any]]:
    for task in table.tasks:
        for row in task.rows:
            yield {
                "task": row.task,
                "method": row.method,
                "regime": row.regime,
                "criterion": row.criterion,
                "uses_test_labels": row.is_oracle,
                "configurations_tried": row.tried,
                "configurations_lost": row.lost,
                "seeds": " ".join(map(str, row.seeds)),
                "diverged": row.diverged,
                "failed": row.failed,
                "pending": row.pending,
                **{key: value for metric in METRICS for key, value in _numbers(row, metric).items()},
                "worst_group_name": row.worst_group_name,
                "test_n_per_group": " ".join(map(str, (task.info.sizes or {}).get("test", ()))),
                "to_oracle": row.gap,
                "configuration": json.dumps(row.configuration),
                "note": row.note,
            }


def _numbers(row: Row, metric: str) -> dict[str, float | None]:
    found = row.spread(metric)
    interval = (None, None) if found is None or found.interval is None else found.interval
    return {
        metric: None if found is None else found.mean,
        f"{metric}_sd": None if found is None else found.deviation,
        f"{metric}_low": interval[0],
        f"{metric}_high": interval[1],
    }


def as_csv(table: Table) -> str:
    """One line per row of the table, everything in columns; what is missing is empty."""
    out = io.StringIO()
    rows = list(_records(table))
    if rows:
        writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return out.getvalue()


def as_json(table: Table) -> str:
    """Everything, each seed's value included; what is missing is null."""
    return json.dumps(table.to_dict(), indent=1, allow_nan=False) + "\n"


FORMATS: dict[str, Callable[[Table], str]] = {
    "markdown": as_markdown,
    "csv": as_csv,
    "latex": as_latex,
    "json": as_json,
}
"""What writes each format but rich's."""


def print_rich(table: Table) -> None:
    """For a terminal: the columns that matter most, to fit."""
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table as RichTable

    console = Console()
    if not console.is_terminal:  # piped into a file, it must not be squeezed
        console = Console(width=200)
    for task in table.tasks:
        console.print(
            f"\n[bold]{escape(task.info.label)}[/]   [dim]{escape(table.description)}[/]", highlight=False
        )
        for line in heading(task):
            console.print(f"[dim]{escape(line)}[/]", highlight=False, soft_wrap=True)
        shown = RichTable(box=box.SIMPLE_HEAD)
        for k, name in enumerate(COLUMNS):
            shown.add_column(name, justify="left" if k < 3 else "right", overflow="fold", no_wrap=k == 0)
        bold = leaders(task)
        last = None
        for k, row in enumerate(task.rows):
            style = "dim italic" if row.is_oracle else "bold" if k in bold else ""
            if last not in (None, row.method):
                shown.add_section()
            last = row.method
            shown.add_row(*map(escape, cells(row)), style=style)
        console.print(shown)
    for note in notes(table):
        console.print(f"[dim]{escape(note)}[/]", highlight=False)

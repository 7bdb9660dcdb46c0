"""`unrote audit`: is there a shortcut in a table, and which rows are learned by rote."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unrote.cli.output import Json, print_json, print_table
from unrote.cli.table_options import (
    Data,
    Epochs,
    Group,
    Ignore,
    Kinds,
    Model,
    Overwrite,
    PictureSize,
    ReportFile,
    Seed,
    Target,
    Test,
    accuracy,
    plain,
    read_task,
    warnings_on_stderr,
)

if TYPE_CHECKING:
    from unrote.audit import Audit, Share
    from unrote.metrics import SubsetAccuracy

_COLOURS = {"signs": "red", "unclear": "yellow", "none": "green", "unknown": "yellow"}
_MOST_GROUPS = 16


def add_to(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def audit(
        data: Data,
        target: Target = None,
        group: Group = None,
        top: Annotated[int, typer.Option(min=0, help="Rows learned by rote to list.")] = 20,
        output: ReportFile = None,
        test: Test = "0.2",
        model: Model = None,
        epochs: Epochs = None,
        seed: Seed = 0,
        ignore: Ignore = None,
        kind: Kinds = None,
        picture_size: PictureSize = 64,
        overwrite: Overwrite = False,
        json: Json = False,
    ) -> None:
        """Look for a shortcut, for rows learned by rote, and at how a model does on inferred groups."""
        from unrote.audit import audit_table
        from unrote.tables.writing import SUFFIXES, check_output

        if output is not None:
            check_output(output, overwrite=overwrite, suffixes=(".json", *SUFFIXES))
        with warnings_on_stderr() as said:
            made = read_task(
                data,
                target,
                group=group,
                ignore=ignore,
                kinds=kind,
                validation="0",
                test=test,
                seed=seed,
                picture_size=picture_size,
            )
            result = audit_table(made, model=model, epochs=epochs, seed=seed, top=top, progress=True)
        if output is not None:
            _write(result, output, said)
        if json:
            print_json({**result.to_dict(), "warnings": said})
        else:
            _print(result)


def _write(result: "Audit", output: Path, said: list[str]) -> None:
    from unrote.tables.writing import write_columns, write_json

    if output.suffix.lower() != ".json":
        write_columns(output, result.by_row)
        return
    write_json(output, {**result.to_dict(), "warnings": said})


def _print(result: "Audit") -> None:
    from rich.console import Console

    console = Console(highlight=False)
    colour, verdict = _COLOURS[result.verdict.kind], result.verdict
    rows = result.rows
    console.print(
        f"\n[bold]1. Is there a shortcut to {plain(result.target)}?   [{colour}]{verdict.title.upper()}[/][/]\n"
        f"{verdict.reason}\n"
        "[dim]Such verdicts found most planted shortcuts, with few false alarms (docs/automatic.md). Whether an easy "
        "rule is wrong to use is for you to say: look at the rows below before you act on it.[/]\n"
    )
    console.print(
        f"{rows['train']:,} rows of {plain(result.source)} trained on, {rows['test']:,} tested on. "
        f"{result.minority_share:.1%} of the training rows are in the inferred minority: they break the rule "
        f"that is easiest to learn. XRM's twins, which learn little else, came to call {result.flip_rate:.1%} "
        "something else than their labels.\n"
    )
    _print_accuracy(result)
    if result.composition:
        _print_shares(
            f"3. What is the inferred minority made of? (by {plain(result.group or '')})", result.composition
        )
    else:
        _print_shares("3. What is the inferred minority made of?", result.classes)
    console.print("[bold]4. Which rows are learned by rote?[/]")
    console.print(
        f"ERM is right on {result.train_accuracy:.1%} of the rows it is trained on, and on "
        f"{result.held_out_accuracy:.1%} of the same rows when trained without them. "
        f"{result.memorized_share:.1%} of the rows gain more than 0.50 in the probability of their label by "
        f"being trained on; to {result.doubtful_share:.1%} a model trained without them gives less than 0.05."
    )
    rows_by_kind = [[one.name, f"{one.n:,}", f"{one.minority:.1%}"] for one in result.kinds]
    columns = ["noise or minority?", "rows", "of them in the minority"]
    print_table("", columns, rows_by_kind, numeric=columns[1:])
    _print_rote(result)


def _print_accuracy(result: "Audit") -> None:
    def row(erm: "SubsetAccuracy", mat: "SubsetAccuracy", note: str = "") -> list[str]:
        return [plain(erm.name), f"{erm.n:,}", accuracy(erm), accuracy(mat), note]

    erm, mat = result.erm, result.mat
    rows = [row(erm.overall, mat.overall), *map(row, erm.inferred, mat.inferred)]
    if erm.groups is not None and mat.groups is not None:
        pairs = [pair for pair in zip(erm.groups.groups, mat.groups.groups, strict=True) if pair[0].n]
        if len(pairs) > _MOST_GROUPS:
            pairs = sorted(pairs, key=lambda pair: pair[0].accuracy or 0.0)[:_MOST_GROUPS]
        rows += [
            row(*pair, _worst(pair[0] is erm.groups.worst_group, pair[1] is mat.groups.worst_group))
            for pair in pairs
        ]
    else:
        rows += map(row, erm.classes, mat.classes)
    columns = ["right on rows never seen", "rows", "ERM", "MAT", " "]
    print_table("2. How good is a model?", columns, rows, numeric=["rows", "ERM", "MAT"])


def _worst(of_erm: bool, of_mat: bool) -> str:
    names = [name for name, is_worst in (("ERM", of_erm), ("MAT", of_mat)) if is_worst]
    return f"worst group of {' and '.join(names)}" if names else ""


def _print_shares(title: str, shares: "tuple[Share, ...]") -> None:
    shown = sorted(shares, key=lambda share: -share.minority)[:_MOST_GROUPS]
    rows = [[plain(one.name), f"{one.n:,}", f"{one.minority:.1%}", f"{one.part:.1%}"] for one in shown]
    columns = ["training rows", "rows", "of them in the minority", "of the minority"]
    print_table(title, columns, rows, numeric=columns[1:])


def _print_rote(result: "Audit") -> None:
    if not result.rote:
        return
    names = list(result.rote[0].values)
    rows = [
        [
            plain(row.name),
            plain(row.label),
            plain(row.held_out_prediction),
            f"{row.p_held_out:.2f}",
            f"{row.p_train:.2f}",
            f"[bold]{row.memorization:.2f}[/]",
            "yes" if row.inferred_minority else "",
            *(plain(_short(row.values[name])) for name in names),
        ]
        for row in result.rote
    ]
    columns = [
        "row",
        "label",
        "without it",
        "p without",
        "p with",
        "by rote",
        "minority",
        *(plain(_short(name)) for name in names),
    ]
    print_table("", columns, rows, numeric=["row", "p without", "p with", "by rote"])
    typer.echo(
        "Row 1 is the first below the header. p is the probability of the row's label by a model trained\n"
        "without the row, and with it. A row of the minority learned by rote has a wrong label, or is an\n"
        "exception to a shortcut."
    )


def _short(text: str) -> str:
    """A value cut to the width that a line of 100 characters has room for."""
    return text if len(text) <= 12 else f"{text[:11]}…"

"""`unrote fit`: train a classifier on a table, score it on rows that it never saw, and save it."""

import textwrap
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
    PictureSize,
    Seed,
    Target,
    Test,
    Validation,
    accuracy,
    interval,
    plain,
    read_task,
    settings,
    warnings_on_stderr,
)

if TYPE_CHECKING:
    from unrote.metrics import SubsetAccuracy
    from unrote.table_runs import Scores, TableFit

_MOST_GROUPS = 16


def add_to(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def fit(
        data: Data,
        output: Annotated[
            Path, typer.Option("-o", "--output", metavar="DIR", help="Folder to save the model in.")
        ],
        target: Target = None,
        group: Group = None,
        method: Annotated[str, typer.Option(metavar="NAME", help="See `unrote methods`.")] = "mat",
        set_: Annotated[
            list[str] | None,
            typer.Option(
                "--set",
                metavar="NAME=VALUE",
                help="A setting of the method; may be given again.",
                show_default=False,
            ),
        ] = None,
        validation: Validation = "0.1",
        test: Test = "0.2",
        model: Model = None,
        epochs: Epochs = None,
        seed: Seed = 0,
        ignore: Ignore = None,
        kind: Kinds = None,
        picture_size: PictureSize = 64,
        overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a saved model.")] = False,
        json: Json = False,
    ) -> None:
        """Train a classifier on a table or on pictures, score it on held-out rows, and save it."""
        from unrote.saved import check_free, save_model
        from unrote.table_runs import fit_table, method_for_tables

        check_free(output, overwrite=overwrite)
        made_method = method_for_tables(method, settings(set_))
        with warnings_on_stderr() as said:
            made = read_task(
                data,
                target,
                group=group,
                ignore=ignore,
                kinds=kind,
                validation=validation,
                test=test,
                seed=seed,
                picture_size=picture_size,
            )
            result = fit_table(made, made_method, model=model, epochs=epochs, seed=seed, progress=True)
        save_model(output, result.saved(), overwrite=overwrite)
        if json:
            about = result.saved().about
            print_json({"model": str(output), "method": method, **about, "warnings": said})
        else:
            _print(result, output)


def _print(result: "TableFit", output: Path) -> None:
    made, name = result.made, result.fitted.method.name.upper()
    trained = f"{name} trained on {len(made.task.train):,} rows of {made.tables['train'].source}"
    if result.automatic is not None:
        typer.echo(textwrap.fill(f"Is there a shortcut? {result.automatic}.", 100))
    if result.scores is None:
        typer.echo(f"{trained}. There are no test rows to score it on.")
    else:
        typer.echo(f"{trained}, scored on {result.scores.overall.n:,} rows that it never saw:")
        _print_scores(result.scores, made.target, made.group)
        typer.echo(
            "Inferred minority: rows that break the rule which is easiest to learn (XRM's twins fail there).\n"
        )
    typer.echo(f"Saved in {output}. To classify new rows: unrote predict {output} NEW.csv")


def _print_scores(scores: "Scores", target: str, group: str | None) -> None:
    def row(subset: "SubsetAccuracy", note: str = "") -> list[str]:
        return [plain(subset.name), f"{subset.n:,}", accuracy(subset), interval(subset), note]

    def title(text: str) -> list[str]:
        return [f"[bold]{plain(text)}[/]", "", "", "", ""]

    rows = [row(scores.overall), title(f"by {target}"), *map(row, scores.classes)]
    rows += [title("by inferred group"), *map(row, scores.inferred)]
    if scores.groups is not None:
        worst = scores.groups.worst_group
        shown = [one for one in scores.groups.groups if one.n]
        if len(shown) > _MOST_GROUPS:
            shown = sorted(shown, key=lambda one: one.accuracy or 0.0)[:_MOST_GROUPS]
        rows.append(title(f"by {target} and {group}"))
        rows += [row(one, "worst group" if one is worst else "") for one in shown]
    print_table("", ["", "rows", "right", "95% interval", " "], rows, numeric=["rows", "right"])

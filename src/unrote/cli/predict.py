"""`unrote predict`: classify the rows of a table with a saved model."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unrote.cli.output import Json, print_json
from unrote.cli.table_options import Overwrite, warnings_on_stderr

if TYPE_CHECKING:
    from unrote.saved import SavedModel
    from unrote.tables import Table


def add_to(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def predict(
        model: Annotated[Path, typer.Argument(metavar="DIR", help="A folder that `unrote fit` made.")],
        data: Annotated[
            Path, typer.Argument(help="Rows with the columns the model was trained on, in any order.")
        ],
        output: Annotated[
            Path | None,
            typer.Option(
                "-o",
                "--output",
                metavar="FILE",
                help="A .csv or .parquet file; default CSV on standard output.",
            ),
        ] = None,
        overwrite: Overwrite = False,
        json: Json = False,
    ) -> None:
        """Print the class of each row and the probability of every class."""
        from unrote.saved import load_model
        from unrote.tables.writing import check_output, print_csv, write_columns

        if output is not None:
            check_output(output, overwrite=overwrite)
        saved = load_model(model)
        with warnings_on_stderr():
            table = _read(saved, data)
            columns = _predict(saved, table)
        _tell_accuracy(saved, table, columns["prediction"])
        if output is not None:
            write_columns(output, columns)
            typer.echo(f"{len(table):,} rows classified, in {output}", err=True)
        if json:
            print_json(_as_records(saved, columns))
        elif output is None:
            print_csv(sys.stdout, columns)


def _read(saved: "SavedModel", data: Path) -> "Table":
    from unrote.tables import read_table

    kinds, picture = saved.preprocessor.kinds, saved.preprocessor.picture
    strings = {name for name, kind in kinds.items() if kind in ("category", "text")}
    size = picture.shape[-1] if picture is not None else 64
    return read_table(data, as_text={*strings, saved.target}, picture_size=size, labelled=False)


def _predict(saved: "SavedModel", table: "Table") -> dict[str, Any]:
    probabilities = saved.probabilities(table).numpy()
    names = saved.class_names
    return {
        "row": [table.row_name(row) for row in range(len(table))],
        "prediction": [names[c] for c in probabilities.argmax(1).tolist()],
        **{f"p({name})": probabilities[:, place] for place, name in enumerate(names)},
    }


def _as_records(saved: "SavedModel", columns: dict[str, Any]) -> list[dict[str, Any]]:
    probabilities = [columns[f"p({name})"].tolist() for name in saved.class_names]
    return [
        {"row": row, "prediction": prediction, "probabilities": dict(zip(saved.class_names, p, strict=True))}
        for row, prediction, p in zip(
            columns["row"], columns["prediction"], zip(*probabilities, strict=True), strict=True
        )
    ]


def _tell_accuracy(saved: "SavedModel", table: "Table", predictions: list[str]) -> None:
    """If the rows have their classes already, say on standard error how many were right."""
    if saved.target not in table.columns:
        return
    from unrote.tables.columns import as_strings

    truth = as_strings(table[saved.target])
    known = [
        (truth.levels[code], prediction)
        for code, prediction in zip(truth.codes.tolist(), predictions, strict=True)
        if code >= 0
    ]
    if known:
        share = sum(label == prediction for label, prediction in known) / len(known)
        typer.echo(f"{share:.1%} of {len(known):,} rows agree with their {saved.target!r}", err=True)

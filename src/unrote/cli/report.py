"""`unrote report`: one page about recorded runs, that needs no network and no server."""

from pathlib import Path
from typing import Annotated

import typer

from unrote.cli.output import Json, print_json


def add_to(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def report(
        run: Annotated[
            Path,
            typer.Argument(
                metavar="RUN_OR_DIR",
                help="A folder that `unrote compare` made, or one with several such folders of the same data.",
            ),
        ],
        output: Annotated[
            Path, typer.Option("-o", "--output", metavar="FILE", help="The page to write.")
        ] = Path("report.html"),
        overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the page.")] = False,
        json: Json = False,
    ) -> None:
        """Write a page about a run: accuracy by group, and what was learned by rote.

        The page is one file: open it in a browser, send it, print it.
        """
        from unrote.checkpoint import write_atomically
        from unrote.errors import DataError, OptionError
        from unrote.report import find_records, merge, read_record
        from unrote.report.page import render_page

        if output.suffix.lower() not in (".html", ".htm"):
            raise OptionError(f"{output}: a page ends in .html")
        if output.exists() and not overwrite:
            raise OptionError(f"{output} exists: choose another file, or pass --overwrite")
        folders = find_records(run)
        record = merge({folder.name: read_record(folder) for folder in folders})
        page = render_page(record).encode()
        try:
            output.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(output, page)
        except OSError as error:
            raise DataError(f"cannot write {output}: {error.strerror}") from error
        if json:
            methods = [method.name for method in record.contents.methods]
            print_json(
                {
                    "page": str(output),
                    "bytes": len(page),
                    "runs": [str(f) for f in folders],
                    "methods": methods,
                }
            )
        else:
            typer.echo(f"{output}  ({len(page) / 1e6:.1f} MB): open it in a browser; it needs no network")

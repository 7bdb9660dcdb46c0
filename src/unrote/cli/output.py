"""How commands print: a rich table for people, JSON for programs."""

import json
from collections.abc import Sequence
from typing import Annotated, Any

import typer

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
"""The `--json` option that every command with a table has."""


def print_json(value: Any) -> None:
    """Print JSON to standard output."""
    typer.echo(json.dumps(value, indent=2, allow_nan=False))


def print_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, numeric: Sequence[str] = ()
) -> None:
    """Print a table to standard output; columns named in `numeric` are aligned to the right.

    Cells may carry rich markup.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, title_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in numeric else "left")
    for row in rows:
        table.add_row(*row)
    console = Console()
    if not console.is_terminal:  # a table piped into a file must not be squeezed to 80 columns
        console = Console(width=160)
    console.print(table)

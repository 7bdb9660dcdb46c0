"""The Typer application and its commands."""

import importlib
from typing import Annotated

import typer

app = typer.Typer(
    name="unrote",
    help="Train classifiers that do not learn by rote.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

for _command in (
    "fit",
    "predict",
    "audit",
    "memorize",
    "compare",
    "report",
    "demo",
    "figure",
    "methods",
    "tasks",
    "bench",
    "data",
):
    importlib.import_module(f"unrote.cli.{_command}").add_to(app)


def _version(wanted: bool) -> bool:
    if wanted:
        from unrote._version import __version__

        typer.echo(__version__)
        raise typer.Exit
    return wanted


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Train classifiers that do not learn by rote."""

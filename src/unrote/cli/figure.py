"""`unrote figure`: draw a figure of the paper from our own runs and check what it claims."""

import inspect
import json as jsonlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unrote.cli.output import Json, print_json, print_table

if TYPE_CHECKING:
    from rich.console import Console

    from unrote.figures import FigureResult, FigureSource


def add_to(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def figure(
        name: Annotated[str, typer.Argument(help="1 to 5, theorem, noise, two-shortcuts; or 'all'.")],
        seed: Annotated[
            int | None, typer.Option(help="Of data and training; default the figure's own.")
        ] = None,
        fast: Annotated[bool, typer.Option("--fast", help="Fewer test examples or steps.")] = False,
        output: Annotated[Path, typer.Option("-o", "--output", help="Folder for PNG, SVG and JSON.")] = Path(
            "out"
        ),
        features: Annotated[
            Path | None, typer.Option(help="File of Waterbirds features to show in figures 2 and 4 too.")
        ] = None,
        json: Json = False,
    ) -> None:
        """Draw a figure of the paper from our own runs, and check its claims; exit code 1 if one fails."""
        from rich.console import Console

        from unrote.checkpoint import write_atomically
        from unrote.errors import OptionError
        from unrote.figures import FIGURES

        names = FIGURES.names() if name == "all" else [name]
        options = {} if seed is None else {"seed": seed}
        if features is not None and not any(_takes_features(FIGURES[n]) for n in names):
            raise OptionError(f"figure {name!r} takes no features: give --features with figure 2, 4 or 'all'")
        console, holds, records = Console(highlight=False), True, []
        for source in [FIGURES[n] for n in names]:
            own = {"features": features} if features is not None and _takes_features(source) else {}
            result = source.draw(fast=fast, progress=True, **options, **own)
            paths = result.save(output / f"figure-{source.name}")
            data = output / f"figure-{source.name}.json"
            write_atomically(data, jsonlib.dumps(result.numbers).encode())
            claims = [{"claim": claim.text, "holds": claim.holds} for claim in result.claims]
            records.append(
                {"figure": source.name, "claims": claims, "files": [str(p) for p in (*paths, data)]}
            )
            holds &= all(claim.holds for claim in result.claims)
            if not json:
                _print(console, source, result)
                console.print(f"  {', '.join(str(p) for p in (*paths, data))}\n", style="dim", soft_wrap=True)
        if json:
            print_json(records)
        raise typer.Exit(0 if holds else 1)


def _takes_features(source: "FigureSource") -> bool:
    return "features" in inspect.signature(source.draw).parameters


def _print(console: "Console", source: "FigureSource", result: "FigureResult") -> None:
    """The numbers, then the claims; one that fails is a red line."""
    title = f"Figure {source.name}: {source.title}"
    if result.table is not None:
        print_table(title, result.table.columns, result.table.rows, numeric=result.table.columns[1:])
    else:
        console.print(title, style="bold")
    for claim in result.claims:
        word, style = ("holds", "green") if claim.holds else ("FAILS", "bold red")
        console.print(f"  {word}  {claim.text}", style=style, markup=False, soft_wrap=True)

"""`unrote figure`: draw a figure of the paper from our own runs and check what it claims."""

import json as jsonlib
from pathlib import Path
from typing import Annotated

import typer

from unrote.cli.output import Json, print_json


def add_to(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def figure(
        name: Annotated[str, typer.Argument(help="Name of the figure in the paper, such as 1; or 'all'.")],
        seed: Annotated[
            int | None, typer.Option(help="Of data and training; default the figure's own.")
        ] = None,
        fast: Annotated[bool, typer.Option("--fast", help="Fewer test examples or steps.")] = False,
        output: Annotated[Path, typer.Option("-o", "--output", help="Folder for PNG, SVG and JSON.")] = Path(
            "out"
        ),
        json: Json = False,
    ) -> None:
        """Draw a figure of the paper from our own runs, and check its claims; exit code 1 if one fails."""
        from rich.console import Console

        from unrote.checkpoint import write_atomically
        from unrote.figures import FIGURES

        names = FIGURES.names() if name == "all" else [name]
        options = {} if seed is None else {"seed": seed}
        console, holds, records = Console(), True, []
        for source in [FIGURES[n] for n in names]:
            result = source.draw(fast=fast, progress=True, **options)
            paths = result.save(output / f"figure-{source.name}")
            data = output / f"figure-{source.name}.json"
            write_atomically(data, jsonlib.dumps(result.numbers).encode())
            claims = [{"claim": claim.text, "holds": claim.holds} for claim in result.claims]
            records.append(
                {"figure": source.name, "claims": claims, "files": [str(p) for p in (*paths, data)]}
            )
            holds &= all(claim.holds for claim in result.claims)
            if not json:
                console.print(f"[bold]Figure {source.name}[/]: {source.title}")
                for claim in result.claims:
                    console.print(
                        f"  {'[green]holds[/]' if claim.holds else '[bold red]FAILS[/]'}  {claim.text}"
                    )
                console.print(f"  {', '.join(str(p) for p in (*paths, data))}\n", style="dim")
        if json:
            print_json(records)
        raise typer.Exit(0 if holds else 1)

"""`unrote demo`: ERM and MAT on handwritten digits, in under a minute."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unrote.cli.output import Json, print_json, print_table

if TYPE_CHECKING:
    from unrote.demo import Trained


def add_to(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def demo(
        seed: Annotated[int, typer.Option(help="Of data and training.")] = 0,
        output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the picture.")] = Path("out"),
        json: Json = False,
    ) -> None:
        """Train ERM and MAT on digits with a shortcut, without group labels; print and draw how they do."""
        from unrote.demo import draw_demo, run_demo

        task, results = run_demo(seed, progress=True)
        picture = output / "demo.png"
        output.mkdir(parents=True, exist_ok=True)
        draw_demo(task, results).savefig(picture, dpi=160)
        if json:
            print_json({"results": [result.to_dict() for result in results], "picture": str(picture)})
            return
        _print(task.group_names, results)
        erm, mat = (result.report.worst_group for result in results)
        typer.echo(
            f"Trained without group labels, ERM gets {erm.accuracy:.0%} of its worst group right, "
            f"MAT {mat.accuracy:.0%}.\nPicture: {picture}"
        )


def _print(group_names: tuple[str, ...], results: "list[Trained]") -> None:
    def line(name: str, cell: "Callable[[Trained], str]") -> list[str]:
        return [name, *(cell(result) for result in results)]

    def worst(result: "Trained") -> str:
        low, high = result.report.worst_group.interval or (0.0, 0.0)
        return f"[bold]{result.report.worst_group.accuracy:.0%}[/]  ({low:.0%} to {high:.0%})"

    def group(g: int) -> "Callable[[Trained], str]":
        return lambda result: f"{result.report.groups[g].accuracy or 0:.0%}"

    rows = [
        line("average", lambda result: f"{result.report.average:.0%}"),
        line("[bold]worst group[/] (95% interval)", worst),
        *(line(name, group(g)) for g, name in enumerate(group_names)),
        line("seconds", lambda result: f"{result.seconds:.1f}"),
    ]
    columns = ["test accuracy on digits", *(result.method.upper() for result in results)]
    print_table("", columns, rows, numeric=columns[1:])

"""`unrote methods`: the training methods."""

import inspect
import re
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unrote.cli.output import Json, print_json, print_table

if TYPE_CHECKING:
    from unrote.methods import Method

_NEEDS = {"none": "none", "val": "validation", "train": "training"}


def add_to(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def methods(
        name: Annotated[
            str | None, typer.Argument(help="Of one method, to see its algorithm and hyper-parameters.")
        ] = None,
        json: Json = False,
    ) -> None:
        """List the training methods, the group labels each needs, and its reference; or explain one of them."""
        from unrote.methods import METHODS

        if name is not None:
            record = describe(METHODS[name])
            print_json(record) if json else _explain(record)
            return
        kinds = [METHODS[known] for known in METHODS.names()]
        if json:
            print_json([_summary(kind) for kind in kinds])
            return
        rows = [(kind.name, _labels(kind.needs, kind.uses_groups), kind.reference) for kind in kinds]
        print_table("Methods", ["name", "group labels needed in", "reference"], rows)
        typer.echo(
            "  * or none: groups='xrm' and groups='eiil' take inferred groups in their place.\n"
            "  `unrote methods NAME` prints a method's algorithm and hyper-parameters."
        )


def _labels(needs: str, uses_groups: bool) -> str:
    return f"[bold]{_NEEDS[needs]}[/]{' *' if uses_groups else ''}" if needs != "none" else "[dim]none[/]"


def _summary(kind: "type[Method]") -> dict[str, Any]:
    """What the list says of a method."""
    return {
        "name": kind.name,
        "needs": kind.needs,
        "takes_inferred_groups": kind.uses_groups,
        "reference": kind.reference,
    }


def describe(kind: "type[Method]") -> dict[str, Any]:
    """Everything there is to say of a method, JSON-ready: its summary, algorithm and hyper-parameters."""
    meanings = _arguments(inspect.getdoc(kind) or "")
    parameters = [
        {
            "name": field.name,
            "default": field.default,
            "search": None if field.metadata.get("search") is None else str(field.metadata["search"]),
            "meaning": meanings.get(field.name, ""),
        }
        for field in getattr(kind, "__dataclass_fields__", {}).values()
    ]
    algorithm = inspect.cleandoc(sys.modules[kind.__module__].__doc__ or "")
    return {**_summary(kind), "algorithm": algorithm, "parameters": parameters}


def _arguments(docstring: str) -> dict[str, str]:
    """What the "Args" section of a docstring says of each argument, on one line."""
    section = re.search(r"^Args:\n((?: {4}.*\n?|\n)+)", docstring, re.MULTILINE)
    found = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", section[1] if section else "", re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in found}


def _explain(record: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.markup import escape

    console = Console(soft_wrap=True, highlight=False)
    console.print(record["algorithm"], markup=False)
    labels = _labels(record["needs"], record["takes_inferred_groups"])
    inferred = "; takes groups inferred by 'xrm' or 'eiil' too" if record["takes_inferred_groups"] else ""
    console.print(f"\n[bold]name[/]           {record['name']}")
    console.print(f"[bold]group labels[/]   {labels.removesuffix(' *')}{inferred}")
    console.print(f"[bold]reference[/]      {escape(record['reference'])}\n")
    if not record["parameters"]:
        typer.echo("It has no hyper-parameters of its own.")
        return
    rows = [
        [escape(str(value)) for value in (p["name"], p["default"], p["search"] or "", p["meaning"])]
        for p in record["parameters"]
    ]
    print_table("Hyper-parameters", ["name", "default", "searched in", "meaning"], rows, numeric=["default"])

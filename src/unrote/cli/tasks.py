"""`unrote tasks`: the built-in tasks."""

import typer

from unrote.cli.output import Json, print_json, print_table


def add_to(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def tasks(json: Json = False) -> None:
        """List the built-in tasks."""
        from unrote.data import task_sources

        rows = [(source.name, source.description) for source in task_sources().values()]
        if json:
            print_json([{"name": name, "description": description} for name, description in rows])
        else:
            print_table("Tasks", ["name", "what it is"], rows)

"""`unrote methods`: the training methods."""

import typer

from unrote.cli.output import Json, print_json, print_table


def add_to(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def methods(json: Json = False) -> None:
        """List the training methods, the group labels each needs, and its reference."""
        from unrote.methods import METHODS

        kinds = [METHODS[name] for name in METHODS.names()]
        rows = [(kind.name, kind.needs, kind.reference) for kind in kinds]
        if json:
            print_json([dict(zip(("name", "needs", "reference"), row, strict=True)) for row in rows])
        else:
            print_table("Methods", ["name", "group labels needed in", "reference"], rows)

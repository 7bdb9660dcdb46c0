"""The command line: thin, one file per command, nothing heavy imported before a command runs.

Results go to standard output, progress and errors to standard error.

Exit codes: 0 done; 1 the command ran and its answer is "no" (a claim that does not hold); 2 something the user
can mend (a file, an option); 130 interrupted.
"""

import sys


def main() -> None:
    """Run the command line; the entry point of the `unrote` script."""
    from unrote.cli.app import app
    from unrote.errors import UnroteError

    try:
        app()
    except UnroteError as error:
        from rich.console import Console

        Console(stderr=True, soft_wrap=True).print(f"[bold red]error:[/] {_plain(str(error))}")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


def _plain(text: str) -> str:
    """Text in which square brackets are not rich's markup."""
    return text.replace("[", r"\[")

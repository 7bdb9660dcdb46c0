"""A progress bar on standard error, so that results on standard output can be piped."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Advance = Callable[[int, str], None]
"""Called with (steps done, short text); cheap enough for every step."""


@contextmanager
def progress_bar(description: str, total: int, *, show: bool) -> Iterator[Advance]:
    """A bar with rate and time left. Drawn at most ten times a second, and not at all unless `show`."""
    if not show:
        yield lambda done, text: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description:<28}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
        TextColumn("{task.fields[text]}"),
    )
    with Progress(*columns, console=Console(file=sys.stderr)) as progress:
        task = progress.add_task(description, total=total, text="")
        drawn = 0.0

        def advance(done: int, text: str) -> None:
            nonlocal drawn
            if done >= total or time.monotonic() - drawn > 0.1:
                drawn = time.monotonic()
                progress.update(task, completed=done, text=text)

        yield advance

"""What the commands on tables share: options, reading data, warnings on standard error."""

import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from unrote.metrics import SubsetAccuracy
    from unrote.tables import Table, TableTask

Data = Annotated[
    Path,
    typer.Argument(
        show_default=False, help="A .csv, .parquet or .npz file, or a folder of pictures by class."
    ),
]
Target = Annotated[
    str | None,
    typer.Option(
        metavar="COL", help="The column to learn; a folder of pictures has its classes.", show_default=False
    ),
]
Group = Annotated[
    str | None,
    typer.Option(
        metavar="COL",
        help="A column of attributes to score by; the model is not shown it.",
        show_default=False,
    ),
]
Ignore = Annotated[
    list[str] | None,
    typer.Option(
        metavar="COL", help="A column that the model is not shown; may be given again.", show_default=False
    ),
]
Kinds = Annotated[
    list[str] | None,
    typer.Option(
        "--kind",
        metavar="COL=KIND",
        help="What a column is: number, category, text or date; may be given again.",
        show_default=False,
    ),
]
Validation = Annotated[str, typer.Option(metavar="SHARE|FILE", help="Rows to validate on.")]
Test = Annotated[str, typer.Option(metavar="SHARE|FILE", help="Rows to score on, never trained on.")]
Model = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="linear, mlp or cnn; default by the data.", show_default=False),
]
Epochs = Annotated[
    int | None,
    typer.Option(min=1, help="Passes over the training rows; default by their number.", show_default=False),
]
Seed = Annotated[int, typer.Option(help="Of everything random: the split, the models, the order.")]
ReportFile = Annotated[
    Path | None,
    typer.Option(
        "-o", "--output", metavar="FILE", help="The report as .json, or every row as .csv or .parquet."
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the output file.")]
PictureSize = Annotated[int, typer.Option(min=8, max=512, help="Pixels a side that pictures are scaled to.")]


@contextmanager
def warnings_on_stderr() -> Iterator[list[str]]:
    """Print each warning of unrote once, in plain words, on standard error; gives the list of them."""
    from rich.console import Console

    from unrote.errors import TableWarning

    said: list[str] = []
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    package = str(Path(__file__).parents[1])

    def show(message: Warning | str, category: type[Warning], filename: str, *_: Any, **__: Any) -> None:
        # other libraries' remarks are about our code, not about the user's data
        ours = issubclass(category, TableWarning) or filename.startswith(package)
        text = str(message)
        if ours and text not in said:
            said.append(text)
            console.print("[yellow]warning:[/] ", end="")
            console.print(text, markup=False)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = show
        yield said


def read_task(
    data: Path,
    target: str | None,
    *,
    group: str | None,
    ignore: Sequence[str] | None,
    kinds: Sequence[str] | None,
    validation: str,
    test: str,
    seed: int,
    picture_size: int,
) -> "TableTask":
    """The task that the options describe.

    Raises:
        OptionError: if there is no target, or an option cannot be read.
    """
    from unrote.errors import OptionError
    from unrote.tables import make_task, read_table
    from unrote.tables.pictures import CLASS

    if data.is_dir():
        if target not in (None, CLASS) or group is not None:
            raise OptionError(
                f"{data} is a folder of pictures, whose classes are its subfolders: leave columns out"
            )
        target = CLASS
    if target is None:
        raise OptionError("no column to learn: name it with --target COL")
    as_text = {target, *([group] if group else [])}

    def read(path: Path) -> "Table":
        return read_table(path, as_text=as_text, picture_size=picture_size)

    return make_task(
        read(data),
        target,
        group=group,
        ignore=ignore or (),
        kinds=_pairs(kinds, "--kind", "COL=KIND"),
        validation=_share_or_file(validation, read),
        test=_share_or_file(test, read),
        seed=seed,
    )


def _share_or_file(text: str, read: Any) -> Any:
    try:
        return float(text)
    except ValueError:
        return read(Path(text))


def settings(given: Sequence[str] | None) -> dict[str, Any]:
    """Hyper-parameters of `--set NAME=VALUE`: numbers and truth values as such, anything else as text."""
    return {name: _value(text) for name, text in _pairs(given, "--set", "NAME=VALUE").items()}


def _value(text: str) -> Any:
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, (int, float, bool)) else text


def _pairs(given: Sequence[str] | None, option: str, form: str) -> dict[str, str]:
    from unrote.errors import OptionError

    pairs = {}
    for text in given or ():
        # the last "=": a column's name may have one, a kind or a value has none
        name, separator, value = text.rpartition("=")
        if not (separator and name and value):
            raise OptionError(f"{option} {text!r}: {form} is wanted")
        pairs[name] = value
    return pairs


def accuracy(subset: "SubsetAccuracy") -> str:
    """An accuracy in percent, or a dash for no rows."""
    return "-" if subset.accuracy is None else f"{subset.accuracy:.1%}"


def interval(subset: "SubsetAccuracy") -> str:
    """An interval in percent, or nothing."""
    return "" if subset.interval is None else f"{subset.interval[0]:.0%} to {subset.interval[1]:.0%}"


def plain(text: str) -> str:
    """Text from a user's file as a cell of a table: its square brackets are no markup."""
    from rich.markup import escape

    return escape("".join(c if c.isprintable() else " " for c in text))

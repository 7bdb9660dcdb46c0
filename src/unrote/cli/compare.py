"""`unrote compare`: train several methods on the same data, and record what `unrote report` shows."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unrote.cli.output import Json, print_json, print_table
from unrote.cli.table_options import (
    Epochs,
    Group,
    Ignore,
    Kinds,
    Model,
    PictureSize,
    Seed,
    Target,
    Test,
    Validation,
    plain,
    read_task,
    settings,
    warnings_on_stderr,
)

if TYPE_CHECKING:
    from unrote.data import Task
    from unrote.report import RunRecord
    from unrote.tables import TableTask


DataOrTask = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help="A CSV or Parquet file, a folder of pictures, or the name of a built-in task (`unrote tasks`).",
    ),
]
Output = Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Folder to record the run in.")]
Methods = Annotated[
    list[str] | None,
    typer.Option("-m", "--method", metavar="NAME", help="May be given again. Default erm and mat."),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="METHOD.NAME=VALUE", help="A setting of a method; may be given again."),
]
TaskOptions = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=VALUE", help="An option of a built-in task; may be given again."),
]
Examples = Annotated[
    int, typer.Option(min=0, help="Training examples to list at most, the most memorized first.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a record that is there.")]


def add_to(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def compare(
        data: DataOrTask,
        output: Output,
        methods: Methods = None,
        set_: Settings = None,
        option: TaskOptions = None,
        examples: Examples = 20_000,
        target: Target = None,
        group: Group = None,
        validation: Validation = "0.1",
        test: Test = "0.2",
        model: Model = None,
        epochs: Epochs = None,
        seed: Seed = 0,
        ignore: Ignore = None,
        kind: Kinds = None,
        picture_size: PictureSize = 64,
        overwrite: Overwrite = False,
        json: Json = False,
    ) -> None:
        """Train several methods on the same data and record the run, for `unrote report`."""
        from unrote.record import record_run, train_methods
        from unrote.report import read_record
        from unrote.report.saved_run import check_free

        check_free(output, overwrite=overwrite)
        chosen = list(dict.fromkeys(methods or ["erm", "mat"]))
        given = _by_method(settings(set_), chosen)
        how: dict[str, Any] = {
            "group": group,
            "ignore": ignore,
            "kinds": kind,
            "validation": validation,
            "test": test,
        }
        how |= {"seed": seed, "picture_size": picture_size}
        with warnings_on_stderr() as said:
            made = _read(data, option, target, how)
            trained = train_methods(
                made, chosen, settings=given, model=model, epochs=epochs, seed=seed, progress=True
            )
            record_run(made, trained, output, examples=examples, overwrite=overwrite)
        _show(read_record(output), output, said, json=json)


def _show(record: "RunRecord", output: Path, said: list[str], *, json: bool) -> None:
    if not json:
        _print(record, output)
        return
    found = record.contents
    scores = {one.name: None if one.scores is None else one.scores.model_dump() for one in found.methods}
    print_json({"record": str(output), "scores": scores, "missing": found.missing, "warnings": said})


def _by_method(given: dict[str, Any], methods: list[str]) -> dict[str, dict[str, Any]]:
    """Settings of `--set METHOD.NAME=VALUE` by method.

    Raises:
        OptionError: if one names no method that is trained.
    """
    from unrote.errors import OptionError

    found: dict[str, dict[str, Any]] = {}
    for key, value in given.items():
        method, dot, name = key.partition(".")
        if not dot or method not in methods:
            raise OptionError(
                f"--set {key}: METHOD.NAME=VALUE is wanted, with a method among {', '.join(methods)}"
            )
        found.setdefault(method, {})[name] = value
    return found


def _read(data: str, option: list[str] | None, target: str | None, how: dict[str, Any]) -> "Task | TableTask":
    """The table of a file, or a built-in task.

    Raises:
        OptionError: if options do not go with the data.
        UnknownNameError: if it is neither a file nor a task.
    """
    from unrote.data import load_task, task_names, task_sources
    from unrote.errors import OptionError, UnknownNameError

    path = Path(data)
    if path.exists():
        if option:
            raise OptionError(f"--option is of built-in tasks, and {data} is a file: leave it out")
        return read_task(path, target, **how)
    if data not in task_names():
        raise UnknownNameError("file or task", data, task_names())
    given = [name for name in ("group", "ignore", "kinds") if how[name]] + (["target"] if target else [])
    if given:
        raise OptionError(f"--{given[0]} is of tables, and {data!r} is a built-in task: leave it out")
    options = settings(option)
    if "seed" in task_sources()[data].options:
        options = {"seed": how["seed"], **options}
    return load_task(data, **options)


def _print(record: "RunRecord", output: Path) -> None:
    from unrote.report.words import headline, method_title, with_interval

    scored = [(method_title(m.name), m.scores) for m in record.contents.methods if m.scores is not None]
    if scored:
        names = [one.name for one in scored[0][1].groups if one.n]
        cells = [
            [
                plain(name),
                *(with_interval(one) for _, s in scored for one in s.groups if one.name == name),
            ]
            for name in names
        ]
        cells.append(["all examples", *(f"{scores.average:.1%}" for _, scores in scored)])
        split = record.contents.data.scored_split
        title = f"Accuracy on the {split} split (95% interval)"
        print_table(
            title, ["group", *(name for name, _ in scored)], cells, numeric=[name for name, _ in scored]
        )
        typer.echo(headline(record))
    typer.echo(f"Recorded in {output}. For a page: unrote report {output} -o report.html")

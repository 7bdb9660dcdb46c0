"""`unrote memorize`: what a model has memorized of each row, by group and by training method."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unrote.cli.output import Json, print_json, print_table
from unrote.cli.table_options import (
    Data,
    Epochs,
    Group,
    Ignore,
    Kinds,
    Model,
    Overwrite,
    PictureSize,
    ReportFile,
    Seed,
    Target,
    plain,
    read_task,
    warnings_on_stderr,
)

if TYPE_CHECKING:
    from unrote.memorization import Comparison, Score
    from unrote.tables import TableTask

SCORES = ("leave_one_out", "self_influence", "tracin", "trak", "subsampled", "data_map", "forgetting")
"""Scores by name; the last three train models of their own."""

_TRAINED = ("subsampled", "data_map", "forgetting")


def add_to(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def memorize(
        data: Data,
        target: Target = None,
        group: Group = None,
        score: Annotated[str, typer.Option(metavar="NAME", help=f"{', '.join(SCORES)}.")] = "leave_one_out",
        method: Annotated[
            list[str] | None,
            typer.Option(metavar="NAME", help="Training method; may be given again. Default erm and mat."),
        ] = None,
        models: Annotated[int, typer.Option(min=10, help="Models that 'subsampled' trains.")] = 200,
        top: Annotated[int, typer.Option(min=0, help="Rows to list.")] = 15,
        output: ReportFile = None,
        model: Model = None,
        epochs: Epochs = None,
        seed: Seed = 0,
        ignore: Ignore = None,
        kind: Kinds = None,
        picture_size: PictureSize = 64,
        overwrite: Overwrite = False,
        json: Json = False,
    ) -> None:
        """Score how much of each row a model has memorized, and compare groups and training methods."""
        from unrote.errors import UnknownNameError
        from unrote.memorization import compare
        from unrote.tables.writing import SUFFIXES, check_output

        if score not in SCORES:
            raise UnknownNameError("score", score, SCORES)
        if output is not None:
            check_output(output, overwrite=overwrite, suffixes=(".json", *SUFFIXES))
        with warnings_on_stderr() as said:
            made = read_task(
                data,
                target,
                group=group,
                ignore=ignore,
                kinds=kind,
                validation="0",
                test="0",
                seed=seed,
                picture_size=picture_size,
            )
            options: dict[str, Any] = {"model": model, "epochs": epochs, "seed": seed}
            scores, groups, names = _scores(made, score, method or ["erm", "mat"], models, options)
            found = compare(scores, None, None, groups, group_names=names)
        if output is not None:
            _write(found, made, output, said)
        _show(found, made, top, said, json=json)


def _show(found: "Comparison", made: "TableTask", top: int, said: list[str], *, json: bool) -> None:
    if json:
        listed = {name: _top(one, made, top) for name, one in found.scores.items()}
        print_json({**found.to_dict(), "top": listed, "warnings": said})
    else:
        _print(found, made, top)


def _scores(
    made: "TableTask", score: str, methods: list[str], n_models: int, options: dict[str, Any]
) -> tuple[dict[str, "Score"], Any, list[str]]:
    """Scores by method, each row's group, and the groups' names; inferred ones where there is no group column."""
    from unrote import memorization
    from unrote.table_runs import INFERRED, default_model, method_for_tables, open_session

    task, x, y = made.task, made.task.train.x, made.task.train.y
    first = open_session(made, method_for_tables(methods[0]), progress=True, **options)
    if task.train.has_attribute:
        groups, names = task.group(task.train), list(task.group_names)
    else:
        twins = first.xrm()
        groups, names = twins.mistakes[twins.best].long(), list(INFERRED)
    take = getattr(memorization, score)
    if score in _TRAINED:
        kind = options["model"] or default_model(x.shape)
        more: dict[str, Any] = {"n_models": n_models} if score == "subsampled" else {}
        built = _architecture(kind, first)
        result = take(built, x, y, recipe=first.recipe, seed=options["seed"], **more)
        return {"erm": result}, groups.numpy(), names
    found = {}
    for name in dict.fromkeys(methods):
        chosen = method_for_tables(name)
        session = open_session(made, chosen, progress=True, **options)
        session.artefacts.update(first.artefacts)  # twins are trained once
        found[name] = take(chosen.fit(session), x, y)
    return found, groups.numpy(), names


def _architecture(kind: str, session: Any) -> Any:
    return kind if kind != "cnn" else session.build([0])


def _write(found: "Comparison", made: "TableTask", output: Path, said: list[str]) -> None:
    from unrote.tables.writing import write_columns, write_json

    if output.suffix.lower() != ".json":
        columns: dict[str, Any] = {"row": made.rows["train"] + 1, "group": found.groups}
        for name, score in found.scores.items():
            columns[f"{name}_{score.name}"] = score.values
            for extra in ("p_train", "p_held_out"):
                if extra in score.details:
                    columns[f"{name}_{extra}"] = score.details[extra]
            if score.errors is not None:
                columns[f"{name}_error"] = score.errors
        write_columns(output, columns)
        return
    write_json(output, {**found.to_dict(), "warnings": said})


def _print(found: "Comparison", made: "TableTask", top: int) -> None:
    from unrote.memorization.compare import KINDS

    rows = []
    for kept in found.kept:
        middle = [f"{kept.quantiles[i]:.3g}" for i in (1, 2, 3)]
        auc = "" if kept.auc is None else f"{kept.auc:.2f}"
        rows.append([plain(kept.method), plain(kept.group), f"{kept.n:,}", f"{kept.mean:.3g}", *middle, auc])
    columns = [
        "method",
        "group",
        "rows",
        "mean",
        "quarter below",
        "half below",
        "3/4 below",
        "against the rest",
    ]
    print_table(f"1. How much is memorized? ({found.score})", columns, rows, numeric=columns[2:])
    typer.echo(
        "'Against the rest' is the chance that a row of the group scores above a row of the others: 0.5 is no\n"
        "difference. The largest distance between two groups' distributions (0 to 1): "
        + ", ".join(f"{name} {value:.2f}" for name, value in found.distance.items())
        + ".\n"
    )
    if found.shifts:
        shown = [
            [plain(f"{s.first} to {s.second}"), plain(s.group), f"{s.median_change:+.3g}", f"{s.p_value:.1g}"]
            for s in found.shifts
        ]
        columns = ["methods", "group", "median change", "p"]
        print_table("2. What changes between methods, row by row?", columns, shown, numeric=columns[2:])
    if found.maps:
        mapped = [
            [plain(method), plain(group), *(f"{count:,}" for count in counts)]
            for method, one in found.maps.items()
            for group, counts in one.items()
        ]
        columns = ["method", "group", *KINDS]
        print_table("3. Noise or minority? (rows of each kind)", columns, mapped, numeric=columns[2:])
    for name, score in found.scores.items() if top else ():
        columns = ["row", "label", "score", "p with", "p without"]
        cells = [
            [
                plain(one["name"]),
                plain(one["label"]),
                *(_number(one.get(k)) for k in ("score", "p_train", "p_held_out")),
            ]
            for one in _top(score, made, top)
        ]
        print_table(f"Rows that {name} memorized most", columns, cells, numeric=columns[2:])
    for note in dict.fromkeys(note for score in found.scores.values() for note in score.notes):
        typer.echo(f"Note: {note}.")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _top(score: "Score", made: "TableTask", k: int) -> list[dict[str, Any]]:
    """The rows with the largest scores, as JSON can hold them."""
    task, rows = made.task, made.rows["train"]
    listed = []
    for i in score.top(k).tolist():
        row = {
            "row": int(rows[i]) + 1,
            "name": made.tables["train"].row_name(int(rows[i])),
            "label": task.class_names[int(task.train.y[i])],
            "score": float(score.values[i]),
        }
        extra = {
            key: float(score.details[key][i]) for key in ("p_train", "p_held_out") if key in score.details
        }
        listed.append({**row, **extra})
    return listed

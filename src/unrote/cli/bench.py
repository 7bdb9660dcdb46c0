"""`unrote bench`: search, selection and re-runs over seeds, and the table of them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from unrote.cli.output import Json, print_json, print_table

if TYPE_CHECKING:
    from unrote.benchmark import Summary
    from unrote.benchmark.executors import Executor

StoreOption = Annotated[Path, typer.Option("--store", help="The SQLite file of the results.")]
SpecOption = Annotated[
    str | None, typer.Option("--spec", help="Name of the benchmark; default the last one run.")
]

_STORE = Path("out/bench.sqlite")


def add_to(app: typer.Typer) -> None:
    """Add the command and its own commands."""
    bench = typer.Typer(
        no_args_is_help=True, help="Benchmarks: search, selection, re-runs over seeds, tables."
    )
    app.add_typer(bench, name="bench")
    _add_run(bench)
    _add_status(bench)
    _add_table(bench)
    _add_compare(bench)


def _add_run(bench: typer.Typer) -> None:
    @bench.command()
    def run(
        spec: Annotated[str, typer.Argument(help="A TOML file, or: quick, paper, features.")],
        store: StoreOption = _STORE,
        executor: Annotated[
            Literal["local", "ray"], typer.Option(help="This machine, or a Ray cluster.")
        ] = "local",
        workers: Annotated[
            int | None,
            typer.Option(min=1, help="Processes on this machine, of one thread each; default one per core."),
        ] = None,
        address: Annotated[
            str | None, typer.Option(help="Of the Ray cluster; default one on this machine.")
        ] = None,
        cpus: Annotated[int, typer.Option(min=1, help="Per Ray job.")] = 1,
        gpus: Annotated[float, typer.Option(min=0, help="Per Ray job; fractions share a device.")] = 0.0,
        retry_failed: Annotated[
            bool, typer.Option("--retry-failed", help="Do failed runs once more.")
        ] = False,
        json: Json = False,
    ) -> None:
        """Do all runs of a benchmark that the store does not have, and print the table.

        Stop it at any time and start it again: finished runs are kept. Start it twice to use two processes.
        """
        from unrote.benchmark import Store, build_tables, load_spec, run_benchmark
        from unrote.benchmark.formats import print_rich

        wanted = load_spec(spec)
        results = Store(store)
        if retry_failed:
            results.forget(["failed"])
        summary = run_benchmark(
            wanted, results, executor=_executor(executor, workers, address, cpus, gpus), progress=True
        )
        table = build_tables(results, wanted.name)
        if json:
            print_json(table.to_dict())
        else:
            print_rich(table)
        typer.echo(_summary_line(summary, store), err=True)


def _executor(name: str, workers: int | None, address: str | None, cpus: int, gpus: float) -> "Executor":
    if name == "local":
        from unrote.benchmark.executors import LocalExecutor
        from unrote.benchmark.process_executor import ProcessExecutor, usable_cores

        workers = workers or usable_cores()
        return LocalExecutor() if workers == 1 else ProcessExecutor(workers)
    from unrote.benchmark.ray_executor import RayExecutor

    return RayExecutor(address, cpus, gpus)


def _summary_line(summary: "Summary", store: Path) -> str:
    lost = [f"{summary.counts[name]} {name}" for name in ("failed", "diverged") if summary.counts[name]]
    text = f"{summary.counts['done']} runs done" + "".join(f", {part}" for part in lost)
    text += f"; {summary.mine} of them now, in {summary.seconds:.0f} s. Results: {store}"
    return text if summary.complete else text + ". NOT COMPLETE: run it again to go on"


def _add_status(bench: typer.Typer) -> None:
    @bench.command()
    def status(store: StoreOption = _STORE, spec: SpecOption = None, json: Json = False) -> None:
        """Say how far a benchmark is, and what failed."""
        from unrote.benchmark.display import State
        from unrote.benchmark.protocol import Protocol

        results = _existing(store)
        protocol = Protocol.read(results, spec)
        records = results.records()
        state = State.of(protocol, records)
        errors = protocol.errors(records)
        if json:
            counts = {**state.counts, "expected": state.expected}
            print_json({"name": protocol.spec.name, "runs": counts, "errors": errors})
            return
        rows = [[name, str(state.counts[name])] for name in ("done", "failed", "diverged", "running")]
        rows.append(["still to come", str(max(0, state.expected - state.ended - state.counts["running"]))])
        print_table(
            f"{protocol.spec.name}: {state.ended} of {state.expected} runs", ["runs", ""], rows, numeric=[""]
        )
        if errors:
            columns = ["task", "method", "seed", "status", "error"]
            cells = [[_plain(str(error[name])) for name in columns] for error in errors]
            print_table("What did not end well", columns, cells, numeric=["seed"])


def _add_table(bench: typer.Typer) -> None:
    @bench.command()
    def table(
        store: StoreOption = _STORE,
        spec: SpecOption = None,
        format: Annotated[
            Literal["rich", "markdown", "csv", "latex", "json"], typer.Option("--format", "-f")
        ] = "rich",
    ) -> None:
        """Print the table of a benchmark."""
        from unrote.benchmark import build_tables
        from unrote.benchmark.formats import FORMATS, print_rich

        made = build_tables(_existing(store), spec)
        if format == "rich":
            print_rich(made)
        else:
            typer.echo(FORMATS[format](made), nl=False)


def _add_compare(bench: typer.Typer) -> None:
    @bench.command()
    def compare(
        a: Annotated[str, typer.Argument(help="METHOD, METHOD:REGIME or METHOD:REGIME:CRITERION.")],
        b: Annotated[str, typer.Argument(help="Likewise.")],
        metric: Annotated[
            str, typer.Option(help="worst_group, average, reweighted_average, group_mean or worst_class.")
        ] = "worst_group",
        store: StoreOption = _STORE,
        spec: SpecOption = None,
        json: Json = False,
    ) -> None:
        """Compare two methods, seed by seed."""
        from dataclasses import asdict

        from unrote.benchmark import build_tables
        from unrote.benchmark import compare as compared

        found = compared(build_tables(_existing(store), spec), a, b, metric)
        if json:
            print_json([asdict(one) for one in found])
            return
        _print_comparisons(found)


def _print_comparisons(found: "list[Any]") -> None:
    from unrote.benchmark.tables import METRICS

    first = found[0]
    names = [f"{row.method}:{row.regime}:{row.criterion}" for row in (first.a, first.b)]
    rows = []
    for one in found:
        low, high = one.difference.interval or (float("nan"), float("nan"))
        interval = f"{100 * low:+.1f} to {100 * high:+.1f}" if one.difference.interval else "one seed: none"
        rows.append(
            [
                one.task,
                str(len(one.seeds)),
                f"{100 * one.a_mean:.1f}",
                f"{100 * one.b_mean:.1f}",
                f"{100 * one.difference.mean:+.1f}",
                interval,
                f"{one.p:.3g}",
            ]
        )
    columns = ["task", "seeds", f"A: {names[0]}", f"B: {names[1]}", "A - B", "95% interval", "p"]
    print_table(
        f"{METRICS[first.metric]} on the test split, in percent, paired over seeds",
        columns,
        rows,
        numeric=columns[1:],
    )
    few = min(len(one.seeds) for one in found)
    typer.echo(
        f"p: two-sided, exact sign-flip test of the paired differences; {few} seeds can show no p below "
        f"{2.0 ** (1 - few):.2g}."
        if few <= 16
        else "p: two-sided paired t test."
    )
    if len(found) > 1:
        typer.echo(
            f"{len(found)} tests at once: at 5% each, expect one false alarm in {20 / len(found):.0f} such tables."
        )


def _existing(path: Path) -> Any:
    """A store that is there: asking for a table must not make an empty one."""
    from unrote.benchmark import Store
    from unrote.errors import DataError

    if not path.is_file():
        raise DataError(
            f"no store of results at {path}: run `unrote bench run` first, or name it with --store"
        )
    return Store(path)


def _plain(text: str) -> str:
    return text.replace("[", r"\[")

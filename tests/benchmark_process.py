"""One process of a benchmark, for tests: `python benchmark_process.py STORE LOG PAUSE`.

Every run begun is written to LOG, and PAUSE seconds are slept in each, so that a kill can fall into it.
"""

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from benchmark_toys import shortcut_task, small_spec

from unrote.benchmark import Store, run_benchmark
from unrote.benchmark import executors as executors_module
from unrote.benchmark.execution import execute
from unrote.benchmark.runs import Run


def main(store: str, log: str, pause: float) -> None:
    torch.set_num_threads(1)

    def logged(runs: Sequence[Run], *rest: Any) -> Any:
        with Path(log).open("a") as file:
            file.write("".join(f"{os.getpid()} {run.key}\n" for run in runs))
        time.sleep(pause)
        return execute(runs, *rest)

    executors_module.execute = logged
    run_benchmark(small_spec(stack=1), Store(store), tasks={"toy": shortcut_task()})


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]))

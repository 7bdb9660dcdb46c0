"""What a sweep costs: 50 configurations of a method that is a weight or a shift, as one stack, against one.

    python benchmarks/sweep.py [--json]

A linear head on features (n 4,795, d 512, batch 128, two classes). Each configuration has a seed, a learning
rate, a weight decay and a hyper-parameter of its own, so that nothing but the minibatches is shared; the clock
runs over whole fits, from supervision to trained classifier. The two sides of each ratio take turns, and the
fastest rounds are compared, which other work on the machine disturbs least. Exit code 1 if a sweep costs more
than 5 times one.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace

import torch

from unrote import Recipe, Split, Task
from unrote.methods import METHODS, Method, Session, SupervisionMethod
from unrote.models import StackedLinear

EXAMPLES, FEATURES, CLASSES, BATCH, CONFIGURATIONS, LIMIT = 4795, 512, 2, 128, 50, 5.0


def features() -> Task:
    """Features on which nothing is learned: the cost does not depend on what they are."""
    random = torch.Generator().manual_seed(0)
    y = (torch.rand(EXAMPLES, generator=random) < 0.25).long()
    attribute = torch.where(torch.rand(EXAMPLES, generator=random) < 0.95, y, 1 - y)
    return Task("features", Split(torch.randn(EXAMPLES, FEATURES, generator=random), y, attribute))


def configurations(method: str, task: Task) -> list[Method]:
    """As many settings of a method as are swept."""
    kind, held_out = METHODS[method], torch.nn.functional.one_hot(task.train.attribute, CLASSES).float()
    steps = range(1, CONFIGURATIONS + 1)
    if method == "mat":
        return [kind(temperature=0.05 * k, held_out=held_out) for k in steps]
    if method == "logit_adjustment":
        return [kind(tau=0.05 * k) for k in steps]
    if method == "cb_loss":
        return [kind(volume=100.0 * k) for k in steps]
    return [kind() for _ in steps]


def seconds(work: Callable[[], object]) -> float:
    """How long one call takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def cost(method: str, task: Task, rounds: int, epochs: int) -> dict[str, float]:
    """Seconds of one fit and of the sweep, the fastest of rounds that alternate, and their ratio."""
    methods = configurations(method, task)
    recipe = Recipe("sgd", 1e-3, 1e-4, batch_size=BATCH, epochs=epochs)

    def build(seeds: list[int]) -> StackedLinear:
        return StackedLinear(FEATURES, CLASSES, seeds)

    sessions = [
        Session(
            task, build, replace(recipe, learning_rate=1e-3 * (1 + k), weight_decay=1e-5 * (1 + k)), seed=k
        )
        for k in range(CONFIGURATIONS)
    ]
    pairs = [
        (
            seconds(lambda: methods[0].fit(sessions[0])),
            seconds(lambda: SupervisionMethod.fit_many(methods, sessions)),
        )
        for _ in range(rounds)
    ]
    one, many = (min(side) for side in zip(*pairs, strict=True))
    return {"one_seconds": one, "sweep_seconds": many, "ratio": many / one}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    task = features()
    found = {
        method: cost(method, task, options.rounds, options.epochs)
        for method in ("erm", "cb_loss", "logit_adjustment", "mat", "subg")
    }
    if options.json:
        print(json.dumps(found))
    else:
        print(
            f"{CONFIGURATIONS} configurations as one stack, {options.epochs} epochs   one fit     sweep     ratio"
        )
        for method, figures in found.items():
            print(
                f"{method:42} {figures['one_seconds']:8.2f} s {figures['sweep_seconds']:8.2f} s "
                f"{figures['ratio']:8.1f}"
            )
    sys.exit(any(figures["ratio"] > LIMIT for figures in found.values()))


if __name__ == "__main__":
    main()

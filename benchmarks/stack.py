"""What training many models at once costs: ratios measured in one run, so that they hold on any machine.

1. 100 linear heads on features (n 4,795, d 2,048, batch 128, two classes) as one stack, against one head in a
   plain PyTorch loop: features in memory, one shuffle an epoch, no DataLoader. Both take the same steps.
2. The whole of MAT (XRM's twins, held-out predictions, shifted training) on the small CNN, against one ERM run
   of the same steps.

    python benchmarks/stack.py [--json]

The two sides of each ratio take turns, and the medians are compared.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch

from unrote import Recipe, Split, StackedLinear, Supervision, Task, fit, train
from unrote.training import Supervised

EXAMPLES, FEATURES, CLASSES, BATCH, HEADS = 4795, 2048, 2, 128, 100
PICTURES = 2000


def plain_head(x: torch.Tensor, y: torch.Tensor, steps: int) -> None:
    """One head, as a careful person would write it."""
    head = torch.nn.Linear(x.shape[1], CLASSES)
    optimizer = torch.optim.SGD(head.parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-4)
    done = 0
    while done < steps:
        for rows in torch.randperm(len(x)).split(BATCH)[: steps - done]:
            loss = torch.nn.functional.cross_entropy(head(x[rows]), y[rows])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            done += 1


def stacked_heads(x: torch.Tensor, y: torch.Tensor, steps: int) -> None:
    """A hundred heads, each with a learning rate of its own as in a sweep."""
    rates = tuple(1e-3 * (1 + member / HEADS) for member in range(HEADS))
    recipe = Recipe("sgd", rates, weight_decay=1e-4, momentum=0.9, batch_size=BATCH, steps=steps)
    stack = StackedLinear(FEATURES, CLASSES, seeds=range(HEADS))
    train(stack, x, Supervised(Supervision(y)), recipe)


def seconds(work: Callable[[], object]) -> float:
    """How long one call takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def in_turn(first: Callable[[], object], second: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Median seconds of both, measured alternately after a warm-up."""
    first(), second()
    pairs = [(seconds(first), seconds(second)) for _ in range(rounds)]
    return statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs)


def heads(rounds: int, steps: int) -> dict[str, float]:
    """Milliseconds per step of one plain head and of the stack, and the ratio per head."""
    random = torch.Generator().manual_seed(0)
    x = torch.randn(EXAMPLES, FEATURES, generator=random)
    y = torch.randint(CLASSES, (EXAMPLES,), generator=random)
    plain, stacked = in_turn(lambda: plain_head(x, y, steps), lambda: stacked_heads(x, y, steps), rounds)
    return {
        "plain_ms_per_step": 1e3 * plain / steps,
        "stack_ms_per_step": 1e3 * stacked / steps,
        "times_faster_per_head": HEADS * plain / stacked,
    }


def pipeline(rounds: int) -> dict[str, float]:
    """Seconds of ERM and of the whole of MAT, and their ratio."""
    random = torch.Generator().manual_seed(0)
    y = torch.arange(PICTURES) % 2
    x = torch.rand(PICTURES, 3, 28, 28, generator=random) + 0.1 * y.view(-1, 1, 1, 1)
    task, recipe = Task("pictures", Split(x, y)), Recipe("adam", 1e-3, batch_size=128, epochs=15)
    erm, mat = in_turn(
        lambda: fit(task, "erm", model="cnn", recipe=recipe),
        lambda: fit(task, "mat", model="cnn", recipe=recipe, temperature=0.1),
        rounds,
    )
    return {"erm_seconds": erm, "mat_seconds": mat, "mat_over_erm": mat / erm}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    figures = {**heads(options.rounds, steps=1001), **pipeline(options.rounds)}
    if options.json:
        print(json.dumps(figures))
        return
    print(
        f"one plain head          {figures['plain_ms_per_step']:7.2f} ms a step\n"
        f"a stack of {HEADS} heads    {figures['stack_ms_per_step']:7.2f} ms a step\n"
        f"                        {figures['times_faster_per_head']:7.1f} times faster per head\n"
        f"MAT on a small CNN      {figures['mat_over_erm']:7.2f} times one ERM run of the same steps"
    )


if __name__ == "__main__":
    main()

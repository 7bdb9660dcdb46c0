"""What the scores of a linear head cost: time, peak memory and agreement, ours against other libraries.

    python benchmarks/self_influence.py [--json] [--case small] [--growth] [--threads 2]

Each measurement runs in a process of its own, so that peak memory is its own; the rate of a matrix product is
measured in that same process, before and after, because a shared machine's speed changes within a minute. Exact
self-influence is compared with the time its floating-point operations take at that rate. Peers run where they are
installed (`pip install captum dattri`; kronfluence with --no-deps beside einconv, einops, opt_einsum and accelerate).
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

CASES = {
    "small": (2_000, 512, 10),
    "small binary": (2_000, 512, 2),
    "large": (20_000, 512, 10),
    "large binary": (20_000, 512, 2),
    "waterbirds": (4_795, 2_048, 2),
    "celeba": (160_000, 512, 2),
}
GROWTH = [(n, 512, 2) for n in (5_000, 20_000, 80_000)]
GROWTH += [(8_000, d, 2) for d in (256, 512, 1024)] + [(4_000, 256, c) for c in (2, 5, 10)]
DAMPING = 1e-3
OURS = ("self_influence float64", "self_influence", "leave_one_out", "tracin", "kfac")
PEERS = ("captum tracin fast", "dattri explicit", "pydvl direct", "kronfluence kfac", "kronfluence ekfac")
EXACT_PEERS_UP_TO = 3_000  # examples: beyond, they need hours or more memory than there is


def problem(n: int, d: int, c: int) -> tuple[torch.Tensor, torch.Tensor, torch.nn.Linear]:
    """Features around one centre per class, a tenth of the labels wrong, and a head fitted by a few steps."""
    random = torch.Generator().manual_seed(0)
    y = torch.randint(c, (n,), generator=random)
    x = (torch.randn(c, d, generator=random)[y] * 0.3 + torch.randn(n, d, generator=random)) / d**0.5
    wrong = torch.rand(n, generator=random) < 0.1
    y = torch.where(wrong, torch.randint(c, (n,), generator=random), y)
    head = torch.nn.Linear(d, c)
    with torch.no_grad():
        head.weight.zero_(), head.bias.zero_()
    optimizer = torch.optim.LBFGS(head.parameters(), max_iter=30)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        squares = sum(p.square().sum() for p in head.parameters())
        loss = torch.nn.functional.cross_entropy(head(x), y) + DAMPING / 2 * squares
        loss.backward()
        return loss

    optimizer.step(closure)
    return x, y, head


def rate(dtype: torch.dtype) -> float:
    """Operations a second of a matrix product, the best of five."""
    a = torch.randn(2048, 2048, dtype=dtype)
    times = []
    for _ in range(6):
        start = time.perf_counter()
        a @ a
        times.append(time.perf_counter() - start)
    return 2 * 2048**3 / min(times[1:])


def ours(name: str, x: torch.Tensor, y: torch.Tensor, head: torch.nn.Linear) -> Any:
    """One of our scores."""
    from unrote import memorization as um

    if name == "tracin":
        return um.tracin(head, x, y)
    if name == "kfac":
        return um.kfac_head(head, x, y, damping=DAMPING)
    score = um.leave_one_out if name == "leave_one_out" else um.self_influence
    return score(head, x, y, damping=DAMPING, dtype="float64" if "64" in name else "float32")


def captum_fast(x: torch.Tensor, y: torch.Tensor, head: torch.nn.Linear) -> np.ndarray:
    from captum.influence import TracInCPFast

    model = torch.nn.Sequential(head)
    data = torch.utils.data.TensorDataset(x, y)
    with tempfile.NamedTemporaryFile(suffix=".pt") as file:
        torch.save(model.state_dict(), file.name)

        def load(module: torch.nn.Module, path: str) -> float:
            module.load_state_dict(torch.load(path, weights_only=True))
            return 1.0

        loss = torch.nn.CrossEntropyLoss(reduction="sum")
        scorer = TracInCPFast(model, head, data, [file.name], load, loss, batch_size=len(x))
        return scorer.self_influence().numpy()


def dattri_explicit(x: torch.Tensor, y: torch.Tensor, head: torch.nn.Linear) -> np.ndarray:
    from dattri.algorithm.influence_function import IFAttributorExplicit
    from dattri.task import AttributionTask

    model = torch.nn.Sequential(head)

    def loss(params: Any, pair: Any) -> torch.Tensor:
        a, b = pair
        out = torch.func.functional_call(model, params, (a.view(-1, x.shape[1]),))
        return torch.nn.functional.cross_entropy(out, b.view(-1))

    task = AttributionTask(loss_func=loss, model=model, checkpoints=model.state_dict())
    scorer = IFAttributorExplicit(task=task, regularization=DAMPING, device="cpu")
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=len(x))
    scorer.cache(loader)
    return scorer.self_attribute(loader).detach().numpy().ravel()


def pydvl_direct(x: torch.Tensor, y: torch.Tensor, head: torch.nn.Linear) -> np.ndarray:
    from pydvl.influence.torch import DirectInfluence

    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=len(x))
    scorer = DirectInfluence(head, torch.nn.functional.cross_entropy, DAMPING).fit(loader)
    return scorer.influences(x, y).diagonal().detach().numpy()


def kronfluence(kind: str, x: torch.Tensor, y: torch.Tensor, head: torch.nn.Linear) -> np.ndarray:
    import kronfluence as kf
    from kronfluence.task import Task

    class Classify(Task):
        def compute_train_loss(self, batch: Any, model: Any, sample: bool = False) -> torch.Tensor:
            logits = model(batch[0])
            target = torch.multinomial(logits.softmax(1), 1)[:, 0] if sample else batch[1]
            return torch.nn.functional.cross_entropy(logits, target.detach(), reduction="sum")

        def compute_measurement(self, batch: Any, model: Any) -> torch.Tensor:
            return self.compute_train_loss(batch, model)

    task, data = Classify(), torch.utils.data.TensorDataset(x, y)
    model = kf.prepare_model(torch.nn.Sequential(head), task)
    with tempfile.TemporaryDirectory() as folder:
        analyzer = kf.Analyzer("bench", model, task, cpu=True, output_dir=folder, disable_tqdm=True)
        analyzer.fit_all_factors(
            "f", data, per_device_batch_size=len(x), factor_args=kf.FactorArguments(kind)
        )
        arguments = kf.ScoreArguments(damping_factor=DAMPING)
        analyzer.compute_self_scores("s", "f", data, per_device_train_batch_size=len(x), score_args=arguments)
        return analyzer.load_self_scores("s")["all_modules"].numpy()


def measure(name: str, n: int, d: int, c: int, threads: int) -> dict[str, Any]:
    """One score on one problem, in this process."""
    torch.set_num_threads(threads)
    x, y, head = problem(n, d, c)
    kind = torch.float64 if "64" in name else torch.float32
    peers: dict[str, Callable[[], Any]] = {
        "captum tracin fast": lambda: captum_fast(x, y, head),
        "dattri explicit": lambda: dattri_explicit(x, y, head),
        "pydvl direct": lambda: pydvl_direct(x, y, head),
        "kronfluence kfac": lambda: kronfluence("kfac", x, y, head),
        "kronfluence ekfac": lambda: kronfluence("ekfac", x, y, head),
    }
    work = peers.get(name, lambda: ours(name, x, y, head))
    if name in OURS:  # once on little, so that imports and first calls are not in it
        ours(name, x[:200], y[:200], head)
    first, before = rate(kind), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    times, values = [], None
    repeated = name in OURS and n * d * c < 2e8
    # the best of several, as the product's rate is; of milliseconds many
    while not times or (repeated and (len(times) < 3 or sum(times) < 0.5)):
        start = time.perf_counter()
        values = work()
        times.append(time.perf_counter() - start)
    second = rate(kind)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    flops = getattr(getattr(values, "cost", None), "flops", None)
    result = {
        "name": name,
        "n": n,
        "d": d,
        "classes": c,
        "seconds": min(times),
        "added_mb": (peak - before) / 1024,
        "gflop_per_s": max(first, second) / 1e9,
    }
    if flops:
        ideal = flops / max(first, second)
        result |= {"gflop": flops / 1e9, "ideal_seconds": ideal, "times_ideal": min(times) / ideal}
    if n <= 20_000:
        if name == "leave_one_out":  # of the same kind as self-influence: what leaving out adds to the loss
            values = values.details["loss_change"]
        result["values"] = np.asarray(values, np.float64).tolist()
    return result


def apart(name: str, n: int, d: int, c: int, threads: int, limit: float) -> dict[str, Any]:
    """`measure` in a process of its own; what went wrong, where something did."""
    command = [sys.executable, __file__, "--measure", name, str(n), str(d), str(c), "--threads", str(threads)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return {"name": name, "n": n, "d": d, "classes": c, "error": f"over {limit:.0f} s"}
    if done.returncode:
        why = (done.stderr.strip().splitlines() or ["ended"])[-1]
        return {"name": name, "n": n, "d": d, "classes": c, "error": why[:90]}
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def agreement(row: dict[str, Any], exact: list[float] | None) -> None:
    """Put Pearson's and Spearman's correlation with exact self-influence in place of a row's values."""
    from scipy import stats

    values = row.pop("values", None)
    if values is not None and exact is not None:
        row["pearson"] = float(np.corrcoef(values, exact)[0, 1])
        row["spearman"] = float(stats.spearmanr(values, exact).statistic)


def show(row: dict[str, Any]) -> str:
    """A row as a person reads it."""
    where = f"{row['n']:>7,} x {row['d']:<5,} C {row['classes']:<3} {row['name']:<24}"
    if "error" in row:
        return f"{where} {row['error']}"
    ideal = f"{row['times_ideal']:6.1f}" if "times_ideal" in row else "     -"
    alike = f"{row['pearson']:8.4f} {row['spearman']:8.4f}" if "pearson" in row else ""
    return f"{where} {row['seconds']:9.3f} {ideal} {row['added_mb']:8.0f} {alike}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--case", choices=CASES, action="append", help="some cases only")
    parser.add_argument("--growth", action="store_true", help="our own scores over n, d and C, too")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--limit", type=float, default=240, help="seconds that one measurement may take")
    parser.add_argument("--measure", nargs=4, metavar=("NAME", "N", "D", "C"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        name, *sizes = options.measure
        print(json.dumps(measure(name, *map(int, sizes), options.threads)))
        return
    every = []
    if not options.json:
        print(f"{'':43} {'seconds':>9} {'/ideal':>6} {'peak MB':>8} {'Pearson':>8} {'Spearman':>8}")
    plans = [(CASES[name], True) for name in options.case or CASES]
    plans += [(sizes, False) for sizes in (GROWTH if options.growth else [])]
    for (n, d, c), peers in plans:
        names = [*OURS] if peers else ["self_influence", "leave_one_out"]
        if n > 20_000:
            names = [name for name in names if "64" not in name]
        if peers and n <= 20_000:
            slow = ("dattri explicit", "pydvl direct")
            names += [p for p in PEERS if p not in slow or n <= EXACT_PEERS_UP_TO]
        exact = None
        for name in names:
            row = apart(name, n, d, c, options.threads, options.limit)
            exact = row.get("values") if name == "self_influence float64" else exact
            agreement(row, exact)
            every.append(row)
            if not options.json:
                print(show(row), flush=True)
    if options.json:
        print(json.dumps(every))


if __name__ == "__main__":
    main()

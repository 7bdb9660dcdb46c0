"""How much memory MAT takes on features that are larger than memory, read from their file.

    python benchmarks/memory.py                            1,281,167 rows of 2,048 in half precision, 5.2 GB
    python benchmarks/memory.py --rows 25623 --buffer 2.5  a fiftieth of it
    python benchmarks/memory.py --format parquet --rows 100000

The whole of it: XRM's twins, their held-out predictions, then MAT, all with a linear head, and its accuracy by
group on rows in memory. A process of its own opens the file and trains; its peak is what it ever held,
libraries included. The claim: under 2 GB for the first line. What grows with the rows but not with the features
stays in memory: labels, and one number per row, class and model.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

LIMIT_GB = 2.0
ROWS, FEATURES = 1_281_167, 2048
ALIGNED = 0.95
_CHUNK = 4096


def labels(n: int, classes: int, aligned: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Classes, and an attribute that equals the class in a share of the rows and is any value in the others."""
    random = np.random.default_rng(seed)
    y = random.integers(classes, size=n)
    return y, np.where(random.random(n) < aligned, y, random.integers(classes, size=n))


def rows(y: np.ndarray, attribute: np.ndarray, features: int, seed: int) -> np.ndarray:
    """Features in half precision: noise, a direction per class, and a stronger one per attribute."""
    random = np.random.default_rng(seed)
    x = random.standard_normal((len(y), features), dtype=np.float32)
    x[np.arange(len(y)), y] += 4
    x[np.arange(len(y)), features // 2 + attribute] += 8
    return x.astype(np.float16)


def write(path: Path, n: int, features: int, classes: int) -> None:
    """Write the training rows, some at a time, as .npy or Parquet by the name's ending."""
    y, attribute = labels(n, classes, ALIGNED, seed=0)
    parts = (
        rows(y[start : start + _CHUNK], attribute[start : start + _CHUNK], features, seed=start + 1)
        for start in range(0, n, _CHUNK)
    )
    if path.suffix == ".npy":
        header = {"descr": "<f2", "fortran_order": False, "shape": (n, features)}
        with path.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            for part in parts:
                file.write(part.tobytes())
        return
    import pyarrow as pa
    from pyarrow import parquet

    kind = pa.list_(pa.float16(), features)
    schema = pa.schema([("x", kind)])
    with parquet.ParquetWriter(path, schema, compression="none", use_dictionary=False) as writer:
        for part in parts:
            column = pa.FixedSizeListArray.from_arrays(pa.array(part.ravel()), features)
            writer.write_table(pa.table([column], schema=schema), row_group_size=256)


def memory(what: str) -> float:
    """Megabytes of this process: "VmRSS" now, "VmHWM" at most."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what)) / 1024


def train(path: Path, arguments: argparse.Namespace) -> dict[str, float]:
    """Train on the file in this process; gives megabytes, seconds and accuracies."""
    import torch

    from unrote import Recipe, Split, Task, evaluate, fit
    from unrote.data import open_features
    from unrote.presets import PAPER_SETTINGS

    classes, features = arguments.classes, arguments.features
    y, attribute = labels(arguments.rows, classes, ALIGNED, seed=0)
    test_y, test_attribute = labels(4000, classes, 0.0, seed=1)
    test = torch.from_numpy(rows(test_y, test_attribute, features, seed=0))
    recipe = Recipe("sgd", 0.01, momentum=0.9, batch_size=arguments.batch, epochs=arguments.epochs)

    def run(x: object, n: int) -> object:
        task = Task("memory", train=Split(x, y[:n], attribute[:n]), test=Split(test, test_y, test_attribute))
        fitted = fit(
            task,
            arguments.method,
            model="linear",
            recipe=recipe,
            progress=sys.stderr.isatty(),
            **PAPER_SETTINGS.get(arguments.method, {}),
        )
        return evaluate(fitted, task)

    with tempfile.TemporaryDirectory() as folder:
        # whatever libraries load and keep when they are first used is not the data's
        small = Path(folder) / f"small{path.suffix}"
        write(small, 1024, features, classes)
        run(open_features(small), 1024)
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
    before, start = memory("VmRSS"), time.perf_counter()
    if arguments.touch_map:
        np.load(path, mmap_mode="r", allow_pickle=False).max(axis=1)
    report = run(open_features(path, buffer=round(arguments.buffer * 2**20)), arguments.rows)
    return {
        "file_mb": path.stat().st_size / 2**20,
        "before_mb": before,
        "peak_mb": memory("VmHWM"),
        "seconds": time.perf_counter() - start,
        "average": report.average,
        "worst_group": report.worst_group.accuracy,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--features", type=int, default=FEATURES)
    parser.add_argument("--classes", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--method", default="mat")
    parser.add_argument("--buffer", type=float, default=128, help="megabytes of the file held at a time")
    parser.add_argument("--format", choices=("npy", "parquet"), default="npy")
    parser.add_argument("--file", type=Path, help="where the file is made, and left; default a temporary one")
    parser.add_argument("--touch-map", action="store_true", help="go over a memory map first, to compare")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--train", action="store_true", help="train on --file in this process")
    arguments = parser.parse_args()
    if arguments.train:
        print(json.dumps(train(arguments.file, arguments)))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.file or Path(folder) / f"features.{arguments.format}"
        if not path.exists():
            write(path, arguments.rows, arguments.features, arguments.classes)
        options = [
            text
            for name in ("rows", "features", "classes", "epochs", "batch", "method", "buffer")
            for text in (f"--{name}", str(getattr(arguments, name)))
        ]
        command = [sys.executable, __file__, *options, "--file", str(path), "--train"]
        command += ["--touch-map"] if arguments.touch_map else []
        result = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    if arguments.json:
        print(json.dumps(result))
    else:
        print(
            f"{arguments.method} on {arguments.rows:,} x {arguments.features:,} in {result['file_mb']:,.0f} MB: "
            f"peak {result['peak_mb']:,.0f} MB, of which {result['before_mb']:,.0f} MB before the file was "
            f"opened; {result['seconds']:.0f} s; test accuracy {result['average']:.1%}, worst group "
            f"{result['worst_group']:.1%}"
        )
    if result["peak_mb"] > LIMIT_GB * 1024:
        sys.exit(f"more than the {LIMIT_GB:g} GB claimed")


if __name__ == "__main__":
    main()

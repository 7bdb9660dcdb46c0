"""How much memory `unrote fit` and `unrote audit` take on a large table, from file to saved model or report.

    python benchmarks/table_memory.py                     1,000,000 rows of 50 columns, as CSV
    python benchmarks/table_memory.py --rows 100000 --format parquet --command audit

The table has 30 columns of numbers (a third with gaps), 14 of categories, 3 of dates, 2 of truth values and 1 of
classes. The claim: the whole process, libraries included, stays under 4 GB.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

LIMIT_GB = 4.0
_CHUNK = 100_000


def chunks(rows: int, seed: int = 0) -> Iterator[Any]:
    """The table, some rows at a time, as arrow tables."""
    import pyarrow as pa

    random = np.random.default_rng(seed)
    for start in range(0, rows, _CHUNK):
        n = min(_CHUNK, rows - start)
        numbers = random.normal(size=(n, 30)).round(6)
        label = numbers[:, :5].sum(1) + random.normal(size=n) > 0
        numbers[:, 20:][random.random((n, 10)) < 0.1] = np.nan
        columns = {f"number{j}": pa.array(numbers[:, j], from_pandas=True) for j in range(30)}
        for j in range(14):
            names = np.array([f"value {k}" for k in range(3 + 12 * j)])
            columns[f"category{j}"] = pa.array(names[random.zipf(1.5, n) % len(names)])
        for j in range(3):
            seconds = random.integers(0, 1_700_000_000, n)
            columns[f"date{j}"] = pa.array(seconds.astype("datetime64[s]"))
        for j in range(2):
            columns[f"truth{j}"] = pa.array(random.random(n) < 0.3)
        columns["label"] = pa.array(np.where(label, "yes", "no"))
        yield pa.table(columns)


def write_table(path: Path, rows: int) -> None:
    """Write the table as CSV or Parquet, by the name's ending."""
    from pyarrow import csv, parquet

    writer = None
    for table in chunks(rows):
        if writer is None:
            kind = csv.CSVWriter if path.suffix == ".csv" else parquet.ParquetWriter
            writer = kind(path, table.schema)
        writer.write_table(table)
    assert writer is not None
    writer.close()


def peak_of(name: str, path: Path, output: Path, epochs: int) -> tuple[float, float]:
    """Run a command of unrote in a process of its own; gives its peak memory in GB and its seconds."""
    code = "from unrote.cli import main; main()"
    command = [sys.executable, "-c", code, name, str(path), "--target", "label", "-o", str(output)]
    command += ["--epochs", str(epochs)]
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=sys.stderr)
    # kilobytes on Linux; the largest of all children, of which there is one
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6, time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--format", choices=("csv", "parquet"), default="csv")
    parser.add_argument("--command", choices=("fit", "audit"), default="fit")
    parser.add_argument("--epochs", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"large.{arguments.format}"
        write_table(path, arguments.rows)
        size = path.stat().st_size / 1e6
        output = Path(folder) / ("model" if arguments.command == "fit" else "rows.csv")
        peak, seconds = peak_of(arguments.command, path, output, arguments.epochs)
    print(
        f"{arguments.command}, {arguments.rows:,} rows of 50 columns as {arguments.format} ({size:,.0f} MB): "
        f"peak {peak:.2f} GB, {seconds:.0f} s with {arguments.epochs} epoch(s)"
    )
    if peak > LIMIT_GB:
        sys.exit(f"more than the {LIMIT_GB:g} GB claimed")


if __name__ == "__main__":
    main()

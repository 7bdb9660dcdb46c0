"""The benchmark: search, selection, re-runs over seeds, and the table of them."""

from unrote.benchmark.compare import Comparison, compare
from unrote.benchmark.runner import Summary, run_benchmark
from unrote.benchmark.spec import Spec, load_spec, parse_spec, spec_names
from unrote.benchmark.store import Store
from unrote.benchmark.tables import Row, Table, build_tables

__all__ = [
    "Comparison",
    "Row",
    "Spec",
    "Store",
    "Summary",
    "Table",
    "build_tables",
    "compare",
    "load_spec",
    "parse_spec",
    "run_benchmark",
    "spec_names",
]

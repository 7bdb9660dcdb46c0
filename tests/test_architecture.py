"""The rules that keep the package easy to carry on, read off its source: layers, sizes, habits."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "unrote"
MODULES = sorted(PACKAGE.rglob("*.py"))

MAX_MODULE_LINES = 400
MAX_FUNCTION_LINES = 60

# Who may import whom. A unit is a file or folder directly under the package. Each may import itself and what
# is listed for it: a whole unit, or one module of a unit.
FIRST = {"_version", "cache", "compiled", "errors", "registry", "seeding", "supervision"}
TRAINING = {"training", "checkpoint", "progress"}
ARRAYS_ONLY = {"shift", "metrics"}
BELOW_AUTOMATIC = FIRST | {"data", "models"} | TRAINING | {"heldout", "shift"}
BELOW_METHODS = BELOW_AUTOMATIC | {"agreement", "automatic"}
BELOW_API = BELOW_METHODS | {"methods", "presets"}
BELOW_BENCHMARK = BELOW_API | ARRAYS_ONLY | {"api", "memorization"}
LAYERS: dict[str, set[str]] = {
    **dict.fromkeys(FIRST, FIRST),
    "data": FIRST | {"checkpoint", "progress"},
    "models": FIRST | {"data.inputs"},  # a model takes whatever holds the examples
    **dict.fromkeys(TRAINING, FIRST | {"data", "models"} | TRAINING),
    "heldout": FIRST | {"data", "models"} | TRAINING | {"memorization"},  # for the closed form of leaving out
    # reads models of any kind, and trains stacks of subsets; it knows no task, method or held-out source
    "memorization": FIRST | {"data.inputs", "data.__init__", "models"} | TRAINING,
    **dict.fromkeys(ARRAYS_ONLY, FIRST),
    "agreement": BELOW_AUTOMATIC,
    "automatic": BELOW_AUTOMATIC | {"agreement"},
    "methods": BELOW_METHODS,
    "presets": FIRST | {"data", "models"} | TRAINING,
    "api": BELOW_API | ARRAYS_ONLY,
    "tables": FIRST | {"data", "checkpoint"},
    "saved": FIRST | {"models", "checkpoint", "tables"},
    "table_runs": BELOW_BENCHMARK | {"tables", "saved"},
    "audit": BELOW_BENCHMARK | {"tables", "table_runs"},
    "selection": BELOW_BENCHMARK,
    "benchmark": BELOW_BENCHMARK | {"selection"},
    "figures": BELOW_BENCHMARK | {"selection", "benchmark"},
    "report": FIRST | {"checkpoint"},  # it reads saved records, so it needs nothing that made them
    "record": BELOW_BENCHMARK | {"tables", "table_runs", "report"},  # makes what the report reads
}
# The faces of the package see everything. None but they may import one of them, as none is in a set above.
FACES = {"__init__", "__main__", "torch_api", "estimators", "integrations", "cli", "demo"}

# Files of methods/ that every method may import; the others hold a method each.
METHOD_SHARED = {
    "__init__",
    "balance",
    "base",
    "biased",
    "groupwise",
    "heads",
    "losses",
    "matching",
    "mixing",
    "search",
    "session",
    "shortcut_search",
}


@cache
def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def dotted_name(path: Path, package: Path = PACKAGE) -> tuple[str, ...]:
    """("methods", "jtt") for methods/jtt.py; ("methods", "__init__") for methods/__init__.py."""
    return path.relative_to(package).with_suffix("").parts


def own_imports(path: Path, package: Path = PACKAGE) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Line and dotted name, less the leading "unrote", of all that a module imports from the package.

    Includes imports inside functions and under TYPE_CHECKING: to know of a higher layer is to depend on it.
    """
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            folder = ("unrote", *dotted_name(path, package))[: -node.level] if node.level else ()
            base = ".".join((*folder, *([node.module] if node.module else [])))
            names = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            first, *rest = name.split(".")
            if first == "unrote":
                yield node.lineno, as_module(rest, package)


def as_module(parts: list[str], package: Path = PACKAGE) -> tuple[str, ...]:
    """The module that a dotted name lives in: ("training", "loop") for ["training", "loop", "fit"]."""
    for n in range(len(parts), 0, -1):
        path = package.joinpath(*parts[:n])
        if path.with_suffix(".py").is_file():
            return tuple(parts[:n])
        if path.is_dir():
            return (*parts[:n], "__init__")
    return ("__init__",)


def layer_faults(package: Path) -> list[str]:
    """Every import that the table does not allow, "file:line imports module"."""
    faults = []
    for path in sorted(package.rglob("*.py")):
        module = dotted_name(path, package)
        if module[0] in FACES:
            continue
        if module[0] not in LAYERS:
            faults.append(f"{path.relative_to(package)}: {module[0]!r} is in no layer: add it to the table")
            continue
        for line, imported in own_imports(path, package):
            own_unit = imported[0] == module[0]
            other_method = own_unit and module[0] == "methods" and imported != module
            if other_method and module[1] not in METHOD_SHARED:
                allowed = imported[1] in METHOD_SHARED
            else:
                allowed = own_unit or not LAYERS[module[0]].isdisjoint({imported[0], ".".join(imported)})
            if not allowed:
                faults.append(f"{path.relative_to(package)}:{line} imports unrote.{'.'.join(imported)}")
    return faults


def test_layers() -> None:
    assert layer_faults(PACKAGE) == []


@pytest.mark.parametrize(
    ("file", "code", "imported"),
    [
        ("metrics.py", "from unrote.errors import DataError", None),
        ("metrics.py", "from unrote.data.task import Task", "data.task"),
        ("metrics.py", "import unrote", "__init__"),
        ("data/task.py", "from .inputs import Inputs", None),
        ("data/task.py", "from ..training import fit", "training.__init__"),
        ("data/task.py", "def f():\n    import unrote.training.loop as loop", "training.loop"),
        ("models/stack.py", "from unrote.data.inputs import Inputs", None),
        ("models/stack.py", "from unrote.data.task import Task", "data.task"),
        ("training/loop.py", "from unrote import heldout", "heldout.__init__"),
        ("heldout/xrm.py", "from unrote.training.loop import fit", None),
        ("methods/jtt.py", "from unrote.methods.base import Method", None),
        ("methods/jtt.py", "from unrote.methods.erm import ERM", "methods.erm"),
        ("methods/jtt.py", "from .erm import ERM", "methods.erm"),
        ("methods/session.py", "from unrote.methods.erm import ERM", None),
        ("figures/toy.py", "from unrote.methods.erm import ERM", None),
        ("figures/toy.py", "from unrote.report.page import Page", "report.page"),
        ("cli.py", "from unrote.report.page import Page", None),
    ],
)
def test_layer_check_sees_faults(tmp_path: Path, file: str, code: str, imported: str | None) -> None:
    """The check itself, on a package made for it: what it objects to, or None."""
    others = ("data/task.py", "data/inputs.py", "training/loop.py", "training/__init__.py", "methods/erm.py")
    for name in (*others, "methods/base.py", "heldout/__init__.py", "report/page.py", "errors.py", file):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(code if name == file else "")
    line = len(code.splitlines())
    assert layer_faults(tmp_path) == ([f"{file}:{line} imports unrote.{imported}"] if imported else [])


def test_layer_check_sees_a_unit_without_layer(tmp_path: Path) -> None:
    (tmp_path / "helpers.py").touch()
    assert layer_faults(tmp_path) == ["helpers.py: 'helpers' is in no layer: add it to the table"]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: ".".join(dotted_name(path)))
class TestEveryModule:
    def test_is_short(self, path: Path) -> None:
        lines = len(path.read_text(encoding="utf-8").splitlines())
        assert lines < MAX_MODULE_LINES, "split it, or say less"

    def test_functions_are_short(self, path: Path) -> None:
        functions = (node for node in ast.walk(parse(path)) if isinstance(node, ast.FunctionDef))
        lengths = {f"{node.name}, line {node.lineno}": lines_of(node) for node in functions}
        assert {name: n for name, n in lengths.items() if n >= MAX_FUNCTION_LINES} == {}

    def test_is_syntax_of_the_oldest_python(self, path: Path) -> None:
        ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 10))

    def test_public_names_are_documented(self, path: Path) -> None:
        assert list(undocumented(parse(path), "module")) == []

    def test_seeds_nothing_globally(self, path: Path) -> None:
        found = [f"line {line}: {name}" for line, name, _ in calls(path) if name in GLOBAL_SEEDING]
        # the one place that may, as it restores what it found
        assert found == [] or dotted_name(path) == ("seeding",)

    def test_loads_no_code_from_files(self, path: Path) -> None:
        """Files that a user downloads are data; pickle would run them."""
        assert unsafe_loads(path) == []


def lines_of(function: ast.FunctionDef) -> int:
    """Lines from `def` to the last, less the docstring: nobody should document less to stay short."""
    first = function.body[0]
    docstring = first if ast.get_docstring(function) is not None else None
    span = (docstring.end_lineno or 0) - docstring.lineno + 1 if docstring else 0
    return (function.end_lineno or 0) - function.lineno + 1 - span


GLOBAL_SEEDING = {
    "torch.manual_seed",
    "torch.seed",
    "torch.random.manual_seed",
    "torch.cuda.manual_seed",
    "torch.cuda.manual_seed_all",
    "torch.set_rng_state",
    "np.random.seed",
    "np.random.set_state",
    "numpy.random.seed",
    "random.seed",
}
PICKLES = {"pickle", "dill", "cloudpickle", "shelve", "marshal"}
UNPICKLERS = {"joblib.load", "pd.read_pickle", "pandas.read_pickle"}


def calls(path: Path) -> Iterator[tuple[int, str, dict[str, ast.expr]]]:
    """Line, dotted name as written and keyword arguments of every call in a module."""
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Call):
            yield node.lineno, ast.unparse(node.func), {k.arg: k.value for k in node.keywords if k.arg}


def unsafe_loads(path: Path) -> list[str]:
    """Every import of a module that unpickles, and every call of another library's function that would."""
    found = []
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            found += [f"line {node.lineno}: {a.name}" for a in node.names if a.name.split(".")[0] in PICKLES]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in PICKLES:
            found.append(f"line {node.lineno}: {node.module}")
    for line, name, keywords in calls(path):
        options = {key: ast.unparse(value) for key, value in keywords.items()}
        if name in UNPICKLERS:
            found.append(f"line {line}: {name}")
        if name == "torch.load" and options.get("weights_only") != "True":
            found.append(f"line {line}: torch.load without weights_only=True")
        if options.get("allow_pickle", "False") != "False":
            found.append(f"line {line}: {name} with allow_pickle")
    return found


@pytest.mark.parametrize(
    ("code", "safe"),
    [
        ("import pickle", False),
        ("from cloudpickle import dumps", False),
        ("import joblib\njoblib.load(p)", False),
        ("import joblib\njoblib.cpu_count()", True),
        ("import torch\ntorch.load(p)", False),
        ("import torch\ntorch.load(p, weights_only=False)", False),
        ("import torch\ntorch.load(p, weights_only=True)", True),
        ("import numpy as np\nnp.load(p, allow_pickle=True)", False),
        ("import numpy as np\nnp.load(p, allow_pickle=False)", True),
    ],
)
def test_unsafe_loads_are_seen(tmp_path: Path, code: str, safe: bool) -> None:
    (tmp_path / "module.py").write_text(code)
    assert (unsafe_loads(tmp_path / "module.py") == []) == safe


def undocumented(node: ast.Module | ast.ClassDef | ast.FunctionDef, name: str) -> Iterator[str]:
    """Names of the public classes, functions and methods at or under `node` that have no docstring."""
    if ast.get_docstring(node) is None and node.body:
        yield name
    if isinstance(node, ast.FunctionDef):
        return
    for child in node.body:
        if not isinstance(child, (ast.ClassDef, ast.FunctionDef)) or child.name.startswith("_"):
            continue
        # an override's contract stands with what it overrides, a setter's with its getter
        decorators = {ast.unparse(decorator).split(".")[-1] for decorator in child.decorator_list}
        if not decorators & {"overload", "override", "setter"}:
            yield from undocumented(child, f"{name}.{child.name}")


@pytest.mark.parametrize(
    "module", ["unrote"] + [f"unrote.{name}" for name in ("cli",) if (PACKAGE / f"{name}.py").exists()]
)
def test_import_is_quick(module: str) -> None:
    """`import unrote` and `unrote --help` must not pay for what only training and pictures need."""
    code = f"import sys, {module}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    heavy = {"torch", "sklearn", "scipy", "matplotlib", "pandas", "lightning", "transformers", "ray"}
    assert heavy & set(loaded.split()) == set()

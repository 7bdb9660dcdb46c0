"""What holds for the whole suite: one thread a worker, and every shape annotation of the package checked."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

# Two workers with a thread pool each would fight for two cores. Torch, MKL and OpenBLAS read it as they load.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import hypothesis
import jaxtyping
import pytest
import torch
from shape_checks import unchecked

if "unrote" in sys.modules:
    raise RuntimeError("unrote was imported before tests/conftest.py: its shapes would go unchecked")

# From here on `import unrote...` gives functions that refuse an array of the wrong shape or type.
jaxtyping.install_import_hook("unrote", "shape_checks.typechecker")

from unrote.models.stack import TensorStack  # noqa: E402  after the hook
from unrote.training import Batch, loop  # noqa: E402

torch.set_num_threads(1)

# No deadline, as a shared machine is slow now and then. CI draws the same examples each time; elsewhere they
# differ, and find what CI's do not.
hypothesis.settings.register_profile("unrote", deadline=None, derandomize="CI" in os.environ)
hypothesis.settings.load_profile("unrote")


# Files of half a minute and more begin first, so that no worker is left alone with one at the end.
_LONGEST = (
    "docs/test_pages.py",
    "models/test_processes.py",
    "estimators/test_end_to_end.py",
    "benchmark/test_process_executor.py",
    "test_shortcuts.py",
    "test_automatic.py",
    "benchmark/test_runner.py",
    "data/test_rows.py",
    "cli/test_tables.py",
    "estimators/test_sklearn_checks.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order files for `--dist loadfile`, which gives the next file to the next worker that is free."""
    ranks = {Path(__file__).parent / name: rank for rank, name in enumerate(_LONGEST)}
    assert all(path.exists() for path in ranks)
    items.sort(key=lambda item: ranks.get(item.path, len(ranks)))


_CHECKED_STEPS = 10  # of each training: later ones have the same shapes, and checks double their time


@pytest.fixture(autouse=True, scope="session")
def later_steps_unchecked() -> Iterator[None]:
    """Shape annotations are not checked from a training's eleventh step to its end."""
    update, result, unchecked = loop._Run.update, loop._Run.result, False

    def check(wanted: bool) -> None:
        nonlocal unchecked
        # what somebody else has switched off stays so
        if wanted == unchecked and (wanted or not jaxtyping.config.jaxtyping_disable):
            unchecked = not wanted
            jaxtyping.config.update("jaxtyping_disable", unchecked)

    def update_and_see(run: loop._Run, batch: Batch) -> None:
        check(batch.step < _CHECKED_STEPS)
        update(run, batch)

    def check_and_end(run: loop._Run) -> loop.TrainingResult:
        check(True)
        return result(run)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop._Run, "update", update_and_see)
        patch.setattr(loop._Run, "result", check_and_end)
        yield


@pytest.fixture
def gradients_derived(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradients are autograd's, also where a stack could write them down: the two differ in their last bits.

    For tests that a loss of a method's own, which is derived, can be ERM's to the bit.
    """
    monkeypatch.setattr(TensorStack, "closed_form", False)


@pytest.fixture
def shapes_unchecked() -> Iterator[None]:
    """Shape annotations are not checked in this test, as they are not for users.

    For tests of the package's own error messages about shapes, which the checks would otherwise forestall.
    """
    with unchecked():
        yield

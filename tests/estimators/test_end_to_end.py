"""What the estimators are for: the worst group of real digits, the example, a table of a million rows."""

import doctest
import importlib
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from unrote import ERMClassifier, MATClassifier, load_task

EXAMPLE = Path(__file__).parents[2] / "examples" / "scikit_learn.py"


# thousands of steps, of which other tests check every shape
pytestmark = pytest.mark.usefixtures("shapes_unchecked")


def test_worst_group_of_digits() -> None:
    """Pixels as a table, no group labels: 20 points over ERM and more; the example asks as much of the defaults."""
    task = load_task("digits", seed=1)
    assert task.test is not None
    X, X_test = (split.x[torch.arange(len(split))].flatten(1) for split in (task.train, task.test))
    erm, mat = (
        classifier.fit(X, task.train.y)
        .report(X_test, task.test.y, groups=task.test.attribute)
        .figures.worst_group.accuracy
        for classifier in (ERMClassifier(random_state=1), MATClassifier(temperature=1.0, random_state=1))
    )
    assert mat > erm + 0.2


def test_example(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    printed = capsys.readouterr().out
    assert "ERMClassifier on 500 rows" in printed
    assert "most memorized" in printed


@pytest.mark.parametrize("module", ["mat", "erm", "general"])
def test_docstring_examples(module: str) -> None:
    results = doctest.testmod(importlib.import_module(f"unrote.estimators.{module}"))
    assert results.attempted > 0
    assert results.failed == 0


def test_a_million_rows_fit_in_4_gb() -> None:
    """1,000,000 x 50 in 64 bits, which take a tenth of the limit. One pass, as all passes are alike."""
    code = """
import resource, numpy as np
X = np.random.default_rng(0).standard_normal((1_000_000, 50))
y = np.where(X[:, 0] + X[:, 1] > 0, "yes", "no")
from unrote import MATClassifier
import torch
torch.set_num_threads(1)
classifier = MATClassifier("linear", epochs=1, batch_size=8192, random_state=0).fit(X, y)
assert classifier.score(X, y) > 0.9
assert classifier.memorization_.shape == (1_000_000,)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 4e9

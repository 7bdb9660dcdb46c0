"""The optional libraries stay optional: what is missing is named, and nothing else needs them."""

import subprocess
import sys

import pytest


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("module", "missing", "extra"),
    [
        ("lightning", "lightning", "lightning"),
        ("transformers", "transformers", "transformers"),
        ("transformers", "accelerate", "transformers"),
    ],
)
def test_a_missing_library_is_named_with_its_extra(module: str, missing: str, extra: str) -> None:
    done = run(
        f"""import sys
sys.modules[{missing!r}] = None  # as if it were not installed
import unrote
try:
    import unrote.integrations.{module}
except unrote.UnroteError as error:
    assert isinstance(error, ImportError)
    print(error)
"""
    )
    assert done.returncode == 0, done.stderr
    assert f"package {missing!r}" in done.stdout
    assert f"pip install 'unrote[{extra}]'" in done.stdout


def test_a_library_that_is_broken_shows_its_own_error() -> None:
    done = run(
        """import sys
sys.modules["torch.utils.data.distributed"] = sys.modules["lightning_utilities"] = None
import unrote.integrations.lightning
"""
    )
    assert "ModuleNotFoundError: import of" in done.stderr
    assert "unrote[" not in done.stderr


def test_the_torch_face_needs_neither() -> None:
    done = run(
        """import sys, unrote
unrote.MATLoss, unrote.held_out_logits, unrote.IndexedDataset, unrote.mat_shift
assert not {"lightning", "transformers", "accelerate"} & set(sys.modules)
"""
    )
    assert done.returncode == 0, done.stderr

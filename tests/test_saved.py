"""A saved model predicts bit for bit as the one it was, and what is not such a model is refused."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from table_files import people, write_csv, write_pictures

from unrote.checkpoint import content_hash
from unrote.errors import SavedModelError
from unrote.saved import FORMAT, RECORD, SavedModel, _record_hash, load_model, save_model
from unrote.table_runs import fit_table, method_for_tables
from unrote.tables import Table, make_task, read_table


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Table:
    path = write_csv(tmp_path_factory.mktemp("saved") / "people.csv", people(300))
    return read_table(path, as_text={"label", "colour"})


@pytest.fixture(scope="module")
def saved(table: Table) -> SavedModel:
    made = make_task(table, "label", group="colour")
    return fit_table(made, method_for_tables("mat"), epochs=2).saved()


def trained(table: Table, target: str, method: str = "erm", **options: Any) -> SavedModel:
    return fit_table(make_task(table, target), method_for_tables(method), epochs=1, **options).saved()


class TestRoundTrip:
    def test_same_predictions_bitwise(self, saved: SavedModel, table: Table, tmp_path: Path) -> None:
        save_model(tmp_path / "deep" / "model", saved)
        again = load_model(tmp_path / "deep" / "model")
        assert torch.equal(again.probabilities(table), saved.probabilities(table))
        for name in ("model", "shape", "class_names", "target", "method", "settings", "about"):
            assert getattr(again, name) == getattr(saved, name)

    @pytest.mark.parametrize(("model", "method"), [("linear", "erm"), ("mlp", "crt"), ("mlp", "jtt")])
    def test_other_models_and_methods(self, table: Table, tmp_path: Path, model: str, method: str) -> None:
        saved = trained(table, "label", method, model=model)
        save_model(tmp_path / "model", saved)
        assert torch.equal(load_model(tmp_path / "model").probabilities(table), saved.probabilities(table))

    def test_pictures(self, tmp_path: Path) -> None:
        pictures = read_table(write_pictures(tmp_path / "p"), picture_size=8)
        saved = trained(pictures, "class")
        assert saved.model == "cnn"
        save_model(tmp_path / "model", saved)
        again = load_model(tmp_path / "model")
        assert torch.equal(again.probabilities(pictures), saved.probabilities(pictures))

    def test_a_classifier_that_is_more_than_a_model(self, table: Table) -> None:
        with pytest.raises(SavedModelError, match="'resmem' trains is more than one model"):
            trained(table, "label", "resmem")

    def test_what_is_written(self, saved: SavedModel, tmp_path: Path) -> None:
        """A folder that others can read, without a single pickle, and hashes of all of it."""
        save_model(tmp_path / "model", saved)
        files = {file.name: file.read_bytes() for file in (tmp_path / "model").iterdir()}
        assert set(files) == {"model.json", "weights.safetensors", "preprocessing.safetensors"}
        record = json.loads(files["model.json"])
        assert record["format"] == FORMAT
        assert record["classes"] == ["no", "yes"]
        assert record["method"] == {
            "name": "mat",
            "settings": {"temperature": "auto", "held_out": "auto", "strength": 1.0, "shortcuts": None},
        }
        assert record["about"]["seed"] == 0
        assert {"unrote", "python", "torch", "numpy", "scikit-learn"} == set(record["versions"])
        assert record["files"] == {n: content_hash(c) for n, c in files.items() if n != "model.json"}


class TestAtomic:
    def test_a_failure_leaves_nothing(
        self, saved: SavedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        written: list[int] = []

        def full(descriptor: int) -> None:
            written.append(descriptor)
            if len(written) == 2:
                raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(SavedModelError, match="No space left"):
            save_model(tmp_path / "model", saved)
        assert list(tmp_path.iterdir()) == []

    def test_a_failure_leaves_the_old_model(
        self, saved: SavedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        save_model(tmp_path / "model", saved)
        before = (tmp_path / "model" / RECORD).read_bytes()
        real, calls = Path.rename, []

        def failing(self: Path, target: Path) -> Path:
            calls.append(self)
            if len(calls) == 2:  # the old one is aside, the new one not yet in its place
                raise OSError(5, "Input/output error")
            return real(self, target)

        monkeypatch.setattr(Path, "rename", failing)
        with pytest.raises(SavedModelError, match="nothing there was changed"):
            save_model(tmp_path / "model", replace(saved, target="other"), overwrite=True)
        assert (tmp_path / "model" / RECORD).read_bytes() == before
        assert [path.name for path in tmp_path.iterdir()] == ["model"]

    def test_overwrite(self, saved: SavedModel, tmp_path: Path) -> None:
        save_model(tmp_path / "model", saved)
        with pytest.raises(SavedModelError, match="--overwrite"):
            save_model(tmp_path / "model", saved)
        save_model(tmp_path / "model", replace(saved, target="other"), overwrite=True)
        assert load_model(tmp_path / "model").target == "other"
        assert [path.name for path in tmp_path.iterdir()] == ["model"]

    def test_other_folders_are_never_touched(self, saved: SavedModel, tmp_path: Path) -> None:
        (tmp_path / "thesis").mkdir()
        (tmp_path / "thesis" / "chapter.tex").write_text("...")
        (tmp_path / "file").touch()
        for name in ("thesis", "file"):
            with pytest.raises(SavedModelError, match="is no saved model"):
                save_model(tmp_path / name, saved, overwrite=True)
        assert (tmp_path / "thesis" / "chapter.tex").read_text() == "..."

    def test_an_empty_folder_will_do(self, saved: SavedModel, tmp_path: Path) -> None:
        (tmp_path / "model").mkdir()
        save_model(tmp_path / "model", saved)
        assert load_model(tmp_path / "model").target == "label"

    def test_unwritable(self, saved: SavedModel, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(SavedModelError, match="cannot write to"):
            save_model(tmp_path / "file" / "model", saved)

    def test_own_modules_are_refused(self, saved: SavedModel, tmp_path: Path) -> None:
        with pytest.raises(SavedModelError, match="only linear, mlp, cnn can be rebuilt"):
            save_model(tmp_path / "model", replace(saved, model="mine"))


class TestRefused:
    @pytest.fixture
    def folder(self, saved: SavedModel, tmp_path: Path) -> Path:
        save_model(tmp_path / "model", saved)
        return tmp_path / "model"

    @pytest.mark.parametrize("name", ["weights.safetensors", "preprocessing.safetensors", "model.json"])
    def test_one_bit_changed(self, folder: Path, name: str) -> None:
        content = bytearray((folder / name).read_bytes())
        content[-100] ^= 1
        (folder / name).write_bytes(content)
        with pytest.raises(SavedModelError):
            load_model(folder)

    @pytest.mark.parametrize("name", ["weights.safetensors", "preprocessing.safetensors", "model.json"])
    @pytest.mark.parametrize("keep", [None, 0, 20])
    def test_missing_or_cut_short(self, folder: Path, name: str, keep: int | None) -> None:
        content = (folder / name).read_bytes()
        (folder / name).unlink()
        if keep is not None:
            (folder / name).write_bytes(content[:keep])
        with pytest.raises(SavedModelError):
            load_model(folder)

    def test_classes_swapped(self, folder: Path) -> None:
        """A change by hand that would turn every prediction round."""
        text = (folder / RECORD).read_text()
        record = json.loads(text)
        record["classes"].reverse()
        (folder / RECORD).write_text(json.dumps(record))
        with pytest.raises(SavedModelError, match="does not match its recorded hash"):
            load_model(folder)

    def test_unknown_format(self, folder: Path) -> None:
        self.rewrite(folder, format=FORMAT + 1)
        with pytest.raises(SavedModelError, match=f"has format {FORMAT + 1}, this version of unrote reads"):
            load_model(folder)

    @pytest.mark.parametrize(
        "changes",
        [
            {"classes": ["a", "b", "c"]},
            {"model": {"name": "linear", "shape": [3]}},
            {"model": {"name": "os.system", "shape": [3]}},
            {"model": {"name": "mlp"}},
            {"preprocessing": {}},
            {"files": []},
        ],
    )
    def test_parts_that_do_not_fit(self, folder: Path, changes: dict[str, Any]) -> None:
        """Hashes that are right do not make a record right."""
        self.rewrite(folder, **changes)
        with pytest.raises(SavedModelError):
            load_model(folder)

    @pytest.mark.parametrize("content", [b"", b"null", b"[]", b"{}", b"\xff", b"[" * 100_000])
    def test_records_that_are_none(self, folder: Path, content: bytes) -> None:
        (folder / RECORD).write_bytes(content)
        with pytest.raises(SavedModelError):
            load_model(folder)

    def test_no_model_at_all(self, tmp_path: Path) -> None:
        with pytest.raises(SavedModelError, match="is no saved model"):
            load_model(tmp_path)

    @staticmethod
    def rewrite(folder: Path, **changes: Any) -> None:
        record = json.loads((folder / RECORD).read_text()) | changes
        record["hash"] = _record_hash(record)
        (folder / RECORD).write_text(json.dumps(record))


def test_nothing_unpickles(saved: SavedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pickle

    save_model(tmp_path / "model", saved)

    def trap(*_: Any, **__: Any) -> None:
        raise AssertionError("unpickled")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, trap)
    assert np.isfinite(next(load_model(tmp_path / "model").stack.parameters()).detach().numpy()).all()

"""`unrote data`: what is in a folder, and whether it is as published."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import data_copies as copies
import pytest
from typer.testing import CliRunner

from unrote.cli.app import app
from unrote.data import reviews
from unrote.errors import DataError, OptionError, UnknownNameError


def run(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["data", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.output


def test_a_small_copy(tmp_path: Path) -> None:
    names = copies.waterbirds_authors(tmp_path)
    (tmp_path / names[5]).unlink()
    (report,) = json.loads(run("check", str(tmp_path), "--json", code=1))
    assert (report["name"], report["layout"]) == ("waterbirds", "authors")
    counts = {
        split: sum(1 for s, _, _ in copies.CELLS if s == place)
        for place, split in enumerate(("train", "validation", "test"))
    }
    assert report["splits"] == counts
    assert report["groups"]["train"]["waterbird, land"] == copies.CELLS.count((0, 1, 0))
    assert (report["n_missing"], report["missing"]) == (1, [names[5]])
    assert len(report["differences"]) == 3
    text = run("check", str(tmp_path), code=1)
    assert f"train has {counts['train']} examples, 4,795 were published" in text
    assert f"missing: 1 of what the metadata names, first {names[5]}" in text


def test_a_whole_copy(tmp_path: Path) -> None:
    published = {0: (3498, 184, 56, 1057), 1: (467, 466, 133, 133), 2: (2255, 2255, 642, 642)}
    cells = [(s, g // 2, g % 2) for s, n in published.items() for g, k in enumerate(n) for _ in range(k)]
    copies.suite_metadata(tmp_path / "metadata_waterbirds.csv", ["001.A/a.jpg"] * len(cells), cells)
    copies.write_picture(tmp_path / "waterbird_complete95_forest2water2" / "001.A" / "a.jpg", (1, 2, 3))
    text = run("check", str(tmp_path))
    assert "counts are as published" in text
    assert "3,498" in text


def test_several_tasks_of_one_folder(tmp_path: Path) -> None:
    copies.civilcomments_wilds(tmp_path / "all_data_with_identities.csv")
    reports = json.loads(run("check", str(tmp_path), "--json", code=1))
    names = ["civilcomments", "civilcomments-4", "civilcomments-fine", "civilcomments-coarse"]
    assert [report["name"] for report in reports] == names
    assert len(reports[0]["overlapping_groups"]["test"]) == 16
    assert reports[1]["overlapping_groups"] == {}
    assert "can be in several groups" in run("check", str(tmp_path), code=1)


def test_no_copy(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="layout that is known"):
        run("check", str(tmp_path))
    with pytest.raises(DataError, match="no folder"):
        run("check", str(tmp_path / "nothing"))


def test_what_can_be_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNROTE_CACHE", str(tmp_path))
    listed = json.loads(run("fetch", "--json"))
    assert {row["name"]: row["in_cache"] for row in listed} == {
        "reviews": False,
        "minilm": False,
        "tabular": False,
    }
    content = b"an archive"
    sha256 = hashlib.sha256(content).hexdigest()
    monkeypatch.setattr(reviews, "ARCHIVE", replace(reviews.ARCHIVE, sha256=sha256))
    reviews.ARCHIVE.path.parent.mkdir(parents=True)
    reviews.ARCHIVE.path.write_bytes(content)
    found = json.loads(run("fetch", "reviews", "--json"))
    assert (found["path"], found["bytes"]) == (str(reviews.ARCHIVE.path), len(content))
    reviews.ARCHIVE.path.write_bytes(b"another")
    with pytest.raises(DataError, match="not the file it should be"):
        run("fetch", "reviews")


def test_what_cannot_be_fetched() -> None:
    with pytest.raises(OptionError, match="download it from its authors"):
        run("fetch", "civilcomments-fine")
    with pytest.raises(OptionError, match="apt-get install"):
        run("fetch", "fashion")
    with pytest.raises(UnknownNameError, match="did you mean 'reviews'"):
        run("fetch", "review")

from pathlib import Path

import pytest

from unrote.errors import UnknownNameError
from unrote.figures import FIGURES, Claim, FigureResult


@pytest.fixture(scope="module")
def result() -> FigureResult:
    return FIGURES["1"].draw(fast=True)


def test_the_paper_claims_hold(result: FigureResult) -> None:
    assert [claim.holds for claim in result.claims] == [True, True, True], result.claims


def test_claims_follow_the_numbers(result: FigureResult) -> None:
    clean, erm, mat = (panel["test_minority"][-1] for panel in result.numbers["panels"])
    assert clean >= 0.99
    assert erm <= 0.2
    assert mat >= 0.88
    assert f"{mat:.2f}" in result.claims[2].text


def test_erm_fits_the_minority_by_heart(result: FigureResult) -> None:
    panel = result.numbers["panels"][1]
    assert panel["train_minority"][-1] == 1.0
    assert panel["train_minority"][0] < 0.5  # late, after the shortcut


def test_boundary_leans_on_the_core_feature_only_under_mat(result: FigureResult) -> None:
    def slope(panel: dict[str, list[float]]) -> float:
        core, spurious = panel["core_and_spurious_weight"]
        return abs(spurious / core)

    clean, erm, mat = map(slope, result.numbers["panels"])
    assert erm > 3 * mat
    assert erm > 3 * clean


def test_pictures_are_written_and_repeatable(result: FigureResult, tmp_path: Path) -> None:
    png, svg = result.save(tmp_path / "a" / "figure-1")
    assert png.read_bytes().startswith(b"\x89PNG")
    assert result.save(tmp_path / "b" / "figure-1")[1].read_bytes() == svg.read_bytes()


def test_a_claim_can_fail() -> None:
    assert not Claim("one is two", 1 == 2).holds


def test_unknown_figure() -> None:
    with pytest.raises(UnknownNameError, match="unknown figure '99'"):
        FIGURES["99"]

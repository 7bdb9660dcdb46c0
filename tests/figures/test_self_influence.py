import numpy as np
import pytest

from unrote.figures import FIGURES, FigureResult


@pytest.fixture(scope="module")
def result() -> FigureResult:
    return FIGURES["2"].draw(fast=True)


def test_claims_hold(result: FigureResult) -> None:
    assert all(claim.holds for claim in result.claims), result.claims


def test_shares_and_area_are_those_of_the_scores(result: FigureResult) -> None:
    (row,) = result.numbers["tasks"]
    edges = result.numbers["edges"]
    for found in row["methods"].values():
        majority, minority = (np.array(found["groups"][g]["scores"]) for g in ("majority", "minority"))
        above = (minority[:, None] > majority).mean() + (minority[:, None] == majority).mean() / 2
        assert found["auc"] == pytest.approx(above)
        for group, scores in (("majority", majority), ("minority", minority)):
            shares = found["groups"][group]["shares"]
            assert sum(shares) == pytest.approx(1.0)
            assert shares[-1] == pytest.approx((scores > edges[-1]).mean())


def test_minority_is_where_the_background_is_of_the_other_class(result: FigureResult) -> None:
    (row,) = result.numbers["tasks"]
    groups = row["methods"]["erm"]["groups"]
    assert (groups["majority"]["n"], groups["minority"]["n"]) == (950, 50)

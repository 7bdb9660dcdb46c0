import pytest

from unrote.figures import FIGURES, FigureResult


@pytest.fixture(scope="module")
def result() -> FigureResult:
    return FIGURES["theorem"].draw(fast=True)


def test_claims_hold(result: FigureResult) -> None:
    assert all(claim.holds for claim in result.claims), result.claims


def test_claims_are_in_the_table(result: FigureResult) -> None:
    assert result.table is not None
    assert len(result.table.rows) == sum(len(panel["points"]) for panel in result.numbers["panels"])
    assert all(len(row) == len(result.table.columns) for row in result.table.rows)


def test_more_room_for_noise_is_worse_for_the_minority(result: FigureResult) -> None:
    panels = {panel["field"]: panel["points"] for panel in result.numbers["panels"]}
    dims = [point["limit"] for point in panels["noise_dims"]]
    examples = [point["limit"] for point in panels["n"]]
    assert dims == sorted(dims, reverse=True)
    assert examples == sorted(examples)


def test_descent_is_behind_the_largest_margin(result: FigureResult) -> None:
    for panel in result.numbers["panels"]:
        for point in panel["points"]:
            assert point["gradient_descent"][0] <= point["largest_margin"][0] + 0.01

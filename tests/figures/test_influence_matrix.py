import numpy as np
import pytest

from unrote.figures import FIGURES, FigureResult


@pytest.fixture(scope="module")
def result() -> FigureResult:
    return FIGURES["4"].draw(fast=True)


def test_claims_hold(result: FigureResult) -> None:
    assert all(claim.holds for claim in result.claims), result.claims


def test_every_group_is_shown_at_equal_size(result: FigureResult) -> None:
    (row,) = result.numbers["tasks"]
    for sizes in row["sizes"]:
        assert len(set(sizes)) == 1
    shape = np.array(row["methods"]["erm"]["shown"]).shape
    assert shape == tuple(sum(sizes) for sizes in row["sizes"])


def test_block_means_agree_with_what_is_shown(result: FigureResult) -> None:
    """What is shown is a sample of all pairs: minority rows stand out in it as they do in the whole."""
    (row,) = result.numbers["tasks"]
    each_row, each_column = (sizes[0] for sizes in row["sizes"])
    shown = np.abs(row["methods"]["erm"]["shown"])
    # groups in order: majority, minority, minority, majority
    minority_rows, minority_columns = slice(each_row, 3 * each_row), slice(each_column, 3 * each_column)
    sample = shown[minority_rows, minority_columns].mean()
    assert sample == pytest.approx(row["methods"]["erm"]["blocks"][1][1], rel=0.4)

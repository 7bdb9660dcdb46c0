from collections.abc import Iterator

import pytest
from shape_checks import unchecked


@pytest.fixture(autouse=True, scope="module")
def shapes_unchecked_where_figures_are_drawn() -> Iterator[None]:
    """Some take tens of thousands of steps of their own, in functions of a few numbers."""
    with unchecked():
        yield

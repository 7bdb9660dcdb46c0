from collections.abc import Iterator

import jaxtyping
import pytest


@pytest.fixture(autouse=True, scope="module")
def shapes_unchecked_where_figures_are_drawn() -> Iterator[None]:
    """Some take tens of thousands of steps of their own, in functions of a few numbers."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)

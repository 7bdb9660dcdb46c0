"""What checks the annotations of `unrote` while the suite runs; named by the import hook of conftest.py."""

from collections.abc import Iterator
from contextlib import contextmanager

import jaxtyping
from beartype import BeartypeConf, beartype

# The numeric tower: an int is welcome where a float is wanted, as type checkers have it.
typechecker = beartype(conf=BeartypeConf(is_pep484_tower=True))


@contextmanager
def unchecked() -> Iterator[None]:
    """Shape annotations are not checked meanwhile, as they are not for users."""
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)

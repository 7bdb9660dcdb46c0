"""The libraries that only tables need: imported where they are used, and asked for by name where missing."""

from typing import Any

from unrote.errors import MissingPackageError


def need_pyarrow() -> Any:
    """The pyarrow module.

    Raises:
        MissingPackageError: if it is not installed.
    """
    try:
        import pyarrow
    except ImportError as error:
        raise MissingPackageError(
            "CSV and Parquet files need pyarrow, which is not installed: pip install 'unrote[tables]'"
        ) from error
    return pyarrow

"""A user's own copies of the field's data sets, in the layouts that are about; each file registers its tasks."""

from pathlib import Path

from unrote.data.folders import celeba, civilcomments, multinli, waterbirds
from unrote.data.folders.copies import Copy, Counts, Published

__all__ = ["Copy", "Counts", "Published", "recognise"]


def recognise(root: Path) -> list[Copy]:
    """Every copy of a known data set in a folder: one per task and layout.

    Raises:
        DataError: if one is there and cannot be read.
    """
    return [copy for module in (waterbirds, celeba, multinli, civilcomments) for copy in module.find(root)]

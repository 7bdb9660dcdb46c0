"""Reading a folder of pictures: one subfolder per class, every picture scaled to the same square."""

from pathlib import Path

import numpy as np

from unrote.errors import DataError
from unrote.tables.columns import Pictures, Strings, Table, check_size

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff"}
CLASS, PICTURE = "class", "picture"
"""Names of the two columns of such a table."""

_MAX_PIXELS = 100_000_000


def read_pictures(folder: Path, size: int = 64, *, labelled: bool = True) -> Table:
    """Read the pictures of a folder and of its subfolders.

    Args:
        folder: whose subfolders are named after the classes.
        size: height and width that every picture is scaled to, in pixels.
        labelled: whether classes are wanted; without, pictures may lie anywhere in the folder.

    Returns:
        Columns "class" (if labelled) and "picture", (n, 3, size, size) of bytes; rows named by their files.

    Raises:
        DataError: if there are no pictures, no two classes where they are wanted, or a picture is damaged.
    """
    files = sorted(
        file
        for file in folder.rglob("*")
        if file.suffix.lower() in SUFFIXES and not file.name.startswith(".") and file.is_file()
    )
    if labelled:
        files = [file for file in files if len(file.relative_to(folder).parts) > 1]
    if not files:
        where = "subfolders named after the classes" if labelled else "it"
        raise DataError(f"{folder} has no pictures in {where} ({', '.join(sorted(SUFFIXES))})")
    classes = [file.relative_to(folder).parts[0] for file in files]
    if labelled and len(set(classes)) < 2:
        raise DataError(
            f"{folder} has pictures of one class, {classes[0]!r}: a subfolder for each of two or more is wanted"
        )
    check_size(str(folder), len(files) * 3 * size * size, 1)
    values = np.empty((len(files), 3, size, size), np.uint8)
    for row, file in enumerate(files):
        values[row] = _read(file, size)
    columns = {CLASS: Strings.of(classes)} if labelled else {}
    return Table(
        folder.name, {**columns, PICTURE: Pictures(values)}, [str(f.relative_to(folder)) for f in files]
    )


def _read(file: Path, size: int) -> np.ndarray:
    """One picture, (3, size, size).

    Raises:
        DataError: if it is damaged or larger than any photograph.
    """
    from PIL import Image

    try:
        with Image.open(file) as image:
            if image.width * image.height > _MAX_PIXELS:
                raise DataError(f"{file} has {image.width} x {image.height} pixels: scale it down")
            scaled = image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
    except DataError:
        raise
    except Exception as error:  # whatever a damaged file makes the decoder raise
        raise DataError(f"{file} cannot be read as a picture ({error}): mend or remove it") from error
    return np.asarray(scaled, np.uint8).transpose(2, 0, 1)

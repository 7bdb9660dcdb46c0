"""Reading a table from a path: CSV, Parquet, NPZ, or a folder of pictures by class."""

from collections.abc import Collection
from pathlib import Path

from unrote.errors import DataError
from unrote.tables.arrays import read_npz
from unrote.tables.columns import Table
from unrote.tables.delimited import read_csv
from unrote.tables.parquet import read_parquet
from unrote.tables.pictures import read_pictures


def read_table(
    path: str | Path, *, as_text: Collection[str] = (), picture_size: int = 64, labelled: bool = True
) -> Table:
    """Read a table; what the file is, is told by its name.

    Args:
        path: a file that ends in .csv, .tsv, .txt, .parquet or .npz, or a folder of pictures.
        as_text: columns of a CSV file to leave as strings, such as classes.
        picture_size: height and width that pictures of a folder are scaled to.
        labelled: whether a folder of pictures must have a subfolder per class.

    Raises:
        DataError: if there is no such file, its kind is unknown, or its content is not as its name says.
    """
    path = Path(path)
    if path.is_dir():
        return read_pictures(path, picture_size, labelled=labelled)
    if not path.exists():
        raise DataError(f"there is no file or folder {path}")
    suffix = path.suffix.lower()
    if suffix in (".csv", ".tsv", ".txt"):
        return read_csv(path, as_text)
    if suffix in (".parquet", ".pq"):
        return read_parquet(path)
    if suffix == ".npz":
        return read_npz(path)
    raise DataError(
        f"{path} ends in {suffix or 'nothing'!r}: a .csv, .tsv, .txt, .parquet or .npz file, or a folder of "
        "pictures with a subfolder per class, is wanted"
    )

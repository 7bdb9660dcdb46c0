"""What an example looks like to a person: a small picture, its text, its cells, or nothing but its number."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import UInt8
from torch.utils.data import Subset

from unrote.data import Split
from unrote.data.embeddings import TextInputs
from unrote.data.inputs import DatasetInputs
from unrote.data.texts import TokenizedTexts
from unrote.errors import DataError
from unrote.tables import TableTask
from unrote.tables.columns import Pictures, Unusable, as_strings

PICTURE_SIDE = 48
"""Pixels of the longer side of a thumbnail, at most."""

_MAX_TEXT, _MAX_CELL, _MAX_COLUMNS = 1000, 120, 40


@dataclass(frozen=True)
class Content:
    """Some examples for a person to look at.

    Args:
        kind: what they are.
        columns: names of the cells, for rows of a table.
        texts: texts, or rows of cells; empty for other kinds.
        pictures: (m, h, w, 3) of bytes; None for other kinds.
    """

    kind: Literal["picture", "text", "row", "nothing"]
    columns: tuple[str, ...] = ()
    texts: tuple[str, ...] | tuple[tuple[str, ...], ...] = ()
    pictures: UInt8[np.ndarray, "m h w 3"] | None = None

    @property
    def lines(self) -> list[str]:
        """Each example as one line of text; empty for pictures and nothing."""
        if self.kind != "row":
            return [str(text) for text in self.texts]
        return [
            "; ".join(f"{name}: {cell}" for name, cell in zip(self.columns, row, strict=True))
            for row in self.texts
        ]


def content(
    split: Split, index: np.ndarray, table: TableTask | None = None, where: str = "train", shown: Any = None
) -> Content:
    """Some examples of a split, for a person to look at.

    Args:
        split: that has them.
        index: (m,) which.
        table: the tables that the split was made of, if it was.
        where: name of the split.
        shown: what stands for the split's examples: texts, or pictures (n, h, w, 3) of bytes; None takes what
            the split has.

    Raises:
        DataError: if `shown` is something else, or not one for each example.
    """
    if shown is not None:
        return _given(shown, index, len(split))
    if table is not None:
        found = _of_table(table, index, where)
        if found is not None:
            return found
    inputs: Any = split.x
    rows = index
    dataset = getattr(inputs, "dataset", None) if isinstance(inputs, DatasetInputs) else None
    while isinstance(dataset, Subset):
        rows, dataset = np.asarray(dataset.indices)[rows], dataset.dataset
    texts = inputs.texts if isinstance(inputs, TextInputs) else getattr(dataset, "texts", None)
    if isinstance(inputs, TextInputs) or isinstance(dataset, TokenizedTexts):
        assert texts is not None
        return Content("text", texts=tuple(_text(texts[i]) for i in rows.tolist()))
    if len(inputs.shape) == 3 and inputs.shape[0] in (1, 2, 3):
        return Content("picture", pictures=_pictures(inputs, index))
    return Content("nothing")


def _text(text: Any) -> str:
    joined = text if isinstance(text, str) else " | ".join(text)
    return joined if len(joined) <= _MAX_TEXT else f"{joined[: _MAX_TEXT - 1]}…"


def _given(shown: Any, index: np.ndarray, n: int) -> Content:
    if len(shown) != n:
        raise DataError(f"shown has {len(shown)} entries for {n} examples: one each is wanted")
    if isinstance(shown, Sequence) and all(isinstance(shown[int(i)], (str, tuple)) for i in index):
        return Content("text", texts=tuple(_text(shown[int(i)]) for i in index))
    array = np.asarray(shown[index]) if isinstance(shown, (np.ndarray, torch.Tensor)) else np.zeros(0)
    if array.ndim != 4 or array.shape[-1] != 3 or array.dtype != np.uint8:
        raise DataError("shown must hold texts, or be an array (n, h, w, 3) of bytes (uint8)")
    step = max(1, -(-max(array.shape[1:3]) // PICTURE_SIDE))
    return Content("picture", pictures=np.ascontiguousarray(array[:, ::step, ::step]))


def _of_table(table: TableTask, index: np.ndarray, where: str) -> Content | None:
    """Cells of the rows; None for a folder of pictures."""
    source, rows = table.tables[where], table.rows[where][index]
    if any(isinstance(column, Pictures) for column in source.columns.values()):
        return None
    names = [
        name
        for name, column in source.columns.items()
        if name != table.target and not isinstance(column, Unusable)
    ]
    # the group first: it is what a reader wants to see beside the label
    names = sorted(names, key=lambda name: name != table.group)[:_MAX_COLUMNS]
    columns = [as_strings(source[name].take(rows)) for name in names]
    cells = [
        ["" if code < 0 else column.levels[code].removesuffix("T00:00:00") for code in column.codes.tolist()]
        for column in columns
    ]
    cut = ([cell if len(cell) <= _MAX_CELL else f"{cell[: _MAX_CELL - 1]}…" for cell in one] for one in cells)
    return Content("row", tuple(names), tuple(zip(*cut, strict=True)) if names else ((),) * len(rows))


def _pictures(inputs: Any, index: np.ndarray) -> np.ndarray:
    """Thumbnails (m, h, w, 3) of inputs (n, c, H, W), whatever numbers they hold."""
    height, width = inputs.shape[1:]
    scale = min(1.0, PICTURE_SIDE / max(height, width))
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    parts = []
    for start in range(0, len(index), 256):
        values = inputs[torch.from_numpy(index[start : start + 256])].float()
        if size != (height, width):
            values = torch.nn.functional.interpolate(values, size, mode="area")
        parts.append(values)
    if not parts:
        return np.zeros((0, *size, 3), np.uint8)
    pixels = torch.cat(parts)
    if float(pixels.min()) < 0 or float(pixels.max()) > 1:  # bytes, or normalised channels
        low, high = (pixels.amin((0, 2, 3), keepdim=True), pixels.amax((0, 2, 3), keepdim=True))
        pixels = (pixels - low) / (high - low).clamp_min(1e-6)
    if pixels.shape[1] == 2:  # as red and blue; what is bright in both stays light
        pixels = torch.stack([pixels[:, 0], pixels.amin(1), pixels[:, 1]], 1)
    pixels = pixels.expand(-1, 3, -1, -1) if pixels.shape[1] == 1 else pixels
    return (pixels * 255).round().byte().permute(0, 2, 3, 1).contiguous().numpy()

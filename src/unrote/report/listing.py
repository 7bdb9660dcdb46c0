"""The examples of a page as plain data for its script: columns of numbers, texts and small pictures."""

import base64
import io
from typing import Any

import numpy as np

from unrote.report.saved_run import RunRecord
from unrote.report.words import method_title

MAX_PICTURE_BYTES = 2_500_000
"""Of all thumbnails together: what does not fit is listed without a picture."""

_TINY = 16  # pixels: up to here PNG is the smaller, and shows every pixel as it is


def picture_uris(pictures: np.ndarray | None, budget: int = MAX_PICTURE_BYTES) -> list[str]:
    """Pictures as data: URIs, as many from the first as the budget holds.

    Args:
        pictures: (m, h, w, 3) of bytes, or None.
        budget: bytes for all of them.
    """
    from PIL import Image

    found: list[str] = []
    for values in () if pictures is None else pictures:
        image, buffer = Image.fromarray(values), io.BytesIO()
        if max(values.shape[:2]) <= _TINY:
            kind = "png"
            image.save(buffer, "PNG", optimize=True)
        else:
            kind = "webp"
            image.save(buffer, "WEBP", quality=80)
        uri = f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
        budget -= len(uri)
        if budget < 0:
            break
        found.append(uri)
    return found


def listing(record: RunRecord) -> dict[str, Any]:
    """Everything that the page's script needs to list examples.

    Args:
        record: of the run.
    """
    contents, arrays = record.contents, record.arrays
    index = np.array(contents.examples.index, np.int64)

    def column(name: str, digits: int | None = None) -> list[Any] | None:
        values = arrays.get(name)
        return None if values is None else _rounded(values[index], digits)

    return {
        "kind": contents.examples.kind,
        "total": contents.data.rows["train"],
        "names": contents.examples.names,
        "columns": contents.examples.columns,
        "content": contents.examples.content,
        "pictures": picture_uris(arrays.get("pictures")),
        "classes": contents.data.class_names,
        "groups": contents.data.group_names if contents.data.groups == "annotated" else [],
        "y": column("y"),
        "group": column("group"),
        "inferred": column("inferred"),
        "heldOut": column("held_out"),
        "pHeldOut": column("p_held_out", 3),
        "rote": contents.memorized_above,
        "methods": [
            {
                "title": method_title(method.name),
                "memorization": column(f"{k}.memorization"),
                "selfInfluence": column(f"{k}.self_influence"),
            }
            for k, method in enumerate(contents.methods)
        ],
    }


def _rounded(values: np.ndarray, digits: int | None) -> list[Any]:
    """Numbers as JSON holds them in few characters: to `digits` places, or three significant ones."""
    if values.dtype.kind != "f":
        whole: list[Any] = values.tolist()
        return whole
    if digits is None:
        return [float(f"{value:.3g}") for value in values.tolist()]
    return [round(value, digits) + 0.0 for value in values.tolist()]  # + 0.0: no minus zero


def influence_examples(record: RunRecord) -> dict[str, Any] | None:
    """The rows and columns of the influence matrix as the script shows them; None where there is no matrix."""
    found, arrays = record.contents.influence, record.arrays
    if found is None or "influence.train" not in arrays or "influence.test" not in arrays:
        return None
    rows, data = arrays["influence.train"], record.contents.data
    sides = {
        "row": (arrays["y"][rows], arrays["group"][rows] if "group" in arrays else None, rows, "train"),
        "column": (
            arrays["influence.test_y"],
            arrays.get("influence.test_group"),
            arrays["influence.test"],
            "test",
        ),
    }
    result: dict[str, Any] = {"split": found.split}
    for side, (y, group, index, name) in sides.items():
        lines = found.train if name == "train" else found.test
        result[side] = {
            "names": [str(i + 1) for i in index.tolist()],
            "labels": [data.class_names[c] for c in y.tolist()],
            "groups": []
            if group is None
            else [data.group_names[g] if g >= 0 else "" for g in group.tolist()],
            "texts": lines,
            "pictures": picture_uris(arrays.get(f"influence.{name}_pictures"), 200_000),
        }
    return result

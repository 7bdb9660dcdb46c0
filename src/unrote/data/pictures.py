"""Pictures in files: read with Pillow, cut and scaled as the field does, one by one."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from unrote.errors import DataError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)
_MAX_PIXELS = 100_000_000


@dataclass(frozen=True)
class PictureForm:
    """How a picture becomes a tensor: cut from its middle, scaled, cut again, normalised.

    Args:
        cut: side of the square cut from the middle first, in pixels of the file; None cuts nothing.
        scale: side that the whole is scaled to, whatever its shape.
        crop: side of the square cut from the middle of that.
        mean: of each channel, subtracted.
        deviation: of each channel, divided by.
    """

    scale: int
    crop: int
    cut: int | None = None
    mean: tuple[float, ...] = IMAGENET_MEAN
    deviation: tuple[float, ...] = IMAGENET_DEVIATION

    def read(self, path: Path) -> Float[Tensor, "3 H W"]:
        """A picture, (3, crop, crop).

        Raises:
            DataError: if it is not there, damaged, or larger than any photograph.
        """
        from PIL import Image

        try:
            with Image.open(path) as image:
                if image.width * image.height > _MAX_PIXELS:
                    raise DataError(f"{path} has {image.width} x {image.height} pixels: scale it down")
                picture = image.convert("RGB")
                if self.cut is not None:
                    picture = picture.crop(_middle(*picture.size, self.cut))
                picture = picture.resize((self.scale, self.scale), Image.Resampling.BILINEAR)
                if self.crop != self.scale:
                    picture = picture.crop(_middle(self.scale, self.scale, self.crop))
        except DataError:
            raise
        except Exception as error:  # whatever a damaged file makes the decoder raise
            reason = getattr(error, "strerror", None) or str(error)
            raise DataError(f"{path} cannot be read as a picture ({reason}): copy it again") from error
        values = np.asarray(picture, np.float32).transpose(2, 0, 1) / 255
        mean, deviation = (np.array(v, np.float32).reshape(-1, 1, 1) for v in (self.mean, self.deviation))
        return torch.from_numpy(np.ascontiguousarray((values - mean) / deviation))


def _middle(width: int, height: int, side: int) -> tuple[int, int, int, int]:
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side


class PictureFiles(torch.utils.data.Dataset[Tensor]):
    """Pictures of a folder as a map-style data set.

    Args:
        root: the folder.
        names: of the files, relative to it.
        form: what becomes of each.

    Raises:
        DataError: if a name leads out of the folder.
    """

    def __init__(self, root: Path, names: Sequence[str], form: PictureForm) -> None:
        for name in names:
            check_inside(name, root)
        self.root, self.names, self.form = root, list(names), form

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, i: int) -> Tensor:
        return self.form.read(self.root / self.names[i])

    def key(self, i: int) -> bytes:
        """A hash of the file's content.

        Raises:
            DataError: if it cannot be read.
        """
        try:
            return hashlib.blake2b((self.root / self.names[i]).read_bytes(), digest_size=16).digest()
        except OSError as error:
            raise DataError(f"{self.root / self.names[i]} cannot be read ({error.strerror})") from error


def check_inside(name: str, root: Any) -> None:
    """Refuse a file name that would lead out of its folder.

    Raises:
        DataError: likewise.
    """
    path = PurePosixPath(name.replace("\\", "/"))
    if not name or "\0" in name or path.is_absolute() or ".." in path.parts or ":" in path.parts[0]:
        raise DataError(f"file name {name[:80]!r} leads out of {root}: names relative to it are wanted")

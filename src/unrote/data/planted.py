"""Planted shortcuts: an attribute that agrees with the class as often as wanted, and ways to draw it.

Real photographs with a planted attribute are the cheapest honest test of a method: the content is as hard as
it is in nature, while the strength of the shortcut, its correlation with the class and every group label are
known. Everything here is a pure function of tensors; randomness comes from a seed only.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unrote.data.options import check_count, check_number
from unrote.errors import DataError, OptionError
from unrote.seeding import generator

COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (1.0, 0.0, 0.0),
    "blue": (0.0, 0.0, 1.0),
    "green": (0.0, 1.0, 0.0),
    "yellow": (1.0, 1.0, 0.0),
    "magenta": (1.0, 0.0, 1.0),
    "cyan": (0.0, 1.0, 1.0),
    "orange": (1.0, 0.5, 0.0),
    "purple": (0.5, 0.0, 1.0),
    "mint": (0.0, 1.0, 0.5),
    "rose": (1.0, 0.0, 0.5),
}
"""Ten saturated colours (red, green, blue) that a person and a first-layer filter can tell apart."""


def colours(n: int) -> Float[Tensor, "A 3"]:
    """The first `n` of `COLOURS` as a palette.

    Args:
        n: number of attribute values, 1 to 10.

    Raises:
        OptionError: if there are not that many colours.
    """
    n = check_count("colours", n, 1, len(COLOURS), why="; pass a palette of your own for more")
    return torch.tensor(list(COLOURS.values())[:n])


def plant_attribute(y: Int[Tensor, " n"], n_classes: int, alignment: float, seed: int) -> Int[Tensor, " n"]:
    """An attribute that equals the class for a share of the examples, and else is any other value alike.

    Counts are exact instead of drawn: of the m examples of a class, `round(alignment * m)` (halves to even)
    keep the attribute that equals it, and the rest is dealt out to the other values so that their counts
    differ by at most one. Only WHICH examples are in the minority depends on the seed, never how many, so
    small data sets of different seeds are equally hard. With alignment 1 / n_classes every class has every
    attribute equally often (within one), which is an attribute independent of the class.

    Args:
        y: (n,) class indices from 0 to n_classes - 1.
        n_classes: number of classes, and of attribute values; at least 2.
        alignment: share of each class whose attribute equals the class, in [0, 1].
        seed: chooses the examples.

    Returns:
        (n,) attribute indices from 0 to n_classes - 1.

    Raises:
        OptionError: if there are fewer than 2 classes, or the alignment is outside [0, 1].
        DataError: if a label is not a class.
    """
    n_classes = check_count("n_classes", n_classes, 2)
    alignment = check_number("alignment", alignment, 0.0, 1.0)
    if len(y) and not 0 <= int(y.min()) <= int(y.max()) < n_classes:
        raise DataError(
            f"labels run from {int(y.min())} to {int(y.max())}: 0 to {n_classes - 1} is wanted, as there are "
            f"{n_classes} classes"
        )
    attribute = torch.empty_like(y)
    for c in range(n_classes):
        random = generator(seed, "plant_attribute", c)
        rows = (y == c).nonzero().squeeze(1)
        aligned = round(alignment * len(rows))
        # a random order of the others, so that no value is always the one that gets the odd example out
        others = torch.randperm(n_classes - 1, generator=random)
        others = others + (others >= c).long()
        dealt = others[torch.arange(len(rows) - aligned) % (n_classes - 1)]
        values = torch.cat([torch.full((aligned,), c), dealt])
        attribute[rows] = values[torch.randperm(len(rows), generator=random)]
    return attribute


def tint(
    images: Float[Tensor, "n H W"],
    attribute: Int[Tensor, " n"],
    palette: Float[Tensor, "A K"],
    strength: float,
    dark: float = 0.5,
) -> Float[Tensor, "n K H W"]:
    """Colour the dark background of grey images in the colour of their attribute.

    Every channel gets the grey image; channel k of a black pixel rises to `strength * palette[a, k]`. The
    rise fades out linearly until grey `dark`: brighter pixels, most of the object, stay as they are, and its
    outline has no seam.

    Args:
        images: (n, H, W) in [0, 1], with a dark background.
        attribute: (n,) rows of the palette.
        palette: (A, K) in [0, 1], the colour of each attribute value in K channels. `torch.eye(K)` brightens
            one channel per value, `colours(A)` gives named colours as red, green and blue.
        strength: brightness of the colour on black, in [0, 1].
        dark: the grey from which pixels are left alone, in (0, 1].

    Returns:
        (n, K, H, W) in [0, 1].

    Raises:
        OptionError: if `strength` or `dark` is out of range.
        DataError: if an attribute has no colour.
    """
    strength = check_number("strength", strength, 0.0, 1.0)
    if not check_number("dark", dark, 0.0, 1.0):
        raise OptionError("dark=0 tints no pixel: a number above 0 and at most 1 is wanted")
    colour = _colour_of(attribute, palette).to(images.dtype)[:, :, None, None]
    background = (1 - images / dark).clamp_min(0)
    return images[:, None] + strength * colour * background[:, None]


def patch(
    images: Float[Tensor, "n H W"],
    attribute: Int[Tensor, " n"],
    palette: Float[Tensor, "A K"],
    strength: float,
    size: int = 4,
) -> Float[Tensor, "n K H W"]:
    """Paint a small square at the border whose place and colour are the attribute.

    Args:
        images: (n, H, W) in [0, 1].
        attribute: (n,) rows of the palette.
        palette: (A, K) in [0, 1], the colour of each attribute value in K channels. `torch.ones(A, 1)` leaves
            the place as the only cue.
        strength: opacity of the square, in [0, 1]; 1 hides what is below it.
        size: height and width of the square in pixels.

    Returns:
        (n, K, H, W) in [0, 1].

    Raises:
        OptionError: if `strength` is out of range, or squares of that size would overlap or not fit.
        DataError: if an attribute has no colour.
    """
    strength = check_number("strength", strength, 0.0, 1.0)
    colour = _colour_of(attribute, palette).to(images.dtype)[:, :, None, None]
    height, width = images.shape[1:]
    corners = patch_corners(height, width, len(palette), size)[attribute]
    down = torch.arange(height) - corners[:, :1]
    across = torch.arange(width) - corners[:, 1:]
    inside_rows = (down >= 0) & (down < size)
    inside_columns = (across >= 0) & (across < size)
    opacity = strength * (inside_rows[:, None, :, None] & inside_columns[:, None, None, :]).to(images.dtype)
    return images[:, None] * (1 - opacity) + colour * opacity


def stripes(
    images: Float[Tensor, "n H W"],
    attribute: Int[Tensor, " n"],
    n_attributes: int,
    strength: float,
    phase: Float[Tensor, " n"],
    period: float = 4.0,
    dark: float = 0.5,
) -> Float[Tensor, "n 1 H W"]:
    """Stripe the dark background of grey images in the direction of their attribute.

    Where the stripes begin differs from image to image, so that no pixel tells the direction: a linear model of
    pixels cannot use it, and a network has to learn filters for it. Attribute 0 lies flat, the others are turned by
    equal angles. The stripes fade out towards grey `dark`, as `tint` does.

    Args:
        images: (n, H, W) in [0, 1], with a dark background.
        attribute: (n,) from 0 to n_attributes - 1.
        n_attributes: how many directions.
        strength: brightness of a stripe on black, in [0, 1].
        phase: (n,) where the stripes begin, in periods.
        period: of the stripes, in pixels, half of which are bright; at least 2.
        dark: the grey from which pixels are left alone, in (0, 1].

    Returns:
        (n, 1, H, W) in [0, 1].

    Raises:
        OptionError: if `strength`, `period` or `dark` is out of range.
        DataError: if an attribute has no direction.
    """
    strength = check_number("strength", strength, 0.0, 1.0)
    period = check_number("period", period, 2.0, math.inf)
    if not check_number("dark", dark, 0.0, 1.0):
        raise OptionError("dark=0 stripes no pixel: a number above 0 and at most 1 is wanted")
    _check_attributes(attribute, n_attributes, "directions")
    height, width = images.shape[1:]
    angle = (math.pi * attribute / n_attributes)[:, None, None]
    across = torch.arange(height)[:, None] * angle.cos() + torch.arange(width) * angle.sin()
    bright = (across / period + phase[:, None, None]) % 1 < 0.5
    background = (1 - images / dark).clamp_min(0)
    return (images + strength * bright * background)[:, None]


def patch_corners(height: int, width: int, n: int, size: int) -> Int[Tensor, "n 2"]:
    """Top-left pixels (row, column) of `n` squares spread evenly along the border, clockwise from top left.

    Args:
        height: of the image, in pixels.
        width: of the image, in pixels.
        n: number of squares.
        size: height and width of each square, in pixels.

    Raises:
        OptionError: if the squares do not fit or would overlap.
    """
    size = check_count("patch size", size, 1, min(height, width))
    down, across = height - size, width - size
    around = max(2 * (down + across), 1)
    # the path's four sides: along the top, down the right, back along the bottom, up the left
    step = (torch.arange(n) * around) // n
    column = torch.minimum(step, 2 * across + down - step).clamp(0, across)
    row = torch.minimum(step - across, 2 * (across + down) - step).clamp(0, down)
    corners = torch.stack([row, column], dim=1)
    apart = (corners[:, None] - corners[None]).abs().amax(-1) + size * torch.eye(n, dtype=torch.long)
    if int(apart.min()) < size:
        raise OptionError(
            f"{n} squares of {size} pixels overlap along the border of {height} by {width} pixels: "
            "choose a smaller patch size or fewer attribute values"
        )
    return corners


def _colour_of(attribute: Int[Tensor, " n"], palette: Float[Tensor, "A K"]) -> Float[Tensor, "n K"]:
    _check_attributes(attribute, len(palette), "colours")
    return palette[attribute]


def _check_attributes(attribute: Int[Tensor, " n"], n: int, what: str) -> None:
    if len(attribute) and not 0 <= int(attribute.min()) <= int(attribute.max()) < n:
        raise DataError(
            f"attributes run from {int(attribute.min())} to {int(attribute.max())}: there are {n} {what}, so 0 to "
            f"{n - 1} is wanted"
        )

"""Real handwritten digits with a planted background: the task that any machine can load.

scikit-learn carries 1,797 digits of 8 by 8 pixels. The class is whether the digit is 5 or more, which takes
some learning; the shortcut is which of two channels has the brighter background.

Reference: Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository
(1998).
"""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from unrote.data.options import check_count, check_number
from unrote.data.planted import plant_attribute, tint
from unrote.data.registry import register_task
from unrote.data.task import Split, Task
from unrote.seeding import derive_seed, generator

_N = 1797


@register_task("digits", "scikit-learn's 1,797 handwritten digits, 5 or more against less; tinted background")
def digits(
    *,
    n_train: int = 1000,
    n_validation: int = 297,
    alignment: float = 0.95,
    strength: float = 0.9,
    seed: int = 0,
) -> Task:
    """Tell whether a digit is 5 or more, where the dark background gives the answer away for most.

    Training and validation agree with the shortcut equally often. In the test split (all other digits) each
    class has both attributes equally often, within one.

    Args:
        n_train: training examples.
        n_validation: validation examples.
        alignment: share of each class, in training and validation, whose background is the one of the class,
            in [0, 1]; 0.5 plants no shortcut.
        strength: brightness of the background, in [0, 1].
        seed: of the splits and of the planting.

    Returns:
        A task with x (n, 2, 8, 8) float32 in [0, 1].

    Raises:
        OptionError: if an option is out of range, or fewer than 100 digits are left for the test.
    """
    check_count("n_validation", n_validation, 10, _N - 200)
    check_count(
        "n_train", n_train, 10, _N - 100 - n_validation, f": there are {_N} digits, 100 stay for the test"
    )
    check_number("strength", strength, 0.0, 1.0)
    grey, digit = _read()
    images = torch.from_numpy(grey).float() / 16
    y = torch.from_numpy(digit >= 5).long()
    order = torch.randperm(_N, generator=generator(seed, "digits", "splits"))

    def plant(name: str, rows: Int[Tensor, " m"], aligned: float) -> Split:
        attribute = plant_attribute(y[rows], 2, aligned, derive_seed(seed, "digits", name))
        return Split(tint(images[rows], attribute, torch.eye(2), strength), y[rows], attribute)

    seen = n_train + n_validation
    return Task(
        name="digits",
        train=plant("train", order[:n_train], alignment),
        validation=plant("validation", order[n_train:seen], alignment),
        test=plant("test", order[seen:], 0.5),
        class_names=("0-4", "5-9"),
        attribute_names=("channel 0 bright", "channel 1 bright"),
        shortcut=f"which channel has the bright background; that of the class in {alignment:.0%} of training",
    )


def _read() -> tuple[Float[np.ndarray, "n 8 8"], Shaped[np.ndarray, " n"]]:
    """Pixels from 0 to 16, and digits: what `sklearn.datasets` gives, which takes more than a second to import."""
    package = find_spec("sklearn")
    assert package is not None
    assert package.origin is not None
    file = Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"
    if not file.exists():  # another release may keep it elsewhere
        from sklearn.datasets import load_digits

        source = load_digits()
        return source.images, source.target
    values = np.loadtxt(file, delimiter=",")
    return values[:, :-1].reshape(-1, 8, 8), values[:, -1]

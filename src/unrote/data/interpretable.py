"""The paper's interpretable setup: two features that matter, and many that can be learned by heart.

A small core feature tells the class of every example. A spurious feature, five times as large, tells the
class of 90% of them. The 1,798 example features are noise, different for each example: with them a linear
model can fit the minority by heart instead of using the core feature, and without them (sigma 0) it cannot.

Reference: Bayat et al., "The Pitfalls of Memorization", arXiv 2412.07684 (2025), section 2 and figure 1.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unrote.data.options import check_count, check_number
from unrote.data.planted import plant_attribute
from unrote.data.registry import register_task
from unrote.data.task import Split, Task
from unrote.seeding import derive_seed, generator


@register_task(
    "interpretable", "the paper's linear setup: a small core, a large spurious and 1,798 noise features"
)
def interpretable(
    *,
    n: int = 1000,
    n_test: int = 1000,
    alignment: float = 0.9,
    test_alignment: float = 0.5,
    sigma: float = 0.5,
    noise_dims: int = 1798,
    core_noise: float = 0.12,
    spurious_scale: float = 5.0,
    seed: int = 0,
) -> Task:
    """The task of the paper's figure 1, with s = `sigma`.

    For an example of sign y and attribute sign a, column 0 of x is `y + core_noise * z0`, column 1 is
    `spurious_scale * (a + core_noise * z1)` and the others are `sigma * z`, all z standard normal. Classes
    are equally frequent, and the share of each class with a = y is exact (see `plant_attribute`). Validation
    is drawn like training.

    Args:
        n: training examples, and validation examples.
        n_test: test examples.
        alignment: share with a = y in training and validation, in [0, 1].
        test_alignment: share with a = y in the test split, in [0, 1].
        sigma: standard deviation of the example features, at least 0; 0 leaves nothing to learn by heart.
        noise_dims: number of example features.
        core_noise: standard deviation of the noise on core and (before scaling) spurious feature.
        spurious_scale: size of the spurious feature; the core feature has size 1.
        seed: of the draw.

    Returns:
        A task with x (n, 2 + noise_dims) float32, classes "-1" and "+1" and attributes "-1" and "+1".

    Raises:
        OptionError: if an option is out of range.
    """
    check_count("n", n, 4)
    check_count("n_test", n_test, 4)
    check_count("noise_dims", noise_dims, 0)
    check_number("sigma", sigma, 0.0)
    check_number("core_noise", core_noise, 0.0)
    check_number("spurious_scale", spurious_scale, 0.0)

    def draw(name: str, size: int, aligned: float) -> Split:
        random = generator(seed, "interpretable", name)
        y = (torch.arange(size) % 2)[torch.randperm(size, generator=random)]
        attribute = plant_attribute(y, 2, aligned, derive_seed(seed, "interpretable", name))
        signal = torch.stack([_sign(y), _sign(attribute)], dim=1)
        signal = signal + core_noise * torch.randn(size, 2, generator=random)
        noise = sigma * torch.randn(size, noise_dims, generator=random)
        scale = torch.tensor([1.0, spurious_scale])
        return Split(torch.cat([signal * scale, noise], dim=1), y, attribute)

    return Task(
        name="interpretable",
        train=draw("train", n, alignment),
        validation=draw("validation", n, alignment),
        test=draw("test", n_test, test_alignment),
        class_names=("-1", "+1"),
        attribute_names=("-1", "+1"),
        shortcut=f"feature 1, of scale {spurious_scale:g}: the sign of y in {alignment:.0%} of training",
    )


def _sign(binary: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
    return 2.0 * binary - 1.0

"""What a linear classifier comes to on the interpretable setup: exactly, by gradient descent, and in the limit.

Shared by the figures that need it. In the setup (see `unrote.data.interpretable`) an example of class sign y and
attribute sign a is, times its class sign, the core feature 1, the spurious feature +-g (+ where a = y), and d
features of noise s that tell nothing. Of a weight vector only three numbers matter to a new example: what it puts
on the core feature (u), on the spurious one (v), and the length t of the rest.
"""

import math
import warnings
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import minimize
from scipy.special import ndtr
from torch import Tensor

from unrote.data import load_task
from unrote.errors import DataError

Weights = tuple[float, float, float]
"""(u, v, t): weight on the core feature, weight on the spurious one, length of the weights on the noise."""

_BUDGET = 1e6  # C of the support vector machine: no example may lie inside the margin


@dataclass(frozen=True)
class Setup:
    """One instance of the interpretable setup.

    Args:
        sigma: standard deviation s of the example features.
        spurious_scale: g.
        n: training examples.
        noise_dims: d.
        alignment: share of the training examples with a = y.
        core_noise: standard deviation of the noise on core and (before scaling) spurious feature.
    """

    sigma: float = 0.5
    spurious_scale: float = 5.0
    n: int = 1000
    noise_dims: int = 1798
    alignment: float = 0.9
    core_noise: float = 0.12

    def smaller(self, factor: int) -> "Setup":
        """The same with n and d divided by `factor`, which leaves d/n, and so the limit, as it is."""
        return replace(self, n=self.n // factor, noise_dims=self.noise_dims // factor)

    def examples(self, seed: int) -> Float[Tensor, "n d"]:
        """Training examples times the sign of their class: a weight vector's product with one is its margin."""
        train = load_task(
            "interpretable",
            n=self.n,
            n_test=4,
            alignment=self.alignment,
            sigma=self.sigma,
            noise_dims=self.noise_dims,
            core_noise=self.core_noise,
            spurious_scale=self.spurious_scale,
            seed=seed,
        ).train
        x: Tensor = train.x[torch.arange(len(train))]
        return x.double() * (2.0 * train.y - 1).unsqueeze(1)

    def accuracy(self, weights: Weights) -> tuple[float, float]:
        """Accuracy on new examples: (majority, minority). Exact, as a new margin is normally distributed."""
        u, v, _ = weights
        spread = self._spread(weights)
        if spread == 0:
            return 0.5, 0.5
        majority, minority = (u + sign * self.spurious_scale * v for sign in (1, -1))
        return float(ndtr(majority / spread)), float(ndtr(minority / spread))

    def _spread(self, weights: Weights) -> float:
        """Standard deviation of a new example's margin."""
        u, v, t = weights
        return math.hypot(self.core_noise * u, self.core_noise * self.spurious_scale * v, self.sigma * t)


def three_numbers(weight: Float[Tensor, " d"]) -> Weights:
    """Of a weight vector of the setup, what a new example sees of it."""
    return float(weight[0]), float(weight[1]), float(weight[2:].norm())


def largest_margin(z: Float[Tensor, "n d"]) -> Float[Tensor, " d"]:
    """The separator through the origin with the largest margin, which is where gradient descent ends.

    Args:
        z: examples times the sign of their class.

    Returns:
        The shortest w with z @ w >= 1.

    Raises:
        DataError: if no separator exists.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.svm import LinearSVC

    # half of the examples mirrored, as the solver wants two classes
    sign = np.where(np.arange(len(z)) % 2, 1.0, -1.0)
    machine = LinearSVC(
        fit_intercept=False, loss="hinge", C=_BUDGET, tol=1e-6, max_iter=100_000, random_state=0
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the margin below says whether it got there
        machine.fit(z.numpy() * sign[:, None], sign)
    weight = torch.from_numpy(machine.coef_[0])
    margin = float((z @ weight).min())
    if margin < 0.99:  # 1 if solved; a budget that binds leaves examples inside
        raise DataError(
            f"the examples have no separator through the origin with margin 1 (got {margin:.3g}): "
            "take less noise, fewer examples or more dimensions"
        )
    return weight / margin


def descend(z: Float[Tensor, "n d"], rate: float, record: list[int]) -> list[Float[Tensor, " d"]]:
    """Full-batch gradient descent from zero on the logistic loss, as a softmax over two columns does it.

    All iterates lie in the span of the examples, so it is run on their n x n products.

    Args:
        z: examples times the sign of their class.
        rate: learning rate of the softmax; the difference of its columns moves twice as fast.
        record: steps to record, ascending.

    Returns:
        The difference of the two columns after each of those steps.
    """
    products = (z @ z.T).float()
    coefficient = torch.zeros(len(z))
    recorded, step = [], 0
    for stop in record:
        while step < stop:
            coefficient += (2 * rate / len(z)) * torch.sigmoid(-(products @ coefficient))
            step += 1
        recorded.append(coefficient.double() @ z)
    return recorded


def stable_rate(z: Float[Tensor, "n d"]) -> float:
    """Half the largest rate at which `descend` is sure not to oscillate: 1 / its loss's curvature."""
    small = z @ z.T if len(z) < z.shape[1] else z.T @ z
    largest = float(torch.linalg.eigvalsh(small)[-1]) / len(z)
    return 2 / largest


def limit(setup: Setup) -> Weights:
    """The largest-margin separator as n and d grow at a fixed ratio, by Gordon's comparison theorem.

    Minimises u^2 + v^2 + t^2 subject to E[(1 - m)_+^2] <= s^2 t^2 d / n, where m is the margin of a new training
    example: what the noise must add to reach margin 1 can be no more than d dimensions of it hold.

    Args:
        setup: with sigma > 0 and d > 0.

    Raises:
        DataError: if there is no noise to learn by heart, or the optimiser finds no separator.
    """
    if setup.sigma <= 0 or setup.noise_dims < 1:
        raise DataError(
            "without noise features the limit has no such form: it is the core feature's accuracy"
        )
    room = setup.sigma * math.sqrt(setup.noise_dims / setup.n)

    def slack(point: np.ndarray) -> float:
        u, v, t = point
        spread = setup._spread((u, v, t)) + 1e-12
        missing = 0.0
        for share, sign in ((setup.alignment, 1), (1 - setup.alignment, -1)):
            a = (1 - u - sign * setup.spurious_scale * v) / spread
            missing += (
                share
                * spread**2
                * ((a * a + 1) * ndtr(a) + a * math.exp(-a * a / 2) / math.sqrt(2 * math.pi))
            )
        return float(room * t - math.sqrt(missing))

    best: np.ndarray | None = None
    for start in ([1.5, 0.0, 1 / room], [0.3, 0.2, 0.7 / room], [1.0, 0.1, 0.3 / room]):
        found = minimize(
            lambda point: float(point @ point) / 2,
            start,
            constraints=[{"type": "ineq", "fun": slack}],
            method="SLSQP",
            options={"maxiter": 1000, "ftol": 1e-12},
        )
        if slack(found.x) > -1e-5 and (best is None or found.x @ found.x < best @ best):
            best = found.x
    if best is None:
        raise DataError(f"no separator found in the limit of {setup}: take more noise dimensions")
    return float(best[0]), float(best[1]), float(abs(best[2]))

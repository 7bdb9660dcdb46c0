"""CCDB: weights under which classes look alike to a biased model (Zhao and Zhang 2026, arXiv 2504.17314).

    biased model: ERM for a share of the steps;  z[i] = what it makes of x_i
    weights w, equal in sum for every class, that minimise the sum over classes of the squared Wasserstein
        distance |mean_w(z | y) - mean(z)|^2 + |std_w(z | y) - std(z)|^2 between Gaussians: that of z in the
        class under w, and that of z in the whole training set    (Adam, all examples at once)
    from scratch, minimise the mean CE weighted by w

Where all classes look alike to the biased model, what it goes by tells nothing of the class. z are its logits
by default. The paper's are the last features (`space="features"`); those of a linear model are its inputs, in
which the true reason for the class stands beside the shortcut, and is balanced away with it. Needs the labels
alone.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unrote.data.options import check_count, check_number
from unrote.errors import OptionError
from unrote.methods.base import SupervisionMethod, register
from unrote.methods.search import Uniform, hyper
from unrote.methods.session import Session
from unrote.supervision import Supervision


def spread(
    z: Float[Tensor, "m F"], p: Float[Tensor, " m"]
) -> tuple[Float[Tensor, " F"], Float[Tensor, " F"]]:
    """Mean and standard deviation of each column under the distribution p over rows."""
    mean = p @ z
    # a class of one example has no spread, and the root no slope at 0
    return mean, (p @ (z - mean).square()).clamp_min(1e-12).sqrt()


def matching_weight(
    z: Float[Tensor, "n F"],
    y: Int[Tensor, " n"],
    *,
    steps: int,
    count: Float[Tensor, " n"] | None = None,
    learning_rate: float = 0.05,
) -> Float[Tensor, " n"]:
    """Weights of mean 1 under which z is spread alike in all classes.

    Args:
        z: (n, F).
        y: (n,) labels.
        steps: of Adam.
        count: (n,) how much each example counts, at least 0; None counts all the same. The result multiplies it.
        learning_rate: of Adam.
    """
    count = torch.ones(len(y), dtype=torch.float64) if count is None else count.double()
    z = z.detach().double()
    mean, std = spread(z, count / count.sum())
    z, std = (z - mean) / std.square().mean().sqrt(), std / std.square().mean().sqrt()
    classes = [((y == label) & (count > 0)).nonzero().squeeze(1) for label in y[count > 0].unique()]
    score = torch.zeros(len(y), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([score], lr=learning_rate)
    for _ in range(steps):
        optimizer.zero_grad()
        for rows in classes:
            own_mean, own_std = spread(z[rows], (score[rows] + count[rows].log()).softmax(0))
            (own_mean.square().sum() + (own_std - std).square().sum()).backward()
        optimizer.step()
    weight = torch.zeros(len(y), dtype=torch.float64)
    for rows in classes:
        total = (score.detach()[rows] + count[rows].log()).logsumexp(0)
        weight[rows] = (score.detach()[rows] - total).exp()
    return (weight / weight.mean()).float()


@register("ccdb", needs="none", reference="Zhao and Zhang 2026, arXiv 2504.17314")
@dataclass(frozen=True)
class CCDB(SupervisionMethod):
    """Class-conditional distribution balancing.

    Args:
        share: of the steps that the biased model trains for, in (0, 1].
        space: what z is, "logits" or "features".
        steps: of the search for the weights.
    """

    share: float = hyper(0.2, Uniform(0.1, 0.8))
    space: Literal["logits", "features"] = "logits"
    steps: int = hyper(500)

    def __post_init__(self) -> None:
        check_number("share", self.share, 0.0, 1.0)
        check_count("steps", self.steps, 0)
        if self.space not in ("logits", "features"):
            raise OptionError(f"space={self.space!r}: 'logits' or 'features' is wanted")

    def supervision(self, session: Session) -> Supervision:
        """The labels, weighted so that the classes look alike to the biased model."""
        stack, x = session.erm(self.share).stack, session.task.train.x
        z = (stack.predict(x) if self.space == "logits" else stack.predict_features(x))[0]
        weight = matching_weight(z, session.y, steps=self.steps, count=session.sample_weight)
        session.artefacts["weight"] = weight
        return Supervision(session.y, weight=weight)

"""IRM: a classifier that is right, in one scale, in every environment (Arjovsky et al. 2019, arXiv 1907.02893).

    for each environment e in the minibatch:
        R_e = mean cross-entropy over its examples
        split its examples into two halves; s, s' = derivative of the mean CE(w * f(x), y) at w = 1 on each half
        penalty_e = s * s'                    (in expectation the square of the derivative, without bias)
    take a step on mean_e R_e + lambda * mean_e penalty_e, divided by lambda where that is above 1
    (lambda is 1 for the first `anneal` steps)

Environments must differ in how the shortcut goes with the class. The attribute itself is none such: where it is
constant, what it says of the class is right on average, so that the penalty of a pure shortcut is 0. With true
groups the environments are therefore "the attribute speaks for the class" (the class is more frequent where the
attribute is than elsewhere) and "against it"; inferred groups are environments as they are. As in the paper
environments count the same whatever their size, which by itself weights the rare one up; minibatches are drawn
accordingly.

The paper takes all examples in every step. On small minibatches the penalty is noisy, and a small scale pays it
cheaply, above all for a linear head: lambda beyond 100 or an early start of it then spoils the classifier.

Needs the group of every training example.
"""

import warnings
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from unrote.errors import OptionError
from unrote.methods.balance import equal_weights
from unrote.methods.base import Fitted, Method, register
from unrote.methods.groupwise import GroupObjective, group_means
from unrote.methods.losses import check_positive
from unrote.methods.search import LogUniform, hyper
from unrote.methods.session import Groups, Session
from unrote.models import Stack
from unrote.supervision import cross_entropy
from unrote.training import Batch

Environments = Literal["auto", "agreement", "attribute"]


class InvariantRisk(GroupObjective):
    """Risk and invariance penalty, averaged over environments.

    Args:
        y: (n,) labels.
        groups: of the same examples.
        environment: (n,) of the same examples, from 0.
        penalty: lambda.
        anneal: steps before it counts.
    """

    def __init__(
        self,
        y: Int[Tensor, " n"],
        groups: Groups,
        environment: Int[Tensor, " n"],
        penalty: float,
        anneal: float,
    ) -> None:
        super().__init__(y, groups)
        self.environment, self.penalty, self.anneal = environment, penalty, anneal
        self.count = int(environment.max()) + 1

    def loss(self, stack: Stack, batch: Batch) -> Float[Tensor, " S"]:
        """Risk plus penalty. An environment with one example in the minibatch has a risk but no penalty."""
        y, environment = self.rows(self.y, batch), self.rows(self.environment, batch)
        logits = stack(batch.x, per_member=batch.per_member)
        risk, present = group_means(cross_entropy(logits, y), environment, self.count)
        half = rank_within(environment, self.count) % 2
        slope, halves = group_means(scale_slope(logits, y), 2 * environment + half, 2 * self.count)
        product, both = slope.unflatten(1, (-1, 2)).prod(2), halves.unflatten(1, (-1, 2)).all(2)
        strength = 1.0 if batch.step < self.anneal else self.penalty
        total = mean_where(risk, present) + strength * mean_where(product, both)
        return total / max(strength, 1.0)


def scale_slope(logits: Float[Tensor, "S B C"], y: Int[Tensor, "s B"]) -> Float[Tensor, "S B"]:
    """The derivative of CE(w * logits, y) with respect to w at w = 1: the expected logit less the label's."""
    own = logits.gather(-1, y.expand(logits.shape[:2]).unsqueeze(-1)).squeeze(-1)
    return (logits.softmax(-1) * logits).sum(-1) - own


def rank_within(group: Int[Tensor, "s B"], n_groups: int) -> Int[Tensor, "s B"]:
    """How many earlier examples of the minibatch are in the same group."""
    members = torch.nn.functional.one_hot(group, n_groups)
    return ((members.cumsum(1) - 1) * members).sum(-1)


def mean_where(values: Float[Tensor, "S E"], valid: Bool[Tensor, "S E"]) -> Float[Tensor, " S"]:
    """The mean of the valid values of each member, 0 where there is none."""
    return torch.where(valid, values, 0.0).sum(1) / valid.sum(1).clamp_min(1)


def speaks_for_class(y: Int[Tensor, " n"], groups: Groups) -> Int[Tensor, " n"]:
    """1 where the example's class is more frequent with its attribute than in the whole training set, else 0."""
    with_attribute, of_class = torch.bincount(groups.attribute), torch.bincount(y)
    expected = with_attribute[groups.attribute] * of_class[y]
    return (groups.size[groups.index] * len(y) > expected).long()


@register("irm", needs="train", reference="Arjovsky et al. 2019, arXiv 1907.02893")
@dataclass(frozen=True)
class IRM(Method):
    """Invariant risk minimisation, version 1.

    Args:
        penalty: lambda, at least 0.
        anneal: steps in which lambda is 1, at least 0.
        environments: "agreement" of attribute and class, the "attribute" itself, or "auto": agreement with true
            groups, the attribute with inferred ones.
    """

    penalty: float = hyper(10.0, LogUniform(0.1, 1e5))
    anneal: float = hyper(300, LogUniform(1, 1e4))
    environments: Environments = "auto"

    def fit(self, session: Session) -> Fitted:
        """Train on the session's task.

        Raises:
            OptionError: if a setting is out of range.
        """
        check_positive("penalty", self.penalty, zero=True, usual="0.1 to 100000")
        check_positive("anneal", self.anneal, zero=True, usual="1 to 10000 steps")
        if self.environments not in get_args(Environments):
            raise OptionError(
                f"environments={self.environments!r}: one of {', '.join(get_args(Environments))} is wanted"
            )
        groups, kind = session.training_groups(), self.environments
        if kind == "auto":
            kind = "agreement" if session.groups == "true" else "attribute"
        environment = groups.attribute if kind == "attribute" else speaks_for_class(session.y, groups)
        if len(environment.unique()) < 2:
            warnings.warn(
                f"all training examples are in one environment ({kind}): there is nothing to be invariant to; "
                "set environments= or choose other groups",
                UserWarning,
                stacklevel=2,
            )
        objective = InvariantRisk(session.y, groups, environment, self.penalty, self.anneal)
        result = session.train(objective, settings=self.settings(), sampling=equal_weights(environment))
        return self.fitted(session, result)

"""Matching features between attributes: cross-entropy plus a distance between their distributions."""

from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unrote.methods.base import Fitted, Method
from unrote.methods.groupwise import GroupObjective, learned_features, need_two_attributes
from unrote.methods.losses import check_positive
from unrote.methods.search import LogUniform, hyper
from unrote.methods.session import Groups, Session
from unrote.models import Stack
from unrote.supervision import cross_entropy
from unrote.training import Batch

Distance = Callable[[Float[Tensor, "p F"], Float[Tensor, "q F"]], Float[Tensor, ""]]
"""How far apart two samples of features are, of at least two examples each."""


class Matching(GroupObjective):
    """Cross-entropy plus `strength` times the mean distance between the attributes' features.

    Args:
        y: (n,) labels.
        groups: of the same examples.
        distance: between the features of two attributes.
        strength: lambda.
        within_class: whether features are compared within each class, or whatever the class.
        method: its name, for messages.

    Raises:
        OptionError: if all examples have the same attribute.
    """

    def __init__(
        self,
        y: Int[Tensor, " n"],
        groups: Groups,
        distance: Distance,
        strength: float,
        *,
        within_class: bool,
        method: str,
    ) -> None:
        super().__init__(y, groups)
        need_two_attributes(groups, method)
        self.distance, self.strength, self.within_class = distance, strength, within_class

    def loss(self, stack: Stack, batch: Batch) -> Float[Tensor, " S"]:
        """Pairs of which a side has fewer than two examples in the minibatch are left out of the mean."""
        features, logits = learned_features(stack, batch)
        y, attribute = self.rows(self.y, batch), self.rows(self.groups.attribute, batch)
        loss = cross_entropy(logits, y).mean(1)
        if not self.strength:
            return loss
        apart = [
            self._mean_distance(features[m], y[m % len(y)], attribute[m % len(y)])
            for m in range(stack.n_members)
        ]
        return loss + self.strength * torch.stack(apart)

    def _mean_distance(
        self, features: Float[Tensor, "B F"], y: Int[Tensor, " B"], attribute: Int[Tensor, " B"]
    ) -> Float[Tensor, ""]:
        kind = y if self.within_class else torch.zeros_like(y)
        distances = [self.distance(one, other) for one, other in _pairs(features, kind, attribute)]
        return torch.stack(distances).mean() if distances else features.new_zeros(())


def _pairs(
    features: Float[Tensor, "B F"], kind: Int[Tensor, " B"], attribute: Int[Tensor, " B"]
) -> Iterator[tuple[Tensor, Tensor]]:
    """The features of each two attributes within each kind."""
    for k in kind.unique():
        samples = [features[(kind == k) & (attribute == a)] for a in attribute.unique()]
        yield from combinations([sample for sample in samples if len(sample) > 1], 2)


@dataclass(frozen=True)
class MatchingMethod(Method):
    """A method that penalises a distance between the features of different attributes.

    Args:
        strength: lambda, at least 0; 0 is ERM.
        within_class: whether attributes are compared within each class.
    """

    strength: float = hyper(10.0, LogUniform(0.1, 100.0))
    within_class: bool = True

    @abstractmethod
    def distance(self, one: Float[Tensor, "p F"], other: Float[Tensor, "q F"]) -> Float[Tensor, ""]:
        """Distance of two samples of features."""

    def fit(self, session: Session) -> Fitted:
        """Train on the session's task."""
        check_positive("strength", self.strength, zero=True, usual="0.1 to 1000")
        objective = Matching(
            session.y,
            session.training_groups(),
            self.distance,
            self.strength,
            within_class=self.within_class,
            method=self.name,
        )
        return self.fitted(session, session.train(objective, settings=self.settings()))

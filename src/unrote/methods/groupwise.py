"""What methods that compare groups within a minibatch have in common."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from unrote.errors import OptionError
from unrote.methods.session import Groups
from unrote.models import Stack
from unrote.supervision import Supervision, take_examples
from unrote.training import Batch, Objective


class GroupObjective(Objective):
    """A loss that knows the group of every training example.

    Args:
        y: (n,) labels.
        groups: of the same examples.
    """

    def __init__(self, y: Int[Tensor, " n"], groups: Groups) -> None:
        self.y, self.groups = y, groups

    def prepare(self, stack: Stack, n_examples: int) -> None:
        """Refuse labels that do not fit the examples or the stack."""
        Supervision(self.y).check(n_examples, stack.n_members, stack.n_classes)

    def rows(self, values: Int[Tensor, " n"], batch: Batch) -> Int[Tensor, "s B"]:
        """The values of the minibatch's examples, on its device; s is 1 where members share the minibatch."""
        return take_examples(values, batch.index.cpu(), False).to(batch.index.device)


def group_means(
    values: Float[Tensor, "S B"], group: Int[Tensor, "s B"], n_groups: int
) -> tuple[Float[Tensor, "S G"], Bool[Tensor, "S G"]]:
    """Mean of each member's values over the examples of each group, and which groups are there at all.

    Args:
        values: one per member and example.
        group: (1, B), or (S, B) where members have minibatches of their own.
        n_groups: G.

    Returns:
        Means, 0 for a group without examples, and whether each group has any.
    """
    group = group.expand(values.shape)
    zeros = values.new_zeros(len(values), n_groups)
    count = zeros.scatter_add(1, group, torch.ones_like(values))
    return zeros.scatter_add(1, group, values) / count.clamp_min(1), count > 0


def need_two_attributes(groups: Groups, method: str) -> None:
    """Refuse groups in which nothing can be compared between attributes.

    Raises:
        OptionError: if all examples have the same attribute.
    """
    if len(groups.attribute.unique()) < 2:
        raise OptionError(
            f"{method} compares attributes, but all {len(groups.attribute)} training examples have attribute "
            f"{int(groups.attribute[0])}: at least two are wanted; choose other groups, or a method without them"
        )


def learned_features(stack: Stack, batch: Batch) -> tuple[Float[Tensor, "S B F"], Float[Tensor, "S B C"]]:
    """Features and logits on a minibatch; logits and logits where the features are the examples themselves.

    A linear head learns no features: all it can leave out of account shows in its logits.
    """
    features, logits = stack.features_and_logits(batch.x, per_member=batch.per_member)
    return (features if stack.learns_features else logits), logits

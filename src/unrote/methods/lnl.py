"""LNL: learning not to learn the attribute (Kim et al. 2019, arXiv 1812.10352).

    a reader, a linear softmax classifier, predicts the attribute from the features; repeat:
        r = mean cross-entropy of the reader over the minibatch
        e = mean of sum over a of p_a * log p_a, the reader's negative entropy
        the reader takes a step on r
        features and classifier take a step on mean cross-entropy - mu * r + lambda * e   (gradient reversal)

What the reader learns to see, the features unlearn. The reader trains along with the network, by the same recipe,
and is saved with it. Where attribute and class go together, unlearning the one costs the other: the method trades
them off by mu.

Needs the attribute of every training example. To a linear head, whose features are the examples, the logits are
the features.
"""

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from unrote.methods.base import Fitted, Method, register
from unrote.methods.groupwise import GroupObjective, learned_features, need_two_attributes
from unrote.methods.losses import check_positive
from unrote.methods.search import LogUniform, hyper
from unrote.methods.session import Groups, Session
from unrote.models import Stack
from unrote.supervision import cross_entropy
from unrote.training import Batch


class Unlearning(GroupObjective):
    """Cross-entropy, with a reader of the attribute behind gradient reversal.

    Args:
        y: (n,) labels.
        groups: of the same examples.
        reversal: mu.
        entropy: lambda.

    Raises:
        OptionError: if all examples have the same attribute.
    """

    weight: Float[Tensor, "S A F"]
    bias: Float[Tensor, "S A"]

    def __init__(self, y: Int[Tensor, " n"], groups: Groups, reversal: float, entropy: float) -> None:
        super().__init__(y, groups)
        need_two_attributes(groups, "lnl")
        self.reversal, self.entropy = reversal, entropy

    def prepare(self, stack: Stack, n_examples: int) -> None:
        """Make a reader that knows nothing yet."""
        super().prepare(stack, n_examples)
        weight, _ = stack.head()
        width = weight.shape[1] if stack.learns_features else stack.n_classes
        shape = (stack.n_members, self.groups.n_attributes)
        self.weight = weight.new_zeros(*shape, width).requires_grad_()
        self.bias = weight.new_zeros(*shape).requires_grad_()

    def loss(self, stack: Stack, batch: Batch) -> Float[Tensor, " S"]:
        """The classifier's loss, the reader's, and the classifier's share in the latter, reversed."""
        features, logits = learned_features(stack, batch)
        attribute = self.rows(self.groups.attribute, batch)
        # the same numbers, but a gradient to the features of -mu times what the reader's loss would send
        reversed_features = features.detach() + self.reversal * (features.detach() - features)
        read = reversed_features @ self.weight.mT + self.bias.unsqueeze(1)
        loss = cross_entropy(logits, self.rows(self.y, batch)) + cross_entropy(read, attribute)
        if self.entropy:
            # the reader is not to become unsure of itself: this term is the features' alone
            log_p = (features @ self.weight.detach().mT + self.bias.detach().unsqueeze(1)).log_softmax(-1)
            loss = loss + self.entropy * (log_p.exp() * log_p).sum(-1)
        return loss.mean(1)

    def parameters(self) -> list[Tensor]:
        """The reader's."""
        return [self.weight, self.bias]

    def state(self) -> dict[str, Tensor]:
        """The reader."""
        return {"reader_weight": self.weight.detach(), "reader_bias": self.bias.detach()}


@register("lnl", needs="train", reference="Kim et al. 2019, arXiv 1812.10352")
@dataclass(frozen=True)
class LNL(Method):
    """Learning not to learn.

    Args:
        reversal: mu, at least 0; how much the features unlearn what the reader sees.
        entropy: lambda, at least 0; how much they make the reader unsure.
    """

    reversal: float = hyper(0.1, LogUniform(1e-2, 1.0))
    entropy: float = hyper(0.01, LogUniform(1e-3, 1.0))

    def fit(self, session: Session) -> Fitted:
        """Train on the session's task."""
        check_positive("reversal", self.reversal, zero=True, usual="0.01 to 1")
        check_positive("entropy", self.entropy, zero=True, usual="0.001 to 1")
        objective = Unlearning(session.y, session.training_groups(), self.reversal, self.entropy)
        return self.fitted(session, session.train(objective, settings=self.settings()))

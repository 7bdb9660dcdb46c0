"""EIIL: environments that a fixed reference model violates the most (Creager et al. 2021, arXiv 2010.07249).

u_i = sigmoid(s_i), a soft split of the examples into two environments; s_i starts at random
R_e(w) = mean over environment e, weighted by the split, of CE(w * f(x_i), y_i)
ascend, over s, the sum over e of (d R_e / d w at w = 1)^2        (Adam)
environment of i = 1 if u_i > 1/2
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unrote.seeding import generator


def infer_environments(
    logits: Float[Tensor, "n C"],
    y: Int[Tensor, " n"],
    *,
    steps: int = 10_000,
    learning_rate: float = 1e-3,
    seed: int = 0,
) -> Int[Tensor, " n"]:
    """Inferred environment of each example, 0 or 1, (n,).

    Args:
        logits: (n, C) of the reference model; it is not trained further.
        y: (n,) labels.
        steps: of the ascent.
        learning_rate: of Adam.
        seed: of the start.
    """
    logits = logits.detach().double()
    # d CE(w * f, y) / dw at w = 1 is the expected logit less the label's own: nothing needs to be differentiated
    slope = (logits.softmax(1) * logits).sum(1) - logits.gather(1, y.unsqueeze(1)).squeeze(1)
    score = torch.randn(len(y), generator=generator(seed, "eiil"), dtype=torch.float64).requires_grad_()
    optimizer = torch.optim.Adam([score], lr=learning_rate, maximize=True)
    for _ in range(steps):
        share = torch.stack([score.sigmoid(), 1 - score.sigmoid()])
        penalty = ((share * slope).mean(1) ** 2).sum()
        optimizer.zero_grad()
        penalty.backward()
        optimizer.step()
    return (score.detach() > 0).long()

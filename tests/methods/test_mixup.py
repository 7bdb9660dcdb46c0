"""mixup's loss against mixtures made by hand, what it cannot mix, and its effect on the minority."""

import numpy as np
import pytest
import torch
from imbalance import imbalanced_task, session_of
from torch.nn import functional as F
from toys import minority_accuracy

from unrote.data import Split, Task
from unrote.errors import OptionError
from unrote.methods.mixing import beta_share, random_partners
from unrote.methods.mixup import Mixup, MixupObjective
from unrote.models import StackedLinear
from unrote.seeding import generator
from unrote.training import Batch

RANDOM = torch.Generator().manual_seed(0)
X, Y = torch.randn(6, 3, generator=RANDOM), torch.tensor([0, 1, 1, 0, 1, 0])


def loss(
    stack: StackedLinear,
    index: torch.Tensor,
    step: int,
    x: torch.Tensor = X,
    weight: torch.Tensor | None = None,
) -> torch.Tensor:
    objective = MixupObjective(Y, 0.4, seed=7)
    if weight is not None:
        objective.with_weight(weight)
    objective.prepare(stack, len(Y))
    return objective.loss(stack, Batch(index, x[index], step, 0))


@pytest.mark.parametrize("weight", [None, torch.tensor([1.0, 2.0, 3.0, 0.0, 5.0, 6.0])])
@pytest.mark.parametrize("step", [0, 5])
def test_is_the_cross_entropy_of_mixtures_with_mixed_labels(step: int, weight: torch.Tensor | None) -> None:
    stack, index = StackedLinear(3, 2, (0, 1)), torch.tensor([4, 0, 3, 1])
    share = beta_share(0.4, 7, "mixup", "share", step)
    partner = random_partners(4, generator(7, "mixup", "partner", step))
    wanted, total, w = torch.zeros(2), 0.0, torch.ones(6) if weight is None else weight
    for place in range(4):
        i, j = int(index[place]), int(index[partner[place]])
        logits = stack((share * X[i] + (1 - share) * X[j]).unsqueeze(0))[:, 0]
        both = w[i] * share * F.one_hot(Y[i], 2) + w[j] * (1 - share) * F.one_hot(Y[j], 2)
        wanted -= (both * logits.log_softmax(1)).sum(1)
        total += float(both.sum())
    torch.testing.assert_close(loss(stack, index, step, weight=weight), wanted / total)


def test_shares_are_drawn_anew_at_each_step() -> None:
    shares = [beta_share(0.4, 7, "mixup", "share", step) for step in range(4000)]
    # Beta(a, a) has mean 1/2 and variance 1 / (4 (2a + 1))
    assert np.mean(shares) == pytest.approx(0.5, abs=0.03)
    assert np.var(shares) == pytest.approx(1 / (4 * 1.8), abs=0.01)


def test_an_example_alone_is_mixed_with_itself() -> None:
    stack, index = StackedLinear(3, 2), torch.tensor([4])
    torch.testing.assert_close(loss(stack, index, 0), F.cross_entropy(stack(X[index])[0], Y[index]).view(1))


def test_examples_that_are_all_the_same_stay_so() -> None:
    stack, index = StackedLinear(3, 2), torch.arange(6)
    x = X[:1].expand(6, 3)
    found = loss(stack, index, 3, x)
    torch.testing.assert_close(found, F.cross_entropy(stack(x)[0], Y).view(1))  # each label comes up as often


def test_token_indices_are_refused() -> None:
    task = Task("tokens", train=Split(torch.randint(9, (6, 3)), Y))
    with pytest.raises(OptionError, match="int64 cannot be mixed"):
        Mixup().fit(session_of(task))


@pytest.mark.parametrize("alpha", [0.0, -1.0])
def test_refuses_an_alpha_out_of_range(alpha: float) -> None:
    with pytest.raises(OptionError, match=r"alpha=.* above 0"):
        Mixup(alpha)


def test_learns() -> None:
    task = imbalanced_task(one_in=2)
    assert task.test is not None
    predicted = Mixup(1.0).fit(session_of(task)).predict(task.test.x)
    assert float((predicted == task.test.y).double().mean()) > 0.8  # the best there is is 0.84


def test_the_minority_counts_more_than_with_erm() -> None:
    assert minority_accuracy("mixup", 0) > minority_accuracy("erm", 0) + 0.1

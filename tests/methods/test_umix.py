"""UMIX: counted mistakes against a record of its own, the mixed loss by hand, and the shortcut overcome."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from toys import assert_same_bits, planted_task, worst_on_digits

from unrote.errors import OptionError
from unrote.methods import Session
from unrote.methods.mixing import beta_share, random_partners
from unrote.methods.umix import UMIX, CountedMistakes, WeightedMixup
from unrote.models import ModuleStack, Stack, StackedLinear
from unrote.seeding import generator
from unrote.supervision import Supervision
from unrote.training import Batch, Recipe, Supervised, train

TASK = planted_task(64)
X, Y = TASK.train.x[torch.arange(64)], TASK.train.y
WEIGHT = torch.linspace(0.5, 5.0, 64)


def session(epochs: int = 20) -> Session:
    recipe = Recipe("adam", 0.03 if epochs > 100 else 0.01, batch_size=16, epochs=epochs)
    return Session(TASK, lambda seeds: StackedLinear(8, 2, seeds), recipe)


def drawn(step: int, n: int, chance: float) -> tuple[float, Tensor]:
    """Share and partners, as their generators give them."""
    random = generator(7, "umix", step)
    mixes = float(torch.rand((), generator=random)) < chance
    return beta_share(0.5, 7, "umix", "share", step) if mixes else 1.0, random_partners(n, random)


@pytest.mark.parametrize(("step", "chance"), [(0, 1.0), (3, 1.0), (3, 0.0)])
def test_loss_is_that_of_loops(step: int, chance: float) -> None:
    stack, index = StackedLinear(8, 2), torch.tensor([5, 40, 2, 17, 33])
    objective = WeightedMixup(Y, WEIGHT, 0.5, chance, 7)
    objective.prepare(stack, 64)
    found = objective.loss(stack, Batch(index, X[index], step, 0))
    share, partner = drawn(step, 5, chance)
    weight, bias = (part.double().numpy() for part in stack.head())
    total, mass = 0.0, 0.0
    for place in range(5):
        i, j = int(index[place]), int(index[partner[place]])
        logits = weight @ (share * X[i] + (1 - share) * X[j]).double().numpy() + bias
        log_p = logits - np.log(np.exp(logits).sum())
        total -= share * float(WEIGHT[i]) * log_p[Y[i]] + (1 - share) * float(WEIGHT[j]) * log_p[Y[j]]
        mass += float(WEIGHT[i])
    assert float(found.detach()) == pytest.approx(total / mass, rel=1e-5)


def test_equal_weights_without_mixing_are_erm() -> None:
    stacks = [StackedLinear(8, 2), StackedLinear(8, 2)]
    recipe = Recipe("sgd", 0.1, batch_size=16, epochs=3)
    train(stacks[0], X, WeightedMixup(Y, torch.ones(64), 0.5, 0.0, 7), recipe)
    train(stacks[1], X, Supervised(Supervision(Y, torch.ones(64))), recipe)
    torch.testing.assert_close(stacks[0].head(), stacks[1].head())


def test_mistakes_are_counted_from_a_step_on() -> None:
    """Against an objective that predicts each minibatch for itself."""

    class Recorded(CountedMistakes):
        def __init__(self) -> None:
            super().__init__(Y, from_step=4)
            self.record: list[tuple[int, list[int], list[bool]]] = []

        def after_step(self, stack: Stack, batch: Batch) -> None:
            weight, bias = stack.head()
            wrong = (X[batch.index] @ weight.T + bias).argmax(1) != Y[batch.index]
            self.record.append((batch.step, batch.index.tolist(), wrong.tolist()))
            super().after_step(stack, batch)

    objective = Recorded()
    train(StackedLinear(8, 2), X, objective, Recipe("adam", 0.01, batch_size=16, epochs=3))
    wanted = np.zeros(64)
    for step, index, wrong in objective.record:
        if step >= 4:
            wanted[index] += wrong
    assert objective.counted.tolist() == [2.0] * 64
    np.testing.assert_array_equal(objective.uncertainty, wanted / 2)
    assert 0 < wanted.sum() < 128


def test_counting_does_not_change_the_training() -> None:
    """Not even of a model with dropout, which draws anew at each forward."""

    def make() -> ModuleStack:
        return ModuleStack(lambda: nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5), nn.Linear(8, 2)), 2)

    recipe, stacks = Recipe("sgd", 0.1, batch_size=16, epochs=2), [make(), make()]
    train(stacks[0], X, CountedMistakes(Y, 0), recipe)
    train(stacks[1], X, Supervised(Supervision(Y)), recipe)
    assert_same_bits(stacks[0].state_dict(), stacks[1].state_dict())


def test_exceptions_are_the_uncertain_ones() -> None:
    uncertainty = UMIX().fit(session()).artefacts["uncertainty"]
    exception = TASK.train.attribute != Y
    assert float(uncertainty[exception].mean()) > 0.7
    assert float(uncertainty[~exception].mean()) < 0.1


def test_skipped_epochs_leave_at_least_the_last() -> None:
    fitted = UMIX(share=0.05, skipped=1.0).fit(session(20))  # a scout of one epoch
    assert bool((fitted.artefacts["uncertainty"] > 0).any())


def test_no_mistake_is_said_to_be_plain_mixup() -> None:
    with pytest.warns(UserWarning, match=r"lower UMIX's share, now 1, .* or this is mixup"):
        UMIX(share=1.0, skipped=1.0).fit(session(200))


def test_token_indices_are_mixed_in_the_last_features() -> None:
    """Mixed features give mixed logits."""
    tokens = torch.randint(9, (6, 3), generator=torch.Generator().manual_seed(0))
    y = torch.tensor([0, 1, 0, 1, 1, 0])
    stack = ModuleStack(lambda: nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(12, 2)), 2)
    objective = WeightedMixup(y, torch.ones(6), 0.5, 1.0, 7)
    objective.prepare(stack, 6)
    share, partner = drawn(0, 6, 1.0)
    features, _ = stack.features_and_logits(tokens)
    weight, bias = stack.head()
    logits = (share * features[0] + (1 - share) * features[0][partner]) @ weight.T + bias
    wanted = share * F.cross_entropy(logits, y) + (1 - share) * F.cross_entropy(logits, y[partner])
    torch.testing.assert_close(objective.loss(stack, Batch(torch.arange(6), tokens, 0, 0))[0], wanted)


@pytest.mark.parametrize(
    "settings", [{"eta": -1.0}, {"alpha": 0.0}, {"chance": 2.0}, {"share": 1.5}, {"skipped": -0.1}]
)
def test_refuses_settings_out_of_range(settings: dict[str, float]) -> None:
    with pytest.raises(OptionError, match=next(iter(settings))):
        UMIX(**settings)


def test_overcomes_the_shortcut() -> None:
    assert worst_on_digits("umix") > worst_on_digits("erm") + 0.2

"""LfF: moving averages and relative difficulty against loops, losses by hand, and the shortcut overcome."""

import numpy as np
import pytest
import torch
from toys import planted_task, worst_on_digits

from unrote.api import fit
from unrote.data import load_task
from unrote.errors import OptionError
from unrote.methods import Session
from unrote.methods.lff import FailureObjective, LfF
from unrote.models import StackedLinear
from unrote.seeding import derive_seed
from unrote.training import Batch, Recipe

Y = torch.tensor([0, 1, 0, 1, 2])


def test_averages_and_difficulty_are_those_of_loops() -> None:
    """Two visits to some examples, one to others, none to the last, whose class has no loss yet."""
    objective, memory = FailureObjective(Y, 3, 0.7, 0.6), 0.6
    random = np.random.default_rng(0)
    average: dict[int, np.ndarray] = {}
    for visited in ([0, 1, 2], [2, 3, 0]):
        losses = random.uniform(0.1, 3.0, size=(2, 3))
        objective.remember(torch.tensor(visited), torch.from_numpy(losses).float())
        for place, i in enumerate(visited):
            new = losses[:, place]
            average[i] = memory * average[i] + (1 - memory) * new if i in average else new
    for i, found in enumerate(objective.average.T.tolist()):
        np.testing.assert_allclose(found, average.get(i, np.zeros(2)), rtol=1e-5)
    for i in average:
        largest = np.max([average[j] for j in average if Y[j] == Y[i]], axis=0)
        biased, debiased = average[i] / largest
        found = float(objective.weight(torch.tensor([i])))
        assert found == pytest.approx(biased / (biased + debiased), rel=1e-5)


def test_losses_by_hand() -> None:
    """On the first minibatch every average is the loss itself."""
    stack, x = StackedLinear(4, 3, (0, 1)), torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
    objective, index = FailureObjective(Y, 3, 0.7, 0.6), torch.tensor([4, 0, 2])
    objective.prepare(stack, 5)
    found = objective.loss(stack, Batch(index, x[index], 0, 0))
    p = stack(x[index]).softmax(-1).detach().numpy()[:, range(3), Y[index].numpy()]
    own = -np.log(p)
    largest = np.stack([own[:, 0], own[:, 1:].max(1), own[:, 1:].max(1)], axis=1)  # of class 2, 0 and 0
    relative = own / largest
    weight = relative[0] / relative.sum(0)
    wanted = [((1 - p[0] ** 0.7) / 0.7).mean(), (weight * own[1]).mean()]
    np.testing.assert_allclose(found.detach(), wanted, rtol=1e-5)


def test_the_weight_carries_no_gradient() -> None:
    stack, x = StackedLinear(4, 3, (0, 1)), torch.ones(5, 4)
    objective = FailureObjective(Y, 3, 0.7, 0.6)
    objective.prepare(stack, 5)
    objective.loss(stack, Batch(torch.arange(5), x, 0, 0))[1].backward()
    assert stack.weight.grad is not None
    assert not stack.weight.grad[0].any()  # the biased model does not learn from the debiased one's loss
    assert stack.weight.grad[1].any()


def test_losses_of_exactly_zero_divide_nothing() -> None:
    objective = FailureObjective(Y, 3, 0.7, 0.6)
    objective.remember(torch.arange(5), torch.zeros(2, 5))
    assert objective.weight(torch.arange(5)).tolist() == [0.0] * 5


def test_equal_models_weigh_every_example_a_half() -> None:
    objective = FailureObjective(Y, 3, 0.7, 0.6)
    objective.remember(torch.arange(5), torch.rand(5).add(0.1).expand(2, 5))
    torch.testing.assert_close(objective.weight(torch.arange(5)), torch.full((5,), 0.5))


def test_the_debiased_model_is_the_classifier_and_difficulty_is_kept() -> None:
    task, recipe = planted_task(64), Recipe("adam", 0.01, epochs=5)
    session = Session(task, lambda seeds: StackedLinear(8, 2, seeds), recipe)
    fitted = LfF().fit(session)
    assert fitted.stack.seeds == (derive_seed(0, "model", 1),)
    difficulty = fitted.artefacts["difficulty"]
    exception = task.train.attribute != task.train.y
    assert float(difficulty[exception].mean()) > 2 * float(difficulty[~exception].mean())


def test_the_reverse_of_the_shortcut_is_said_to_be_learned() -> None:
    """With the paper's q, on a task of two classes with an easy shortcut."""
    with pytest.warns(UserWarning, match="lower LfF's q, now 0.7"):
        fit(load_task("digits"), "lff", q=0.7)


@pytest.mark.parametrize("settings", [{"q": 0.0}, {"q": 1.5}, {"memory": 1.0}, {"memory": -0.1}])
def test_refuses_settings_out_of_range(settings: dict[str, float]) -> None:
    with pytest.raises(OptionError, match=next(iter(settings))):
        LfF(**settings)


def test_overcomes_the_shortcut() -> None:
    assert worst_on_digits("lff") > worst_on_digits("erm") + 0.2

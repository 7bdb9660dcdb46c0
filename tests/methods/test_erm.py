"""ERM against a plain loop of torch."""

import torch
from torch import nn
from torch.nn import functional as F
from toys import planted_task

from unrote.methods import METHODS, Session
from unrote.models import StackedLinear
from unrote.seeding import derive_seed
from unrote.training import Order, Recipe


def test_is_stochastic_gradient_descent_on_the_mean_cross_entropy() -> None:
    train = planted_task().train
    recipe = Recipe("sgd", 0.1, 0.01, momentum=0.9, batch_size=10, epochs=3)
    started: list[StackedLinear] = []

    def build(seeds: list[int]) -> StackedLinear:
        started.append(StackedLinear(8, 2, seeds, dtype=torch.float64))
        return StackedLinear(8, 2, seeds, dtype=torch.float64)

    fitted = METHODS["erm"]().fit(Session(planted_task(), build, recipe, seed=5))  # type: ignore[arg-type]
    model = nn.Linear(8, 2, dtype=torch.float64)
    model.weight = nn.Parameter(started[-1].weight[0])
    assert started[-1].bias is not None
    model.bias = nn.Parameter(started[-1].bias[0])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    x = train.x[torch.arange(len(train))].double()
    for index in Order(len(train), 10, derive_seed(5, "order", "train")).minibatches(0, 21):
        optimizer.zero_grad()
        F.cross_entropy(model(x[index]), train.y[index]).backward()
        optimizer.step()
    torch.testing.assert_close(fitted.stack.get_parameter("weight")[0], model.weight, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(fitted.logits(train.x), model(x).detach(), rtol=1e-9, atol=1e-12)


def test_makes_nothing_on_the_way() -> None:
    session = Session(planted_task(), lambda s: StackedLinear(8, 2, s), Recipe(epochs=1))
    assert METHODS["erm"]().fit(session).artefacts == {}

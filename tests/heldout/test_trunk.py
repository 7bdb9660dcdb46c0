"""Twins on the features of a network that nobody trains."""

import torch
from torch import Tensor, nn
from toys import planted_task

from unrote import evaluate, fit, held_out_logits
from unrote.heldout import trunk, xrm
from unrote.models import ModuleStack, Stack, StackedLinear
from unrote.training import Recipe

TASK = planted_task(400, seed=0)
X, Y = TASK.train.x.tensor, TASK.train.y
RECIPE = Recipe("adam", 0.01, batch_size=50, steps=60)


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))


def test_no_example_is_asked_of_the_twin_that_trained_on_it() -> None:
    held_out = trunk(X, Y, lambda seeds: ModuleStack(network, 2, seeds), n_classes=2).held_out()
    assert held_out.trained_on is not None
    assert held_out.predicted_by is not None
    assert bool((held_out.trained_on.sum(0) == 1).all())
    assert held_out.logits.shape == (400, 2)


def test_infer_the_groups_of_validation_examples() -> None:
    validation = TASK.validation
    assert validation is not None
    assert validation.attribute is not None
    twins = trunk(
        X,
        Y,
        lambda seeds: ModuleStack(network, 2, seeds),
        n_classes=2,
        validation=(validation.x, validation.y),
    )
    assert twins.validation_mistakes is not None
    minority = validation.attribute != validation.y
    assert float((twins.validation_mistakes[0].bool() == minority).float().mean()) > 0.95


def test_are_those_of_twins_on_standardised_features() -> None:
    built: list[ModuleStack] = []

    def build(seeds: list[int]) -> Stack:
        built.append(ModuleStack(network, 2, seeds))
        return built[-1]

    found = trunk(X, Y, build, n_classes=2, seed=3, recipe=RECIPE).held_out()
    (stack,) = built
    before = {name: value.clone() for name, value in stack.state_dict().items()}
    with torch.no_grad():
        features = stack.members[0][:2](X)
    features = (features - features.mean(0)) / features.std(0, correction=0).clamp_min(1e-6)

    def heads(seeds: list[int]) -> Stack:
        return StackedLinear(16, 2, seeds, init="zeros")

    wanted = xrm(features, Y, heads, RECIPE, n_classes=2, seeds=[3]).held_out()
    torch.testing.assert_close(found.logits, wanted.logits)
    assert all(torch.equal(value, before[name]) for name, value in stack.state_dict().items())


def test_shows_the_shortcut_and_mat_learns_what_holds() -> None:
    """As twins of the network's own kind do, at a fraction of the cost."""
    erm = fit(TASK, "erm", model=network, seed=0)
    mat = fit(TASK, "mat", temperature=0.1, held_out="trunk", model=network, seed=0)
    said = mat.artefacts["held_out"].logits.argmax(1)
    assert TASK.train.attribute is not None
    assert float((said == TASK.train.attribute).float().mean()) > 0.95
    worst: list[float] = [evaluate(one, TASK).worst_group.accuracy or 0.0 for one in (erm, mat)]
    assert worst[1] > worst[0] + 0.1


def test_from_plain_torch_the_start_may_be_pretrained() -> None:
    pretrained = network()

    def found(recipe: Recipe | None) -> Tensor:
        return held_out_logits(lambda: pretrained, (X, Y), method="trunk", recipe=recipe)

    assert float((found(None).argmax(1) == TASK.train.attribute).float().mean()) > 0.95
    assert not torch.equal(found(None), found(RECIPE))

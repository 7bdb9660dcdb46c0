"""LNL's gradients against its three players written apart, and that features lose the attribute."""

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from toys import assert_same_bits, planted_task

from unrote.api import evaluate, fit
from unrote.data import Split, Task
from unrote.errors import OptionError
from unrote.methods import METHODS, Groups, Session
from unrote.methods.lnl import Unlearning
from unrote.models import ModuleStack, Stack, StackedLinear, StackedMLP, small_cnn
from unrote.training import Batch, Recipe, train

Y = torch.tensor([0, 1, 0, 1, 1, 2])
A = torch.tensor([0, 1, 1, 0, 1, 0])
GROUPS = Groups(A, Y * 2 + A, 2, 6)
X = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
BATCH = Batch(torch.arange(6), X, 0, 0)


def gradients(loss: torch.Tensor, parameters: list[torch.Tensor]) -> list[torch.Tensor]:
    return list(torch.autograd.grad(loss, parameters, retain_graph=True))


@pytest.mark.parametrize("kind", [StackedMLP, StackedLinear])
def test_each_player_gets_its_own_gradient(kind: type[StackedMLP | StackedLinear]) -> None:
    model, objective = kind(4, 3, [0]), Unlearning(Y, GROUPS, 0.7, 0.2)
    objective.prepare(model, 6)
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in objective.parameters():
            parameter.normal_(generator=random)
    features, logits = (value[0] for value in model.features_and_logits(X))
    seen = features if kind is StackedMLP else logits
    read = seen @ objective.weight[0].T + objective.bias[0]
    p = read.softmax(1)
    reader = F.cross_entropy(read, A)
    classifier = F.cross_entropy(logits, Y) - 0.7 * reader + 0.2 * (p * p.log()).sum(1).mean()
    found = objective.loss(model, BATCH).sum()
    own = list(model.parameters())
    for one, other in zip(gradients(found, own), gradients(classifier, own), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)
    mine = objective.parameters()
    for one, other in zip(gradients(found, mine), gradients(reader, mine), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


@pytest.mark.usefixtures("gradients_derived")
def test_without_reversal_and_entropy_it_is_erm() -> None:
    task, recipe = planted_task(), Recipe("adam", 0.02, batch_size=16, steps=20)
    erm = fit(task, "erm", model="mlp", recipe=recipe)
    lnl = fit(task, "lnl", model="mlp", recipe=recipe, reversal=0.0, entropy=0.0)
    assert_same_bits(lnl.stack.state_dict(), erm.stack.state_dict())


def test_the_reader_learns_by_the_recipe() -> None:
    """Without reversal the reader is a plain logistic regression beside the classifier, by the same optimiser."""
    model, objective = StackedLinear(4, 3, [0]), Unlearning(Y, GROUPS, 0.0, 0.0)
    recipe = Recipe("sgd", 0.1, weight_decay=0.01, batch_size=None, steps=5)
    weight, bias = torch.zeros(2, 3, requires_grad=True), torch.zeros(2, requires_grad=True)
    optimizer = torch.optim.SGD([weight, bias], lr=0.1, momentum=0.9, weight_decay=0.01)
    copy = StackedLinear(4, 3, [0])
    own = torch.optim.SGD(copy.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    for _ in range(5):
        logits = copy(X)[0]
        reader = F.cross_entropy(logits.detach() @ weight.T + bias, A)
        for player, loss in ((optimizer, reader), (own, F.cross_entropy(logits, Y))):
            player.zero_grad()
            loss.backward()
        optimizer.step()
        own.step()
    train(model, X, objective, recipe)
    torch.testing.assert_close(objective.weight[0], weight)
    torch.testing.assert_close(objective.bias[0], bias)


def test_the_reader_and_its_momentum_are_saved(tmp_path: Path) -> None:
    task = planted_task()

    def run(steps: int, folder: Path | None) -> dict[str, torch.Tensor]:
        def build(seeds: object) -> Stack:
            return StackedMLP(8, 2, list(seeds))  # type: ignore[call-overload]

        session = Session(
            task.for_regime("train"),
            build,
            Recipe("adam", 0.02, batch_size=16, steps=steps),
            checkpoint_folder=folder,
            checkpoint_every=4,
        )
        return METHODS["lnl"](reversal=0.5).fit(session).stack.state_dict()  # type: ignore[call-arg]

    whole = run(12, tmp_path)
    for path in tmp_path.rglob("step-*12.*"):
        path.unlink()  # the newest is now that of step 8
    assert_same_bits(run(12, tmp_path), whole)
    assert_same_bits(run(12, None), whole)


def test_attributes_that_do_not_differ_are_refused() -> None:
    task = Task("one", train=Split(X, Y, torch.zeros(6, dtype=torch.long)))
    with pytest.raises(OptionError, match="at least two"):
        fit(task, "lnl", model="linear")


@pytest.mark.parametrize("setting", ["reversal", "entropy"])
def test_bad_settings_are_refused(setting: str) -> None:
    with pytest.raises(OptionError, match=setting):
        fit(planted_task(), "lnl", **{setting: -1.0})


def test_what_is_learned_is_told_from_what_is_given() -> None:
    assert StackedMLP(4, 3).learns_features
    assert not StackedLinear(4, 3).learns_features
    assert ModuleStack(lambda: small_cnn((1, 8, 8), 2), 2).learns_features
    assert not ModuleStack(lambda: nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), 2).learns_features


def test_the_worst_group_gains_on_erm() -> None:
    """A large feature goes with the class nine times in ten, a smaller one always."""

    def draw(n: int, alignment: float, seed: int) -> Split:
        random = torch.Generator().manual_seed(seed)
        y = torch.randint(2, (n,), generator=random)
        attribute = torch.where(torch.rand(n, generator=random) < alignment, y, 1 - y)
        x = torch.randn(n, 10, generator=random)
        x[:, 0] += 3.0 * (2 * attribute - 1)
        x[:, 1] += 1.5 * (2 * y - 1)
        return Split(x, y, attribute)

    task = Task("planted", train=draw(400, 0.9, 0), test=draw(2000, 0.5, 1))
    recipe = Recipe("adam", 3e-3, batch_size=100, steps=300)
    erm = evaluate(fit(task, "erm", model="mlp", recipe=recipe), task)
    lnl = evaluate(fit(task, "lnl", model="mlp", recipe=recipe, reversal=1.0), task)
    assert lnl.worst_group.accuracy > erm.worst_group.accuracy + 0.05

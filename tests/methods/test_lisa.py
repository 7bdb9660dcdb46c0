"""LISA's partners are of the kinds it says, its loss is that of the mixtures, and mixing helps the minority."""

from collections import Counter

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from toys import planted_task

from unrote.api import evaluate, fit
from unrote.data import Split, Task, as_inputs, load_task
from unrote.errors import OptionError
from unrote.methods import Groups
from unrote.methods.lisa import SelectiveMixing
from unrote.methods.mixing import Partners, beta_share
from unrote.models import ModuleStack, StackedLinear
from unrote.training import Batch, Recipe

Y = torch.tensor([0, 0, 0, 1, 1, 1, 0, 2])
A = torch.tensor([0, 0, 1, 1, 1, 0, 1, 2])  # class 2 and attribute 2 have each other only
GROUPS = Groups(A, Y * 3 + A, 3, 9)
X = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
ALL = Batch(torch.arange(8), X, 0, 0)


def mixing(within_class: float, seed: int = 0) -> SelectiveMixing:
    return SelectiveMixing(as_inputs(X), Y, GROUPS, within_class, 2.0, seed)


@pytest.mark.parametrize(
    ("within_class", "same", "other"), [(1.0, Y, A), (0.0, A, Y)], ids=["intra-label", "intra-domain"]
)
def test_partners_share_one_and_differ_in_the_other(
    within_class: float, same: torch.Tensor, other: torch.Tensor
) -> None:
    seen: dict[int, set[int]] = {i: set() for i in range(8)}
    for step in range(200):
        partner = mixing(within_class).partners(Batch(torch.arange(8), X, step, 0))
        for i, j in enumerate(partner.tolist()):
            seen[i].add(j)
    for i in range(7):
        wanted = {j for j in range(8) if same[j] == same[i] and other[j] != other[i]}
        assert seen[i] == wanted, f"partners of {i}"
    assert seen[7] == {7}, "one without a partner of either kind stays as it is"


def test_partners_of_the_other_kind_where_there_is_none_of_the_first() -> None:
    y, attribute = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 0, 0, 1])
    groups = Groups(attribute, 2 * y + attribute, 2, 4)
    objective = SelectiveMixing(as_inputs(X[:4]), y, groups, 1.0, 2.0, 0)
    partner = objective.partners(Batch(torch.arange(4), X[:4], 0, 0))
    # class 0 has one attribute, so its examples are paired with those of the other class and their attribute
    assert partner.tolist() == [2, 2, 3, 2]


def test_partners_are_equally_likely() -> None:
    random = torch.Generator().manual_seed(0)
    drawn = Partners(Y, A).draw(torch.zeros(6000, dtype=torch.long), torch.rand(6000, generator=random))
    count = Counter(drawn.tolist())
    assert count.keys() == {2, 6}
    assert abs(count[2] - 3000) < 200


def test_the_largest_chance_stays_in_bounds() -> None:
    nearly_one = torch.full((8,), 1 - 2**-24)
    partner = Partners(Y, A).draw(torch.arange(8), nearly_one)
    assert bool((Y[partner] == Y).all())


@pytest.mark.parametrize("n_members", [1, 2])
def test_the_loss_is_that_of_the_mixtures(n_members: int) -> None:
    model, objective = StackedLinear(3, 3, range(n_members)), mixing(0.5)
    share, partner = beta_share(2.0, 0, "lisa", "share", 0), objective.partners(ALL)
    assert 0 < share < 1
    logits = model(share * X + (1 - share) * X[partner])
    wanted = [
        share * F.cross_entropy(own, Y) + (1 - share) * F.cross_entropy(own, Y[partner]) for own in logits
    ]
    torch.testing.assert_close(objective.loss(model, ALL), torch.stack(wanted))


def test_token_indices_are_mixed_in_the_features() -> None:
    """The last layer is linear, so its output on mixed features is the mixture of its outputs."""
    tokens = torch.arange(8).unsqueeze(1) % 5
    embedding, head = nn.Embedding(5, 4), nn.Linear(4, 3)
    model = ModuleStack(lambda: nn.Sequential(embedding, nn.Flatten(), head), 3)
    objective = SelectiveMixing(as_inputs(tokens), Y, GROUPS, 0.5, 2.0, 0)
    share, partner = beta_share(2.0, 0, "lisa", "share", 0), objective.partners(ALL)
    features = embedding(tokens).flatten(1)
    logits = head(share * features + (1 - share) * features[partner])
    wanted = share * F.cross_entropy(logits, Y) + (1 - share) * F.cross_entropy(logits, Y[partner])
    found = objective.loss(model, Batch(torch.arange(8), tokens, 0, 0))
    torch.testing.assert_close(found[0], wanted)


def test_examples_without_partner_are_warned_of() -> None:
    y = torch.arange(16) % 2
    task = Task("aligned", train=Split(torch.randn(16, 2), y, y))
    with pytest.warns(UserWarning, match="16 training examples have no partner"):
        fit(task, "lisa", model="linear", recipe=Recipe(steps=3, batch_size=8))


@pytest.mark.parametrize("setting", [{"alpha": 0.0}, {"within_class": 1.5}], ids=lambda s: next(iter(s)))
def test_bad_settings_are_refused(setting: dict[str, float]) -> None:
    with pytest.raises(OptionError, match=next(iter(setting))):
        fit(planted_task(), "lisa", **setting)


def test_the_worst_group_gains_on_erm() -> None:
    task = load_task("digits", seed=0)
    recipe = Recipe("adam", 1e-3, epochs=20)
    worst = {
        method: evaluate(fit(task, method, recipe=recipe), task).worst_group.accuracy
        for method in ("erm", "lisa")
    }
    assert worst["lisa"] > worst["erm"] + 0.1

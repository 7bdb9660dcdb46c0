"""Twins on the features of a network that has only begun to learn."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest
import torch
from sklearn.metrics import balanced_accuracy_score
from torch import Tensor, nn
from toys import planted_task

from unrote import evaluate, fit, held_out_logits
from unrote.agreement import Agreement
from unrote.data import Split, Task
from unrote.heldout import XRMResult, begun, default_twins, first_steps, trunk, xrm
from unrote.heldout.trunk import ENOUGH, share_known
from unrote.methods import METHODS, shortcut_search
from unrote.methods.session import HeldOutSource, Session
from unrote.models import ModuleStack, Stack, StackedLinear, StackedMLP
from unrote.training import Recipe

TASK = planted_task(400, seed=0)
X, Y = TASK.train.x.tensor, TASK.train.y
RECIPE = Recipe("adam", 0.01, batch_size=50, steps=60)


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))


def test_no_example_is_asked_of_the_twin_that_trained_on_it() -> None:
    held_out = trunk(X, Y, ModuleStack(network, 2), n_classes=2).held_out()
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
        ModuleStack(network, 2),
        n_classes=2,
        validation=(validation.x, validation.y),
    )
    assert twins.validation_mistakes is not None
    minority = validation.attribute != validation.y
    assert float((twins.validation_mistakes[0].bool() == minority).float().mean()) > 0.95


def test_are_those_of_twins_on_standardised_features() -> None:
    stack = ModuleStack(network, 2)
    before = stack.snapshot()
    found = trunk(X, Y, stack, n_classes=2, seed=3, recipe=RECIPE).held_out()
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


def test_from_plain_torch() -> None:
    def found(method: str, factory: Callable[[], nn.Module] = network) -> Tensor:
        return held_out_logits(factory, (X, Y), method=method, recipe=RECIPE)  # type: ignore[arg-type]

    held_out = found("trunk")
    assert float((held_out.argmax(1) == TASK.train.attribute).float().mean()) > 0.95
    assert torch.equal(found("auto"), held_out)
    assert torch.equal(found("auto", lambda: nn.Linear(8, 2)), found("xrm", lambda: nn.Linear(8, 2)))


@pytest.mark.parametrize(
    ("n", "batch_size", "epochs", "wanted"),
    [
        (128_000, 128, 5, 1000),  # a pass
        (128_000, 128, 2, 500),  # a quarter of it all
        (3000, 128, 60, 100),  # four passes, for as many steps as a network needs at least
        (500, 128, 60, 32),  # eight passes
        (500, None, 1000, 32),  # likewise, as if in minibatches
        (10, 128, 1, 1),
    ],
)
def test_a_network_begins_by_a_pass(n: int, batch_size: int | None, epochs: int, wanted: int) -> None:
    first = first_steps(Recipe("sgd", 0.1, batch_size=batch_size, epochs=epochs), n)
    assert (first.steps, first.epochs, first.learning_rate) == (wanted, None, 0.1)


def test_begins_as_the_recipe_says_and_goes_on_from_a_checkpoint(tmp_path: Path) -> None:
    def session(folder: Path | None, recipe: Recipe = RECIPE) -> Session:
        return Session(TASK, lambda s: StackedMLP(8, 2, s, hidden=16), recipe, checkpoint_folder=folder)

    wanted = session(None).held_out("trunk").logits
    other = session(None, Recipe("sgd", 1.0, batch_size=50, steps=60)).held_out("trunk").logits
    assert not torch.equal(wanted, other)
    assert torch.equal(session(tmp_path).held_out("trunk").logits, wanted)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["begun", "trunk"]
    assert torch.equal(session(tmp_path).held_out("trunk").logits, wanted)


def test_a_network_with_fixed_features_stays_as_it_is() -> None:
    def frozen() -> nn.Module:
        module = network()
        for parameter in module[0].parameters():
            parameter.requires_grad_(False)
        return module

    def build(seeds: list[int]) -> Stack:
        return ModuleStack(frozen, 2, seeds)

    first, again = (begun(X, Y, build, RECIPE, n_classes=2, seed=seed).snapshot() for seed in (0, 0))
    untouched = build([0])
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not untouched.learns_features


class Headless(nn.Module):
    """A network without a last linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.out = nn.Linear(8, 6), nn.Conv1d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.hidden(x).relu().unsqueeze(-1)).squeeze(-1)


@pytest.mark.parametrize(
    ("build", "wanted"),
    [
        (lambda seeds: StackedLinear(8, 2, seeds), "xrm"),
        (lambda seeds: StackedMLP(8, 2, seeds, hidden=16), "trunk"),
        (lambda seeds: ModuleStack(network, 2, seeds), "trunk"),
        (lambda seeds: ModuleStack(Headless, 2, seeds), "xrm"),
    ],
)
def test_is_the_default_where_there_are_features(
    build: Callable[[list[int]], Stack], wanted: HeldOutSource
) -> None:
    session, named = (Session(TASK, build, RECIPE) for _ in range(2))
    assert torch.equal(session.held_out().logits, named.held_out(wanted).logits)
    assert list(session.artefacts) == [wanted]


def test_twins_that_are_at_hand_are_not_made_again() -> None:
    session = Session(TASK, lambda seeds: StackedMLP(8, 2, seeds, hidden=16), RECIPE)
    twins = session.xrm()
    assert torch.equal(session.held_out().logits, twins.held_out().logits)


VOCABULARY = 400


def words_task() -> Task:
    """Eight words of one half of the vocabulary or the other; which, agrees with the class 7 times in 8."""
    y = torch.arange(400) % 2
    attribute = torch.where(torch.arange(400) % 16 < 14, y, 1 - y)
    x = torch.randint(VOCABULARY // 2, (400, 8), generator=torch.Generator().manual_seed(0))
    return Task("words", train=Split(x + VOCABULARY // 2 * attribute.unsqueeze(1), y, attribute))


def word_vectors() -> nn.Module:
    """Vectors of words that begin at random, of which four numbers hold next to nothing."""
    return nn.Sequential(nn.EmbeddingBag(VOCABULARY, 4), nn.Linear(4, 2))


def words_session() -> Session:
    recipe = Recipe("adam", 0.05, batch_size=50, steps=100)
    return Session(words_task(), lambda seeds: ModuleStack(word_vectors, 2, seeds), recipe)


class TestWhereHeadsKnowTooLittle:
    def test_twins_are_networks(self) -> None:
        session = words_session()
        attribute = session.task.train.attribute
        assert attribute is not None
        found, heads = session.held_out(), session.held_out("trunk")
        assert (found.source, heads.source) == ("xrm", "trunk")
        assert torch.equal(found.logits, words_session().held_out("xrm").logits)
        assert float((found.logits.argmax(1) == attribute).float().mean()) > 0.95
        assert share_known(heads.logits, session.y) < ENOUGH / 2
        assert torch.equal(session.held_out().logits, found.logits)

    def test_likewise_from_plain_torch(self) -> None:
        session = words_session()
        x, y = session.task.train.x.tensor, session.y
        found = held_out_logits(word_vectors, (x, y), recipe=session.recipe)
        assert torch.equal(found, session.held_out().logits)

    @pytest.mark.parametrize("named", ["auto", "trunk"])
    def test_pairs_need_not_agree_with_the_heads(
        self, named: HeldOutSource, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """But where heads were asked for, it is their rule that has to be one."""
        asked = []

        def measured(*_: object, rule: Tensor | None, **__: object) -> tuple[Agreement, float]:
            asked.append(rule)
            return Agreement(0.0, 1.0), 0.0

        monkeypatch.setattr(shortcut_search, "measure_agreement", measured)
        session = words_session()
        METHODS["mat"](held_out=named).fit(session)  # type: ignore[call-arg]
        if named == "auto":
            assert asked == [None]
        else:
            assert torch.equal(asked[0], session.held_out("trunk").logits)


@pytest.mark.parametrize(
    ("heads", "networks", "wanted"),
    [(0.9, None, "trunk"), (0.7, 0.8, "xrm"), (0.7, 0.74, "trunk"), (0.7, 0.55, "trunk"), (None, 0.6, "xrm")],
)
def test_who_knows_more_is_asked_where_heads_know_little(
    heads: float | None, networks: float | None, wanted: str
) -> None:
    """Networks that there is no need for are not trained, and those that learn by heart are not believed."""
    y = torch.arange(200) % 2

    def right_about(share: float | None, source: Literal["xrm", "trunk"]) -> Callable[[], XRMResult]:
        def trained() -> XRMResult:
            assert share is not None
            said = torch.where(torch.arange(200) < 200 * share, y, 1 - y)
            logits = nn.functional.one_hot(said).float().unsqueeze(0)
            half, none = (torch.arange(200) < 100).unsqueeze(0), torch.zeros(1, 200, dtype=torch.long)
            return XRMResult(logits, half, said.unsqueeze(0), y, none, None, None, source=source)

        return trained

    found = default_twins(right_about(heads, "trunk") if heads else None, right_about(networks, "xrm"))
    assert found.source == wanted


def test_share_known_is_balanced_accuracy_less_chance() -> None:
    logits, y = torch.randn(200, 3), torch.randint(3, (200,)) % torch.randint(1, 4, (200,))
    wanted = balanced_accuracy_score(y, logits.argmax(1), adjusted=True)
    assert share_known(logits, y) == pytest.approx(wanted)
    assert share_known(nn.functional.one_hot(y).float(), y) == pytest.approx(1)

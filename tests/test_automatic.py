"""The choice made without group labels: its parts against independent computations, the whole on planted data."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import cohen_kappa_score, roc_auc_score
from torch import Tensor, nn
from torch.nn import functional as F
from toys import clusters, planted_task

from unrote import agreement as agreement_module
from unrote.agreement import Agreement, agreement, closest, measure_agreement
from unrote.automatic import (
    ERM,
    Chosen,
    Evidence,
    choose,
    cross_fit,
    delong,
    settings,
    shifts_of,
    weigh,
)
from unrote.data import Split, Task, load_task
from unrote.errors import OptionError
from unrote.figures.two_shortcuts import two_shortcuts
from unrote.heldout import HeldOut
from unrote.heldout.kfold import stratified_folds
from unrote.methods import METHODS, Fitted, Session
from unrote.methods.shortcut_search import NextRule, first_shortcut, next_rule
from unrote.models import Stack, StackedLinear, StackedMLP
from unrote.seeding import derive_seed
from unrote.shift import joint_shift
from unrote.training import Recipe


class TestAgreement:
    def test_is_cohens_kappa_where_there_is_one_class(self) -> None:
        random = torch.Generator().manual_seed(0)
        mistakes = torch.rand(3, 200, generator=random) < torch.tensor([0.2, 0.3, 0.4]).unsqueeze(1)
        mistakes[1, :50] = mistakes[0, :50]
        two = mistakes[:2]
        expected = cohen_kappa_score(two[0].numpy(), two[1].numpy())
        found = agreement(two, torch.zeros(200, dtype=torch.long))
        assert found.kappa == pytest.approx(expected)
        assert found.differ == pytest.approx(float((two[0] != two[1]).double().mean()))

    def test_is_one_for_the_same_exceptions(self) -> None:
        mistakes = (torch.arange(40) % 7 == 0).repeat(3, 1)
        found = agreement(mistakes, torch.arange(40) % 2)
        assert (found.kappa, found.differ) == (pytest.approx(1), 0)
        assert found.easy_rule

    def test_of_twins_that_always_say_one_class_is_none(self) -> None:
        y = torch.arange(40) % 2
        found = agreement((y == 1).repeat(3, 1), y)
        assert found == Agreement(0, 0)
        assert not found.easy_rule

    def test_the_closest_two_are_found(self) -> None:
        y = torch.arange(60) % 2
        mistakes = torch.stack([torch.arange(60) % k == 0 for k in (3, 4, 5, 6)])
        mistakes[3, :] = mistakes[1]
        mistakes[3, 7] = True
        found, first = closest(mistakes, y)
        assert first == 1
        assert found == agreement(mistakes[[1, 3]], y)
        assert found.differ == pytest.approx(1 / 60)

    def test_needs_two_pairs(self) -> None:
        with pytest.raises(OptionError, match="at least two pairs"):
            agreement(torch.zeros(1, 4, dtype=torch.bool), torch.zeros(4, dtype=torch.long))


def test_delong_against_all_pairs() -> None:
    random = np.random.default_rng(0)
    positive = random.random(60) < 0.4
    scores = [
        random.normal(size=60).round(1) + positive * shift for shift in (1.0, 0.3)
    ]  # rounded: with ties
    difference, error = delong(positive, *scores)
    assert difference == pytest.approx(
        roc_auc_score(positive, scores[0]) - roc_auc_score(positive, scores[1])
    )
    wins = [
        (s[positive][:, None] > s[~positive]) + 0.5 * (s[positive][:, None] == s[~positive]) for s in scores
    ]
    d = wins[0] - wins[1]
    variance = d.mean(1).var(ddof=1) / d.shape[0] + d.mean(0).var(ddof=1) / d.shape[1]
    assert error == pytest.approx(np.sqrt(variance))


class TestCrossFit:
    X, Y = clusters(60, seed=1)
    HELD_OUT = torch.randn(60, 2, generator=torch.Generator().manual_seed(1))
    RECIPE = Recipe("sgd", 0.1, momentum=0.0, batch_size=None, epochs=20)

    @staticmethod
    def build(seeds: Any) -> Stack:
        return StackedLinear(4, 2, seeds, dtype=torch.float64)

    def fit(self, **options: Any) -> Tensor:
        return cross_fit(
            self.X,
            self.Y,
            self.build,
            self.RECIPE,
            shifts_of([self.HELD_OUT], self.Y, settings((0.5,), (1.0,))),
            seed=3,
            **options,
        )

    def test_against_a_loop_by_hand(self) -> None:
        found = self.fit()
        assert found.shape == (2, 60, 2)
        fold = stratified_folds(self.Y, 2, derive_seed(3, "cross-fit"))
        for k, strength in enumerate((0.0, 1.0)):
            for f in range(2):
                start = self.build([derive_seed(3, "cross-fit", f)])
                model = nn.Linear(4, 2, dtype=torch.float64)
                model.weight = nn.Parameter(start.get_parameter("weight")[0])
                model.bias = nn.Parameter(start.get_parameter("bias")[0])
                optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
                seen = fold != f
                shift = strength * joint_shift([self.HELD_OUT], self.Y, 0.5)[seen]
                for _ in range(20):
                    optimizer.zero_grad()
                    F.cross_entropy(model(self.X[seen].double()) + shift, self.Y[seen]).backward()
                    optimizer.step()
                expected = model(self.X[~seen].double()).detach()
                torch.testing.assert_close(found[k, ~seen], expected, rtol=1e-5, atol=1e-6)

    def test_no_example_has_a_say_in_what_is_said_of_it(self) -> None:
        weight = torch.ones(60)
        weight[7] = 0
        with_it, without = self.fit(weight=torch.ones(60)), self.fit(weight=weight)
        torch.testing.assert_close(with_it[:, 7], without[:, 7])
        assert float((with_it - without).abs().max()) > 1e-4


AGREE = Agreement(1.0, 0.0)


def logits_for(prediction: Tensor, sure: float = 3.0) -> Tensor:
    return sure * F.one_hot(prediction, 2).float()


class TestVerdict:
    """Twins wrong on a tenth, and MAT as it would be after a shortcut, wrong labels, or hard examples."""

    N = 2000
    TRIED = settings((0.1,), (1.0,))

    def evidence(self, fixed: float, lost: float, agreed: Agreement = AGREE) -> tuple[Evidence, Chosen]:
        """MAT gets a share of the exceptions right, and loses a share of the rest; ERM is as the twins are."""
        random = torch.Generator().manual_seed(0)
        y = torch.arange(self.N) % 2
        exceptions = torch.rand(self.N, generator=random) < 0.1
        twins = torch.where(exceptions, 1 - y, y)
        draw = torch.rand(self.N, generator=random)
        changed = torch.where(exceptions, draw < fixed, draw < lost)
        mat = torch.where(changed, 1 - twins, twins)
        doubt = 1 + torch.rand(self.N, 1, generator=random)  # which says nothing
        held_out = logits_for(twins) * doubt
        cross_fitted = torch.stack([held_out, logits_for(mat)])
        found = weigh([held_out], cross_fitted, y, agreed, self.TRIED)
        return found, choose([held_out], cross_fitted, y, found, self.TRIED)

    def test_exceptions_that_can_be_learned(self) -> None:
        evidence, chosen = self.evidence(fixed=0.8, lost=0.15)
        assert evidence.shortcut
        assert evidence.gain == pytest.approx((0.8 - 0.15) / 2, abs=0.03)
        assert evidence.exceptions == pytest.approx(0.1, abs=0.02)
        assert (chosen.temperature, chosen.strength) == (0.1, 1.0)
        np.testing.assert_allclose(chosen.accuracy, [[1, 0], [0.85, 0.8]], atol=0.04)
        json.dumps(evidence.to_dict(), allow_nan=False)

    @pytest.mark.parametrize("changed", [0.1, 0.5, 0.9])
    def test_exceptions_that_are_noise(self, changed: float) -> None:
        """Some are got right by saying the opposite more often, and as many others are lost."""
        evidence, chosen = self.evidence(fixed=changed, lost=changed)
        assert not evidence.shortcut
        assert chosen.strength == 0

    @staticmethod
    def changed(
        twins: Tensor, exceptions: Tensor, fixed: float, lost: float, random: torch.Generator
    ) -> Tensor:
        """Predictions that differ from the twins' on a share of the exceptions, and on a share of the rest."""
        draw = torch.rand(len(twins), generator=random)
        return torch.where(torch.where(exceptions, draw < fixed, draw < lost), 1 - twins, twins)

    def weighed(self, exceptions: float, erm: tuple[float, float], mat: tuple[float, float]) -> Evidence:
        """The evidence where ERM and MAT each get a share of the exceptions right and lose a share of the rest."""
        random = torch.Generator().manual_seed(0)
        y = torch.arange(self.N) % 2
        odd = torch.rand(self.N, generator=random) < exceptions
        twins = torch.where(odd, 1 - y, y)
        said = [logits_for(self.changed(twins, odd, *one, random)) for one in (erm, mat)]
        held_out = logits_for(twins) * (1 + torch.rand(self.N, 1, generator=random))
        return weigh([held_out], torch.stack(said), y, AGREE, self.TRIED)

    def test_exceptions_told_apart_beyond_doubt_at_the_price_of_as_many_others(self) -> None:
        found = self.weighed(0.3, erm=(0.3, 0.05), mat=(0.6, 0.35))
        assert found.gain == pytest.approx(0, abs=0.03)
        assert found.excess_error is not None
        assert found.excess is not None
        assert found.excess / found.excess_error > 5
        assert found.p_worse_side < 1e-6
        assert found.shortcut

    def test_the_worse_side_must_gain(self) -> None:
        """As told apart as before, but ERM is good at them, and the rest pays for what they gain."""
        found = self.weighed(0.3, erm=(0.85, 0.05), mat=(0.9, 0.3))
        assert found.p_worse_side > 0.5
        assert not found.shortcut
        assert not found.open

    def test_more_of_the_exceptions_and_nothing_known_leaves_it_open(self) -> None:
        found = self.weighed(0.1, erm=(0.0, 0.0), mat=(0.4, 0.4))
        assert found.p_worse_side < 0.001
        assert found.open
        assert not found.shortcut
        assert not replace(found, agreement=Agreement(0.5, 0.1)).open

    def test_a_rule_that_says_nothing_of_the_class(self) -> None:
        found = self.weighed(0.5, erm=(0.5, 0.5), mat=(0.9, 0.1))
        assert found.p_value < 1e-6
        assert not found.says_something
        assert not found.shortcut

    def test_twins_that_do_not_agree(self) -> None:
        evidence, chosen = self.evidence(fixed=0.8, lost=0.15, agreed=Agreement(0.95, 0.03))
        assert evidence.p_value < 0.01
        assert not evidence.shortcut
        assert chosen.strength == 0

    def test_no_exceptions(self) -> None:
        y = torch.arange(50) % 2
        right = logits_for(y)
        evidence = weigh([right], torch.stack([right, right]), y, AGREE, self.TRIED)
        assert not evidence.shortcut
        chosen = choose([right], torch.stack([right, right]), y, evidence, self.TRIED)
        assert (chosen.temperature, chosen.strength) == ERM

    def test_false_alarms_are_as_rare_as_stated(self) -> None:
        """MAT that changes its mind at random: p below 0.05 at most that often."""
        random = torch.Generator().manual_seed(1)
        y = torch.arange(600) % 2
        alarms = 0
        for _ in range(100):
            twins = torch.where(torch.rand(600, generator=random) < 0.2, 1 - y, y)
            mat = torch.where(torch.rand(600, generator=random) < 0.4, 1 - twins, twins)
            held_out = logits_for(twins) * (1 + torch.rand(600, 1, generator=random))
            alarms += weigh(
                [held_out], torch.stack([held_out, logits_for(mat)]), y, AGREE, self.TRIED
            ).shortcut
        assert alarms <= 5


def test_many_examples_are_judged_by_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agreement_module, "ROWS", 100)
    sizes: list[int] = []

    def twins(x: Any, y: Tensor, *args: Any, **options: Any) -> Any:
        sizes.append(len(y))
        assert len(x) == len(y)
        assert int(y.sum()) == len(y) // 2
        return real(x, y, *args, **options)

    real = agreement_module.xrm
    monkeypatch.setattr(agreement_module, "xrm", twins)
    x, y = clusters(400, seed=2)
    measure_agreement(x, y, lambda s: StackedLinear(4, 2, s), Recipe(epochs=1), 2)
    assert sizes == [100]


def test_a_rule_of_models_of_another_kind_has_to_agree_with_the_pairs() -> None:
    task = planted_task(400, seed=0)
    attribute = task.train.attribute
    assert attribute is not None
    recipe = Recipe("adam", 1e-2, batch_size=50, epochs=20)

    def found(rule: Tensor | None) -> Agreement:
        held_out = None if rule is None else logits_for(rule)
        x, y = task.train.x, task.train.y
        return measure_agreement(x, y, lambda s: StackedLinear(8, 2, s), recipe, 2, rule=held_out)[0]

    assert found(None).easy_rule
    assert found(attribute) == found(None)
    tenth = torch.arange(400) % 10 == 0
    other = found(torch.where(tenth, 1 - attribute, attribute))
    assert other.differ == pytest.approx(0.1, abs=0.02)
    assert not other.easy_rule


def test_heads_of_a_network_have_to_agree_with_networks() -> None:
    task = planted_task(400, seed=0)
    session = Session(
        task, lambda seeds: StackedMLP(8, 2, seeds, hidden=16), Recipe("adam", 1e-2, batch_size=50, epochs=30)
    )
    heads = session.held_out()
    tenth = (torch.arange(400) % 10 == 0).unsqueeze(1)
    other = replace(heads, logits=torch.where(tenth, -heads.logits, heads.logits))

    def easy(held_out: HeldOut) -> bool:
        return first_shortcut(session, held_out, settings()).evidence.agreement.easy_rule

    assert easy(heads)
    assert not easy(other)
    # twins that are networks are of the pairs' own kind
    assert easy(replace(other, source="xrm"))


def mat(task: Any, recipe: Recipe, seed: int = 0, method: str = "mat", **settings: Any) -> Fitted:
    d = task.train.x.shape[0]
    return METHODS[method](**settings).fit(
        Session(task.for_regime("none"), lambda s: StackedLinear(d, 2, s), recipe, seed)
    )


def test_what_is_left_open_is_asked_again_with_more_of_the_examples(tmp_path: Path) -> None:
    """Wrong labels of an easy problem: twins agree, and MAT gets more of them right by saying the opposite."""
    x, y = clusters(400, seed=3, distance=4.0)
    y = torch.where(torch.rand(400, generator=torch.Generator().manual_seed(0)) < 0.1, 1 - y, y)
    session = Session(
        Task("easy", Split(x, y)),
        lambda seeds: StackedMLP(4, 2, seeds, hidden=32),
        Recipe("adam", 1e-2, epochs=100, batch_size=100),
        checkpoint_folder=tmp_path,
    )
    found = first_shortcut(session, session.held_out(), settings())
    assert found.evidence.agreement.easy_rule
    assert not found.evidence.shortcut
    assert (tmp_path / "cross-fit-0-2").exists()
    assert (tmp_path / "cross-fit-0-5").exists()


class TestNextRule:
    """In the setup with two spurious features, of which a speaks louder than b."""

    TASK = two_shortcuts(1000, 300, seed=1)
    RECIPE = Recipe("sgd", 1e-2, momentum=0.9, batch_size=None, steps=60)

    def find(self, *rules: Tensor) -> NextRule:
        session = Session(
            self.TASK.for_regime("none"), lambda s: StackedLinear(303, 2, s), self.RECIPE, seed=0
        )
        return next_rule(session, [logits_for(rule) for rule in rules], 0.1)

    def test_is_what_the_known_one_does_not_say(self) -> None:
        a, b = self.TASK.train.attribute // 2, self.TASK.train.attribute % 2
        for known, behind in ((a, b), (b, a)):
            found = self.find(known)
            assert found.clear
            assert torch.equal(found.logits.argmax(1), behind)
            assert found.exceptions == pytest.approx(float((behind != self.TASK.train.y).double().mean()))

    def test_is_not_clear_where_all_find_a_known_one_again(self) -> None:
        a, b = self.TASK.train.attribute // 2, self.TASK.train.attribute % 2
        assert not self.find(a, b).clear

    def test_is_learned_from_a_part_of_many_examples(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(agreement_module, "ROWS", 500)
        a, b = self.TASK.train.attribute // 2, self.TASK.train.attribute % 2
        assert torch.equal(self.find(a).logits.argmax(1), b)


class TestMAT:
    RECIPE = Recipe("sgd", 1e-2, momentum=0.9, batch_size=None, steps=150)

    def test_trains_against_a_shortcut(self) -> None:
        task = load_task("interpretable", n=400, noise_dims=600)
        fitted = mat(task, self.RECIPE, temperature="auto")
        chosen = fitted.artefacts["automatic"]
        assert chosen.evidence.shortcut
        assert chosen.strength > 0
        assert task.test is not None
        minority = task.test.attribute != task.test.y
        right = fitted.predict(task.test.x) == task.test.y
        assert float(right[minority].double().mean()) > 0.75
        assert float(right.double().mean()) > 0.85
        best = int(np.argmax(chosen.accuracy.min(1)))
        assert chosen.tried[best] == (chosen.temperature, chosen.strength)

    def test_finds_one_shortcut_behind_another_and_no_third(self) -> None:
        task = two_shortcuts(1000, 1500, seed=1)
        assert task.test is not None
        fitted = mat(task, self.RECIPE)
        chosen = fitted.artefacts["automatic"]
        assert chosen.shortcuts == len(fitted.artefacts["rules"]) == 2
        # each rule is what one of the two attributes speaks for
        a, b = task.train.attribute // 2, task.train.attribute % 2
        first, second = (rule.argmax(1) for rule in fitted.artefacts["rules"])
        assert torch.equal(first, a)
        assert torch.equal(second, b)
        assert [one.shortcut for one in chosen.behind] == [True, False]
        right = fitted.predict(task.test.x) == task.test.y
        both_fail = (task.test.attribute // 2 == task.test.attribute % 2) & (
            task.test.attribute % 2 != task.test.y
        )
        assert float(right[both_fail].double().mean()) > 0.7
        one = mat(task, self.RECIPE, shortcuts=1)
        missed = one.predict(task.test.x) == task.test.y
        assert float(missed[both_fail].double().mean()) < 0.4

    def test_trains_against_as_many_as_are_asked_for(self) -> None:
        task = two_shortcuts(500, 300, seed=1)
        fitted = mat(task, self.RECIPE, temperature=0.1, shortcuts=2)
        rules = fitted.artefacts["rules"]
        assert len(rules) == 2
        torch.testing.assert_close(fitted.artefacts["shift"], joint_shift(rules, task.train.y, 0.1))

    def test_is_erm_where_there_is_none(self) -> None:
        """Two classes that overlap, with a tenth of the labels changed."""
        random = torch.Generator().manual_seed(0)
        x, y = clusters(400, n_features=10, distance=0.4)
        wrong = torch.rand(400, generator=random) < 0.1
        from unrote.data import Split, Task

        task = Task("noisy", Split(x, torch.where(wrong, 1 - y, y)))
        auto, plain = mat(task, self.RECIPE, temperature="auto"), mat(task, self.RECIPE, method="erm")
        assert auto.artefacts["automatic"].strength == 0
        assert torch.equal(auto.logits(x), plain.logits(x))

    def test_strength_multiplies_the_shift(self) -> None:
        task = planted_task()
        h = np.random.default_rng(0).normal(size=(64, 2))
        whole, part = (
            mat(task, Recipe(epochs=1), held_out=h, strength=s).artefacts["shift"] for s in (1, 0.25)
        )
        torch.testing.assert_close(part, 0.25 * whole)

    def test_without_strength_is_erm(self) -> None:
        task = planted_task()
        none, plain = (
            mat(task, Recipe(epochs=2), held_out=np.eye(2)[task.train.y], strength=0),
            mat(task, Recipe(epochs=2), method="erm"),
        )
        torch.testing.assert_close(none.logits(task.train.x), plain.logits(task.train.x))

    def test_without_strength_nothing_is_chosen_where_there_is_a_shortcut_either(self) -> None:
        task = load_task("interpretable", n=400, noise_dims=600)
        none, plain = mat(task, self.RECIPE, strength=0), mat(task, self.RECIPE, method="erm")
        assert "automatic" not in none.artefacts
        torch.testing.assert_close(none.logits(task.train.x), plain.logits(task.train.x))

    def test_strength_is_the_most_that_may_be_chosen(self) -> None:
        task = load_task("interpretable", n=400, noise_dims=600)
        chosen = mat(task, self.RECIPE, temperature="auto", strength=0.5).artefacts["automatic"]
        assert {s for _, s in chosen.tried} == {0, 0.25, 0.5}
        own = mat(task, self.RECIPE, temperature=0.3, strength="auto").artefacts["automatic"]
        assert set(own.tried) == {ERM, (0.3, 0.5), (0.3, 1.0)}


@pytest.mark.usefixtures("shapes_unchecked")
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"temperature": "best"}, "temperature='best': a number or 'auto'"),
        ({"strength": 1.5}, "strength=1.5: a number from 0 to 1"),
        ({"strength": -0.1}, "strength=-0.1: a number from 0 to 1"),
        ({"strength": float("nan")}, "strength=nan"),
        ({"shortcuts": 0}, "shortcuts=0: at least 1"),
        ({"strength": "most"}, "strength='most': a number or 'auto'"),
    ],
)
def test_refuses(given: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        METHODS["mat"](**given)

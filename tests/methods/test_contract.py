"""What every registered method must hold, on one small planted task; a new method is tested by registering."""

import dataclasses
import functools
import itertools
import json
import random
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toys import assert_same_bits, differ, planted_task

import unrote.methods
from unrote.api import fit, make_method
from unrote.checkpoint import Checkpoints
from unrote.data import Split, Task
from unrote.errors import HiddenGroupsError, OptionError
from unrote.methods import METHODS, Fitted, Session
from unrote.models import Stack, StackedLinear
from unrote.training import Recipe

NAMES = METHODS.names()
GROUPED = [name for name in NAMES if METHODS[name].needs != "none"]
UNGROUPED = [name for name in NAMES if METHODS[name].needs == "none"]

# 3 examples of a third class, so that at least 3 of 6 minibatches have none of it
TASK = planted_task(48, rare=3)
RECIPE = Recipe("adam", 0.05, batch_size=8, epochs=2)

# on so small a task a method may warn that it found nothing to do
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def make_session(name: str, task: Task = TASK, *, regime: Any = None, **options: Any) -> Session:
    """A session in the weakest regime that a method can run in."""

    def build(seeds: Any) -> Stack:
        return StackedLinear(8, task.n_classes, seeds, dtype=torch.float64)

    shown = task.for_regime(regime or METHODS[name].needs)
    return Session(shown, build, **{"recipe": RECIPE, "seed": 3, **options})


def run(name: str, task: Task = TASK, **options: Any) -> Fitted:
    """Fit a method with its defaults."""
    return METHODS[name]().fit(make_session(name, task, **options))


first_run = functools.cache(run)  # what most tests look at or compare with


@pytest.mark.parametrize("name", NAMES)
class TestEveryMethod:
    @pytest.mark.usefixtures("shapes_unchecked")  # the checks draw from Python's generator themselves
    def test_repeats_bit_for_bit_and_neither_uses_nor_moves_global_generators(self, name: str) -> None:
        first = first_run(name)
        with torch.random.fork_rng():
            torch.manual_seed(12345)
            before = global_states()
            again = run(name)
            assert global_states() == before
        assert_same_bits(again.stack.state_dict(), first.stack.state_dict())
        assert again.training.history == first.training.history
        x = TASK.train.x
        assert torch.equal(again.logits(x), first.logits(x))

    def test_another_seed_gives_another_model(self, name: str) -> None:
        assert differ(run(name, seed=4).stack.state_dict(), first_run(name).stack.state_dict())

    def test_broken_runs_end_with_the_bits_of_an_unbroken_one(
        self, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Stopped after every second checkpoint, in every stage."""
        save, saves = Checkpoints.save, itertools.count(1)

        class Stopped(Exception):  # noqa: N818
            """Nothing in the package catches it."""

        def stop(self: Checkpoints, *rest: Any) -> None:
            save(self, *rest)
            if next(saves) % 2 == 0:
                raise Stopped

        monkeypatch.setattr(Checkpoints, "save", stop)
        broken, stops = None, 0
        while broken is None and stops < 100:
            try:
                broken = run(name, checkpoint_folder=tmp_path, checkpoint_every=3)
            except Stopped:
                stops += 1
        assert broken is not None
        assert stops >= 2
        first = first_run(name)
        assert_same_bits(broken.stack.state_dict(), first.stack.state_dict())
        assert broken.training.history == first.training.history
        assert torch.equal(broken.logits(TASK.train.x), first.logits(TASK.train.x))

    def test_a_class_absent_from_minibatches_is_harmless(self, name: str) -> None:
        fitted = first_run(name)
        assert fitted.training.diverged_at.tolist() == [-1]
        assert all(np.isfinite(record["loss"]).all() for record in fitted.training.history)
        assert all(bool(torch.isfinite(p).all()) for p in fitted.stack.parameters())
        assert bool(torch.isfinite(fitted.logits(TASK.train.x)).all())

    def test_gives_one_classifier_in_evaluation_mode(self, name: str) -> None:
        fitted = first_run(name)
        assert type(fitted.method) is METHODS[name]
        assert fitted.stack.n_members == 1
        assert not fitted.stack.training
        logits = fitted.logits(TASK.train.x)
        assert logits.shape == (48, 3)
        assert torch.equal(fitted.predict(TASK.train.x), logits.argmax(-1))

    def test_many_at_once_are_what_each_is_alone(self, name: str) -> None:
        """Two configurations with learning rates of their own; to float tolerance."""
        other = dataclasses.replace(RECIPE, learning_rate=0.02)
        kind = METHODS[name]
        together = kind.fit_many([kind(), kind()], [make_session(name), make_session(name, recipe=other)])
        for found, alone in zip(together, (first_run(name), run(name, recipe=other)), strict=True):
            assert found.stack.n_members == 1
            assert [r["step"] for r in found.training.history] == [r["step"] for r in alone.training.history]
            for key, value in alone.stack.state_dict().items():
                torch.testing.assert_close(found.stack.state_dict()[key], value, rtol=1e-6, atol=1e-8)

    def test_is_a_file_of_its_own(self, name: str) -> None:
        kind = METHODS[name]
        assert kind.__module__ == f"unrote.methods.{name.replace('-', '_')}"
        assert [other for other in NAMES if METHODS[other].__module__ == kind.__module__] == [name]
        assert import_module(kind.__module__).__doc__

    def test_is_a_frozen_dataclass_that_says_where_it_is_from(self, name: str) -> None:
        kind = METHODS[name]
        assert dataclasses.is_dataclass(kind)
        assert kind.__dataclass_params__.frozen  # type: ignore[attr-defined]
        assert kind.name == name
        assert kind.needs in ("none", "val", "train")
        assert re.search(r"\b(19|20)\d\d\b", kind.reference)

    def test_settings_can_be_written_down(self, name: str) -> None:
        settings = METHODS[name]().settings()
        assert json.loads(json.dumps(settings)) == settings
        fields = dataclasses.fields(METHODS[name])  # type: ignore[arg-type]
        assert settings.keys() == {"method", *(field.name for field in fields)}
        assert settings["method"] == name

    def test_searches_where_its_settings_are_valid(self, name: str) -> None:
        drawn = torch.Generator().manual_seed(0)
        for field in dataclasses.fields(METHODS[name]):  # type: ignore[arg-type]
            search = field.metadata.get("search")
            for _ in range(20 if search is not None else 0):
                value = search.sample(drawn)
                assert getattr(make_method(name, **{field.name: value}), field.name) == value

    def test_unknown_settings_are_refused(self, name: str) -> None:
        with pytest.raises(OptionError, match=f"method {name!r} has no setting 'temprature'"):
            make_method(name, temprature=1)


def global_states() -> tuple[Any, ...]:
    """Of the global generators of torch, numpy and Python."""
    kind, keys, *rest = np.random.get_state()  # noqa: NPY002
    return torch.get_rng_state().tolist(), random.getstate(), kind, np.asarray(keys).tolist(), rest


@pytest.mark.parametrize("name", GROUPED)
class TestMethodsThatNeedGroups:
    def test_are_refused_in_the_regime_without(self, name: str, tmp_path: Path) -> None:
        with pytest.raises(OptionError, match=f"{name!r} needs .*{METHODS[name].needs!r}.*not 'none'"):
            fit(TASK, name, regime="none", checkpoint=tmp_path / "c")
        assert not (tmp_path / "c").exists()

    def test_cannot_reach_hidden_groups(self, name: str) -> None:
        with pytest.raises(HiddenGroupsError, match="hidden in the annotation regime 'none'"):
            run(name, regime="none")

    def test_say_so_where_nobody_annotated_them(self, name: str) -> None:
        with pytest.raises(HiddenGroupsError, match="no group labels"):
            run(name, planted_task(48, rare=3, attributes=False))

    def test_depend_on_them(self, name: str) -> None:
        """A task in which every attribute of the splits that the method may use is another."""

        def other(split: Split | None) -> Split | None:
            return split and Split(split.x, split.y, torch.arange(len(split)) % 4 // 2)

        shuffled = dataclasses.replace(TASK, train=other(TASK.train), validation=other(TASK.validation))
        x = TASK.train.x
        assert not torch.equal(run(name, shuffled).logits(x), first_run(name).logits(x))


@pytest.mark.parametrize("name", UNGROUPED)
class TestMethodsWithoutGroups:
    def test_run_where_nobody_annotated_them_to_the_same_bits(self, name: str) -> None:
        plain = run(name, planted_task(48, rare=3, attributes=False))
        assert_same_bits(plain.stack.state_dict(), first_run(name).stack.state_dict())

    def test_do_not_look_at_those_that_they_could_see(self, name: str) -> None:
        seeing = run(name, regime="train")
        assert_same_bits(seeing.stack.state_dict(), first_run(name).stack.state_dict())


def test_every_file_registers_a_method_or_helps_one() -> None:
    """A file that registers nothing and that no other file uses is a method that nobody can ask for."""
    folder = Path(unrote.methods.__path__[0])
    texts = {path.stem: path.read_text() for path in folder.glob("*.py")}
    registered = {METHODS[name].__module__.rsplit(".", 1)[1] for name in NAMES}
    for stem in texts.keys() - registered - {"__init__"}:
        used = [other for other, text in texts.items() if f"unrote.methods.{stem} import" in text]
        assert used, f"methods/{stem}.py registers no method"


def test_those_that_must_be_there_are() -> None:
    assert {"erm", "mat", "rwg"} <= set(NAMES)

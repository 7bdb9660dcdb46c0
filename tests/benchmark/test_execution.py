"""What a run writes down against what one would count by hand."""

from typing import Any

import pytest
import torch
from benchmark_toys import shortcut_task

from unrote.benchmark.execution import Looks, execute, read_twins
from unrote.benchmark.runs import Run, can_stack, chunks
from unrote.data import Split, Task
from unrote.methods import METHODS, Session
from unrote.metrics import group_accuracy
from unrote.models import StackedLinear, stack_builder
from unrote.training import Recipe

TASK = shortcut_task()
RECIPE = {"optimizer": "adam", "learning_rate": 0.05, "weight_decay": 0.0, "batch_size": 32, "steps": 12}


def run(method: str = "erm", **changes: Any) -> Run:
    values: dict[str, Any] = {
        "kind": "twins" if method == "xrm" else "method",
        "label": "toy",
        "task": {},
        "model": "linear",
        "recipe": RECIPE,
        "evaluate_every": 4,
        "method": method,
        "settings": {},
        "groups": "true",
        "regime": "none" if method == "xrm" else METHODS[method].needs,
        "seed": 0,
        "order_seed": None,
        "twins": None,
        "code": "",
    }
    return Run(**{**values, **changes})


def twins(seed: int = 0) -> bytes:
    (outcome,) = execute([run("xrm", seed=seed)], TASK, {})
    assert outcome.artefact is not None
    return outcome.artefact


def accuracies(result: dict[str, Any], name: str) -> list[float]:
    """Of the last look."""
    return [k / n for k, n in zip(result["right"][name][-1], result["n"][name], strict=True)]


# DFR and RWG-with-head-fits change the classifier after the training that was looked at, ResMem is no stack at all
@pytest.mark.parametrize("method", ["erm", "rwg", "class_scaling", "dfr", "resmem", "groupdro", "crt", "lff"])
def test_the_last_look_is_of_the_classifier(method: str) -> None:
    (outcome,) = execute([run(method)], TASK, {})
    assert outcome.status == "done", outcome.error
    assert outcome.result is not None
    kind = METHODS[method]
    build = stack_builder("linear", (6,), 2)
    session = Session(TASK.for_regime(kind.needs), build, Recipe(**RECIPE))
    fitted = kind().fit(session)
    for name in ("validation", "test"):
        split = TASK.splits[name]
        right = fitted.predict(split.x) == split.y
        expected = group_accuracy(right, TASK.group(split), 4).tolist()
        assert accuracies(outcome.result, f"{name}.groups") == pytest.approx(expected)
        expected = group_accuracy(right, split.y, 2).tolist()
        assert accuracies(outcome.result, f"{name}.classes") == pytest.approx(expected)


def test_steps_of_what_is_trained_to_the_end_can_be_chosen_and_those_of_a_refitted_head_cannot() -> None:
    (plain,) = execute([run("erm")], TASK, {})
    (refitted,) = execute([run("dfr")], TASK, {})
    assert plain.result is not None
    assert refitted.result is not None
    assert plain.result["steps"] == [4, 8, 12]
    assert len(refitted.result["steps"]) == 1


def test_an_early_look_is_what_a_shorter_run_ends_with() -> None:
    (long,) = execute([run("erm")], TASK, {})
    (short,) = execute([run("erm", recipe={**RECIPE, "steps": 8})], TASK, {})
    assert long.result is not None
    assert short.result is not None
    assert {name: rows[1] for name, rows in long.result["right"].items()} == {
        name: rows[-1] for name, rows in short.result["right"].items()
    }


def test_members_of_a_stack_are_counted_by_their_own_twins() -> None:
    artefacts = {str(seed): twins(seed) for seed in (1, 2)}
    runs = [run("mat", seed=seed, order_seed=0, twins=str(seed)) for seed in (1, 2)]
    together = execute(runs, TASK, artefacts)
    for one, outcome in zip(runs, together, strict=True):
        (alone,) = execute([one], TASK, {one.twins or "": artefacts[one.twins or ""]})
        assert outcome.result == alone.result
        assert outcome.result is not None
        mistakes = read_twins(artefacts[one.twins or ""], TASK).validation_mistakes
        assert mistakes is not None
        assert TASK.validation is not None
        sizes = torch.bincount(2 * TASK.validation.y + mistakes[0], minlength=4).tolist()
        assert outcome.result["n"]["validation.inferred"] == sizes
        assert sum(outcome.result["right"]["validation.inferred"][-1]) == sum(
            outcome.result["right"]["validation.classes"][-1]
        )


def test_an_empty_group_has_no_examples_and_no_accuracy() -> None:
    assert TASK.test is not None
    keep = ((TASK.test.y != 0) | (TASK.test.attribute != 1)).nonzero().squeeze(1)
    task = Task("toy", TASK.train, TASK.validation, TASK.test.subset(keep))
    (outcome,) = execute([run("erm")], task, {})
    assert outcome.result is not None
    assert outcome.result["n"]["test.groups"][1] == 0


def test_training_cannot_see_what_its_regime_hides() -> None:
    (outcome,) = execute([run("groupdro", regime="val")], TASK, {})
    assert outcome.status == "failed"
    assert "hidden in the annotation regime 'val'" in (outcome.error or "")


def test_a_failure_keeps_what_was_raised_and_where() -> None:
    (outcome,) = execute([run("mat", settings={"temperature": -1.0})], TASK, {})
    assert outcome.status == "failed"
    assert outcome.error is not None
    assert outcome.error.startswith("OptionError: ")
    assert "Traceback" in outcome.error


def test_looks_leave_the_stack_in_its_mode() -> None:
    stack = StackedLinear(6, 2, (0,))
    stack.train()
    Looks(TASK, [None])(stack)
    assert stack.training


class TestChunks:
    def test_what_may_share_a_stack_does(self) -> None:
        runs = [run("erm", seed=s, order_seed=0) for s in range(5)] + [
            run("groupdro", seed=s) for s in range(2)
        ]
        runs.append(run("erm", order_seed=0, recipe={**RECIPE, "learning_rate": 0.1}, seed=9))
        runs.append(run("erm", order_seed=0, recipe={**RECIPE, "steps": 9}, seed=9))
        found = chunks(runs, limit=4)
        assert [len(chunk) for chunk in found] == [4, 2, 1, 1, 1]
        assert {one.key for chunk in found for one in chunk} == {one.key for one in runs}

    def test_which_methods_do(self) -> None:
        assert can_stack("mat", "linear")
        assert can_stack("xrm", "mlp")
        assert not can_stack("groupdro", "linear")
        assert not can_stack("mat", "cnn")


def test_a_split_without_attributes_has_classes_only() -> None:
    assert TASK.test is not None
    task = Task("toy", TASK.train, TASK.validation, Split(TASK.test.x, TASK.test.y))
    (outcome,) = execute([run("erm")], task, {})
    assert outcome.result is not None
    assert "test.groups" not in outcome.result["right"]
    assert "test.classes" in outcome.result["right"]


def test_overlapping_groups_are_counted_one_by_one() -> None:
    """An example in two groups counts in both, one in none in neither."""
    random = torch.Generator().manual_seed(0)

    def marked(split: Split) -> Split:
        membership = torch.rand(len(split), 3, generator=random) < 0.4
        return Split(split.x, split.y, split.attribute, membership=membership)

    assert TASK.validation is not None
    assert TASK.test is not None
    names = ("a", "b", "c")
    task = Task("toy", TASK.train, marked(TASK.validation), marked(TASK.test), overlapping_names=names)
    (outcome,) = execute([run("erm")], task, {})
    assert outcome.result is not None
    assert task.test is not None
    assert task.test.membership is not None
    session = Session(TASK.for_regime("none"), stack_builder("linear", (6,), 2), Recipe(**RECIPE))
    right = METHODS["erm"]().fit(session).predict(task.test.x) == task.test.y
    counted = [int(right[task.test.membership[:, g]].sum()) for g in range(3)]
    assert outcome.result["right"]["test.groups"][-1] == counted
    assert outcome.result["n"]["test.groups"] == task.test.membership.sum(0).tolist()

"""Group-using methods on groups that XRM or EIIL infers: nothing hidden is seen, the shortcut is overcome."""

from typing import Any

import pytest
import torch
from toys import planted_task, worst_on_digits

from unrote.api import fit
from unrote.data import Split, Task, load_task
from unrote.errors import HiddenGroupsError, OptionError
from unrote.methods import METHODS, Session
from unrote.methods.session import EIIL_SHARE
from unrote.models import StackedLinear
from unrote.training import Recipe

SOURCES: Any = pytest.mark.parametrize("groups", ["xrm", "eiil"])
TASK = planted_task(64)
RECIPE = Recipe("adam", 0.03, batch_size=16, epochs=20)


def session(groups: Any, task: Task = TASK) -> Session:
    return Session(task.for_regime("none"), lambda seeds: StackedLinear(8, 2, seeds), RECIPE, groups=groups)


@SOURCES
def test_rwg_needs_no_group_labels_with_inferred_groups(groups: Any) -> None:
    assert worst_on_digits("rwg", groups=groups) > worst_on_digits("erm") + 0.2


@SOURCES
def test_hidden_and_missing_attributes_make_no_difference(groups: Any) -> None:
    """A task whose attributes nobody annotated gives the same classifier as one that hides them."""
    plain = Task("planted", *(Split(split.x, split.y) for split in TASK.splits.values()))
    options: dict[str, Any] = {"groups": groups, "model": "linear", "recipe": RECIPE}
    hidden = fit(TASK, "rwg", regime="none", **options)
    unknown = fit(plain, "rwg", **options)
    assert torch.equal(hidden.logits(TASK.train.x), unknown.logits(TASK.train.x))


@SOURCES
def test_groups_are_the_class_and_the_inferred_attribute(groups: Any) -> None:
    run = session(groups)
    for found, split in (
        (run.training_groups(), TASK.train),
        (run.validation_groups(), TASK.splits["validation"]),
    ):
        assert found.n_attributes == 2
        assert found.count == 4
        assert torch.equal(found.index, 2 * split.y + found.attribute)
        # an inferred attribute says whether the shortcut holds, not which attribute it is
        assert torch.equal(found.attribute, (split.attribute != split.y).long())


def test_true_groups_stay_hidden() -> None:
    with pytest.raises(HiddenGroupsError, match="hidden in the annotation regime 'none'"):
        session("true").training_groups()


def test_eiils_reference_is_a_short_erm_made_once() -> None:
    run = session("eiil")
    run.training_groups()
    reference = run.artefacts[f"erm-{EIIL_SHARE:g}"]
    run.validation_groups()
    assert run.artefacts[f"erm-{EIIL_SHARE:g}"] is reference
    assert reference.history[-1]["step"] == round(EIIL_SHARE * 20) * 4


@SOURCES
@pytest.mark.parametrize("method", [name for name in METHODS.names() if not METHODS[name].uses_groups])
def test_methods_that_take_no_inferred_groups_refuse_them(method: str, groups: Any) -> None:
    with pytest.raises(
        OptionError, match=f"method '{method}' takes no inferred groups: leave groups='{groups}' out"
    ):
        fit(TASK, method, groups=groups)


@pytest.mark.usefixtures("shapes_unchecked")
def test_an_unknown_source_is_refused() -> None:
    with pytest.raises(OptionError, match="groups='guess': 'true', 'xrm' or 'eiil' is wanted"):
        fit(load_task("digits"), "rwg", groups="guess")  # type: ignore[arg-type]

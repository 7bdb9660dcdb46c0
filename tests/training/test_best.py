"""Early stopping against bookkeeping by hand, one member at a time."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toys import assert_same_bits

from unrote.errors import OptionError
from unrote.models import StackedLinear
from unrote.training import EarlyStopping
from unrote.training.best import BestMembers


def by_hand(scores: list[float], patience: int | None, maximize: bool) -> tuple[int, bool]:
    """The evaluation (from 1) whose parameters one member keeps, 0 for none, and whether it is done."""
    best, kept, stale = -math.inf, 0, 0
    for evaluation, score in enumerate(scores, 1):
        if patience is not None and stale == patience:
            break
        value = score if maximize else -score
        if value > best:
            best, kept, stale = value, evaluation, 0
        else:
            stale += 1
    return kept, patience is not None and stale == patience


def stack_filled_with(value: float, members: int) -> StackedLinear:
    stack = StackedLinear(2, 2, range(members))
    return fill(stack, value)


def fill(stack: StackedLinear, value: float) -> StackedLinear:
    with torch.no_grad():
        for p in stack.parameters():
            p.fill_(value)
    return stack


score = st.sampled_from([0.0, 0.25, 0.5, 1.0, -1.0, math.nan, math.inf])


@given(
    st.integers(1, 3).flatmap(lambda s: st.lists(st.lists(score, min_size=s, max_size=s), min_size=1)),
    st.one_of(st.none(), st.integers(1, 4)),
    st.booleans(),
)
def test_each_member_keeps_its_own_best(
    scores: list[list[float]], patience: int | None, maximize: bool
) -> None:
    """`scores` has a row per evaluation; at evaluation e every parameter is e, so 3 means "kept at the third"."""
    members = len(scores[0])
    stack = stack_filled_with(0.0, members)
    best = BestMembers(stack, EarlyStopping("score", patience, maximize))
    for evaluation, row in enumerate(scores, 1):
        fill(stack, float(evaluation))
        best.update({"score": torch.tensor(row), "other": torch.zeros(members)}, 10 * evaluation)
    wanted = [by_hand([row[m] for row in scores], patience, maximize) for m in range(members)]
    for member, (kept, _) in enumerate(wanted):
        assert int(best.step[member]) == (10 * kept if kept else -1)
        for value in best.parameters.values():
            assert bool((value[member] == kept).all())
    assert best.finished == all(done for _, done in wanted)


def test_state_goes_on_where_it_was() -> None:
    rule = EarlyStopping("score", patience=2)
    rows = [[0.1, 0.9], [0.3, 0.8], [0.2, 0.7], [0.4, 1.0], [0.1, 0.1], [0.1, 0.1]]
    straight = BestMembers(stack_filled_with(0.0, 2), rule)
    for evaluation, row in enumerate(rows[:3], 1):
        fill(straight.stack, float(evaluation))  # type: ignore[arg-type]
        straight.update({"score": torch.tensor(row)}, evaluation)
    resumed = BestMembers(stack_filled_with(0.0, 2), rule)
    resumed.load({name: value.clone() for name, value in straight.state().items()})
    for evaluation, row in enumerate(rows[3:], 4):
        for best in (straight, resumed):
            fill(best.stack, float(evaluation))  # type: ignore[arg-type]
            best.update({"score": torch.tensor(row)}, evaluation)
    assert_same_bits(resumed.state(), straight.state())
    assert straight.step.tolist() == [4, 1]
    assert resumed.finished


def test_unknown_metric_names_those_there_are() -> None:
    best = BestMembers(stack_filled_with(0.0, 1), EarlyStopping("worst"))
    with pytest.raises(OptionError, match="'worst', but the evaluation gives: accuracy, loss"):
        best.update({"loss": torch.zeros(1), "accuracy": torch.zeros(1)}, 1)


@pytest.mark.parametrize("patience", [0, -1])
def test_patience_is_at_least_one(patience: int) -> None:
    with pytest.raises(OptionError, match=f"patience={patience}"):
        EarlyStopping("score", patience)

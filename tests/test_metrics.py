"""Group metrics against loops over examples, textbook intervals and scipy's own exact test."""

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import binom, binomtest

from unrote.errors import DataError, OptionError
from unrote.metrics import clopper_pearson, group_accuracy, group_report, worst_group_accuracy

NAMES = ("landbird, land", "landbird, water", "waterbird, land", "waterbird, water")


def accuracy_by_loop(correct: np.ndarray, member: np.ndarray) -> list[float]:
    """One member's accuracy on each group, NaN where it is empty; `member` is (n, G)."""
    found = []
    for g in range(member.shape[1]):
        right = [bool(correct[i]) for i in range(len(correct)) if member[i, g]]
        found.append(sum(right) / len(right) if right else math.nan)
    return found


@st.composite
def scored_examples(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, int]:
    """Correct (S, n), group (n,), n_groups; groups may be empty."""
    members, n, n_groups = draw(st.integers(1, 4)), draw(st.integers(1, 30)), draw(st.integers(1, 6))
    correct = draw(arrays(bool, (members, n)))
    return correct, draw(arrays(np.int64, n, elements=st.integers(0, n_groups - 1))), n_groups


class TestGroupAccuracy:
    @given(scored_examples())
    def test_is_what_a_loop_counts(self, scored: tuple[np.ndarray, np.ndarray, int]) -> None:
        correct, group, n_groups = scored
        member = group[:, None] == np.arange(n_groups)
        wanted = [accuracy_by_loop(row, member) for row in correct]
        for how in (group, member):
            found = group_accuracy(torch.tensor(correct), torch.tensor(how), n_groups)
            np.testing.assert_allclose(found, wanted, rtol=1e-6)
        worst = worst_group_accuracy(torch.tensor(correct), torch.tensor(group), n_groups)
        np.testing.assert_allclose(worst, np.nanmin(wanted, axis=1), rtol=1e-6)

    @given(st.data())
    def test_overlapping_groups(self, data: st.DataObject) -> None:
        n, n_groups = data.draw(st.integers(1, 20)), data.draw(st.integers(1, 5))
        correct, member = data.draw(arrays(bool, n)), data.draw(arrays(bool, (n, n_groups)))
        found = group_accuracy(torch.tensor(correct), torch.tensor(member), n_groups)
        np.testing.assert_allclose(found, accuracy_by_loop(correct, member), rtol=1e-6)

    def test_one_member_has_no_member_dimension(self) -> None:
        found = group_accuracy(torch.tensor([True, False, True]), torch.tensor([0, 0, 2]), 4)
        np.testing.assert_array_equal(found, [0.5, math.nan, 1.0, math.nan])
        assert worst_group_accuracy(torch.tensor([True, False, True]), torch.tensor([0, 0, 2]), 4) == 0.5

    def test_worst_of_no_groups_is_nan(self) -> None:
        correct, nobody = torch.ones(2, 3, dtype=torch.bool), torch.zeros(3, 2, dtype=torch.bool)
        assert worst_group_accuracy(correct, nobody, 2).isnan().all()

    @pytest.mark.parametrize(
        ("group", "message"),
        [
            (torch.tensor([0, 1, 4]), "from 0 to 4: 0 to 3 are wanted for 4 groups"),
            (torch.tensor([0, -1, 2]), "from -1 to 2"),
            (torch.tensor([0, 1]), "2 rows for 3 predictions"),
            (torch.ones(3, 5, dtype=torch.bool), "5 columns for 4 groups"),
        ],
    )
    def test_refuses_wrong_groups(self, group: torch.Tensor, message: str) -> None:
        with pytest.raises(DataError, match=message):
            group_accuracy(torch.ones(2, 3, dtype=torch.bool), group, 4)


class TestClopperPearson:
    @pytest.mark.parametrize(
        ("successes", "n", "level", "low", "high"),
        [  # published tables of exact binomial limits, to four places
            (0, 10, 0.95, 0.0, 0.3085),
            (10, 10, 0.95, 0.6915, 1.0),
            (1, 10, 0.95, 0.0025, 0.4450),
            (5, 10, 0.95, 0.1871, 0.8129),
            (10, 100, 0.95, 0.0490, 0.1762),
            (0, 10, 0.90, 0.0, 0.2589),
        ],
    )
    def test_textbook_values(self, successes: int, n: int, level: float, low: float, high: float) -> None:
        found = clopper_pearson(successes, n, level)
        np.testing.assert_allclose(found, (low, high), atol=5e-5)

    @given(st.integers(1, 3000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
    def test_is_scipys_exact_interval(self, k_of_n: tuple[int, int]) -> None:
        wanted = binomtest(*k_of_n).proportion_ci(0.95, method="exact")
        np.testing.assert_allclose(clopper_pearson(*k_of_n), (wanted.low, wanted.high), rtol=1e-7)

    def test_arrays_broadcast(self) -> None:
        low, high = clopper_pearson(np.array([[0], [3]]), np.array([4, 5, 6]), 0.9)
        assert low.shape == high.shape == (2, 3)
        np.testing.assert_allclose((low[1, 2], high[1, 2]), clopper_pearson(3, 6, 0.9))

    def test_knows_nothing_without_trials(self) -> None:
        low, high = clopper_pearson([0, 0], [0, 5])
        assert (low[0], high[0]) == (0.0, 1.0)
        assert high[1] < 1

    @pytest.mark.parametrize("p", [0.03, 0.5, 0.88])
    def test_covers_at_least_as_often_as_it_says(self, p: float) -> None:
        k = np.arange(41)
        low, high = clopper_pearson(k, 40, 0.9)
        assert binom.pmf(k, 40, p)[(low <= p) & (p <= high)].sum() >= 0.9

    @pytest.mark.parametrize(("successes", "n"), [(11, 10), (-1, 10), (math.nan, 10), ([0, 3], [1, 2])])
    def test_refuses_impossible_counts(self, successes: Any, n: Any) -> None:
        with pytest.raises(DataError, match="successes in"):
            clopper_pearson(successes, n)

    @pytest.mark.parametrize("level", [0, 1, 95, math.nan])
    def test_refuses_impossible_levels(self, level: float) -> None:
        with pytest.raises(OptionError, match="between 0 and 1"):
            clopper_pearson(1, 2, level)


# 4 groups of sizes 5, 2, 0 and 3, with 4, 1, - and 1 right
Y = np.array([0] * 7 + [1] * 3)
GROUP = np.array([0] * 5 + [1] * 2 + [3] * 3)
PREDICTIONS = np.array([0, 0, 0, 0, 1, 0, 1, 1, 0, 0])
TRAIN_COUNTS = (3498, 184, 56, 1057)


class TestGroupReport:
    def test_numbers_worked_out_by_hand(self) -> None:
        report = group_report(Y, PREDICTIONS, GROUP, NAMES, TRAIN_COUNTS)
        assert [(one.name, one.n, one.accuracy) for one in report.groups] == [
            (NAMES[0], 5, 0.8),
            (NAMES[1], 2, 0.5),
            (NAMES[2], 0, None),
            (NAMES[3], 3, 1 / 3),
        ]
        assert report.groups[2].interval is None
        assert report.worst_group is report.groups[3]
        wanted = binomtest(1, 3).proportion_ci(0.95, method="exact")
        assert report.worst_group.interval == pytest.approx((wanted.low, wanted.high))
        assert (report.n, report.average) == (10, 0.6)
        assert report.group_mean == pytest.approx((0.8 + 0.5 + 1 / 3) / 3)
        # the group that the test does not have gives its weight to the others
        weighted = (3498 * 0.8 + 184 * 0.5 + 1057 / 3) / (3498 + 184 + 1057)
        assert report.reweighted_average == pytest.approx(weighted)
        assert [(one.name, one.n, one.accuracy) for one in report.class_accuracy] == [
            ("0", 7, 5 / 7),
            ("1", 3, 1 / 3),
        ]

    @given(scored_examples(), st.data())
    def test_averages_are_what_a_loop_counts(
        self, scored: tuple[np.ndarray, np.ndarray, int], data: st.DataObject
    ) -> None:
        correct, group, n_groups = scored[0][0], scored[1], scored[2]
        counts = data.draw(st.lists(st.integers(0, 50), min_size=n_groups, max_size=n_groups))
        y = data.draw(arrays(np.int64, len(group), elements=st.integers(0, 2)))
        names = [f"group {g}" for g in range(n_groups)]
        report = group_report(y, np.where(correct, y, y + 1), group, names, counts)

        by_group = accuracy_by_loop(correct, group[:, None] == np.arange(n_groups))
        present = [g for g in range(n_groups) if not math.isnan(by_group[g])]
        assert report.average == pytest.approx(correct.mean())
        assert report.group_mean == pytest.approx(sum(by_group[g] for g in present) / len(present))
        assert report.worst_group.accuracy == pytest.approx(min(by_group[g] for g in present))
        total = sum(counts[g] for g in present)
        weighted = sum(counts[g] * by_group[g] for g in present) / total if total else None
        assert report.reweighted_average == (None if weighted is None else pytest.approx(weighted))
        for c, one in enumerate(report.class_accuracy):
            of_class = correct[y == c]
            assert one.accuracy == (pytest.approx(of_class.mean()) if len(of_class) else None)

    @given(scored_examples())
    def test_own_group_shares_give_the_plain_average(
        self, scored: tuple[np.ndarray, np.ndarray, int]
    ) -> None:
        correct, group, n_groups = scored[0][0], scored[1], scored[2]
        counts = np.bincount(group, minlength=n_groups)
        names = [str(g) for g in range(n_groups)]
        report = group_report(np.ones_like(group), correct.astype(int), group, names, counts)
        assert report.reweighted_average == pytest.approx(report.average)

    def test_membership_says_the_same_as_indices(self) -> None:
        member = np.arange(4) == GROUP[:, None]
        by_index = group_report(Y, PREDICTIONS, GROUP, NAMES, TRAIN_COUNTS)
        assert group_report(Y, PREDICTIONS, member, NAMES, TRAIN_COUNTS) == by_index

    def test_an_example_may_be_in_several_groups_or_none(self) -> None:
        member = np.array([[True, True], [True, False], [False, False], [False, False]])
        report = group_report([0, 0, 1, 1], [0, 1, 1, 0], member, ("male", "other religions"))
        assert [(one.n, one.accuracy) for one in report.groups] == [(2, 0.5), (1, 1.0)]
        assert report.average == 0.5

    def test_tensors_and_lists_are_as_good_as_arrays(self) -> None:
        wanted = group_report(Y, PREDICTIONS, GROUP, NAMES, TRAIN_COUNTS)
        tensors = (torch.tensor(Y), torch.tensor(PREDICTIONS), torch.tensor(GROUP))
        assert group_report(*tensors, NAMES, torch.tensor(TRAIN_COUNTS)) == wanted
        assert group_report(Y.tolist(), PREDICTIONS.tolist(), GROUP.tolist(), NAMES, TRAIN_COUNTS) == wanted

    def test_higher_level_widens_every_interval(self) -> None:
        narrow, wide = (group_report(Y, PREDICTIONS, GROUP, NAMES, level=level) for level in (0.5, 0.99))
        for inner, outer in zip(narrow.groups, wide.groups, strict=True):
            if inner.interval is not None and outer.interval is not None:
                assert outer.interval[0] < inner.interval[0] < inner.interval[1] < outer.interval[1]

    def test_without_training_counts_there_is_no_reweighted_average(self) -> None:
        assert group_report(Y, PREDICTIONS, GROUP, NAMES).reweighted_average is None

    def test_groups_never_trained_on_have_no_reweighted_average(self) -> None:
        assert group_report(Y, PREDICTIONS, GROUP, NAMES, (0, 0, 56, 0)).reweighted_average is None

    def test_absent_class_is_listed_when_named(self) -> None:
        report = group_report(Y, PREDICTIONS, GROUP, NAMES, class_names=("landbird", "waterbird", "bat"))
        assert [(one.name, one.n) for one in report.class_accuracy] == [
            ("landbird", 7),
            ("waterbird", 3),
            ("bat", 0),
        ]

    def test_record_survives_json_without_nan(self) -> None:
        record = group_report(Y, PREDICTIONS, GROUP, NAMES).to_dict()
        assert json.loads(json.dumps(record, allow_nan=False)) == record
        assert record["groups"][2] == {"name": NAMES[2], "n": 0, "accuracy": None, "interval": None}
        assert record["reweighted_average"] is None
        assert record["worst_group"]["name"] == NAMES[3]

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"y": []}, "y "),
            ({"y": np.array([], int)}, "y is empty: at least one"),
            ({"y": Y[:9]}, "predictions has 10 entries, y has 9"),
            ({"y": Y.astype(float)}, "y has type float64: integers"),
            ({"y": Y - 1}, "y has -1 in row 0, but there are 1 class names"),
            ({"y": ["cat"] * 10}, "encode them first"),
            ({"predictions": np.zeros((10, 2))}, "predictions has shape .10, 2.*argmax"),
            ({"group": GROUP[:9]}, "group has 9 entries, y has 10"),
            ({"group": GROUP + 1}, "group has 4 in row 7, but there are 4 group names.*0 to 3 are wanted"),
            ({"group": np.ones((10, 3), bool)}, "membership matrix of 10 examples by 4 named groups"),
            ({"group": np.ones((10, 4), int)}, "astype.bool"),
            ({"group": np.zeros((10, 4), bool)}, "no example is in any group"),
            ({"train_group_counts": (1, 2, 3)}, "4 numbers of at least 0"),
            ({"train_group_counts": (1, 2, 3, -4)}, "4 numbers of at least 0"),
            ({"train_group_counts": (1, 2, 3, math.inf)}, "4 numbers of at least 0"),
            ({"class_names": ("landbird",)}, "y has 1 in row 7, but there are 1 class names .landbird."),
        ],
    )
    def test_refuses_what_cannot_be_scored(self, change: dict[str, Any], message: str) -> None:
        given_: dict[str, Any] = {"y": Y, "predictions": PREDICTIONS, "group": GROUP, "group_names": NAMES}
        with pytest.raises(DataError, match=message):
            group_report(**(given_ | change))

    def test_refuses_an_impossible_level(self) -> None:
        with pytest.raises(OptionError, match="level 95"):
            group_report(Y, PREDICTIONS, GROUP, NAMES, level=95)

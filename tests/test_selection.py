from typing import Any

import pytest

from unrote.errors import DataError, OptionError, UnknownNameError
from unrote.selection import CRITERIA, Counts, Trial, check_criterion, choose, choose_twins


def look(**tables: tuple[list[int], list[int]]) -> dict[str, Counts]:
    names = {"groups": "validation.groups", "inferred": "validation.inferred", "test": "test.groups"}
    names |= {"classes": "validation.classes", "test_classes": "test.classes"}
    return {names[key]: Counts(tuple(right), tuple(n)) for key, (right, n) in tables.items()}


class TestCounts:
    def test_an_empty_group_is_missing_and_never_the_worst(self) -> None:
        counts = Counts((8, 0, 5), (10, 0, 10))
        assert counts.accuracy == (0.8, None, 0.5)
        assert counts.worst == 0.5

    def test_without_examples_there_is_nothing(self) -> None:
        assert Counts((0, 0), (0, 0)).worst is None
        assert Counts((), ()).total is None

    def test_total_counts_examples_not_groups(self) -> None:
        assert Counts((90, 0), (90, 10)).total == 0.9


class TestRegimes:
    @pytest.mark.parametrize("regime", ["val", "train"])
    def test_true_groups_where_they_are(self, regime: str) -> None:
        assert check_criterion("worst_group", regime).subsets == "validation.groups"

    def test_no_true_groups_without_them(self) -> None:
        with pytest.raises(OptionError, match="'none' does not have: take 'worst_group_inferred'"):
            check_criterion("worst_group", "none")

    @pytest.mark.parametrize("name", ["worst_group_inferred", "worst_class", "average"])
    def test_the_others_everywhere(self, name: str) -> None:
        for regime in ("none", "val", "train"):
            assert check_criterion(name, regime).name == name

    @pytest.mark.parametrize("regime", ["none", "val", "train"])
    def test_the_oracle_nowhere(self, regime: str) -> None:
        with pytest.raises(OptionError, match="looks at the test split"):
            check_criterion("oracle", regime)

    def test_flip_rate_chooses_twins_only(self) -> None:
        with pytest.raises(OptionError, match="XRM's twins"):
            check_criterion("flip_rate", "none")
        with pytest.raises(DataError, match="choose_twins"):
            choose([], CRITERIA["flip_rate"])

    def test_unknown(self) -> None:
        with pytest.raises(UnknownNameError, match="did you mean 'worst_group'"):
            check_criterion("worst_gruop", "val")
        with pytest.raises(OptionError, match="regime 'test'"):
            check_criterion("average", "test")


A = look(
    groups=([9, 4], [10, 10]),
    inferred=([7, 7], [10, 10]),
    classes=([13, 5], [16, 4]),
    test=([5, 9], [10, 10]),
)
B = look(
    groups=([6, 6], [10, 10]),
    inferred=([2, 9], [10, 10]),
    classes=([10, 2], [16, 4]),
    test=([8, 8], [10, 10]),
)
C = look(
    groups=([9, 5], [10, 10]),
    inferred=([5, 9], [10, 10]),
    classes=([15, 3], [16, 4]),
    test=([9, 0], [10, 10]),
)


class TestChoose:
    @pytest.mark.parametrize(
        ("criterion", "trial", "step", "score"),
        [
            ("worst_group", 0, 1, 0.6),
            ("worst_group_inferred", 0, 0, 0.7),
            ("worst_class", 0, 0, 13 / 16),
            ("average", 0, 0, 0.9),
            ("oracle", 0, 1, 0.8),
        ],
    )
    def test_each_criterion_reads_its_own_table(
        self, criterion: str, trial: int, step: int, score: float
    ) -> None:
        chosen = choose([Trial([A, B]), Trial([C])], CRITERIA[criterion])
        assert chosen is not None
        assert (chosen.trial, chosen.look) == (trial, step)
        assert chosen.score == pytest.approx(score)

    def test_test_labels_have_no_say_but_the_oracles(self) -> None:
        for name in ("worst_group", "worst_group_inferred", "worst_class", "average"):
            blind = [{k: v for k, v in one.items() if not k.startswith("test")} for one in (A, B, C)]
            seen = choose([Trial([A, B]), Trial([C])], CRITERIA[name])
            assert choose([Trial(blind[:2]), Trial(blind[2:])], CRITERIA[name]) == seen

    def test_ties_go_to_the_larger_accuracy_then_to_the_earlier(self) -> None:
        low = look(groups=([5, 9], [10, 10]), classes=([12], [20]))
        high = look(groups=([5, 7], [10, 10]), classes=([14], [20]))
        chosen = choose([Trial([low]), Trial([low, high]), Trial([high])], CRITERIA["worst_group"])
        assert chosen is not None
        assert (chosen.trial, chosen.look) == (1, 1)

    def test_a_diverged_trial_is_never_taken(self) -> None:
        chosen = choose([Trial([B], diverged=True), Trial([A])], CRITERIA["worst_group"])
        assert chosen is not None
        assert chosen.trial == 1
        assert choose([Trial([B], diverged=True)], CRITERIA["worst_group"]) is None

    def test_without_the_table_there_is_no_choice(self) -> None:
        assert choose([Trial([look(classes=([1], [2]))])], CRITERIA["worst_group"]) is None
        empty: list[Any] = []
        assert choose([Trial(empty)], CRITERIA["average"]) is None


class TestChooseTwins:
    def test_the_largest_flip_rate_the_first_of_equals(self) -> None:
        assert choose_twins([0.1, 0.3, 0.3, None]) == 1

    def test_lost_runs_do_not_count(self) -> None:
        assert choose_twins([None, float("nan"), 0.0]) == 2
        assert choose_twins([None, float("nan")]) is None

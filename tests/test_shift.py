"""The logit shift against fractions worked out by hand, and the identities that pin it down."""

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from unrote.errors import DataError, OptionError
from unrote.shift import FLOOR, balancing_weight, confusion, group_shift, joint_shift, logit_shift


def shift_by_fractions(q: list[list[Fraction]], y: list[int]) -> list[list[float]]:
    """DESIGN.md's formula in exact arithmetic, up to the logarithm at the end."""
    n, classes = len(q), range(len(q[0]))
    joint = [
        [sum((q[i][k] for i in range(n) if y[i] == c), Fraction(0)) / n for c in classes] for k in classes
    ]
    said = [sum(row, Fraction(0)) for row in joint]
    table = [[joint[k][c] / said[k] if said[k] else Fraction(0) for c in classes] for k in classes]
    p = [[sum((q[i][k] * table[k][c] for k in classes), Fraction(0)) for c in classes] for i in range(n)]
    return [[math.log(float(value) + 1e-6) for value in row] for row in p]


def logits_of(q: list[list[Fraction]], temperature: float) -> Tensor:
    """Logits whose softmax at that temperature is q."""
    return (
        temperature * torch.tensor([[float(value) for value in row] for row in q], dtype=torch.float64).log()
    )


def thirds(*rows: tuple[int, ...]) -> list[list[Fraction]]:
    return [[Fraction(value, sum(row)) for value in row] for row in rows]


class TestFormula:
    def test_two_classes_by_hand(self) -> None:
        """q = (3/4, 1/4) for both examples of class 0, (1/4, 3/4) and (1/2, 1/2) for those of class 1.

        J[0] = (6/4, 3/4) / 4 and J[1] = (2/4, 5/4) / 4, so P[0] = (2/3, 1/3) and P[1] = (2/7, 5/7).
        """
        q = torch.tensor([[0.75, 0.25], [0.75, 0.25], [0.25, 0.75], [0.5, 0.5]], dtype=torch.float64)
        y = torch.tensor([0, 0, 1, 1])
        p = torch.tensor([[2 / 3, 1 / 3], [2 / 7, 5 / 7]], dtype=torch.float64)
        torch.testing.assert_close(confusion(q, y), p, rtol=1e-14, atol=0)
        # 3/4 * 2/3 + 1/4 * 2/7 = 4/7,  1/4 * 2/3 + 3/4 * 2/7 = 8/21,  1/2 * 2/3 + 1/2 * 2/7 = 10/21
        zero = torch.tensor([4 / 7, 4 / 7, 8 / 21, 10 / 21], dtype=torch.float64)
        wanted = torch.stack([zero, 1 - zero], dim=1).add(1e-6).log()
        for temperature in (0.1, 1.0, 3.0):
            torch.testing.assert_close(
                logit_shift(temperature * q.log(), y, temperature), wanted, rtol=1e-12, atol=0
            )

    @pytest.mark.parametrize(
        ("q", "y"),
        [
            (thirds((3, 1), (1, 3), (1, 1), (9, 1)), [0, 1, 1, 0]),
            (thirds((3, 1, 2), (1, 3, 1), (1, 1, 1), (9, 1, 90), (1, 2, 3)), [0, 1, 2, 0, 1]),
            (thirds((3, 1, 2), (1, 3, 1), (1, 1, 5), (9, 1, 90)), [0, 2, 2, 0]),  # nobody is of class 1
            (thirds((1, 2, 1), (5, 1, 1)), [1, 1]),  # all are
        ],
        ids=["two classes", "three classes", "a class absent", "a class alone"],
    )
    @pytest.mark.parametrize("temperature", [0.01, 1.0, 7.0])
    def test_is_that_of_exact_arithmetic(self, q: Any, y: list[int], temperature: float) -> None:
        found = logit_shift(logits_of(q, temperature), torch.tensor(y), temperature)
        np.testing.assert_allclose(found, shift_by_fractions(q, y), rtol=1e-11)

    @given(st.integers(0, 2**32), st.integers(1, 12), st.integers(2, 5), st.floats(0.05, 20))
    def test_is_that_of_loops(self, seed: int, n: int, n_classes: int, temperature: float) -> None:
        random = np.random.default_rng(seed)
        h, y = random.normal(size=(n, n_classes)), random.integers(n_classes, size=n)
        q = np.exp(h / temperature) / np.exp(h / temperature).sum(1, keepdims=True)
        wanted = np.zeros((n, n_classes))
        for c in range(n_classes):
            for k in range(n_classes):
                among = sum(q[i, k] for i in range(n) if y[i] == c) / sum(q[i, k] for i in range(n))
                wanted[:, c] += q[:, k] * among
        found = logit_shift(torch.from_numpy(h), torch.from_numpy(y), temperature)
        np.testing.assert_allclose(found, np.log(wanted + FLOOR), rtol=1e-8)

    def test_a_sequence_of_temperatures_gives_one_shift_each(self) -> None:
        h, y = torch.randn(9, 3), torch.arange(9) % 3
        temperatures = (0.01, 0.5, 8.0)
        together = logit_shift(h, y, temperatures)
        assert together.shape == (3, 9, 3)
        for shift, temperature in zip(together, temperatures, strict=True):
            torch.testing.assert_close(shift, logit_shift(h, y, temperature))

    def test_no_gradient_flows_through_it(self) -> None:
        h = torch.randn(6, 2, requires_grad=True)
        assert not logit_shift(h, torch.arange(6) % 2).requires_grad

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_keeps_the_type_of_the_logits(self, dtype: torch.dtype) -> None:
        assert logit_shift(torch.randn(6, 2, dtype=dtype), torch.arange(6) % 2).dtype == dtype


class TestIdentities:
    @pytest.mark.parametrize("temperature", [1e-4, 0.1, 1.0, 1e4])
    def test_constant_logits_give_the_log_class_prior(self, temperature: float) -> None:
        """Logit adjustment: what is the same for all examples says nothing but how frequent the classes are."""
        y = torch.tensor([0, 0, 0, 0, 0, 1, 1, 2])
        h = torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64).expand(8, 3)
        wanted = (torch.tensor([5 / 8, 2 / 8, 1 / 8], dtype=torch.float64) + FLOOR).log().expand(8, 3)
        torch.testing.assert_close(logit_shift(h, y, temperature), wanted)

    def test_exact_logits_give_zero_and_the_log_of_the_floor(self) -> None:
        y = torch.tensor([2, 0, 1, 1, 0])
        own = torch.nn.functional.one_hot(y, 3)
        shift = logit_shift(50.0 * own.double(), y, 0.1)
        assert float(shift[own == 1].abs().max()) < 2e-6
        torch.testing.assert_close(shift[own == 0], torch.full((10,), math.log(1e-6), dtype=torch.float64))

    @given(
        st.integers(0, 2**32),
        st.integers(1, 30),
        st.integers(2, 6),
        st.floats(1e-4, 1e4),
        st.floats(1e-3, 1e6),
    )
    def test_rows_are_log_probabilities_up_to_the_floor(
        self, seed: int, n: int, n_classes: int, temperature: float, scale: float
    ) -> None:
        random = torch.Generator().manual_seed(seed)
        h = scale * torch.randn(n, n_classes, generator=random)
        y = torch.randint(n_classes, (n,), generator=random)
        shift = logit_shift(h, y, temperature)
        assert bool(torch.isfinite(shift).all())
        assert float(shift.max()) <= 2e-6
        assert float(shift.min()) >= math.log(FLOOR) - 1e-4
        sums = shift.double().exp().sum(1)
        torch.testing.assert_close(sums, torch.full_like(sums, 1 + n_classes * FLOOR), rtol=1e-5, atol=0)

    @given(st.permutations(range(11)), st.sampled_from([0.001, 0.3, 10.0]))
    def test_permuting_examples_permutes_shifts(self, order: list[int], temperature: float) -> None:
        random = torch.Generator().manual_seed(1)
        h = torch.randn(11, 3, generator=random, dtype=torch.float64)
        y = torch.randint(3, (11,), generator=random)
        permuted = logit_shift(h[order], y[order], temperature)
        torch.testing.assert_close(permuted, logit_shift(h, y, temperature)[order], rtol=1e-12, atol=1e-12)

    def test_renaming_classes_renames_columns(self) -> None:
        h, y = torch.randn(11, 3, dtype=torch.float64), torch.randint(3, (11,))
        order = torch.tensor([2, 0, 1])  # the class that was order[k] is now k
        renamed = logit_shift(h[:, order], order.argsort()[y], 0.5)
        torch.testing.assert_close(renamed, logit_shift(h, y, 0.5)[:, order])

    @pytest.mark.parametrize("temperature", [1e-4, 1e-3])
    def test_towards_zero_the_table_is_the_confusion_matrix(self, temperature: float) -> None:
        said = [0, 0, 0, 0, 1, 1, 2]
        y = [0, 0, 0, 1, 1, 2, 0]
        h = torch.nn.functional.one_hot(torch.tensor(said), 3).float()
        # of those called 0, 3/4 are 0 and 1/4 are 1; of those called 1, half are 1 and half are 2; the 2 is a 0
        table = torch.tensor([[3 / 4, 1 / 4, 0], [0, 1 / 2, 1 / 2], [1, 0, 0]])
        wanted = (table[said] + FLOOR).log()
        torch.testing.assert_close(logit_shift(h, torch.tensor(y), temperature), wanted)

    def test_towards_infinity_it_is_the_log_class_prior(self) -> None:
        y = torch.tensor([0, 0, 0, 1])
        h = torch.randn(4, 2, dtype=torch.float64)
        wanted = torch.tensor([3 / 4, 1 / 4], dtype=torch.float64).log().expand(4, 2)
        torch.testing.assert_close(logit_shift(h, y, 1e7), wanted, rtol=1e-4, atol=1e-4)

    def test_a_constant_added_to_a_row_of_logits_changes_nothing(self) -> None:
        h, y = torch.randn(8, 3, dtype=torch.float64), torch.randint(3, (8,))
        moved = h + 100 * torch.randn(8, 1, dtype=torch.float64)
        torch.testing.assert_close(logit_shift(moved, y, 0.2), logit_shift(h, y, 0.2))


class TestExtremes:
    @pytest.mark.parametrize("temperature", [1e-4, 1.0, 1e4])
    @pytest.mark.parametrize("size", [0.0, 1e-30, 1e10, 3e38])
    def test_are_finite(self, temperature: float, size: float) -> None:
        h = size * torch.tensor([[1.0, -1.0, 0.5], [-1.0, 1.0, 1.0], [0.0, 0.0, 1.0], [1.0, 1.0, 1.0]])
        shift = logit_shift(h, torch.tensor([0, 1, 1, 0]), temperature)
        assert bool(torch.isfinite(shift).all())
        assert float(shift.max()) <= 2e-6

    def test_class_that_is_never_said_has_a_row_of_zeros(self) -> None:
        q = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
        assert confusion(q, torch.tensor([0, 1])).tolist() == [[0.5, 0.5], [0.0, 0.0]]

    def test_many_examples_in_single_precision_do_not_lose_counts(self) -> None:
        """Column sums over 300,000 examples, as exact as over three."""
        y = torch.tensor([0, 1, 1]).repeat(100_000)
        h = torch.tensor([[0.1, 0.3]]).expand(len(y), 2)
        shift = logit_shift(h, y, 0.5)
        wanted = (torch.tensor([1 / 3, 2 / 3]) + FLOOR).log()
        torch.testing.assert_close(shift[0], wanted, rtol=1e-6, atol=1e-7)


class TestGroupShift:
    def test_is_counts(self) -> None:
        attribute = torch.tensor([0, 0, 0, 0, 2, 2, 2])
        y = torch.tensor([0, 0, 0, 1, 1, 1, 2])
        table = {0: (3 / 4, 1 / 4, 0.0), 2: (0.0, 2 / 3, 1 / 3)}
        wanted = [[math.log(p + 1e-6) for p in table[a]] for a in attribute.tolist()]
        np.testing.assert_allclose(group_shift(attribute, y, 3), wanted, rtol=1e-6)

    @given(st.integers(0, 2**32), st.integers(1, 30), st.integers(2, 4))
    def test_is_the_logit_shift_of_predictions_that_are_the_attribute(
        self, seed: int, n: int, n_classes: int
    ) -> None:
        random = torch.Generator().manual_seed(seed)
        attribute, y = torch.randint(n_classes, (2, n), generator=random)
        one_hot = torch.nn.functional.one_hot(attribute, n_classes).float()
        torch.testing.assert_close(logit_shift(one_hot, y, 0.001), group_shift(attribute, y, n_classes))


@pytest.mark.usefixtures("shapes_unchecked")
class TestRefuses:
    h, y = torch.zeros(4, 2), torch.tensor([0, 1, 1, 0])

    @pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, (), (0.1, 0.0), (0.1, -2.0)])
    def test_temperatures_that_are_not_positive(self, temperature: Any) -> None:
        with pytest.raises(OptionError, match=r"temperature .*positive numbers are wanted"):
            logit_shift(self.h, self.y, temperature)

    @pytest.mark.parametrize(
        ("h", "y", "message"),
        [
            (torch.zeros(5, 2), y, r"shape \(5, 2\) for 4 labels: \(4, C\) is wanted"),
            (torch.zeros(4), y, r"shape \(4,\) for 4 labels"),
            (torch.zeros(1, 4, 2), y, r"shape \(1, 4, 2\) for 4 labels"),
            (h, torch.tensor([0, 1, 2, 0]), "label 2: 0 to 1 is wanted"),
            (h, torch.tensor([0, -1, 1, 0]), "label -1: 0 to 1 is wanted"),
            (torch.tensor([[0.0, math.nan]] * 4), y, "NaN or infinity"),
            (torch.tensor([[0.0, math.inf]] * 4), y, "NaN or infinity"),
        ],
        ids=["rows", "vector", "stack", "label too large", "negative label", "NaN", "infinity"],
    )
    def test_rows_that_do_not_fit(self, h: Tensor, y: Tensor, message: str) -> None:
        with pytest.raises(DataError, match=message):
            logit_shift(h, y)

    @pytest.mark.parametrize("y", [y[:3], y + 1, y - 1], ids=["length", "too large", "negative"])
    def test_groups_that_do_not_fit(self, y: Tensor) -> None:
        with pytest.raises(DataError, match="is wanted"):
            group_shift(torch.tensor([0, 0, 1, 1]), y, 2)

    def test_numbers_of_numpy_are_numbers(self) -> None:
        random = torch.Generator().manual_seed(0)
        h = torch.randn(4, 2, generator=random)
        for kind in (np.float32, np.float64, np.int64):
            shift = logit_shift(h, self.y, kind(2))
            torch.testing.assert_close(shift, logit_shift(h, self.y, 2.0))


class TestSeveralRules:
    def test_of_one_rule_is_its_shift(self) -> None:
        h = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
        y = torch.arange(20) % 3
        torch.testing.assert_close(joint_shift([h], y, 0.7), logit_shift(h, y, 0.7))

    def test_of_two_certain_rules_is_the_table_of_what_they_say(self) -> None:
        """Where both say 1 two of three are 1; where they contradict each other one of two; both say 0: all 0."""
        first = torch.tensor([1, 1, 1, 1, 0, 0, 0])
        second = torch.tensor([1, 1, 1, 0, 1, 0, 0])
        y = torch.tensor([1, 1, 0, 1, 0, 0, 0])
        rules = [100.0 * torch.nn.functional.one_hot(said, 2) for said in (first, second)]
        ones = torch.tensor([2 / 3, 2 / 3, 2 / 3, 1, 0, 0, 0])
        torch.testing.assert_close(joint_shift(rules, y).exp()[:, 1], ones + 1e-6, rtol=1e-4, atol=1e-6)

    def test_counts_weights(self) -> None:
        rules = [100.0 * torch.nn.functional.one_hot(torch.tensor([0, 0, 1, 1]), 2) for _ in range(2)]
        y = torch.tensor([0, 1, 1, 1])
        shift = joint_shift(rules, y, weight=torch.tensor([3.0, 1.0, 1.0, 1.0]))
        torch.testing.assert_close(shift[0].exp(), torch.tensor([0.75, 0.25]), rtol=1e-4, atol=1e-5)

    def test_balancing_weights_leave_the_rule_with_nothing_to_say(self) -> None:
        said = torch.tensor([0] * 10 + [1] * 10)
        y = torch.tensor([0] * 9 + [1] + [1] * 8 + [0] * 2)
        weight = balancing_weight(logit_shift(100.0 * torch.nn.functional.one_hot(said, 2), y), y)
        assert float(weight.mean()) == pytest.approx(1)
        for rule in (0, 1):
            mass = torch.stack([weight[(said == rule) & (y == c)].sum() for c in (0, 1)])
            torch.testing.assert_close(mass[0], mass[1], rtol=1e-4, atol=0)

    def test_balancing_weights_are_bounded(self) -> None:
        shift = torch.tensor([[0.0, -40.0], [-40.0, 0.0]])
        weight = balancing_weight(shift, torch.tensor([0, 0]))
        assert float(weight[1] / weight[0]) == pytest.approx(1000)

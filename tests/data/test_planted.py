import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unrote.data.planted import COLOURS, colours, patch, patch_corners, plant_attribute, stripes, tint
from unrote.errors import DataError, OptionError


class TestPlantAttribute:
    @given(
        sizes=st.lists(st.integers(0, 40), min_size=2, max_size=6),
        alignment=st.floats(0, 1),
        seed=st.integers(0, 2**40),
    )
    def test_counts_are_exact(self, sizes: list[int], alignment: float, seed: int) -> None:
        n_classes = len(sizes)
        y = torch.tensor(np.random.default_rng(seed).permutation(np.repeat(np.arange(n_classes), sizes)))
        attribute = plant_attribute(y, n_classes, alignment, seed)
        for c, size in enumerate(sizes):
            counts = [int(((y == c) & (attribute == a)).sum()) for a in range(n_classes)]
            aligned = counts.pop(c)
            assert abs(aligned - alignment * size) <= 0.5
            assert sum(counts) == size - aligned
            assert max(counts) - min(counts) <= 1

    @given(sizes=st.lists(st.integers(0, 40), min_size=2, max_size=6), seed=st.integers(0, 1000))
    def test_independent_at_one_over_classes(self, sizes: list[int], seed: int) -> None:
        n_classes = len(sizes)
        y = torch.repeat_interleave(torch.arange(n_classes), torch.tensor(sizes))
        attribute = plant_attribute(y, n_classes, 1 / n_classes, seed)
        for c, size in enumerate(sizes):
            counts = np.bincount(attribute[y == c].numpy(), minlength=n_classes)
            assert counts.min() >= math.floor(size / n_classes)
            assert counts.max() <= math.ceil(size / n_classes)

    def test_extremes(self) -> None:
        y = torch.arange(30) % 3
        assert torch.equal(plant_attribute(y, 3, 1.0, 0), y)
        assert not (plant_attribute(y, 3, 0.0, 0) == y).any()

    def test_the_seed_chooses_which(self) -> None:
        y = torch.arange(400) % 2
        first, again, other = (plant_attribute(y, 2, 0.9, seed) for seed in (1, 1, 2))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)
        # each example is in the minority about one time in ten, wherever it stands
        share = torch.stack([plant_attribute(y, 2, 0.9, seed) != y for seed in range(300)]).float().mean(0)
        assert float(share.max()) < 0.1 + 6 * math.sqrt(0.09 / 300)
        assert float(share.min()) > 0.1 - 6 * math.sqrt(0.09 / 300)

    def test_the_odd_example_out_goes_to_any_value(self) -> None:
        y = torch.zeros(10, dtype=torch.long)
        dealt = torch.stack([plant_attribute(y, 3, 0.9, seed).bincount(minlength=3) for seed in range(100)])
        assert dealt[:, 0].eq(9).all()
        assert 25 < int(dealt[:, 1].sum()) < 75

    def test_the_global_generator_is_left_alone(self) -> None:
        before = torch.random.get_rng_state()
        plant_attribute(torch.arange(10) % 2, 2, 0.9, 0)
        assert torch.equal(before, torch.random.get_rng_state())

    @pytest.mark.parametrize("alignment", [-0.1, 1.1, math.nan, math.inf])
    def test_alignment_out_of_range(self, alignment: float) -> None:
        with pytest.raises(OptionError, match="alignment"):
            plant_attribute(torch.tensor([0, 1]), 2, alignment, 0)

    def test_one_class(self) -> None:
        with pytest.raises(OptionError, match="n_classes=1"):
            plant_attribute(torch.tensor([0, 0]), 1, 0.5, 0)

    @pytest.mark.parametrize("y", [[0, 2], [-1, 1]])
    def test_labels_that_are_no_class(self, y: list[int]) -> None:
        with pytest.raises(DataError, match="0 to 1 is wanted"):
            plant_attribute(torch.tensor(y), 2, 0.5, 0)


class TestTint:
    def test_by_hand(self) -> None:
        """Two images of two pixels; red then green; black, half-way to `dark`, at `dark` and white."""
        images = torch.tensor([[[0.0, 0.2]], [[0.4, 1.0]]])
        palette = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.5]])
        got = tint(images, torch.tensor([0, 1]), palette, strength=0.6, dark=0.4)
        assert got.shape == (2, 3, 1, 2)
        torch.testing.assert_close(got[0, :, 0], torch.tensor([[0.6, 0.2 + 0.3], [0.0, 0.2], [0.0, 0.2]]))
        torch.testing.assert_close(got[1, :, 0], torch.tensor([[0.4, 1.0], [0.4, 1.0], [0.4, 1.0]]))

        got = tint(images, torch.tensor([1, 1]), palette, strength=0.6, dark=0.4)
        torch.testing.assert_close(got[0, :, 0], torch.tensor([[0.0, 0.2], [0.6, 0.5], [0.3, 0.35]]))

    @given(seed=st.integers(0, 1000), strength=st.floats(0, 1), dark=st.floats(0.01, 1))
    def test_stays_within_the_range_of_an_image(self, seed: int, strength: float, dark: float) -> None:
        images = torch.rand(5, 3, 3, generator=torch.Generator().manual_seed(seed))
        got = tint(images, torch.arange(5), colours(5), strength, dark)
        assert 0 <= float(got.min()) <= float(got.max()) <= 1 + 1e-6
        assert (got >= images[:, None]).all()

    def test_strength_zero_leaves_the_grey_image(self) -> None:
        images = torch.rand(2, 4, 4)
        assert torch.equal(
            tint(images, torch.tensor([0, 1]), torch.eye(2), 0.0), images[:, None].repeat(1, 2, 1, 1)
        )

    @pytest.mark.parametrize(("strength", "dark"), [(-0.1, 0.5), (1.1, 0.5), (0.5, 0.0), (0.5, 1.5)])
    def test_options_out_of_range(self, strength: float, dark: float) -> None:
        with pytest.raises(OptionError, match="wanted"):
            tint(torch.rand(1, 2, 2), torch.tensor([0]), torch.eye(2), strength, dark)

    def test_an_attribute_without_colour(self) -> None:
        with pytest.raises(DataError, match="2 colours"):
            tint(torch.rand(1, 2, 2), torch.tensor([2]), torch.eye(2), 0.5)


class TestPatch:
    def test_by_hand(self) -> None:
        images = torch.full((2, 4, 5), 0.5)
        palette = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
        got = patch(images, torch.tensor([0, 1]), palette, strength=1.0, size=2)
        expected = torch.full((2, 3, 4, 5), 0.5)
        expected[0, :, 0:2, 0:2] = torch.tensor([1.0, 0.0, 0.0]).reshape(3, 1, 1)  # top left, red
        expected[1, :, 2:4, 3:5] = torch.tensor([0.0, 0.0, 1.0]).reshape(3, 1, 1)  # bottom right, blue
        assert torch.equal(got, expected)

    def test_strength_is_opacity(self) -> None:
        got = patch(torch.full((1, 4, 4), 0.5), torch.tensor([0]), torch.ones(2, 1), strength=0.25, size=1)
        assert float(got[0, 0, 0, 0]) == pytest.approx(0.625)
        assert got[0, 0].flatten()[1:].eq(0.5).all()

    def test_corners_go_clockwise(self) -> None:
        assert patch_corners(8, 8, 4, 2).tolist() == [[0, 0], [0, 6], [6, 6], [6, 0]]
        assert patch_corners(28, 28, 8, 4).tolist() == [
            [0, 0], [0, 12], [0, 24], [12, 24], [24, 24], [24, 12], [24, 0], [12, 0],
        ]  # fmt: skip

    @given(n=st.integers(1, 10), height=st.integers(16, 40), width=st.integers(16, 40))
    def test_squares_never_overlap(self, n: int, height: int, width: int) -> None:
        images = torch.zeros(n, height, width)
        painted = patch(images, torch.arange(n), torch.ones(n, 1), 1.0, size=2)[:, 0]
        assert painted.flatten(1).sum(1).tolist() == [4.0] * n
        assert float(painted.sum(0).max()) == 1.0

    @pytest.mark.parametrize(("n", "size"), [(10, 3), (2, 8), (2, 9), (2, 0)])
    def test_squares_that_do_not_fit(self, n: int, size: int) -> None:
        with pytest.raises(OptionError, match="size"):
            patch(torch.zeros(1, 8, 8), torch.tensor([0]), torch.ones(n, 1), 1.0, size)

    def test_an_attribute_without_colour(self) -> None:
        with pytest.raises(DataError, match="2 colours"):
            patch(torch.zeros(1, 8, 8), torch.tensor([2]), torch.ones(2, 1), 1.0)


def test_stripes_have_the_direction_of_their_attribute() -> None:
    images = torch.zeros(40, 28, 28)
    images[:, 10:18, 10:18] = 0.9  # an object, which stays as it is
    attribute = torch.arange(40) % 2
    phase = torch.rand(40, generator=torch.Generator().manual_seed(0))
    drawn = stripes(images, attribute, 2, 0.8, phase)[:, 0]
    assert torch.equal(drawn[:, 10:18, 10:18], images[:, 10:18, 10:18])
    flat, upright = drawn[attribute == 0], drawn[attribute == 1]
    assert torch.equal(flat[:, :, :1].expand(-1, -1, 10), flat[:, :, :10])
    assert torch.equal(upright[:, :1].expand(-1, 10, -1), upright[:, :10])
    assert drawn[:, 0, 0].unique().tolist() == pytest.approx([0.0, 0.8])  # they begin anywhere
    np.testing.assert_allclose(drawn[:, :8].mean((1, 2)), 0.4, atol=1e-6)


def test_no_pixel_tells_the_direction_of_stripes() -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_score

    random = torch.Generator().manual_seed(0)
    attribute = torch.arange(2000) % 2
    x = stripes(torch.zeros(2000, 8, 8), attribute, 2, 1.0, torch.rand(2000, generator=random))
    right = cross_val_score(LogisticRegression(), x.flatten(1).numpy(), attribute.numpy()).mean()
    assert 0.45 < right < 0.55


@pytest.mark.parametrize("wrong", [{"strength": 2.0}, {"period": 1.0}, {"dark": 0.0}])
def test_stripes_refuse(wrong: dict[str, float]) -> None:
    options = {"strength": 1.0, **wrong}
    with pytest.raises(OptionError):
        stripes(torch.zeros(2, 8, 8), torch.tensor([0, 1]), 2, phase=torch.zeros(2), **options)


def test_stripes_need_a_direction_each() -> None:
    with pytest.raises(DataError, match="there are 2 directions"):
        stripes(torch.zeros(1, 8, 8), torch.tensor([2]), 2, 1.0, torch.zeros(1))


def test_colours_differ() -> None:
    palette = colours(10)
    assert palette.shape == (10, 3)
    assert len({tuple(row) for row in palette.tolist()}) == 10
    assert float(palette.min()) >= 0
    assert palette.amax(1).eq(1).all()  # all equally bright in their brightest channel
    assert list(COLOURS)[:2] == ["red", "blue"]


@pytest.mark.parametrize("n", [0, 11])
def test_too_many_colours(n: int) -> None:
    with pytest.raises(OptionError, match="palette of your own"):
        colours(n)

"""The PyTorch face, against computations by hand: held-out logits, the loss, and the index that links them."""

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset, default_collate
from toys import clusters, planted_task

import unrote
from unrote.errors import DataError, OptionError
from unrote.heldout import kfold, xrm
from unrote.models import ModuleStack
from unrote.supervision import Supervision
from unrote.torch_api import IndexedCollate, IndexedDataset, MATLoss, held_out_logits

EXAMPLES = Path(__file__).parents[1] / "examples"
RECIPE = unrote.Recipe("adam", 1e-2, batch_size=16, epochs=3)


def linear() -> nn.Module:
    return nn.Linear(4, 2)


class Sentences(Dataset[tuple[dict[str, Tensor], int]]):
    """Items as a tokeniser gives them, of different lengths, with a label."""

    def __init__(self, n: int = 40) -> None:
        random = torch.Generator().manual_seed(0)
        self.y = torch.arange(n) % 2
        lengths = torch.randint(3, 9, (n,), generator=random).tolist()
        self.tokens = [torch.randint(1, 20, (length,), generator=random) for length in lengths]

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, i: int) -> tuple[dict[str, Tensor], int]:
        return {"tokens": self.tokens[i]}, int(self.y[i])


def pad(items: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    tokens = nn.utils.rnn.pad_sequence([item["tokens"] for item in items], batch_first=True)
    return {"tokens": tokens, "mask": tokens > 0}


class MeanOfWords(nn.Module):
    """A classifier whose logits do not depend on the padding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(20, 8), nn.Linear(8, 2)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        words = self.embed(tokens) * mask.unsqueeze(-1)
        return self.head(words.sum(1) / mask.sum(1, keepdim=True))


class TestHeldOutLogits:
    def test_are_the_twins_of_xrm(self) -> None:
        x, y = clusters(60)
        found = held_out_logits(linear, (x, y), recipe=RECIPE, seed=3)
        twins = xrm(x, y, lambda seeds: ModuleStack(linear, 2, seeds), RECIPE, n_classes=2, seeds=[3])
        # to rounding: some processors multiply otherwise where the examples lie otherwise in memory
        torch.testing.assert_close(found, twins.held_out().logits)

    def test_are_those_of_kfold(self) -> None:
        x, y = clusters(60)
        found = held_out_logits(linear, (x, y), method="kfold", recipe=RECIPE, seed=3)
        folds = kfold(x, y, lambda seeds: ModuleStack(linear, 2, seeds), RECIPE, seed=3)
        torch.testing.assert_close(found, folds.logits)

    @pytest.mark.parametrize(
        "wrap",
        [
            lambda x, y: TensorDataset(x, y),
            lambda x, y: Subset(TensorDataset(x, y), range(len(x))),
            lambda x, y: [(x[i], y[i]) for i in range(len(x))],
            lambda x, y: Subset([(x[i], int(y[i])) for i in range(len(x))], range(len(x))),
        ],
        ids=["tensors", "subset", "list of pairs", "labels that are numbers"],
    )
    def test_do_not_depend_on_what_holds_the_examples(self, wrap: Callable[[Tensor, Tensor], Any]) -> None:
        x, y = clusters(40)
        assert torch.equal(
            held_out_logits(linear, wrap(x, y), recipe=RECIPE), held_out_logits(linear, (x, y), recipe=RECIPE)
        )

    def test_items_of_different_lengths_are_padded_by_collate(self) -> None:
        sentences = Sentences()
        found = held_out_logits(MeanOfWords, sentences, collate=pad, recipe=RECIPE, method="xrm")
        whole = pad([sentences[i][0] for i in range(len(sentences))])
        wanted = xrm(
            Subset([({k: v[i] for k, v in whole.items()}, 0) for i in range(40)], range(40)),
            sentences.y,
            lambda seeds: ModuleStack(MeanOfWords, 2, seeds),
            RECIPE,
            n_classes=2,
        )
        torch.testing.assert_close(found, wanted.held_out().logits)

    def test_labels_given_spare_the_items(self) -> None:
        x, y = clusters(30)
        read: list[int] = []

        class Counting(Dataset[Any]):
            def __len__(self) -> int:
                return 30

            def __getitem__(self, i: int) -> Any:
                read.append(i)
                return x[i], "not a label"

        found = held_out_logits(linear, Counting(), labels=y.numpy(), recipe=RECIPE)
        assert torch.equal(found, held_out_logits(linear, (x, y), recipe=RECIPE))
        assert (
            len(read) == 1 + 30 * (RECIPE.epochs or 0) + 30
        )  # a look at the first, the epochs, the prediction

    def test_workers_change_nothing(self) -> None:
        sentences = Sentences(20)
        recipe = unrote.Recipe("adam", 1e-2, batch_size=16, epochs=1)
        one, two = (
            held_out_logits(MeanOfWords, sentences, collate=pad, recipe=recipe, workers=workers)
            for workers in (0, 2)
        )
        assert torch.equal(one, two)

    def test_a_class_that_training_lacks_has_a_column(self) -> None:
        x, y = clusters(30)
        logits = held_out_logits(lambda: nn.Linear(4, 3), (x, y), n_classes=3, recipe=RECIPE)
        assert logits.shape == (30, 3)

    def test_the_global_random_state_is_left_alone(self) -> None:
        before = torch.get_rng_state()
        held_out_logits(linear, clusters(20), recipe=RECIPE)
        assert torch.equal(torch.get_rng_state(), before)

    def test_reveal_the_shortcut(self) -> None:
        """On a planted task the shift is largest, for the true class, where the attribute agrees with it."""
        train = planted_task(256).train
        x = train.x[torch.arange(256)]
        recipe = unrote.Recipe("adam", 1e-2, batch_size=32, epochs=20)
        logits = held_out_logits(lambda: nn.Linear(8, 2), (x, train.y), recipe=recipe)
        own = unrote.mat_shift(logits, train.y, 0.1)[torch.arange(256), train.y]
        aligned = train.attribute == train.y
        assert own[aligned].min() > own[~aligned].max()

    @pytest.mark.parametrize(
        ("change", "error", "text"),
        [
            ({"method": "jackknife"}, OptionError, "'auto', 'xrm', 'trunk' or 'kfold' is wanted"),
            ({"n_classes": 1}, DataError, "label 1 for n_classes=1"),
            ({"labels": [0, 1]}, DataError, "2 entries"),
            ({"dataset": iter([1])}, DataError, "cannot be read by index"),
            ({"dataset": (torch.zeros(3, 4),)}, DataError, r"pair \(x, y\)"),
            ({"dataset": Subset([torch.zeros(4)] * 5, range(5))}, DataError, r"item 0 is a Tensor: \(x, y\)"),
            ({"dataset": Subset([(torch.zeros(4), "cat")], range(1))}, DataError, "label 'cat'"),
            ({"dataset": [(torch.zeros(4), 0.5)]}, DataError, "label 0.5"),
            ({"dataset": Subset([], [])}, DataError, "empty"),
            ({"module_factory": lambda: 3}, OptionError, "gave a int"),
        ],
    )
    @pytest.mark.usefixtures("shapes_unchecked")
    def test_mistakes_are_named(self, change: dict[str, Any], error: type[Exception], text: str) -> None:
        options = {"module_factory": linear, "dataset": clusters(20), "recipe": RECIPE, **change}
        with pytest.raises(error, match=text):
            held_out_logits(**options)


class TestMATLoss:
    logits, y = torch.randn(8, 3, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 3
    shift = torch.randn(20, 3, generator=torch.Generator().manual_seed(1))
    index = torch.tensor([3, 19, 0, 7, 7, 2, 11, 5])

    def test_is_the_loss_of_the_training_loop(self) -> None:
        """Batched, weighted, stacked: `Supervision` and the module must mean the same shift of the same row."""
        labels = torch.zeros(20, dtype=torch.long)
        labels[self.index] = self.y
        y = labels[self.index]
        wanted = Supervision(labels, shift=self.shift).batch(self.index).loss(self.logits[None])[0]
        torch.testing.assert_close(MATLoss(self.shift)(self.logits, y, self.index), wanted)

    def test_by_hand(self) -> None:
        found = MATLoss(self.shift, reduction="none")(self.logits, self.y, self.index)
        for row, (i, c) in enumerate(zip(self.index.tolist(), self.y.tolist(), strict=True)):
            z = (self.logits[row] + self.shift[i]).double()
            assert float(found[row]) == pytest.approx(float(z.exp().sum().log() - z[c]), rel=1e-5)

    def test_shift_zero_is_cross_entropy(self) -> None:
        found = MATLoss(torch.zeros(20, 3))(self.logits, self.y, self.index)
        assert torch.equal(found, F.cross_entropy(self.logits, self.y))

    def test_gradient_is_that_of_shifted_logits_and_stops_there(self) -> None:
        logits = self.logits.clone().requires_grad_()
        shift = self.shift.clone().requires_grad_()
        MATLoss(shift, reduction="none")(logits, self.y, self.index).sum().backward()
        p = (self.logits + self.shift[self.index]).softmax(-1)
        torch.testing.assert_close(logits.grad, p - F.one_hot(self.y, 3))
        assert shift.grad is None

    def test_in_evaluation_mode_it_is_plain_cross_entropy(self) -> None:
        plain = F.cross_entropy(self.logits, self.y)
        loss = MATLoss(self.shift).eval()
        assert torch.equal(loss(self.logits, self.y), plain)
        assert torch.equal(loss(self.logits, self.y, self.index), plain)
        assert not torch.equal(loss.train()(self.logits, self.y, self.index), plain)

    def test_the_shift_is_saved_and_moves_with_the_module(self) -> None:
        net = nn.Sequential(nn.Linear(4, 3))
        net.add_module("loss", MATLoss(self.shift))
        assert torch.equal(net.state_dict()["loss.shift"], self.shift)
        assert net.double().loss.shift.dtype == torch.float64
        assert net.to("meta").loss.shift.device.type == "meta"

    def test_half_precision_logits_are_widened(self) -> None:
        loss = MATLoss(self.shift)(self.logits.bfloat16(), self.y, self.index)
        assert loss.dtype == torch.float32

    @pytest.mark.parametrize(
        ("change", "text"),
        [
            ({"index": None}, "IndexedDataset"),
            ({"index": torch.full((8,), 20)}, "20 to 20, but the shift has 20 rows"),
            ({"index": torch.full((8,), -1)}, "-1 to -1"),
            ({"index": torch.arange(7)}, r"\(7, 3\) and \(8,\) integers"),
            ({"index": torch.zeros(8)}, "integers"),
            ({"index": torch.zeros(8, 1, dtype=torch.long)}, "integers"),
            ({"logits": torch.zeros(8, 1)}, r"\(8, 3\)"),
            ({"y": torch.full((8, 3), 1 / 3)}, r"\(8, 3\) and type torch.float32: a vector of class indices"),
            ({"y": torch.zeros(8)}, "a vector of class indices"),
        ],
    )
    @pytest.mark.usefixtures("shapes_unchecked")
    def test_mistakes_are_named(self, change: dict[str, Any], text: str) -> None:
        batch = {"logits": self.logits, "y": self.y, "index": self.index, **change}
        with pytest.raises(DataError, match=text):
            MATLoss(self.shift)(**batch)

    @pytest.mark.parametrize(
        ("shift", "reduction", "text"),
        [
            (torch.zeros(4), "mean", r"shape \(4,\)"),
            (torch.zeros(2, 4, 3), "mean", "one temperature"),
            (torch.zeros(4, 3, dtype=torch.long), "mean", "int64"),
            (torch.full((4, 3), float("nan")), "mean", "NaN"),
            (torch.zeros(4, 3), "sum", "'mean' or 'none'"),
        ],
    )
    @pytest.mark.usefixtures("shapes_unchecked")
    def test_a_shift_is_checked_at_once(self, shift: Tensor, reduction: Any, text: str) -> None:
        with pytest.raises(unrote.UnroteError, match=text):
            MATLoss(shift, reduction=reduction)


class TestIndexedDataset:
    x, y = clusters(50)

    @pytest.mark.parametrize("workers", [0, 2])
    @pytest.mark.parametrize("drop_last", [False, True])
    def test_the_index_survives_shuffling_workers_and_dropped_minibatches(
        self, workers: int, drop_last: bool
    ) -> None:
        loader = DataLoader(
            IndexedDataset(TensorDataset(self.x, self.y)),
            batch_size=16,
            shuffle=True,
            drop_last=drop_last,
            num_workers=workers,
            generator=torch.Generator().manual_seed(0),
        )
        seen = []
        for x, y, index in loader:
            assert torch.equal(x, self.x[index])
            assert torch.equal(y, self.y[index])
            seen += index.tolist()
        assert seen != sorted(seen)
        assert len(seen) == len(set(seen)) == (48 if drop_last else 50)

    def test_a_subset_keeps_the_index_of_the_whole(self) -> None:
        part = Subset(IndexedDataset(TensorDataset(self.x, self.y)), [40, 3])
        assert [item[-1] for item in (part[0], part[1])] == [40, 3]

    def test_a_mapping_gets_a_key(self) -> None:
        dataset = IndexedDataset(Subset([{"x": 1, "labels": 0}, {"x": 2, "labels": 1}], range(2)))
        assert dataset[1] == {"x": 2, "labels": 1, "index": 1}
        batch = next(iter(DataLoader(dataset, batch_size=2)))
        assert batch["index"].tolist() == [0, 1]

    def test_a_negative_place_is_counted_from_the_end(self) -> None:
        assert IndexedDataset(TensorDataset(self.x, self.y))[-1][-1] == 49

    def test_several_at_once_are_those_one_by_one(self) -> None:
        dataset = IndexedDataset(TensorDataset(self.x, self.y))
        together = dataset.__getitems__([4, 2, -1])
        assert [item[-1] for item in together] == [4, 2, 49]
        assert all(torch.equal(item[0], dataset[item[-1]][0]) for item in together)

    def test_a_collate_function_of_ones_own_need_not_know(self) -> None:
        sentences = Sentences()

        def collate(items: list[Any]) -> Any:
            return pad([x for x, _ in items]), default_collate([y for _, y in items])

        loader = DataLoader(
            IndexedDataset(sentences), batch_size=8, shuffle=True, collate_fn=IndexedCollate(collate)
        )
        for x, y, index in loader:
            assert torch.equal(y, sentences.y[index])
            lengths = [len(sentences.tokens[i]) for i in index]
            assert x["mask"].sum(1).tolist() == lengths

    def test_collate_of_mappings(self) -> None:
        items = [{"tokens": torch.ones(2), "index": 5}, {"tokens": torch.ones(3), "index": 1}]
        batch = IndexedCollate(pad)(items)
        assert batch["index"].tolist() == [5, 1]
        assert batch["tokens"].shape == (2, 3)
        assert "index" in items[0], "items are the data set's own"

    @pytest.mark.parametrize(
        ("items", "text"),
        [([{"index": 7}], "already have 'index'"), ([torch.zeros(3)], "item of type Tensor")],
    )
    def test_items_it_cannot_index(self, items: list[Any], text: str) -> None:
        with pytest.raises(DataError, match=text):
            IndexedDataset(Subset(items, range(1)))[0]

    def test_an_iterable_data_set_is_refused(self) -> None:
        with pytest.raises(DataError, match="generator cannot be read by index"):
            IndexedDataset(x for x in range(3))

    def test_collate_of_items_without_index(self) -> None:
        with pytest.raises(DataError, match="IndexedDataset"):
            IndexedCollate()([torch.zeros(3)])


def test_a_plain_loop_is_the_method(tmp_path: Path) -> None:
    """MATLoss in a loop by hand ends where `unrote.fit(task, "mat")`'s loop ends, given the same minibatches."""
    x, y = clusters(48)
    shift = torch.randn(48, 2, generator=torch.Generator().manual_seed(2))
    stack = ModuleStack(linear, 2, [0])
    net = linear()
    net.load_state_dict(stack.members[0].state_dict())
    recipe = unrote.Recipe("adam", 1e-2, batch_size=16, epochs=4)
    unrote.train(stack, x, unrote.training.Supervised(Supervision(y, shift=shift)), recipe, seed=5)

    order = unrote.training.Order(48, 16, 5)
    criterion, optimizer = MATLoss(shift), torch.optim.Adam(net.parameters(), lr=1e-2)
    for index in order.minibatches(0, 12):
        optimizer.zero_grad()
        criterion(net(x[index]), y[index], index).backward()
        optimizer.step()
    for found, wanted in zip(net.parameters(), stack.parameters(), strict=True):
        torch.testing.assert_close(found, wanted)


def test_mat_shift_is_the_logit_shift() -> None:
    assert unrote.mat_shift is unrote.logit_shift


@pytest.mark.usefixtures("shapes_unchecked")  # as for those who run it
def test_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """Its last line is an assertion: MAT's worst group beats ERM's."""
    with torch.random.fork_rng():
        runpy.run_path(str(EXAMPLES / "plain_torch.py"), run_name="__main__")
    assert "worst-group accuracy" in capsys.readouterr().out

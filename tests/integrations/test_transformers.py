"""MATTrainer with the real Trainer and a tiny BERT from a config: its steps by hand, its evaluation plain."""

import os
import subprocess
import sys
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")
pytest.importorskip("accelerate")

from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset, IterableDataset, Subset
from transformers import BertConfig, BertForSequenceClassification, TrainerCallback, TrainingArguments

import unrote
from unrote.errors import DataError, OptionError
from unrote.integrations.transformers import MATTrainer, recipe_of

N, C = 22, 3
SHIFT = torch.randn(N, C, generator=torch.Generator().manual_seed(1))
CONFIG = BertConfig(
    vocab_size=30,
    hidden_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=16,
    max_position_embeddings=16,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
    num_labels=C,
)


class Reviews(Dataset[dict[str, Any]]):
    """Items as a tokeniser leaves them: lists of different lengths, a label, and columns no model takes."""

    def __init__(self, n: int = N, label: str = "labels", seed: int = 0) -> None:
        random = torch.Generator().manual_seed(seed)
        lengths = torch.randint(4, 12, (n,), generator=random).tolist()
        self.tokens = [torch.randint(1, 30, (length,), generator=random).tolist() for length in lengths]
        self.y = torch.arange(n) % C
        self.label = label

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, i: int) -> dict[str, Any]:
        tokens = self.tokens[i]
        return {"input_ids": tokens, "text": "words", "row": f"#{i}", self.label: int(self.y[i])}


def pad(items: list[dict[str, Any]]) -> dict[str, Tensor]:
    """What a tokeniser's padding collator does; it would not survive a column of text or an index."""
    assert all(set(item) <= {"input_ids", "labels", "label"} for item in items)
    tokens = nn.utils.rnn.pad_sequence([torch.tensor(item["input_ids"]) for item in items], batch_first=True)
    labels = [item.get("labels", item.get("label")) for item in items]
    batch = {"input_ids": tokens, "attention_mask": (tokens > 0).long()}
    return batch if labels[0] is None else {**batch, "labels": torch.tensor(labels)}


def model_init() -> BertForSequenceClassification:
    """A tiny BERT, the same each time it is called."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return BertForSequenceClassification(CONFIG)


def arguments(folder: Path, **options: Any) -> TrainingArguments:
    options = {
        "per_device_train_batch_size": 8,
        "max_steps": 1,
        "learning_rate": 0.1,
        "lr_scheduler_type": "constant",
        "optim": "sgd",
        "max_grad_norm": 0.0,
        "report_to": "none",
        "disable_tqdm": True,
        "save_strategy": "no",
        "logging_strategy": "no",
        "use_cpu": True,
        **options,
    }
    return TrainingArguments(output_dir=str(folder), **options)


class Recorder(TrainerCallback):
    """The training minibatches, as the model gets them."""

    def __init__(self, trainer: MATTrainer) -> None:
        self.index: list[list[int]] = []
        trainer.add_callback(self)
        original = trainer.compute_loss

        def compute_loss(model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            if model.training:
                self.index.append(inputs["index"].tolist())
                assert torch.equal(inputs["labels"], trainer.train_dataset.y[inputs["index"]])
            return original(model, inputs, *args, **kwargs)

        trainer.compute_loss = compute_loss


def mat_trainer(folder: Path, shift: Tensor | None = SHIFT, data: Any = None, **options: Any) -> MATTrainer:
    names = ("model", "model_init", "data_collator", "eval_dataset", "compute_loss_func", "compute_metrics")
    given = {name: options.pop(name) for name in names if name in options}
    given = {"model_init": model_init, "data_collator": pad, **given}
    data = Reviews() if data is None else data
    return MATTrainer(args=arguments(folder, **options), train_dataset=data, shift=shift, **given)


def logits_of(model: nn.Module, data: Reviews, index: list[int]) -> Tensor:
    batch = pad([{"input_ids": data.tokens[i]} for i in index])
    return model(**batch).logits


def step_by_hand(index: list[int], shift: Tensor, rate: float = 0.1) -> nn.Module:
    """One step of SGD on the mean shifted cross-entropy of these examples."""
    model, data = model_init().train(), Reviews()
    loss = F.cross_entropy(logits_of(model, data, index) + shift[index], data.y[index])
    loss.backward()
    with torch.no_grad():
        for p in model.parameters():
            if p.grad is not None:
                p -= rate * p.grad
    return model


def assert_same(found: nn.Module, wanted: nn.Module) -> None:
    torch.testing.assert_close(dict(found.named_parameters()), dict(wanted.named_parameters()))


class TestTraining:
    def test_a_step_is_the_step_by_hand(self, tmp_path: Path) -> None:
        trainer = mat_trainer(tmp_path)
        recorder = Recorder(trainer)
        loss = trainer.train().training_loss
        (index,) = recorder.index
        assert_same(trainer.model, step_by_hand(index, SHIFT))
        rows = unrote.Supervision(Reviews().y, shift=SHIFT).batch(torch.tensor(index))
        wanted = rows.loss(logits_of(model_init(), Reviews(), index)[None])
        assert loss == pytest.approx(float(wanted.detach()), rel=1e-5)

    def test_shift_zero_is_the_trainer_itself(self, tmp_path: Path) -> None:
        from transformers import Trainer

        trainer = mat_trainer(tmp_path, torch.zeros(N, C), max_steps=4)
        trainer.train()
        plain = Trainer(
            model_init=model_init,
            args=arguments(tmp_path, max_steps=4),
            train_dataset=Reviews(),
            data_collator=pad,
        )
        plain.train()
        assert_same(trainer.model, plain.model)

    @pytest.mark.parametrize("label", ["labels", "label"])
    def test_gradient_accumulation_is_one_large_minibatch(self, tmp_path: Path, label: str) -> None:
        """Also where the accumulated minibatches are of different sizes: 8, 8 and the last 6."""
        options = {"gradient_accumulation_steps": 3, "num_train_epochs": 1, "max_steps": -1}
        trainer = mat_trainer(tmp_path, data=Reviews(label=label), **options)
        recorder = Recorder(trainer)
        trainer.train()
        assert [len(index) for index in recorder.index] == [8, 8, 6]
        assert_same(trainer.model, step_by_hand(list(chain(*recorder.index)), SHIFT))

    @pytest.mark.parametrize(("workers", "drop_last"), [(0, False), (0, True), (2, False)])
    def test_the_index_survives(self, tmp_path: Path, workers: int, drop_last: bool) -> None:
        """Shuffling, workers, dropped minibatches, the removal of columns and a collator that knows no index."""
        trainer = mat_trainer(
            tmp_path,
            max_steps=-1,
            num_train_epochs=2,
            dataloader_num_workers=workers,
            dataloader_drop_last=drop_last,
        )
        recorder = Recorder(trainer)
        trainer.train()
        seen = list(chain(*recorder.index))
        assert len(seen) == (32 if drop_last else 44)
        for epoch in (seen[: len(seen) // 2], seen[len(seen) // 2 :]):
            assert len(set(epoch)) == len(epoch)
            assert epoch != sorted(epoch)

    def test_columns_may_be_kept(self, tmp_path: Path) -> None:
        def collate(items: list[dict[str, Any]]) -> dict[str, Tensor]:
            assert all("text" in item and "index" not in item for item in items)
            return pad([{key: item[key] for key in ("input_ids", "labels")} for item in items])

        trainer = mat_trainer(tmp_path, data_collator=collate, remove_unused_columns=False)
        recorder = Recorder(trainer)
        trainer.train()
        assert_same(trainer.model, step_by_hand(recorder.index[0], SHIFT))

    def test_a_module_that_is_no_pretrained_model(self, tmp_path: Path) -> None:
        class Wrapped(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.bert = model_init()

            def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None) -> Any:
                return (self.bert(input_ids=input_ids, attention_mask=attention_mask).logits,)

        trainer = mat_trainer(tmp_path, model=Wrapped(), model_init=None)
        recorder = Recorder(trainer)
        trainer.train()
        assert_same(trainer.model.bert, step_by_hand(recorder.index[0], SHIFT))

    def test_a_run_goes_on_from_a_checkpoint(self, tmp_path: Path) -> None:
        options = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "save_total_limit": None}
        unbroken = mat_trainer(tmp_path, **options)
        unbroken.train()
        resumed = mat_trainer(tmp_path, **options)
        resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
        assert_same(resumed.model, unbroken.model)


class TestEvaluation:
    def test_uses_the_logits_as_they_are(self, tmp_path: Path) -> None:
        test = Reviews(9, seed=5)
        trainer = mat_trainer(tmp_path, eval_dataset=test, per_device_eval_batch_size=9)
        trainer.train()
        with torch.no_grad():
            logits = logits_of(trainer.model.eval(), test, list(range(9)))
        wanted = float(F.cross_entropy(logits, test.y))
        assert trainer.evaluate()["eval_loss"] == pytest.approx(wanted, rel=1e-5)
        torch.testing.assert_close(torch.from_numpy(trainer.predict(test).predictions), logits)

    def test_of_the_training_set_too(self, tmp_path: Path) -> None:
        trainer = mat_trainer(tmp_path, per_device_eval_batch_size=N)
        data = Reviews()
        with torch.no_grad():
            wanted = float(F.cross_entropy(logits_of(trainer.model.eval(), data, list(range(N))), data.y))
        assert trainer.evaluate(data)["eval_loss"] == pytest.approx(wanted, rel=1e-5)

    def test_before_there_is_a_shift(self, tmp_path: Path) -> None:
        assert mat_trainer(tmp_path, None).evaluate(Reviews())["eval_loss"] > 0

    def test_between_steps(self, tmp_path: Path) -> None:
        """Evaluation while training goes on neither gets a shift nor takes the training's away."""
        options = {"max_steps": 3, "eval_strategy": "steps", "eval_steps": 1}
        trainer, quiet = (
            mat_trainer(tmp_path, eval_dataset=Reviews(6), **options),
            mat_trainer(tmp_path, max_steps=3),
        )
        trainer.train()
        quiet.train()
        assert_same(trainer.model, quiet.model)

    def test_without_labels(self, tmp_path: Path) -> None:
        unlabelled = Subset([{"input_ids": [1, 2, 3]}, {"input_ids": [4, 5]}], range(2))
        assert mat_trainer(tmp_path).predict(unlabelled).predictions.shape == (2, C)


class TestHeldOutLogits:
    def test_are_those_of_the_plain_function(self, tmp_path: Path) -> None:
        """On items without labels, text and padding troubles, which the trainer takes care of."""
        data = Reviews(label="label")
        trainer = mat_trainer(tmp_path, None, data, num_train_epochs=2, max_steps=-1, learning_rate=1e-3)
        clean = Subset([({"input_ids": tokens}, 0) for tokens in data.tokens], range(N))
        wanted = unrote.held_out_logits(
            model_init,
            clean,
            labels=data.y,
            collate=pad,
            recipe=recipe_of(trainer.args),
            seed=trainer.args.seed,
        )
        assert torch.equal(trainer.held_out_logits(), wanted)

    def test_lead_to_training(self, tmp_path: Path) -> None:
        trainer = mat_trainer(tmp_path, None)
        recipe = unrote.Recipe("adamw", 1e-3, batch_size=8, epochs=1)
        logits = trainer.held_out_logits(method="kfold", recipe=recipe)
        trainer.shift = unrote.mat_shift(logits, Reviews().y, temperature=0.1)
        recorder = Recorder(trainer)
        trainer.train()
        assert_same(trainer.model, step_by_hand(recorder.index[0], trainer.shift))

    def test_leave_the_global_random_state_alone(self, tmp_path: Path) -> None:
        trainer = mat_trainer(tmp_path, None)
        before = torch.get_rng_state()
        trainer.held_out_logits()
        assert torch.equal(torch.get_rng_state(), before)

    def test_recipe_follows_the_arguments(self, tmp_path: Path) -> None:
        args = arguments(
            tmp_path, weight_decay=0.2, gradient_accumulation_steps=4, max_steps=-1, num_train_epochs=1.5
        )
        assert recipe_of(args) == unrote.Recipe("adamw", 0.1, 0.2, batch_size=32, epochs=2)
        assert recipe_of(arguments(tmp_path, max_steps=7)).steps == 7

    def test_a_table_of_the_datasets_library(self, tmp_path: Path) -> None:
        datasets = pytest.importorskip("datasets")
        data = Reviews()
        table = datasets.Dataset.from_list([data[i] for i in range(N)])
        trainer, plain = (mat_trainer(tmp_path, data=rows, max_steps=3) for rows in (table, data))
        assert torch.equal(trainer.held_out_logits(), plain.held_out_logits())
        trainer.train()
        plain.train()
        assert_same(trainer.model, plain.model)


def test_example_says_what_it_lacks(tmp_path: Path) -> None:
    """It runs end to end only where someone fetched the sentences and the encoder."""
    run = subprocess.run(
        [sys.executable, Path(__file__).parents[2] / "examples" / "reviews_minilm.py"],
        cwd=tmp_path,
        env={**os.environ, "UNROTE_CACHE": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("skipped: vaderSentiment-3.3.2.tar.gz is missing: pip download")


class TestMistakes:
    @pytest.mark.parametrize(
        ("change", "error", "text"),
        [
            ({"compute_loss_func": lambda *_: 0}, OptionError, "compute_loss_func"),
            ({"label_smoothing_factor": 0.1}, OptionError, "label_smoothing_factor=0.1"),
            ({"shift": torch.zeros(N)}, DataError, "one row per training example"),
        ],
    )
    @pytest.mark.usefixtures("shapes_unchecked")
    def test_at_once(self, tmp_path: Path, change: dict[str, Any], error: type[Exception], text: str) -> None:
        with pytest.raises(error, match=text):
            mat_trainer(tmp_path, **change)

    @pytest.mark.parametrize(
        ("change", "error", "text"),
        [
            ({"shift": None}, OptionError, "trainer.shift = unrote.mat_shift"),
            ({"shift": SHIFT[1:]}, DataError, "21 rows, train_dataset 22 examples"),
            ({"shift": SHIFT[:, :2]}, DataError, r"\(8, 2\)"),
            (
                {"data": Subset([{"input_ids": [1, 2], "index": 3}] * N, range(N))},
                DataError,
                "already have 'index'",
            ),
            ({"data": Subset([{"input_ids": [1, 2]}] * N, range(N))}, DataError, "no 'labels'"),
        ],
    )
    def test_when_training_starts(
        self, tmp_path: Path, change: dict[str, Any], error: type[Exception], text: str
    ) -> None:
        with pytest.raises(error, match=text):
            mat_trainer(tmp_path, **change).train()

    def test_an_iterable_data_set(self, tmp_path: Path) -> None:
        class Stream(IterableDataset[Any]):
            def __iter__(self) -> Any:
                return iter(())

        with pytest.raises(DataError, match="Stream: a data set with a length"):
            mat_trainer(tmp_path, data=Stream()).train()

    def test_minibatches_of_ones_own_without_index(self, tmp_path: Path) -> None:
        class Own(MATTrainer):
            def get_train_dataloader(self) -> Any:
                return torch.utils.data.DataLoader(self.train_dataset, batch_size=4, collate_fn=self.collate)

            def collate(self, items: Any) -> Any:
                return pad([{key: item[key] for key in ("input_ids", "labels")} for item in items])

        own = Own(model_init=model_init, args=arguments(tmp_path), train_dataset=Reviews(), shift=SHIFT)
        with pytest.raises(DataError, match=r"unrote\.IndexedCollate"):
            own.train()

    @pytest.mark.parametrize(
        ("change", "options", "error", "text"),
        [
            ({"model": model_init(), "model_init": None}, {}, OptionError, "model_init="),
            ({"data": [{"input_ids": [1]}] * 9}, {}, DataError, "have none of labels"),
            ({}, {"labels": [0, 1]}, DataError, "2 entries"),
        ],
    )
    def test_of_held_out_logits(
        self,
        tmp_path: Path,
        change: dict[str, Any],
        options: dict[str, Any],
        error: type[Exception],
        text: str,
    ) -> None:
        with pytest.raises(error, match=text):
            mat_trainer(tmp_path, None, **change).held_out_logits(**options)

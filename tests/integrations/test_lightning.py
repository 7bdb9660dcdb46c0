"""MATCallback with the real Lightning: a run equals a loop by hand, and only the loss knows of the shift."""

import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("lightning")

from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Subset, TensorDataset
from toys import clusters

import unrote
from unrote.errors import CheckpointError, DataError, OptionError
from unrote.integrations.lightning import MATCallback

EXAMPLES = Path(__file__).parents[2] / "examples"

N, C = 50, 3
X, Y = clusters(N, C)
SHIFT = torch.randn(N, C, generator=torch.Generator().manual_seed(1))
ORDER = torch.randperm(N, generator=torch.Generator().manual_seed(2)).tolist()

pytestmark = [
    # Lightning's own, of its use of torch and of small data sets
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


class Net(LightningModule):
    """A module as users have it: nothing in it is there for MAT."""

    def __init__(self, loss: str = "functional") -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.layers = nn.Linear(4, C)
        self.criterion = nn.CrossEntropyLoss(
            weight=torch.tensor([1.0, 2.0, 0.5]) if loss == "weighted" else None
        )
        self.loss = loss
        self.logged: list[float] = []
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)

    def compute_loss(self, logits: Tensor, y: Tensor) -> Tensor:
        if self.loss == "keywords":
            return F.cross_entropy(target=y, input=logits)
        if self.loss == "nll":
            return F.nll_loss(F.log_softmax(logits, dim=1), y)
        if self.loss == "functional":
            return F.cross_entropy(logits, y)
        if self.loss == "smoothed":
            return F.cross_entropy(logits, y, label_smoothing=0.1)
        return self.criterion(logits, y)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        logits = self(x)
        self.seen.append(logits.detach())
        loss = self.compute_loss(logits, y)
        self.logged.append(float(loss.detach()))
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        x, y = batch
        self.log("validation_loss", F.cross_entropy(self(x), y))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


def dataset() -> TensorDataset:
    return TensorDataset(X, Y)


def loader(data: Any = None, **options: Any) -> DataLoader[Any]:
    data = unrote.IndexedDataset(dataset()) if data is None else data
    return DataLoader(data, **{"batch_size": 16, "sampler": ORDER, **options})


def trainer(*callbacks: Any, **options: Any) -> Trainer:
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    options = {"max_epochs": 2, "logger": False, "accelerator": "cpu", **quiet, **options}
    return Trainer(callbacks=list(callbacks), **options)


def by_hand(
    net: Net, shift: Tensor, epochs: int = 2, accumulate: int = 1, drop_last: bool = False
) -> list[float]:
    """The loop that Lightning runs, with the shift added where a reader would add it; its losses."""
    optimizer, losses = net.configure_optimizers(), []
    for _ in range(epochs):
        batches = list(torch.tensor(ORDER).split(16))
        batches = batches[:-1] if drop_last else batches
        for i, index in enumerate(batches):
            loss = net.compute_loss(net(X[index]) + shift[index], Y[index])
            losses.append(float(loss.detach()))
            (loss / accumulate).backward()
            if (i + 1) % accumulate == 0 or i + 1 == len(batches):
                optimizer.step()
                optimizer.zero_grad()
    return losses


def assert_same(net: Net, other: Net) -> None:
    for found, wanted in zip(net.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(found, wanted)


class TestTwoLines:
    @pytest.mark.parametrize("loss", ["functional", "keywords", "module", "weighted", "smoothed", "nll"])
    def test_equal_a_loop_by_hand(self, loss: str) -> None:
        net, wanted = Net(loss), Net(loss)
        trainer(MATCallback(SHIFT)).fit(net, loader())
        assert net.logged == pytest.approx(by_hand(wanted, SHIFT), rel=1e-5)
        assert_same(net, wanted)

    def test_shift_zero_is_the_run_without(self) -> None:
        net, plain = Net(), Net()
        trainer(MATCallback(torch.zeros(N, C))).fit(net, loader())
        trainer().fit(plain, loader(dataset()))
        assert_same(net, plain)

    def test_the_loss_is_supervisions(self) -> None:
        net = Net()
        trainer(MATCallback(SHIFT), max_steps=1).fit(net, loader())
        index = torch.tensor(ORDER[:16])
        wanted = unrote.Supervision(Y, shift=SHIFT).batch(index).loss(Net()(X[index])[None])
        assert net.logged[0] == pytest.approx(float(wanted), rel=1e-6)

    def test_training_metrics_see_the_logits_as_they_are(self) -> None:
        net = Net()
        trainer(MATCallback(SHIFT), max_steps=1).fit(net, loader())
        torch.testing.assert_close(net.seen[0], Net()(X[ORDER[:16]]))

    def test_validation_is_plain(self) -> None:
        net = Net()
        run = trainer(MATCallback(SHIFT))
        run.fit(net, loader(), DataLoader(dataset(), batch_size=N))
        wanted = float(F.cross_entropy(net(X), Y))
        assert float(run.callback_metrics["validation_loss"]) == pytest.approx(wanted, rel=1e-5)
        assert run.validate(net, DataLoader(dataset(), batch_size=N), verbose=False)[0][
            "validation_loss"
        ] == pytest.approx(wanted, rel=1e-5)

    def test_the_module_is_given_back(self) -> None:
        net = Net()
        trainer(MATCallback(SHIFT)).fit(net, loader())
        assert "training_step" not in vars(net)
        trainer().fit(net, loader(dataset()))

    def test_a_step_of_the_instance_is_given_back_after_an_error(self) -> None:
        def step(batch: Any, batch_idx: int) -> Tensor:
            raise ZeroDivisionError

        net = Net()
        net.training_step = step
        with pytest.raises(ZeroDivisionError):
            trainer(MATCallback(SHIFT)).fit(net, loader())
        assert net.training_step is step

    def test_gradient_accumulation(self) -> None:
        net, wanted = Net(), Net()
        trainer(MATCallback(SHIFT), accumulate_grad_batches=3).fit(net, loader())
        by_hand(wanted, SHIFT, accumulate=3)
        assert_same(net, wanted)

    def test_workers_and_dropped_minibatches(self) -> None:
        net, wanted = Net(), Net()
        trainer(MATCallback(SHIFT), max_epochs=1).fit(net, loader(num_workers=2, drop_last=True))
        by_hand(wanted, SHIFT, epochs=1, drop_last=True)
        assert_same(net, wanted)

    def test_a_subset_of_the_indexed_data(self) -> None:
        """As `random_split` makes: the index is still that of the whole, and so is the shift."""
        rows = ORDER[:20]
        net, wanted = Net(), Net()
        part = Subset(unrote.IndexedDataset(dataset()), rows)
        trainer(MATCallback(SHIFT), max_epochs=1).fit(net, loader(part, sampler=range(20), batch_size=20))
        F.cross_entropy(wanted(X[rows]) + SHIFT[rows], Y[rows]).backward()
        wanted.configure_optimizers().step()
        assert_same(net, wanted)

    def test_a_data_module(self) -> None:
        class Data(LightningDataModule):
            def train_dataloader(self) -> DataLoader[Any]:
                return loader()

        net, wanted = Net(), Net()
        trainer(MATCallback(SHIFT)).fit(net, datamodule=Data())
        by_hand(wanted, SHIFT)
        assert_same(net, wanted)

    def test_a_mapping_as_minibatch(self) -> None:
        class OfMappings(Net):
            def training_step(self, batch: Any, batch_idx: int) -> Tensor:
                assert set(batch) == {"x", "y"}
                return super().training_step((batch["x"], batch["y"]), batch_idx)

        rows = [{"x": x, "y": y} for x, y in zip(X, Y, strict=True)]
        net, wanted = OfMappings(), Net()
        trainer(MATCallback(SHIFT)).fit(net, loader(unrote.IndexedDataset(rows)))
        by_hand(wanted, SHIFT)
        assert_same(net, wanted)

    def test_manual_optimisation(self) -> None:
        class Manual(Net):
            automatic_optimization = False

            def training_step(self, batch: Any, batch_idx: int) -> None:
                optimizer = self.optimizers()
                optimizer.zero_grad()
                self.manual_backward(super().training_step(batch, batch_idx))
                optimizer.step()

        net, wanted = Manual(), Net()
        net.automatic_optimization = False
        trainer(MATCallback(SHIFT)).fit(net, loader())
        by_hand(wanted, SHIFT)
        assert_same(net, wanted)

    def test_other_cross_entropies_are_left_alone(self) -> None:
        """An auxiliary head with classes of its own has no shift."""

        class TwoHeads(Net):
            def training_step(self, batch: Any, batch_idx: int) -> Tensor:
                x, y = batch
                self.auxiliary = F.cross_entropy(x[:, :2], y.clamp(max=1)).detach()
                return super().training_step(batch, batch_idx)

        net = TwoHeads()
        trainer(MATCallback(SHIFT), max_steps=1).fit(net, loader())
        rows = ORDER[:16]
        torch.testing.assert_close(net.auxiliary, F.cross_entropy(X[rows][:, :2], Y[rows].clamp(max=1)))

    def test_a_compiled_network(self) -> None:
        net, wanted = Net(), Net()
        net.layers.compile(backend="aot_eager")
        trainer(MATCallback(SHIFT), max_epochs=1).fit(net, loader(drop_last=True))
        by_hand(wanted, SHIFT, epochs=1, drop_last=True)
        assert_same(net, wanted)


class TestCheckpoints:
    def run(
        self, folder: Path, callback: MATCallback, path: Path | None = None, epochs: int = 2
    ) -> tuple[Net, Path]:
        net, run = Net(), trainer(callback, max_epochs=epochs, default_root_dir=folder)
        run.fit(net, loader(), ckpt_path=path)
        path = folder / f"{epochs}.ckpt"
        run.save_checkpoint(path)
        return net, path

    @pytest.mark.parametrize("given", [None, SHIFT], ids=["the checkpoint's shift", "the same shift"])
    def test_a_run_that_goes_on_is_the_run_that_never_stopped(
        self, tmp_path: Path, given: Tensor | None
    ) -> None:
        _, half = self.run(tmp_path, MATCallback(SHIFT), epochs=1)
        resumed, _ = self.run(tmp_path, MATCallback(given), half)
        unbroken, _ = self.run(tmp_path, MATCallback(SHIFT))
        assert resumed.logged == unbroken.logged[4:]
        assert_same(resumed, unbroken)

    @pytest.mark.parametrize("other", [SHIFT + 1, SHIFT[:, :2]])
    def test_another_shift_is_refused(self, tmp_path: Path, other: Tensor) -> None:
        _, half = self.run(tmp_path, MATCallback(SHIFT), epochs=1)
        with pytest.raises(CheckpointError, match=r"not the one given.*MATCallback\(\) without a shift"):
            self.run(tmp_path, MATCallback(other), half)

    def test_no_shift_and_no_checkpoint(self) -> None:
        with pytest.raises(OptionError, match="pass the shift"):
            trainer(MATCallback()).fit(Net(), loader())


class TestMistakes:
    def test_a_data_set_without_index(self) -> None:
        with pytest.raises(DataError, match="IndexedDataset"):
            trainer(MATCallback(SHIFT)).fit(Net(), loader(dataset()))

    def test_a_shift_of_other_examples(self) -> None:
        with pytest.raises(DataError, match="49 rows, the indexed training data set 50"):
            trainer(MATCallback(SHIFT[1:])).fit(Net(), loader())

    @pytest.mark.usefixtures("shapes_unchecked")
    def test_a_loss_that_is_no_cross_entropy(self) -> None:
        class Hinge(Net):
            def compute_loss(self, logits: Tensor, y: Tensor) -> Tensor:
                return F.multi_margin_loss(logits, y)

        with pytest.raises(OptionError, match=r"no cross-entropy of \(16, 3\) logits.*unrote.MATLoss"):
            trainer(MATCallback(SHIFT)).fit(Hinge(), loader())

    def test_a_shift_of_other_classes(self) -> None:
        with pytest.raises(OptionError, match=r"no cross-entropy of \(16, 2\) logits"):
            trainer(MATCallback(SHIFT[:, :2])).fit(Net(), loader())

    def test_mixed_labels(self) -> None:
        class Mixup(Net):
            def compute_loss(self, logits: Tensor, y: Tensor) -> Tensor:
                return F.cross_entropy(logits, F.one_hot(y, C) * 0.9 + 0.1 / C)

        with pytest.raises(OptionError, match="distribution over classes"):
            trainer(MATCallback(SHIFT)).fit(Mixup(), loader())

    def test_a_step_compiled_whole(self) -> None:
        """It would be an ERM run, as the compiled loss is out of sight; so it is an error."""
        net = torch.compile(Net(), backend="aot_eager")
        with pytest.raises(OptionError, match="compile the network, not the step"):
            trainer(MATCallback(SHIFT)).fit(net, loader())


def test_held_out_logits_take_a_module_class() -> None:
    recipe = unrote.Recipe("sgd", 0.1, batch_size=16, epochs=2)
    assert unrote.held_out_logits(Net, dataset(), recipe=recipe).shape == (N, C)


TWO_PROCESSES = """
import sys
sys.path[:0] = {paths!r}
from test_lightning import *
net, wanted = Net(), Net()
run = trainer(MATCallback(SHIFT), max_epochs=1, strategy="ddp_fork", devices=2, use_distributed_sampler=False,
              default_root_dir={folder!r})
class Halves(LightningDataModule):
    def train_dataloader(self):
        return loader(sampler=ORDER[self.trainer.global_rank::2], batch_size=25)
run.fit(net, datamodule=Halves())
optimizer = wanted.configure_optimizers()
F.cross_entropy(wanted(X) + SHIFT, Y).backward()
optimizer.step()
assert_same(net, wanted)
"""


def test_two_processes_need_only_the_index(tmp_path: Path) -> None:
    """Two halves of a minibatch in two processes (DDP) make the step that one process makes of the whole."""
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    code = TWO_PROCESSES.format(paths=paths, folder=str(tmp_path))
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=100
    )
    assert run.returncode == 0, run.stderr


def test_example_runs(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its last line is an assertion: MAT's worst group beats ERM's."""
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")  # it sets this, and the global generators
    with torch.random.fork_rng():
        runpy.run_path(str(EXAMPLES / "with_lightning.py"), run_name="__main__")
    assert "worst-group accuracy" in capsys.readouterr().out

"""MAT for a LightningModule that knows nothing of it: two lines change, in the script that trains it.

Real handwritten digits: is it 5 or more? In training the background gives the answer away 19 times in 20; in the
test it does not. Takes about ten seconds.

    python examples/with_lightning.py
"""

import logging
import warnings
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import unrote
from unrote.integrations.lightning import MATCallback

EPOCHS = 20
task = unrote.load_task("digits")
train_set = TensorDataset(task.train.x[torch.arange(len(task.train))], task.train.y)
test_x, test_y = task.test.x[torch.arange(len(task.test))], task.test.y


class Net(LightningModule):
    """A module as one has it; nothing in it is there for MAT."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(128, 256), nn.ReLU(), nn.Linear(256, 2))

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        return self.layers(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Plain cross-entropy."""
        x, y = batch
        return F.cross_entropy(self(x), y)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.parameters(), lr=1e-3)


def worst_group(net: Net) -> float:
    """Accuracy of the group (class and background) that fares worst in the test."""
    with torch.no_grad():
        correct = (net.eval()(test_x).argmax(1) == test_y).float()
    group = task.group(task.test)
    return min(float(correct[group == g].mean()) for g in group.unique())


quiet = {
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", module="lightning")  # "use more workers", for 1,000 rows in memory

# ERM
seed_everything(0, verbose=False)
erm = Net()
loader = DataLoader(train_set, batch_size=128, shuffle=True)
trainer = Trainer(max_epochs=EPOCHS, accelerator="cpu", **quiet)
trainer.fit(erm, loader)

# held-out predictions, and the shift they give
recipe = unrote.Recipe("adam", 1e-3, batch_size=128, epochs=EPOCHS)
logits = unrote.held_out_logits(Net, train_set, recipe=recipe)
shift = unrote.mat_shift(logits, task.train.y, temperature=0.1)

# MAT: the same, but for two lines
seed_everything(0, verbose=False)
mat = Net()
loader = DataLoader(unrote.IndexedDataset(train_set), batch_size=128, shuffle=True)  # 1
trainer = Trainer(max_epochs=EPOCHS, accelerator="cpu", callbacks=[MATCallback(shift)], **quiet)  # 2
trainer.fit(mat, loader)

print(f"worst-group accuracy on the test: ERM {worst_group(erm):.2f}, MAT {worst_group(mat):.2f}")
assert worst_group(mat) > worst_group(erm) + 0.1

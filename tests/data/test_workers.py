"""The same seed gives the same run, however many processes load the examples."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from toys import assert_same_bits, planted_task

from unrote.data import Split, Task
from unrote.data.inputs import DatasetInputs
from unrote.methods import METHODS, Session
from unrote.models import ModuleStack
from unrote.training import Recipe

TASK = planted_task(48)


class Rows(Dataset[Any]):
    def __init__(self, x: Tensor) -> None:
        self.x = x

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> Tensor:
        return self.x[i]


def fitted(workers: int) -> dict[str, Tensor]:
    """MAT of a network with dropout: twins, held-out predictions, and the final model."""

    def loaded(split: Split) -> Split:
        x = split.x[torch.arange(len(split))]
        return Split(DatasetInputs(Rows(x), workers), split.y, split.attribute)

    task = Task("planted", **{name: loaded(split) for name, split in TASK.splits.items()})
    session = Session(
        task.for_regime("none"),
        lambda seeds: ModuleStack(
            lambda: nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Dropout(0.3), nn.Linear(6, 2)), 2, seeds
        ),
        Recipe("adam", 0.02, batch_size=9, epochs=2),
        seed=5,
    )
    mat = METHODS["mat"](temperature=0.1).fit(session)  # type: ignore[call-arg]
    return {**mat.stack.state_dict(), "held-out": mat.artefacts["held_out"].logits}


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_one_and_two_workers_give_the_bits_that_none_gives() -> None:
    alone = fitted(0)
    for workers in (1, 2):
        assert_same_bits(fitted(workers), alone)

"""The one training loop and what it is told."""

from unrote.training.best import EarlyStopping
from unrote.training.divergence import Divergence
from unrote.training.loop import Evaluate, TrainingResult, train
from unrote.training.objective import Batch, Objective, Supervised
from unrote.training.order import Order
from unrote.training.recipe import Recipe
from unrote.training.sharing import processes_of
from unrote.training.updates import LossScale

__all__ = [
    "Batch",
    "Divergence",
    "EarlyStopping",
    "Evaluate",
    "LossScale",
    "Objective",
    "Order",
    "Recipe",
    "Supervised",
    "TrainingResult",
    "processes_of",
    "train",
]

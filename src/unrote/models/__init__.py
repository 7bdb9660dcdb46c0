"""Stacks of models."""

from unrote.models.builders import MODELS, stack_builder
from unrote.models.compute import Compute
from unrote.models.linear_step import LinearStep
from unrote.models.module_stack import ModuleStack, small_cnn
from unrote.models.optimizers import Optimizer, stacked_optimizer
from unrote.models.processes import Processes, Shard, start_processes
from unrote.models.stack import Stack, StackBuilder, TensorStack
from unrote.models.tensor_stacks import StackedLinear, StackedMLP

__all__ = [
    "MODELS",
    "Compute",
    "LinearStep",
    "ModuleStack",
    "Optimizer",
    "Processes",
    "Shard",
    "Stack",
    "StackBuilder",
    "StackedLinear",
    "StackedMLP",
    "TensorStack",
    "small_cnn",
    "stack_builder",
    "stacked_optimizer",
    "start_processes",
]

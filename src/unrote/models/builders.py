"""Stacks by name, so that a method can ask for two more members without knowing what they are."""

import math
from collections.abc import Callable, Sequence

from torch import nn

from unrote.errors import OptionError, UnknownNameError
from unrote.models.module_stack import ModuleStack, small_cnn
from unrote.models.stack import Stack, StackBuilder
from unrote.models.tensor_stacks import StackedLinear, StackedMLP

MODELS = ("linear", "mlp", "cnn")


def stack_builder(
    model: str | Callable[[], nn.Module], shape: tuple[int, ...], n_classes: int
) -> StackBuilder:
    """A function that makes a stack with one member per seed.

    Args:
        model: "linear", "mlp" (one hidden layer of 256), "cnn" (small, for pictures), or a function or class
            without arguments that makes an `nn.Module` with `n_classes` logits.
        shape: of one example; () for examples that are not single tensors.
        n_classes: C.

    Raises:
        UnknownNameError: if there is no model of that name.
        OptionError: if the model cannot take examples of that shape.
    """
    if isinstance(model, nn.Module):
        raise OptionError(
            f"the model is a {type(model).__name__}, which members and twins would share: pass a function "
            "that makes one, such as a lambda"
        )
    if not isinstance(model, str):
        factory = model
        return lambda seeds: ModuleStack(factory, n_classes, seeds)
    if model not in MODELS:
        raise UnknownNameError("model", model, MODELS)
    if not shape:
        raise OptionError(f"model {model!r} takes tensors: pass a function that makes an nn.Module instead")
    if model == "cnn":
        if len(shape) != 3:
            raise OptionError(f"model 'cnn' takes pictures (channels, height, width), not shape {shape}")
        return lambda seeds: ModuleStack(lambda: small_cnn(shape, n_classes), n_classes, seeds)
    n_features = math.prod(shape)

    def build(seeds: Sequence[int]) -> Stack:
        kind = StackedLinear if model == "linear" else StackedMLP
        return kind(n_features, n_classes, seeds)

    return build

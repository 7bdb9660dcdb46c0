"""Models to train from the start, for scores that watch training or need many models."""

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unrote.data.inputs import as_inputs
from unrote.errors import OptionError
from unrote.models import ModuleStack, Stack, StackBuilder, StackedLinear, StackedMLP, stack_builder


def fresh(model: Any, X: Any, y: Any) -> tuple[StackBuilder, int]:
    """A function that makes untrained stacks like a model, and the number of classes.

    Args:
        model: "linear", "mlp" or "cnn"; a stack or what carries one; a module, whose layers are reset; or a
            function without arguments that makes one.
        X: n examples.
        y: (n,) labels, for the number of classes where the model does not tell.

    Raises:
        OptionError: if no untrained model can be made of it.
    """
    shape = as_inputs(X).shape
    n_classes = int(y.max() if isinstance(y, Tensor) else np.max(y)) + 1
    if isinstance(model, str):
        return stack_builder(model, shape, max(n_classes, 2)), max(n_classes, 2)
    if hasattr(model, "coef_"):
        n_classes = len(model.classes_)
        return stack_builder("linear", shape, n_classes), n_classes
    for name in ("stack", "stack_"):
        if not isinstance(model, nn.Module) and hasattr(model, name):
            model = getattr(model, name)
    if isinstance(model, Stack):
        return _like(model), model.n_classes
    if isinstance(model, nn.Module):
        linear = [m for m in model.modules() if isinstance(m, nn.Linear)]
        n_classes = linear[-1].out_features if linear else n_classes
        return _reset(model, n_classes, None), n_classes
    if callable(model):
        return stack_builder(model, shape, max(n_classes, 2)), max(n_classes, 2)
    raise OptionError(
        f"a {type(model).__name__} cannot be trained afresh: 'linear', 'mlp', a stack, an nn.Module or a "
        "function that makes one is wanted"
    )


def _like(stack: Stack) -> StackBuilder:
    if isinstance(stack, StackedLinear):
        features, classes, bias = stack.weight.shape[2], stack.n_classes, stack.bias is not None
        return lambda seeds: StackedLinear(features, classes, seeds, bias=bias)
    if isinstance(stack, StackedMLP):
        hidden, features = stack.hidden_weight.shape[1:]
        classes = stack.n_classes
        return lambda seeds: StackedMLP(features, classes, seeds, hidden=hidden)
    if isinstance(stack, ModuleStack):
        return _reset(stack.members[0], stack.n_classes, stack.head_name)
    raise OptionError(
        f"a {type(stack).__name__} cannot be trained afresh: pass a function that makes a module"
    )


def _reset(module: nn.Module, n_classes: int, head: str | None) -> StackBuilder:
    def factory() -> nn.Module:
        made = copy.deepcopy(module)
        for layer in made.modules():
            own = list(layer.parameters(recurse=False))
            reset = getattr(layer, "reset_parameters", None)
            if own and reset is None:
                raise OptionError(
                    f"layer {type(layer).__name__} cannot be reset: pass a function that makes the module"
                )
            if reset is not None:
                reset()
        return made.train()

    return lambda seeds: ModuleStack(factory, n_classes, seeds, head=head)


def probabilities(stack: Stack, X: Any) -> torch.Tensor:
    """(S, n, C) in evaluation mode, leaving the mode as it was."""
    training = stack.training
    found = stack.predict(X).double().softmax(-1)
    stack.train(training)
    return found

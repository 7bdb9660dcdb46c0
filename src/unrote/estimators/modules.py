"""Which model `module=` stands for."""

import copy
import inspect
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import nn

from unrote.errors import OptionError
from unrote.models import MODELS, StackBuilder, stack_builder

Module = str | type[nn.Module] | nn.Module | Callable[..., nn.Module]
"""What `module=` takes."""

FEW_FEATURES = 32
"""Up to so many features the default model is linear; with more it is a perceptron with one hidden layer."""


def model_builder(
    module: Module | None, parameters: dict[str, Any], shape: Sequence[int], n_classes: int
) -> tuple[StackBuilder, bool]:
    """A function that makes stacks of the model, and whether the model is linear.

    Args:
        module: a name, a class, a factory, a prototype, or None for the default.
        parameters: what the class or factory is called with.
        shape: of one example.
        n_classes: C.

    Raises:
        UnknownNameError: if there is no model of that name.
        OptionError: if `module` is nothing that makes a model, or does not take the parameters.
    """
    if module is None:
        module = "linear" if math.prod(shape) <= FEW_FEATURES else "mlp"
    if isinstance(module, str):
        if parameters:
            raise OptionError(
                f"module__{next(iter(parameters))} is given, but module={module!r} has no parameters: pass an "
                "nn.Module class as module="
            )
        return stack_builder(module, tuple(shape), n_classes), module == "linear"
    if isinstance(module, nn.Module) and not parameters:
        return stack_builder(partial(copy.deepcopy, module), tuple(shape), n_classes), False
    factory = type(module) if isinstance(module, nn.Module) else module
    if not callable(factory):
        raise OptionError(
            f"module={module!r}: {', '.join(map(repr, MODELS))}, an nn.Module or a function that makes one is "
            "wanted"
        )
    _check_call(factory, parameters)
    return stack_builder(partial(factory, **parameters), tuple(shape), n_classes), False


def _check_call(factory: Callable[..., Any], parameters: dict[str, Any]) -> None:
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError):
        return  # written in C: the call itself will tell
    try:
        signature.bind(**parameters)
    except TypeError as error:
        name = getattr(factory, "__name__", repr(factory))
        raise OptionError(
            f"module={name} cannot be called with {', '.join(parameters) or 'no parameters'} ({error}): pass "
            "what it takes as module__NAME=..."
        ) from error

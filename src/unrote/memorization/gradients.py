"""Per-example gradients of any model's loss: whole, by their norms alone, or projected.

A linear layer that sees each example once has the gradient delta a' (and delta for its bias), so its norm is
|delta|^2 (|a|^2 + 1), from one forward and one backward pass ("ghost norm"). Other layers go through torch.func.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

from unrote.data.inputs import Example, as_inputs, map_tensors
from unrote.errors import OptionError
from unrote.memorization.reading import Head, as_stack, labels, read_head
from unrote.models import ModuleStack, Stack, StackedLinear, StackedMLP

Parameters = Literal["head", "all"] | Sequence[str]
"""Whose gradients are meant: the last linear layer's, all, or those whose dotted names begin so."""

Function = Literal["loss", "margin"]
"""Of what: the cross-entropy, or log(p_y / (1 - p_y))."""


def network(model: Any, X: Any, y: Any) -> tuple[Stack, Int[Tensor, " n"]]:
    """The model as a stack of one that can be differentiated, and its labels."""
    if hasattr(model, "coef_") and not isinstance(model, nn.Module):
        model = read_head(model, X, y)
    if isinstance(model, Head):
        linear = StackedLinear(model.weight.shape[1], len(model.weight), bias=model.bias is not None)
        bias = np.zeros(len(model.weight)) if model.bias is None else model.bias
        linear.set_head(torch.from_numpy(model.weight).float(), torch.from_numpy(bias).float())
        if model.bias is None:
            linear.bias = None
        return linear.eval(), torch.from_numpy(model.y)
    stack = as_stack(model)
    return stack, torch.from_numpy(labels(y, len(as_inputs(X)), stack.n_classes))


def chosen(stack: Stack, parameters: Parameters) -> dict[str, Tensor]:
    """The parameters meant, by their names in the stack.

    Raises:
        OptionError: if there are none.
    """
    named = {name: value.detach() for name, value in stack.named_parameters() if value.requires_grad}
    if parameters == "head":
        head = [value for value in stack.live_head() if value is not None]
        if isinstance(stack, ModuleStack):
            ids = {id(value) for value in head}
            named = {name: v.detach() for name, v in stack.named_parameters() if id(v) in ids}
        else:
            named = {name: value for name, value in named.items() if name in ("weight", "bias")}
    elif parameters != "all":
        wanted = tuple(parameters)
        named = {k: v for k, v in named.items() if k.removeprefix("members.0.").startswith(wanted)}
    if not named:
        raise OptionError(f"parameters={parameters!r} are none of the model's: 'head', 'all' or dotted names")
    return named


def as_modules(stack: Stack) -> ModuleStack:
    """The same network as modules, for what needs layers to hook.

    Raises:
        OptionError: if it is made of something else.
    """
    if isinstance(stack, (StackedLinear, StackedMLP)):
        weight, bias = stack.live_head()
        linear = [_linear(weight.detach(), None if bias is None else bias.detach())]
        if isinstance(stack, StackedMLP):
            hidden = _linear(stack.hidden_weight.detach()[0], stack.hidden_bias.detach()[0])
            linear = [hidden, nn.ReLU(), *linear]
        return ModuleStack(lambda: nn.Sequential(nn.Flatten(), *linear), stack.n_classes).eval()
    if not isinstance(stack, ModuleStack):
        raise OptionError(f"a {type(stack).__name__} has no modules: parameters='head' is wanted")
    return stack


def _linear(weight: Tensor, bias: Tensor | None) -> Any:
    out, into = weight.shape
    # an initialiser would draw from the global generator
    layer = nn.utils.skip_init(nn.Linear, into, out, bias=bias is not None, dtype=weight.dtype)
    with torch.no_grad():
        layer.weight.copy_(weight)
        if bias is not None:
            layer.bias.copy_(bias)
    return layer


class ByIndex(nn.Module):
    """A copy of a network that is given the indices of its examples: for libraries that load data themselves.

    Args:
        stack: of one.
        X: n examples.
    """

    def __init__(self, stack: Stack, X: Any) -> None:
        super().__init__()
        modules = as_modules(stack)
        member = copy.deepcopy(modules.members[0])
        self.stack = ModuleStack(lambda: member, stack.n_classes, head=modules.head_name).eval()
        self.inputs = as_inputs(X)

    def forward(self, rows: Int[Tensor, " B"]) -> Float[Tensor, "B C"]:
        """Logits of the examples at `rows`."""
        # so that hooks on the first layer, too, are given a gradient
        x = map_tensors(
            self.stack.place(self.inputs[rows.cpu()]),
            lambda t: t.requires_grad_(torch.is_grad_enabled()) if t.is_floating_point() else t,
        )
        logits: Tensor = self.stack(x)[0]
        return logits

    def layers(self, parameters: Parameters) -> dict[str, nn.Module]:
        """The layers whose own parameters are meant, by their names in this module.

        Raises:
            OptionError: if only some of a layer's parameters are.
        """
        named, found = chosen(self.stack, parameters), {}
        for name, layer in self.stack.named_modules():
            own = [f"{name}.{part}" for part, _ in layer.named_parameters(recurse=False)]
            if not any(part in named for part in own):
                continue
            if not all(part in named for part in own):
                raise OptionError(f"parameters={parameters!r}: of layer {name!r} all or none are wanted")
            found[f"stack.{name}"] = layer
        return found


def per_example(
    stack: Stack,
    X: Any,
    y: Int[Tensor, " n"],
    parameters: Parameters = "all",
    *,
    of: Function = "loss",
    batch_size: int = 64,
) -> Iterator[tuple[slice, Float[Tensor, "B P"]]]:
    """Slices of the examples with the gradient of each as a row.

    Args:
        stack: of one, in evaluation mode.
        X: n examples.
        y: (n,) labels.
        parameters: whose.
        of: the loss, or the margin.
        batch_size: examples at once.
    """
    named, inputs = chosen(stack, parameters), as_inputs(X)
    rest = {k: v.detach() for k, v in (*stack.named_parameters(), *stack.named_buffers()) if k not in named}

    def value(moving: dict[str, Tensor], x: Example, label: Tensor) -> Tensor:
        one = map_tensors(x, lambda t: t.unsqueeze(0))
        logits = functional_call(stack, {**rest, **moving}, (one,))[0, 0]
        return objective(logits.unsqueeze(0), label.unsqueeze(0), of)[0]

    each = vmap(grad(value), in_dims=(None, 0, 0), randomness="error")
    for start in range(0, len(inputs), batch_size):
        rows = torch.arange(start, min(start + batch_size, len(inputs)))
        found = each(named, stack.place(inputs[rows]), y[rows].to(stack.device))
        yield slice(start, int(rows[-1]) + 1), torch.cat([found[k].flatten(1) for k in named], 1)


def objective(logits: Float[Tensor, "B C"], y: Int[Tensor, " B"], of: Function) -> Float[Tensor, " B"]:
    """Cross-entropy, or log p_y - log(1 - p_y), of each example."""
    if of == "loss":
        return F.cross_entropy(logits, y, reduction="none")
    own = logits.gather(1, y.unsqueeze(1)).squeeze(1)
    hidden = torch.arange(logits.shape[1], device=y.device) == y.unsqueeze(1)  # vmap has no one_hot
    return own - logits.masked_fill(hidden, -torch.inf).logsumexp(1)


def squared_norms(
    model: Any, X: Any, y: Any, parameters: Parameters = "head", *, batch_size: int = 256
) -> Float[np.ndarray, " n"]:
    """Squared norm of each example's loss gradient, (n,), by the cheapest way there is.

    Args:
        model: any model that can be read.
        X: n examples.
        y: (n,) labels.
        parameters: whose.
        batch_size: examples at once.
    """
    stack, target = network(model, X, y)
    if parameters == "head" or (parameters == "all" and isinstance(stack, StackedLinear)):
        return head_norms(read_head(stack, X, target))
    if parameters == "all" and isinstance(stack, ModuleStack) and only_linear(stack.members[0]):
        total = np.zeros(len(target))
        for rows, layers in layer_signals(stack, X, target, batch_size=batch_size):
            total[rows] = sum(_ghost(a, d, bias) for a, d, bias in layers)
        return total
    total = np.empty(len(target))
    for rows, g in per_example(stack, X, target, parameters):
        total[rows] = (g * g).sum(1).double().cpu().numpy()
    return total


def _ghost(a: Tensor, delta: Tensor, bias: bool) -> np.ndarray:
    squares = (a * a).sum(1) + bias
    result: np.ndarray = ((delta * delta).sum(1) * squares).double().cpu().numpy()
    return result


def head_norms(head: Head) -> Float[np.ndarray, " n"]:
    """Squared norm of each example's gradient by the head's parameters: |r|^2 (|a|^2 + 1)."""
    from unrote.memorization.hessian import residuals

    data = head.data()
    r = residuals(data.p, head.y)
    result: np.ndarray = np.einsum("ic,ic->i", r, r) * data.squared_norms()
    return result


def draw_labels(logits: Float[Tensor, "B C"], chance: Float[Tensor, " B"]) -> Int[Tensor, " B"]:
    """Labels drawn from the model, by uniform numbers in [0, 1)."""
    below = logits.softmax(1).cumsum(1) < chance.to(logits.device).unsqueeze(1)
    return below.sum(1).clamp_max(logits.shape[1] - 1)


def only_linear(module: nn.Module) -> bool:
    """Whether all parameters that train are those of linear layers."""
    layers = [m for m in module.modules() if any(p.requires_grad for p in m.parameters(recurse=False))]
    return bool(layers) and all(type(m) is nn.Linear for m in layers)


def layer_signals(
    stack: ModuleStack,
    X: Any,
    y: Int[Tensor, " n"],
    *,
    batch_size: int = 256,
    target: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> Iterator[tuple[slice, list[tuple[Tensor, Tensor, bool]]]]:
    """What each linear layer is given and the gradient of the loss by what it gives, per example.

    Args:
        stack: a module all of whose trained layers are linear, each used once.
        X: n examples.
        y: (n,) labels.
        batch_size: examples at once.
        target: replaces labels, given logits and labels; for labels drawn from the model.

    Raises:
        OptionError: if a layer is used more than once, or on several positions.
    """
    inputs = as_inputs(X)
    layers = [m for m in stack.members[0].modules() if type(m) is nn.Linear]
    for start in range(0, len(inputs), batch_size):
        rows = torch.arange(start, min(start + batch_size, len(inputs)))
        given: dict[nn.Module, tuple[Tensor, Tensor]] = {}

        def keep(layer: nn.Module, args: Any, out: Tensor, given: Any = given) -> None:
            if layer in given or args[0].ndim != 2:
                raise OptionError(
                    "a linear layer is used more than once or on several positions: parameters='head', or "
                    "names of other parameters, is wanted"
                )
            given[layer] = args[0].detach(), out

        hooks = [layer.register_forward_hook(keep) for layer in layers]
        try:
            logits = stack(stack.place(inputs[rows]))[0]
        finally:
            for hook in hooks:
                hook.remove()
        label = y[rows].to(stack.device)
        label = label if target is None else target(logits.detach(), label)
        used = [layer for layer in layers if layer in given]
        deltas = torch.autograd.grad(objective(logits, label, "loss").sum(), [given[m][1] for m in used])
        signals = [(given[m][0], d, m.bias is not None) for m, d in zip(used, deltas, strict=True)]
        yield slice(start, int(rows[-1]) + 1), signals

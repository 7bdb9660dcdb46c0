"""How modules are computed: precision, compilation, memory format, minibatches in parts."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from unrote.data.inputs import Example, batch_length, map_tensors
from unrote.errors import OptionError

Precision = Literal["float32", "bf16", "fp16"]


@dataclass(frozen=True)
class Compute:
    """How the modules of a `ModuleStack` are computed; the default is plain PyTorch.

    Args:
        precision: of products and convolutions: "float32" as they come, or "bf16" or "fp16" by autocast. Parameters,
            logits and losses stay in float32. In fp16 each member's loss is scaled (`training.LossScale`).
        compile: True compiles each module with torch.compile; a name is its backend.
        channels_last: whether pictures and convolutions have their channels last in memory, which GPUs prefer.
        part: examples computed at a time; a larger minibatch accumulates its gradient over parts. The loss is that
            of the whole minibatch, so each part is computed twice: first for its logits, then for its gradient.
            Batch norm normalises within a part. None computes minibatches whole.
        fused: whether the optimiser updates all parameters in one kernel.

    Raises:
        OptionError: if a value is out of range.
    """

    precision: Precision = "float32"
    compile: bool | str = False
    channels_last: bool = False
    part: int | None = None
    fused: bool = True

    def __post_init__(self) -> None:
        if self.precision not in ("float32", "bf16", "fp16"):
            raise OptionError(f"precision={self.precision!r}: 'float32', 'bf16' or 'fp16' is wanted")
        if self.part is not None and self.part < 1:
            raise OptionError(f"part={self.part}: at least 1 example, or None, is wanted")

    def apply(self, module: nn.Module) -> None:
        """Prepare a module, in place."""
        if self.channels_last:
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def compiled(self, module: nn.Module) -> Callable[..., Any] | None:
        """What to call in place of a module; None where that is the module itself."""
        if not self.compile:
            return None
        # not module.compile(), which leaves an nn.Sequential as it is
        backend = self.compile if isinstance(self.compile, str) else "inductor"
        compiled: Callable[..., Any] = torch.compile(module, backend=backend)
        return compiled

    def arrange(self, x: Example) -> Example:
        """A minibatch as the module likes it in memory."""
        if not self.channels_last:
            return x

        def last(t: Tensor) -> Tensor:
            return t.contiguous(memory_format=torch.channels_last) if t.ndim == 4 else t

        return map_tensors(x, last)

    def autocast(self, device: torch.device) -> AbstractContextManager[Any]:
        """The context in which a module is called."""
        if self.precision == "float32":
            return nullcontext()
        dtype = torch.bfloat16 if self.precision == "bf16" else torch.float16
        return torch.autocast(device.type, dtype)

    def widen(self, values: Tensor) -> Tensor:
        """What came out of autocast, in float32."""
        return values if self.precision == "float32" else values.float()

    def in_parts(self, module: nn.Module, logits: Callable[[Example], Tensor], x: Example) -> Tensor:
        """Logits of a minibatch, of which only one part's activations are in memory at a time.

        Args:
            module: whose logits they are.
            logits: of some examples; draws the same random numbers at every call.
            x: the minibatch.
        """
        n = batch_length(x)
        if self.part is None or n <= self.part or not torch.is_grad_enabled():
            return logits(x)
        done = []
        for start in range(0, n, self.part):
            rows = map_tensors(x, lambda t, start=start: t[start : start + self.part])
            out: Any = checkpoint(
                logits,
                rows,
                use_reentrant=False,
                preserve_rng_state=False,  # `logits` seeds what it draws from
                context_fn=lambda: (nullcontext(), buffers_kept(module)),
            )
            done.append(out)
        return torch.cat(done)


@contextmanager
def buffers_kept(module: nn.Module) -> Iterator[None]:
    """Leave the statistics of batch norm as they were: what is computed meanwhile is not counted."""
    kept = [buffer.clone() for buffer in module.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in zip(module.buffers(), kept, strict=True):
                # past autograd, which has batch norm's statistics to hand and in training does not look at them
                buffer.data.copy_(value)

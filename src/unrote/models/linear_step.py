"""A training step of linear heads in one call of compiled code."""

import ctypes
from ctypes import c_double, c_int64, c_void_p

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unrote.compiled import NUMBERS, library
from unrote.data.inputs import ArrayInputs, Inputs
from unrote.errors import DataError
from unrote.models.optimizers import Optimizer, StackedSGD
from unrote.models.stack import Stack
from unrote.models.tensor_stacks import StackedLinear
from unrote.supervision import Supervision

_MOST_CLASSES = 1024
# multiplications of a step's product
_WORTH_THREADS = 2**19
_MOST = 2**26  # PyTorch is as fast above
_MOST_OF_ONE = 2**22  # by one thread, where PyTorch has several


class _Step(ctypes.Structure):
    """`struct step` of linear_step.c, member by member."""

    _fields_ = (
        ("members", c_int64),
        ("classes", c_int64),
        ("features", c_int64),
        ("batch", c_int64),
        ("x", c_void_p),
        ("rows", c_void_p),
        ("index", c_void_p),
        ("stride", c_int64),
        ("target", c_void_p),
        ("target_stride", c_int64),
        ("weight", c_void_p),
        ("weight_stride", c_int64),
        ("shift", c_void_p),
        ("shift_stride", c_int64),
        ("class_balanced", c_int64),
        ("head", c_void_p),
        ("bias", c_void_p),
        ("head_velocity", c_void_p),
        ("bias_velocity", c_void_p),
        ("rate", c_void_p),
        ("decay", c_void_p),
        ("momentum", c_double),
        ("columns", c_void_p),
        ("values", c_void_p),
        ("sums", c_void_p),
        ("losses", c_void_p),
        ("logits", c_void_p),
        ("threads", c_int64),
    )


class LinearStep:
    """Logits, loss, gradient and SGD's update of linear heads, without a tensor in between.

    It does what `Stack.write_gradients` and the optimiser's `step` do one after the other, in half the time or less,
    and leaves no gradient.

    Args:
        stack: on the CPU.
        optimizer: whose rates and momentum are used; momentum is kept where it keeps it.
        compiled: `linear_step` for the heads' type of number.
        n_examples: n.
        examples: (n, d) all of them, read where they lie; None if minibatches are handed over.
    """

    def __init__(
        self,
        stack: StackedLinear,
        optimizer: StackedSGD,
        compiled: ctypes.CDLL,
        n_examples: int,
        examples: Float[Tensor, "n d"] | None = None,
    ) -> None:
        self.stack, self.optimizer, self.n_examples, self.examples = stack, optimizer, n_examples, examples
        self._compiled = compiled.linear_step
        self._trained = stack.weight, stack.bias
        weight, self._columns = stack.weight, _columns(stack)
        self._rate, self._decay = optimizer.rates(weight.dtype)
        members, features = stack.n_members, weight.shape[-1]
        # one span of the largest kind of vector, 4 x 64 bytes, for each column
        self._sums = weight.new_empty(self._columns, 256 // weight.element_size())
        self._differences = weight.new_empty(members if stack.n_classes == 2 else 0, features)
        self._values = weight.new_empty(0)
        self._in_order = torch.arange(0)
        self._step = _Step(
            members=members,
            classes=stack.n_classes,
            features=features,
            rate=self._rate.data_ptr(),
            decay=self._decay.data_ptr(),
            momentum=optimizer.momentum,
            columns=self._differences.data_ptr(),
            sums=self._sums.data_ptr(),
        )
        self._asked: tuple[Supervision, bool] | None = None

    @classmethod
    def of(cls, stack: Stack, optimizer: Optimizer, inputs: Inputs, batch_size: int) -> "LinearStep | None":
        """The step of a stack with its optimiser and examples; None where PyTorch must take it, or is faster."""
        if type(stack) is not StackedLinear or not isinstance(optimizer, StackedSGD):
            return None
        weight = stack.weight
        if weight.device.type != "cpu" or weight.dtype not in NUMBERS or stack.n_classes > _MOST_CLASSES:
            return None
        if not all(p.requires_grad and p.is_contiguous() for p in stack.parameters()):
            return None
        # members are shared among threads, so that few members have few
        enough_members = len(weight) >= torch.get_num_threads()
        most = _MOST if enough_members else len(weight) * _MOST_OF_ONE
        if batch_size * _columns(stack) * weight.shape[-1] > most:
            return None
        compiled = library("linear_step", REAL=NUMBERS[weight.dtype])
        if compiled is None:
            return None
        tensor = inputs.tensor if isinstance(inputs, ArrayInputs) else None
        if tensor is None or tensor.dtype != weight.dtype or not tensor.is_contiguous():
            return cls(stack, optimizer, compiled, len(inputs))
        held = tensor.flatten(1) if tensor.device.type == "cpu" else None
        return cls(stack, optimizer, compiled, len(inputs), held)

    def accepts(self, supervision: Supervision) -> bool:
        """Whether compiled code can read what training tells the loss, and the heads are those it began with.

        Raises:
            DataError: if it does not fit the examples or the heads.
        """
        if self._asked is None or self._asked[0] is not supervision:
            self._asked = supervision, self._reads(supervision)
        return (
            self._asked[1] and self._trained[0] is self.stack.weight and self._trained[1] is self.stack.bias
        )

    def _reads(self, supervision: Supervision) -> bool:
        supervision.check(self.n_examples, self.stack.n_members, self.stack.n_classes)
        dtype = self.stack.weight.dtype
        wanted = ((supervision.target, torch.int64), (supervision.weight, dtype), (supervision.shift, dtype))
        return all(
            value is None or (value.dtype == kind and value.is_contiguous() and value.device.type == "cpu")
            for value, kind in wanted
        )

    @torch.no_grad()
    def take(
        self, x: Tensor | None, index: Int[Tensor, "*S B"], supervision: Supervision
    ) -> tuple[Float[Tensor, " S"], Float[Tensor, "S B C"]]:
        """Take the step; gives each member's loss and logits before it, of two classes with the first's at 0.

        Args:
            x: the minibatch (B, ...), or (S, B, ...) if each member has its own; None where all examples are at hand.
            index: which examples they are.
            supervision: of all examples; see `accepts`.

        Raises:
            DataError: if a target is no class.
        """
        weight, bias = self._trained
        size, index = index.shape[-1], index.contiguous()
        if self.examples is not None:
            x, rows = self.examples, index
        else:
            assert x is not None
            x = x.reshape(index.numel(), -1).to(weight.dtype).contiguous()
            rows = self._rows_in_order(index.numel())
        losses = weight.new_empty(len(weight))
        logits = weight.new_empty(len(weight), size, self.stack.n_classes)
        if len(self._values) < size:
            self._values = weight.new_empty(size, self._columns)
        step = self._step
        step.batch, step.x, step.values = size, x.data_ptr(), self._values.data_ptr()
        step.rows, step.index = rows.data_ptr(), index.data_ptr()
        step.stride = index.shape[-1] if index.ndim == 2 else 0
        step.losses, step.logits = losses.data_ptr(), logits.data_ptr()
        step.head, step.head_velocity = weight.data_ptr(), self._velocity(weight)
        step.bias, step.bias_velocity = _address(bias), self._velocity(bias)
        step.target, step.target_stride = _by_member(supervision.target, 1)
        step.weight, step.weight_stride = _by_member(supervision.weight, 1)
        step.shift, step.shift_stride = _by_member(supervision.shift, 2)
        work = size * self._columns * weight.shape[-1]
        step.threads = torch.get_num_threads() if work > _WORTH_THREADS else 1
        step.class_balanced = supervision.reduction == "class_balanced"
        if self._compiled(ctypes.byref(step)):
            raise DataError(f"a target is no class: 0 to {self.stack.n_classes - 1} is wanted")
        return losses, logits

    def _rows_in_order(self, n: int) -> Int[Tensor, " _"]:
        if len(self._in_order) < n:
            self._in_order = torch.arange(n)
        return self._in_order

    def _velocity(self, p: Tensor | None) -> int | None:
        """Where the optimiser keeps the momentum of a parameter; it begins at 0."""
        if p is None or not self.optimizer.momentum:
            return None
        kept = self.optimizer.state.setdefault(p, {})
        if "momentum" not in kept:
            kept["momentum"] = torch.zeros_like(p)
        return kept["momentum"].data_ptr()


def _columns(stack: StackedLinear) -> int:
    """How many columns a minibatch is multiplied by: one for a head of two classes, else one for each class."""
    return stack.n_members * (1 if stack.n_classes == 2 else stack.n_classes)


def _address(values: Tensor | None) -> int | None:
    return None if values is None else values.data_ptr()


def _by_member(values: Tensor | None, plain: int) -> tuple[int | None, int]:
    """Address, and elements from one member to the next: 0 where all share (n, ...), of `plain` dimensions."""
    if values is None:
        return None, 0
    own = values.ndim > plain and len(values) > 1
    return values.data_ptr(), values.stride(0) if own else 0

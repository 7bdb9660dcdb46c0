"""Any `nn.Module` as a member: a list of modules behind the interface of a stack."""

import copy
import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from unrote.data.inputs import Example, batch_length, map_tensors
from unrote.errors import OptionError
from unrote.models.compute import Compute, buffers_kept
from unrote.models.processes import Processes
from unrote.models.sharding import like, shard, whole
from unrote.models.stack import Stack
from unrote.seeding import global_seed


class ModuleStack(Stack):
    """S modules. A member does no work for an example that is not asked of it.

    Args:
        factory: called once per member (in shards, once more for a copy), with torch's generators seeded for it;
            gives a module that maps a minibatch (B, ...) to logits (B, C), or to an object with `.logits` (as
            Hugging Face models do). A mapping is passed as keyword arguments, a tuple as positional ones.
        n_classes: C.
        seeds: one per member.
        head: dotted name of the linear layer that gives the logits, for methods that use features; default the
            last `nn.Linear` of the module (as in `nn.Sequential` and Hugging Face's classifiers).
        compute: how the modules are computed: precision, compilation, memory; the default is plain PyTorch.
        processes: among which every minibatch is split; None computes all of it here. See `start_processes`.

    Raises:
        OptionError: if the factory does not give an `nn.Module`, a new one each time; or if parameters are to be
            sharded, which cannot be.
    """

    predict_batch_size = 256

    def __init__(
        self,
        factory: Callable[[], nn.Module],
        n_classes: int,
        seeds: Sequence[int] = (0,),
        *,
        head: str | None = None,
        compute: Compute | None = None,
        processes: Processes | None = None,
    ) -> None:
        super().__init__(seeds, n_classes)
        self.head_name, self.compute, self.processes = head, compute or Compute(), processes
        self.members = nn.ModuleList(self._make(factory, seed) for seed in seeds)
        if len(set(self.members)) < len(seeds):
            raise OptionError("the factory gave one module twice: a new one at each call is wanted")
        # kept where modules cannot be copied
        self._factory = factory if processes is not None and processes.shard else None
        if self.sharded:
            self._shard()
        else:
            for module in self.members:
                self.compute.apply(module)
        # in a list, so that they are no modules of the stack's beside the members
        self._compiled = [self.compute.compiled(module) for module in self.members]
        if processes is not None:
            self.to(processes.device)

    @staticmethod
    def _make(factory: Callable[[], nn.Module], seed: int) -> nn.Module:
        with global_seed(seed, "init"):
            module = factory()
        if not isinstance(module, nn.Module):
            raise OptionError(
                f"the factory gave a {type(module).__name__}: "
                "a function or class that makes an nn.Module is wanted"
            )
        return module

    @property
    def sharded(self) -> bool:
        """Whether each process has a slice of the parameters; all must then ask for them together."""
        return self.processes is not None and self.processes.shard

    def forward(
        self, x: Example, where: Bool[Tensor, "*S B"] | None = None, *, per_member: bool = False
    ) -> Float[Tensor, "S B C"]:
        """See `Stack.forward`; logits that are not wanted are 0."""
        if (processes := self.processes) is None:
            return self._here(x, where, per_member)
        own, size = processes.take(x, int(per_member))
        rows = processes.rows(size)
        asked = self._asked(where) if self.sharded else None
        if rows.stop > rows.start:
            logits = self._here(own, None if where is None else where[..., rows], per_member, asked)
        elif asked is not None:
            logits = self._here(own, torch.zeros(1, dtype=torch.bool), per_member, asked)[:, :0]
        else:
            logits = torch.zeros(self.n_members, 0, self.n_classes, device=self.device)
        return processes.gather(logits.to(self._dtype), size)

    def _asked(self, where: Bool[Tensor, "*S B"] | None) -> Sequence[bool]:
        """Which members some process computes, as all know of all rows."""
        asked = torch.ones(1, dtype=torch.bool) if where is None else where.any(-1)
        found: list[bool] = asked.expand(self.n_members).tolist()
        return found

    def _here(
        self,
        x: Example,
        where: Bool[Tensor, "*S B"] | None,
        per_member: bool,
        asked: Sequence[bool] | None = None,
    ) -> Float[Tensor, "S B C"]:
        """Logits of every member, computed by this process."""
        return torch.stack(
            [
                self._member(
                    member,
                    map_tensors(x, lambda t, m=member: t[m]) if per_member else x,
                    None if where is None else where[member] if where.ndim == 2 else where,
                    asked is not None and asked[member],
                )
                for member in range(self.n_members)
            ]
        )

    def _member(
        self, member: int, x: Example, where: Bool[Tensor, " B"] | None, asked: bool
    ) -> Float[Tensor, "B C"]:
        if where is None or bool(where.all()):
            return self._logits(member, x)
        logits = torch.zeros(batch_length(x), self.n_classes, device=self.device)
        if bool(where.any()):
            rows = where.nonzero().squeeze(1)
            wanted = self._logits(member, map_tensors(x, lambda t: t.index_select(0, rows)))
            logits = logits.to(wanted.dtype).index_copy(0, rows, wanted)
        elif asked:
            logits = logits + self._idle(member, x)
        return logits

    def _idle(self, member: int, x: Example) -> Float[Tensor, ""]:
        """0, by way of a member that other processes compute: shards are gathered, and gradients added up, by all."""
        # an example twice, as batch norm wants two; what it counts of them is dropped
        twice = map_tensors(x, lambda t: t[:1].expand(2, *t.shape[1:]))
        with buffers_kept(self.members[member]):
            return self._logits(member, twice)[:0].sum()

    def _logits(self, member: int, x: Example) -> Float[Tensor, "B C"]:
        module = self.members[member]
        call = self._compiled[member] or module
        if not self.training:
            return self._call(call, x)
        rank = 0 if self.processes is None else self.processes.rank
        purpose: list[str | int] = ["forward", self.step, *([rank] if rank else [])]

        def logits(x: Example) -> Tensor:
            # dropout and its like draw from torch's global generators: seeded per (member, step), so that a run
            # resumed or moved to another stack draws the same
            with global_seed(self.seeds[member], *purpose, device=self.device):
                return self._call(call, x)

        return self.compute.in_parts(module, logits, x)

    def _call(self, module: Callable[..., Any], x: Example) -> Float[Tensor, "B C"]:
        x = self.compute.arrange(x)
        with self.compute.autocast(self.device):
            output: Any = (
                module(**x) if isinstance(x, dict) else module(*x) if isinstance(x, tuple) else module(x)
            )
        logits: Tensor = getattr(output, "logits", output)
        if logits.ndim != 2 or logits.shape[1] != self.n_classes:
            raise OptionError(
                f"the module gave logits of shape {tuple(logits.shape)}: (batch, {self.n_classes}) is wanted, "
                "one logit per class"
            )
        return self.compute.widen(logits)

    def features_and_logits(
        self, x: Example, *, per_member: bool = False
    ) -> tuple[Float[Tensor, "S B F"], Float[Tensor, "S B C"]]:
        """See `Stack.features_and_logits`; the features are what the head module is given."""
        if (processes := self.processes) is None:
            return self._features_here(x, per_member)
        own, size = processes.take(x, int(per_member))
        rows = processes.rows(size)
        features, logits = self._features_here(own, per_member)
        mine = slice(0, rows.stop - rows.start)
        gathered = [processes.gather(part[:, mine].to(self._dtype), size) for part in (features, logits)]
        return gathered[0], gathered[1]

    @property
    def _dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype

    def _features_here(
        self, x: Example, per_member: bool
    ) -> tuple[Float[Tensor, "S B F"], Float[Tensor, "S B C"]]:
        given: list[Tensor] = []
        # a compiled module may overlook a hook that it was compiled without
        compiled, self._compiled = self._compiled, [None] * self.n_members
        hooks = [
            self._head(member).register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
            for member in self.members
        ]
        try:
            logits = self._here(x, None, per_member)
        finally:
            self._compiled = compiled
            for hook in hooks:
                hook.remove()
        return torch.stack([self.compute.widen(features.flatten(1)) for features in given]), logits

    def share_gradients(self) -> None:
        """Add up the processes' gradients, and average what modules count as they train (batch norm)."""
        if self.processes is not None:
            if not self.sharded:  # else they were in the backward pass
                self.processes.sum_gradients(self.parameters())
            self.processes.average([b for b in self.buffers() if b.is_floating_point()])

    @property
    def learns_features(self) -> bool:
        """See `Stack.learns_features`; not so where all that is trained is the head."""
        module = self.members[0]
        head = set(self._head(module).parameters()) if self.has_head else set()
        return any(p.requires_grad and p not in head for p in module.parameters())

    @property
    def has_head(self) -> bool:
        """See `Stack.has_head`."""
        try:
            self._head(self.members[0])
        except OptionError:
            return False
        return True

    @property
    def takes_features(self) -> bool:
        """See `Stack.takes_features`."""
        return all(type(module) is nn.Linear for module in self.members)

    def live_head(self, member: int = 0) -> tuple[Float[Tensor, "C F"], Float[Tensor, " C"] | None]:
        """See `Stack.live_head`.

        Raises:
            OptionError: if parameters are sharded.
        """
        if self.sharded:
            raise OptionError(
                "the last layer's parameters are sharded: `head` and `set_head` copy them, and a loss that uses "
                "them wants processes without shard=True"
            )
        head = self._head(self.members[member])
        return head.weight, head.bias

    def head(self, member: int = 0) -> tuple[Float[Tensor, "C F"], Float[Tensor, " C"]]:
        """See `Stack.head`."""
        if not self.sharded:
            return super().head(member)
        head = self._head(self.members[member])
        weight = whole(head.weight.detach()).to(self.device)
        bias = weight.new_zeros(len(weight)) if head.bias is None else whole(head.bias.detach()).to(weight)
        return weight, bias

    @torch.no_grad()
    def set_head(self, weight: Float[Tensor, "C F"], bias: Float[Tensor, " C"], member: int = 0) -> None:
        """See `Stack.set_head`.

        Raises:
            OptionError: if parameters are sharded and the layer has no bias.
        """
        head = self._head(self.members[member])
        head.weight.copy_(like(weight.to(head.weight.dtype), head.weight))
        if not self.sharded:
            head.bias = nn.Parameter(bias.to(head.weight))
        elif head.bias is not None:
            head.bias.copy_(like(bias.to(head.bias.dtype), head.bias))
        else:
            raise OptionError("a sharded last layer without bias can be given none: make it with one")

    def _head(self, module: nn.Module) -> nn.Linear:
        if self.head_name is not None:
            named = dict(module.named_modules()).get(self.head_name)
            if isinstance(named, nn.Linear):
                return named
        else:
            linear = [m for m in module.modules() if isinstance(m, nn.Linear)]
            if linear and linear[-1].out_features == self.n_classes:
                return linear[-1]
        raise OptionError(
            f"the head of {type(module).__name__} was not found: the last nn.Linear must give one logit per "
            "class, or head= must name the module that does, such as 'classifier'"
        )

    def optimizer(
        self, name: str, learning_rate: Sequence[float], weight_decay: Sequence[float], momentum: float
    ) -> torch.optim.Optimizer:
        """See `Stack.optimizer`: torch's own (fused, as `compute` says), with a group of parameters per member."""
        groups = [
            {"params": list(module.parameters()), "lr": rate, "weight_decay": decay}
            for module, rate, decay in zip(self.members, learning_rate, weight_decay, strict=True)
        ]
        fused = self.compute.fused
        if name == "sgd":
            # of the fused kernels SGD's alone takes no shards
            fused = fused and not self.sharded
            return torch.optim.SGD(groups, lr=learning_rate[0], momentum=momentum, fused=fused)
        kind = torch.optim.AdamW if name == "adamw" else torch.optim.Adam
        return kind(groups, lr=learning_rate[0], fused=fused)

    def copy_members(self, target: dict[str, Tensor], members: Bool[Tensor, " S"]) -> None:
        """See `Stack.copy_members`."""
        for name, value in self.state_dict().items():
            if members[int(name.split(".")[1])]:
                target[name].copy_(value)

    def select(self, members: Sequence[int]) -> "ModuleStack":
        """See `Stack.select`."""
        chosen = copy.copy(self)
        chosen.seeds = tuple(self.seeds[m] for m in members)
        chosen._modules = {"members": nn.ModuleList(self._copied(m) for m in members)}
        chosen._compiled = [self.compute.compiled(module) for module in chosen.members]
        return chosen

    @torch.no_grad()
    def _copied(self, member: int) -> nn.Module:
        module = self.members[member]
        if self._factory is None:
            return copy.deepcopy(module)
        assert self.processes is not None
        copied = self._make(self._factory, self.seeds[member])
        shard(copied, self.processes)
        kept = (*module.parameters(), *module.buffers())
        for new, old in zip((*copied.parameters(), *copied.buffers()), kept, strict=True):
            new.copy_(old)
        return copied.train(module.training)

    def _shard(self) -> None:
        """Shard every member, and have states come and go whole.

        Raises:
            OptionError: if the modules are computed in a way that does not go with it.
        """
        assert self.processes is not None
        if self.compute.part is not None or self.compute.compile:
            raise OptionError(
                "sharded parameters go with neither Compute(part=) nor Compute(compile=): leave them out"
            )
        for module in self.members:
            shard(module, self.processes)
        self.register_state_dict_post_hook(_gather_state)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_shard_state)  # type: ignore[no-untyped-call]

    def __repr__(self) -> str:
        """The layers, by the names they have without shards: either stack can go on from the other's checkpoints."""
        return re.sub(r"\bFSDP(?=\w+\()", "", super().__repr__())


def _gather_state(_module: nn.Module, state: dict[str, Any], _prefix: str, _metadata: Any) -> None:
    """Make a state whole as it is taken."""
    state.update({name: whole(value) for name, value in state.items()})


def _shard_state(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Shard a whole state as it is loaded."""
    for name, parameter in module.named_parameters():
        if isinstance(value := state.get(prefix + name), Tensor):
            state[prefix + name] = like(value, parameter)


def small_cnn(shape: tuple[int, ...], n_classes: int, channels: Sequence[int] = (8, 16)) -> nn.Sequential:
    """A convolutional network for small pictures: strided 3x3 layers, then a linear head on all positions.

    Args:
        shape: (channels, height, width) of a picture.
        n_classes: C.
        channels: of each layer; each halves height and width.
    """
    layers: list[nn.Module] = []
    incoming, height, width = shape
    for outgoing in channels:
        layers += [nn.Conv2d(incoming, outgoing, 3, stride=2, padding=1), nn.ReLU()]
        incoming, height, width = outgoing, (height + 1) // 2, (width + 1) // 2
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(incoming * height * width, n_classes))

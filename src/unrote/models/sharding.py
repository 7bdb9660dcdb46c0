"""Parameters in shards: each process keeps its slice of every parameter, its gradient, and the optimiser's moments.

    before a block is computed     gather its parameters; afterwards keep this process's slice alone
    in the backward pass           gather them again, add up the processes' gradients, keep the slice
    the optimiser                  updates the slice

This is PyTorch's `fully_shard` (FSDP2; Zhao et al. 2023, arXiv 2304.11277). Blocks are the elements of a module's
`nn.ModuleList`s, such as a transformer's layers; what is left is gathered with the module.
"""

from collections.abc import Sequence
from typing import NoReturn

from torch import Tensor, nn

from unrote.errors import MissingPackageError, OptionError
from unrote.models.processes import Processes


def shard(module: nn.Module, processes: Processes) -> None:
    """Leave this process its slice of a module's parameters, in place, on its device.

    Args:
        module: the same on all processes.
        processes: all of which must do this, and from now on call the module together.

    Raises:
        MissingPackageError: if PyTorch is too old.
        OptionError: if the module has a parameter that cannot be sharded.
    """
    try:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import FSDPModule, fully_shard

        force_sum = FSDPModule.set_force_sum_reduction_for_comms
    except (ImportError, AttributeError) as error:
        raise MissingPackageError("shard=True needs PyTorch 2.8 or newer") from error
    mesh = init_device_mesh(processes.device.type, (processes.count,))
    try:
        for part in (*_blocks(module), module):
            fully_shard(part, mesh=mesh, reshard_after_forward=True)
    except (ValueError, NotImplementedError) as error:
        raise OptionError(
            f"{type(module).__name__} cannot be sharded ({error}): change it, or train it without shard=True"
        ) from error
    for part in module.modules():
        if isinstance(part, FSDPModule):
            # the loss is that of the whole minibatch already, so that gradients add up to its own
            part.set_gradient_divide_factor(1.0)
            force_sum(part, True)
    module.__deepcopy__ = _refuse_copy  # type: ignore[assignment]


def _refuse_copy(_memo: object) -> NoReturn:
    raise OptionError(
        "a module in shards cannot be copied as it is: `select` of its stack copies a member, and `state_dict` gives "
        "whole tensors, for a stack without shards"
    )


def _blocks(module: nn.Module) -> Sequence[nn.Module]:
    """The elements of its outermost lists of modules; none where they share parameters with anything."""
    lists = [part for part in module.modules() if isinstance(part, nn.ModuleList)]
    inside = {id(part) for modules in lists for block in modules for part in block.modules()}
    blocks = list(dict.fromkeys(b for modules in lists if id(modules) not in inside for b in modules))
    owners = [list(block.parameters()) for block in blocks]
    owners.append(
        [p for part in module.modules() if id(part) not in inside for p in part.parameters(recurse=False)]
    )
    held = [id(p) for owned in owners for p in {id(p): p for p in owned}.values()]
    return blocks if len(held) == len(set(held)) else ()


def is_sharded(value: Tensor) -> bool:
    """Whether a tensor is in shards (a DTensor, which takes long to import)."""
    return hasattr(value, "full_tensor")


def whole(value: Tensor) -> Tensor:
    """A tensor that all processes know: a sharded one is gathered, on the CPU; all must ask for it."""
    return value.full_tensor().cpu() if is_sharded(value) else value  # type: ignore[attr-defined]


def own(value: Tensor) -> Tensor:
    """This process's slice of a sharded tensor, in the same memory; another tensor as it is."""
    return value.to_local() if is_sharded(value) else value  # type: ignore[attr-defined]


def like(value: Tensor, parameter: Tensor) -> Tensor:
    """A whole tensor sharded as a parameter is; as it is, if that is not, or has another shape."""
    if not is_sharded(parameter) or value.shape != parameter.shape:
        return value
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(parameter, DTensor)
    mesh, placements = parameter.device_mesh, parameter.placements
    # without a source, as every process has the whole
    sharded: Tensor = distribute_tensor(value.to(parameter.device), mesh, placements, src_data_rank=None)
    return sharded

"""Sharded parameters, as far as one process can tell; test_processes.py has what two do with them."""

import pytest
import torch
import torch.distributed.fsdp
from torch import nn

from unrote.errors import MissingPackageError
from unrote.models import ModuleStack, Processes
from unrote.models.sharding import _blocks, like, own, whole


def block() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 3), nn.ModuleList([nn.Linear(3, 3)]))


def test_blocks_are_the_elements_of_outermost_lists() -> None:
    module = nn.ModuleDict({"first": nn.Linear(3, 3), "layers": nn.ModuleList([block(), block()])})
    assert list(_blocks(module)) == list(module["layers"])
    assert list(_blocks(nn.Linear(3, 3))) == []


def test_a_block_that_is_there_twice_is_one() -> None:
    shared = block()
    assert list(_blocks(nn.ModuleDict({"layers": nn.ModuleList([shared, shared])}))) == [shared]


@pytest.mark.parametrize("owner", ["layer", "first"])
def test_parameters_of_two_blocks_leave_the_module_whole(owner: str) -> None:
    """Else each would have a copy of its own, and they would part."""
    module = nn.ModuleDict(
        {"first": nn.Linear(3, 3), "layers": nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3)])}
    )
    other = module["first"] if owner == "first" else module["layers"][1]
    module["layers"][0].weight = other.weight
    assert not _blocks(module)


def test_what_is_not_sharded_stays_as_it_is() -> None:
    value = torch.ones(3)
    assert whole(value) is value
    assert own(value) is value
    assert like(value, torch.zeros(3)) is value


@pytest.mark.skipif(not hasattr(torch.distributed.fsdp, "FSDPModule"), reason="nothing to take away")
def test_an_older_pytorch_says_what_it_wants(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.distributed.fsdp.FSDPModule, "set_force_sum_reduction_for_comms", raising=False)
    processes = Processes(0, 2, torch.device("cpu"), shard=True)
    with pytest.raises(MissingPackageError, match=r"2\.8"):
        ModuleStack(lambda: nn.Linear(3, 2), 2, processes=processes)

"""Scores by other libraries, against our own: equal where both compute the same, alike where they approximate."""

import importlib.util
import sys

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn
from toys import clusters

from unrote.errors import MissingPackageError, OptionError
from unrote.memorization import network_self_influence, tracin
from unrote.models import StackedLinear, StackedMLP


def needs(package: str) -> pytest.MarkDecorator:
    missing = importlib.util.find_spec(package) is None
    return pytest.mark.skipif(missing, reason=f"{package} is not installed")


class Positions(nn.Module):
    """A linear layer on each of four positions, then a head; and a layer that no factor is known of."""

    def __init__(self) -> None:
        super().__init__()
        self.each, self.norm, self.head = nn.Linear(3, 5), nn.LayerNorm(5), nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.norm(self.each(x.unflatten(1, (4, 3))).tanh())
        return self.head(hidden.mean(1))


def network(kind: str) -> nn.Module:
    torch.manual_seed(0)
    if kind == "convolution":
        first = [nn.Unflatten(1, (3, 2, 2)), nn.Conv2d(3, 4, 2, padding=1), nn.ReLU(), nn.Flatten()]
        return nn.Sequential(*first, nn.Linear(36, 3))
    if kind == "grouped":
        first = [nn.Unflatten(1, (3, 2, 2)), nn.Conv2d(3, 3, 2, padding="same", groups=3), nn.Flatten()]
        return nn.Sequential(*first, nn.Linear(12, 3))
    if kind == "positions":
        return Positions()
    return nn.Sequential(nn.Linear(12, 7), nn.Tanh(), nn.Linear(7, 3))


@pytest.fixture
def examples() -> tuple[np.ndarray, np.ndarray]:
    x, y = clusters(90, 3, 12, distance=1.0)
    return x.numpy(), y.numpy()


@needs("captum")
@pytest.mark.parametrize("kind", ["linear", "convolution", "grouped", "positions"])
@pytest.mark.parametrize("parameters", ["head", "all"])
def test_captum_gives_the_same_tracin(
    examples: tuple[np.ndarray, np.ndarray], kind: str, parameters: str
) -> None:
    net = network(kind)
    models = {"checkpoints": [net, network(kind)], "rates": [0.5, 0.25], "parameters": parameters}
    before = torch.random.get_rng_state()
    theirs = tracin(net, *examples, backend="captum", **models)
    np.testing.assert_allclose(theirs, tracin(net, *examples, **models), rtol=1e-3)
    assert torch.equal(torch.random.get_rng_state(), before)


@needs("captum")
@pytest.mark.parametrize("stack", [StackedLinear(12, 3), StackedMLP(12, 3, hidden=6)])
def test_captum_takes_stacks(examples: tuple[np.ndarray, np.ndarray], stack: StackedLinear) -> None:
    theirs = tracin(stack, *examples, parameters="all", backend="captum")
    np.testing.assert_allclose(theirs, tracin(stack, *examples, parameters="all"), rtol=1e-3)


@needs("captum")
def test_captum_takes_whole_layers(examples: tuple[np.ndarray, np.ndarray]) -> None:
    net = network("linear")
    theirs = tracin(net, *examples, parameters=["0."], backend="captum")
    np.testing.assert_allclose(theirs, tracin(net, *examples, parameters=["0."]), rtol=1e-3)
    with pytest.raises(OptionError, match="all or none"):
        tracin(net, *examples, parameters=["0.weight"], backend="captum")


@needs("kronfluence")
@pytest.mark.parametrize("model", [network("linear"), StackedMLP(12, 3, hidden=6)])
def test_kronfluence_gives_the_same_ekfac(examples: tuple[np.ndarray, np.ndarray], model: nn.Module) -> None:
    """The same labels are drawn, so that nothing but rounding is left between the two."""
    before = torch.random.get_rng_state()
    theirs = network_self_influence(model, *examples, damping=1e-2, backend="kronfluence")
    ours = network_self_influence(model, *examples, damping=1e-2, approximation="kfac")
    np.testing.assert_allclose(theirs, ours, rtol=1e-3)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(p.requires_grad for p in model.parameters())


@needs("kronfluence")
@pytest.mark.parametrize(("kind", "left_out"), [("convolution", None), ("positions", "10 parameters")])
def test_kronfluence_takes_layers_that_share_weights(kind: str, left_out: str | None) -> None:
    """Where there is no factor of ours, against the Gauss-Newton matrix of all parameters."""
    x, y = clusters(400, 3, 12, distance=1.0)
    net = network(kind)
    theirs = network_self_influence(net, x, y, damping=1e-2, backend="kronfluence")
    whole = network_self_influence(net, x, y, damping=1e-2)
    assert stats.spearmanr(theirs, whole).statistic > 0.9
    assert ("left out" in theirs.notes[0]) is (left_out is not None)
    assert left_out is None or left_out in theirs.notes[0]


@needs("kronfluence")
def test_kronfluence_of_the_head_alone(examples: tuple[np.ndarray, np.ndarray]) -> None:
    net = network("linear")
    head = network_self_influence(net, *examples, parameters="head", damping=1e-2, backend="kronfluence")
    hidden = net[:2](torch.from_numpy(examples[0])).detach()
    alone = network_self_influence(net[2], hidden, examples[1], damping=1e-2, approximation="kfac")
    np.testing.assert_allclose(head, alone, rtol=1e-3)
    net = network("positions")
    with pytest.raises(OptionError, match=r"nn\.Linear and nn\.Conv2d alone"):
        network_self_influence(net, *examples, parameters=["norm"], backend="kronfluence")


def test_bad_options(examples: tuple[np.ndarray, np.ndarray], shapes_unchecked: None) -> None:
    net = network("linear")
    with pytest.raises(OptionError, match="'captum' is wanted"):
        tracin(net, *examples, backend="kronfluence")
    with pytest.raises(OptionError, match="'kronfluence' is wanted"):
        network_self_influence(net, *examples, backend="captum")
    with pytest.raises(OptionError, match="has no 'projected'"):
        network_self_influence(net, *examples, approximation="projected", backend="kronfluence")
    with pytest.raises(OptionError, match="all are wanted"):
        network_self_influence(net, *examples, approximation="kfac", parameters="head")


def test_a_missing_package_is_named(
    examples: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("captum", "captum.influence", "kronfluence", "kronfluence.analyzer"):
        monkeypatch.setitem(sys.modules, name, None)  # as Python has it for a module that cannot be found
    for score, backend in ((tracin, "captum"), (network_self_influence, "kronfluence")):
        with pytest.raises(MissingPackageError, match=r"unrote\[attribution\]"):
            score(network("linear"), *examples, backend=backend)

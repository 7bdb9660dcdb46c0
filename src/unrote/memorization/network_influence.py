"""Self-influence on all of a network's parameters, where no factor of the whole Hessian can be had.

kfac: each linear layer's curvature is taken for a Kronecker product of what goes in and of the gradients that come
back, with the eigenvalues corrected (EK-FAC, George et al. 2018, arXiv 1806.03884; labels drawn from the model):

    s_i = sum over layers, a, b of (U_S' delta_i)_a^2 (U_A' a_i)_b^2 / (Lambda_ab + damping)

projected: per-example gradients through a random P x k, and the Gauss-Newton matrix there.
"""

from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from unrote.errors import OptionError
from unrote.memorization.gradients import (
    Parameters,
    as_modules,
    draw_labels,
    layer_signals,
    network,
    only_linear,
    per_example,
)
from unrote.memorization.head_solver import settle
from unrote.memorization.reading import read_head
from unrote.memorization.score import Clock, Cost, Score
from unrote.models import ModuleStack, Stack
from unrote.seeding import generator

_SHARE = 0.1  # of the mean eigenvalue, where no damping is given


def network_self_influence(
    model: Any,
    X: Any,
    y: Any,
    *,
    approximation: Literal["kfac", "projected"] | None = None,
    parameters: Parameters = "all",
    damping: float | None = None,
    dimensions: int = 1024,
    seed: int = 0,
    backend: Literal["unrote", "kronfluence"] = "unrote",
) -> Score:
    """Approximate self-influence on a network's parameters, (n,), at least 0.

    Args:
        model: a stack of one, what carries one, or an `nn.Module`.
        X: n examples.
        y: (n,) labels.
        approximation: "kfac" or "projected"; default "projected", and "kfac" with kronfluence, which has no other.
        parameters: "all", "head" or dotted names; with our own "kfac" all.
        damping: of the mean curvature; default a tenth of its mean eigenvalue (kronfluence: of each layer's).
        dimensions: k of the projection.
        seed: of drawn labels and of the projection.
        backend: "unrote", whose "kfac" is of linear layers used once, or "kronfluence" (an extra, "attribution"),
            whose "kfac" is of all linear layers and convolutions, and leaves other layers out.

    Raises:
        OptionError: if an option is out of range, or K-FAC is asked of layers that have none.
        MissingPackageError: if the backend is not installed.
    """
    approximation = approximation or ("projected" if backend == "unrote" else "kfac")
    if approximation not in ("kfac", "projected"):
        raise OptionError(f"approximation={approximation!r}: 'kfac' or 'projected' is wanted")
    if backend not in ("unrote", "kronfluence"):
        raise OptionError(f"backend={backend!r}: 'unrote' or 'kronfluence' is wanted")
    if damping is not None and not damping > 0:
        raise OptionError(f"damping={damping!r}: a number above 0 is wanted")
    clock = Clock()
    stack, target = network(model, X, y)
    if backend == "kronfluence":
        if approximation == "projected":
            raise OptionError("backend='kronfluence' has no 'projected': approximation='kfac' is wanted")
        from unrote.memorization.kronfluence_backend import ekfac

        values, note = ekfac(stack, X, target, parameters, damping, seed)
        return Score("self_influence (EK-FAC)", values, Cost(clock.seconds, passes=9), notes=(note,))
    if approximation == "projected":
        values, note = _projected(stack, X, target, parameters, damping, dimensions, seed)
        return Score("self_influence (projected)", values, Cost(clock.seconds, passes=4), notes=(note,))
    if parameters != "all":
        raise OptionError(f"parameters={parameters!r}: with our own 'kfac' all are wanted")
    modules = as_modules(stack)
    if not only_linear(modules.members[0]):
        raise OptionError(
            "K-FAC here is of linear layers alone: approximation='projected' takes any layer, and "
            "backend='kronfluence' convolutions too"
        )
    values, note = _kfac(modules, X, target, damping, seed)
    return Score("self_influence (EK-FAC)", values, Cost(clock.seconds, passes=9), notes=(note,))


def _with_ones(a: Tensor, bias: bool) -> Tensor:
    return torch.cat([a, a.new_ones(len(a), 1)], 1) if bias else a


def _kfac(
    stack: ModuleStack, X: Any, y: Tensor, damping: float | None, seed: int
) -> tuple[Float[np.ndarray, " n"], str]:
    n = len(y)
    draws = torch.rand(n, generator=generator(seed, "drawn labels"))
    at = 0

    def draw(logits: Tensor, labels: Tensor) -> Tensor:
        nonlocal at
        at += len(labels)
        return draw_labels(logits, draws[at - len(labels) : at])

    sums: list[list[Tensor]] = []
    for _, layers in layer_signals(stack, X, y, target=draw):
        pairs = [(_with_ones(a, bias), d) for a, d, bias in layers]
        new = [[(a.mT @ a).double(), (d.mT @ d).double()] for a, d in pairs]
        pairs_of_sums = zip(sums, new, strict=True) if sums else ()
        sums = [[s + t for s, t in zip(u, v, strict=True)] for u, v in pairs_of_sums] or new
    frames = [[torch.linalg.eigh(s / n).eigenvectors.float() for s in pair] for pair in sums]
    at, spread = 0, [torch.zeros(d.shape[0], a.shape[0]).double() for a, d in frames]
    for _, layers in layer_signals(stack, X, y, target=draw):
        for (a, d, bias), (u, v), total in zip(layers, frames, spread, strict=True):
            total += ((d @ v).square().mT @ (_with_ones(a, bias) @ u).square()).double() / n
    mean = sum(float(s.sum()) for s in spread) / sum(s.numel() for s in spread)
    damped = _SHARE * mean or 1.0
    damped = damped if damping is None else damping
    found = np.zeros(n)
    for rows, layers in layer_signals(stack, X, y):
        for (a, d, bias), (u, v), total in zip(layers, frames, spread, strict=True):
            left, right = (d @ v).square(), (_with_ones(a, bias) @ u).square()
            scaled = (right @ (1 / (total + damped)).float().mT) * left
            found[rows] += scaled.sum(1).double().cpu().numpy()
    return found, f"damping {damped:.3g}; curvature per layer by EK-FAC with labels drawn from the model"


def _projected(
    stack: Stack, X: Any, y: Tensor, parameters: Parameters, damping: float | None, k: int, seed: int
) -> tuple[Float[np.ndarray, " n"], str]:
    """The form g' R (R'HR + damping)^-1 R' g, with H from the gradients at labels drawn from the model.

    Raises:
        OptionError: if there is no direction.
    """
    if k < 1:
        raise OptionError(f"dimensions={k}: at least 1 is wanted")
    drawn = draw_labels(stack.predict(X)[0], torch.rand(len(y), generator=generator(seed, "drawn labels")))
    own, sampled = (_rows(stack, X, target, parameters, k, seed) for target in (y, drawn))
    matrix = sampled.mT @ sampled / len(y)
    damped = damping if damping is not None else _SHARE * float(matrix.diagonal().mean()) or 1.0
    matrix.diagonal().add_(damped)
    z = torch.linalg.solve_triangular(torch.linalg.cholesky(matrix), own.mT, upper=False)
    return (z * z).sum(0).numpy(), f"damping {damped:.3g} in {own.shape[1]} random directions"


def _rows(stack: Stack, X: Any, y: Tensor, parameters: Parameters, k: int, seed: int) -> Tensor:
    rows: list[Tensor] = []
    signs: Tensor | None = None
    for _, g in per_example(stack, X, y, parameters):
        if g.shape[1] > k and signs is None:
            drawn = torch.randint(2, (g.shape[1], k), generator=generator(seed, "projection"))
            signs = (drawn * 2.0 - 1) / k**0.5
        rows.append((g.cpu() if signs is None else g.cpu() @ signs).double())
    return torch.cat(rows)


def kfac_head(model: Any, X: Any, y: Any, *, damping: float | None = None, seed: int = 0) -> Score:
    """EK-FAC self-influence on the head alone: for heads of so many classes that exact ones are out of reach.

    Args:
        model: any model whose head can be read.
        X: n examples.
        y: (n,) labels.
        damping: of the mean curvature; default as `self_influence` has it.
        seed: of drawn labels.
    """
    head = read_head(model, X, y)
    if damping is None:
        damping = settle(head.data(), None, None, penalty=head.penalty).damping
    stack, target = network(head, X, y)
    features = torch.from_numpy(np.asarray(head.features, np.float32))
    return network_self_influence(stack, features, target, approximation="kfac", damping=damping, seed=seed)

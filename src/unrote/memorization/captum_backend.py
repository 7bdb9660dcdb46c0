"""Gradient norms by captum's TracInCP (Kokhlikyan et al. 2020, arXiv 2009.07896), for `tracin(backend="captum")`.

TracInCPFast, which looks at the last layer alone, leaves out the bias; TracInCP counts it, as `tracin` does.
"""

import warnings
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import nn
from torch.utils.data import TensorDataset

from unrote.errors import MissingPackageError
from unrote.memorization.gradients import ByIndex, Parameters, network
from unrote.seeding import global_seed


def squared_norms(
    model: Any, X: Any, y: Any, parameters: Parameters = "head", *, batch_size: int = 64
) -> Float[np.ndarray, " n"]:
    """Squared norm of each example's loss gradient, (n,).

    Args:
        model: any model that can be read.
        X: n examples.
        y: (n,) labels.
        parameters: whose; all of a layer or none.
        batch_size: examples at once.

    Raises:
        MissingPackageError: if captum is not installed.
    """
    try:
        from captum.influence import TracInCP
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            "backend='captum' needs captum, which is not installed: pip install 'unrote[attribution]'"
        ) from error
    stack, target = network(model, X, y)
    by_index = ByIndex(stack, X)
    layers = by_index.layers(parameters)
    at_once = all(_is_known(layer) for layer in layers.values())
    scorer = TracInCP(
        by_index,
        TensorDataset(torch.arange(len(target)), target.to(by_index.stack.device)),
        ["as it is"],
        lambda *_: 1.0,
        list(layers),
        nn.CrossEntropyLoss(reduction="sum" if at_once else "none"),
        batch_size,
        sample_wise_grads_per_batch=at_once,
    )
    # the loader draws from the global generator; captum warns that indices have no gradient
    with global_seed(0, "captum"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        norms: np.ndarray = scorer.self_influence().detach().double().cpu().numpy()
    return norms


def _is_known(layer: nn.Module) -> bool:
    """Whether captum has the gradients of a minibatch's examples at once; else it takes them one by one."""
    if type(layer) is nn.Conv2d:
        return layer.groups == 1 and layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    return type(layer) is nn.Linear

"""EK-FAC self-influence by kronfluence (Grosse et al. 2023, arXiv 2308.03296), for any network.

Factors are of its linear layers and two-dimensional convolutions, also where a layer is used more than once or on
several positions; parameters of other layers are left out, and a note says how many.
"""

import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from unrote.errors import MissingPackageError, OptionError
from unrote.memorization.gradients import ByIndex, Parameters, draw_labels
from unrote.models import Stack
from unrote.seeding import generator, global_seed

_BATCH = 64


def ekfac(
    stack: Stack, X: Any, y: Tensor, parameters: Parameters, damping: float | None, seed: int
) -> tuple[Float[np.ndarray, " n"], str]:
    """Self-influence (n,), and a note on how it was made.

    Args:
        stack: of one.
        X: n examples.
        y: (n,) labels.
        parameters: whose; all of a layer or none.
        damping: None takes a tenth of the mean eigenvalue of each layer.
        seed: of drawn labels.

    Raises:
        MissingPackageError: if kronfluence is not installed.
        OptionError: if no linear layer or convolution is among the parameters.
    """
    try:
        from kronfluence.analyzer import Analyzer, prepare_model
        from kronfluence.arguments import FactorArguments, ScoreArguments
        from kronfluence.task import Task
        from kronfluence.utils.state import State
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            "backend='kronfluence' needs kronfluence and what it needs "
            f"({error.name} is not installed): pip install 'unrote[attribution]'"
        ) from error
    by_index = ByIndex(stack, X)
    layers = by_index.layers(parameters)
    tracked = [name for name, layer in layers.items() if type(layer) in (nn.Linear, nn.Conv2d)]
    if not tracked:
        raise OptionError(
            f"parameters={parameters!r}: kronfluence has factors of nn.Linear and nn.Conv2d alone"
        )
    others = sum(
        p.numel() for name in layers.keys() - set(tracked) for p in layers[name].parameters(recurse=False)
    )

    class Classify(Task):  # type: ignore[misc]
        """Cross-entropy, at the labels or at drawn ones."""

        def compute_train_loss(self, batch: Any, model: nn.Module, sample: bool = False) -> Tensor:
            rows, labels, chance = batch
            logits = model(rows)
            target = draw_labels(logits.detach(), chance) if sample else labels
            return F.cross_entropy(logits, target, reduction="sum")

        def compute_measurement(self, batch: Any, model: nn.Module) -> Tensor:
            return self.compute_train_loss(batch, model)

        def get_influence_tracked_modules(self) -> list[str]:
            return tracked

    chance = torch.rand(len(y), generator=generator(seed, "drawn labels"))
    data, task = TensorDataset(torch.arange(len(y)), y, chance), Classify()
    State._reset_state()  # else the first call's device is every call's
    with tempfile.TemporaryDirectory() as folder, _undisturbed():
        model, cpu = prepare_model(by_index, task), by_index.stack.device.type == "cpu"
        analyzer = Analyzer("unrote", model, task, cpu=cpu, output_dir=folder, disable_tqdm=True)
        factors = FactorArguments("ekfac", has_shared_parameters=True)
        factors.covariance_max_examples = factors.lambda_max_examples = None
        analyzer.fit_all_factors("factors", data, per_device_batch_size=_BATCH, factor_args=factors)
        analyzer.compute_self_scores(
            "scores",
            "factors",
            data,
            per_device_train_batch_size=_BATCH,
            score_args=ScoreArguments(damping_factor=damping),
        )
        values = analyzer.load_self_scores("scores")["all_modules"].double().numpy()
    damped = "a tenth of each layer's mean eigenvalue" if damping is None else f"{damping:.3g}"
    missing = f"; {others} parameters of other layers are left out" if others else ""
    return values, f"damping {damped}; EK-FAC of {len(tracked)} layers by kronfluence{missing}"


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Loaders draw from the global generator, and kronfluence calls torch by names of old."""
    with global_seed(0, "kronfluence"), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield

"""Whether a score can be believed: against retraining, against another score, against what was planted."""

from typing import Any

import numpy as np
import scipy
from jaxtyping import Float

from unrote.errors import DataError, OptionError
from unrote.memorization.fitting import fit_softmax
from unrote.memorization.reading import own, read_head, softmax
from unrote.memorization.score import Score
from unrote.memorization.self_influence import leave_one_out
from unrote.seeding import generator


def detection_auc(score: Any, planted: Any) -> float:
    """Area under the curve for finding planted examples by large scores: 1 finds all first, 0.5 is chance.

    Args:
        score: (n,) numbers.
        planted: (n,) whether an example was planted (mislabelled, or of the minority).

    Raises:
        DataError: if none or all are planted, or lengths differ.
    """
    values, truth = np.asarray(score, np.float64), np.asarray(planted, bool)
    if values.shape != truth.shape or not 0 < truth.sum() < len(truth):
        raise DataError(
            f"{len(values)} scores and {int(truth.sum())} of {len(truth)} planted: some of both kinds are wanted"
        )
    ranks = scipy.stats.rankdata(values)
    hits = int(truth.sum())
    return float((ranks[truth].sum() - hits * (hits + 1) / 2) / (hits * (len(truth) - hits)))


def rank_agreement(scores: dict[str, Any]) -> tuple[list[str], Float[np.ndarray, "K K"]]:
    """Spearman's correlation of each score with each other: names, and a matrix in their order.

    Args:
        scores: (n,) each, by name.
    """
    ranks = np.stack([scipy.stats.rankdata(np.asarray(value)) for value in scores.values()])
    with np.errstate(invalid="ignore"):
        found = np.corrcoef(ranks)
    return list(scores), np.atleast_2d(np.nan_to_num(found))


def linear_datamodeling_score(
    influences: Float[np.ndarray, "n m"], masks: Any, outcomes: Any
) -> Float[np.ndarray, " m"]:
    """How well sums of influences foretell what models trained on subsets say (Park et al. 2023, definition 3).

    For each test example, the correlation over subsets of a model's outcome on it with the sum of the influences of
    the subset's examples on it (arXiv 2303.14186).

    Args:
        influences: (n, m) of training examples on test examples; larger raises the outcome.
        masks: (M, n) which model trained on what.
        outcomes: (M, m) what each said of each test example.

    Returns:
        Spearman's correlation for each test example, (m,); 0 where an outcome never changes.

    Raises:
        DataError: if shapes do not fit.
    """
    trained, said = np.asarray(masks, np.float64), np.asarray(outcomes, np.float64)
    n, m = influences.shape
    if trained.shape[1:] != (n,) or said.shape != (len(trained), m):
        raise DataError(
            f"masks {trained.shape} and outcomes {said.shape} for influences {influences.shape}: (M, {n}) and "
            f"(M, {m}) are wanted"
        )
    expected = trained @ np.asarray(influences, np.float64)
    a, b = scipy.stats.rankdata(expected, axis=0), scipy.stats.rankdata(said, axis=0)
    a, b = a - a.mean(0), b - b.mean(0)
    size = np.sqrt((a * a).sum(0) * (b * b).sum(0))
    return np.asarray(np.divide((a * b).sum(0), size, out=np.zeros(m), where=size > 0))


def leave_one_out_check(
    model: Any, X: Any, y: Any, *, damping: float, sample: int = 50, head: str | None = None, seed: int = 0
) -> dict[str, float]:
    """`leave_one_out` against retraining the head without each of a few examples.

    Args:
        model: as for `leave_one_out`; its head is fitted again to its minimum first.
        X: n examples.
        y: (n,) labels.
        damping: the head's penalty, above 0.
        sample: how many examples, half of them those with the largest scores.
        head: dotted name of an `nn.Module`'s last linear layer.
        seed: of the draw.

    Returns:
        "pearson" and "slope" of the closed form on the retrained memorization, "worst" absolute difference, and
        "examples".

    Raises:
        OptionError: if fewer than 3 examples are asked for.
    """
    if sample < 3:
        raise OptionError(f"sample={sample}: at least 3 are wanted")
    closed: Score = leave_one_out(model, X, y, damping=damping, head=head, refit=True, dtype="float64")
    found = read_head(model, X, y, head=head)
    n, n_classes = len(found.y), len(found.weight)
    import torch

    drawn = torch.randperm(n, generator=generator(seed, "check")).numpy()
    rows = np.unique(np.concatenate([closed.top(sample // 2), drawn[: sample - sample // 2]]))
    features = np.asarray(found.features)
    full = fit_softmax(features, found.y, n_classes, penalty=damping)
    assert full.bias is not None
    start = np.concatenate([full.weight, full.bias[:, None]], 1)
    p_train = own(softmax(full.logits), found.y)
    retrained = []
    for i in rows:
        kept = np.arange(n) != i
        # the penalty is per mean loss: the sum it stands against has one example less
        one = fit_softmax(
            features[kept], found.y[kept], n_classes, penalty=damping * n / (n - 1), start=start
        )
        assert one.bias is not None
        p = softmax(features[i] @ one.weight.T + one.bias)
        retrained.append(p_train[i] - p[found.y[i]])
    truth, ours = np.array(retrained), closed.values[rows]
    slope = float(np.polyfit(truth, ours, 1)[0])
    return {
        "pearson": float(np.corrcoef(truth, ours)[0, 1]),
        "slope": slope,
        "worst": float(np.abs(truth - ours).max()),
        "examples": float(len(rows)),
    }

"""The logit shift: what the shortcut already explains, as log-probabilities added to the training logits.

    q = softmax(h / T)                                  held-out predictions, (n, C)
    J[k, c] = (1/n) * sum over i with y_i = c of q[i, k]   how often "k" is said where c is true
    P[k, c] = J[k, c] / sum_c' J[k, c']                 what is true where "k" is said
    shift[i, :] = log(q[i, :] @ P + 1e-6)

(Bayat et al. 2024, arXiv 2412.07684, Algorithm 1.) The statistics are those of the whole training set: over a
minibatch they are noisy, and undefined where a class is missing from it.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unrote.errors import DataError, OptionError

FLOOR = 1e-6
"""Added to each probability before the logarithm."""


def confusion(
    q: Float[Tensor, "*S n K"],
    y: Int[Tensor, " n"],
    weight: Float[Tensor, " n"] | None = None,
    *,
    n_classes: int | None = None,
) -> Float[Tensor, "*S K C"]:
    """P[k, c], the distribution of the true class c where the held-out prediction is k.

    Args:
        q: held-out probabilities of K predictions.
        y: (n,) true labels.
        weight: (n,) how much each example counts, at least 0; None counts all the same.
        n_classes: C; None says that the predictions are the classes.

    Returns:
        Rows that sum to one; a row of zeros for what is never predicted at all.
    """
    truth = torch.nn.functional.one_hot(y, n_classes or q.shape[-1]).to(q.dtype)
    if weight is not None:
        truth = truth * weight.to(truth).unsqueeze(1)
    joint = q.mT @ truth / q.shape[-2]
    said = joint.sum(-1, keepdim=True)
    return torch.where(said > 0, joint / said.clamp_min(torch.finfo(q.dtype).tiny), 0.0)


def logit_shift(
    held_out_logits: Float[Tensor, "n C"],
    y: Int[Tensor, " _"],
    temperature: float | Sequence[float] = 0.1,
    *,
    weight: Float[Tensor, " n"] | None = None,
) -> Float[Tensor, "*S n C"]:
    """MAT's calibrated shift.

    Args:
        held_out_logits: (n, C), row i from a model that did not train on example i.
        y: (n,) true labels.
        temperature: T > 0, or a sequence of S. Towards 0 the predictions become hard and P the held-out
            confusion matrix; towards infinity the shift becomes the log class prior.
        weight: (n,) how much each example counts in the calibration, at least 0; None counts all the same.

    Returns:
        (n, C), or (S, n, C) for a sequence of temperatures; no gradient flows through it.

    Raises:
        OptionError: if a temperature is not positive.
        DataError: if there is not one row per label, a label has no column, or a logit is not finite.
    """
    temperatures = check_temperatures(temperature)
    check_rows(held_out_logits, y)
    # float64: at T = 0.001 logits reach thousands, and column sums over n examples must stay exact
    h, t = held_out_logits.detach().double(), torch.tensor(temperatures, dtype=torch.float64)
    q = (h / t.to(h.device).view(-1, 1, 1)).softmax(-1)
    shift = (q @ confusion(q, y, weight) + FLOOR).log().to(held_out_logits.dtype)
    return shift if isinstance(temperature, Sequence) else shift[0]


mat_shift = logit_shift
"""`logit_shift` under the name that a user of the MAT loss looks for."""


def joint_shift(
    rules: Sequence[Float[Tensor, "n C"]],
    y: Int[Tensor, " n"],
    temperature: float = 0.1,
    *,
    weight: Float[Tensor, " n"] | None = None,
) -> Float[Tensor, "n C"]:
    """What several rules explain together: log p(y | what each of them says); `logit_shift` for one of them.

    A rule's say is its held-out prediction. With R rules q has a column for each of the C^R things that they can say
    together, the product of what each says, and P a row.

    Args:
        rules: R times (n, C) held-out logits.
        y: (n,) true labels.
        temperature: T > 0, of all.
        weight: (n,) how much each example counts in the calibration, at least 0; None counts all the same.

    Raises:
        OptionError: if the temperature is not positive.
        DataError: see `logit_shift`.
    """
    if len(rules) == 1:
        return logit_shift(rules[0], y, temperature, weight=weight)
    (t,) = check_temperatures(temperature)
    q = rules[0].new_ones(len(y), 1, dtype=torch.float64)
    for held_out_logits in rules:
        check_rows(held_out_logits, y)
        p = (held_out_logits.detach().double() / t).softmax(-1)
        q = (q.unsqueeze(2) * p.unsqueeze(1)).flatten(1)
    table = confusion(q, y, weight, n_classes=rules[0].shape[1])
    return (q @ table + FLOOR).log().to(rules[0].dtype)


def balancing_weight(shift: Float[Tensor, "n C"], y: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Weights of mean 1 under which what the shift explains says nothing of the class: 1 / p(y_i | it).

    At most a thousand times the smallest, as what is that rare is rather a wrong label.

    Args:
        shift: (n, C) log-probabilities, as `joint_shift` gives.
        y: (n,) true labels.
    """
    weight = (-shift.gather(1, y.unsqueeze(1)).squeeze(1)).clamp_max(math.log(1e3)).exp()
    return weight / weight.mean()


def group_shift(attribute: Int[Tensor, " n"], y: Int[Tensor, " n"], n_classes: int) -> Float[Tensor, "n C"]:
    """The exact shift where the attribute is known: log p(y = c | a_i) from counts.

    Args:
        attribute: (n,) attribute of each example.
        y: (n,) true labels.
        n_classes: C.

    Raises:
        DataError: if there is not one attribute per label, or a label is not a class.
    """
    if len(attribute) != len(y):
        raise DataError(f"{len(attribute)} attributes for {len(y)} labels: one each is wanted")
    check_classes(y, n_classes)
    n_attributes = int(attribute.max()) + 1
    counts = torch.bincount(attribute * n_classes + y, minlength=n_attributes * n_classes).double()
    table = counts.view(n_attributes, n_classes)
    # an attribute value that no example has divides 0 by 0, but no example asks for its row
    return (table / table.sum(1, keepdim=True).clamp_min(1) + FLOOR).log().float()[attribute]


def calibrated_temperature(logits: Float[Tensor, "n C"], y: Int[Tensor, " _"]) -> float:
    """The T under which softmax(logits / T) fits the labels best, by cross-entropy, within [0.001, 1000].

    Cross-entropy is convex in 1/T, and its slope there is how far the expected logit exceeds the label's own.
    Where the slope is 0, predictions are as sure as they are right, on average.

    Args:
        logits: (n, C).
        y: (n,) labels.
    """
    check_rows(logits, y)
    logits = logits.detach().double()
    own = logits.gather(1, y.unsqueeze(1)).squeeze(1)
    low, high = math.log(1e-3), math.log(1e3)  # of 1/T
    for _ in range(60):
        middle = (low + high) / 2
        p = (math.exp(middle) * logits).softmax(1)
        sharper_fits_worse = bool(((p * logits).sum(1) - own).mean() > 0)
        low, high = (low, middle) if sharper_fits_worse else (middle, high)
    return math.exp(-(low + high) / 2)


def check_temperatures(temperature: float | Sequence[float]) -> list[float]:
    """One or several temperatures, as a list.

    Raises:
        OptionError: if one is not a positive number.
    """
    temperatures = list(temperature) if isinstance(temperature, Sequence) else [float(temperature)]
    if not temperatures or not all(t > 0 for t in temperatures):
        raise OptionError(f"temperature {temperature}: positive numbers are wanted, 0.001 to 10 are usual")
    return temperatures


def check_rows(logits: Tensor, y: Tensor) -> None:
    """One row per label, one column per class, all finite.

    Raises:
        DataError: if not.
    """
    if logits.ndim != 2 or len(logits) != len(y):
        raise DataError(
            f"held-out logits of shape {tuple(logits.shape)} for {len(y)} labels: ({len(y)}, C) is wanted"
        )
    check_classes(y, logits.shape[1])
    if not bool(torch.isfinite(logits).all()):
        raise DataError("held-out logits have NaN or infinity: pass log-probabilities with a floor")


def check_classes(y: Tensor, n_classes: int) -> None:
    """Labels from 0 to `n_classes` - 1.

    Raises:
        DataError: if not.
    """
    for label in (int(y.min()), int(y.max())) if len(y) else ():
        if not 0 <= label < n_classes:
            raise DataError(f"label {label}: 0 to {n_classes - 1} is wanted, one column per class")

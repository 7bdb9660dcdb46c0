"""MAT without tuning: is there a shortcut, and if so, how strongly to train against it. No group label is seen.

    agreement   pairs of XRM's twins, each pair with halves of its own, on at most 3,000 examples:
                do they agree who the exceptions are? (Cohen's kappa within classes, share they differ on)
                A rule that is easy is learned alike from any half; a hard boundary is not.
    cross_fit   ERM, and MAT under several (temperature, strength), each trained on one half of the examples
                and asked about the other, as one stack
    evidence    on examples that no model was trained on, between those that the twins get wrong and right:
                gain    balanced accuracy of MAT less that of ERM: exceptions can be got right at a fair price
                excess  how much better ERM or MAT tells the exceptions from the rest than the twins' own doubt
                does (DeLong's test). Exceptions that are noise or merely hard have neither.
                Where the excess is beyond doubt, it is enough that the worse side (exceptions, rest) gains.
    verdict     a shortcut if the twins agree and both tests reject: otherwise plain ERM is trained
    choice      the setting whose worse half (exceptions, rest) is got right most
    behind it   the same again on examples weighted so that the rule says nothing of the class, where twins learn
                the next easiest (unrote.methods.shortcut_search); the shift is of what all rules say together

Agreement alone cannot tell a shortcut from wrong labels, on which twins agree too; whether exceptions can be
learned alone cannot tell it from a problem in which the twins merely learn badly. Both are wanted.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from unrote.agreement import Agreement
from unrote.checkpoint import Checkpoints
from unrote.heldout.kfold import stratified_folds
from unrote.models import StackBuilder
from unrote.seeding import derive_seed
from unrote.shift import joint_shift
from unrote.supervision import Supervision
from unrote.training import Recipe, Supervised, train

LEVEL, OPEN = 0.01, 0.05
"""A verdict of "shortcut" needs a p-value below the first: a false one costs an easy problem with wrong labels dear.
A p-value below the second, that the worse side gains nothing, is reason enough to look again."""

LEVEL_BEHIND = 0.1
"""Behind a shortcut that was found, another needs less: what the pairs of twins agree on is known not to be noise."""

BEYOND_DOUBT = 10
"""How many times surer one must be of the excess and the worse side's gain where the mean of both gains nothing."""

FOLDS, MORE_FOLDS = 2, 5
"""Of the examples for cross-fitting; more where half of few exceptions may have been too few to learn from."""

GUESSING = 1e-3
"""A rule is one if it is right more often than guessing, at this level; an attribute that says nothing is none."""

_FEW = 5  # examples of a class on one side: below, its accuracy there is anybody's guess

Setting = tuple[float, float]
"""A temperature, and a strength in [0, 1] that the shift is multiplied by; ERM is strength 0."""

ERM: Setting = (0.1, 0.0)


def settings(
    temperatures: Sequence[float] = (0.1, 2.0), strengths: Sequence[float] = (0.5, 1.0)
) -> list[Setting]:
    """ERM, and every temperature with every strength; the first temperature's strongest is what evidence is from."""
    return [ERM, *((t, s) for t in temperatures for s in strengths if s > 0)]


@dataclass(frozen=True)
class Evidence:
    """What speaks for a shortcut, from the training examples alone.

    Args:
        agreement: of pairs of twins on who the exceptions are.
        exceptions: share of the training examples that the twins get wrong.
        gain: in balanced accuracy over exceptions and rest, by the strength that gains most; None where it was
            not measured as the pairs do not agree.
        gain_error: its standard error.
        excess: area under the curve by which ERM or MAT, whichever does it better, tells exceptions, less that of the
            twins' own doubt.
        excess_error: its standard error.
        p_value: the larger of the two one-sided p-values of no gain and no excess, or, if that is less, BEYOND_DOUBT
            times the larger of no gain of the worse side and no excess; behind a shortcut that of no gain; 1 where
            not measured.
        p_worse_side: that the worse side gains nothing; 1 where not measured.
        level: what the p-value has to be below.
        says_something: whether the rule is right more often than guessing would be.
    """

    agreement: Agreement
    exceptions: float
    gain: float | None = None
    gain_error: float | None = None
    excess: float | None = None
    excess_error: float | None = None
    p_value: float = 1.0
    p_worse_side: float = 1.0
    level: float = LEVEL
    says_something: bool = True

    @property
    def shortcut(self) -> bool:
        """Whether there is one, by this evidence."""
        return self.agreement.easy_rule and self.says_something and self.p_value < self.level

    @property
    def open(self) -> bool:
        """Whether exceptions are got right oftener, which may still be no more than to trade many for few."""
        easy = self.agreement.easy_rule and self.says_something
        return easy and self.p_worse_side < OPEN and self.p_value >= self.level

    def to_dict(self) -> dict[str, Any]:
        """What JSON can hold."""
        return asdict(self) | {"shortcut": self.shortcut}


@dataclass(frozen=True)
class Chosen:
    """How to train.

    Args:
        temperature: of the calibration.
        strength: what the shift is multiplied by; 0 is ERM.
        evidence: whether there is a shortcut.
        accuracy: (M, 2^R) of each setting tried, cross-fitted: on the rest, on the exceptions (for R rules by which
            they break, as `sides_of` counts them; NaN where they are too few); classes count alike.
        tried: the M settings; empty where the pairs do not agree, as nothing was tried.
        index: which of them.
        shortcuts: how many were found.
        behind: whether there is another shortcut behind each that was found.
    """

    temperature: float
    strength: float
    evidence: Evidence
    accuracy: Float[np.ndarray, "M _"] = field(default_factory=lambda: np.zeros((0, 2)))
    tried: tuple[Setting, ...] = ()
    index: int = 0
    shortcuts: int = 0
    behind: tuple[Evidence, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """What JSON can hold: what was chosen, and the evidence."""
        return {
            "temperature": self.temperature,
            "strength": self.strength,
            "shortcuts": self.shortcuts,
            "evidence": [one.to_dict() for one in (self.evidence, *self.behind)],
        }

    def __str__(self) -> str:
        if self.strength == 0:
            return "The training rows show no shortcut that could be unlearned: trained as plain ERM"
        found = [one.exceptions for one in (self.evidence, *self.behind)][: self.shortcuts]
        what = "a shortcut" if len(found) == 1 else f"{len(found)} shortcuts"
        return (
            f"The training rows show {what} ({' and '.join(f'{one:.1%}' for one in found)} of them break it): "
            f"trained against it with temperature {self.temperature:g} and strength {self.strength:g}"
        )


def cross_fit(
    x: Any,
    y: Int[Tensor, " n"],
    build: StackBuilder,
    recipe: Recipe,
    shifts: Float[Tensor, "M n C"],
    *,
    folds: int = FOLDS,
    seed: int = 0,
    weight: Float[Tensor, " n"] | None = None,
    checkpoints: Checkpoints | None = None,
    progress: str | None = None,
) -> Float[Tensor, "M n C"]:
    """What a model trained under each of M shifts says of examples that it was not trained on.

    Args:
        x: n training examples, whatever holds them.
        y: (n,) labels.
        build: makes the stack of folds x M models.
        recipe: how each is trained.
        shifts: (M, n, C), as `shifts_of` gives.
        folds: of the examples; a model is trained on all but one.
        seed: of folds, models and minibatch order.
        weight: (n,) of each example's loss where it is trained on; None weighs all the same.
        checkpoints: where to save and resume.
        progress: text of the progress bar; None shows none.
    """
    fold = stratified_folds(y, folds, derive_seed(seed, "cross-fit"))
    trained_on = (fold != torch.arange(folds).unsqueeze(1)).repeat_interleave(len(shifts), 0)
    supervision = Supervision(y, weight=trained_on.float(), shift=shifts.repeat(folds, 1, 1))
    if weight is not None:
        supervision = supervision.weighted(weight)
    # the models of a fold begin alike, so that they differ by their shift alone
    stack = build([derive_seed(seed, "cross-fit", f) for f in range(folds) for _ in shifts])
    order = derive_seed(seed, "cross-fit", "order")
    train(stack, x, Supervised(supervision), recipe, seed=order, checkpoints=checkpoints, progress=progress)
    logits = stack.predict(x, where=~trained_on).unflatten(0, (folds, len(shifts)))
    own: Tensor = logits[fold, :, torch.arange(len(y))].transpose(0, 1)
    return own


def shifts_of(
    rules: Sequence[Float[Tensor, "n C"]],
    y: Int[Tensor, " n"],
    tried: Sequence[Setting],
    *,
    weight: Float[Tensor, " n"] | None = None,
) -> Float[Tensor, "M n C"]:
    """The shift of each of M settings, from held-out logits of one rule or several; see `joint_shift`."""
    return torch.stack([strength * joint_shift(rules, y, t, weight=weight) for t, strength in tried])


def sides_of(rules: Sequence[Float[Tensor, "n C"]], y: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
    """Which of R rules an example is an exception to: a bit each, so that of one rule the rest is 0, exceptions 1."""
    wrong = [(held_out_logits.argmax(-1) != y).long() << k for k, held_out_logits in enumerate(rules)]
    return torch.stack(wrong).sum(0)


def weigh(
    rules: Sequence[Float[Tensor, "n C"]],
    cross_fitted: Float[Tensor, "M n C"],
    y: Int[Tensor, " n"],
    agreed: Agreement,
    tried: Sequence[Setting],
    *,
    behind: bool = False,
) -> Evidence:
    """Whether exceptions can be got right by something that the twins do not know, at a fair price.

    Args:
        rules: (n, C) held-out logits of the twins; where there are several, of the last it is asked.
        cross_fitted: (M, n, C) as `cross_fit` gives; the first setting is what is done without the last rule.
        y: (n,) labels.
        agreed: see `measure_agreement`.
        tried: the M settings.
        behind: whether the rules before the last are known to be shortcuts.
    """
    from scipy.stats import norm

    said, sides = rules[-1].argmax(-1), sides_of(rules, y).numpy()
    exceptions = (said != y).numpy()
    share, something = float(exceptions.mean()), _better_than_guessing(~exceptions, y.numpy())
    if min(exceptions.sum(), (~exceptions).sum()) < 2:
        return Evidence(agreed, share, says_something=something)
    right = (cross_fitted.argmax(-1) == y).double().numpy()
    # strengths of the first temperature: fixed beforehand, and counted for in the p-value
    family = [k for k, (t, _) in enumerate(tried) if k and t == tried[1][0]]
    gains = [_balanced_gain(right[k] - right[0], sides, y.numpy()) for k in family]
    gain, gain_error = max(gains, key=lambda pair: pair[0] / pair[1])
    p_gain = min(1.0, len(family) * float(norm.sf(gain / gain_error)))
    # two models, of which ERM knows more of sentences and MAT of pictures
    asked = (0, family[-1])
    known = _log_odds_against(rules[-1], said)
    told = [delong(exceptions, _log_odds_against(cross_fitted[k], said), known) for k in asked]
    excess, excess_error = max(told, key=lambda pair: pair[0] / max(pair[1], 1e-12))
    p_excess = min(1.0, len(asked) * float(norm.sf(excess / max(excess_error, 1e-12))))
    p_side = min(_p_worse_side(right[k], right[0], exceptions, y.numpy()) for k in family)
    p_side = min(1.0, len(family) * p_side)
    p, level = min(max(p_gain, p_excess), BEYOND_DOUBT * max(p_side, p_excess)), LEVEL
    if behind:
        p, level = p_gain, LEVEL_BEHIND
    return Evidence(agreed, share, gain, gain_error, excess, excess_error, p, p_side, level, something)


def choose(
    rules: Sequence[Float[Tensor, "n C"]],
    cross_fitted: Float[Tensor, "M n C"],
    y: Int[Tensor, " n"],
    evidence: Evidence,
    tried: Sequence[Setting],
) -> Chosen:
    """The first setting where there is no shortcut, else the one that is best on its worst side: exceptions or rest.

    The arguments are those of `weigh`, and what it gave.
    """
    sides, right = sides_of(rules, y), (cross_fitted.argmax(-1) == y).double()
    accuracy = np.full((len(tried), 2 ** len(rules)), np.nan)
    for side in range(accuracy.shape[1]):
        rows = sides == side
        by_class = [
            right[:, rows & (y == c)].mean(1) for c in y.unique() if int((rows & (y == c)).sum()) >= _FEW
        ]
        if by_class:
            accuracy[:, side] = torch.stack(by_class).mean(0).numpy()
    # the first stays where nothing is better; few examples break several rules, and none says nothing
    best = int(np.argmax(np.nanmin(accuracy, 1))) if evidence.shortcut else 0
    return Chosen(*tried[best], evidence, accuracy, tuple(tried), best, int(best > 0))


def delong(
    positive: Bool[np.ndarray, " n"], first: Float[np.ndarray, " n"], second: Float[np.ndarray, " n"]
) -> tuple[float, float]:
    """Area under the curve of one score less that of another on the same examples, and its standard error.

    DeLong, DeLong and Clarke-Pearson, "Comparing the areas under two or more correlated receiver operating
    characteristic curves: a nonparametric approach", Biometrics 44 (1988).

    Args:
        positive: (n,) which examples should score high; at least two do and two do not.
        first: (n,) a score.
        second: (n,) another.
    """
    from scipy.stats import rankdata

    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    areas, above, below = [], [], []
    for score in (first, second):
        rank = rankdata(score)
        # of each positive the share of negatives below it, and the other way round
        above.append((rank[positive] - rankdata(score[positive])) / n_negative)
        below.append(1 - (rank[~positive] - rankdata(score[~positive])) / n_positive)
        areas.append(float(above[-1].mean()))
    variance = (above[0] - above[1]).var(ddof=1) / n_positive + (below[0] - below[1]).var(ddof=1) / n_negative
    return areas[0] - areas[1], float(np.sqrt(variance))


def _balanced_gain(
    change: Float[np.ndarray, " n"], sides: Int[np.ndarray, " n"], y: Int[np.ndarray, " n"]
) -> tuple[float, float]:
    """Mean over classes of the mean over sides of a change in being right; its standard error."""
    by_class = []
    for label in np.unique(y):
        parts = [change[(y == label) & (sides == side)] for side in range(sides.max() + 1)]
        if sum(len(part) >= _FEW for part in parts) > 1:
            by_class.append(_mean_of_means(parts))
    gain, variance = _average(by_class)
    return gain, float(np.sqrt(variance))


def _p_worse_side(
    right: Float[np.ndarray, " n"],
    before: Float[np.ndarray, " n"],
    exceptions: Bool[np.ndarray, " n"],
    y: Int[np.ndarray, " n"],
) -> float:
    """One-sided p-value of this: that not both sides are right more often than the worse one was before."""
    from scipy.stats import norm

    sides, labels = [~exceptions, exceptions], np.unique(y)

    def over_classes(values: Float[np.ndarray, " n"], side: int) -> tuple[float, float]:
        return _mean_of_means([values[sides[side] & (y == label)] for label in labels])

    was = [over_classes(before, side) for side in (0, 1)]
    worse = min((0, 1), key=lambda side: was[side][0])
    paired, other = over_classes(right - before, worse), over_classes(right, 1 - worse)
    change, variance = other[0] - was[worse][0], other[1] + was[worse][1]
    return float(max(norm.sf(z / np.sqrt(v)) for z, v in (paired, (change, variance))))


def _mean_of_means(parts: Sequence[Float[np.ndarray, " _"]]) -> tuple[float, float]:
    """Mean of the parts' means, and its variance; parts of few are left out."""
    # one more example on either side keeps parts that are all alike from being certain
    return _average([(p.mean(), (p.var() + 1 / len(p)) / len(p)) for p in parts if len(p) >= _FEW])


def _average(estimates: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Mean of independent estimates, each with a variance, and its own; of none, 0 with variance 1."""
    if not estimates:
        return 0.0, 1.0
    values, variances = zip(*estimates, strict=True)
    return float(np.mean(values)), float(np.sum(variances)) / len(estimates) ** 2


def _better_than_guessing(right: Bool[np.ndarray, " n"], y: Int[np.ndarray, " n"]) -> bool:
    """Whether the mean accuracy over classes is above one by chance."""
    from scipy.stats import norm

    labels, counts = np.unique(y, return_counts=True)
    chance = 1 / len(labels)
    mean = np.mean([right[y == label].mean() for label in labels])
    error = np.sqrt((chance * (1 - chance) / counts).sum()) / len(labels)
    return bool(norm.sf((mean - chance) / error) < GUESSING)


def _log_odds_against(logits: Float[Tensor, "n C"], said: Int[Tensor, " n"]) -> Float[np.ndarray, " n"]:
    """Log-odds of any class but the one said."""
    own = logits.double().gather(1, said.unsqueeze(1)).squeeze(1)
    others = logits.double().scatter(1, said.unsqueeze(1), -torch.inf).logsumexp(1)
    odds: np.ndarray = (others - own).numpy()
    return odds

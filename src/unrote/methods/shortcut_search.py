"""How MAT looks for shortcuts, one behind the other, and chooses how to train against them.

    rules = [held-out logits]
    repeat  do pairs of twins agree who the rule's exceptions are, and can these be learned?     (unrote.automatic)
            no: stop
            weight = 1 / p(y | what the rules say)         under it they say nothing of the class
            rules += [held-out logits of twins trained so]      who learn the next easiest rule
    shift = log p(y | what all rules that were found say)

Behind the last shortcut there is what holds, which is hard to learn (the twins do not agree) or right (it has no
exceptions that something else would explain). A rule that is found twice changes nothing.
"""

from collections.abc import Sequence
from dataclasses import replace

from jaxtyping import Float
from torch import Tensor

from unrote.agreement import Agreement, measure_agreement
from unrote.automatic import (
    ERM,
    Chosen,
    Evidence,
    Setting,
    choose,
    cross_fit,
    settings,
    shifts_of,
    weigh,
)
from unrote.checkpoint import content_hash
from unrote.heldout import xrm
from unrote.methods.session import Session
from unrote.seeding import derive_seed
from unrote.shift import balancing_weight, joint_shift

TEMPERATURES = (0.1, 2.0)
"""Of the calibration, to choose from."""


def look_for_shortcuts(
    session: Session,
    rule: Float[Tensor, "n C"],
    *,
    temperatures: Sequence[float] = TEMPERATURES,
    strength: float = 1.0,
    most: int = 3,
) -> tuple[list[Float[Tensor, "n C"]], Chosen]:
    """Look for a shortcut in the training examples, and for another behind each that is found.

    Args:
        session: the examples, and how to train.
        rule: held-out logits of what is easiest to learn.
        temperatures: to choose from.
        strength: the strongest to choose from; half of it is the other.
        most: how many shortcuts to look for, at least 1.

    Returns:
        Held-out logits of each shortcut that was found (of the first rule, if none was), and how to train.
    """
    tried = settings(temperatures, (strength / 2, strength))
    rules, found, evidence, chosen = [rule], [rule], [], Chosen(*ERM, Evidence(Agreement(0.0, 1.0), 0.0))
    for k in range(most):
        weight = rule_weight(session, rules, temperatures[0]) if k else None
        agreed, exceptions = _agreement(session, weight, k)
        if not agreed.easy_rule:
            evidence.append(Evidence(agreed, exceptions))
            break
        if weight is not None:
            rules = [*rules, next_rule(session, weight, k)]
        known = found if chosen.shortcuts else []
        # against several, full strength alone: what half leaves of each adds up, and few examples break all
        others = [one for one in tried[1:] if k == 0 or one[1] == strength]
        asked = _choose(session, known, rules, agreed, [(chosen.temperature, chosen.strength), *others])
        evidence.append(asked.evidence)
        if asked.shortcuts:
            found, chosen = rules, replace(asked, shortcuts=k + 1)
        elif k:
            break  # a first rule may look needless while another does its work, a second one may not
    return found, replace(chosen, evidence=evidence[0], behind=tuple(evidence[1:]))


def rule_weight(
    session: Session, rules: Sequence[Float[Tensor, "n C"]], temperature: float
) -> Float[Tensor, " n"]:
    """The weight of each example under which what the rules say tells nothing of the class."""
    shift = joint_shift(rules, session.y, temperature, weight=session.sample_weight)
    weight = balancing_weight(shift, session.y)
    return weight if session.sample_weight is None else weight * session.sample_weight


def next_rule(session: Session, weight: Float[Tensor, " n"], k: int) -> Float[Tensor, "n C"]:
    """Held-out logits of twins trained under a weight: what is easiest to learn then.

    Args:
        session: the examples, and how to train.
        weight: (n,) of each example.
        k: how many rules are known.
    """
    recipe = session.twin_recipe
    twins = xrm(
        session.task.train.x,
        session.y,
        session.build,
        recipe,
        n_classes=session.task.n_classes,
        seeds=[derive_seed(session.seed, "rule", k)],
        weight=weight,
        checkpoints=session.checkpoints(f"rule-{k}", recipe, _identity(weight)),
        progress=f"held-out: twins for rule {k + 1}" if session.progress else None,
    )
    return twins.logits[0]


def _agreement(session: Session, weight: Float[Tensor, " n"] | None, k: int) -> tuple[Agreement, float]:
    recipe = session.twin_recipe
    return measure_agreement(
        session.task.train.x,
        session.y,
        session.build,
        recipe,
        session.task.n_classes,
        seed=derive_seed(session.seed, "rule", k) if k else session.seed,
        weight=session.sample_weight if weight is None else weight,
        checkpoints=session.checkpoints(
            f"agreement-{k}", recipe, {} if weight is None else _identity(weight)
        ),
        progress=f"is there {'another' if k else 'a'} shortcut" if session.progress else None,
    )


def _identity(values: Tensor) -> dict[str, str]:
    """What tells a training under these weights or shifts from one under others."""
    return {"under": content_hash(values.numpy().tobytes())}


def _choose(
    session: Session,
    known: Sequence[Float[Tensor, "n C"]],
    rules: Sequence[Float[Tensor, "n C"]],
    agreed: Agreement,
    tried: Sequence[Setting],
) -> Chosen:
    """Whether the last of some rules is a shortcut; the first setting is what is done without it."""
    y, k = session.y, len(known)
    shifts = shifts_of(rules, y, tried, weight=session.sample_weight)
    if known:
        shifts[0] = shifts_of(known, y, tried[:1], weight=session.sample_weight)[0]
    cross_fitted = cross_fit(
        session.task.train.x,
        y,
        session.build,
        session.recipe,
        shifts,
        seed=session.seed,
        weight=session.sample_weight,
        checkpoints=session.checkpoints(f"cross-fit-{k}", session.recipe, _identity(shifts)),
        progress="how strongly to train against it" if session.progress else None,
    )
    return choose(rules, cross_fitted, y, weigh(rules, cross_fitted, y, agreed, tried), tried)

"""How MAT looks for shortcuts, one behind the other, and chooses how to train against them.

    rules = [held-out logits]
    repeat  do pairs of twins agree who the rule's exceptions are, and can these be learned?     (unrote.automatic)
            no: stop
            weight = 1 / p(y | what the rules say)         under it they say nothing of the class
            rules += [held-out logits of twins trained so]      who learn the next easiest rule
    shift = log p(y | what all rules that were found say)

Behind a shortcut, what holds may be as easy to learn as the next shortcut, and each pair of twins settles for the one
or the other. So several pairs are trained there, and longer, as their flipped labels then make them purer; two that
end with the same exceptions have found a rule, since no two halves of the examples draw a hard boundary alike.
Behind the last shortcut no two agree, but on a rule that is known.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from unrote.agreement import Agreement, agreement, closest, measure_agreement, twin_pairs
from unrote.automatic import (
    ERM,
    FOLDS,
    MORE_FOLDS,
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
from unrote.heldout import HeldOut
from unrote.methods.session import Session
from unrote.seeding import derive_seed
from unrote.shift import balancing_weight, joint_shift
from unrote.training import Recipe

TEMPERATURES = (0.1, 2.0)
"""Of the calibration, to choose from."""

BEHIND_HEADS, BEHIND_NETWORKS = (5, 4), (3, 2)
"""Pairs of twins behind a shortcut, and how many times as long they are trained as those that look for the first."""

CLOSE = 0.01
"""Of these the two that agree best differ on at most this share of the examples, if they have found a rule."""


def look_for_shortcuts(
    session: Session,
    held_out: HeldOut,
    *,
    temperatures: Sequence[float] = TEMPERATURES,
    strength: float = 1.0,
    most: int = 3,
) -> tuple[list[Float[Tensor, "n C"]], Chosen]:
    """Look for a shortcut in the training examples, and for another behind each that is found.

    Args:
        session: the examples, and how to train.
        held_out: logits of what is easiest to learn.
        temperatures: to choose from.
        strength: the strongest to choose from; half of it is the other.
        most: how many shortcuts to look for, at least 1.

    Returns:
        Held-out logits of each shortcut that was found (of the first rule, if none was), and how to train.
    """
    tried = settings(temperatures, (strength / 2, strength))
    rules, found, evidence, chosen = (
        [held_out.logits],
        [held_out.logits],
        [],
        Chosen(*ERM, Evidence(Agreement(0.0, 1.0), 0.0)),
    )
    for k in range(most):
        if k == 0:
            asked = first_shortcut(session, held_out, tried)
        else:
            another = next_rule(session, rules, temperatures[0])
            rules = [*rules, another.logits]
            if not another.clear:
                evidence.append(Evidence(another.agreement, another.exceptions))
                break
            known = found if chosen.shortcuts else []
            # against several, full strength alone: what half leaves of each adds up, and few examples break all
            others = [one for one in tried[1:] if one[1] == strength]
            settled = (chosen.temperature, chosen.strength)
            asked = _choose(session, known, rules, another.agreement, [settled, *others])
        evidence.append(asked.evidence)
        if asked.shortcuts:
            found, chosen = rules, replace(asked, shortcuts=k + 1)
        elif k or not asked.evidence.agreement.easy_rule:
            break  # a first rule may look needless while another does its work, a second one may not
    return found, replace(chosen, evidence=evidence[0], behind=tuple(evidence[1:]))


def first_shortcut(session: Session, held_out: HeldOut, tried: Sequence[Setting]) -> Chosen:
    """Whether what is easiest to learn is a shortcut, and how to train against it.

    Args:
        session: the examples, and how to train.
        held_out: logits of what is easiest to learn.
        tried: the settings to choose from, of which the first is ERM.
    """
    agreed, exceptions = _agreement(session, held_out)
    if not agreed.easy_rule:
        return Chosen(*ERM, Evidence(agreed, exceptions))
    return _choose(session, [], [held_out.logits], agreed, tried)


@dataclass(frozen=True)
class NextRule:
    """What pairs of twins learn when the rules before say nothing of the class.

    Args:
        logits: (n, C) held out, of one of the two pairs that agree best, among those that did not find a rule again
            which was known.
        agreement: of the two; none where there are no two.
        exceptions: share of the examples that the pair gets wrong.
    """

    logits: Float[Tensor, "n C"]
    agreement: Agreement
    exceptions: float

    @property
    def clear(self) -> bool:
        """Whether two pairs have found the same rule."""
        return self.agreement.easy_rule and self.agreement.differ <= CLOSE


def next_rule(session: Session, rules: Sequence[Float[Tensor, "n C"]], temperature: float) -> NextRule:
    """What is easiest to learn under weights by which what the rules say tells nothing of the class.

    Args:
        session: the examples, and how to train.
        rules: (n, C) held-out logits each.
        temperature: of their calibration.
    """
    y = session.y
    weight = balancing_weight(joint_shift(rules, y, temperature, weight=session.sample_weight), y)
    if session.sample_weight is not None:
        weight = weight * session.sample_weight
    pairs, longest = BEHIND_HEADS if session.heads else BEHIND_NETWORKS
    for times in (1, longest):
        recipe = _recipe_of_pairs(session).lengthened(times)
        twins, rows = twin_pairs(
            session.task.train.x,
            y,
            session.build,
            recipe,
            session.task.n_classes,
            pairs=pairs,
            seed=derive_seed(session.seed, "rule", len(rules)),
            weight=weight,
            checkpoints=session.checkpoints(f"rule-{len(rules)}-{times}", recipe, _identity(weight)),
            progress="is there another shortcut" if session.progress else None,
        )
        wrong = twins.logits.argmax(-1) != twins.y
        before = [rule[rows].argmax(-1) != twins.y for rule in rules]
        new = [k for k, own in enumerate(wrong) if not any(_same(own, one, twins.y) for one in before)]
        if len(new) < 2:
            break  # what is known is what is easiest still, and to train for longer would not change that
    agreed, best = Agreement(0.0, 1.0), (new or [0])[0]
    if len(new) > 1:
        agreed, first = closest(wrong[new], twins.y)
        best = new[first]
    logits = twins.logits[best]
    if len(rows) < len(y):
        # neither twin was trained on the others
        logits = twins.stack.select([2 * best, 2 * best + 1]).predict(session.task.train.x).mean(0)
        logits[rows] = twins.logits[best]
    return NextRule(logits, agreed, float(wrong[best].double().mean()))


def _same(first: Bool[Tensor, " n"], second: Bool[Tensor, " n"], y: Int[Tensor, " n"]) -> bool:
    """Whether two rules have the same exceptions."""
    return agreement(torch.stack([first, second]), y).easy_rule


def _agreement(session: Session, held_out: HeldOut) -> tuple[Agreement, float]:
    """Whether pairs of twins agree who the exceptions to the first rule are, and the share of these."""
    recipe = _recipe_of_pairs(session)
    return measure_agreement(
        session.task.train.x,
        session.y,
        session.build,
        recipe,
        session.task.n_classes,
        rule=held_out.logits if held_out.source == "trunk" else None,
        seed=session.seed,
        weight=session.sample_weight,
        checkpoints=session.checkpoints("agreement", recipe, {}),
        progress="is there a shortcut" if session.progress else None,
    )


def _recipe_of_pairs(session: Session) -> Recipe:
    """Of pairs that are compared: where that is cheap as long as the model's, as they agree the better the longer."""
    whole = session.heads and session.held_out_recipe is None
    return session.recipe if whole else session.twin_recipe


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
    y = session.y
    shifts = shifts_of(rules, y, tried, weight=session.sample_weight)
    if known:
        shifts[0] = shifts_of(known, y, tried[:1], weight=session.sample_weight)[0]

    def asked(folds: int) -> Chosen:
        cross_fitted = cross_fit(
            session.task.train.x,
            y,
            session.build,
            session.recipe,
            shifts,
            folds=folds,
            seed=session.seed,
            weight=session.sample_weight,
            checkpoints=session.checkpoints(
                f"cross-fit-{len(known)}-{folds}", session.recipe, _identity(shifts)
            ),
            progress="how strongly to train against it" if session.progress else None,
        )
        evidence = weigh(rules, cross_fitted, y, agreed, tried, behind=bool(known))
        return choose(rules, cross_fitted, y, evidence, tried)

    found = asked(FOLDS)
    return asked(MORE_FOLDS) if found.evidence.open and session.heads and not known else found

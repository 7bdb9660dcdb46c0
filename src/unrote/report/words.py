"""The record in words: what a reader should know after half a minute, from the figures alone."""

from collections.abc import Sequence

import numpy as np

from unrote.report.saved_run import RunRecord
from unrote.report.schema import Accuracy, MethodRecord

_SHORT = 4  # letters of an acronym, at most


def method_title(name: str) -> str:
    """A method's name as people write it: ERM, MAT, logit adjustment."""
    first, space, rest = name.partition(" ")
    return (first.upper() if len(first) <= _SHORT else first.replace("_", " ")) + space + rest


def percent(value: float | None, digits: int = 0) -> str:
    """A share in percent; a dash for none."""
    return "-" if value is None else f"{value:.{digits}%}"


def listed(names: Sequence[str]) -> str:
    """Names in a sentence: a, b and c."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def with_interval(one: Accuracy) -> str:
    """30% (22% to 39%)."""
    if one.interval is None:
        return percent(one.accuracy)
    return f"{percent(one.accuracy)} ({percent(one.interval[0])} to {percent(one.interval[1])})"


def headline(record: RunRecord) -> str:
    """The one sentence to remember; empty where nothing was scored."""
    scored = [
        (method_title(method.name), method.scores.worst_group)
        for method in record.contents.methods
        if method.scores is not None
    ]
    if not scored:
        return ""
    each = listed([f"{title} {percent(worst.accuracy)}" for title, worst in scored])
    return f"Right in its worst group: {each}."


def summary(record: RunRecord) -> list[str]:
    """Sentences on what was trained, how it does on its worst group, and what was learned by rote."""
    contents = record.contents
    titles = [method_title(method.name) for method in contents.methods]
    return [
        _trained(record, titles),
        *_accuracy(contents.methods, titles),
        *_rote(record, titles),
        *_held_out(record),
    ]


def _trained(record: RunRecord, titles: Sequence[str]) -> str:
    data = record.contents.data
    verb = "was" if len(titles) == 1 else "were"
    said = f"{listed(titles)} {verb} trained on {data.rows['train']:,} examples of {data.name}"
    if data.scored_split:
        seen = "that it never saw" if len(titles) == 1 else "that none of them saw"
        role = "" if data.scored_split == "test" else " of the validation split"
        said += f" and scored on {data.rows[data.scored_split]:,} examples{role} {seen}"
    told = [t for t, m in zip(titles, record.contents.methods, strict=True) if m.regime != "none"]
    labels = f"{listed(told)} used group labels." if told else "No group label was used in training."
    known = f" Known of the data: {data.shortcut}." if data.shortcut else ""
    return f"{said}. {labels}{known}"


def _accuracy(methods: Sequence[MethodRecord], titles: Sequence[str]) -> list[str]:
    scored = [(t, m.scores) for t, m in zip(titles, methods, strict=True) if m.scores is not None]
    said = [
        f"{title} gets {percent(scores.average)} of all right, and {with_interval(scores.worst_group)} of its worst "
        f"group, “{scores.worst_group.name}”."
        for title, scores in scored
    ]
    if len(scored) > 1:
        best = max(scored, key=lambda pair: pair[1].worst_group.accuracy or 0.0)
        least = min(scored, key=lambda pair: pair[1].worst_group.accuracy or 0.0)
        high, low = best[1].worst_group, least[1].worst_group
        gap = (high.accuracy or 0) - (low.accuracy or 0)
        if high.interval and low.interval and gap > 0:
            apart = high.interval[0] > low.interval[1]
            said.append(
                f"In the worst group {best[0]} is {100 * gap:.0f} points above {least[0]}; their 95% intervals "
                f"{'do not overlap' if apart else 'overlap, so the difference may be chance'}."
            )
    return said


def _rote(record: RunRecord, titles: Sequence[str]) -> list[str]:
    contents = record.contents
    groups, names = record.arrays.get("group"), contents.data.group_names
    rote = {
        title: scores > contents.memorized_above
        for k, title in enumerate(titles)
        if (scores := record.of_method(k, "memorization")) is not None
    }
    if not rote:
        return []
    total = len(next(iter(rote.values())))
    counts = listed([f"{title} has learned {int(one.sum()):,}" for title, one in rote.items()])
    said = [
        f"Of the {total:,} training examples {counts} by rote: without such an example in training, the probability "
        f"that its label gets would fall by more than {contents.memorized_above:g}."
    ]
    if groups is not None and any(one.any() for one in rote.values()):
        shares = {
            g: [float(one[groups == g].mean()) for one in rote.values()]
            for g in range(len(names))
            if (groups == g).any()
        }
        top = max(shares, key=lambda g: max(shares[g]))
        each = listed([f"{percent(s)} under {title}" for s, title in zip(shares[top], rote, strict=True)])
        said.append(f"The group most of which was learned by rote is “{names[top]}”: {each}.")
    return said


def _held_out(record: RunRecord) -> list[str]:
    found, minority = record.contents.held_out, record.arrays.get("inferred")
    if found is None:
        return []
    said = (
        f"Held-out predictions (by {found.source}, which never train on the example they predict) agree with "
        f"{percent(found.accuracy)} of the training labels."
    )
    if minority is not None:
        said += (
            f" The inferred minority, {percent(float(np.mean(minority)), 1)} of the examples, breaks the rule "
            "that is easiest to learn."
        )
    if found.degenerate:
        said += (
            " Beware: the twins put all examples of some class on one side, so inferred groups say little."
        )
    return [said]

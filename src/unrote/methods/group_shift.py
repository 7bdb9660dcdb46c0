"""Exact MAT: the logit shift from known groups instead of held-out logits (Bayat et al. 2024, arXiv 2412.07684).

    p(y = c | a) = share of class c among the training examples with attribute a
    shift[i, c] = log p(y = c | a_i)                        (unrote.shift)
    minimise mean CE(f(x_i) + shift[i, :], y_i)
    predict with f alone

Needs the attribute of every training example. This is what MAT aims at: held-out predictions that know the
shortcut and nothing else give this very shift. Inferred groups do not do: they say whether the shortcut fails an
example, which is as likely in one class as in another; what they know of the attribute is MAT's shift.
"""

from dataclasses import dataclass

from unrote.errors import OptionError
from unrote.methods.base import SupervisionMethod, register
from unrote.methods.session import Session
from unrote.shift import group_shift
from unrote.supervision import Supervision


@register("group_shift", needs="train", reference="Bayat et al. 2025, arXiv 2412.07684", uses_groups=False)
@dataclass(frozen=True)
class GroupShift(SupervisionMethod):
    """Memorization-aware training with the exact shift."""

    def supervision(self, session: Session) -> Supervision:
        """The labels, and the log share of each class among the examples of the same attribute.

        Raises:
            OptionError: if the session's groups are inferred.
        """
        if session.groups != "true":
            raise OptionError(
                f"groups={session.groups!r}: inferred groups say where the shortcut fails, not which attribute "
                "an example has, so p(y | group) says nothing: use method 'mat', whose shift needs no groups"
            )
        shift = group_shift(session.training_groups().attribute, session.y, session.task.n_classes)
        session.artefacts["shift"] = shift
        return Supervision(session.y, shift=shift)

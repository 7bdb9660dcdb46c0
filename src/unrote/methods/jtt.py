"""JTT: just train twice (Liu et al. 2021, arXiv 2107.09044).

    scout = ERM for a share of the steps
    E = training examples that the scout is wrong about
    from scratch, minimise the mean CE in which each example of E counts `upweight` times

A short ERM learns the shortcut, so that E holds the exceptions to it. A scout trained for too long is right
about everything: E is empty, and training, with a warning, is ERM. Needs the labels alone.
"""

from dataclasses import dataclass

from unrote.data.options import check_number
from unrote.methods.base import SupervisionMethod, register
from unrote.methods.biased import mistakes
from unrote.methods.search import LogUniform, Uniform, hyper
from unrote.methods.session import Session
from unrote.supervision import Supervision


@register("jtt", needs="none", reference="Liu et al. 2021, arXiv 2107.09044")
@dataclass(frozen=True)
class JTT(SupervisionMethod):
    """Just train twice.

    Args:
        share: of the steps, after which the scout stops, in (0, 1].
        upweight: lambda, how often each mistake counts, at least 1; the paper takes 20, 50 or 100 for pictures
            and 4 to 6 for text.
    """

    share: float = hyper(0.2, Uniform(0.2, 0.8))
    upweight: float = hyper(50.0, LogUniform(1.0, 10**2.5))

    def __post_init__(self) -> None:
        check_number("share", self.share, 0.0, 1.0)
        check_number("upweight", self.upweight, 1.0)

    def supervision(self, session: Session) -> Supervision:
        """The labels, with the scout's mistakes upweighted."""
        advice = f"lower JTT's share, now {self.share:g}, or this is ERM"
        wrong = mistakes(session, session.erm(self.share).stack, advice)
        session.artefacts["mistakes"] = wrong
        return Supervision(session.y, weight=1.0 + (self.upweight - 1.0) * wrong.float())

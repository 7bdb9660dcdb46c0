"""SIGTERM, by which a scheduler asks a run to end: it saves and goes, and goes on from there another time."""

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

from unrote.models import Processes

EXIT_CODE = 128 + signal.SIGTERM


class Termination:
    """Within it, SIGTERM is taken note of instead of ending the process on the spot.

    Nothing changes where SIGTERM is ignored, and outside the main thread, which alone may handle signals.

    Args:
        active: whether there is anything to be saved; else SIGTERM does what it did.
        processes: that must end at the same step.
    """

    def __init__(self, active: bool, processes: Processes | None = None) -> None:
        self.processes, self.wanted = processes, active
        self.active = active and threading.current_thread() is threading.main_thread()
        self.requested = False
        self._before: Callable[[int, FrameType | None], Any] | int | None = None

    def __enter__(self) -> "Termination":
        if self.active:
            self._before = signal.getsignal(signal.SIGTERM)
            # None: a handler that was not set from Python, which could not be put back
            self.active = self._before not in (None, signal.SIG_IGN)
        if self.active:
            signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.active:
            signal.signal(signal.SIGTERM, self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.requested = True

    def agreed(self, look: bool) -> bool:
        """Whether the run ends now: at once where it is one process, else at the next look at the loss.

        Args:
            look: whether the run looks at its loss after this step, as all its processes do.
        """
        if self.processes is None or not self.wanted:
            return self.requested
        return look and self.processes.any(self.requested)

    def end(self) -> None:
        """End the process, now that all is saved: as the handler that was there does, or with code 143.

        Raises:
            SystemExit: with code 143.
        """
        if callable(self._before):
            self._before(signal.SIGTERM, None)
        raise SystemExit(EXIT_CODE)

"""A record of trained classifiers: everything that `unrote report` shows, saved where it was computed."""

from unrote.record.recording import record_run
from unrote.record.runs import Trained, train_methods

__all__ = ["Trained", "record_run", "train_methods"]

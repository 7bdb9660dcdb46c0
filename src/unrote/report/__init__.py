"""The page about a run, made from its saved record alone."""

from unrote.report.saved_run import RunRecord, find_records, merge, read_record

__all__ = ["RunRecord", "find_records", "merge", "read_record"]

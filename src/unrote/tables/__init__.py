"""Tables from files: reading them, telling what their columns are, and turning them into a task."""

from unrote.tables.columns import Column, Dates, Numbers, Pictures, Strings, Table
from unrote.tables.dataset import TableTask, make_task
from unrote.tables.kinds import Kind, choose_kinds
from unrote.tables.preprocessing import Preprocessor
from unrote.tables.readers import read_table

__all__ = [
    "Column",
    "Dates",
    "Kind",
    "Numbers",
    "Pictures",
    "Preprocessor",
    "Strings",
    "Table",
    "TableTask",
    "choose_kinds",
    "make_task",
    "read_table",
]

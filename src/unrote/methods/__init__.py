"""The methods, one file each."""

from unrote.methods.base import METHODS, Fitted, Method, SupervisionMethod, register
from unrote.methods.search import Choice, LogUniform, Search, Uniform, hyper
from unrote.methods.session import Groups, GroupSource, HeldOutSource, Session

__all__ = [
    "METHODS",
    "Choice",
    "Fitted",
    "GroupSource",
    "Groups",
    "HeldOutSource",
    "LogUniform",
    "Method",
    "Search",
    "Session",
    "SupervisionMethod",
    "Uniform",
    "hyper",
    "register",
]

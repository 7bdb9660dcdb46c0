"""The methods, one file each."""

from unrote.methods.base import METHODS, Fitted, Method, Session, SupervisionMethod, register

__all__ = ["METHODS", "Fitted", "Method", "Session", "SupervisionMethod", "register"]

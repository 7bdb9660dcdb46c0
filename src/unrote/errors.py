"""Everything a user can get wrong is an `UnroteError` that says what was got, what was wanted, what to do."""

import difflib
from collections.abc import Iterable


class UnroteError(Exception):
    """Base of every error that a user can cause and mend."""


class DataError(UnroteError, ValueError):
    """Data whose shape, type or values cannot be trained on."""


class DataTypeError(UnroteError, TypeError):
    """Data of a type that nothing can be made of, such as an object where numbers are wanted."""


class OptionError(UnroteError, ValueError):
    """An option outside its valid range, or options that contradict each other."""


class UnknownNameError(UnroteError, KeyError):
    """A task, method or figure that does not exist; names the nearest that do."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        known = sorted(known)
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
        self.message = f"unknown {kind} {name!r}: {hint}known: {', '.join(known) or 'none'}"
        super().__init__(self.message)

    def __str__(self) -> str:
        return self.message  # KeyError would show the repr


class HiddenGroupsError(UnroteError, AttributeError):
    """Group labels were reached for in an annotation regime that does not have them."""


class CheckpointError(UnroteError):
    """A checkpoint that is damaged, from another format version, or of another run."""


class DivergedError(UnroteError, ArithmeticError):
    """Training left the finite numbers."""


class DivergedWarning(RuntimeWarning):
    """Some members of a stack left the finite numbers; the others go on."""


class MissingPackageError(UnroteError, ImportError):
    """A package that only part of unrote needs is not installed; names the extra that brings it."""


class SavedModelError(UnroteError):
    """A saved model that is damaged, was changed, is of another format version, or would be overwritten."""


class TableWarning(UserWarning):
    """Something about a table that was settled without asking: a column left out, values taken as missing."""

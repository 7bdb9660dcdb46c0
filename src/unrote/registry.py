"""Registries that fill themselves: each file of a package registers what it defines, by importing it."""

import importlib
import pkgutil
from typing import Generic, TypeVar

from unrote.errors import UnknownNameError

T = TypeVar("T")


class Registry(Generic[T]):
    """Things by name, found in the modules of one package.

    Args:
        kind: what they are, for messages ("method", "task").
        package: the package whose modules register them; imported at the first look-up, not before.
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind, self.package = kind, package
        self._items: dict[str, T] = {}
        self._complete = False

    def add(self, name: str, item: T) -> None:
        """Register `item`; a name can be taken once."""
        assert name not in self._items, f"{self.kind} {name!r} is registered twice"
        self._items[name] = item

    def names(self) -> list[str]:
        """All names, sorted."""
        if not self._complete:
            package = importlib.import_module(self.package)
            for module in pkgutil.iter_modules(package.__path__, f"{self.package}."):
                importlib.import_module(module.name)
            self._complete = True
        return sorted(self._items)

    def __getitem__(self, name: str) -> T:
        names = self.names()
        if name not in names:
            raise UnknownNameError(self.kind, name, names)
        return self._items[name]

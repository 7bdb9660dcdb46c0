"""Constructor parameters with a prefix, as skorch has them: `module__hidden=64` is the module's `hidden`.

scikit-learn takes a parameter with "__" in it for one of a nested estimator. An `nn.Module` class is none, so the
estimators keep such parameters themselves: `get_params`, `set_params`, `clone` and grid searches see them.
"""

import difflib
from typing import Any, ClassVar, TypeVar

from unrote.errors import OptionError

AnySelf = TypeVar("AnySelf", bound="PrefixedParameters")


class PrefixedParameters:
    """Mixin that stands before `BaseEstimator`."""

    _prefixes: ClassVar[tuple[str, ...]] = ()
    _extra: tuple[str, ...] = ()

    def _set_extra(self, parameters: dict[str, Any]) -> None:
        """Keep what the constructor was given beyond its own parameters; `fit` refuses what has no meaning."""
        self._extra = tuple(sorted({*self._extra, *parameters}))
        for name, value in parameters.items():
            setattr(self, name, value)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Parameters of the constructor, those with a prefix among them.

        Args:
            deep: whether those of nested estimators are wanted too.
        """
        own: dict[str, Any] = super().get_params(deep=deep)  # type: ignore[misc]
        return {**own, **{name: getattr(self, name) for name in self._extra}}

    def set_params(self: AnySelf, **params: Any) -> AnySelf:
        """Change parameters.

        Args:
            **params: by name, "module__hidden" and the like among them.

        Raises:
            OptionError: if there is no parameter of that name.
        """
        extra = {name: value for name, value in params.items() if name in self._extra or self._prefixed(name)}
        self._set_extra(extra)
        try:
            super().set_params(  # type: ignore[misc]
                **{name: value for name, value in params.items() if name not in extra}
            )
        except ValueError as error:
            raise OptionError(str(error)) from error
        return self

    def _prefixed(self, name: str) -> bool:
        prefix, _, rest = name.partition("__")
        return prefix in self._prefixes and bool(rest)

    def _parameters_of(self, prefix: str) -> dict[str, Any]:
        """The parameters under one prefix, without it.

        Raises:
            OptionError: if the constructor was given a name that is neither its own nor has a known prefix.
        """
        for name in self._extra:
            if not self._prefixed(name):
                known = sorted(set(self.get_params(deep=False)) - set(self._extra))
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {near[0]!r}? " if near else ""
                raise OptionError(
                    f"{type(self).__name__} has no parameter {name!r}: {hint}known: {', '.join(known)}, "
                    f"and those that start with {' or '.join(f'{one}__' for one in self._prefixes)}"
                )
        start = f"{prefix}__"
        return {name[len(start) :]: getattr(self, name) for name in self._extra if name.startswith(start)}

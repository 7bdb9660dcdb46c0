"""Hyper-parameters and the ranges they are searched in."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Choice:
    """One of a few values, equally likely."""

    values: Sequence[Any]

    def sample(self, random: torch.Generator) -> Any:
        """Draw a value."""
        return self.values[int(torch.randint(len(self.values), (), generator=random))]

    def __str__(self) -> str:
        return ", ".join(map(str, self.values))


@dataclass(frozen=True)
class Uniform:
    """A number between two others."""

    low: float
    high: float

    def sample(self, random: torch.Generator) -> float:
        """Draw a value."""
        return self.low + (self.high - self.low) * float(
            torch.rand((), generator=random, dtype=torch.float64)
        )

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}"


@dataclass(frozen=True)
class LogUniform:
    """A number whose logarithm is uniform between those of two others."""

    low: float
    high: float

    def sample(self, random: torch.Generator) -> float:
        """Draw a value."""
        share = float(torch.rand((), generator=random, dtype=torch.float64))
        return float(self.low * (self.high / self.low) ** share)

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g} (log)"


Search = Choice | Uniform | LogUniform


def hyper(default: Any, search: Search | None = None) -> Any:
    """A hyper-parameter: a dataclass field with its default and, if it is worth searching, its range."""
    return dataclasses.field(default=default, metadata={"search": search})

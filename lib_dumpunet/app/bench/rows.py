"""One line of the benchmark: what was measured, and the bound it must hold."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Row:
    """A measured value; ``bound`` is the least it must reach if ``at_least``, else the most it may be."""

    name: str
    value: float
    unit: str
    bound: float
    at_least: bool

    @property
    def ok(self) -> bool:
        """Whether the value holds its bound."""
        return self.value >= self.bound if self.at_least else self.value <= self.bound

    def __str__(self) -> str:
        limit = "at least" if self.at_least else "at most"
        return f"{self.value:8.2f} {self.unit} ({limit} {self.bound:g})"

"""One row of the benchmark: a measured value and its limit."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Row:
    """A measured value; ``bound`` is its minimum if ``at_least``, else its maximum."""

    name: str
    value: float
    unit: str
    bound: float
    at_least: bool

    @property
    def ok(self) -> bool:
        """Whether the value is within its bound."""
        return self.value >= self.bound if self.at_least else self.value <= self.bound

    def __str__(self) -> str:
        limit = "at least" if self.at_least else "at most"
        return f"{self.value:8.2f} {self.unit} ({limit} {self.bound:g})"

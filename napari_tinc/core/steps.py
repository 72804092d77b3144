"""Generators that report how far they are, and return a result: run them to their end, or pass their reports on."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TypeVar

Report = TypeVar("Report")
Told = TypeVar("Told")
Result = TypeVar("Result")


def relay(steps: Generator[Report, None, Result], tell: Callable[[Report], Told]) -> Generator[Told, None, Result]:
    """Yield what ``tell`` makes of every report; return the result."""
    while True:
        try:
            report = next(steps)
        except StopIteration as stop:
            result: Result = stop.value
            return result
        yield tell(report)


def complete(steps: Generator[Report, None, Result], show: Callable[[Report], object] = lambda report: None) -> Result:
    """Run to the end, show every report, and return the result."""
    shown = relay(steps, show)
    while True:
        try:
            next(shown)
        except StopIteration as stop:
            result: Result = stop.value
            return result


__all__ = ["complete", "relay"]

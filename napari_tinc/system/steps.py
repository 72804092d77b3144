"""Generators that report how far they are, and return a result: run them to their end, or pass their reports on."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, closing, nullcontext
from typing import TypeVar

Report = TypeVar("Report")
Told = TypeVar("Told")
Result = TypeVar("Result")


def relay(
    steps: Generator[Report, None, Result],
    tell: Callable[[Report], Told],
    around: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> Generator[Told, None, Result]:
    """Yield what ``tell`` makes of every report; return the result.

    Every step runs inside a context of its own, made by ``around``, which is left before its report is passed on:
    whoever drives the steps finds the world as it was. The steps are closed with it, and if ``tell`` raises.
    """
    with closing(steps):
        while True:
            try:
                with around():
                    report = next(steps)
            except StopIteration as stop:
                result: Result = stop.value
                return result
            yield tell(report)


def complete(steps: Generator[Report, None, Result], show: Callable[[Report], object] = lambda report: None) -> Result:
    """Run to the end, show every report, and return the result; close the steps whatever happens."""
    with closing(relay(steps, show)) as shown:
        while True:
            try:
                next(shown)
            except StopIteration as stop:
                result: Result = stop.value
                return result


__all__ = ["complete", "relay"]

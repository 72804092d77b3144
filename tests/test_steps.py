"""Generators of progress: whoever drives one finds the world as it was, and leaves nothing running."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager

import pytest
import torch
from synthetic import blobs

from napari_tinc.encode.compression import compress_steps
from napari_tinc.networks import device
from napari_tinc.settings import Settings
from napari_tinc.system.steps import complete, relay
from napari_tinc.target import Target


def counted(closed: list[bool]) -> Generator[int, None, str]:
    try:
        yield 1
        yield 2
    finally:
        closed.append(True)
    return "done"


def refuse(report: int) -> int:
    raise ValueError("nobody can show this")


def test_an_inner_generator_is_closed_with_the_outer_one() -> None:
    closed: list[bool] = []
    inner = counted(closed)
    steps = relay(inner, lambda report: -report)
    assert next(steps) == -1
    steps.close()
    assert closed == [True]


def test_an_inner_generator_is_closed_when_a_report_cannot_be_shown() -> None:
    for drive in (lambda steps: complete(steps, refuse), lambda steps: next(relay(steps, refuse))):
        closed: list[bool] = []
        inner = counted(closed)  # which the caller still holds: it is not closed by going out of scope
        with pytest.raises(ValueError, match="nobody"):
            drive(inner)
        assert closed == [True]


def test_what_is_around_a_step_is_left_before_its_report_and_entered_again() -> None:
    entered: list[str] = []

    @contextmanager
    def around() -> Iterator[None]:
        entered.append("in")
        try:
            yield
        finally:
            entered.append("out")

    steps = relay(counted([]), lambda report: entered.append(str(report)), around)
    assert complete(steps) == "done"
    assert entered == ["in", "out", "1", "in", "out", "2", "in", "out"]


@pytest.mark.parametrize("model", ["wavelet", "tinc+wavelet"])
def test_torch_has_the_callers_threads_between_any_two_steps(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "all_cores", lambda: 2)  # so that one thread is used inside
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        steps = compress_steps(
            blobs((12, 20, 18)), Target.size(1500), Settings(preset="fast", time_limit=1, model=model)
        )
        seen = [torch.get_num_threads() for _ in steps]
    finally:
        torch.set_num_threads(threads)
    assert len(seen) > 5
    assert set(seen) == {3}

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from napari_tinc.plugin.layers import scrolling
from napari_tinc.plugin.layers.scrolling import ReadAhead, Slab

ALL = slice(0, 512)


class Samples:
    """A source that only says what it is."""

    name = "samples"

    def __init__(self, *shape: int, axes: str = "zyx") -> None:
        self.shape, self.dtype, self.axes = shape, np.dtype(np.uint16), axes

    def version(self, bounds: Any) -> int:
        return 0

    def read(self, bounds: Any) -> Any:
        raise AssertionError


def planned(ahead: ReadAhead, *known: tuple[Any, ...]) -> list[Slab]:
    """What is read ahead, where this is known, slab by slab."""
    found = []
    while (slab := ahead.take(lambda source, bounds: bounds in known)) is not None:
        found.append(slab)
    return found


def after(ahead: ReadAhead, source: Samples, *places: tuple[Any, ...]) -> list[int]:
    """Positions that are planned after these were read."""
    for place in places:
        ahead.saw(source, place)
    return [position for slab in planned(ahead, places[-1]) for position in slab.positions]


@pytest.fixture
def stack() -> Samples:
    return Samples(100, 512, 512)


@pytest.fixture
def one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrolling, "_AT_ONCE", 1)


def z(plane: int) -> tuple[Any, ...]:
    return plane, ALL, ALL


@pytest.mark.usefixtures("one_by_one")
def test_more_is_read_ahead_the_longer_somebody_goes_on(stack: Samples) -> None:
    ahead = ReadAhead()
    assert after(ahead, stack, z(10)) == []
    assert after(ahead, stack, z(11)) == [12, 13]
    assert after(ahead, stack, z(12)) == [13, 14, 15, 16]
    assert after(ahead, stack, z(12)) == [13, 14, 15, 16], "drawn again"
    assert after(ahead, stack, z(13), z(14), z(15), z(16)) == list(range(17, 33))
    assert after(ahead, stack, z(15)) == [14, 13], "back again"
    assert after(ahead, stack, z(50)) == [], "a jump"
    assert after(ahead, stack, z(53), z(56)) == [57, 58, 59, 60], "leaving some out"
    assert after(ahead, stack, z(2), z(1)) == [0], "no further than the first"
    assert after(ahead, stack, z(97), z(98)) == [99], "and no further than the last"


def test_planes_are_read_several_at_once(stack: Samples) -> None:
    ahead = ReadAhead()
    for plane in (13, 14, 15):
        ahead.saw(stack, z(plane))
    slab, after_it = planned(ahead)
    assert list(slab.positions) == [15]
    assert after_it.region == (slice(16, 24), ALL, ALL)
    assert [after_it.chunk(position) for position in after_it.positions] == [z(plane) for plane in range(16, 24)]
    ahead.saw(stack, z(14))
    (slab,) = planned(ahead, z(14), z(13))
    assert slab.region == (slice(8, 13), ALL, ALL), "back, and 13 is known"
    assert list(slab.positions) == [12, 11, 10, 9, 8]


def test_what_is_read_now_is_read_with_what_follows(stack: Samples) -> None:
    ahead = ReadAhead()
    ahead.saw(stack, z(12))
    assert ahead.from_here(stack, z(12)) is None
    ahead.saw(stack, z(13))
    slab = ahead.from_here(stack, z(13))
    assert slab is not None
    assert slab.region == (slice(13, 16), ALL, ALL)
    assert ahead.goes_on(slab)
    assert ahead.from_here(stack, z(14)) is None
    assert [slab.region for slab in planned(ahead, z(13))] == [(slice(14, 16), ALL, ALL)]
    assert ahead.from_here(stack, z(13)) is None, "it was known"
    ahead.saw(stack, z(90))
    assert not ahead.goes_on(slab)


def test_planes_are_numbers_or_slices_of_one(stack: Samples) -> None:
    ahead = ReadAhead()
    for plane in (11, 12):
        ahead.saw(stack, (slice(plane, plane + 1), ALL, ALL))
    (slab,) = planned(ahead)
    assert slab.chunk(12) == (slice(12, 13), ALL, ALL)
    assert slab.region == (slice(12, 16), ALL, ALL)


def test_axes_are_told_apart() -> None:
    ahead, movie = ReadAhead(), Samples(10, 100, 512, 512, axes="tzyx")
    ahead.saw(movie, (1, 5, ALL, ALL))
    ahead.saw(movie, (2, 5, ALL, ALL))
    assert [slab.region for slab in planned(ahead)] == [(slice(t, t + 1), 5, ALL, ALL) for t in (2, 3, 4)]
    ahead.saw(movie, (2, 6, ALL, ALL))
    assert [slab.region for slab in planned(ahead)] == [(2, slice(6, 8), ALL, ALL), (2, slice(8, 16), ALL, ALL)]
    assert after(ahead, movie, (2, slice(0, 100), 6, ALL)) == [], "another view"
    assert after(ahead, movie, (2, slice(0, 100), 7, ALL)) == list(range(8, 16))
    assert after(ahead, movie, (3, slice(0, 100), 8, ALL)) == [], "two axes at once"


@pytest.mark.usefixtures("one_by_one")
def test_the_chunks_of_a_plane_are_read_ahead_plane_by_plane(stack: Samples, monkeypatch: pytest.MonkeyPatch) -> None:
    halves = [(slice(0, 512), slice(0, 256)), (slice(0, 512), slice(256, 512))]
    ahead = ReadAhead()
    for plane in (10, 11, 12):
        for half in halves:
            ahead.saw(stack, (plane, *half))
    regions = [slab.region for slab in planned(ahead, *((12, *half) for half in halves))]
    assert regions == [(slice(plane, plane + 1), *half) for plane in (13, 14, 15, 16) for half in halves]
    monkeypatch.setattr(scrolling, "_MOST_BYTES", 3 * 512 * 512 * 2)
    for half in halves:
        ahead.saw(stack, (13, *half))
    assert len(planned(ahead)) == 2 + 6, "no more memory than that"


def test_large_planes_are_read_ahead_as_far_as_memory_goes() -> None:
    ahead, stack = ReadAhead(), Samples(100, 16384, 8192)
    plane = slice(0, 16384), slice(0, 8192)
    assert after(ahead, stack, (10, *plane), (11, *plane)) == []


def test_two_sources_are_read_ahead_each_for_itself(stack: Samples) -> None:
    ahead, other = ReadAhead(), Samples(100, 512, 512)
    other.name = "other"
    ahead.saw(stack, z(10))
    ahead.saw(other, z(50))
    ahead.saw(stack, z(11))
    ahead.saw(other, z(51))
    assert [list(slab.positions) for slab in planned(ahead)] == [[11, 12, 13, 14, 15], [51, 52, 53, 54, 55]]
    ahead.saw(stack, z(12))
    ahead.forget()
    assert not planned(ahead)

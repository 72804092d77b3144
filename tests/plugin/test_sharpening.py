from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from napari.layers import _layer_actions as actions

from napari_tinc.lazy import LazyArray, lazy_levels
from napari_tinc.plugin.layers import scrolling, sharpening
from napari_tinc.plugin.layers.difference import add_difference
from napari_tinc.plugin.layers.results import add_result

SHAPE, COARSE = (8, 130, 70), (4, 33, 18)


class Held:
    """A source that answers when it is let go, and counts what it is asked for."""

    def __init__(self, array: Any, name: str, axes: str = "zyx") -> None:
        self.array, self.name, self.axes = array, name, axes
        self.shape, self.dtype = array.shape, array.dtype
        self.go, self.read_regions = threading.Event(), []

    def version(self, bounds: Any) -> int:
        return 0

    def read(self, bounds: Any) -> Any:
        self.read_regions.append(bounds)
        assert self.go.wait(10)
        return self.array[bounds]


@pytest.fixture
def held() -> Iterator[tuple[Held, Held]]:
    rng = np.random.default_rng(0)
    fine, coarse = (Held(rng.integers(0, 99, s, np.uint8), n) for s, n in ((SHAPE, "fine"), (COARSE, "coarse")))
    coarse.go.set()
    yield fine, coarse
    fine.go.set()


@pytest.fixture(autouse=True)
def arrived(monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin with a layer that the user has seen already."""
    monkeypatch.setattr(sharpening, "ARRIVAL_SECONDS", 0)


@pytest.fixture(autouse=True)
def in_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decode the planes of these tests in three strips."""
    monkeypatch.setattr(sharpening, "_ROWS", 64)
    monkeypatch.setattr(scrolling, "_AT_ONCE", 4)


def seen(level: LazyArray) -> LazyArray:
    """Return what napari slices instead of the level."""
    assert isinstance(level, sharpening.ShownArray)
    return LazyArray(level._shown)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_what_takes_long_is_coarse_at_first_and_fine_when_read_again(held: tuple[Held, Held]) -> None:
    fine, coarse = held
    told = threading.Event()
    sharpener = sharpening.Sharpener(lambda: True, told.set)
    level = seen(sharpener.level(LazyArray(fine), LazyArray(coarse)))
    first = level[5, 3:120]
    rows, columns = ((np.arange(n) + 0.5) * m // n for n, m in zip(SHAPE[1:], COARSE[1:], strict=True))
    np.testing.assert_array_equal(first, coarse.array[2][np.ix_(rows.astype(int), columns.astype(int))][3:120])
    assert not sharpener.idle
    fine.go.set()
    assert told.wait(10)
    again = level[5, 3:120]
    assert not set(again.dask) & set(first.dask), "or a cache would show the coarse one for ever"
    np.testing.assert_array_equal(again, fine.array[5, 3:120])
    wait_until(lambda: sharpener.idle)
    assert [bounds[1] for bounds in fine.read_regions] == [slice(3, 67), slice(67, 120)], "once, in strips"


def test_what_is_quick_is_fine_at_once(held: tuple[Held, Held], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharpening, "PATIENCE_SECONDS", 10)
    fine, coarse = held
    fine.go.set()
    level = seen(sharpening.Sharpener(lambda: True, pytest.fail).level(LazyArray(fine), LazyArray(coarse)))
    np.testing.assert_array_equal(level[2:4], fine.array[2:4])
    assert not coarse.read_regions
    assert level[3:3].compute().shape == (0, 130, 70)


def test_before_the_user_sees_a_layer_nothing_fine_is_decoded(
    held: tuple[Held, Held], monkeypatch: pytest.MonkeyPatch
) -> None:
    arrived, slept = threading.Event(), []
    clock = SimpleNamespace(monotonic=lambda: 100.0, sleep=lambda seconds: (slept.append(seconds), arrived.wait(10)))
    monkeypatch.setattr(sharpening, "time", clock)
    monkeypatch.setattr(sharpening, "ARRIVAL_SECONDS", 0.3)
    fine, coarse = held
    fine.go.set()
    there = [False]
    sharpener = sharpening.Sharpener(lambda: there[0], lambda: None)
    level = seen(sharpener.level(LazyArray(fine), LazyArray(coarse)))
    before = level[5]
    assert before.compute().shape == SHAPE[1:]
    assert not set(level[5].dask) & set(before.dask), "read anew once somebody looks"
    there[0] = True
    level[5].compute()
    assert coarse.read_regions
    assert not fine.read_regions
    assert slept == [pytest.approx(0.3)], "until the user has arrived"
    arrived.set()
    wait_until(lambda: sharpener.idle)
    np.testing.assert_array_equal(level[5], fine.array[5])


def test_what_is_cheap_is_blank_only_until_the_viewer_shows_it(
    held: tuple[Held, Held], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharpening, "ARRIVAL_SECONDS", 60)
    fine, _ = held
    fine.go.set()
    there = [False]
    sharpener = sharpening.Sharpener(lambda: there[0], pytest.fail, patient=True)
    level = seen(sharpener.level(LazyArray(fine), None))
    before = level[5]
    assert not before.compute().any()
    assert not fine.read_regions
    there[0] = True
    assert not set(level[5].dask) & set(before.dask)
    np.testing.assert_array_equal(level[5], fine.array[5])
    assert fine.read_regions == [(5, slice(0, 130), slice(0, 70))]


def test_nothing_is_decoded_for_a_layer_that_went(held: tuple[Held, Held]) -> None:
    fine, coarse = held
    shown = [True]
    sharpener = sharpening.Sharpener(lambda: shown[0], pytest.fail)
    level = seen(sharpener.level(LazyArray(fine), LazyArray(coarse)))
    level[5].compute()
    shown[0] = False
    fine.go.set()
    wait_until(lambda: sharpener.idle)
    assert len(fine.read_regions) == 1, "the first strip, and no more"


def test_another_viewer_waits_for_fine_voxels(held: tuple[Held, Held]) -> None:
    fine, coarse = held
    fine.go.set()
    level = seen(sharpening.Sharpener(lambda: False, pytest.fail).level(LazyArray(fine), LazyArray(coarse)))
    np.testing.assert_array_equal(level[5], fine.array[5])
    assert not coarse.read_regions


def test_who_reads_the_data_of_a_layer_gets_its_voxels(held: tuple[Held, Held]) -> None:
    fine, coarse = held
    fine.go.set()
    level = sharpening.Sharpener(lambda: True, pytest.fail).level(LazyArray(fine), LazyArray(coarse))
    for array in (level, copy.deepcopy(level)):
        np.testing.assert_array_equal(array, fine.array)
        np.testing.assert_array_equal(array[5, 3:120], fine.array[5, 3:120])
    assert not coarse.read_regions


def test_what_was_asked_for_last_is_decoded_first_and_the_oldest_is_dropped(
    held: tuple[Held, Held], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharpening, "_MOST_WAITING", 2)
    fine, coarse = held
    sharpener = sharpening.Sharpener(lambda: True, lambda: None)
    level = seen(sharpener.level(LazyArray(fine), LazyArray(coarse)))
    first = [level[0, x:] for x in range(4)]
    for plane in first:
        plane.compute()
    fine.go.set()
    wait_until(lambda: sharpener.idle)
    starts = [bounds[1].start for bounds in fine.read_regions]
    assert starts == [0, 3, 67, 2, 66], "a strip of the first before the others came; it was dropped, and so was 1"
    for x in range(4):
        assert not set(level[0, x:].dask) & set(first[x].dask)
    np.testing.assert_array_equal(level[0, 3:], fine.array[0, 3:])


def test_a_plane_that_is_not_shown_any_more_is_dropped(held: tuple[Held, Held]) -> None:
    fine, coarse = held
    sharpener = sharpening.Sharpener(lambda: True, lambda: None)
    level = seen(sharpener.level(LazyArray(fine), LazyArray(coarse)))
    first = [level[z] for z in (0, 7, 1)]
    for plane in first:
        plane.compute()
    fine.go.set()
    wait_until(lambda: sharpener.idle)
    assert [bounds[0] for bounds in fine.read_regions] == [0, 1, 1, 1], "a strip of 0 before the others came"
    for z, plane in zip((0, 7, 1), first, strict=True):
        assert not set(level[z].dask) & set(plane.dask)


def test_who_goes_through_planes_finds_the_next_ones_decoded(
    held: tuple[Held, Held], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharpening, "PATIENCE_SECONDS", 10)
    fine, coarse = held
    fine.go.set()
    sharpener = sharpening.Sharpener(lambda: True, pytest.fail)
    level = seen(sharpener.level(LazyArray(fine), LazyArray(coarse)))

    def read(z: int) -> list[Any]:
        fine.read_regions.clear()
        np.testing.assert_array_equal(level[z], fine.array[z])
        wait_until(lambda: sharpener.idle)
        return [bounds[0] for bounds in fine.read_regions][::3]  # of three strips

    assert read(0) == [0], "one plane, and nothing is known of the next"
    assert read(1) == [slice(1, 4)], "and two more, at once, as many as there are up to a multiple of four"
    assert read(2) == [slice(4, 8)], "it was decoded already, and the next ones now are"
    assert read(3) == read(5) == read(7) == [], "and no further than the last"
    assert read(6) == [], "back again"


def test_a_plane_that_is_drawn_again_needs_no_thread(held: tuple[Held, Held], monkeypatch: pytest.MonkeyPatch) -> None:
    fine, coarse = held
    fine.go.set()
    begun = list[bool]()
    sharpener = sharpening.Sharpener(lambda: True, lambda: None)
    level = seen(sharpener.level(LazyArray(fine), LazyArray(coarse)))
    level[5].compute()
    wait_until(lambda: sharpener.idle)
    monkeypatch.setattr(sharpener, "_work", lambda: begun.append(True))
    np.testing.assert_array_equal(level[5], fine.array[5])
    assert sharpener.idle
    assert not begun


def test_what_is_asked_for_goes_before_what_is_read_ahead(
    held: tuple[Held, Held], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharpening, "PATIENCE_SECONDS", 0)
    fine, coarse = held
    told, said = threading.Event(), list[bool]()
    sharpener = sharpening.Sharpener(lambda: True, told.set, report=said.append)
    level = seen(sharpener.level(LazyArray(fine), LazyArray(coarse)))

    def let_go() -> list[Any]:
        fine.go.set()
        wait_until(lambda: sharpener.idle)
        fine.go.clear()
        regions = [bounds[0] for bounds in fine.read_regions]
        fine.read_regions.clear()
        return regions

    for z in (0, 1):
        level[z].compute()
    assert let_go() == [0, *[slice(1, 4)] * 3]
    assert told.is_set()
    assert said[0]
    assert said.index(False) == len(said) - 1, "and at last, once"
    level[2].compute()
    wait_until(lambda: bool(fine.read_regions))
    level[2, :90].compute()
    assert let_go() == [slice(4, 8), 2, 2, slice(4, 8), slice(4, 8)], "between two strips"
    fine.go.set()
    for z in range(1, 8):
        np.testing.assert_array_equal(level[z], fine.array[z])


def test_nothing_is_read_ahead_for_a_layer_that_went(held: tuple[Held, Held], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharpening, "PATIENCE_SECONDS", 0)
    fine, coarse = held
    shown = [True]
    sharpener = sharpening.Sharpener(lambda: shown[0], lambda: None)
    level = seen(sharpener.level(LazyArray(fine), LazyArray(coarse)))
    for z in (0, 1):
        level[z].compute()
    shown[0] = False
    fine.go.set()
    wait_until(lambda: sharpener.idle)
    assert [bounds[0] for bounds in fine.read_regions] == [0], "a strip"


def test_what_fails_ahead_is_read_anew(held: tuple[Held, Held], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharpening, "PATIENCE_SECONDS", 10)
    fine, coarse = held
    fine.go.set()
    sharpener = sharpening.Sharpener(lambda: True, lambda: None)
    level = seen(sharpener.level(LazyArray(fine), LazyArray(coarse)))
    level[0].compute()
    read, fails = fine.read, [True]
    monkeypatch.setattr(fine, "read", lambda bounds: 1 / 0 if fails[0] and bounds[0] not in (0, 1) else read(bounds))
    level[1].compute()
    wait_until(lambda: sharpener.idle)
    fails[0] = False
    np.testing.assert_array_equal(level[2], fine.array[2])


def test_a_plane_of_many_chunks_is_decoded_once(held: tuple[Held, Held], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("napari_tinc.lazy.CHUNK_SIDE", 8)
    monkeypatch.setattr(sharpening, "PATIENCE_SECONDS", 0)
    fine, coarse = held
    fine.go.set()
    sharpener = sharpening.Sharpener(lambda: True, lambda: None)
    level = seen(sharpener.level(LazyArray(fine), LazyArray(coarse)))
    assert level[5].npartitions == 17 * 9
    for _ in range(100):
        plane = level[5].compute()
        if (plane == fine.array[5]).all():
            break
        time.sleep(0.01)
    np.testing.assert_array_equal(plane, fine.array[5])
    wait_until(lambda: sharpener.idle)
    assert len(fine.read_regions) == 17 * 9


def test_an_error_is_raised_where_the_chunk_is_read(held: tuple[Held, Held], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharpening, "PATIENCE_SECONDS", 10)
    fine, coarse = held
    fine.go.set()
    monkeypatch.setattr(fine, "read", lambda bounds: 1 / 0)
    level = seen(sharpening.Sharpener(lambda: True, lambda: None).level(LazyArray(fine), LazyArray(coarse)))
    with pytest.raises(ZeroDivisionError):
        level[5].compute()


def test_a_difference_appears_when_it_is_known(
    tinc_viewer: Any, qtbot: Any, stack: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_tinc.lazy.lazy_levels.__defaults__", (None, 5000))
    monkeypatch.setattr("napari_tinc.lazy.lazy_difference.__defaults__", (None, 5000))
    decoding, advance = threading.Event(), sharpening._Task.advance
    monkeypatch.setattr(sharpening._Task, "advance", lambda task: decoding.wait(10) and advance(task))
    viewer = tinc_viewer(show=True)
    source = viewer.add_image(stack.decode() + np.uint16(7))
    result = add_result(viewer, stack, source)
    layer = add_difference(viewer, source, result)
    layer.locked_data_level = 0
    viewer.dims.set_current_step(0, 7)
    assert np.isnan(layer._slice.image.raw).all()
    np.testing.assert_allclose(layer.data[0][7], 7, atol=1)
    decoding.set()
    qtbot.waitUntil(lambda: np.abs(np.asarray(layer._slice.image.raw) - 7).max() <= 1)
    qtbot.waitUntil(lambda: layer.thumbnail[..., :3].max() > 0)


def test_a_plane_in_the_viewer_becomes_sharp_by_itself(
    tinc_viewer: Any, qtbot: Any, stack: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_tinc.lazy.lazy_levels.__defaults__", (None, 5000))
    monkeypatch.setattr("napari_tinc.plugin.layers.results.COARSE_VOXELS", 100)
    decoding, advance = threading.Event(), sharpening._Task.advance
    monkeypatch.setattr(sharpening._Task, "advance", lambda task: decoding.wait(10) and advance(task))
    viewer = tinc_viewer(show=True)
    layer = add_result(viewer, stack)
    layer.locked_data_level = 0
    viewer.dims.set_current_step(0, 7)
    viewer.layers.selection = {layer}
    actions._duplicate_layer(viewer.layers)
    duplicate = viewer.layers[1]
    duplicate.locked_data_level = 0
    coarse = [np.asarray(shown._slice.image.raw).astype(float) for shown in (layer, duplicate)]
    exact = stack.decode((7,)).astype(float)
    assert min(np.abs(plane - exact).max() for plane in coarse) > 100
    np.testing.assert_allclose(layer.data[0][7], exact, atol=1)
    decoding.set()
    for shown in (layer, duplicate):
        qtbot.waitUntil(lambda shown=shown: np.abs(np.asarray(shown._slice.image.raw) - exact).max() <= 1)
    qtbot.waitUntil(lambda: layer.data[0].sharpener.idle)


def test_planes_that_were_read_ahead_are_those_of_the_volume(stack: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharpening, "PATIENCE_SECONDS", 10)
    sharpener, exact = sharpening.Sharpener(lambda: True, pytest.fail), stack.decode().astype(float)
    level = seen(sharpener.level(lazy_levels(stack)[0], None))
    for axis, planes in ((0, (3, 4, 5, 6, 7)), (1, (20, 18, 16, 14)), (2, (5, 6, 7, 8))):
        for plane in planes:
            wanted = level[(*[slice(None)] * axis, slice(plane, plane + 1))]
            np.testing.assert_allclose(wanted, exact.take([plane], axis), atol=1)
            wait_until(lambda: sharpener.idle)
    assert len(sharpener._done) == 15 + 16 + 15, "from 3 to the end; 20, and from 18 down to 4; from 5 up to 19"


def test_scrolling_in_the_viewer_reads_ahead(
    tinc_viewer: Any, qtbot: Any, stack: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_tinc.lazy.lazy_levels.__defaults__", (None, 5000))
    monkeypatch.setattr("napari_tinc.plugin.layers.results.COARSE_VOXELS", 100)
    viewer = tinc_viewer(show=True)
    layer = add_result(viewer, stack)
    layer.locked_data_level = 0
    exact, sharpener, known = stack.decode().astype(float), layer.data[0].sharpener, 0
    for plane in range(2, 9):
        known += any(bounds.startswith(f"(slice({plane}, ") for _, bounds in sharpener._done)
        viewer.dims.set_current_step(0, plane)
        qtbot.waitUntil(lambda: sharpener.idle)
        wanted = exact[plane]
        qtbot.waitUntil(lambda wanted=wanted: np.abs(np.asarray(layer._slice.image.raw) - wanted).max() <= 1)
    assert known >= 4

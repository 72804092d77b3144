"""Coefficients at one step: what is guessed from a part of them, and blocks that are coded again at another price."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage

from napari_tinc.geometry.pyramid import BlockCache, BlockPyramid, dyadic_splits
from napari_tinc.system import threads
from napari_tinc.system.steps import complete
from napari_tinc.system.threads import BlockThreads
from napari_tinc.wavelets import coding as coding_module
from napari_tinc.wavelets import search
from napari_tinc.wavelets.blocks import WaveletLayer
from napari_tinc.wavelets.coding import Coding, Coefficients, streams_size
from napari_tinc.wavelets.residual import Residual, reader

Floats = npt.NDArray[np.float32]
CODE = 10_300


def uneven(*shape: int) -> Floats:
    """Noise that grows towards one corner, and smooth shapes."""
    random = np.random.default_rng(3)
    slope = math.prod(np.ix_(*(np.linspace(0, 1, n) for n in shape)))
    smooth = 8 * ndimage.gaussian_filter(random.standard_normal(shape), 2)
    return (smooth + 2 * slope * random.standard_normal(shape)).astype(np.float32)


def coefficients(volume: Floats, side: int) -> Coefficients:
    residual = Residual(volume.shape, reader(volume))
    return complete(Coefficients.of(residual, dyadic_splits(volume.shape, math.inf), side))


@pytest.fixture(scope="module")
def volume() -> Floats:
    return uneven(64, 72, 80)


@pytest.fixture
def coding(volume: Floats) -> Coding:
    return Coding(coefficients(volume, 8), CODE, BlockCache())


def made_of_told(coding: Coding, volume: Floats) -> float:
    """The error that decoding shows, over the one that is told: not quite 1, for wavelets are not quite orthonormal."""
    layer, told = coding.finished()
    decoded = WaveletLayer(layer, BlockCache()).region(0, tuple((0, n) for n in volume.shape))
    return float(np.square(decoded - volume, dtype=np.float64).sum()) / told


@pytest.mark.parametrize("elongation", [math.inf, 1.5])
def test_children_are_those_whose_parent_is_asked_for(elongation: float) -> None:
    shape = 37, 90, 41
    pyramid = BlockPyramid(shape, dyadic_splits(shape, elongation), 4)
    for octave in range(1, pyramid.octaves):
        found = [child for cell in pyramid.cells(octave) for child in pyramid.children(octave, cell)]
        assert sorted(found) == sorted(pyramid.cells(octave - 1))
        for cell in pyramid.cells(octave):
            assert {pyramid.parent_cell(octave - 1, child) for child in pyramid.children(octave, cell)} == {cell}


def test_the_size_is_guessed_from_a_part(coding: Coding) -> None:
    guess = complete(coding.glance(0))
    part = coding.nbytes
    complete(coding.whole(0))
    assert guess == pytest.approx(coding.nbytes, rel=0.05)
    assert part < 0.5 * coding.nbytes
    assert coding.nbytes == streams_size(coding.finished()[0])


def test_few_blocks_are_not_guessed_from(volume: Floats) -> None:
    assert complete(Coding(coefficients(volume, 32), CODE, BlockCache()).glance(0)) is None


def test_what_was_glanced_at_changes_nothing(coding: Coding, volume: Floats) -> None:
    complete(coding.glance(0))
    complete(coding.whole(0))
    other = Coding(coefficients(volume, 8), CODE, BlockCache())
    complete(other.whole(0))
    assert coding.finished() == other.finished()


@pytest.mark.parametrize(("price", "sign"), [(0.05, 1), (0.09, -1)])
def test_blocks_coded_again_at_another_price_take_their_place(
    price: float, sign: int, coding: Coding, volume: Floats
) -> None:
    complete(coding.whole(0))
    before, error, ratio = coding.nbytes, coding.finished()[1], made_of_told(coding, volume)
    places = coding.apart()
    for octave, cell in places[::2]:
        made = coding.again(octave, cell, price)
        expected = coding.nbytes + coding.more(made)
        coding.keep(made)
        assert coding.nbytes == expected
    assert sign * (coding.nbytes - before) > 0
    assert sign * (error - coding.finished()[1]) > 0
    assert made_of_told(coding, volume) == pytest.approx(ratio, rel=0.005)
    assert coding.nbytes == streams_size(coding.finished()[0])


@pytest.mark.parametrize("share", [0.97, 0.99, 1.01, 1.03])
def test_a_size_that_is_nearly_right_becomes_right(share: float, coding: Coding, volume: Floats) -> None:
    complete(coding.whole(0))
    ratio = made_of_told(coding, volume)
    room = int(share * coding.nbytes)
    fit = complete(search._adjusted([coding], room, 0))
    assert 0.99 * room <= fit.nbytes <= room
    assert fit.error == coding.finished()[1]
    assert made_of_told(coding, volume) == pytest.approx(ratio, rel=0.005)


def test_any_number_of_threads_glances_and_adjusts_alike(volume: Floats, monkeypatch: pytest.MonkeyPatch) -> None:
    item, found = coefficients(volume, 8), []
    for number in (1, 4):
        pool = BlockThreads(number)
        monkeypatch.setattr(coding_module, "block_threads", lambda pool=pool: pool)
        for module in (coding_module, threads):
            monkeypatch.setattr(module, "usable_cores", lambda number=number: number)
        coding = Coding(item, CODE, BlockCache())
        guess = complete(coding.glance(0))
        complete(coding.whole(0))
        adjusted = [complete(search._adjusted([coding], int(share * coding.nbytes), 0)) for share in (0.99, 1.02)]
        found.append((guess, [(fit.layers, fit.error) for fit in adjusted]))
    assert found[0] == found[1]


def test_a_search_that_is_told_what_a_step_takes_codes_once(volume: Floats, monkeypatch: pytest.MonkeyPatch) -> None:
    whole: Callable[..., Any] = search._whole
    tries: list[int] = []

    def counted(codings: Any, number: int) -> Generator[int, None, search.Fit]:
        tries.append(number)
        return (yield from whole(codings, number))

    residual = Residual(volume.shape, reader(volume))
    first = complete(search.fit([residual], 30_000))
    assert first is not None
    monkeypatch.setattr(search, "_whole", counted)
    again = complete(search.fit([residual], 30_000, search.Near.to(first)))
    assert again is not None
    assert len(tries) == 1
    assert 0.985 * 30_000 <= again.nbytes <= 30_000
    tries.clear()
    larger = complete(search.fit([residual], 31_000, search.Near.to(first)))
    assert larger is not None
    assert len(tries) == 1
    assert 0.985 * 31_000 <= larger.nbytes <= 31_000

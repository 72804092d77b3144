"""Volumes larger than memory: the same bytes as in memory, from wherever they come, and no more memory than allowed."""

from __future__ import annotations

import math
import os
import threading
import tracemalloc
from itertools import pairwise
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import qmc
from synthetic import blobs

from napari_tinc import InputError, Target, compress, layers, memory_limit, read_volume
from napari_tinc.arrays import scratch
from napari_tinc.encode import framing, training
from napari_tinc.format import MODEL_WAVELETS
from napari_tinc.geometry.pyramid import BlockCache, dyadic_splits
from napari_tinc.limits import LIMITS
from napari_tinc.system.steps import complete
from napari_tinc.wavelets import likely, search
from napari_tinc.wavelets import transform as wavelet
from napari_tinc.wavelets.residual import Residual
from napari_tinc.wavelets.search import Coefficients


@st.composite
def regions(draw: st.DrawFn) -> tuple[tuple[tuple[int, int], ...], int]:
    """Draw a region of one to four axes, and voxels for a box, of which a few hundred fill it."""
    starts = draw(st.lists(st.integers(0, 300), min_size=1, max_size=4))
    region = tuple((start, start + draw(st.integers(1, 300))) for start in starts)
    volume = math.prod(b - a for a, b in region)
    return region, draw(st.integers(max(1, volume // 200), max(5000, volume)))


@settings(deadline=None)
@given(regions())
def test_boxes_tile_a_region_and_are_small(drawn: tuple[tuple[tuple[int, int], ...], int]) -> None:
    region, voxels = drawn
    found = list(scratch.boxes(region, voxels))
    for box in found:
        assert all(a <= lo < hi <= b for (lo, hi), (a, b) in zip(box, region, strict=True))
        assert math.prod(hi - lo for lo, hi in box) <= voxels
    assert sum(math.prod(hi - lo for lo, hi in box) for box in found) == math.prod(b - a for a, b in region)
    for axis in range(len(region)):
        edges = sorted({box[axis] for box in found})
        assert all(first[1] == second[0] for first, second in pairwise(edges))


@settings(deadline=None)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=4), st.integers(1, 200))
def test_slabs_follow_one_another_in_memory_and_are_small(sides: list[int], voxels: int) -> None:
    order = np.arange(math.prod(sides)).reshape(sides)
    pieces = [order[slab] for slab in scratch.slabs(tuple(sides), voxels)]
    np.testing.assert_array_equal(np.concatenate([piece.ravel() for piece in pieces]), order.ravel())
    assert all(piece.size <= max(voxels, sides[-1] if len(sides) > 1 else 0) for piece in pieces)
    assert all(piece.shape[-1] == sides[-1] for piece in pieces if len(sides) > 1)


@pytest.mark.parametrize("shape", [(70, 33, 41), (9, 130, 1), (1, 200, 7)])
@pytest.mark.parametrize("elongation", [math.inf, 1.5])
def test_a_transform_box_by_box_is_that_of_the_whole(
    shape: tuple[int, int, int], elongation: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    weights = np.random.default_rng(1).uniform(size=shape).astype(np.float32)

    def part(array: np.ndarray) -> object:
        return lambda box: array[tuple(slice(a, b) for a, b in box)]

    monkeypatch.setattr(LIMITS, "voxels", 2**11)
    splits = dyadic_splits(shape, elongation)
    found = complete(Coefficients.of(Residual(shape, part(volume), part(weights)), splits, 8))  # type: ignore[arg-type]
    low = volume
    for axes, bands in zip(splits, found.bands, strict=True):
        whole = wavelet.forward(low, axes)
        for orientation, band in zip(wavelet.orientations(axes), bands, strict=True):
            own = whole[orientation]
            np.testing.assert_array_equal(band[tuple(slice(n) for n in own.shape)], own)
            assert np.count_nonzero(band) == np.count_nonzero(own)
        low = whole[0]
    assert found.dc == low.item()
    monkeypatch.setattr(LIMITS, "voxels", 2**30)
    at_once = complete(Coefficients.of(Residual(shape, part(volume), part(weights)), splits, 8))  # type: ignore[arg-type]
    for one, other in zip(found.weights, at_once.weights, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("kind", ["dask", "zarr", "numpy"])
@pytest.mark.parametrize("weighted", [False, True])
def test_what_is_kept_in_files_gives_the_same_bytes(kind: str, weighted: bool, tmp_path: Path) -> None:
    volume = blobs((40, 50, 60))
    weights = (volume > np.median(volume)).astype(np.uint8) if weighted else None
    expected = compress(volume, Target.ratio(40), preset="fast", weights=weights).to_bytes()
    given: object = volume
    if kind == "dask":
        given = da.from_array(volume, chunks=(7, 50, 16))
    elif kind == "zarr":
        given = zarr.create_array(tmp_path / "v.zarr", data=volume, chunks=(16, 16, 16))
    with memory_limit(1000):
        found = compress(given, Target.ratio(40), preset="fast", weights=weights)  # type: ignore[arg-type]
    assert found.to_bytes() == expected


def test_what_is_decoded_may_be_larger_than_memory() -> None:
    file = compress(blobs((40, 50, 60)), Target.ratio(40), preset="fast")
    with memory_limit(1000):
        found = file.decode()
    assert isinstance(found, np.memmap)
    np.testing.assert_array_equal(found, file.decode())


def test_more_than_any_disk_is_refused() -> None:
    with pytest.raises(InputError, match=r"GB of working space.*in parts"):
        scratch.zeros((2**31, 2**31, 2**31), np.uint16)


@pytest.mark.parametrize("suffix", [".zarr", ".tif", ".npy"])
def test_files_larger_than_memory_are_read_without_filling_it(suffix: str, tmp_path: Path) -> None:
    volume = np.arange(64 * 256 * 256, dtype=np.uint16).reshape(64, 256, 256)
    path = tmp_path / f"v{suffix}"
    if suffix == ".zarr":
        zarr.create_array(path, data=volume, chunks=(16, 64, 64))
    elif suffix == ".npy":
        np.save(path, volume)
    else:
        import tifffile

        tifffile.imwrite(path, volume, compression="zlib")
    read_volume(path)  # imports
    with memory_limit(2**20):
        tracemalloc.start()
        found = read_volume(path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    np.testing.assert_array_equal(found.data, volume)
    assert isinstance(found.data, np.memmap)
    assert peak < volume.nbytes / 2


def test_memory_does_not_grow_with_the_volume(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LIMITS, "voxels", 2**14)
    monkeypatch.setattr(likely, "_SAMPLED", 2**14)
    monkeypatch.setattr(search, "_MIDDLE_VOXELS", 2**14)
    monkeypatch.setattr(search, "_ROW_VOXELS", 0)  # the smallest blocks, or they would need most of the memory
    for module in (layers, framing, search):
        monkeypatch.setattr(module, "BlockCache", lambda: BlockCache(2**18))

    def peak(planes: int) -> int:
        stack = da.concatenate([da.from_array(blobs((32, 64, 64)))] * (planes // 32))
        with memory_limit(2**17):
            tracemalloc.start()
            compress(stack, Target.ratio(60), model="wavelet")
            found = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        return found

    peak(32)  # imports and kernels
    # Both have blocks enough for every thread to be at one. What threads happen to hold at once differs by 0.4 MB: the
    # larger one is four times as large, so that this is a third of a byte a voxel.
    growth = (peak(384) - peak(96)) / ((384 - 96) * 64 * 64)
    assert growth < 1, "bytes a voxel: what finer blocks look up; a copy of the volume in float32 would be 4"


def test_networks_are_not_trained_on_what_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    volume = blobs((32, 32, 32))
    monkeypatch.setattr(training, "prepare_training", None)
    with memory_limit(1000):
        with pytest.raises(InputError, match="fits in memory for model 'tinc'"):
            compress(volume, Target.ratio(16), model="tinc")
        found = compress(volume, Target.ratio(16), preset="best")
    assert found.header.model == MODEL_WAVELETS


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="how this system says that a disk is full is its own")
def test_a_full_disk_is_an_error_before_anything_is_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(file: int, offset: int, length: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with memory_limit(1000), pytest.raises(InputError, match=r"GB of working space.*No space left"):
        compress(blobs((32, 32, 32)), Target.ratio(16), preset="fast")
    assert not list(tmp_path.iterdir())


class Asked:
    """An array that notes how many chunks every reading takes."""

    def __init__(self, array: da.Array) -> None:
        self.array, self.counts = array, []
        self.shape, self.dtype, self.chunks = array.shape, array.dtype, array.chunks

    def __getitem__(self, key: object) -> da.Array:
        part = self.array[key]
        self.counts.append(part.npartitions)
        return part


@pytest.mark.parametrize("made", ["from an array", "computed"])
def test_a_block_holds_few_of_many_dask_chunks_so_that_reading_can_be_stopped(
    made: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The graph's own bookkeeping holds the interpreter's lock: ``benchmarks/reading.py --chunks`` has the seconds."""
    assert scratch._BLOCK_CHUNKS <= 2**14
    monkeypatch.setattr(scratch, "_BLOCK_CHUNKS", 2**6)
    shape, chunks = (40, 40, 40), (2, 2, 4)
    many = da.from_array(np.ones(shape, np.uint8), chunks) if made == "from an array" else da.ones(shape, chunks=chunks)
    asked = Asked(many)
    reports = list(scratch.read_steps(asked))
    assert sum(asked.counts) == many.npartitions == 4000
    assert max(asked.counts) <= 2**6
    assert len(reports) >= len(asked.counts) == reports[-1][1]


class Slow:
    """An array on a disk that takes for ever for a chunk."""

    shape, dtype, chunks = (4, 50, 50), np.dtype(np.uint16), (1, 50, 50)

    def __init__(self) -> None:
        self.answer = threading.Event()

    def __getitem__(self, key: object) -> np.ndarray:
        assert self.answer.wait(30)
        return np.full(self.shape, 7, np.uint16)[key]  # type: ignore[index]


def test_reading_from_a_slow_disk_can_be_stopped_at_any_time() -> None:
    slow = Slow()
    steps = scratch.read_steps(slow)
    assert [next(steps) for _ in range(5)] == [(0, 1)] * 5, "a step every tenth of a second"
    steps.close()
    assert not slow.answer.is_set(), "nothing was waited for"
    slow.answer.set()
    np.testing.assert_array_equal(scratch.to_array(slow), np.full(slow.shape, 7))


def test_a_zarr_of_a_billion_chunks_lists_none_of_them(tmp_path: Path) -> None:
    billion = zarr.create_array(tmp_path / "a.zarr", shape=(1000,) * 3, chunks=(1,) * 3, dtype="u1", fill_value=3)
    tracemalloc.start()
    steps = scratch.read_steps(billion)
    try:
        next(steps)
        assert tracemalloc.get_traced_memory()[1] < 2**30 + 2**27  # the voxels themselves, of which none is touched
    finally:
        tracemalloc.stop()
        steps.close()


@pytest.mark.parametrize("kind", ["zarr", "sharded", "dask", "uneven dask", "without chunks", "one axis of chunks"])
def test_arrays_in_many_small_chunks_are_read_in_few_blocks(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = np.arange(30 * 31 * 32, dtype=np.uint16).reshape(30, 31, 32)
    given: object = zarr.create_array(tmp_path / "a.zarr", data=volume, chunks=(3, 4, 5))
    if kind == "sharded":
        given = zarr.create_array(tmp_path / "b.zarr", data=volume, chunks=(3, 4, 5), shards=(6, 8, 10))
    if kind == "dask":
        given = da.from_array(volume, chunks=(3, 4, 5))
    if kind == "uneven dask":
        given = da.from_array(volume, chunks=((1, 20, 0, 9), (31,), (7,) * 4 + (4,)))
    if kind == "without chunks":
        given = type(
            "Plain", (), {"shape": volume.shape, "dtype": volume.dtype, "__getitem__": lambda _, k: volume[k]}
        )()
    if kind == "one axis of chunks":
        given = zarr.create_array(tmp_path / "c.zarr", data=volume, chunks=(1, 31, 32))
    for size in (2**25, 2**12):
        monkeypatch.setattr(scratch, "_BLOCK_BYTES", size)
        steps = scratch.read_steps(given)  # type: ignore[arg-type]
        reports = []
        while True:
            try:
                reports.append(next(steps))
            except StopIteration as stop:
                np.testing.assert_array_equal(stop.value, volume)
                break
        assert reports[-1][0] == reports[-1][1]
        if size == 2**25:
            assert reports[-1] == (1, 1)


def test_masked_blocks_and_unknown_shapes_are_refused() -> None:
    masked = da.ma.masked_equal(da.from_array(np.eye(8), chunks=4), 0)
    with pytest.raises(InputError, match="mask"):
        compress(masked, Target.ratio(2))
    unknown = da.from_array(np.eye(8), chunks=4)
    with pytest.raises(InputError, match="known shape"):
        compress(unknown[unknown[:, 0] > 0], Target.ratio(2))


def test_a_copy_is_the_callers_own() -> None:
    volume = blobs((8, 9, 10))
    assert scratch.to_array(volume) is volume
    copied = complete(scratch.read_steps(volume, copy=True))
    assert not np.shares_memory(copied, volume)
    np.testing.assert_array_equal(copied, volume)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_points_that_fill_a_cube_are_those_of_scipy(axes: int) -> None:
    np.testing.assert_allclose(
        scratch.halton(200, axes), qmc.Halton(axes, scramble=False).random(200), rtol=0, atol=1e-12
    )

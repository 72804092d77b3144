"""The resolutions of a written OME-Zarr, against plain numpy and the definition of the format."""

from __future__ import annotations

import errno
import itertools
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaozarrs
import zarr

from napari_tinc.arrays.metadata import Display, Metadata
from napari_tinc.errors import InputError
from napari_tinc.files import pyramid, read_volume, write_volume

UNITS = {"t": "second", "c": "", "z": "micrometer", "y": "micrometer", "x": "micrometer"}


def noise(*shape: int, dtype: str = "u2") -> np.ndarray:
    values = np.random.default_rng(0).uniform(-90 if np.dtype(dtype).kind != "u" else 0, 120, shape)
    return values.astype(dtype)


def written(path: Path, array: np.ndarray, metadata: Metadata) -> tuple[Any, list[np.ndarray]]:
    """Write an image; return its description and the voxels of every level."""
    write_volume(path, array, metadata)
    group = yaozarrs.validate_zarr_store(path)  # raises where the metadata or the arrays break the format
    multiscale = group.ome_metadata().multiscales[0]
    node = zarr.open_group(path, mode="r")
    return multiscale, [node[dataset.path][...] for dataset in multiscale.datasets]


def mean_at(fine: np.ndarray, index: tuple[int, ...], factors: tuple[int, ...]) -> float:
    covered = fine[tuple(slice(f * i, f * i + f) for f, i in zip(factors, index, strict=True))]
    return sum(map(float, covered.ravel())) / covered.size


@pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "f4", "f8"])
def test_every_voxel_is_the_mean_of_those_it_covers(tmp_path, dtype, monkeypatch):
    monkeypatch.setattr(pyramid, "COARSEST_SIDE", 6)
    monkeypatch.setattr("napari_tinc.files.zarr.CHUNK", {"t": 1, "c": 1, "z": 2, "y": 4, "x": 8})
    volume = noise(2, 3, 7, 13, 25, dtype=dtype)
    _, levels = written(tmp_path / "a.zarr", volume, Metadata("tczyx", (1.0,) * 5, ("",) * 5))
    assert [level.shape[2:] for level in levels] == [(7, 13, 25), (4, 7, 13), (4, 4, 7), (4, 4, 4)]
    assert {level.shape[:2] for level in levels} == {(2, 3)}, "neither time nor channels are halved"
    np.testing.assert_array_equal(levels[0], volume)
    for fine, coarse in itertools.pairwise(levels):
        assert coarse.dtype == volume.dtype
        factors = tuple(-(-many // few) for many, few in zip(fine.shape, coarse.shape, strict=True))
        expected = np.array([mean_at(fine, index, factors) for index in np.ndindex(coarse.shape)])
        slack = 0.5 if volume.dtype.kind in "iu" else 1e-5
        np.testing.assert_allclose(coarse.ravel().astype(float), expected, rtol=0, atol=slack)


def test_infinities_and_holes_stay_where_they_are(tmp_path, monkeypatch):
    monkeypatch.setattr(pyramid, "COARSEST_SIDE", 4)
    volume = np.zeros((8, 8), "f4")
    volume[0, 0], volume[1, 1], volume[4, 4], volume[6, 0] = np.inf, -np.inf, np.inf, np.nan
    _, (_, coarse) = written(tmp_path / "a.zarr", volume, Metadata.default(2))
    found = {index: coarse[index] for index in np.ndindex(4, 4) if coarse[index] != 0}
    assert set(found) == {(0, 0), (2, 2), (3, 0)}
    assert found[2, 2] == np.inf


def test_axes_are_halved_until_the_longest_has_256_voxels_and_a_thin_one_is_not():
    assert pyramid.level_shapes((256, 256, 256), "zyx") == [(256, 256, 256)]
    assert pyramid.level_shapes((300, 600), "yx") == [(300, 600), (150, 300), (150, 150)]
    assert pyramid.level_shapes((30, 2049, 1024), "zyx") == [
        (30, 2049, 1024), (30, 1025, 512), (30, 513, 256), (30, 257, 256), (30, 129, 256),
    ]  # fmt: skip
    assert pyramid.level_shapes((500, 700, 9, 9), "tcyx") == [(500, 700, 9, 9)]


@pytest.mark.parametrize("axes", ["yx", "zyx", "cyx", "tczyx", "xyz"])
def test_every_level_lies_where_its_voxels_come_from(tmp_path, axes, monkeypatch):
    monkeypatch.setattr(pyramid, "COARSEST_SIDE", 8)
    sides, steps = {"t": 2, "c": 2, "z": 12, "y": 64, "x": 33}, {"t": 30.0, "c": 1.0, "z": 2.0, "y": 0.3, "x": 0.7}
    places = {"t": 60.0, "c": 0.0, "z": -8.5, "y": 0.0, "x": 3.25}
    display = Display(tuple(places[letter] for letter in axes))
    metadata = Metadata(axes, tuple(map(steps.get, axes)), tuple(map(UNITS.get, axes)), (), "a", display)
    multiscale, levels = written(tmp_path / "a.zarr", noise(*map(sides.get, axes)), metadata)
    assert (multiscale.type, "description" in multiscale.metadata) == ("mean", True)
    for dataset, level in zip(multiscale.datasets, levels, strict=True):
        for position, axis in enumerate(multiscale.axes):
            fine = places[axis.name] + steps[axis.name] * np.arange(sides[axis.name])  # centres of the voxels
            factor = -(-sides[axis.name] // level.shape[position])
            factor = 2 ** round(np.log2(factor))
            moved = dataset.translation_transform.translation[position] if dataset.translation_transform else 0.0
            scale = dataset.scale_transform.scale[position]
            expected = [fine[i * factor : (i + 1) * factor].mean() for i in range(sides[axis.name] // factor)]
            found = (moved + scale * np.arange(level.shape[position]))[: len(expected)]
            np.testing.assert_allclose(found, expected)
    assert read_volume(tmp_path / "a.zarr").metadata.display.translate == tuple(
        places[axis.name] for axis in multiscale.axes
    )


def test_one_level_needs_no_downscaling_and_no_translation(tmp_path):
    multiscale, levels = written(tmp_path / "a.zarr", noise(4, 5, 6), Metadata.default(3))
    assert len(levels) == 1
    assert (multiscale.type, multiscale.metadata) == (None, None)
    assert multiscale.datasets[0].translation_transform is None


def test_a_large_image_is_written_without_being_held_again(tmp_path):
    volume = np.lib.format.open_memmap(tmp_path / "a.npy", "w+", "u2", (192, 1024, 512))
    tracemalloc.start()
    try:
        write_volume(tmp_path / "a.zarr", volume, Metadata.default(3))
        assert tracemalloc.get_traced_memory()[1] < volume.nbytes / 2
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("cause", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_pyramid_that_was_not_finished_is_not_there(tmp_path, monkeypatch, cause):
    def fail(*arguments: Any) -> None:
        raise cause

    monkeypatch.setattr(pyramid, "means", fail)
    with pytest.raises(InputError if isinstance(cause, OSError) else KeyboardInterrupt):
        write_volume(tmp_path / "a.zarr", noise(300, 20), Metadata.default(2))
    assert list(tmp_path.iterdir()) == []

"""What is refused before compression starts, and what must never be."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from napari_tinc.arrays import inputs
from napari_tinc.arrays.inputs import check_not_labels, check_volume
from napari_tinc.arrays.metadata import Metadata
from napari_tinc.errors import InputError


def refusal(array: np.ndarray, metadata: Metadata | None = None) -> str:
    with pytest.raises(InputError) as caught:
        check_volume(array, metadata or Metadata.default(array.ndim))
    text = str(caught.value)
    assert "\n" not in text
    assert "expected" in text
    assert "got" in text
    assert ";" in text  # what to do about it
    return text


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "f2", "f4", "f8", ">u2", ">f4"])
def test_accepted_dtypes_pass(dtype):
    check_volume(np.zeros((2, 3, 4), dtype), Metadata.default(3))


@pytest.mark.parametrize("shape", [(1, 1), (5, 6), (3, 5, 6), (2, 3, 5, 6), (1, 2, 3, 5, 6)])
def test_two_to_five_axes_pass(shape):
    check_volume(np.zeros(shape, "u2"), Metadata.default(len(shape)))


@pytest.mark.parametrize("dtype", ["bool", "c8", "O", "U3", "S3", [("a", "u2")], "i8", "u8", "M8[s]"])
def test_other_dtypes_are_refused_with_the_list_of_accepted_ones(dtype):
    text = refusal(np.zeros((2, 3, 4), dtype))
    assert "uint16" in text
    assert "float64" in text


@pytest.mark.skipif(np.longdouble().itemsize == 8, reason="long double is float64 here")
def test_long_double_is_refused():
    assert "float64 or less" in refusal(np.zeros((2, 3, 4), np.longdouble))


def test_64_bit_integers_are_refused_with_the_conversion_that_helps():
    assert "convert to int32" in refusal(np.zeros((2, 3, 4), "i8"))
    assert "convert to uint32" in refusal(np.zeros((2, 3, 4), "u8"))


def test_an_empty_volume_is_refused():
    assert "(0, 3, 4)" in refusal(np.zeros((0, 3, 4), "u2"))


@pytest.mark.parametrize("ndim", [0, 1, 6])
def test_too_few_or_too_many_axes_are_refused(ndim):
    assert "2 to 5 axes" in refusal(np.zeros((1,) * ndim, "u2"), Metadata("yx", (1.0, 1.0), ("", "")))


@pytest.mark.parametrize("axes", ["yx", "zzx", "zyq", "tcz", "tzyx", ""])
def test_axes_that_do_not_fit_are_refused(axes):
    assert repr(axes) in refusal(np.zeros((2, 3, 4), "u2"), Metadata(axes, (1.0,) * 3, ("",) * 3))


@pytest.mark.parametrize("step", [0.0, -1.0, np.nan, np.inf])
def test_impossible_voxel_sizes_are_refused(step):
    refusal(np.zeros((2, 3, 4), "u2"), Metadata("zyx", (step, 1.0, 1.0), ("",) * 3))


def test_channel_names_must_match_the_channels():
    refusal(np.zeros((2, 3, 4), "u2"), Metadata("cyx", (1.0,) * 3, ("",) * 3, ("only one",)))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("block", [1, 7, 1 << 22])
def test_non_finite_voxels_are_counted_and_the_first_is_named(bad, block, monkeypatch):
    monkeypatch.setattr(inputs, "BLOCK_VOXELS", block)
    volume = np.zeros((3, 4, 5, 6), "f4")
    volume[1, 2, 3, 4] = volume[2, 0, 0, 0] = volume[2, 3, 4, 5] = bad
    text = refusal(volume)
    assert "got 3 NaN" in text
    assert "(1, 2, 3, 4)" in text


def test_non_finite_voxels_are_found_in_a_transposed_view_and_a_2d_image():
    image = np.zeros((5, 7), "f8")
    image[4, 6] = np.nan
    assert "(6, 4)" in refusal(image.T)
    assert "(4, 6)" in refusal(image)


def test_the_scan_needs_little_memory(monkeypatch):
    monkeypatch.setattr(inputs, "BLOCK_VOXELS", 1 << 16)
    volume = np.zeros((2, 1024, 1024), "f4")
    tracemalloc.start()
    check_volume(volume, Metadata.default(3))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < volume.nbytes / 8


def labels(dtype: str) -> np.ndarray:
    """Boxes of 10 voxels a side, each with its own number, on background 0."""
    z, y, x = np.indices((24, 48, 48)) // 12
    inside = np.all([index % 12 < 10 for index in np.indices((24, 48, 48))], axis=0)
    return np.where(inside, 1 + z * 16 + y * 4 + x, 0).astype(dtype)


def smooth_spots() -> np.ndarray:
    z, y, x = np.indices((24, 48, 48))
    return 3000 * np.exp(-((z - 12) ** 2 + (y - 20) ** 2 + (x - 30) ** 2) / 60)


@pytest.mark.parametrize("dtype", ["i4", "u4", "u2", "i2", "u1"])
def test_a_label_image_is_refused(dtype):
    with pytest.raises(InputError, match="--force"):
        check_not_labels(labels(dtype))


def test_an_image_the_caller_calls_labels_is_refused():
    with pytest.raises(InputError, match="label image"):
        check_not_labels(labels("u2"), is_labels=True)


@pytest.mark.parametrize("dtype", ["u1", "u2", "i2"])
def test_8_and_16_bit_images_are_not_taken_for_labels(dtype):
    rng = np.random.Generator(np.random.PCG64(0))
    top = np.iinfo(dtype).max
    spots = smooth_spots() / 3000 * min(top, 3000)
    check_not_labels(spots.astype(dtype))  # noise-free, on a wide dark background
    check_not_labels((spots // 25 * 25).astype(dtype))  # of few grey levels
    check_not_labels(rng.poisson(spots).clip(0, top // 3).astype(dtype))  # noisy, and saturated
    check_not_labels((labels("u2") > 0).astype(dtype))  # a mask
    check_not_labels(labels("u2").astype(dtype).clip(0, 4))  # tissue classes
    check_not_labels(np.full((8, 8, 8), 7, dtype))
    check_not_labels(np.zeros((3, 0), dtype))


def test_floats_are_not_taken_for_labels():
    check_not_labels(labels("f4"))


def test_32_bit_microscopy_is_not_taken_for_labels():
    rng = np.random.Generator(np.random.PCG64(0))
    check_not_labels(rng.poisson(0.05, (24, 48, 48)).astype("u4"))  # sparse photon counts
    check_not_labels(rng.poisson(0.05 + smooth_spots() / 500).astype("i4"))
    check_not_labels(smooth_spots().astype("i4"))  # noise-free, on a wide dark background
    check_not_labels(rng.normal(-500, 30, (24, 48, 48)).astype("i4"))  # Hounsfield units
    check_not_labels(np.full((8, 8, 8), 7, "u4"))  # constant
    check_not_labels(np.zeros((3, 0), "u4"))

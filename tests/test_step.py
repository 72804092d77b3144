"""A step of the quantiser bounds the error alike in all volumes, or is refused."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import blobs

from napari_tinc import BudgetError, CompressedVolume, Metadata, Target, compress, samples
from napari_tinc.encode.compression import compress_steps
from napari_tinc.format import MODEL_CONSTANT
from napari_tinc.settings import Settings
from napari_tinc.system.steps import complete
from napari_tinc.wavelets.payload import parse_wavelets

Array = npt.NDArray[Any]


def error(original: Array, decoded: Array) -> float:
    """Root mean squared error."""
    return float(np.sqrt(np.square(decoded.astype(float) - original.astype(float)).mean()))


def steps_of(volume: CompressedVolume) -> list[float]:
    """Steps in the file's wavelet segments, in intensity units."""
    heads = [parse_wavelets(s.payload, volume.tree.shape).head for s in volume._frame.segments if s.kind == 2]
    return [
        2 ** (head.step_code / 256 - 40) * item.scale for head, item in zip(heads, volume.header.items, strict=True)
    ]


@pytest.mark.parametrize("step", [2, 30, 400])
def test_the_error_of_a_real_volume_is_about_a_third_of_the_step_and_the_file_says_so(step: float) -> None:
    brain, metadata = samples.load("brain")
    volume = compress(brain, Target.step(step), metadata=metadata)
    assert 0.25 * step < error(brain, volume.decode()) < 0.35 * step
    assert steps_of(volume) == [pytest.approx(step, rel=0.002)]
    psnr = 20 * math.log10((int(brain.max()) - int(brain.min())) / error(brain, volume.decode()))
    assert volume.provenance["psnr"] == pytest.approx(psnr, abs=0.01)


@pytest.mark.parametrize("sigma", [0.3, 0.5, 0.7, 1, 3, 30])
def test_noise_of_any_strength_is_kept_to_a_third_of_the_step_or_smoothed_away(sigma: float) -> None:
    noise = np.random.default_rng(0).normal(1000, 10 * sigma, (24, 30, 28)).astype("f4")
    assert error(noise, compress(noise, Target.step(10)).decode()) <= 10 * min(sigma, 0.34)


@given(st.integers(0, 2**32), st.floats(-3, 3), st.lists(st.integers(1, 9), min_size=2, max_size=3))
@settings(max_examples=80, deadline=None)
def test_no_volume_is_farther_off_than_half_the_step(seed: int, octaves: float, shape: list[int]) -> None:
    draw = np.random.default_rng(seed)
    array = draw.choice([draw.normal(size=shape), draw.random(shape) < 0.3, draw.normal(size=shape) ** 5]).astype("f4")
    step = 2**octaves * max(float(array.std()), 1e-3)
    assert error(array, compress(array, Target.step(step)).decode()) <= 0.5001 * step


@pytest.mark.parametrize(
    ("shape", "axes"), [((60, 50), "yx"), ((2, 9, 30, 31), "czyx"), ((3, 40, 41), "tyx"), ((2, 2, 6, 20, 21), "tczyx")]
)
def test_channels_and_time_points_have_the_same_step_whatever_their_ranges(shape: tuple[int, ...], axes: str) -> None:
    array = blobs(shape, dtype="f4")
    array[-1] *= 20
    volume = compress(array, Target.step(50), metadata=Metadata(axes, (1.0,) * len(axes), ("",) * len(axes)))
    items = len(volume.value_ranges)
    assert steps_of(volume) == [pytest.approx(50, rel=0.002)] * items
    assert all(error(array[i], volume.decode()[i]) < 0.5 * 50 for i in range(len(array)))


@pytest.mark.parametrize("dtype", ["u1", "i2", "u4", "f2", "f4", "f8"])
def test_integers_come_back_exactly_from_a_small_step_and_floats_nearly(dtype: str) -> None:
    array = blobs((10, 11, 12), dtype=dtype, low=5, high=120)
    assert error(array, compress(array, Target.step(0.01)).decode()) <= (0 if dtype[0] in "ui" else 0.005)


def test_a_step_beyond_the_range_leaves_next_to_nothing_and_is_still_a_file() -> None:
    array = blobs((10, 11, 12))
    for step in (1e6, 1e300):
        volume = compress(array, Target.step(step))
        assert volume.nbytes < 200
        assert array.min() <= volume.decode().min() <= volume.decode().max() <= array.max()


@pytest.mark.parametrize(
    ("array", "step"),
    [
        (blobs((8, 9, 10), dtype="f4"), 1e-300),
        (blobs((8, 9, 10), dtype="f8") * 1e100, 1e-250),
        (blobs((8, 9, 10), dtype="f8", high=4e9).astype("u4"), 1),
        (np.where(blobs((8, 9, 10)) > 900, 1e9, blobs((8, 9, 10), dtype="f8")), 0.01),
    ],
    ids=["f4", "large doubles", "u4", "an outlier"],
)
def test_a_step_that_float32_cannot_keep_is_refused_and_not_quietly_broken(array: Array, step: float) -> None:
    with pytest.raises(BudgetError, match="expected a root mean squared error of at most half the step") as caught:
        compress(array, Target.step(step))
    assert "raise the step" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_tiny_range_and_a_huge_step_are_no_error() -> None:
    array = blobs((8, 9, 10), dtype="f8") * 1e-250
    assert error(array, compress(array, Target.step(1e300)).decode()) <= np.ptp(array)


def test_weights_favour_what_they_say_and_lift_the_bound() -> None:
    array = blobs((20, 24, 24), dtype="f4")
    weights = np.full(array.shape, 1e-6)
    weights[:, :, 12:] = 1
    decoded = compress(array, Target.step(60), weights=weights).decode()
    assert error(array[:, :, 14:], decoded[:, :, 14:]) < 0.5 * 60
    assert error(array[:, :, :10], decoded[:, :, :10]) > error(array[:, :, 14:], decoded[:, :, 14:])


def test_one_value_is_exact() -> None:
    volume = compress(np.full((5, 6, 7), 3.5), Target.step(1))
    assert volume.header.model == MODEL_CONSTANT
    assert (volume.decode() == 3.5).all()


def test_a_file_without_provenance_has_the_same_voxels_in_fewer_bytes() -> None:
    array = blobs((20, 22, 21))
    told = compress(array, Target.step(20))
    silent = complete(compress_steps(array, Target.step(20), Settings(provenance=False)))
    assert told.provenance.keys() >= {"version", "preset", "seed", "psnr"}
    assert dict(silent.provenance) == {}
    assert told.nbytes - silent.nbytes > 40
    np.testing.assert_array_equal(told.decode(), silent.decode())

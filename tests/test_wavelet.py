"""The wavelet transform against its filters written out, and on any shape, whole and by regions."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_tinc.wavelets import transform as wavelet

Floats = npt.NDArray[np.float32]

# Analysis filters of CDF 9/7 as JPEG 2000 (ISO/IEC 15444-1, Annex F) has them: gain 1 at zero frequency, 2 at Nyquist.
LOW = (0.602949018236, 0.266864118443, -0.078223266529, -0.016864118443, 0.026748757411)
HIGH = (1.115087052457, -0.591271763114, -0.057543526229, 0.091271763114)


@st.composite
def volumes(draw: st.DrawFn) -> tuple[Floats, wavelet.Axes]:
    shape = tuple(draw(st.integers(1, 17)) for _ in range(3))
    splittable = [axis for axis, n in enumerate(shape) if n > 1]
    axes = tuple(sorted(draw(st.sets(st.sampled_from(splittable))))) if splittable else ()
    seed = draw(st.integers(0, 2**32 - 1))
    return np.random.default_rng(seed).normal(0, 100, shape).astype(np.float32), axes


@settings(max_examples=100, deadline=None)
@given(volumes())
def test_any_shape_comes_back(case: tuple[Floats, wavelet.Axes]) -> None:
    volume, axes = case
    given_volume = volume.copy()
    bands = wavelet.forward(volume, axes)
    assert sorted(bands) == sorted({0, *wavelet.orientations(axes)} if axes else {0})
    for orientation, band in bands.items():
        sides = [
            n if axis not in axes else n // 2 if orientation >> axis & 1 else -(-n // 2)
            for axis, n in enumerate(volume.shape)
        ]
        assert band.shape == tuple(sides)
    np.testing.assert_allclose(inverse(bands, axes), volume, atol=1e-3)
    np.testing.assert_array_equal(volume, given_volume)


def inverse(bands: wavelet.Bands, axes: wavelet.Axes) -> Floats:
    sides = [n + bands[1 << axis].shape[axis] if axis in axes else n for axis, n in enumerate(bands[0].shape)]
    volume = np.full(sides, np.nan, np.float32)
    for orientation, band in bands.items():
        wavelet.band_of(volume, orientation, axes)[...] = band
    wavelet.merge(volume, axes)
    return volume


def correlate(signal: npt.NDArray[np.float64], half: tuple[float, ...], first: int) -> npt.NDArray[np.float64]:
    """Every second sample of a symmetric filter's output, the signal mirrored at its ends."""
    taps = np.array([*half[:0:-1], *half])
    padded = np.pad(signal, len(half) - 1, mode="reflect")
    return np.convolve(padded, taps, mode="valid")[first::2]


@pytest.mark.parametrize("length", [9, 10, 64, 101])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_bands_are_those_of_the_filters(length: int, axis: int) -> None:
    signal = np.random.default_rng(length).normal(size=length)
    shape = [1, 1, 1]
    shape[axis] = length
    bands = wavelet.forward(signal.astype(np.float32).reshape(shape), (axis,))
    np.testing.assert_allclose(bands[0].ravel(), np.sqrt(2) * correlate(signal, LOW, 0), atol=1e-5)
    np.testing.assert_allclose(bands[1 << axis].ravel(), correlate(signal, HIGH, 1) / np.sqrt(2), atol=1e-5)


def test_several_axes_are_split_one_after_the_other() -> None:
    volume = np.random.default_rng(0).normal(size=(9, 12, 7)).astype(np.float32)
    both = wavelet.forward(volume, (0, 2))
    first = wavelet.forward(volume, (0,))
    for orientation, band in first.items():
        halves = wavelet.forward(band, (2,))
        np.testing.assert_array_equal(both[orientation], halves[0])
        np.testing.assert_array_equal(both[orientation | 4], halves[4])


def test_a_squared_error_of_coefficients_is_about_that_of_voxels() -> None:
    errors = np.random.default_rng(1).normal(size=(16, 24, 20)).astype(np.float32)
    bands = wavelet.forward(np.zeros_like(errors), (0, 1, 2))
    noise = {o: np.random.default_rng(o).normal(size=band.shape).astype(np.float32) for o, band in bands.items()}
    spread = inverse(noise, (0, 1, 2))
    ratio = float(np.square(spread).sum()) / sum(float(np.square(band).sum()) for band in noise.values())
    assert 0.9 < ratio < 1.2


def test_a_constant_has_no_high_pass_and_a_low_pass_of_gain_root_two_per_axis() -> None:
    bands = wavelet.forward(np.full((6, 7, 8), 5, np.float32), (0, 1, 2))
    np.testing.assert_allclose(bands.pop(0), 5 * 2**1.5, rtol=1e-5)
    for band in bands.values():
        np.testing.assert_allclose(band, 0, atol=1e-5)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_region_needs_only_what_needed_says(data: st.DataObject) -> None:
    samples = data.draw(st.integers(2, 60))
    start = data.draw(st.integers(0, samples - 1))
    stop = data.draw(st.integers(start + 1, samples))
    bands = {o: np.random.default_rng(o).normal(size=n).astype(np.float32).reshape(-1, 1, 1)
             for o, n in ((0, (samples + 1) // 2), (1, samples // 2))}  # fmt: skip
    whole = inverse(bands, (0,))
    low, high = wavelet.needed(start, stop, samples)
    cut = {0: bands[0][low:high], 1: bands[1][low : min(high, samples // 2)]}
    part = inverse(cut, (0,))[start - 2 * low : stop - 2 * low]
    np.testing.assert_array_equal(part, whole[start:stop])


@pytest.mark.parametrize("axes", [c for n in (1, 2, 3) for c in combinations(range(3), n)], ids=str)
def test_orientations_go_from_fewer_to_more_high_passes(axes: wavelet.Axes) -> None:
    found = wavelet.orientations(axes)
    subsets = [sum(1 << axis for axis in c) for n in range(1, len(axes) + 1) for c in combinations(axes, n)]
    assert sorted(found) == sorted(subsets)
    assert list(found) == sorted(found, key=lambda o: (bin(o).count("1"), o))

"""The noise of an image, estimated from the image alone, against noise that was put there."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from napari_tinc import samples
from napari_tinc.measures.noise import NONE, Noise, estimate_noise, note_of, note_text, read_note, sampled_noise

SHAPE = (24, 64, 64)


def smooth(low: float = 200, high: float = 1200, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """Structure without noise: blobs some voxels wide."""
    image = gaussian_filter(np.random.default_rng(5).normal(size=shape), 3)
    return low + (high - low) * (image - image.min()) / np.ptp(image)


@pytest.mark.parametrize("sigma", [2.0, 10.0, 50.0])
@pytest.mark.parametrize("dtype", ["uint16", "float32"])
@pytest.mark.parametrize("shape", [SHAPE, (96, 128), (3, 96, 128)])
def test_white_noise_is_measured_within_a_tenth(sigma: float, dtype: str, shape: tuple[int, ...]) -> None:
    noisy = smooth(shape=shape) + np.random.default_rng(1).normal(0, sigma, shape)
    noisy = (np.rint(noisy) if dtype == "uint16" else noisy).astype(dtype)
    found = estimate_noise([noisy])
    for intensity in (300, 700, 1100):
        assert float(found.variance(np.array(intensity))) ** 0.5 == pytest.approx(sigma, rel=0.1)


def test_shot_noise_is_measured_at_every_intensity() -> None:
    """A camera of 2.5 grey values a photon, 100 of offset and a read noise of 4."""
    photons = smooth(5, 2000)
    camera = np.random.default_rng(2)
    noisy = np.rint(100 + 2.5 * camera.poisson(photons) + camera.normal(0, 4, SHAPE)).astype(np.uint16)
    found = estimate_noise([noisy])
    for photon in np.quantile(photons, [0.01, 0.1, 0.5, 0.9, 0.99]):
        expected = 2.5**2 * photon + 4**2
        assert float(found.variance(np.array(100 + 2.5 * photon))) == pytest.approx(expected, rel=0.12)


@pytest.mark.parametrize("phantom", [samples.neuron_phantom, samples.vessel_tree])
def test_thin_bright_branches_do_not_count_as_noise(phantom: object) -> None:
    made = phantom((48, 96, 96))  # type: ignore[operator]
    variance = estimate_noise([made.noisy]).variance(made.clean)
    squares = (made.noisy - made.clean.astype(np.float64)) ** 2
    assert variance.mean() == pytest.approx(squares.mean(), rel=0.1)
    assert variance[made.mask].mean() == pytest.approx(squares[made.mask].mean(), rel=0.15)


def test_blocks_of_a_volume_tell_as_much_as_the_volume() -> None:
    noisy = (smooth() + np.random.default_rng(1).normal(0, 20, SHAPE)).astype(np.float32)
    halves = estimate_noise([noisy[:12], noisy[12:]])
    assert halves.variance(np.array(700)) == pytest.approx(estimate_noise([noisy]).variance(np.array(700)), rel=0.05)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32", "float64"])
def test_a_rounded_or_smooth_image_has_no_noise(dtype: str) -> None:
    image = smooth(20, 220)
    found = estimate_noise([np.rint(image).astype(dtype)])
    assert found.is_none
    assert not found.variance(image).any()


def test_few_grey_levels_are_rounding_not_noise() -> None:
    assert estimate_noise([(64 * np.rint(smooth() / 64)).astype(np.int16)]).is_none


def test_a_masked_background_does_not_hide_the_noise_beside_it() -> None:
    noisy = smooth() + np.random.default_rng(1).normal(0, 20, SHAPE)
    noisy[:, :40] = 0
    assert float(estimate_noise([noisy]).variance(np.array(700))) ** 0.5 == pytest.approx(20, rel=0.1)


def test_blurred_noise_is_told_from_white_noise() -> None:
    noise = np.random.default_rng(1).normal(0, 50, SHAPE)
    assert estimate_noise([smooth() + noise]).colour == pytest.approx(1, abs=0.1)
    assert estimate_noise([smooth() + gaussian_filter(noise, (0, 0.8, 0.8))]).colour > 2


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 3, 3), (2, 2, 2), (5, 7)])
def test_tiny_images_have_no_noise_that_could_be_told(shape: tuple[int, ...]) -> None:
    assert estimate_noise([np.random.default_rng(0).integers(0, 99, shape, np.uint16)]).is_none


def test_the_noise_of_a_single_row_is_roughly_told() -> None:
    found = estimate_noise([np.random.default_rng(0).integers(0, 99, (1, 1, 400), np.uint16)])
    assert float(found.variance(np.array(50))) == pytest.approx((99**2 - 1) / 12, rel=0.7)


def test_a_constant_image_has_no_noise() -> None:
    assert estimate_noise([np.full(SHAPE, 7, np.uint16)]).is_none


def test_a_sample_of_a_volume_tells_about_as_much_as_the_volume() -> None:
    made = samples.neuron_phantom((64, 128, 128))
    sampled, whole = sampled_noise(made.noisy), estimate_noise([made.noisy])
    usual = np.array(np.median(made.noisy))
    assert float(sampled.variance(usual)) == pytest.approx(float(whole.variance(usual)), rel=0.15)
    assert 0 <= whole.misfit <= sampled.misfit < 0.5  # fewer voxels, less certain


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (1, 5, 900), (4, 4, 4), (300, 2)])
def test_noise_of_the_smallest_pictures_is_asked_without_harm(shape: tuple[int, ...]) -> None:
    assert sampled_noise(np.arange(np.prod(shape), dtype=np.uint16).reshape(shape)).is_none


def test_notes_on_noise_are_read_as_written() -> None:
    note = note_of([Noise(2.23412, -212.75, 40, 1, 0.031), NONE])
    assert note == "2.234 -212.8 0.031; none"
    assert read_note(note) == [(2.234, -212.8, 0.031), None]
    assert note_text(note) == "variance 2.234 · intensity - 212.8, to within 3%; none found"


@pytest.mark.parametrize(
    "note", [None, "", 7, True, "1 2", "1 2 x", "1 2 nan", "1 2 3 4", "none;none", "1 " * 1000, "inf 0 0"]
)
def test_what_is_no_such_note_is_not_read(note: object) -> None:
    assert read_note(note) == []
    assert note_text(note) == ""

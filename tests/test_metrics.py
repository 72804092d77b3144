from __future__ import annotations

import math
import tracemalloc
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import skimage.filters
import skimage.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_tinc.errors import InputError
from napari_tinc.limits import LIMITS
from napari_tinc.measures import metrics

Array = npt.NDArray[np.generic]

# scikit-image has no types; through these its functions can be called from typed code.
skimage_metrics: Any = skimage.metrics
skimage_filters: Any = skimage.filters


def noisy_pair(shape: tuple[int, ...], seed: int = 0) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint16]]:
    rng = np.random.default_rng(seed)
    reference = rng.integers(1000, 9000, shape).astype(np.uint16)
    decoded = np.clip(reference + rng.normal(0, 400, shape), 0, 65535).astype(np.uint16)
    return reference, decoded


def squared_errors(reference: Array, decoded: Array) -> list[float]:
    """The definition, one voxel after the other, in Python's own numbers."""
    return [float(a - b) ** 2 for a, b in zip(reference.ravel().tolist(), decoded.ravel().tolist(), strict=True)]


def whole_volume_ssim(reference: Array, decoded: Array, radius: int, peak: float) -> float:
    return float(
        skimage_metrics.structural_similarity(
            reference.astype(np.float64), decoded.astype(np.float64), data_range=peak, gaussian_weights=True,
            sigma=0.3 * radius, use_sample_covariance=False,
        )
    )  # fmt: skip


@given(
    shape=st.sampled_from([(1,), (7,), (5, 3), (1, 1, 1), (3, 1, 5), (2, 3, 4, 5)]),
    dtype=st.sampled_from(["u1", "i2", "u2", "i4", "f4", "f8"]),
    seed=st.integers(0, 1000),
)
@settings(deadline=None, max_examples=60)
def test_errors_follow_their_definitions(shape: tuple[int, ...], dtype: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    reference, decoded = (rng.uniform(0, 100, shape).astype(dtype) for _ in range(2))
    expected = squared_errors(reference, decoded)
    assert metrics.mse(reference, decoded) == pytest.approx(math.fsum(expected) / len(expected), rel=1e-12)
    assert metrics.max_error(reference, decoded) == math.sqrt(max(expected))


@pytest.mark.parametrize("shape", [(13, 22, 18), (37, 41), (1, 40, 40), (3, 1, 1, 50)])
def test_psnr_agrees_with_scikit_image_over_the_data_range(shape: tuple[int, ...]) -> None:
    reference, decoded = noisy_pair(shape)
    peak = int(reference.max()) - int(reference.min())
    assert metrics.psnr(reference, decoded) == pytest.approx(
        skimage_metrics.peak_signal_noise_ratio(reference, decoded, data_range=peak), rel=1e-12
    )
    assert metrics.psnr(reference, decoded, 4095) == pytest.approx(
        skimage_metrics.peak_signal_noise_ratio(reference, decoded, data_range=4095), rel=1e-12
    )


def test_psnr_over_the_dtype_is_the_number_papers_report() -> None:
    reference, decoded = noisy_pair((9, 10, 11))
    assert metrics.psnr_dtype(reference, decoded) == pytest.approx(
        skimage_metrics.peak_signal_noise_ratio(reference, decoded, data_range=65535), rel=1e-12
    )
    signed = reference.astype(np.int16)
    assert metrics.psnr_dtype(signed, decoded.astype(np.int16)) == pytest.approx(
        skimage_metrics.peak_signal_noise_ratio(signed, decoded.astype(np.int16), data_range=65535), rel=1e-12
    )


def test_psnr_over_the_dtype_is_refused_for_floats() -> None:
    volume = np.zeros((4, 4), np.float32)
    with pytest.raises(InputError, match="integer volume, got float32"):
        metrics.psnr_dtype(volume, volume)


@pytest.mark.parametrize(
    ("dtype", "low", "high"), [("u1", 0, 255), ("u2", 0, 65535), ("i2", -32768, 32767), ("i4", -(2**31), 2**31 - 1)]
)
def test_integers_do_not_wrap_around(dtype: str, low: int, high: int) -> None:
    reference, decoded = np.array([[low, high]], dtype), np.array([[high, low]], dtype)
    span = float(high - low)
    assert metrics.value_range(reference) == span
    assert metrics.max_error(reference, decoded) == span
    assert metrics.mse(reference, decoded) == span**2
    assert metrics.psnr(reference, decoded) == 0


def test_equal_volumes_have_infinite_psnr_and_constant_ones_minus_infinite() -> None:
    constant = np.full((3, 4, 5), 7, np.uint16)
    assert metrics.psnr(constant, constant) == math.inf
    assert metrics.psnr(constant, constant + 1) == -math.inf


def test_psnr_of_many_errors_is_that_of_each() -> None:
    errors = np.array([[0.0, 1.0], [4.0, 100.0]])
    expected = np.array([[math.inf, 20.0], [20 - 10 * math.log10(4), 0.0]])
    assert metrics.psnr_from_mse(errors, 10) == pytest.approx(expected, rel=1e-12)
    assert metrics.psnr_from_mse(4.0, 10) == pytest.approx(expected[1, 0], rel=1e-12)


@pytest.mark.parametrize("shape", [(13, 22, 18), (11, 11, 11), (120, 12, 110), (60, 41), (1100, 33), (2, 12, 13, 14)])
def test_ssim_in_blocks_is_that_of_the_whole_volume(shape: tuple[int, ...]) -> None:
    reference, decoded = noisy_pair(shape)
    decoded[..., : shape[-1] // 2] //= 2
    items = zip(reference, decoded, strict=True) if len(shape) == 4 else [(reference, decoded)]
    peak = float(np.ptp(reference))
    expected = np.mean([whole_volume_ssim(a, b, 5, peak) for a, b in items])
    assert metrics.ssim(reference, decoded) == pytest.approx(expected, rel=1e-10)


def test_ssim_of_a_thin_stack_uses_the_largest_window_that_fits() -> None:
    reference, decoded = noisy_pair((8, 40, 30))
    expected = whole_volume_ssim(reference, decoded, 3, float(np.ptp(reference)))
    assert metrics.ssim(reference, decoded) == pytest.approx(expected, rel=1e-10)


def test_ssim_of_one_or_two_planes_is_the_mean_of_the_planes() -> None:
    reference, decoded = noisy_pair((2, 40, 30))
    peak = float(np.ptp(reference))
    expected = np.mean([whole_volume_ssim(a, b, 5, peak) for a, b in zip(reference, decoded, strict=True)])
    assert metrics.ssim(reference, decoded) == pytest.approx(expected, rel=1e-10)
    columns = np.ascontiguousarray(reference.transpose(1, 0, 2)), np.ascontiguousarray(decoded.transpose(1, 0, 2))
    assert metrics.ssim(*columns) == pytest.approx(expected, rel=1e-10)


def test_ssim_windows_do_not_reach_across_time_or_channels() -> None:
    reference, decoded = noisy_pair((20, 25, 30))
    peak = float(np.ptp(reference))
    expected = np.mean([whole_volume_ssim(a, b, 5, peak) for a, b in zip(reference, decoded, strict=True)])
    assert metrics.ssim(reference, decoded, spatial_ndim=2) == pytest.approx(expected, rel=1e-10)


def test_ssim_is_one_for_equal_volumes_and_nan_where_it_is_undefined() -> None:
    one_voxel, constant = np.full((1, 1, 1), 5, np.uint16), np.full((12, 12, 12), 5, np.uint16)
    assert metrics.ssim(one_voxel, one_voxel) == metrics.ssim(constant, constant) == 1
    assert math.isnan(metrics.ssim(one_voxel, one_voxel + 1))
    assert math.isnan(metrics.ssim(constant, constant + 1))
    reference, _ = noisy_pair((12, 12, 12))
    assert metrics.ssim(reference, reference) == pytest.approx(1, abs=1e-12)


def test_binary_scores_follow_their_definitions() -> None:
    reference, decoded = noisy_pair((7, 9, 11))
    truth, found = reference.ravel() >= 5000, decoded.ravel() >= 5000
    cases = list(zip(truth.tolist(), found.tolist(), strict=True))
    tp, fp, fn = cases.count((True, True)), cases.count((False, True)), cases.count((True, False))
    scores = metrics.binary_scores(reference, decoded, 5000)
    assert scores.accuracy == pytest.approx((len(cases) - fp - fn) / len(cases))
    assert scores.iou == pytest.approx(tp / (tp + fp + fn))
    assert scores.dice == pytest.approx(2 * tp / (2 * tp + fp + fn))
    assert scores.precision == pytest.approx(tp / (tp + fp))
    assert scores.recall == pytest.approx(tp / (tp + fn))


def test_a_mask_replaces_the_thresholded_reference() -> None:
    decoded = np.array([[0, 9], [9, 9]], np.uint16)
    mask = np.array([[0, 255], [0, 255]], np.uint8)
    scores = metrics.binary_scores(np.zeros((2, 2), np.uint16), decoded, 9, mask)
    assert (scores.precision, scores.recall, scores.iou, scores.dice) == pytest.approx((2 / 3, 1, 2 / 3, 0.8))
    assert scores.accuracy == 0.75


def test_binary_scores_without_foreground_say_what_is_undefined() -> None:
    empty, full = np.zeros((2, 3)), np.ones((2, 3))
    both = metrics.binary_scores(empty, empty, 0.5)
    assert (both.accuracy, both.iou, both.dice) == (1, 1, 1)
    assert math.isnan(both.precision)
    assert math.isnan(both.recall)
    missed = metrics.binary_scores(full, empty, 0.5)
    assert (missed.accuracy, missed.iou, missed.dice, missed.recall) == (0, 0, 0, 0)
    assert math.isnan(missed.precision)


def test_otsu_finds_the_foreground_of_scikit_image() -> None:
    rng = np.random.default_rng(0)
    volume = np.where(rng.random((20, 30, 40)) < 0.2, rng.normal(9000, 700, (20, 30, 40)), rng.normal(900, 90, 1))
    volume = np.clip(volume, 0, 65535).astype(np.uint16)
    foreground = volume >= metrics.otsu_threshold(volume)
    assert np.array_equal(foreground, volume > skimage_filters.threshold_otsu(volume))
    scaled = volume.astype(np.float32) / 65535 - 0.1
    assert np.array_equal(scaled >= metrics.otsu_threshold(scaled), foreground)


def test_otsu_is_refused_for_a_constant_volume() -> None:
    with pytest.raises(InputError, match="at least two values, got only 3"):
        metrics.otsu_threshold(np.full((4, 4), 3, np.uint8))


@pytest.mark.parametrize(
    ("shape", "edges"),
    [
        ((37, 41), [[0, 16, 32, 37], [0, 20, 40, 41]]),
        ((13, 22, 18), [[0, 7, 13], [0, 1, 2, 22], [0, 18]]),
        ((1, 1, 5), [[0, 1], [0, 1], [0, 2, 5]]),
    ],
)
@pytest.mark.parametrize("slab", [50, 1 << 20])
def test_octant_errors_are_those_of_every_box(
    shape: tuple[int, ...], edges: list[list[int]], slab: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LIMITS, "voxels", 2 * slab)
    reference, decoded = noisy_pair(shape)
    errors = metrics.octant_errors(reference, decoded, [np.array(axis_edges) for axis_edges in edges])
    assert errors.mse.shape == tuple(len(axis_edges) - 1 for axis_edges in edges)
    for index in np.ndindex(errors.mse.shape):
        box = tuple(slice(e[i], e[i + 1]) for e, i in zip(edges, index, strict=True))
        expected = squared_errors(reference[box], decoded[box])
        assert errors.mse[index] == pytest.approx(sum(expected) / len(expected), rel=1e-12)
        assert errors.max_error[index] == math.sqrt(max(expected))
        assert errors.voxels[index] == len(expected)


def test_octant_errors_of_parts_add_up_to_those_of_the_whole() -> None:
    edges = [np.array(axis) for axis in ([0, 7, 13], [0, 1, 2, 22], [0, 18])]
    reference, decoded = noisy_pair((13, 22, 18))
    total = metrics.OctantErrors(edges, 0.3)
    for start, stop in ((0, 5), (5, 13)):
        part = metrics.OctantErrors(edges, 0.3)
        part.add(reference[start:stop], decoded[start:stop], ((start, stop), (0, 22), (0, 18)))
        total.merge(part)
    whole = metrics.octant_errors(reference, decoded, edges, 0.3)
    np.testing.assert_allclose(total.mse, whole.mse, rtol=1e-12)
    for name in ("max_error", "voxels", "dice"):
        np.testing.assert_array_equal(getattr(total, name), getattr(whole, name))


@pytest.mark.parametrize("slab", [50, 1 << 20])
def test_octant_dice_is_that_of_every_box(slab: int, monkeypatch: pytest.MonkeyPatch) -> None:
    reference, decoded = noisy_pair((13, 22, 18))
    reference[:7, :2] = decoded[:7, :2] = reference.min()
    edges = [[0, 7, 13], [0, 1, 2, 22], [0, 11, 18]]
    threshold = float(np.median(reference)) + 0.5
    monkeypatch.setattr(LIMITS, "voxels", 2 * slab)
    dice = metrics.octant_errors(reference, decoded, [np.array(axis_edges) for axis_edges in edges], threshold).dice
    assert dice.shape == (2, 3, 2)
    for index in np.ndindex(dice.shape):
        box = tuple(slice(e[i], e[i + 1]) for e, i in zip(edges, index, strict=True))
        marked = {i for i, value in enumerate(reference[box].ravel().tolist()) if value >= threshold}
        found = {i for i, value in enumerate(decoded[box].ravel().tolist()) if value >= threshold}
        expected = 2 * len(marked & found) / (len(marked) + len(found)) if marked or found else 1.0
        assert dice[index] == pytest.approx(expected)
    assert dice[0, 0, 0] == 1, "no foreground in either"
    assert dice[1, 2, 0] < 1


@pytest.mark.parametrize("dtype", ["?", "i1", "u1", ">u2", "<i2", "i4", "u8", "f2", ">f4", "f8", "g"])
def test_voxels_of_every_dtype_are_counted(dtype: str) -> None:
    rng = np.random.default_rng(0)
    reference, decoded = (rng.integers(0, 2 if dtype == "?" else 100, (9, 8, 7)).astype(dtype) for _ in range(2))
    errors = metrics.octant_errors(reference[:, ::-1], decoded, [np.array([0, n]) for n in reference.shape], 50.0)
    difference = reference[:, ::-1].astype(np.float64) - decoded.astype(np.float64)
    assert errors.mse.item() == pytest.approx(np.square(difference).mean(), rel=1e-12)
    assert errors.max_error.item() == np.abs(difference).max()
    first, second = (volume.astype(np.float64) for volume in (reference, decoded))
    if reference.dtype.kind in "iub":
        assert metrics.otsu_threshold(reference) == metrics.otsu_threshold(first.astype(np.int64))
    assert 0 <= errors.dice.item() <= 1
    truth, found = first[:, ::-1] >= 50, second >= 50
    if truth.any():
        assert errors.dice.item() == pytest.approx(2 * np.sum(truth & found) / (truth.sum() + found.sum()))


@pytest.mark.parametrize("values", [(1.0, 1.0 + 2**-52), (0.0, 5e-324)])
def test_otsu_of_two_neighbouring_floats_is_one_of_them(values: tuple[float, float]) -> None:
    assert metrics.otsu_threshold(np.array(values * 6).reshape(3, 4)) in values


def test_otsu_parts_floats_however_far_apart() -> None:
    low, high = -7e149, 2e149
    assert low < metrics.otsu_threshold(np.array([low, high] * 6).reshape(3, 4)) < high


@pytest.mark.parametrize("edges", [[[0, 4]], [[0, 4], [0, 3]], [[1, 4], [0, 5]], [[0, 2, 2, 4], [0, 5]], [[0], [0, 5]]])
def test_edges_that_do_not_tile_the_volume_are_refused(edges: list[list[int]]) -> None:
    volume = np.zeros((4, 5))
    with pytest.raises(InputError, match="expected increasing edges"):
        metrics.octant_errors(volume, volume, [np.array(axis_edges) for axis_edges in edges])


def test_volumes_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(InputError, match=r"got \(3, 4\) and \(4, 3\)"):
        metrics.psnr(np.zeros((3, 4)), np.zeros((4, 3)))
    with pytest.raises(InputError, match="with voxels"):
        metrics.ssim(np.zeros((0, 4)), np.zeros((0, 4)))
    with pytest.raises(InputError, match="complex"):
        metrics.mse(np.zeros((3, 4)), np.zeros((3, 4), np.complex64))


@pytest.mark.parametrize("shape", [(64, 256, 256), (1, 2, 2048, 1024)])
def test_small_slabs_give_the_same_numbers_and_bound_the_memory(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LIMITS, "voxels", 1 << 17)
    reference, decoded = noisy_pair(shape)
    edges = [np.array([0, length]) for length in shape]
    expected = float(np.mean(np.square(reference.astype(np.float64) - decoded)))
    tracemalloc.start()
    got = metrics.mse(reference, decoded)
    metrics.max_error(reference, decoded)
    metrics.binary_scores(reference, decoded, 5000)
    metrics.otsu_threshold(reference)
    if reference.ndim == 3:
        metrics.octant_errors(reference, decoded, edges)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert got == pytest.approx(expected, rel=1e-12)
    # A slab of float64 is 0.5 MB and the volume as float64 is 33 MB.
    assert peak < 4e6


def test_ssim_of_a_large_volume_needs_less_memory_than_a_copy_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LIMITS, "voxels", 1 << 16)
    reference, decoded = noisy_pair((32, 160, 160))
    tracemalloc.start()
    metrics.ssim(reference, decoded)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < reference.size * 8

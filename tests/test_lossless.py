"""Where a file without loss fits what was asked for, it is the one that is made."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage
from synthetic import blobs

from napari_tinc import BudgetError, CompressedVolume, Metadata, Target, compress
from napari_tinc.encode import bounding
from napari_tinc.encode.original import Original
from napari_tinc.encode.speeds import Run
from napari_tinc.format import MODEL_WAVELETS, parse
from napari_tinc.samples import neuron_phantom
from napari_tinc.settings import Settings
from napari_tinc.system.steps import complete

Array = npt.NDArray[Any]


def vessels(shape: tuple[int, ...] = (24, 40, 44)) -> Array:
    """Two values, as a segmentation has them."""
    noise = np.random.default_rng(3).normal(size=shape)
    return (ndimage.gaussian_filter(noise, 4) > 0.02).astype("u1")


def cut_out(dtype: str = "u2") -> Array:
    """Noise in the middle of a background of one value."""
    image = np.zeros((20, 60, 60), dtype)
    image[6:14, 20:40, 20:40] = np.random.default_rng(1).integers(20, 90, (8, 20, 20))
    return image


def lossless(array: Array, budget: int, weights: Array | None = None) -> bytes | None:
    original = Original.prepare(array, Metadata.default(array.ndim), weights)
    return complete(bounding.lossless(original, Settings(), budget))


@pytest.mark.parametrize("preset", ["fast", "balanced"])
@pytest.mark.parametrize("array", [vessels(), cut_out(), cut_out("f4"), cut_out("i4")], ids=["mask", "u2", "f4", "i4"])
def test_a_size_that_holds_everything_loses_nothing(array: Array, preset: str) -> None:
    made = compress(array, Target.ratio(10), preset=preset)
    assert made.nbytes <= array.nbytes / 10
    assert CompressedVolume(made.to_bytes()).decode().tobytes() == array.tobytes()
    assert made.provenance["psnr"] == "inf"
    assert made.provenance["max_error"] == 0


def test_the_file_is_as_small_as_one_that_was_asked_to_lose_nothing() -> None:
    array = cut_out()
    wanted = compress(array, Target.max_error(0), provenance=False).nbytes
    assert compress(array, Target.size(wanted), provenance=False).nbytes == wanted
    smaller = compress(array, Target.size(wanted - 1), provenance=False)
    assert smaller.nbytes < wanted
    assert (smaller.decode() != array).any()


def test_several_channels_are_all_without_loss() -> None:
    array = np.stack([vessels(), 1 - vessels(), np.zeros_like(vessels())])
    made = compress(array, Target.ratio(8), metadata=Metadata("czyx", (1.0,) * 4, ("",) * 4))
    np.testing.assert_array_equal(made.decode(), array)


def test_a_model_that_was_asked_for_is_taken() -> None:
    made = compress(vessels(), Target.ratio(10), model="wavelet")
    assert parse(made.to_bytes()).header.model == MODEL_WAVELETS


def test_weights_mean_that_something_may_be_lost() -> None:
    array = vessels()
    assert lossless(array, array.nbytes // 10) is not None
    assert lossless(array, array.nbytes // 10, 1.0 + array) is None


@pytest.mark.parametrize("target", [Target.psnr(70), Target.ssim(0.9999)], ids=["psnr", "ssim"])
def test_a_quality_takes_the_smaller_file_of_the_two(target: Target) -> None:
    array = cut_out()
    made = compress(array, target)
    assert made.nbytes <= compress(array, Target.max_error(0)).nbytes < compress(array, target, model="wavelet").nbytes
    np.testing.assert_array_equal(made.decode(), array)


def test_a_quality_out_of_reach_otherwise_is_reached_without_loss() -> None:
    array = blobs((12, 13, 14))
    with pytest.raises(BudgetError, match="reach 90"):
        compress(array, Target.psnr(90), model="wavelet")
    np.testing.assert_array_equal(compress(array, Target.psnr(90)).decode(), array)


def test_noise_is_not_coded_to_find_out_that_it_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    array = neuron_phantom((32, 48, 48)).noisy
    coded = []
    real = bounding.encode_numbers
    monkeypatch.setattr(bounding, "encode_numbers", lambda *given: coded.append(given) or real(*given))
    assert lossless(array, array.nbytes // 16) is None
    assert not coded
    assert lossless(array, array.nbytes - 1) is not None
    assert coded


def test_the_middle_tells_that_the_whole_would_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    array = neuron_phantom((40, 80, 80)).noisy
    exact = compress(array, Target.max_error(0)).nbytes
    coded = []
    real = bounding.encode_numbers
    monkeypatch.setattr(bounding, "encode_numbers", lambda shape, *given: coded.append(shape) or real(shape, *given))
    assert lossless(array, exact // 2) is None
    assert coded
    assert array.shape not in coded


def test_its_time_is_no_measure_of_how_long_a_compression_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[Run] = []
    monkeypatch.setattr("napari_tinc.encode.speeds.remember", runs.append)
    compress(vessels(), Target.ratio(10))
    assert not runs
    compress(neuron_phantom((20, 24, 24)).noisy, Target.ratio(30))
    assert len(runs) == 1

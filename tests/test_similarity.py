"""A structural similarity that is asked for is reached, and hardly exceeded."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.metrics import structural_similarity

from napari_tinc import BudgetError, InputError, Metadata, Target, compress
from napari_tinc.measures import metrics
from napari_tinc.samples import load, vessel_tree


@pytest.mark.parametrize("wanted", [0.88, 0.95, 0.98])
def test_an_ssim_is_reached_and_hardly_exceeded(wanted: float) -> None:
    image = load("brain")[0][:32, :48, :48]
    volume = compress(image, Target.ssim(wanted))
    decoded = volume.decode()
    assert wanted <= metrics.ssim(image, decoded) <= wanted + 0.001
    span = float(image.max()) - float(image.min())
    other = structural_similarity(
        image, decoded, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=span
    )
    assert other == pytest.approx(wanted, abs=0.01)
    assert compress(image, Target.size(int(0.97 * volume.nbytes))).decode().shape == image.shape


def test_channels_are_measured_together() -> None:
    one = vessel_tree((24, 56, 56)).noisy
    image = np.stack([one, one[::-1] // 2])
    volume = compress(image, Target.ssim(0.95), metadata=Metadata("czyx", (1.0,) * 4, ("",) * 4))
    assert 0.95 <= metrics.ssim(image, volume.decode(), 3) <= 0.951


def test_what_cannot_be_reached_or_makes_no_sense_is_refused() -> None:
    image = np.random.default_rng(0).integers(0, 65535, (8, 20, 20)).astype("u2")
    with pytest.raises(BudgetError, match="SSIM"):
        compress(image, Target.ssim(0.99999))
    with pytest.raises(InputError, match="below 1"):
        Target.ssim(1)
    with pytest.raises(InputError, match="an SSIM"):
        compress(image, Target.ssim(0.9), model="tinc")

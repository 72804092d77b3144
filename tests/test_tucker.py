"""The decomposition is the one of the definition, and its file the sum that it stands for."""

from __future__ import annotations

import numpy as np
import pytest
from synthetic import blobs

from napari_tinc.encode.compression import compress
from napari_tinc.errors import InputError
from napari_tinc.networks.families.tucker import choose_ranks, decompose, slice_norms
from napari_tinc.target import Target


def test_core_and_orthonormal_factors_make_the_volume() -> None:
    volume = np.random.default_rng(0).normal(size=(7, 9, 5)).astype(np.float32)
    core, factors = decompose(volume)
    again = np.einsum("abc,ia,jb,kc->ijk", core, *factors)
    np.testing.assert_allclose(again, volume, atol=1e-5)
    for axis, factor in enumerate(factors):
        np.testing.assert_allclose(factor.T @ factor, np.eye(len(factor)), atol=1e-5)
        # The norms of the core's slices are the singular values of the volume unfolded along the axis.
        unfolded = np.moveaxis(volume, axis, 0).reshape(len(factor), -1).astype(np.float64)
        np.testing.assert_allclose(slice_norms(core, axis), np.linalg.svd(unfolded, compute_uv=False), rtol=1e-4)


def test_a_volume_of_low_rank_takes_few_bytes() -> None:
    draw = np.random.default_rng(1)
    parts = [draw.normal(size=(n, 2)) for n in (40, 30, 20)]
    volume = np.einsum("ia,ja,ka->ijk", *parts)
    volume = np.rint(30000 * (volume - volume.min()) / np.ptp(volume)).astype("u2")
    assert choose_ranks([decompose(volume.astype(np.float32))], 4000.0, 10**6) == (3, 3, 3), "and a constant"
    file = compress(volume, Target.size(800), model="tucker", device="cpu")
    assert float(file.provenance["psnr"]) > 60


def test_weights_are_refused_before_anything_is_done() -> None:
    volume = blobs((8, 9, 10))
    with pytest.raises(InputError, match="weights"):
        compress(volume, Target.size(800), model="tucker", weights=np.ones(volume.shape), device="cpu")


def test_every_file_is_the_same_whatever_the_preset() -> None:
    """There is nothing to train."""
    volume = blobs((8, 20, 24))
    made = [compress(volume, Target.size(900), model="tucker", preset=p, provenance=False) for p in ("fast", "best")]
    assert made[0].to_bytes() == made[1].to_bytes()

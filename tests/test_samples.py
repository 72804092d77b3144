from __future__ import annotations

import hashlib

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, label

from napari_tinc import samples
from napari_tinc.errors import InputError
from napari_tinc.samples import Phantom


@pytest.fixture(scope="module", params=["neuron", "vessel"])
def phantom(request: pytest.FixtureRequest) -> Phantom:
    return samples.neuron_phantom(seed=3) if request.param == "neuron" else samples.vessel_tree(seed=3)


@pytest.mark.parametrize("name", samples.NAMES)
def test_every_sample_loads_with_its_metadata(name: str) -> None:
    volume, metadata = samples.load(name)
    assert volume.dtype == np.uint16
    assert volume.ndim == 3
    assert metadata.axes == "zyx"
    assert len(metadata.voxel_size) == len(metadata.units) == 3
    assert name in metadata.name


def test_simulated_samples_say_so_and_know_their_voxel_size() -> None:
    _, metadata = samples.load("neuron")
    assert "simulated" in metadata.name
    assert metadata.units == ("micrometer",) * 3
    assert metadata.voxel_size == (1.0, 0.5, 0.5)


def test_the_brain_is_the_published_block() -> None:
    volume, metadata = samples.load("brain")
    assert volume.shape == (64, 64, 64)
    assert (volume.min(), volume.max()) == (16633, 24070)
    assert metadata.units == ("", "", "")
    digest = hashlib.sha256(volume.astype("<u2").tobytes()).hexdigest()
    assert digest == "0a22489a2a9fba8840359efbaf412b187d3b45eaf1d89d750d29fbafe5971c9e"


def test_an_unknown_sample_is_refused_by_name() -> None:
    with pytest.raises(InputError, match="neuron, vessel, brain, got 'kidney'"):
        samples.load("kidney")


@pytest.mark.parametrize("name", ["neuron", "vessel"])
def test_a_seed_is_one_volume_and_another_seed_another(name: str) -> None:
    first, _ = samples.load(name, seed=1)
    assert np.array_equal(first, samples.load(name, seed=1)[0])
    assert not np.array_equal(first, samples.load(name, seed=2)[0])


def test_the_noise_is_that_of_a_photon_counting_camera(phantom: Phantom) -> None:
    photons = (phantom.clean - samples._OFFSET) / samples._GAIN
    noise = phantom.noisy - phantom.clean.astype(np.float64)
    # Variance of a grey value: gain² × photons (Poisson) + read noise² + 1/12 (rounding).
    expected = samples._GAIN**2 * photons + samples._READ_NOISE**2 + 1 / 12
    assert abs(noise.mean()) < 0.1
    assert float((noise**2 / expected).mean()) == pytest.approx(1, abs=0.02)
    bright = photons > np.percentile(photons, 99)
    assert float((noise[bright] ** 2 / expected[bright]).mean()) == pytest.approx(1, abs=0.05)


def test_the_structure_is_sparse_bright_and_uses_a_sliver_of_the_range(phantom: Phantom) -> None:
    assert 0.001 < phantom.mask.mean() < 0.1
    assert phantom.noisy[phantom.mask].mean() > 2 * np.median(phantom.noisy)
    assert phantom.noisy.max() < 65535 // 8
    assert phantom.noisy.min() > 0


def test_a_neuron_is_in_one_piece() -> None:
    mask = samples.neuron_phantom(seed=0).mask
    pieces, _ = label(mask, np.ones((3, 3, 3)))
    # Branches that leave the stack and come back, and spines at its border, may be cut off.
    assert np.bincount(pieces[mask]).max() > 0.95 * mask.sum()


def test_dendrites_are_dimmer_than_the_soma_and_brighter_than_the_background() -> None:
    phantom = samples.neuron_phantom(seed=0)
    soma = gaussian_filter(phantom.mask.astype(np.float32), (1, 2, 2)) > 0.9
    dendrites = phantom.mask & (gaussian_filter(soma.astype(np.float32), (4, 8, 8)) < 1e-3)
    assert soma.any()
    assert phantom.clean[soma].mean() > 4 * phantom.clean[dendrites].mean()
    assert phantom.clean[dendrites].mean() > 1.5 * phantom.clean[~phantom.mask].mean()


def test_a_fork_of_vessels_follows_murray() -> None:
    # Equal children of a symmetric fork leave at 37.5° each (Murray 1926): cos = 2^(-1/3).
    child = 5 * 0.5 ** (1 / 3)
    assert np.degrees(samples._murray_angle(5, child, child)) == pytest.approx(37.467, abs=1e-3)
    # A side branch that is almost nothing leaves at a right angle and leaves the main vessel straight.
    twig, trunk = 5 * 1e-4 ** (1 / 3), 5 * (1 - 1e-4) ** (1 / 3)
    assert np.degrees(samples._murray_angle(5, twig, trunk)) == pytest.approx(90, abs=5)
    assert np.degrees(samples._murray_angle(5, trunk, twig)) == pytest.approx(0, abs=5)


def test_a_capsule_is_drawn_with_its_true_volume() -> None:
    start, end, radius = np.array([10.3, 9.8, 8.1]), np.array([14.2, 17.7, 20.4]), 3.3
    canvas = np.zeros((26, 28, 30), np.float32)
    samples._draw(canvas, samples._Segment(start, end, (radius, radius)), 1.0)
    length = float(np.linalg.norm(end - start))
    expected = np.pi * radius**2 * length + 4 / 3 * np.pi * radius**3
    assert float(canvas.sum()) == pytest.approx(expected, rel=0.02)
    moved = np.zeros_like(canvas)
    samples._draw(moved, samples._Segment(start + 0.5, end + 0.5, (radius, radius)), 1.0)
    assert float(moved.sum()) == pytest.approx(float(canvas.sum()), rel=0.005)


@pytest.mark.parametrize("shape", [(1, 40, 50), (7, 33, 65)])
def test_phantoms_come_in_odd_shapes(shape: tuple[int, int, int]) -> None:
    for phantom in (samples.neuron_phantom(shape), samples.vessel_tree(shape)):
        assert phantom.noisy.shape == phantom.clean.shape == phantom.mask.shape == shape
        assert phantom.clean.dtype == np.float32
        assert phantom.mask.dtype == np.bool_

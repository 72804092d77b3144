"""Sample volumes: a simulated neuron, a simulated vessel tree and a block of a real brain."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import pairwise
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from napari_tinc.arrays.metadata import Metadata
from napari_tinc.errors import InputError

Floats = NDArray[np.float64]
Shape = tuple[int, int, int]

NAMES = ("neuron", "vessel", "brain")

NEURON_VOXEL = (1.0, 0.5, 0.5)  # micrometres, z y x
VESSEL_VOXEL = (2.0, 2.0, 2.0)

_OFFSET = 100.0  # grey value of a dark pixel, and grey values per photon: a common sCMOS camera
_GAIN = 1.5
_READ_NOISE = 4.0


@dataclass(frozen=True, slots=True, eq=False)
class Phantom:
    """A simulated acquisition and what is true about it.

    Parameters
    ----------
    noisy : ndarray of uint16
        What the camera records.
    clean : ndarray of float32
        The same in the limit of infinitely many acquisitions: no noise, not rounded.
    mask : ndarray of bool
        Voxels that the simulated structure reaches into, before any blur.
    """

    noisy: NDArray[np.uint16]
    clean: NDArray[np.float32]
    mask: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class _Tip:
    """The growing end of a branch: where it is, where it heads (unit vector), how thick it is; micrometres."""

    position: Floats
    direction: Floats
    radius: float


@dataclass(frozen=True, slots=True)
class _Segment:
    """A piece of a branch: a capsule whose radius changes linearly from one end to the other; micrometres."""

    start: Floats
    end: Floats
    radii: tuple[float, float]


def load(name: str, seed: int = 0) -> tuple[NDArray[Any], Metadata]:
    """Return a sample volume with its metadata.

    Parameters
    ----------
    name : str
        ``"neuron"`` and ``"vessel"`` are simulated (see `neuron_phantom` and `vessel_tree`), ``"brain"`` is a measured
        block of X-ray phase-contrast tomography whose voxel size is not known.
    seed : int
        Which neuron or vessel tree; the brain is one volume and has no seed.

    Returns
    -------
    volume : ndarray of uint16, shape (z, y, x)
    metadata : Metadata

    Raises
    ------
    InputError
        If there is no sample of that name.
    """
    if name == "brain":
        file = resources.files("napari_tinc").joinpath("data", "brain_hipct_64_u16.tif")
        with file.open("rb") as stream:
            return tifffile.imread(stream), Metadata.default(3, "brain")
    if name == "neuron":
        return neuron_phantom(seed=seed).noisy, _simulated(NEURON_VOXEL, "neuron (simulated)")
    if name == "vessel":
        return vessel_tree(seed=seed).noisy, _simulated(VESSEL_VOXEL, "vessel tree (simulated)")
    raise InputError(f"expected one of the samples {', '.join(NAMES)}, got {name!r}: choose one of them")


def neuron_phantom(shape: Shape = (64, 128, 128), seed: int = 0) -> Phantom:
    """Simulate a fluorescent neuron in a confocal stack of 1 × 0.5 × 0.5 µm voxels.

    A soma with tapering dendrites and a thin axon, all evenly filled with dye. Branches are random walks that keep
    their heading; at a fork the radii follow Rall's 3/2 power law (W. Rall, Exp. Neurol. 1, 491, 1959). The point
    spread function is a Gaussian of sigma 2 µm along z and 0.5 µm along y and x.

    Parameters
    ----------
    shape : tuple of int
        Planes, rows and columns.
    seed : int
        Every seed grows another neuron, always the same one.
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    extent = np.array(shape) * NEURON_VOXEL
    segments = _grow_neuron(extent, rng)
    dye, mask = _render(segments, shape, NEURON_VOXEL, psf_sigma=(2.0, 0.5, 0.5))
    return _acquire(1500 * dye + 25 * _slow_gradient(shape, rng), mask, rng)


def vessel_tree(shape: Shape = (96, 96, 96), seed: int = 0) -> Phantom:
    """Simulate perfused blood vessels in a light-sheet stack of 2 µm voxels.

    Three trees fork from arterioles to capillaries. At a fork the radii follow Murray's law, the cube of the parent's
    is the sum of the children's cubes (C. D. Murray, PNAS 12, 207, 1926), and the angles his rule of least
    work (J. Gen. Physiol. 9, 835, 1926); of several planes for the fork the one leading to the emptiest place is taken.

    Parameters
    ----------
    shape : tuple of int
        Planes, rows and columns.
    seed : int
        Every seed grows another set of trees, always the same one.
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    extent = np.array(shape) * VESSEL_VOXEL
    segments = _grow_vessels(extent, rng)
    dye, mask = _render(segments, shape, VESSEL_VOXEL, psf_sigma=(4.0, 1.5, 1.5))
    # Light is scattered on its way through the tissue: deep planes are dimmer.
    depth = np.exp(-np.arange(shape[0]) / shape[0])[:, None, None]
    return _acquire(700 * dye * depth + 40 * _slow_gradient(shape, rng), mask, rng)


def _simulated(voxel_size: tuple[float, float, float], name: str) -> Metadata:
    return Metadata("zyx", voxel_size, ("micrometer",) * 3, name=name)


def _grow_neuron(extent: Floats, rng: np.random.Generator) -> list[_Segment]:
    center = extent * rng.uniform(0.42, 0.58, 3)
    soma_radius = 4.5
    heading = _random_direction(rng)
    # A soma is pear-shaped: it narrows towards where the apical dendrite leaves.
    segments = [_Segment(center, center + 5 * heading, (soma_radius, 0.4 * soma_radius))]
    tips = deque(_Tip(center + 3 * d, d, rng.uniform(0.8, 1.1)) for d in _spread_directions(heading, 6, rng))
    while tips:
        tip = tips.popleft()
        branch, tip = _walk(tip, rng.uniform(8, 18), 0.85 * tip.radius, 0.15, rng)
        segments += branch
        if tip.radius > 0.35:
            share = rng.uniform(0.35, 0.65)
            radii = tip.radius * share ** (2 / 3), tip.radius * (1 - share) ** (2 / 3)
            angles = rng.uniform(0.3, 0.8), rng.uniform(0.3, 0.8)
            tips += _fork(tip, radii, angles, _perpendicular(tip.direction, rng))
    segments += [_spine(segment, rng) for segment in segments[1:] if rng.random() < 0.25]
    axon_start = _Tip(center, -heading, 0.45)
    return segments + _walk(axon_start, 1.2 * float(extent.max()), 0.3, 0.08, rng)[0]


def _spine(dendrite: _Segment, rng: np.random.Generator) -> _Segment:
    side = _perpendicular(_unit(dendrite.end - dendrite.start), rng)
    return _Segment(dendrite.start, dendrite.start + (dendrite.radii[0] + rng.uniform(0.5, 1.2)) * side, (0.25, 0.35))


def _grow_vessels(extent: Floats, rng: np.random.Generator) -> list[_Segment]:
    segments: list[_Segment] = []
    tips = deque(_root_vessel(extent, axis, rng) for axis in range(3))
    occupied = [tip.position for tip in tips]
    while tips:
        tip = tips.popleft()
        branch, tip = _walk(tip, rng.uniform(4, 6) * tip.radius + 10, tip.radius, 0.2, rng)
        segments += branch
        occupied += [branch[len(branch) // 2].end, tip.position]
        inside = bool(((tip.position > 0) & (tip.position < extent)).all())
        if inside and tip.radius > 2.5:
            share = rng.uniform(0.25, 0.75)
            radii = tip.radius * share ** (1 / 3), tip.radius * (1 - share) ** (1 / 3)
            angles = _murray_angle(tip.radius, *radii), _murray_angle(tip.radius, *radii[::-1])
            forks = [_fork(tip, radii, angles, _perpendicular(tip.direction, rng)) for _ in range(6)]
            tips += max(forks, key=lambda fork: _emptiness(fork, occupied, extent))
    return segments


def _root_vessel(extent: Floats, axis: int, rng: np.random.Generator) -> _Tip:
    """Start an arteriole on a random place of one face, heading inwards."""
    direction = np.eye(3)[axis] * rng.choice((-1.0, 1.0))
    position = extent * rng.uniform(0.25, 0.75, 3)
    position[axis] = 0 if direction[axis] > 0 else extent[axis]
    return _Tip(position, direction, rng.uniform(7, 10))


def _murray_angle(parent: float, child: float, sibling: float) -> float:
    return float(np.arccos((parent**4 + child**4 - sibling**4) / (2 * parent**2 * child**2)))


def _emptiness(fork: Iterable[_Tip], occupied: list[Floats], extent: Floats) -> float:
    """Distance from where the two branches will end to the nearest vessel; the farther the better."""
    ends = np.array([np.clip(tip.position + (5 * tip.radius + 10) * tip.direction, 0, extent) for tip in fork])
    return float(np.linalg.norm(ends[:, None] - np.array(occupied), axis=2).min(axis=1).sum())


def _walk(
    tip: _Tip, length: float, end_radius: float, wobble: float, rng: np.random.Generator
) -> tuple[list[_Segment], _Tip]:
    """Grow a branch: a random walk that keeps its heading but for a ``wobble`` (radians, about) at every step."""
    count = max(2, round(length / max(1.0, tip.radius)))
    radii = np.linspace(tip.radius, end_radius, count + 1).tolist()
    position, direction, segments = tip.position, tip.direction, []
    for start_radius, stop_radius in pairwise(radii):
        direction = _unit(direction + wobble * rng.standard_normal(3))
        end = position + length / count * direction
        segments.append(_Segment(position, end, (start_radius, stop_radius)))
        position = end
    return segments, _Tip(position, direction, end_radius)


def _fork(tip: _Tip, radii: tuple[float, float], angles: tuple[float, float], side: Floats) -> list[_Tip]:
    """Split a tip in two, in the plane of its heading and ``side``, one branch to either side."""
    return [
        _Tip(tip.position, np.cos(angle) * tip.direction + sign * np.sin(angle) * side, radius)
        for radius, angle, sign in zip(radii, angles, (1, -1), strict=True)
    ]


def _unit(vector: Floats) -> Floats:
    unit: Floats = vector / np.linalg.norm(vector)
    return unit


def _random_direction(rng: np.random.Generator) -> Floats:
    return _unit(rng.standard_normal(3))


def _perpendicular(direction: Floats, rng: np.random.Generator) -> Floats:
    return _unit(np.cross(direction, _random_direction(rng)))


def _spread_directions(first: Floats, count: int, rng: np.random.Generator) -> list[Floats]:
    """Return ``count`` directions that keep apart: each is the candidate farthest from those before it."""
    chosen = [first]
    while len(chosen) < count:
        candidates = [_random_direction(rng) for _ in range(20)]
        chosen.append(min(candidates, key=lambda candidate: float(np.max(np.array(chosen) @ candidate))))
    return chosen


def _render(
    segments: list[_Segment], shape: Shape, voxel_size: Sequence[float], psf_sigma: Sequence[float]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Draw capsules at sub-voxel accuracy, blur them, and average fine planes to those of the stack.

    Drawing is done on cubic voxels of the in-plane size, where a voxel's share is a ramp one voxel wide of the
    distance to the surface: a branch as thin as a voxel neither vanishes nor flickers between planes.
    """
    from scipy.ndimage import gaussian_filter  # here, for it takes long to load

    step = voxel_size[2]
    fold = round(voxel_size[0] / step)
    fine = np.zeros((shape[0] * fold, *shape[1:]), np.float32)
    for segment in segments:
        _draw(fine, segment, step)
    folded = (shape[0], fold, *shape[1:])
    mask: NDArray[np.bool_] = np.any(fine.reshape(folded) >= 0.5, axis=1)
    blurred = gaussian_filter(fine, [sigma / step for sigma in psf_sigma])
    return blurred.reshape(folded).mean(axis=1), mask


def _draw(canvas: NDArray[np.float32], segment: _Segment, step: float) -> None:
    margin = max(segment.radii) + step
    ends = np.array([segment.start, segment.end])
    low = np.clip(np.floor((ends.min(axis=0) - margin) / step), 0, canvas.shape).astype(int)
    high = np.clip(np.ceil((ends.max(axis=0) + margin) / step), 0, canvas.shape).astype(int)
    box = tuple(slice(*bounds) for bounds in zip(low, high, strict=True))
    offsets = np.ix_(*((np.arange(a, b) + 0.5) * step - s for a, b, s in zip(low, high, segment.start, strict=True)))
    vector = segment.end - segment.start
    along = sum(offset * part for offset, part in zip(offsets, vector, strict=True)) / (vector @ vector)
    along = np.clip(along, 0, 1)
    distance = np.sqrt(sum((offset - along * part) ** 2 for offset, part in zip(offsets, vector, strict=True)))
    radius = segment.radii[0] + along * (segment.radii[1] - segment.radii[0])
    np.maximum(canvas[box], np.clip(0.5 + (radius - distance) / step, 0, 1), out=canvas[box], casting="same_kind")


def _slow_gradient(shape: Shape, rng: np.random.Generator) -> Floats:
    """Uneven background: 1 in the middle, 40 % more or less towards two opposite corners."""
    slope = 0.4 * _random_direction(rng)
    coordinates = np.ix_(*(np.linspace(-1, 1, length) for length in shape))
    return np.asarray(1 + sum(part * axis for part, axis in zip(slope, coordinates, strict=True)))


def _acquire(photons: Floats, mask: NDArray[np.bool_], rng: np.random.Generator) -> Phantom:
    """Record expected photons with a camera: shot noise (Poisson), read noise (Gaussian), offset and gain."""
    clean = _OFFSET + _GAIN * photons
    noisy = _OFFSET + _GAIN * rng.poisson(photons) + rng.normal(0, _READ_NOISE, photons.shape)
    return Phantom(np.clip(np.rint(noisy), 0, 65535).astype(np.uint16), clean.astype(np.float32), mask)

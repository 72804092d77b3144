"""How far a decoded volume is from its original.

Every measure is accumulated in float64, a few slabs at a time, so a volume that only just fits in memory can be
measured, and unsigned integers never wrap around in a difference. The formulas are in ``docs/metrics.md``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from napari_tinc.arrays.scratch import boxes, slabs
from napari_tinc.errors import InputError
from napari_tinc.limits import LIMITS
from napari_tinc.system.threads import side_by_side

Array = NDArray[Any]
Slices = tuple[slice, ...]

_HISTOGRAM_BINS = 1 << 16
_WINDOW_RADIUS = 5
_SIGMA_PER_RADIUS = 0.3  # Wang et al. 2004: sigma 1.5 for a radius of 5


@dataclass(frozen=True, slots=True)
class BinaryScores:
    """Agreement of two binary volumes, every score in [0, 1].

    ``iou`` and ``dice`` are 1 when neither volume has foreground; ``precision`` is nan when the decoded volume has
    none, ``recall`` when the reference has none.
    """

    accuracy: float
    iou: float
    dice: float
    precision: float
    recall: float


class OctantErrors:
    """Errors of every octant of a grid, added up piece by piece.

    Parameters
    ----------
    edges : sequence of ndarray of int
        Per axis of the volume, where octants begin and end: increasing, from 0 to the axis' length.
    threshold : float
        Lowest value of the foreground, in the volume's own units; by default there is none.

    Attributes
    ----------
    squares, max_error : ndarray of float64
        Sum of squared errors and largest absolute error, one entry per octant.
    voxels : ndarray of int64
        Number of voxels, same shape.
    """

    def __init__(self, edges: Sequence[NDArray[np.integer]], threshold: float = math.inf) -> None:
        grid = tuple(len(axis_edges) - 1 for axis_edges in edges)
        self._edges, self._threshold = edges, threshold
        self.squares, self.max_error, self.voxels = np.zeros(grid), np.zeros(grid), np.zeros(grid, np.int64)
        self._both, self._either = np.zeros(grid, np.int64), np.zeros(grid, np.int64)

    def add(self, reference: Array, decoded: Array, bounds: Sequence[tuple[int, int]]) -> None:
        """Count a box of the volume, given by its start and stop along every axis."""
        from napari_tinc.measures.counting import add_errors  # here, for numba takes long to load

        touched, inner, sides = [], [], []
        for axis_edges, (start, stop) in zip(self._edges, bounds, strict=True):
            first = int(np.searchsorted(axis_edges, start, "right")) - 1
            last = int(np.searchsorted(axis_edges, stop, "left"))
            touched.append(slice(first, last))
            inner.append(np.maximum(axis_edges[first:last] - start, 0))
            sides.append(np.diff(inner[-1], append=stop - start))
        place = tuple(touched)
        sums = [sums[place] for sums in (self.squares, self.max_error, self._both, self._either)]
        add_errors(reference, decoded, inner, self._threshold, sums)
        self.voxels[place] += math.prod(np.ix_(*sides))

    def merge(self, other: OctantErrors) -> None:
        """Count what another one has counted, on the same grid."""
        np.maximum(self.max_error, other.max_error, out=self.max_error)
        self.squares += other.squares
        self.voxels += other.voxels
        self._both += other._both
        self._either += other._either

    @property
    def mse(self) -> NDArray[np.float64]:
        """Mean squared error of every octant."""
        return self.squares / self.voxels

    @property
    def dice(self) -> NDArray[np.float64]:
        """Dice of every octant's foreground, in [0, 1]; 1 where neither volume has any."""
        return np.where(self._either > 0, 2 * self._both / np.maximum(self._either, 1), 1.0)


def value_range(volume: Array) -> float:
    """Return max − min of a volume, exact for integers of any sign and width."""
    low, high = _extremes(volume)
    return float(high - low)


def mse(reference: Array, decoded: Array) -> float:
    """Mean squared error between two volumes of the same shape.

    Raises
    ------
    InputError
        If the shapes differ, there are no voxels or the voxels are complex; so for every measure here.
    """
    _check_pair(reference, decoded)
    total = 0.0
    for slab in slabs(reference.shape, LIMITS.voxels // 2):
        difference = _difference(reference[slab], decoded[slab])
        total += float(np.square(difference, out=difference).sum())
    return total / reference.size


def max_error(reference: Array, decoded: Array) -> float:
    """Largest absolute difference between two volumes of the same shape."""
    _check_pair(reference, decoded)
    return max(
        float(np.abs(_difference(reference[s], decoded[s])).max()) for s in slabs(reference.shape, LIMITS.voxels // 2)
    )


@overload
def psnr_from_mse(mse: float, data_range: float) -> float: ...
@overload
def psnr_from_mse(mse: NDArray[np.float64], data_range: float) -> NDArray[np.float64]: ...
def psnr_from_mse(mse: float | NDArray[np.float64], data_range: float) -> float | NDArray[np.float64]:
    """Peak signal-to-noise ratio in dB, ``10 log10(data_range² / mse)``, of one error or an array of errors.

    It is inf where the error is 0 (whatever the range) and −inf where the range is 0 and the error is not.
    """
    error = np.asarray(mse, np.float64)
    with np.errstate(divide="ignore"):
        decibels = 20 * np.log10(np.float64(data_range)) - 10 * np.log10(np.where(error == 0, 1.0, error))
    decibels = np.where(error == 0, np.inf, decibels)
    return float(decibels) if decibels.ndim == 0 else decibels


def psnr(reference: Array, decoded: Array, data_range: float | None = None) -> float:
    """Peak signal-to-noise ratio in dB, over the reference's own range unless a range is given.

    Parameters
    ----------
    reference, decoded : ndarray
        Volumes of the same shape; real, of any dtype.
    data_range : float, optional
        The peak. By default max − min of the reference.

    Returns
    -------
    float
        inf for equal volumes; −inf for a constant reference (range 0) that is not decoded exactly.
    """
    error = mse(reference, decoded)
    return psnr_from_mse(error, value_range(reference) if data_range is None else data_range)


def psnr_dtype(reference: Array, decoded: Array) -> float:
    """Peak signal-to-noise ratio in dB over the full range of the reference's integer dtype.

    This is the number that papers on 16-bit volumes report (peak 65535). It flatters volumes that use a sliver of
    their dtype's range, so it is only for comparing with them.

    Raises
    ------
    InputError
        If the reference is not of an integer dtype: floats have no full range that means anything.
    """
    if reference.dtype.kind not in "iu":
        raise InputError(
            f"PSNR over the dtype's range needs an integer volume, got {reference.dtype}: use psnr instead"
        )
    limits = np.iinfo(reference.dtype)
    return psnr(reference, decoded, float(limits.max - limits.min))


def ssim(reference: Array, decoded: Array, spatial_ndim: int | None = None) -> float:
    """Mean structural similarity (Wang et al. 2004) with a Gaussian window over all spatial axes.

    The window has radius 5 and sigma 1.5 along every spatial axis, and only windows that lie wholly inside the volume
    count. Where an axis is shorter than 11, the radius shrinks for all axes to the largest that fits the shortest, and
    sigma with it (0.3 × radius). Spatial axes shorter than 3 carry no window: the similarity is the mean of
    their planes' similarities, as it is for the leading axes. The peak is max − min of the whole reference.

    Parameters
    ----------
    reference, decoded : ndarray
        Volumes of the same shape; real, of any dtype.
    spatial_ndim : int, optional
        How many of the last axes are spatial; at most 3 by default. Give 2 for a (t, y, x) or (c, y, x) array.

    Returns
    -------
    float
        1 for equal volumes of any shape; nan where the measure is undefined: a constant reference, or no axis of 3 or
        more.
    """
    _check_pair(reference, decoded)
    peak = value_range(reference)
    spatial = min(reference.ndim, 3 if spatial_ndim is None else spatial_ndim)
    windowed = [axis for axis in range(reference.ndim - spatial, reference.ndim) if reference.shape[axis] >= 3]
    if peak == 0 or not windowed:
        return 1.0 if max_error(reference, decoded) == 0 else float("nan")
    radius = min(_WINDOW_RADIUS, *((reference.shape[axis] - 1) // 2 for axis in windowed))
    total, voxels = 0.0, 0
    for block in _windowed_blocks(reference.shape, windowed, radius):
        first, second = (np.asarray(volume[block], np.float64).squeeze() for volume in (reference, decoded))
        inner = int(np.prod([length - 2 * radius for length in first.shape]))
        total += inner * _block_ssim(first, second, radius, peak)
        voxels += inner
    return total / voxels


def otsu_threshold(volume: Array) -> float:
    """Threshold that best separates foreground (``>= threshold``) from background (Otsu 1979).

    The histogram has one bin per integer value where the range allows it, 65536 bins otherwise; the threshold is the
    upper edge of the last background bin.

    Raises
    ------
    InputError
        If the volume is constant.
    """
    from napari_tinc.measures.counting import count_values  # here, for numba takes long to load

    low, high = _extremes(volume)
    if low == high:
        raise InputError(f"a threshold needs a volume with at least two values, got only {low}: give a threshold")
    integer = volume.dtype.kind in "iub"
    margin = 0.5 if integer else 0.0
    bins = int(min(high - low + 1, _HISTOGRAM_BINS)) if integer else _HISTOGRAM_BINS
    # Counted on a scale from 0 to 1: floats may be so close together that bins between them have no width.
    origin, extent = float(low) - margin, float(high) - float(low) + 2 * margin
    narrow = integer and volume.dtype.itemsize < 8 and bins == int(high) - int(low) + 1

    def counted(slab: Slices) -> Array:
        if narrow:
            return count_values(volume[slab], int(low), bins)
        return np.histogram((np.asarray(volume[slab], np.float64) - origin) / extent, bins, (0.0, 1.0))[0]

    counts = np.zeros(bins, np.int64)
    for part in side_by_side(counted, slabs(volume.shape, LIMITS.voxels // 2)):
        counts += part
    centers = (np.arange(bins) + 0.5) / bins
    upper_edge = _between_classes(counts, centers) + 0.5 / bins
    return origin + upper_edge * extent


def _between_classes(counts: Array, centers: Array) -> float:
    """Return the last centre of the class below, where the variance between two classes is greatest (Otsu, 1979).

    scikit-image has it, too, and loads as long as a small volume takes to compress.
    """
    sums = counts * centers
    below, above = np.cumsum(counts)[:-1], np.cumsum(counts[::-1])[-2::-1]
    apart = np.cumsum(sums)[:-1] / below - np.cumsum(sums[::-1])[-2::-1] / above
    return float(centers[np.argmax(below.astype(np.float64) * above * apart**2)])


def binary_scores(reference: Array, decoded: Array, threshold: float, mask: Array | None = None) -> BinaryScores:
    """Compare the foreground of two volumes, the voxels ``>= threshold``.

    Parameters
    ----------
    reference, decoded : ndarray
        Volumes of the same shape.
    threshold : float
        Lowest value of the foreground, in the volume's own units.
    mask : ndarray, optional
        The true foreground (non-zero), same shape; it replaces the thresholded reference.
    """
    _check_pair(reference, decoded)
    if mask is not None:
        _check_pair(reference, mask)
    both = truths = found = 0
    for slab in slabs(reference.shape, LIMITS.voxels // 2):
        truth = foreground(reference[slab], threshold) if mask is None else np.asarray(mask[slab]) != 0
        detected = foreground(decoded[slab], threshold)
        both += int(np.count_nonzero(truth & detected))
        truths += int(np.count_nonzero(truth))
        found += int(np.count_nonzero(detected))
    union = truths + found - both
    return BinaryScores(
        accuracy=(reference.size - union + both) / reference.size,
        iou=both / union if union else 1.0,
        dice=2 * both / (truths + found) if union else 1.0,
        precision=both / found if found else float("nan"),
        recall=both / truths if truths else float("nan"),
    )


def octant_errors(
    reference: Array, decoded: Array, edges: Sequence[NDArray[np.integer]], threshold: float = math.inf
) -> OctantErrors:
    """Errors of every octant of a grid in one pass over the voxels.

    Parameters
    ----------
    reference, decoded : ndarray
        Volumes of the same shape.
    edges, threshold
        As in :class:`OctantErrors`.

    Raises
    ------
    InputError
        If the shapes differ or the edges do not tile the volume.
    """
    _check_pair(reference, decoded)
    errors = OctantErrors(_checked_edges(reference.shape, edges), threshold)
    for bounds in boxes(tuple((0, side) for side in reference.shape), LIMITS.voxels // 2):
        place = tuple(slice(start, stop) for start, stop in bounds)
        errors.add(reference[place], decoded[place], bounds)
    return errors


def _windowed_blocks(shape: tuple[int, ...], windowed: list[int], radius: int) -> Iterator[Slices]:
    """Cut a shape into blocks that overlap by two radii, so that every window lies wholly in exactly one of them."""
    longest = int((LIMITS.voxels // 2) ** (1 / len(windowed)))
    choices = []
    for axis, length in enumerate(shape):
        step, halo = (longest - 2 * radius, 2 * radius) if axis in windowed else (1, 0)
        starts = range(0, length - halo, step)
        choices.append([slice(start, min(start + step + halo, length)) for start in starts])
    return itertools.product(*choices)


def _block_ssim(first: Array, second: Array, radius: int, peak: float) -> float:
    from skimage.metrics import structural_similarity  # here, for it takes long to load

    sigma = _SIGMA_PER_RADIUS * radius
    value = structural_similarity(  # type: ignore[no-untyped-call]
        first, second, data_range=peak, gaussian_weights=True, sigma=sigma, use_sample_covariance=False
    )
    return float(value)


def _difference(first: Array, second: Array) -> NDArray[np.float64]:
    # Both are cast to float64 before the subtraction, in numpy's small buffers: uint16 would wrap around.
    return np.subtract(first, second, dtype=np.float64)


def foreground(volume: Array, threshold: float) -> NDArray[np.bool_]:
    """Return which voxels are at least at a threshold."""
    return np.asarray(volume, np.float64) >= threshold


def _extremes(volume: Array) -> tuple[float, float]:
    if volume.size == 0:
        raise InputError("a measure needs a volume with voxels, got an empty one: check the region that was selected")
    # Python's own numbers: int16 max − min would wrap around in int16.
    return volume.min().item(), volume.max().item()


def _check_pair(reference: Array, decoded: Array) -> None:
    if reference.shape != decoded.shape:
        raise InputError(
            f"expected volumes of the same shape, got {reference.shape} and {decoded.shape}: compare equal regions"
        )
    if reference.size == 0 or reference.ndim == 0:
        raise InputError(f"expected volumes with voxels, got shape {reference.shape}: check the region selected")
    if "c" in (reference.dtype.kind, decoded.dtype.kind):
        raise InputError("expected real volumes, got complex ones: compare magnitudes or real parts")


def _checked_edges(shape: tuple[int, ...], edges: Sequence[Array]) -> list[NDArray[np.int64]]:
    tiled = len(edges) == len(shape) and all(
        len(axis_edges) > 1
        and axis_edges[0] == 0
        and axis_edges[-1] == length
        and bool(np.all(np.diff(axis_edges) > 0))
        for axis_edges, length in zip(edges, shape, strict=True)
    )
    if not tiled:
        got = [axis_edges.tolist()[:4] for axis_edges in edges]
        raise InputError(f"expected increasing edges from 0 to each length of {shape}, got {got}…: plan them anew")
    return [np.asarray(axis_edges, np.int64) for axis_edges in edges]

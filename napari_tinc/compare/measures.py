"""Everything that is measured on one decoded volume; ``docs/metrics.md`` defines the numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_tinc.arrays.axes import items_first
from napari_tinc.errors import InputError
from napari_tinc.geometry.octree import MIN_LEAF_SIDE, Octree, choose_splits
from napari_tinc.measures import metrics
from napari_tinc.measures.centreline import centreline_dice

Array = NDArray[Any]

_OCTANT_SIDE = 16  # voxels; the quality of smaller ones is mostly chance
_MOST_LEVELS = 4


@dataclass(frozen=True)
class Measures:
    """How far one decoded volume is from the truth; nan where a number does not apply.

    Parameters
    ----------
    psnr : float
        dB over the volume's own range.
    psnr_dtype : float
        dB over the dtype's range; of integers alone.
    ssim : float
    max_error : float
        In the volume's own units.
    accuracy, iou, dice, cldice : float
        Of the foreground at the threshold, against the original's.
    iou_mask, dice_mask, cldice_mask : float
        The same against a mask of the true foreground.
    psnr_clean : float
        dB against the noise-free volume, over that one's range.
    worst_octant_psnr : float
        The smallest of the octants', dB over the range of their item.
    """

    psnr: float
    psnr_dtype: float
    ssim: float
    max_error: float
    accuracy: float
    iou: float
    dice: float
    cldice: float
    iou_mask: float
    dice_mask: float
    cldice_mask: float
    psnr_clean: float
    worst_octant_psnr: float


MEASURES = tuple(field.name for field in fields(Measures))


@dataclass(frozen=True, eq=False)
class Truth:
    """The original and what else is known about it.

    Parameters
    ----------
    array : ndarray
    axes : str
        Letters of ``tczyx``, one per axis.
    threshold : float, optional
        Where the foreground begins; by default every item's Otsu threshold.
    mask : ndarray, optional
        The true foreground, not 0, of the array's shape.
    clean : ndarray, optional
        The volume without noise, of the array's shape and units.

    Raises
    ------
    InputError
        If the shapes differ.
    """

    array: Array
    axes: str
    threshold: float | None = None
    mask: Array | None = None
    clean: Array | None = None

    def __post_init__(self) -> None:
        for name, other in (("mask", self.mask), ("clean volume", self.clean)):
            if other is not None and other.shape != self.array.shape:
                raise InputError(
                    f"expected a {name} of the volume's shape {self.array.shape}, got {other.shape}; "
                    "give the one that belongs to it"
                )

    @cached_property
    def items(self) -> Array:
        """The array as (items, *spatial)."""
        return items_first(self.array, self.axes)

    @cached_property
    def thresholds(self) -> tuple[float, ...]:
        """Where the foreground of every item begins."""
        return tuple(_threshold(item) if self.threshold is None else self.threshold for item in self.items)

    @cached_property
    def octants(self) -> Octree:
        """The grid on which all candidates are compared octant by octant, whatever their own trees."""
        return comparison_grid(self.items.shape[1:])

    def foreground(self, items: Array) -> NDArray[np.bool_]:
        """Voxels of a volume, as (items, *spatial), from their item's threshold on."""
        limits = np.reshape(self.thresholds, (-1, *[1] * (items.ndim - 1)))
        return np.asarray(items >= limits)

    @cached_property
    def psnr_clean(self) -> float:
        """PSNR of the original itself against the noise-free volume; nan if there is none."""
        return math.nan if self.clean is None else metrics.psnr(self.clean, self.array)


def comparison_grid(spatial: tuple[int, ...]) -> Octree:
    """Octants of 16 voxels or more a side where the volume allows it, at most 16 along an axis."""
    depth = min(_MOST_LEVELS, max(1, int(math.log2(max(spatial) / _OCTANT_SIDE)))) if max(spatial) > 1 else 0
    return Octree(spatial, choose_splits(spatial, depth if max(spatial) >= 2 * MIN_LEAF_SIDE else 0))


def measure(truth: Truth, decoded: Array) -> tuple[Measures, NDArray[np.float64]]:
    """Measure a decoded volume.

    Parameters
    ----------
    truth : Truth
    decoded : ndarray
        Of the original's shape and dtype.

    Returns
    -------
    measures : Measures
    octants : ndarray of float64, shape (items, *grid)
        PSNR in dB of every octant over the range of its item.
    """
    original = truth.array
    items = items_first(decoded, truth.axes)
    true, found = truth.foreground(truth.items), truth.foreground(items)
    binary = metrics.binary_scores(true, found, 0.5)
    octants = _octants(truth, items)
    masked = (math.nan,) * 3 if truth.mask is None else _against_mask(items_first(truth.mask, truth.axes) != 0, found)
    measures = Measures(
        psnr=metrics.psnr(original, decoded),
        psnr_dtype=metrics.psnr_dtype(original, decoded) if original.dtype.kind in "iu" else math.nan,
        ssim=metrics.ssim(truth.items, items, items.ndim - 1),
        max_error=metrics.max_error(original, decoded),
        accuracy=binary.accuracy,
        iou=binary.iou,
        dice=binary.dice,
        cldice=_cldice(true, found),
        iou_mask=masked[0],
        dice_mask=masked[1],
        cldice_mask=masked[2],
        psnr_clean=math.nan if truth.clean is None else metrics.psnr(truth.clean, decoded),
        worst_octant_psnr=float(octants.min()),
    )
    return measures, octants


def _octants(truth: Truth, items: Array) -> NDArray[np.float64]:
    edges = truth.octants.edges(truth.octants.depth)
    rows = []
    for original, decoded in zip(truth.items, items, strict=True):
        errors = metrics.octant_errors(original, decoded, edges)
        rows.append(metrics.psnr_from_mse(errors.mse, metrics.value_range(original)))
    return np.stack(rows)


def _against_mask(mask: Array, found: Array) -> tuple[float, float, float]:
    scores = metrics.binary_scores(mask, found, 0.5)
    return scores.iou, scores.dice, _cldice(mask, found)


def _cldice(true: Array, found: Array) -> float:
    """Mean over the items."""
    return float(np.mean([centreline_dice(*pair) for pair in zip(true, found, strict=True)]))


def _threshold(item: Array) -> float:
    """Otsu's; an item of one value is all foreground."""
    return float(item.min()) if item.min() == item.max() else metrics.otsu_threshold(item)

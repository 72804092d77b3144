"""A smaller file from a file, without the original: what it decodes to is coded once more, and quality is bounded.

Leaving out the finest coefficients, whole octaves or block by block, costs 1 to 19 dB; a coarser step for all of them
0.0 to 0.8 dB (``benchmarks/cuts.py``). Errors of the first file and of the second add up, in the worst case: root mean
squares by Minkowski's inequality, largest errors by the triangle inequality.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_tinc import format as frames
from napari_tinc.arrays.axes import items_first
from napari_tinc.encode import framing, measuring
from napari_tinc.encode.attempts import smallest_budget
from napari_tinc.encode.masking import with_wavelets
from napari_tinc.encode.original import Original
from napari_tinc.encode.plan import octants
from napari_tinc.errors import BudgetError, InputError
from napari_tinc.geometry.octree import Octree
from napari_tinc.measures import metrics
from napari_tinc.progress import Progress
from napari_tinc.quality import Quality, pack_quality, parse_quality, threshold_code
from napari_tinc.settings import Settings
from napari_tinc.system.steps import complete
from napari_tinc.target import Target
from napari_tinc.volume import CompressedVolume

Floats = npt.NDArray[np.float64]

# Bytes that the notes on quality may grow by once it is known.
_SLACKS = (0, 16)
_KEPT_NOTES, _LONGEST_NOTE = ("noise", "advice"), 400


def cut(volume: CompressedVolume, target: Target) -> CompressedVolume:
    """Make a smaller file of one; wait until it is done. See :func:`cut_steps`."""
    return complete(cut_steps(volume, target))


def cut_steps(volume: CompressedVolume, target: Target) -> Generator[Progress, None, CompressedVolume]:
    """Make a smaller file of one, step by step.

    Parameters
    ----------
    volume : CompressedVolume
    target : Target
        Of the smaller file: a ratio, to the original's bytes, a number of bytes, or bits per voxel.

    Yields
    ------
    Progress

    Returns
    -------
    CompressedVolume
        A file of wavelets. Its provenance says what it was cut from. PSNR, largest errors and Dice, of the whole and of
        octants, are bounds: the file is at least as near to the original.

    Raises
    ------
    InputError
        If the target is no size, or the volume is as small already, or exact.
    BudgetError
        If no file can be so small.
    """
    if not target.is_size:
        raise InputError(f"expected a ratio or a number of bytes to cut to, got a target of {target.kind}")
    header = volume.header
    if header.model in (frames.MODEL_CONSTANT, frames.MODEL_EXACT):
        raise InputError(
            f"expected a file of coefficients or networks, got a {frames.MODELS[header.model]} one: keep it"
        )
    budget = target.budget(volume.raw_nbytes, math.prod(volume.shape))
    if budget >= volume.nbytes:
        raise InputError(f"expected a size below that of the file, {volume.nbytes} bytes, got {budget}: copy it")
    yield Progress.unmeasured("preparing", 0, 1)
    original = _as_original(volume)
    settings = _settings(volume, original, budget)
    least = smallest_budget(original, settings)
    if budget < least:
        raise BudgetError(f"expected a budget of at least {least} bytes for this volume, got {budget}")
    for slack in _SLACKS:
        attempt = yield from with_wavelets(original, settings, budget - slack)
        decoders, tree = framing.decoders(attempt.plan, attempt.content), attempt.plan.tree
        psnr, quality, _ = yield from measuring.measure(decoders, original, tree)
        bounds = [_bounded(volume, original, item, tree, one) for item, one in enumerate(quality)]
        packed = framing.frame(attempt.plan, attempt.content, _psnr(volume, psnr), bounds)
        if len(packed) <= budget:
            return CompressedVolume(packed)
    raise BudgetError(f"expected a file of at most {budget} bytes, got a larger one: please report this as a bug")


def _as_original(volume: CompressedVolume) -> Original:
    """Take what a file decodes to as a volume to be compressed, in the ranges of the original."""
    header = volume.header
    items = items_first(volume.decode(), header.metadata.axes)
    codes = tuple(
        threshold_code(volume.threshold(item), limits.minimum, limits.maximum)
        for item, limits in enumerate(header.items)
    )
    return Original(items, header.shape, header.metadata, None, header.items, thresholds=codes)


def _settings(volume: CompressedVolume, original: Original, budget: int) -> Settings:
    """Keep what the file says of its original, and note where this one comes from; octants are those of the file."""
    made = volume.provenance
    settings = Settings("fast", model="wavelet")
    for key in _KEPT_NOTES:
        if isinstance(note := made.get(key), str) and len(note) <= _LONGEST_NOTE:
            settings = settings.noted(key, note)
    settings = settings.noted("cut_from", f"{volume.nbytes} bytes, {made.get('psnr', 'unknown')} dB")
    splits = octants(original, settings, budget).splits
    return replace(settings, levels=1 + (len(splits) if splits == volume.header.splits[: len(splits)] else 0))


def _psnr(volume: CompressedVolume, psnr: float) -> float:
    """PSNR that a file has at least, from that against the file it was cut from."""
    stored = volume.provenance.get("psnr")
    first = float(stored) if isinstance(stored, int | float | str) and _is_number(stored) else 0.0
    first = min(max(first, 0.0), 1000.0)  # whatever a file says
    # Rounded to two digits, here as there.
    return -20 * math.log10(10 ** (-(first - 0.005) / 20) + 10 ** (-psnr / 20)) - 0.005


def _is_number(text: int | float | str) -> bool:
    try:
        return not math.isnan(float(text))
    except ValueError:
        return False


def _bounded(volume: CompressedVolume, original: Original, item: int, tree: Octree, measured: bytes) -> bytes:
    """Quality of the octants of an item, at least: that of the first file, on its own octants, and of the second."""
    limits, fine = original.ranges[item], volume.tree
    before = [octant for octant in volume.octants if octant.item == item]
    second = parse_quality(measured, tree.leaves)
    sizes = np.array([math.prod(part.stop - part.start for part in octant.box) for octant in before], np.float64)
    # Leaves of a node are numbered one after the other. Stored PSNRs are rounded to half a decibel.
    within = (tree.leaves, fine.leaves // tree.leaves)
    levels = np.array([octant.psnr for octant in before])
    squares = np.where(np.isinf(levels), 0, 10 ** (-(levels - 0.25) / 10))
    first = np.sqrt(np.sum((squares * sizes).reshape(within), 1) / sizes.reshape(within).sum(1))
    with np.errstate(divide="ignore"):
        both = first + np.where(np.isinf(second.psnr), 0, 10 ** (-(second.psnr - 0.25) / 20))
        psnr = np.floor(-20 * np.log10(both) * 2) / 2
        largest = np.array([octant.max_error for octant in before]).reshape(within).max(1) / (limits.span or 1.0)
        peak = -20 * np.log10(largest + np.where(np.isinf(second.peak), 0, 10 ** (-second.peak / 20)))
    dice = _dice(volume, original, item, tree, second, sizes.reshape(within))
    return pack_quality(Quality(second.threshold_code, psnr, np.maximum(peak, 0), dice))


def _dice(
    volume: CompressedVolume, original: Original, item: int, tree: Octree, second: Quality, sizes: Floats
) -> Floats:
    """Dice that octants have at least.

    Foregrounds a of the original, b of the first file and c of the second differ in at most as many voxels as a and b
    plus b and c do. Of a Dice D of a and b follows b D / (2 - D) ≤ a ≤ b (2 - D) / D.
    """
    threshold, voxels = volume.threshold(item), original.items[item]
    b = _foreground(voxels, threshold, volume.tree).reshape(sizes.shape)
    first = np.array([octant.dice for octant in volume.octants if octant.item == item]).reshape(sizes.shape)
    most = np.minimum(sizes, b * (2 - first) / np.maximum(first, 1e-9))
    most = np.where(first > 0, most, sizes)
    least = (b * first / (2 - first)).sum(1)
    differ = ((1 - first) * (most + b)).sum(1)
    b = b.sum(1)
    c_least = b * second.dice / (2 - second.dice)
    c_most = np.where(second.dice > 0, b * (2 - second.dice) / np.maximum(second.dice, 1e-9), sizes.sum(1))
    differ = differ + (1 - second.dice) * (b + np.minimum(c_most, sizes.sum(1)))
    with np.errstate(divide="ignore", invalid="ignore"):
        bound = 1 - differ / (least + c_least)
    found: Floats = np.where(differ == 0, 1.0, np.clip(np.nan_to_num(bound, nan=0.0), 0, 1))
    return found


def _foreground(voxels: npt.NDArray[Any], threshold: float, tree: Octree) -> Floats:
    """Voxels of foreground in every leaf, in node order."""
    edges = tree.edges(tree.depth)
    counts = np.zeros(tree.counts(tree.depth))
    for plane in range(len(voxels)):
        row = np.searchsorted(edges[0], plane, "right") - 1
        sums = metrics.foreground(voxels[plane], threshold).astype(np.int64)
        for axis, edge in enumerate(edges[1:]):
            sums = np.add.reduceat(sums, edge[:-1], axis=axis)
        counts[row] += sums
    in_order: Floats = counts[tuple(tree.grid_index(tree.depth).T)]
    return in_order


__all__ = ["cut", "cut_steps"]

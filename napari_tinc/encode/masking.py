"""Files of wavelets whose constant background is cut out by a mask, where that is better than to code its border."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_tinc.arrays.scratch import boxes, slabs, zeros
from napari_tinc.encode import framing, measuring
from napari_tinc.encode.attempts import Attempt, Attempts, at_step_of, with_wavelets_alone
from napari_tinc.encode.original import Original
from napari_tinc.encode.outlines import Inside, extended, simplified
from napari_tinc.limits import LIMITS
from napari_tinc.masks.mask import CodedMask, encode_mask
from napari_tinc.masks.payload import packed_mask_size
from napari_tinc.progress import Progress
from napari_tinc.settings import Settings

Array = npt.NDArray[Any]

# Of an item's voxels, what has to be of one value for a mask of it to be tried; and how many of them are asked.
_LEAST_SHARE, _ASKED = 0.1, 2**17
# Of a file, what masks may take.
_MOST_OF_FILE = 0.35
# Bits that the outline costs per pair of neighbours on different sides: what makes simplified masks cheapest.
_BITS_PER_PAIR = 0.6


def with_wavelets(original: Original, settings: Settings, budget: int) -> Attempts:
    """Fill a file with wavelets and restoration filters, with masks if that leaves less error."""
    plain = yield from with_wavelets_alone(original, settings, budget)
    masked = yield from promising(plain)
    if masked is None:
        return plain
    near = plain.heads[0]
    other = yield from with_wavelets_alone(masked, settings, budget, near)
    errors = []
    for attempt in (plain, other):
        errors.append((yield from measuring.squared_error(framing.decoders(attempt.plan, attempt.content), original)))
    return other if errors[1] < errors[0] else plain


def promising(plain: Attempt) -> Generator[Progress, None, Original | None]:
    """Find masks that seem to save more than they cost, for one step of the quantiser.

    Parameters
    ----------
    plain : Attempt
        The file without them, of wavelets.

    Yields
    ------
    Progress

    Returns
    -------
    Original or None
        With masks, see :class:`napari_tinc.encode.original.Original`; None if they would not pay.
    """
    original = plain.plan.original
    price = plain.error / plain.nbytes  # of a byte: an error that halves with every doubling of the file
    masked = yield from _masked(original, price, int(_MOST_OF_FILE * plain.nbytes))
    if masked is None:
        return None
    fitted = yield from at_step_of(masked, plain)
    masks = sum(packed_mask_size(mask, original.dtype) for mask in masked.masks if mask is not None)
    saved = plain.unfiltered - fitted.error - masked.given_up
    return masked if saved + price * (plain.wavelet_bytes - fitted.nbytes - masks) > 0 else None


def _masked(original: Original, price: float, room: int) -> Generator[Progress, None, Original | None]:
    """Cut the background out of the items that have one, if their masks fit in ``room`` bytes."""
    masks: list[CodedMask | None] = []
    insides: list[Inside | None] = []
    given_up, left = 0.0, room
    for item in range(len(original.items)):
        yield Progress.unmeasured("coding", item, len(original.items))
        found = _best_mask(original, item, price, left)
        masks.append(found and found[0])
        insides.append(found and found[1])
        if found is not None:
            given_up += found[2]
            left -= packed_mask_size(found[0], original.dtype)
    if not any(masks):
        return None
    items, weights = zeros(original.items.shape, original.items.dtype), zeros(original.items.shape, np.float32)
    for item, inside in enumerate(insides):
        yield Progress.unmeasured("coding", item, len(original.items))
        _cut_out(original, item, inside, items[item], weights[item])
    return replace(original, items=items, weights=weights, masks=tuple(masks), given_up=given_up)


def _best_mask(original: Original, item: int, price: float, room: int) -> tuple[CodedMask, Inside, float] | None:
    """Return the cheapest of the exact and a simplified mask, what is inside, and the error outside; None if none."""
    limits = original.ranges[item]
    voxels = original.items[item].reshape(original.volume_shape)
    background = None if not limits.span else _background(voxels)
    if background is None:
        return None
    inside = zeros(voxels.shape, np.bool_)
    for slab in slabs(voxels.shape, LIMITS.voxels):
        inside[slab] = voxels[slab] != background
    if inside.mean() > 1 - _LEAST_SHARE:
        return None
    best, least = None, np.inf
    simple = simplified(inside, voxels, background, _BITS_PER_PAIR / 8 * price * limits.scale**2)
    for chosen in (inside, simple):
        if chosen.all() or not chosen.any():
            continue
        mask, lost = encode_mask(chosen, background), original.error_outside(item, chosen, background)
        nbytes = packed_mask_size(mask, original.dtype)
        if nbytes <= room and lost + price * nbytes < least:
            best, least = (mask, chosen, lost), lost + price * nbytes
    return best


def _background(voxels: Array) -> int | float | None:
    """Return the most frequent value of a sample of the voxels; None if it is not frequent."""
    sample = voxels.ravel()[:: max(1, voxels.size // _ASKED) | 1]
    values, counts = np.unique(sample, return_counts=True)
    most = int(counts.argmax())
    found: int | float = values[most].item()
    return found if counts[most] >= _LEAST_SHARE * sample.size else None


def _cut_out(original: Original, item: int, inside: Inside | None, items: Array, weights: Array) -> None:
    """Continue what is inside beyond the outline, where it weighs nothing."""
    voxels = original.items[item]
    if inside is None:
        items[...] = voxels
        smooth = None
    else:
        smooth = extended(inside, voxels.reshape(inside.shape)).reshape(voxels.shape)
        inside = inside.reshape(voxels.shape)
    for box in boxes(tuple((0, side) for side in voxels.shape), LIMITS.voxels):
        place = tuple(slice(a, b) for a, b in box)
        weights[place] = 1 if original.weights is None else original.voxel_weights(item, box)
        if smooth is not None and inside is not None:
            values = smooth[place] if voxels.dtype.kind == "f" else np.rint(smooth[place])
            items[place] = np.where(inside[place], voxels[place], values.astype(voxels.dtype))
            weights[place] *= inside[place]


__all__ = ["promising", "with_wavelets"]

"""Files of wavelets whose constant background is cut out by a mask, where that is better than to code its border."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_tinc.arrays.scratch import Bounds, boxes, zeros
from napari_tinc.encode import framing, measuring
from napari_tinc.encode.attempts import Attempt, Attempts, at_step_of, with_wavelets_alone
from napari_tinc.encode.original import Original
from napari_tinc.encode.outlines import Inside, discontinuity, extend, simplified
from napari_tinc.errors import BudgetError
from napari_tinc.limits import LIMITS
from napari_tinc.masks.mask import CodedMask, encode_mask
from napari_tinc.masks.payload import packed_mask_size
from napari_tinc.progress import Progress
from napari_tinc.settings import Settings
from napari_tinc.system.steps import relay
from napari_tinc.system.threads import side_by_side
from napari_tinc.wavelets.residual import Residual
from napari_tinc.wavelets.search import Fit, Near
from napari_tinc.wavelets.transform import REACH

Array = npt.NDArray[Any]

# Of an item's voxels, what has to be of one value for a mask of it to be tried; and how many of them are asked.
_LEAST_SHARE, _ASKED = 0.1, 2**17
# Of a file, what masks may take; and of what they take, what coefficients must spend on the border at a first guess,
# which sees only the voxels beside it.
_MOST_OF_FILE, _LEAST_SPENT = 0.35, 0.2


def with_wavelets(original: Original, settings: Settings, budget: int) -> Attempts:
    """Fill a file with wavelets and restoration filters, with masks if that leaves less error."""
    plain = yield from with_wavelets_alone(original, settings, budget)
    found = yield from promising(plain)
    if found is None:
        return plain
    masked, fitted = found
    try:
        other = yield from with_wavelets_alone(masked, settings, budget, Near.to(fitted))
    except BudgetError:  # the masks leave too little of a small file
        return plain
    errors = []
    for attempt in (plain, other):
        errors.append((yield from measuring.squared_error(framing.decoders(attempt.plan, attempt.content), original)))
    # What coefficients tell of a masked volume's error is of the continuation, too, and not of what is given up.
    return replace(other, error=errors[1]) if errors[1] < errors[0] else plain


def promising(plain: Attempt) -> Generator[Progress, None, tuple[Original, Fit] | None]:
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
    (Original, Fit) or None
        With masks, see :class:`napari_tinc.encode.original.Original`, and its layers at that step; None if they would
        not pay.
    """
    original = plain.plan.original
    price = plain.error / plain.nbytes  # of a byte: an error that halves with every doubling of the file
    masked = yield from _masked(original, price, plain.heads[0].step, int(_MOST_OF_FILE * plain.nbytes))
    if masked is None:
        return None
    fitted = yield from at_step_of(masked.original, plain)
    masks = sum(packed_mask_size(mask, original.dtype) for mask in masked.original.masks if mask is not None)
    saved = plain.unfiltered - fitted.error - masked.original.given_up
    if saved + price * (plain.wavelet_bytes - fitted.nbytes - masks) <= 0:
        return None
    yield from _continue_as_coded(masked, plain, fitted)
    return masked.original, fitted


@dataclass(frozen=True)
class _Masked:
    """An original with masks, and what is inside of them: one array of the volume's shape per item, None for all."""

    original: Original
    insides: Sequence[Inside | None]


def _masked(original: Original, price: float, step: float, room: int) -> Generator[Progress, None, _Masked | None]:
    """Cut the background out of the items that have one, if their masks fit in ``room`` bytes."""
    masks: list[CodedMask | None] = []
    insides: list[Inside | None] = []
    given_up, left = 0.0, room
    for item in range(len(original.items)):
        found = yield from relay(_best_mask(original, item, price, step, left), _told)
        mask, inside, lost = found or (None, None, 0.0)
        masks.append(mask)
        insides.append(inside)
        given_up += lost
        left -= 0 if mask is None else packed_mask_size(mask, original.dtype)
    if not any(masks):
        return None
    items, weights = zeros(original.items.shape, original.items.dtype), zeros(original.items.shape, np.float32)
    for item, (mask, inside) in enumerate(zip(masks, insides, strict=True)):
        yield _told(None)
        _cut_out(original, item, 0 if mask is None else mask.background, inside, items[item], weights[item])
    return _Masked(replace(original, items=items, weights=weights, masks=tuple(masks), given_up=given_up), insides)


def _best_mask(
    original: Original, item: int, price: float, step: float, room: int
) -> Generator[None, None, tuple[CodedMask, Inside, float] | None]:
    """Return the cheapest of the exact and a simplified mask, what is inside, and the error outside; None if none."""
    residual = original.residual(item)
    background = None if residual is None else _background(original.items[item])
    if residual is None or background is None:
        return None
    inside, differences = _differences(original, item, residual, background)
    yield
    spent, taken = discontinuity(differences, step)
    if spent <= _LEAST_SPENT * taken or taken > 8 * room:
        return None
    yield
    best, least = None, np.inf
    for chosen in (inside, simplified(inside, differences, price / 8)):
        yield
        if chosen.all() or not chosen.any():
            continue
        mask = encode_mask(chosen, background)
        lost, nbytes = _error_outside(residual, chosen, differences), packed_mask_size(mask, original.dtype)
        if nbytes <= room and lost + price * nbytes < least:
            best, least = (mask, chosen, lost), lost + price * nbytes
    return best


def _told(_: None) -> Progress:
    return Progress.unmeasured("coding", 0, 1)


def _differences(
    original: Original, item: int, residual: Residual, background: float
) -> tuple[Inside, npt.NDArray[np.float32]]:
    """Which voxels are not the background, and how far from it they are, normalised."""
    limits, voxels = original.ranges[item], original.items[item].reshape(residual.shape)
    inside, differences = zeros(residual.shape, np.bool_), zeros(residual.shape, np.float32)

    def compare(box: Bounds) -> None:
        place = tuple(slice(a, b) for a, b in box)
        inside[place] = voxels[place] != background
        values = residual.read(box) - np.float32((background - limits.offset) / limits.scale)
        differences[place] = np.where(inside[place], values, 0)

    for _ in side_by_side(compare, boxes(tuple((0, side) for side in residual.shape), LIMITS.voxels)):
        pass
    return inside, differences


def _error_outside(residual: Residual, inside: Inside, differences: npt.NDArray[np.float32]) -> float:
    """Weighted squared error of voxels that become the background."""
    total = 0.0
    for box in boxes(tuple((0, side) for side in residual.shape), LIMITS.voxels):
        place = tuple(slice(a, b) for a, b in box)
        lost = np.where(inside[place], 0, differences[place])
        total += float(np.vdot(lost, lost if residual.weights is None else lost * residual.weights(box)))
    return total


def _background(voxels: Array) -> int | float | None:
    """Return the most frequent value of a sample of the voxels; None if it is not frequent."""
    stride = math.ceil((voxels.size / _ASKED) ** (1 / voxels.ndim))
    sample = voxels[(slice(None, None, stride),) * voxels.ndim]
    values, counts = np.unique(sample, return_counts=True)
    most = int(counts.argmax())
    found: int | float = values[most].item()
    return found if counts[most] >= _LEAST_SHARE * sample.size else None


def _cut_out(
    original: Original, item: int, background: float, inside: Inside | None, items: Array, weights: Array
) -> None:
    """Continue what is inside beyond the outline, a little farther than where it weighs nothing."""
    voxels, residual, limits = original.items[item], original.residual(item), original.ranges[item]
    continued = None
    if inside is not None and residual is not None:
        continued = _differences(original, item, residual, background)[1]
        extend(continued, inside)
        continued, inside = continued.reshape(voxels.shape), inside.reshape(voxels.shape)
    for box in boxes(tuple((0, side) for side in voxels.shape), LIMITS.voxels):
        place = tuple(slice(a, b) for a, b in box)
        items[place] = voxels[place]
        weights[place] = 1 if original.weights is None else original.voxel_weights(item, box)
        if inside is not None and continued is not None:
            values = background + continued[place].astype(np.float64) * limits.scale
            _replace_outside(items[place], inside[place], np.clip(values, limits.minimum, limits.maximum))
            weights[place] *= _near(inside, box)


def _near(inside: Inside, box: Bounds) -> Inside:
    """Mark the voxels of a box from which what is inside is no farther away than a coefficient reaches."""
    from scipy import ndimage  # here, for it takes long to load

    grown = [(max(a - REACH, 0), min(b + REACH, n)) for (a, b), n in zip(box, inside.shape, strict=True)]
    inner = tuple(slice(a - lo, b - lo) for (a, b), (lo, _) in zip(box, grown, strict=True))
    around = inside[tuple(slice(a, b) for a, b in grown)]
    near: Inside = ndimage.maximum_filter(around, 2 * REACH + 1, mode="nearest")[inner]
    return near


def _replace_outside(items: Array, inside: Inside, values: Array) -> None:
    outside = ~inside
    items[outside] = values[outside] if items.dtype.kind == "f" else np.rint(values[outside])


def _continue_as_coded(masked: _Masked, plain: Attempt, fitted: Fit) -> Generator[Progress, None, None]:
    """Replace the continuation by what coefficients make of it at some step: what they can say in the fewest bytes.

    A step of the projection onto convex sets (Chen, Civanlar & Haskell, *A Block Transform Coder for Arbitrarily Shaped
    Image Segments*, 1994).
    """
    original = masked.original
    unmasked = replace(plain.plan, original=replace(original, masks=()))
    layers = iter(fitted.layers)
    wavelets = [next(layers) if limits.span else None for limits in original.ranges]
    decoders = framing.decoders(unmasked, framing.Content(wavelets=wavelets))
    pieces = list(boxes(tuple((0, side) for side in original.spatial), LIMITS.voxels))
    for item, inside in enumerate(masked.insides):
        for number, box in enumerate(pieces if inside is not None else ()):
            yield Progress.unmeasured("coding", number, len(pieces))
            place = tuple(slice(a, b) for a, b in box)
            part = original.items[item][place]
            decoded = np.empty_like(part)
            decoders(item).decode(box, 1.0, decoded)
            assert inside is not None
            _replace_outside(part, inside.reshape(original.spatial)[place], decoded)


__all__ = ["promising", "with_wavelets"]

"""Find the restoration filters of a file: what they may cost, and what they save."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import replace

import numpy as np

from napari_tinc.arrays.scratch import Bounds, boxes
from napari_tinc.encode import framing
from napari_tinc.encode.framing import Content, Plan
from napari_tinc.format.cursor import varint
from napari_tinc.limits import LIMITS
from napari_tinc.progress import Progress
from napari_tinc.restoration import MAX_BINS, Moments, Restoration, restoration_size
from napari_tinc.system.threads import side_by_side

# Of a file, what the filters may take.
_SHARE = 0.03
# Of a larger volume, how many voxels its filters are fitted to, in pieces from all over it.
_VOXELS = 2**23


def affordable(budget: int, items: int) -> int:
    """Bins that the filter of every item may have."""
    return max((bins for bins in range(1, MAX_BINS + 1) if reserve(bins, items) <= _SHARE * budget), default=0)


def reserve(bins: int, items: int) -> int:
    """Bytes to set aside for filters of so many bins."""
    return room_for(restoration_size(bins), items) if bins else 0


def room_for(size: int, items: int) -> int:
    """Bytes that a segment of this size takes in every item."""
    row = 1 + len(varint(items)) + 1 + len(varint(size)) + 4  # of the segment table, whose length may need one more
    return items * (size + row) + 1


def restore(
    plan: Plan, content: Content, bins: Sequence[int], error: float
) -> Generator[Progress, None, tuple[Content, float]]:
    """Add filters to what a file will hold.

    Parameters
    ----------
    plan : Plan
    content : Content
        Without filters.
    bins : sequence of int
        Bins that every item's filter may have.
    error : float
        Weighted sum of squared errors, normalised.

    Returns
    -------
    content : Content
    error : float
        What is left of it.
    """
    decoders, original = framing.decoders(plan, content), plan.original
    # What a bin must save: an error that halves with every doubling of the file falls by this much.
    price = error / framing.size(plan, content) * restoration_size(1)
    chosen: list[Restoration | None] = []
    for item, most in enumerate(bins):
        residual = original.residual(item)
        if residual is None or not most:
            chosen.append(None)
            continue
        moments, seen = Moments(), 0
        pieces = some_pieces(residual.shape, LIMITS.voxels)
        inner = [box[3 - len(original.spatial) :] for box in pieces]
        for number, (box, values) in enumerate(
            zip(pieces, side_by_side(decoders(item).surrounded, inner), strict=True)
        ):
            yield Progress.unmeasured("coding", item * len(pieces) + number, len(original.items) * len(pieces))
            weights = np.ones((1, 1, 1), np.float32) if residual.weights is None else residual.weights(box)
            wanted = residual.read(box)
            moments.add(values, wanted, weights)
            seen += wanted.size
        share = seen / math.prod(residual.shape)
        restoration, saved = moments.best(most, price * share)
        chosen.append(restoration)
        error -= saved / share
    return replace(content, restorations=tuple(chosen)), error


def some_pieces(shape: tuple[int, ...], voxels: int, seed: int = 0) -> list[Bounds]:
    """Cut a volume into pieces of at most so many voxels; of a large one, pick some from all over it."""
    pieces = list(boxes(tuple((0, n) for n in shape), voxels))
    order = np.random.default_rng(seed).permutation(len(pieces))
    return [pieces[i] for i in np.sort(order[: _VOXELS // voxels])]


__all__ = ["affordable", "reserve", "restore", "room_for", "some_pieces"]

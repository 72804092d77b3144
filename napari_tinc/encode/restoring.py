"""Find the restoration filters of a file: what they may cost, and what they save."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace

import numpy as np

from napari_tinc import segments
from napari_tinc.arrays.scratch import boxes
from napari_tinc.encode.draft import Content, Draft
from napari_tinc.format._bytes import varint
from napari_tinc.networks.training import Progress
from napari_tinc.restoration import MAX_BINS, Moments, Restoration

# Of a file, what the filters may take.
_SHARE = 0.03
_BOX_VOXELS = 2**19


def affordable(budget: int, items: int) -> int:
    """Bins that the filter of every item may have."""
    return max((bins for bins in range(1, MAX_BINS + 1) if reserve(bins, items) <= _SHARE * budget), default=0)


def reserve(bins: int, items: int) -> int:
    """Bytes to set aside for filters of so many bins."""
    if not bins:
        return 0
    size = segments.restoration_size(bins)
    row = 1 + len(varint(items)) + 1 + len(varint(size)) + 4  # of the segment table, whose length may need one more
    return items * (size + row) + 1


def restore(
    draft: Draft, content: Content, bins: Sequence[int], error: float
) -> Generator[Progress, None, tuple[Content, float]]:
    """Add filters to what a file will hold.

    Parameters
    ----------
    draft : Draft
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
    volume = draft.unmeasured(content)
    # The price of a byte: an error that halves with every doubling of the file falls by this much.
    price = error / volume.nbytes * segments.restoration_size(1)
    found: list[Restoration | None] = []
    for item, (original, most) in enumerate(zip(draft.originals(), bins, strict=True)):
        if original is None or not most:
            found.append(None)
            continue
        moments = Moments()
        pieces = list(boxes(tuple((0, n) for n in original.shape), _BOX_VOXELS))
        for number, box in enumerate(pieces):
            yield Progress.unmeasured("coding", item * len(pieces) + number, len(draft.source.items) * len(pieces))
            values = volume.surrounded(item, box[3 - len(volume.tree.shape) :])
            weights = np.ones((1, 1, 1), np.float32) if original.weights is None else original.weights(box)
            moments.add(values, original.read(box), weights)
        restoration, saved = moments.best(most, price)
        found.append(restoration)
        error -= saved
    return replace(content, restorations=tuple(found)), error


__all__ = ["affordable", "reserve", "restore"]

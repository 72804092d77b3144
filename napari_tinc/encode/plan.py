"""What a file will be made of besides its symbols."""

from __future__ import annotations

import math
from collections.abc import Callable

from napari_tinc import quality
from napari_tinc.encode.framing import Plan
from napari_tinc.encode.original import Original
from napari_tinc.geometry.octree import Octree, asked_splits, choose_splits
from napari_tinc.settings import Settings

ShouldStop = Callable[[], bool]

# Of a file with both, what the network takes.
NETWORK_SHARE = 0.6
# Bytes of a wavelet segment and its row in the table besides the streams, at most.
WAVELET_HEAD = 48
_QUALITY_SHARE = 1 / 80
_REFERENCE_VOXELS = 2**18


def plan_wavelets(original: Original, settings: Settings, budget: int) -> Plan:
    """Plan a file without a network."""
    return Plan(original, settings, octants(original, settings, budget))


def octants(original: Original, settings: Settings, budget: int) -> Octree:
    """Choose the octants of a file whose network has none of its own: as many as its bytes can say the quality of.

    Raises
    ------
    InputError
        If more levels were asked for than the volume has.
    """
    depth = 0
    while settings.levels is None:
        splits = choose_splits(original.spatial, depth + 1)
        leaves = 2 ** sum(sum(level) for level in splits)
        if len(splits) <= depth or quality.quality_size(leaves) * len(original.items) > budget * _QUALITY_SHARE:
            break
        depth += 1
    else:
        depth = settings.levels - 1
    return Octree(original.spatial, asked_splits(original.spatial, settings, depth))


def growth(original: Original) -> float:
    """How many times the steps of a preset a volume is trained for."""
    return math.sqrt(max(1.0, original.items.size / _REFERENCE_VOXELS))


__all__ = ["NETWORK_SHARE", "WAVELET_HEAD", "ShouldStop", "growth", "octants", "plan_wavelets"]

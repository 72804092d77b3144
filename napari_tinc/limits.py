"""How much is worked on at a time: one value for reading, transforming, coding, decoding and measuring."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Limits:
    """What bounds the memory of every stage, whatever the size of the volume.

    Parameters
    ----------
    voxels : int
        Voxels of a box. It fits in caches several times over, and each stage works on some copies of it.
    """

    voxels: int = 2**20


LIMITS = Limits()

__all__ = ["LIMITS", "Limits"]

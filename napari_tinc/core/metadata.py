"""What is known about a volume besides its voxels."""

from __future__ import annotations

from dataclasses import dataclass, replace

SPATIAL = "zyx"
LEADING = "tc"


@dataclass(frozen=True, slots=True)
class Metadata:
    """Axes, physical size and names of a volume, one entry per axis of the array.

    Parameters
    ----------
    axes : str
        One letter of ``tczyx`` per array axis, in the array's own order; ``y`` and ``x`` are always there.
    voxel_size : tuple of float
        Physical step along every axis (1.0 where unknown and for channels).
    units : tuple of str
        Unit of every ``voxel_size`` entry, ``""`` where unknown.
    channel_names : tuple of str
        One name per channel, or empty.
    name : str
        Name of the volume, shown to the user.
    """

    axes: str
    voxel_size: tuple[float, ...]
    units: tuple[str, ...]
    channel_names: tuple[str, ...] = ()
    name: str = ""

    @classmethod
    def default(cls, ndim: int, name: str = "") -> Metadata:
        """Metadata of a bare array: 2-D is YX, 3-D ZYX, 4-D CZYX, 5-D TCZYX; unit steps."""
        axes = {2: "yx", 3: "zyx", 4: "czyx", 5: "tczyx"}[ndim]
        return cls(axes, (1.0,) * ndim, ("",) * ndim, name=name)

    def named(self, name: str) -> Metadata:
        """Return a copy with another name."""
        return replace(self, name=name)

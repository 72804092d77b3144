"""What is known about a volume besides its voxels."""

from __future__ import annotations

from dataclasses import dataclass, replace

from napari_tinc.errors import InputError

SPATIAL = "zyx"
LEADING = "tc"
# What a file holds: channels times time points, and bytes of JSON for metadata and provenance.
MAX_ITEMS = 2**16
MAX_JSON_BYTES = 64 * 1024
_DEFAULT_AXES = {2: "yx", 3: "zyx", 4: "czyx", 5: "tczyx"}


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
        """Metadata of a bare array: 2-D is YX, 3-D ZYX, 4-D CZYX, 5-D TCZYX; unit steps.

        Raises
        ------
        InputError
            For any other number of axes.
        """
        if ndim not in _DEFAULT_AXES:
            raise InputError(
                f"expected 2 to 5 axes (yx to tczyx), got {ndim}; select or squeeze axes until they fit, or name them"
            )
        return cls(_DEFAULT_AXES[ndim], (1.0,) * ndim, ("",) * ndim, name=name)

    def named(self, name: str) -> Metadata:
        """Return a copy with another name."""
        return replace(self, name=name)

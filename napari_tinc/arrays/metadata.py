"""What is known about a volume besides its voxels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from napari_tinc.errors import InputError

SPATIAL = "zyx"
LEADING = "tc"
# What a file holds: channels times time points, and bytes of JSON for metadata and provenance.
MAX_ITEMS = 2**16
MAX_JSON_BYTES = 64 * 1024
_DEFAULT_AXES = {2: "yx", 3: "zyx", 4: "czyx", 5: "tczyx"}


@dataclass(frozen=True, slots=True)
class Display:
    """Where a viewer put a volume, and in which colours: nothing here changes a voxel, and all of it may be missing.

    Parameters
    ----------
    translate : tuple of float
        Position of the centre of the first voxel, one number per axis in the units of the voxel size; empty: all 0.
    linear : tuple of tuple of float
        Rotation and shear: a matrix of one row per axis that is applied to index times voxel size, before
        ``translate`` is added; empty: the identity.
    contrast_limits : tuple of (float, float)
        Intensities shown black and white: one pair for all channels, or one per channel; empty: the value range.
    colors : tuple of str
        Name of a colour map, or a colour as ``"#rrggbb"``: one for all channels, or one per channel; empty: unknown.
    """

    translate: tuple[float, ...] = ()
    linear: tuple[tuple[float, ...], ...] = ()
    contrast_limits: tuple[tuple[float, float], ...] = ()
    colors: tuple[str, ...] = ()

    def reordered(self, order: Sequence[int]) -> Display:
        """Return what it is after the axes of the array were put into another order."""
        translate = tuple(self.translate[i] for i in order) if self.translate else ()
        linear = tuple(tuple(self.linear[i][j] for j in order) for i in order) if self.linear else ()
        return replace(self, translate=translate, linear=linear)


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
    display : Display
        For viewers.
    """

    axes: str
    voxel_size: tuple[float, ...]
    units: tuple[str, ...]
    channel_names: tuple[str, ...] = ()
    name: str = ""
    display: Display = Display()

    def reordered(self, order: Sequence[int]) -> Metadata:
        """Return what is known after the axes of the array were put into another order."""
        axes = "".join(self.axes[i] for i in order)
        sizes, units = tuple(self.voxel_size[i] for i in order), tuple(self.units[i] for i in order)
        return replace(self, axes=axes, voxel_size=sizes, units=units, display=self.display.reordered(order))

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

    def displayed(self, display: Display) -> Metadata:
        """Return a copy that is displayed otherwise."""
        return replace(self, display=display)

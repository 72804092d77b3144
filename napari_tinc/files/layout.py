"""What a reader returns, and the few axis manoeuvres all formats share."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_tinc.arrays.inputs import AXIS_LETTERS, check_axes, fits_file, ome_order
from napari_tinc.arrays.metadata import SPATIAL, Display, Metadata
from napari_tinc.arrays.scratch import zeros
from napari_tinc.errors import InputError
from napari_tinc.system.text import storable

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Volume:
    """Voxels and what is known about them.

    Parameters
    ----------
    data : ndarray
        The voxels in native byte order.
    metadata : Metadata
        One entry per axis of ``data``.
    """

    data: NDArray[Any]
    metadata: Metadata


@dataclass(frozen=True, slots=True)
class Description:
    """What a file says besides its voxels: by axis letter (step, unit) and position; of channels and the image, names.

    ``colors`` and ``limits`` are how channels are to be shown, one per channel or none.
    """

    steps: Mapping[str, tuple[float, str]]
    channel_names: tuple[str, ...] = ()
    name: str = ""
    positions: Mapping[str, float] = field(default_factory=dict)
    colors: tuple[str, ...] = ()
    limits: tuple[tuple[float, float], ...] = ()

    def display(self, axes: str, channels: int) -> Display:
        """Return what a viewer may know of an array with these axes and so many channels."""
        translate = tuple(float(self.positions.get(letter, 0.0)) for letter in axes)
        limits = self.limits if len(self.limits) == channels else ()
        colors = self.colors if len(self.colors) == channels else ()
        return Display(translate if any(translate) else (), (), limits, colors)


def assemble(data: NDArray[Any], letters: str, description: Description, axes: str | None) -> Volume:
    """Turn an array with a file's own axis letters into a volume.

    Parameters
    ----------
    data : ndarray
        One axis per letter.
    letters : str
        The file's axis letters in lower case; letters outside ``tczyx`` mean that the file gives the axis no meaning.
    description : Description
        What the file says about the axes.
    axes : str or None
        The user's axis letters. They count over the file's, for all axes or for those longer than one.

    Raises
    ------
    InputError
        The axes cannot be named, or the user's do not fit.
    """
    kept = [i for i, letter in enumerate(letters) if letter in SPATIAL or data.shape[i] > 1]
    if axes is not None:
        if len(axes) != data.ndim:
            data = data.reshape([data.shape[i] for i in kept])
        names = axes.lower()
    else:
        data = data.reshape([data.shape[i] for i in kept])
        names = _named("".join(letters[i] for i in kept), data.shape)
    check_axes(names, data.ndim)
    channels = data.shape[names.index("c")] if "c" in names else 1
    channel_names = description.channel_names
    if channel_names and len(channel_names) != channels:
        _log.warning(
            "%d channel names for %d channels in the file; the names are left out", len(channel_names), channels
        )
        channel_names = ()
    channel_names, name = tuple(map(storable, channel_names)), storable(description.name)
    if not fits_file([name, *channel_names]):
        _log.warning("the names in the file are longer than a .tinc file can hold; they are left out")
        channel_names, name = (), ""
    steps = [description.steps.get(letter, (1.0, "")) for letter in names]
    sizes, units = tuple(s for s, _ in steps), tuple(u for _, u in steps)
    metadata = Metadata(names, sizes, units, channel_names, name, description.display(names, channels))
    if not data.dtype.isnative:
        native = zeros(data.shape, data.dtype.newbyteorder("="))
        native[...] = data
        data = native
    return Volume(data, metadata)


def _named(letters: str, shape: tuple[int, ...]) -> str:
    unnamed = [letter for letter in letters if letter not in AXIS_LETTERS]
    if not unnamed:
        return letters
    if len(unnamed) == len(letters) - 2 and letters.endswith("yx") and len(letters) <= len(AXIS_LETTERS):
        return Metadata.default(len(letters)).axes
    if len(unnamed) == 1 and "z" not in letters:
        return letters.replace(unnamed[0], "z")
    raise InputError(
        f"expected axes among t, c, z, y, x, got {letters.upper()!r} of {shape}; name them with --axes, such as zcyx"
    )


def transposed(array: NDArray[Any], metadata: Metadata, order: str) -> tuple[NDArray[Any], Metadata]:
    """Reorder the axes of an array and of its metadata.

    Parameters
    ----------
    array : ndarray
        One axis per letter of ``metadata.axes``.
    metadata : Metadata
        What is known about the array.
    order : str
        The same letters in the order wanted.
    """
    index = [metadata.axes.index(letter) for letter in order]
    return np.transpose(array, index), metadata.reordered(index)


def positive_step(value: object) -> float | None:
    """Return a physical step as a float, None where a file holds no usable one (missing, zero, negative, text)."""
    try:
        step = float(value)  # type: ignore[arg-type]  # files hold anything here
    except (TypeError, ValueError, OverflowError):
        return None
    return step if np.isfinite(step) and step > 0 else None


def in_ome_order(volume: Volume) -> Volume:
    """Put the axes of a volume in the order time, channel, space, which OME-Zarr demands."""
    return Volume(*transposed(volume.data, volume.metadata, ome_order(volume.metadata.axes)))

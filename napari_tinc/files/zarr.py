"""Volumes in Zarr: plain arrays and OME-Zarr 0.4 and 0.5 in, OME-Zarr 0.5 out."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import yaozarrs
import zarr
from numpy.typing import NDArray
from yaozarrs import v04, v05
from yaozarrs.write.v05 import prepare_image

from napari_tinc.arrays.inputs import AXIS_LETTERS, check_axes, ome_order
from napari_tinc.arrays.metadata import SPATIAL, Metadata
from napari_tinc.arrays.scratch import ArrayLike, to_array
from napari_tinc.errors import InputError
from napari_tinc.files.layout import Description, Volume, assemble, positive_step, transposed
from napari_tinc.files.pyramid import coarser, level_shapes, write_level
from napari_tinc.files.units import SYMBOLS, unit_name

_LETTERS = {"time": "t", "channel": "c"}
_AXES: dict[str, type[v05.TimeAxis | v05.ChannelAxis | v05.SpaceAxis]] = {
    "t": v05.TimeAxis,
    "c": v05.ChannelAxis,
    **dict.fromkeys(SPATIAL, v05.SpaceAxis),
}
# Chunks of a few megabytes at most, in which a viewer finds a plane without reading the stack.
CHUNK = {"t": 1, "c": 1, "z": 16, "y": 256, "x": 256}
CHANNEL_COLORS = ("FFFFFF", "00FF00", "FF00FF", "00FFFF", "FFFF00", "FF0000", "0000FF")
DOWNSCALING: dict[str, Any] = {
    "type": "mean",
    "metadata": {"description": "Means of two voxels along every axis that is halved", "method": "napari_tinc"},
}


def read_zarr(path: Path, axes: str | None) -> Volume:
    """Read a Zarr array, or the finest level of an OME-Zarr image.

    Parameters
    ----------
    path : Path
        The folder.
    axes : str or None
        Axis letters that count over the file's own.

    Raises
    ------
    InputError
        The group is not an image of OME-Zarr 0.4 or 0.5, its axes cannot be named, or it was replaced meanwhile.
    """
    before = _identity(path)
    volume = _read(path, axes)
    if _identity(path) != before:
        raise InputError(
            f"expected a Zarr that stays as it is, got {path.name}, which was replaced meanwhile; read it again"
        )
    return volume


def _identity(path: Path) -> tuple[int, int, int]:
    """What is another one when a folder has been replaced: its chunks are files of their own, opened one by one."""
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_ctime_ns


def _read(path: Path, axes: str | None) -> Volume:
    levels, letters, description = described(path)
    return assemble(to_array(levels[0]), letters, description, axes)


def described(path: Path | str) -> tuple[list[zarr.Array[Any]], str, Description]:
    """Open a Zarr array or an OME-Zarr image without reading a voxel.

    Parameters
    ----------
    path : Path or str
        The folder, or an address such as ``https://…`` or ``s3://…``.

    Returns
    -------
    levels : list of zarr.Array
        The finest first; one for a plain array.
    letters : str
        Of every axis; letters outside ``tczyx`` mean that the file gives the axis no meaning.
    description : Description

    Raises
    ------
    InputError
        There is no Zarr, the group is not an image of OME-Zarr 0.4 or 0.5, or its axes cannot be named.
    """
    node = opened(path)
    if isinstance(node, zarr.Array):
        return [node], _array_letters(node), Description({}, name=_stem(path))
    image = _ome_image(node, path)
    multiscale = image.multiscales[0]
    levels = []
    for level in multiscale.datasets:
        array = node[level.path]
        if not isinstance(array, zarr.Array):
            raise InputError(f"expected an array at {path}/{level.path}, got a group; check the OME-Zarr's metadata")
        levels.append(array)
    letters = "".join(_axis_letter(axis) for axis in multiscale.axes)
    scale, position = np.ones(len(letters)), np.zeros(len(letters))
    outer = multiscale.coordinateTransformations or ()
    for transform in (*multiscale.datasets[0].coordinateTransformations, *outer):  # applied one after the other
        if isinstance(transform, v04.ScaleTransformation | v05.ScaleTransformation):
            scale, position = scale * transform.scale, position * transform.scale
        else:
            position = position + transform.translation
    steps, positions = {}, {}
    for letter, axis, value, start in zip(letters, multiscale.axes, scale, position, strict=True):
        step = positive_step(value)
        if letter != "c" and step is not None:
            steps[letter] = (step, unit_name(axis.unit))
            positions[letter] = float(start) if np.isfinite(start) else 0.0
    channels = image.omero.channels if image.omero else []
    labels = tuple(channel.label or "" for channel in channels)
    colors = tuple(f"#{channel.color}".lower() for channel in channels)
    windows = [(channel.window.start, channel.window.end) for channel in channels]
    description = Description(
        steps, labels if any(labels) else (), multiscale.name or _stem(path), positions, colors,
        tuple((start, end) for start, end in windows if -math.inf < start < end < math.inf),
    )  # fmt: skip
    return levels, letters, description


def opened(path: Path | str) -> zarr.Array[Any] | zarr.Group:
    """Open a Zarr that is only read.

    Raises
    ------
    InputError
        There is none, or what reads from such an address is not installed.
    """
    try:
        return zarr.open(path, mode="r")
    except ImportError as error:
        raise InputError(
            f"expected what reads {path}, got {error}: pip install 'napari-tinc[remote]', or the package it names"
        ) from error
    except Exception as error:  # every kind of storage has errors of its own
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"expected a Zarr at {path}, got: {reason}; check the address") from error


def _ome_image(group: zarr.Group, path: Path | str) -> v04.Image | v05.Image:
    attributes = group.attrs.asdict()
    ome = attributes.get("ome", attributes)
    if not isinstance(ome, Mapping) or "multiscales" not in ome:
        # An address cannot be asked what there is.
        members = ", ".join(sorted(group.keys())[:5]) or "nothing" if isinstance(path, Path) else "other things"
        raise InputError(
            f"expected a Zarr array or an OME-Zarr image, got the group {path} holding {members}; "
            "give the path of one image or array inside it"
        )
    model: type[v04.Image | v05.Image] = v05.Image if "ome" in attributes else v04.Image
    with warnings.catch_warnings():
        # yaozarrs warns about unusual units, which unit_name reports
        warnings.simplefilter("ignore", UserWarning)
        try:
            return yaozarrs.validate_ome_object(dict(ome), model)
        except ValueError as error:
            lines = str(error).splitlines()
            raise InputError(
                f"expected metadata of OME-Zarr 0.4 or 0.5, got {path} with {' '.join(lines[:3])}; "
                "repair the metadata, or give the path of the array inside it"
            ) from error


def _axis_letter(axis: Any) -> str:
    name = str(axis.name).lower()
    return _LETTERS.get(axis.type or "", name if name in AXIS_LETTERS else "q")


def _array_letters(array: zarr.Array[Any]) -> str:
    names: Sequence[str | None] = getattr(array.metadata, "dimension_names", None) or ()
    letters = "".join(str(name).lower() for name in names)
    if len(letters) == array.ndim and set(letters) <= set(AXIS_LETTERS):
        return letters
    check_axes("tczyx"[-array.ndim :], array.ndim)
    return Metadata.default(array.ndim).axes


def _stem(path: Path | str) -> str:
    return Path(str(path).rstrip("/")).name.removesuffix(".zarr").removesuffix(".ome")


def write_zarr(path: Path, array: NDArray[Any], metadata: Metadata) -> None:
    """Write an OME-Zarr 0.5 image of all its resolutions, with axes, voxel size, units, place and looks of channels.

    OME-Zarr demands the order time, channel, space, so an array in another order is transposed. See
    :mod:`napari_tinc.files.pyramid` for the resolutions.

    Parameters
    ----------
    path : Path
        A path that does not exist yet.
    array : ndarray
        The voxels, any real dtype.
    metadata : Metadata
        One entry per axis.

    Raises
    ------
    InputError
        A unit that OME-Zarr does not know.
    """
    _check_units(metadata)
    order = ome_order(metadata.axes)
    array, metadata = transposed(array, metadata, order)
    shapes = level_shapes(array.shape, order)
    image = v05.Image(multiscales=[_multiscale(metadata, shapes)], omero=_omero(array, metadata))
    _, levels = prepare_image(
        path,
        image,
        [(shape, array.dtype) for shape in shapes],
        chunks=tuple(CHUNK[letter] for letter in order),
        writer="zarr",
    )
    finest, *others = levels.values()
    write_level(finest, array.__getitem__)
    fine: ArrayLike = array
    for level in others:
        write_level(level, coarser(fine, level.shape))
        fine = level


def image_attributes(metadata: Metadata, shapes: Sequence[tuple[int, ...]]) -> dict[str, Any]:
    """Return OME's attributes of an image with these levels, without what needs its voxels.

    Raises
    ------
    InputError
        A unit that OME-Zarr does not know, or axes in another order than time, channel, space.
    """
    _check_units(metadata)
    if metadata.axes != ome_order(metadata.axes):
        raise InputError(f"expected axes in the order of {AXIS_LETTERS}, got {metadata.axes}; transpose the array")
    image = v05.Image(multiscales=[_multiscale(metadata, shapes)])
    return image.model_dump(mode="json", exclude_none=True) | {"version": image.version}


def _check_units(metadata: Metadata) -> None:
    unknown = sorted(set(metadata.units) - {"", *SYMBOLS})
    if unknown:
        raise InputError(
            f"expected units among {', '.join(SYMBOLS)}, got {unknown[0]!r}; convert the voxel size to one"
        )


def _multiscale(metadata: Metadata, shapes: Sequence[tuple[int, ...]]) -> v05.Multiscale:
    units = zip(metadata.axes, metadata.units, strict=True)
    return v05.Multiscale(
        name=metadata.name or None,
        axes=[_AXES[letter](name=letter, unit=unit or None) for letter, unit in units],
        datasets=[_dataset(metadata, number, shapes) for number in range(len(shapes))],
        **(DOWNSCALING if len(shapes) > 1 else {}),
    )


def _dataset(metadata: Metadata, number: int, shapes: Sequence[tuple[int, ...]]) -> v05.Dataset:
    """Say where a level lies: its first voxel is in the middle of those that it is the mean of."""
    factors = np.ones(len(metadata.axes))
    for fine, coarse in pairwise(shapes[: number + 1]):
        factors *= np.where(np.not_equal(fine, coarse), 2, 1)
    size = np.array(metadata.voxel_size)
    place = np.array(metadata.display.translate or np.zeros(len(size))) + (factors - 1) / 2 * size
    transforms: list[v05.ScaleTransformation | v05.TranslationTransformation]
    transforms = [v05.ScaleTransformation(scale=(factors * size).tolist())]
    if place.any():
        transforms.append(v05.TranslationTransformation(translation=place.tolist()))
    return v05.Dataset(path=str(number), coordinateTransformations=transforms)


def _omero(array: NDArray[Any], metadata: Metadata) -> v05.Omero | None:
    """Say how the channels are to be shown, if anything is known of them."""
    channels = array.shape[metadata.axes.index("c")] if "c" in metadata.axes else 1
    if not metadata.channel_names and not len(metadata.display.colors) == channels > 1:
        return None
    low, high = float(array.min()), float(array.max())
    return v05.Omero(channels=[_channel(metadata, number, low, high) for number in range(channels)])


def _channel(metadata: Metadata, number: int, low: float, high: float) -> v05.OmeroChannel:
    limits, colors = metadata.display.contrast_limits, metadata.display.colors
    start, end = limits[number] if len(limits) > number else (low, high)
    usual = CHANNEL_COLORS[number % len(CHANNEL_COLORS)]
    # A colour may also be the name of a colour map.
    known = len(colors) > number and re.fullmatch("#[0-9a-fA-F]{6}", colors[number])
    return v05.OmeroChannel(
        label=metadata.channel_names[number] if metadata.channel_names else None,
        color=colors[number] if known else usual,
        active=True,
        window=v05.OmeroWindow(start=start, end=end, min=low, max=high),
    )

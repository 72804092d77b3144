"""Volumes in Zarr: plain arrays and OME-Zarr 0.4 and 0.5 in, OME-Zarr 0.5 out."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaozarrs
import zarr
from numpy.typing import NDArray

from napari_tinc.arrays.inputs import AXIS_LETTERS, check_axes
from napari_tinc.arrays.metadata import SPATIAL, Metadata
from napari_tinc.arrays.scratch import to_array
from napari_tinc.errors import InputError
from napari_tinc.files.layout import Description, Volume, assemble, positive_step, transposed
from napari_tinc.files.units import SYMBOLS, unit_name

AXIS_TYPES = {"t": "time", "c": "channel"} | dict.fromkeys(SPATIAL, "space")
# Chunks of a few megabytes at most, in which a viewer finds a plane without reading the stack.
CHUNK = {"t": 1, "c": 1, "z": 16, "y": 256, "x": 256}
CHANNEL_COLORS = ("FFFFFF", "00FF00", "FF00FF", "00FFFF", "FFFF00", "FF0000", "0000FF")


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
    levels, letters, said = described(path)
    return assemble(to_array(levels[0]), letters, said, axes)


def described(path: Path) -> tuple[list[zarr.Array[Any]], str, Description]:
    """Open a Zarr array or an OME-Zarr image without reading a voxel.

    Parameters
    ----------
    path : Path
        The folder.

    Returns
    -------
    levels : list of zarr.Array
        The finest first; one for a plain array.
    letters : str
        Of every axis; letters outside ``tczyx`` mean that the file gives the axis no meaning.
    said : Description

    Raises
    ------
    InputError
        The group is not an image of OME-Zarr 0.4 or 0.5, or its axes cannot be named.
    """
    node = zarr.open(path, mode="r")
    if isinstance(node, zarr.Array):
        return [node], _array_letters(node), Description({}, name=_stem(path))
    image, omero = _ome_image(node, path)
    multiscale = image.multiscales[0]
    levels = []
    for level in multiscale.datasets:
        array = node[level.path]
        if not isinstance(array, zarr.Array):
            raise InputError(
                f"expected an array at {path.name}/{level.path}, got a group; check the OME-Zarr's metadata"
            )
        levels.append(array)
    letters = "".join(_axis_letter(axis) for axis in multiscale.axes)
    scale, position = np.ones(len(letters)), np.zeros(len(letters))
    outer = multiscale.coordinateTransformations or ()
    for transform in (*multiscale.datasets[0].coordinateTransformations, *outer):  # applied one after the other
        factor = np.array(getattr(transform, "scale", 1.0), np.float64)
        scale, position = scale * factor, position * factor + np.array(getattr(transform, "translation", 0.0))
    steps, positions = {}, {}
    for letter, axis, value, start in zip(letters, multiscale.axes, scale, position, strict=True):
        step = positive_step(value)
        if letter != "c" and step is not None:
            steps[letter] = (step, unit_name(getattr(axis, "unit", None)))
            positions[letter] = float(start) if np.isfinite(start) else 0.0
    channels = tuple(omero.channels) if omero else ()
    labels = tuple(channel.label or "" for channel in channels)
    colors = tuple(f"#{channel.color}".lower() for channel in channels if _is_color(channel.color))
    limits = [_window_of(channel) for channel in channels]
    said = Description(
        steps, labels if any(labels) else (), multiscale.name or _stem(path), positions, colors,
        tuple(pair for pair in limits if pair is not None),
    )  # fmt: skip
    return levels, letters, said


def _is_color(text: object) -> bool:
    return isinstance(text, str) and re.fullmatch("[0-9a-fA-F]{6}", text) is not None


def _window_of(channel: Any) -> tuple[float, float] | None:
    window = getattr(channel, "window", None)
    start, end = (getattr(window, name, None) for name in ("start", "end"))
    if not isinstance(start, int | float) or not isinstance(end, int | float) or not -math.inf < start < end < math.inf:
        return None
    return float(start), float(end)


def _ome_image(group: zarr.Group, path: Path) -> tuple[Any, Any]:
    attributes = group.attrs.asdict()
    ome = attributes.get("ome", attributes)
    if not isinstance(ome, Mapping) or "multiscales" not in ome:
        members = ", ".join(sorted(group.keys())[:5]) or "nothing"
        raise InputError(
            f"expected a Zarr array or an OME-Zarr image, got the group {path.name} holding {members}; "
            "give the path of one image or array inside it"
        )
    model: Any = yaozarrs.v05.Image if "ome" in attributes else yaozarrs.v04.Image
    with warnings.catch_warnings():
        # yaozarrs warns about unusual units, which unit_name reports
        warnings.simplefilter("ignore", UserWarning)
        try:
            image = yaozarrs.validate_ome_object(dict(ome), model)
        except ValueError as error:
            lines = str(error).splitlines()
            raise InputError(
                f"expected metadata of OME-Zarr 0.4 or 0.5, got {path.name} with {' '.join(lines[:3])}; "
                "repair the metadata, or give the path of the array inside it"
            ) from error
    return image, image.omero


def _axis_letter(axis: Any) -> str:
    by_type = {kind: letter for letter, kind in AXIS_TYPES.items() if kind != "space"}
    name = str(axis.name).lower()
    return by_type.get(axis.type or "", name if name in AXIS_LETTERS else "q")


def _array_letters(array: zarr.Array[Any]) -> str:
    names: Sequence[str | None] = getattr(array.metadata, "dimension_names", None) or ()
    letters = "".join(str(name).lower() for name in names)
    if len(letters) == array.ndim and set(letters) <= set(AXIS_LETTERS):
        return letters
    check_axes("tczyx"[-array.ndim :], array.ndim)
    return Metadata.default(array.ndim).axes


def _stem(path: Path) -> str:
    return path.name.removesuffix(".zarr").removesuffix(".ome")


def write_zarr(path: Path, array: NDArray[Any], metadata: Metadata) -> None:
    """Write an OME-Zarr 0.5 image of one level, with axes, voxel size, units and channel names.

    OME-Zarr demands the order time, channel, space, so an array in another order is transposed.

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
    unknown = sorted(set(metadata.units) - {"", *SYMBOLS})
    if unknown:
        raise InputError(
            f"expected units among {', '.join(SYMBOLS)}, got {unknown[0]!r}; convert the voxel size to one"
        )
    order = "".join(letter for letter in AXIS_LETTERS if letter in metadata.axes)
    array, metadata = transposed(array, metadata, order)
    group = zarr.open_group(path, mode="w-", zarr_format=3, attributes={"ome": _ome_attributes(array, metadata)})
    level = group.create_array(
        "0",
        shape=array.shape,
        dtype=array.dtype,
        chunks=tuple(min(length, CHUNK[letter]) for length, letter in zip(array.shape, order, strict=True)),
        dimension_names=tuple(order),
    )
    level[...] = array


def _ome_attributes(array: NDArray[Any], metadata: Metadata) -> dict[str, Any]:
    axes = []
    for letter, unit in zip(metadata.axes, metadata.units, strict=True):
        axes.append({"name": letter, "type": AXIS_TYPES[letter]} | ({"unit": unit} if unit else {}))
    display = metadata.display
    transforms: list[dict[str, Any]] = [{"type": "scale", "scale": list(metadata.voxel_size)}]
    if display.translate:
        transforms.append({"type": "translation", "translation": list(display.translate)})
    multiscale = {"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": transforms}]}
    if metadata.name:
        multiscale["name"] = metadata.name
    attributes: dict[str, Any] = {"version": "0.5", "multiscales": [multiscale]}
    channels = array.shape[metadata.axes.index("c")] if "c" in metadata.axes else 1
    if metadata.channel_names or len(display.colors) == channels > 1:
        attributes["omero"] = {"channels": [_omero(array, metadata, number) for number in range(channels)]}
    return attributes


def _omero(array: NDArray[Any], metadata: Metadata, number: int) -> dict[str, Any]:
    """Say how a channel is to be shown."""
    low, high = float(array.min()), float(array.max())
    limits, colors = metadata.display.contrast_limits, metadata.display.colors
    start, end = limits[number] if len(limits) > number else (low, high)
    usual = CHANNEL_COLORS[number % len(CHANNEL_COLORS)]
    color = colors[number].lstrip("#").upper() if len(colors) > number else usual
    shown = {"color": color if _is_color(color) else usual, "active": True}
    shown["window"] = {"start": start, "end": end, "min": low, "max": high}
    return shown | ({"label": metadata.channel_names[number]} if metadata.channel_names else {})

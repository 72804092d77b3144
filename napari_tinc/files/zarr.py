"""Volumes in Zarr: plain arrays and OME-Zarr 0.4 and 0.5 in, OME-Zarr 0.5 out."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaozarrs
import zarr
from numpy.typing import NDArray

from napari_tinc.core.metadata import SPATIAL, Metadata
from napari_tinc.core.scratch import to_array
from napari_tinc.errors import InputError
from napari_tinc.files.layout import Description, Volume, assemble, positive_step, transposed
from napari_tinc.files.units import SYMBOLS, unit_name
from napari_tinc.inputs import AXIS_LETTERS, check_axes

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
    node = zarr.open(path, mode="r")
    if isinstance(node, zarr.Array):
        return assemble(to_array(node), _array_letters(node), Description({}, name=_stem(path)), axes)
    image, omero = _ome_image(node, path)
    multiscale = image.multiscales[0]
    level = multiscale.datasets[0]
    array = node[level.path]
    if not isinstance(array, zarr.Array):
        raise InputError(f"expected an array at {path.name}/{level.path}, got a group; check the OME-Zarr's metadata")
    letters = "".join(_axis_letter(axis) for axis in multiscale.axes)
    scales = [transform.scale for transform in level.coordinateTransformations if hasattr(transform, "scale")]
    scales += [t.scale for t in multiscale.coordinateTransformations or () if hasattr(t, "scale")]
    product = np.prod(np.array(scales, np.float64), axis=0)
    steps = {}
    for letter, axis, value in zip(letters, multiscale.axes, product, strict=True):
        step = positive_step(value)
        if letter != "c" and step is not None:
            steps[letter] = (step, unit_name(getattr(axis, "unit", None)))
    channels = tuple(channel.label or "" for channel in omero.channels) if omero else ()
    names = channels if any(channels) else ()
    said = Description(steps, names, multiscale.name or _stem(path))
    return assemble(to_array(array), letters, said, axes)


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
    transforms = [{"type": "scale", "scale": list(metadata.voxel_size)}]
    multiscale = {"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": transforms}]}
    if metadata.name:
        multiscale["name"] = metadata.name
    attributes: dict[str, Any] = {"version": "0.5", "multiscales": [multiscale]}
    if metadata.channel_names:
        low, high = float(array.min()), float(array.max())
        window = {"start": low, "end": high, "min": low, "max": high}
        attributes["omero"] = {
            "channels": [
                {"label": name, "color": CHANNEL_COLORS[i % len(CHANNEL_COLORS)], "window": window, "active": True}
                for i, name in enumerate(metadata.channel_names)
            ]
        }
    return attributes

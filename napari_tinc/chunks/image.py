"""What an OME-Zarr image says of itself, carried over to a compressed one; and its labels, copied as they are."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from napari_tinc.arrays.inputs import AXIS_LETTERS
from napari_tinc.arrays.metadata import Metadata
from napari_tinc.arrays.scratch import ArrayLike, blocks
from napari_tinc.errors import InputError
from napari_tinc.files.pyramid import level_shapes
from napari_tinc.files.zarr import described, image_attributes, opened

_NGFF = "0.5"
_COPIED_VOXELS = 2**24

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Image:
    """An image to be compressed.

    Parameters
    ----------
    levels : tuple of array-like
        Its resolutions, the finest first; only the finest where others are to be made.
    shapes : tuple of tuple of int
        Of all resolutions that are to be written.
    axes : str
        One letter per axis.
    attributes : dict
        Of the group that is to be written.
    labels : str or None
        Path of the source that has label images.
    """

    levels: tuple[ArrayLike, ...]
    shapes: tuple[tuple[int, ...], ...]
    axes: str
    attributes: dict[str, Any]
    labels: str | None = None

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the voxels, in the machine's byte order."""
        dtype: np.dtype[Any] = np.dtype(self.levels[0].dtype)
        return dtype.newbyteorder("=")

    @property
    def voxels(self) -> int:
        """Voxels of the finest level."""
        return math.prod(self.shapes[0])

    @property
    def nbytes(self) -> int:
        """Bytes of the finest level's voxels."""
        return self.voxels * self.dtype.itemsize

    def part(self, region: tuple[slice, ...]) -> Image:
        """Return a part of the finest level, whose coarser ones are to be made.

        Parameters
        ----------
        region : tuple of slice
            One per axis, of step 1.
        """
        attributes = copy.deepcopy(self.attributes)
        multiscale = attributes["ome"]["multiscales"][0]
        scale, place = _placed(multiscale["datasets"][0])
        moved = place + np.array([side.start for side in region]) * scale
        multiscale["datasets"] = [{"path": "0", "coordinateTransformations": _transforms(scale, moved)}]
        part = _Part(self.levels[0], region)
        shapes = level_shapes(part.shape, self.axes)
        _extend(multiscale, shapes)
        return Image((part,), tuple(shapes), self.axes, attributes)


@dataclass(frozen=True)
class _Part:
    """A part of an array; labels of the whole do not fit it."""

    whole: ArrayLike
    region: tuple[slice, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(side.stop - side.start for side in self.region)

    @property
    def dtype(self) -> Any:
        return self.whole.dtype

    def __getitem__(self, key: tuple[slice, ...]) -> Any:
        pairs = zip(key, self.region, strict=True)
        return self.whole[tuple(slice(side.start + part.start, side.start + part.stop) for part, side in pairs)]


def of_zarr(path: Path | str, level: int = 0) -> Image:
    """Describe what is to be written of a Zarr array, or of an OME-Zarr image 0.4 or 0.5, without reading a voxel.

    Parameters
    ----------
    path : Path or str
        A folder, or an address such as ``https://…`` or ``s3://…``.
    level : int
        The resolution that is to be the finest.

    Raises
    ------
    InputError
        There is no such image, or no such level.
    """
    levels, letters, description = described(path)
    if not 0 <= level < len(levels):
        raise InputError(f"expected a level from 0 to {len(levels) - 1}, got {level}")
    levels = levels[level:]
    axes = letters if _is_usable(letters) else AXIS_LETTERS[-len(letters) :]
    node = opened(path)
    found: dict[str, Any] = node.attrs.asdict()
    labels = str(path) if isinstance(node, zarr.Group) and "labels" in node else None
    if isinstance(node, zarr.Array):
        metadata = _metadata(axes, description.name)
        shapes = level_shapes(tuple(levels[0].shape), axes)
        return Image((levels[0],), tuple(shapes), axes, found | {"ome": image_attributes(metadata, shapes)}, labels)
    ome = _of_version(found, level)
    if len(levels) > 1:
        return Image(tuple(levels), tuple(tuple(one.shape) for one in levels), axes, _others(found) | ome, labels)
    shapes = level_shapes(tuple(levels[0].shape), axes)
    _extend(ome["ome"]["multiscales"][0], shapes)
    return Image((levels[0],), tuple(shapes), axes, _others(found) | ome, labels)


def of_array(array: ArrayLike, metadata: Metadata) -> Image:
    """Describe an array in memory, or one that is read piece by piece.

    Raises
    ------
    InputError
        A unit that OME-Zarr does not know, or axes in another order than time, channel, space.
    """
    shape = tuple(int(n) for n in array.shape)
    shapes = level_shapes(shape, metadata.axes)
    return Image((array,), tuple(shapes), metadata.axes, {"ome": image_attributes(metadata, shapes)})


def _is_usable(letters: str) -> bool:
    return set(letters) <= set(AXIS_LETTERS) and set("yx") <= set(letters) and len(set(letters)) == len(letters)


def _metadata(axes: str, name: str) -> Metadata:
    return Metadata(axes, (1.0,) * len(axes), ("",) * len(axes), name=name)


def _others(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes that are not OME's: kept as they are."""
    known = ("ome", "multiscales", "omero", "labels", "image-label", "napari-tinc")
    return {key: value for key, value in attributes.items() if key not in known}


def _of_version(attributes: Mapping[str, Any], level: int) -> dict[str, Any]:
    """OME's attributes as version 0.5 has them, the multiscale cut at a level; what they say besides is kept."""
    ome = _ome_of(attributes)
    if "ome" not in attributes:
        ome = {key: value for key, value in ome.items() if key in ("multiscales", "omero")}
    for multiscale in ome["multiscales"]:
        multiscale.pop("version", None)
    ome["multiscales"] = ome["multiscales"][:1]
    datasets = ome["multiscales"][0]["datasets"] = ome["multiscales"][0]["datasets"][level:]
    for number, dataset in enumerate(datasets):
        dataset["path"] = str(number)
    ome.pop("labels", None)
    return {"ome": ome | {"version": _NGFF}}


def _extend(multiscale: dict[str, Any], shapes: Sequence[tuple[int, ...]]) -> None:
    """Say where the levels lie that are made of the only one: a first voxel is in the middle of those it is made of."""
    scale, place = _placed(multiscale["datasets"][0])
    factors = np.ones(len(shapes[0]))
    for number in range(1, len(shapes)):
        factors = factors * np.where(np.not_equal(shapes[number - 1], shapes[number]), 2, 1)
        transforms = _transforms(scale * factors, place + (factors - 1) / 2 * scale)
        multiscale["datasets"].append({"path": str(number), "coordinateTransformations": transforms})


def _placed(dataset: Mapping[str, Any]) -> tuple[Floats, Floats]:
    """Scale and translation of a level."""
    scale, place = np.ones(()), np.zeros(())
    for transform in dataset["coordinateTransformations"]:
        if transform["type"] == "scale":
            scale, place = scale * np.array(transform["scale"]), place * np.array(transform["scale"])
        else:
            place = place + np.array(transform["translation"])
    return scale, place


def _transforms(scale: Floats, place: Floats) -> list[dict[str, Any]]:
    return [{"type": "scale", "scale": scale.tolist()}, {"type": "translation", "translation": place.tolist()}]


def copy_labels(source: str, target: Path) -> int:
    """Copy the label images of a source, without loss, as Zarr 3; return how many there are."""
    group: Any = opened(source)
    labels = group["labels"]
    listed = _ome_of(labels.attrs.asdict()).get("labels", [])  # an address cannot be asked what there is
    root = zarr.open_group(target / "labels", mode="w", zarr_format=3)
    root.attrs.put({"ome": {"version": _NGFF, "labels": listed}})
    for name in listed:
        ome = _ome_of(labels[name].attrs.asdict())
        for multiscale in ome.get("multiscales", []):
            multiscale.pop("version", None)
            for dataset in multiscale["datasets"]:
                _copy_array(labels[name][dataset["path"]], root, f"{name}/{dataset['path']}")
        ome.get("image-label", {}).pop("version", None)
        root.require_group(name).attrs.put({"ome": ome | {"version": _NGFF}})
    return len(listed)


def _ome_of(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return copy.deepcopy(dict(attributes.get("ome", attributes)))


def _copy_array(array: Any, root: zarr.Group, path: str) -> None:
    dtype, fill = array.dtype.newbyteorder("="), array.fill_value
    made = root.create_array(path, shape=array.shape, dtype=dtype, chunks=array.chunks, fill_value=fill)
    for block in blocks(array, _COPIED_VOXELS)[0]:
        made[block] = array[block]


__all__ = ["Image", "copy_labels", "of_array", "of_zarr"]

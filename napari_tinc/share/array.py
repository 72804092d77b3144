"""An OME-Zarr of ours as a page: what the page is told of it, for the browser fetches chunks and nothing else."""

from __future__ import annotations

import base64
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from napari_tinc import format as frames
from napari_tinc.arrays.metadata import LEADING, MAX_ITEMS
from napari_tinc.choices import FAMILIES, family_of
from napari_tinc.chunks import codec
from napari_tinc.chunks.view import CompressedArray
from napari_tinc.errors import FormatError, InputError
from napari_tinc.measures.metrics import psnr_from_mse
from napari_tinc.quality import Quality, pack_quality, threshold_code

# As many octants as a file may have.
MOST_CHUNKS = 2**24
# How `napari_tinc.chunks` names chunks, and what a shard ends with.
_KEYS = {"name": "default", "configuration": {"separator": "/"}}
_INDEX = (["bytes", "crc32c"], "end")


@dataclass(frozen=True, slots=True)
class ShareableArray:
    """An OME-Zarr that a page can be made of; `read` checks it.

    Parameters
    ----------
    name : str
        What the page calls it.
    path : Path
        Its folder.
    title : str
        The name of the volume, or that of the folder.
    decoded : bool
        False if its chunks hold networks, which pages do not decode.
    nbytes : int
        Of all its files.
    description : dict
        What the page is told: `ArrayDescription` in ``web/src/viewer/array.ts``.
    """

    name: str
    path: Path
    title: str
    decoded: bool
    nbytes: int
    description: dict[str, Any]

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> ShareableArray:
        """Check an OME-Zarr.

        Raises
        ------
        InputError
            It is not one that napari-tinc has made and finished, or its levels are no halvings of one another.
        FormatError
            It is damaged.
        """
        folder = Path(path).resolve()
        array = CompressedArray.open(folder)
        if array is None:
            raise InputError(
                f"expected a .tinc file or an OME-Zarr of napari-tinc, got {folder.name}; compress it first"
            )
        name = folder.name
        description = _described(array)
        return cls(name, folder, array.metadata.name or name, description["decodable"], array.nbytes, description)


def _described(array: CompressedArray) -> dict[str, Any]:
    """Say of an array what a page needs."""
    axes, shape = array.metadata.axes, array.shape
    items = math.prod(array.leading_shape)
    dtype = f"{array.dtype.kind}{array.dtype.itemsize}"
    if dtype not in frames.DTYPES or items > MAX_ITEMS or items * array.tree.leaves > MOST_CHUNKS:
        raise InputError(
            f"expected at most {MAX_ITEMS} channels and time points and {MOST_CHUNKS} chunks of numbers, got "
            f"{array.dtype} of shape {shape}"
        )
    channels = shape[axes.index("c")] if "c" in axes else 1
    frames.validate_metadata(array.metadata, channels)
    family = _family(array)
    return {
        "axes": axes,
        "shape": shape,
        "dtype": dtype,
        "items": array.value_ranges,
        "decodable": family is None,
        "model": FAMILIES[family].code if family else frames.MODEL_WAVELETS,
        "bytes": array.nbytes,
        "metadata": _base64(frames.pack_metadata(array.metadata, array.provenance)),
        "quality": [_base64(quality) for quality in _qualities(array)],
        "levels": [_level(array, number) for number in range(len(array.levels))],
    }


def _family(array: CompressedArray) -> str | None:
    """Name the networks that chunks hold; None for wavelets."""
    match array.manifest.facts:
        case {"job": {"settings": {"model": str(model)}}}:
            return family_of(model)
    return None


def _qualities(array: CompressedArray) -> list[bytes]:
    """Pack what is known of the chunks of every item as quality segments are."""
    threshold, leaves = float(array.manifest.facts.get("threshold", 0.0)), array.tree.leaves
    packed = []
    for item, (low, high) in enumerate(array.value_ranges):
        chunks = array.octants[item * leaves : (item + 1) * leaves]
        psnr, largest, dice = (np.array([getattr(c, key) for c in chunks]) for key in ("psnr", "max_error", "dice"))
        peak = np.asarray(psnr_from_mse(np.square(largest), high - low))
        packed.append(pack_quality(Quality(threshold_code(threshold, low, high), psnr, peak, dice)))
    return packed


def _level(array: CompressedArray, number: int) -> dict[str, Any]:
    """Say where the chunks of a level are, and which of them have no bytes."""
    level, chunk = array.levels[number], array.manifest.chunks[number]
    axes, shape = array.metadata.axes, tuple(level.shape)
    halvings = _halvings(axes, array.shape, shape)
    nbytes = array.manifest.field("nbytes", number)
    if nbytes.shape != tuple(-(-n // side) for n, side in zip(shape, chunk, strict=True)):
        raise FormatError(f"expected numbers of all chunks of level {number}, got those of {nbytes.shape}: damaged")
    empty = np.packbits(nbytes.ravel() == 0, bitorder="little").tobytes()
    said = {"path": level.basename, "shape": shape, "halvings": halvings, "chunk": chunk, "empty": _base64(empty)}
    inside = _inside(level, chunk, axes)
    return said if inside is None else said | {"inside": inside}


def _halvings(axes: str, finest: Sequence[int], shape: Sequence[int]) -> list[int]:
    """How often every axis of a level was halved, rounded up or down."""
    halvings = []
    for letter, whole, side in zip(axes, finest, shape, strict=True):
        times = range(whole.bit_length() if letter not in LEADING else 1)
        found = [k for k in times if -(-whole // 2**k) == side] or [k for k in times if whole >> k == side]
        if not found:
            raise InputError(
                f"expected levels of half the size each, got {tuple(finest)} and {tuple(shape)}; pages show no others"
            )
        halvings.append(found[0])
    return halvings


def _inside(level: Any, chunk: tuple[int, ...], axes: str) -> list[int] | None:
    """Chunks of a shard along every axis; None where every chunk is a file. Refuse what we do not write."""
    said = level.metadata.to_dict()
    keys, grid, codecs = (said.get(key) for key in ("chunk_key_encoding", "chunk_grid", "codecs"))
    fitting = keys == _KEYS and not level.fill_value
    fitting = fitting and all(side == 1 for letter, side in zip(axes, chunk, strict=True) if letter in LEADING)
    if fitting and len(codecs) == 1:
        file = tuple(grid["configuration"]["chunk_shape"])
        name, configuration = codecs[0]["name"], codecs[0].get("configuration", {})
        if name == codec.NAME and file == chunk:
            return None
        if name == "sharding_indexed" and _names(configuration["codecs"]) == [codec.NAME]:
            index = _names(configuration["index_codecs"]), configuration["index_location"]
            if index == _INDEX and tuple(configuration["chunk_shape"]) == chunk:
                return [int(n // side) for n, side in zip(file, chunk, strict=True)]
    raise FormatError(f"expected chunks as napari-tinc writes them in level {level.basename}, got others")


def _names(codecs: Sequence[Mapping[str, Any]]) -> list[str]:
    return [said["name"] for said in codecs]


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


__all__ = ["MOST_CHUNKS", "ShareableArray"]

"""Zarr arrays for tests, and the frames that they consist of."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from zarr.storage import MemoryStore

from napari_tinc.chunks.codec import TincCodec
from napari_tinc.format import Frame, parse

Array = npt.NDArray[Any]
Box = tuple[slice, ...]


def create(store: Any, array: Array, chunks: tuple[int, ...], codec: TincCodec, **options: Any) -> zarr.Array:
    """Write an array with the codec."""
    made = zarr.create_array(
        store, shape=array.shape, dtype=array.dtype, chunks=chunks, serializer=codec, compressors=None, **options
    )
    made[...] = array
    return made


def boxes(made: zarr.Array) -> Iterator[tuple[str, Box]]:
    """Key and place of every chunk, cut off at the array's end."""
    sides = [range(0, side, chunk) for side, chunk in zip(made.shape, made.chunks, strict=True)]
    for starts in product(*sides):
        numbers = tuple(start // chunk for start, chunk in zip(starts, made.chunks, strict=True))
        ends = [min(a + chunk, side) for a, chunk, side in zip(starts, made.chunks, made.shape, strict=True)]
        box = tuple(slice(a, b) for a, b in zip(starts, ends, strict=True))
        yield made.metadata.encode_chunk_key(numbers), box


def files(folder: Path, made: zarr.Array) -> Iterator[tuple[Path, Box]]:
    """File and place of every chunk of an array in a folder."""
    for key, box in boxes(made):
        yield folder / key, box


def stored(store: MemoryStore, made: zarr.Array) -> Iterator[tuple[Frame, Box]]:
    """Frame and place of every chunk of an array in memory; zarr leaves out what is all fill value."""
    for key, box in boxes(made):
        if key in store._store_dict:
            yield parse(store._store_dict[key].to_bytes()), box


def rmse(original: Array, decoded: Array) -> float:
    """Root mean squared error."""
    return float(np.sqrt(np.square(decoded.astype(float) - original.astype(float)).mean()))

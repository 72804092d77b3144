"""The chunks of an array that others have written with our codec: how many there are, and of what kind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec
from zarr.codecs.sharding import ShardingCodecIndexLocation

from napari_tinc import format as frames
from napari_tinc.chunks.codec import TincCodec
from napari_tinc.errors import FormatError, InputError

_EMPTY = 2**64 - 1
_CHECKSUM = 4


def census(array: zarr.Array[Any], folder: Path) -> dict[str, int] | None:
    """Count the chunks of an array by what their frames are, without decoding voxels.

    Parameters
    ----------
    array : zarr.Array
    folder : Path
        Where it is.

    Returns
    -------
    dict or None
        ``chunks``, of which ``lossy_chunks``, ``constant_chunks``, ``exact_chunks`` and ``empty_chunks``, which are not
        stored; None if its codec is not :class:`napari_tinc.chunks.codec.TincCodec`.

    Raises
    ------
    InputError
        The index of the shards is coded in a way that only zarr knows.
    FormatError
        A shard or a frame is damaged.
    """
    codecs: tuple[Any, ...] = getattr(array.metadata, "codecs", ())  # Zarr 2 has none
    shards = next((codec for codec in codecs if isinstance(codec, ShardingCodec)), None)
    codecs = codecs if shards is None else shards.codecs
    if not any(isinstance(codec, TincCodec) for codec in codecs):
        return None
    models = [frames.parse(chunk).header.model for chunk in _chunks(folder, shards, array.shards, array.chunks)]
    total = int(np.prod([-(-n // side) for n, side in zip(array.shape, array.chunks, strict=True)]))
    exact, constant = (models.count(model) for model in (frames.MODEL_EXACT, frames.MODEL_CONSTANT))
    return {
        "chunks": total,
        "lossy_chunks": len(models) - exact - constant,
        "constant_chunks": constant,
        "exact_chunks": exact,
        "empty_chunks": total - len(models),
    }


def _chunks(
    folder: Path, shards: ShardingCodec | None, shard: tuple[int, ...] | None, chunk: tuple[int, ...]
) -> Iterator[bytes]:
    """Frames of all chunks that are stored."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("zarr.")):
        data = path.read_bytes()
        if shards is None:
            yield data
            continue
        if not _is_plain(shards):
            raise InputError(f"expected an index of little-endian numbers with a checksum in {path}, got another")
        assert shard is not None
        count = int(np.prod([whole // side for whole, side in zip(shard, chunk, strict=True)]))
        size = 16 * count
        start = 0 if shards.index_location is ShardingCodecIndexLocation.start else len(data) - size - _CHECKSUM
        if start < 0 or len(data) < size + _CHECKSUM:
            raise FormatError(f"expected an index of {count} chunks in {path}, got {len(data)} bytes; fetch it again")
        for offset, length in np.frombuffer(data, "<u8", 2 * count, start).reshape(-1, 2).tolist():
            if offset != _EMPTY:
                yield data[offset : offset + length]


def _is_plain(shards: ShardingCodec) -> bool:
    numbers, *others = shards.index_codecs
    little = isinstance(numbers, BytesCodec) and numbers.endian is not None and numbers.endian.value == "little"
    return little and len(others) == 1 and isinstance(others[0], Crc32cCodec)


__all__ = ["census"]

"""The small parts of the frame: varints, scalars and bounded JSON.

The other modules of the package say which part stands where; this one knows nothing of volumes.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping
from typing import Any

from napari_tinc.arrays.metadata import MAX_JSON_BYTES
from napari_tinc.errors import FormatError, TruncatedError

MAX_VARINT_BYTES = 9
REMEDY = "no reader accepts such a frame: get an undamaged copy or compress the volume again"

_U16 = struct.Struct("<H")
_U32 = struct.Struct("<I")
_FLOATS = {"f2": struct.Struct("<e"), "f4": struct.Struct("<f"), "f8": struct.Struct("<d")}
_RAW_DEFLATE = -15


def varint(value: int) -> bytes:
    """Encode 0 <= `value` < 2**63 as unsigned LEB128, 1 to 9 bytes."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def zigzag(value: int) -> bytes:
    """Encode a signed integer as the varint of 0, -1, 1, -2, ... numbered 0, 1, 2, 3, ..."""
    return varint(2 * value if value >= 0 else -2 * value - 1)


def u16(value: int) -> bytes:
    """Encode 0 <= `value` < 2**16 in 2 little-endian bytes."""
    return _U16.pack(value)


def u32(value: int) -> bytes:
    """Encode 0 <= `value` < 2**32 in 4 little-endian bytes."""
    return _U32.pack(value)


def scalar(dtype: str, value: int | float) -> bytes:
    """Encode one voxel value: integers as a zigzag varint, floats as the little-endian bytes of their own width.

    Raises
    ------
    FormatError
        A float cannot be held by `dtype` exactly.
    """
    if dtype[0] != "f":
        return zigzag(int(value))
    codec = _FLOATS[dtype]
    try:
        raw = codec.pack(value)
    except OverflowError:
        raw = b""
    if not raw or codec.unpack(raw)[0] != value:
        raise FormatError(f"value range: expected a value that {dtype} holds exactly, got {value!r}; round it first")
    return raw


def integer(field: str, value: object, low: int, high: int) -> int:
    """Return `value`, or raise `FormatError` unless it is an int from `low` to `high`."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise FormatError(f"{field}: expected an int, got {type(value).__name__}; {REMEDY}")
    if not low <= value <= high:
        raise FormatError(f"{field}: expected {low}..{high}, got {value}; {REMEDY}")
    return value


class Cursor:
    """Reads fields from front to back and never past the end.

    Parameters
    ----------
    data : bytes
        Everything there is to read.
    position : int
        Where the first field starts.
    source : str
        What `data` is, for the text of errors: "the file" or "the header".
    """

    __slots__ = ("data", "position", "source")

    def __init__(self, data: bytes, position: int, source: str) -> None:
        self.data = data
        self.position = position
        self.source = source

    @property
    def remaining(self) -> int:
        """Bytes not read yet."""
        return len(self.data) - self.position

    def take(self, count: int, field: str) -> bytes:
        """Return the next `count` bytes, or raise `FormatError` where fewer are left."""
        if self.position + count > len(self.data):
            raise TruncatedError(
                f"truncated: {self.source} ends inside {field}: expected {count} bytes at offset {self.position}, "
                f"got {self.remaining}; {REMEDY}"
            )
        start, self.position = self.position, self.position + count
        return self.data[start : self.position]

    def u8(self, field: str) -> int:
        """Read one byte."""
        return self.take(1, field)[0]

    def u16(self, field: str) -> int:
        """Read 2 little-endian bytes."""
        return int(_U16.unpack(self.take(2, field))[0])

    def u32(self, field: str) -> int:
        """Read 4 little-endian bytes."""
        return int(_U32.unpack(self.take(4, field))[0])

    def varint(self, field: str) -> int:
        """Read an unsigned LEB128 number; raise `FormatError` unless it is minimal and at most 9 bytes."""
        value = 0
        for index, byte in enumerate(self.data[self.position : self.position + MAX_VARINT_BYTES]):
            value |= (byte & 0x7F) << (7 * index)
            if byte < 0x80:
                if byte == 0 and index > 0:
                    raise FormatError(f"{field}: expected the shortest varint, got {index + 1} bytes; {REMEDY}")
                self.position += index + 1
                return value
        if self.remaining < MAX_VARINT_BYTES:
            self.take(self.remaining + 1, field)  # names what was cut off
        raise FormatError(f"{field}: expected a varint of at most {MAX_VARINT_BYTES} bytes, got more; {REMEDY}")

    def lengths(self, count: int) -> list[int]:
        """Read the lengths of so many streams."""
        # Asked before anything is made for them: a length has a byte at least, and the first stream is not a block's.
        if count - 1 > self.remaining:
            raise TruncatedError(f"expected lengths of {count - 1} blocks, got {self.remaining} bytes: damaged file")
        return [self.varint("the length of a stream") for _ in range(count)]

    def streams(self, count: int) -> tuple[bytes, ...]:
        """Read the lengths of so many streams, then the streams, with which the data ends."""
        streams = tuple(self.take(length, "a stream") for length in self.lengths(count))
        if self.remaining:
            raise FormatError(f"expected {self.source} to end after its streams, got {self.remaining} bytes more")
        return streams

    def zigzag(self, field: str) -> int:
        """Read a signed number."""
        code = self.varint(field)
        return -(code + 1) // 2 if code & 1 else code // 2

    def scalar(self, dtype: str, field: str) -> int | float:
        """Read one voxel value as `scalar` writes it."""
        if dtype[0] != "f":
            return self.zigzag(field)
        codec = _FLOATS[dtype]
        return float(codec.unpack(self.take(codec.size, field))[0])


def deflate_json(fields: Mapping[str, Any]) -> bytes:
    """Encode `fields` as canonical JSON, deflated; nothing at all where there are no fields.

    Raises
    ------
    FormatError
        The JSON is longer than 64 KiB.
    """
    if not fields:
        return b""
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    raw = text.encode("utf-8")
    if len(raw) > MAX_JSON_BYTES:
        raise FormatError(
            f"metadata: expected at most {MAX_JSON_BYTES} bytes of JSON, got {len(raw)}; shorten names or provenance"
        )
    packer = zlib.compressobj(9, zlib.DEFLATED, _RAW_DEFLATE)
    return packer.compress(raw) + packer.flush()


def inflate_json(data: bytes) -> dict[str, Any]:
    """Decode what `deflate_json` wrote, never holding more than 64 KiB of text.

    Raises
    ------
    FormatError
        The stream is damaged, unfinished, followed by something or too long, or it is not a JSON object.
    """
    if not data:
        return {}
    unpacker = zlib.decompressobj(_RAW_DEFLATE)
    try:
        raw = unpacker.decompress(data, MAX_JSON_BYTES + 1)
        if len(raw) > MAX_JSON_BYTES:
            raise FormatError(f"metadata: expected at most {MAX_JSON_BYTES} bytes of JSON, got more; {REMEDY}")
        if not unpacker.eof:
            raise FormatError(f"metadata: expected a whole deflate stream, got one that does not end; {REMEDY}")
        if unpacker.unused_data:
            extra = len(unpacker.unused_data)
            raise FormatError(f"metadata: expected nothing after the deflate stream, got {extra} bytes; {REMEDY}")
        fields = json.loads(raw.decode("utf-8"))
    except FormatError:
        raise
    except (zlib.error, ValueError, RecursionError) as error:
        raise FormatError(f"metadata: expected deflated UTF-8 JSON, got {error}; {REMEDY}") from error
    if not isinstance(fields, dict):
        raise FormatError(f"metadata: expected a JSON object, got {type(fields).__name__}; {REMEDY}")
    return fields

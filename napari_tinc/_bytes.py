"""The small parts of the frame: varints, scalars, bounded JSON, and a file written whole or not at all.

`napari_tinc.format` says which part stands where; this module knows nothing of volumes.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import struct
import zlib
from collections.abc import Mapping
from typing import Any

from napari_tinc.errors import FormatError, InputError

MAX_VARINT_BYTES = 9
MAX_JSON_BYTES = 64 * 1024
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
        if count > self.remaining:
            raise FormatError(
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
        for index in range(MAX_VARINT_BYTES):
            byte = self.u8(field)
            value |= (byte & 0x7F) << (7 * index)
            if byte < 0x80:
                if byte == 0 and index > 0:
                    raise FormatError(f"{field}: expected the shortest varint, got {index + 1} bytes; {REMEDY}")
                return value
        raise FormatError(f"{field}: expected a varint of at most {MAX_VARINT_BYTES} bytes, got more; {REMEDY}")

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


def write_atomic(path: str | os.PathLike[str], data: bytes, overwrite: bool) -> None:
    """Write a file whole or not at all; whatever was there before survives any failure.

    The bytes go to a temporary file in the same folder, reach the disk, and only then take the name.

    Parameters
    ----------
    path : str or PathLike
        The file to write; a symbolic link is followed.
    data : bytes
        All of its content.
    overwrite : bool
        Whether an existing file may be replaced. Without it, a file that appears meanwhile is safe as well.

    Raises
    ------
    InputError
        The file exists and `overwrite` is false, or the operating system refuses to write.
    """
    target = os.path.realpath(path)
    folder = os.path.dirname(target)
    temporary = os.path.join(folder, f".{secrets.token_hex(8)}.tinc-part")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        _publish(temporary, target, overwrite)
    except FileExistsError as error:
        raise InputError(
            f"expected a new file name, got {os.fspath(path)}, which exists; choose another name or replace the file "
            "with --overwrite (in Python: overwrite=True)"
        ) from error
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        remedy = "free some space" if full else "choose a folder that exists and that you may write to"
        raise InputError(f"cannot write {os.fspath(path)}: {error.strerror or error}; {remedy}") from error
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
    _sync_folder(folder)


def _publish(temporary: str, target: str, overwrite: bool) -> None:
    """Give the finished temporary file its name in one step."""
    if overwrite:
        os.replace(temporary, target)
        return
    try:
        os.link(temporary, target)  # unlike a rename, never replaces a file
    except FileExistsError:
        raise
    except OSError:
        # FAT and some network disks know no hard links: reserve the name, then replace one's own empty file.
        with open(target, "xb"):
            pass
        try:
            os.replace(temporary, target)
        except BaseException:
            os.unlink(target)
            raise


def _sync_folder(folder: str) -> None:
    """Make the new name itself survive a power cut, where the operating system can (Windows cannot)."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

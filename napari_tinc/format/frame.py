"""The frame: a header, then segments, each with its own checksum."""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_tinc.errors import FormatError, InputError
from napari_tinc.format.cursor import MAX_VARINT_BYTES, REMEDY, Cursor, integer, u32, varint
from napari_tinc.format.fields import read_header, write_header
from napari_tinc.format.header import Header, validate
from napari_tinc.format.table import Entry, Segment, crc32c, entry_of, read_table, validate_table, write_table

if TYPE_CHECKING:
    from napari_tinc.format.ranged import RangedSegment

MAGIC = b"\x89TNC\r\n\x1a\n"
VERSION = 1
MAX_HEADER_BYTES = 2**24


@dataclass(frozen=True, slots=True)
class Frame:
    """A header and its segments, by kind, level and item; each at most once.

    Some may be :class:`napari_tinc.format.ranged.RangedSegment`, whose payload is read when it is asked for.
    """

    header: Header
    segments: tuple[Segment | RangedSegment, ...]

    def segment(self, kind: int, item: int, level: int) -> Segment | RangedSegment | None:
        """Return one segment, `None` where the frame has no such segment."""
        wanted = (kind, level, item)
        index = bisect_left(self.segments, wanted, key=lambda segment: segment.order)
        if index == len(self.segments) or self.segments[index].order != wanted:
            return None
        return self.segments[index]

    def get(self, kind: int, item: int, level: int) -> bytes | None:
        """Return the payload of one segment, `None` where the frame has no such segment."""
        segment = self.segment(kind, item, level)
        return None if segment is None else segment.payload

    def find(self, kind: int, item: int, level: int) -> bytes:
        """Return the payload of one segment, or raise `FormatError` where the frame has no such segment."""
        payload = self.get(kind, item, level)
        if payload is None:
            raise FormatError(f"expected a segment of kind {kind}, item {item}, level {level}, got none; {REMEDY}")
        return payload


@dataclass(frozen=True, slots=True)
class SegmentReport:
    """Whether one part of a file is intact; `offset` and `length` are in bytes, as the file promises them."""

    name: str
    offset: int
    length: int
    ok: bool


def pack(frame: Frame) -> bytes:
    """Return the bytes of a frame; the same frame always gives the same bytes.

    Raises
    ------
    FormatError
        The frame is not one that `parse` would accept.
    """
    validate(frame.header)
    entries = [entry_of(segment) for segment in frame.segments]
    validate_table(frame.header, entries)
    header = write_header(frame.header) + write_table(entries)
    if len(header) > MAX_HEADER_BYTES:
        raise FormatError(f"header: expected at most {MAX_HEADER_BYTES} bytes, got {len(header)}; use a smaller plan")
    head = MAGIC + bytes([VERSION]) + varint(len(header)) + header
    return b"".join([head, u32(crc32c(head)), *(segment.payload for segment in frame.segments)])


def packed_size(header: Header, segments: Sequence[tuple[int, int, int, int]]) -> int:
    """Return the size of a frame in bytes from the sizes of its segments: (kind, level, item, bytes), in order."""
    entries = [Entry(kind, level, item, length, 0) for kind, level, item, length in segments]
    head = len(write_header(header)) + len(write_table(entries))
    return len(MAGIC) + 1 + len(varint(head)) + head + 4 + sum(entry.length for entry in entries)


def parse(data: bytes | memoryview) -> Frame:
    """Read and check all of a frame.

    Parameters
    ----------
    data : bytes or contiguous memoryview
        The whole file.

    Returns
    -------
    Frame
        It holds copies and keeps no reference to `data`.

    Raises
    ------
    FormatError
        Anything at all is wrong with the bytes; a damaged segment is named with its offset.
    """
    view = memoryview(data).cast("B")
    header, entries, offset = read_head(view)
    surplus = len(view) - offset - sum(entry.length for entry in entries)
    if surplus < 0:
        raise FormatError(
            f"truncated: expected {len(view) - surplus} bytes, got {len(view)}: {-surplus} are missing; "
            "fetch it again, or take what it holds with partial=True or --partial"
        )
    if surplus > 0:
        raise FormatError(
            f"trailing bytes: expected {len(view) - surplus} bytes, got {surplus} more; {REMEDY}, or cut them off"
        )
    segments = []
    for entry in entries:
        payload = bytes(view[offset : offset + entry.length])
        if crc32c(payload) != entry.crc:
            raise FormatError(
                f"damaged segment ({entry.name}, offset {offset}): expected CRC-32C {entry.crc:08x}, "
                f"got {crc32c(payload):08x}; get an undamaged copy or compress the volume again"
            )
        segments.append(Segment(entry.kind, entry.item, entry.level, payload))
        offset += entry.length
    return Frame(header, tuple(segments))


def check(data: bytes | memoryview) -> tuple[SegmentReport, ...]:
    """Report which parts of a file are intact, the header first.

    Segments that are damaged or cut off are reported with ``ok=False``, and so are bytes after the last segment.

    Raises
    ------
    FormatError
        The header is damaged, so that nothing is known about the rest.
    """
    view = memoryview(data).cast("B")
    _, entries, offset = read_head(view)
    reports = [SegmentReport("header", 0, offset, True)]
    for entry in entries:
        # Asked first: the slice of a cut segment is shorter than promised, and may by chance match its checksum.
        whole = offset + entry.length <= len(view)
        ok = whole and crc32c(bytes(view[offset : offset + entry.length])) == entry.crc
        reports.append(SegmentReport(entry.name, offset, entry.length, ok))
        offset += entry.length
    if offset < len(view):
        reports.append(SegmentReport("trailing bytes", offset, len(view) - offset, False))
    return tuple(reports)


def head_size(data: bytes) -> int:
    """Bytes before the first segment, from the first bytes of a file; the checksum of the head is among them."""
    return sum(_head_of(data[: len(MAGIC) + 1 + MAX_VARINT_BYTES])) + 4


def _head_of(head: bytes) -> tuple[int, int]:
    """Where the header begins, and its length."""
    _check_magic(head)
    cursor = Cursor(head, len(MAGIC), "the file")
    version = cursor.u8("the version")
    if version != VERSION:
        raise FormatError(f"expected format version {VERSION}, got version {version}; update napari-tinc to read it")
    length = integer("header length", cursor.varint("the header length"), 0, MAX_HEADER_BYTES)
    return cursor.position, length


def read_head(view: memoryview) -> tuple[Header, list[Entry], int]:
    """Return the header, the segment table, and the offset of the first segment."""
    start, length = _head_of(bytes(view[: len(MAGIC) + 1 + MAX_VARINT_BYTES]))
    end = start + length
    if len(view) < end + 4:
        missing = end + 4 - len(view)
        raise FormatError(
            f"truncated: expected a header of {end + 4} bytes, got {len(view)}: {missing} are missing; fetch it again"
        )
    cursor = Cursor(bytes(view[:end]), start, "the header")
    promised = int.from_bytes(view[end : end + 4], "little")
    if crc32c(cursor.data) != promised:
        raise FormatError(
            f"damaged header: expected CRC-32C {promised:08x}, got {crc32c(cursor.data):08x}; get an undamaged copy"
        )
    header = read_header(cursor)
    entries = read_table(cursor)
    if cursor.remaining:
        raise FormatError(f"header: expected its end, got {cursor.remaining} more bytes; {REMEDY}")
    validate_table(header, entries)
    return header, entries, end + 4


def read(path: str | os.PathLike[str]) -> bytes:
    """Read the bytes of a ``.tinc`` file; of anything else only the first few.

    Raises
    ------
    InputError
        The file cannot be read.
    FormatError
        It does not begin like a frame: a device, or a pipe, may have no end.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(len(MAGIC))
            _check_magic(head + b"\0")
            return head + file.read()
    except FormatError:
        raise
    except (OSError, ValueError) as error:  # a name with NUL is a ValueError
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"expected a readable .tinc file, got {os.fspath(path)}: {reason}; check the path") from error


def _check_magic(head: bytes) -> None:
    if head[: len(MAGIC)] == MAGIC:
        return
    if MAGIC.startswith(head):
        raise FormatError(f"truncated: expected a .tinc file, got only {len(head)} bytes; fetch it again")
    # Line ends, the eighth bit or a re-encoding spoil other bytes of the magic than these three letters.
    if b"TNC" in head[:6]:
        raise FormatError(
            f"expected the .tinc signature {MAGIC.hex(' ')}, got {head[: len(MAGIC)].hex(' ')}: the file was sent or "
            "stored as text; fetch it again in binary mode"
        )
    raise FormatError(
        f"not a .tinc file: expected it to start with {MAGIC.hex(' ')}, got {head[: len(MAGIC)].hex(' ')}; "
        "choose a file made by napari-tinc"
    )

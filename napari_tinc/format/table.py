"""The segments and the table that lists them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import google_crc32c

from napari_tinc.errors import FormatError
from napari_tinc.format.cursor import REMEDY, Cursor, integer, u32, varint
from napari_tinc.format.header import MODEL_CONSTANT, MODEL_EXACT, MODEL_PREDICTIVE, MODEL_WAVELETS, Header

if TYPE_CHECKING:
    from napari_tinc.format.ranged import RangedSegment

KIND_QUALITY, KIND_PARAMETERS, KIND_WAVELETS, KIND_RESTORATION, KIND_MASK, KIND_EXACT = 0, 1, 2, 3, 4, 5
KIND_DIRECTIONAL = 6
KIND_PREDICTED, KIND_CORRECTIONS = 7, 8
KIND_POSTFILTER = 9
KIND_NAMES = {
    KIND_QUALITY: "octant quality",
    KIND_PARAMETERS: "parameters",
    KIND_WAVELETS: "wavelets",
    KIND_RESTORATION: "restoration",
    KIND_MASK: "mask",
    KIND_EXACT: "exact voxels",
    KIND_DIRECTIONAL: "directions",
    KIND_PREDICTED: "predicted voxels",
    KIND_CORRECTIONS: "corrections",
    KIND_POSTFILTER: "post-filter",
}
MAX_SEGMENTS = 2**20
_KINDS_OF_MODEL = {
    MODEL_CONSTANT: (KIND_QUALITY,),
    MODEL_WAVELETS: (
        KIND_QUALITY,
        KIND_WAVELETS,
        KIND_RESTORATION,
        KIND_MASK,
        KIND_DIRECTIONAL,
        KIND_CORRECTIONS,
        KIND_POSTFILTER,
    ),
    MODEL_EXACT: (KIND_EXACT,),
    MODEL_PREDICTIVE: (KIND_QUALITY, KIND_PREDICTED),
}
_KINDS_OF_FAMILIES = (KIND_QUALITY, KIND_PARAMETERS, KIND_WAVELETS, KIND_RESTORATION, KIND_MASK, KIND_POSTFILTER)


@dataclass(frozen=True, slots=True)
class Segment:
    """One checksummed part of a frame: `KIND_PARAMETERS` of an item's level, or another kind (always level 0)."""

    kind: int
    item: int
    level: int
    payload: bytes

    @property
    def order(self) -> tuple[int, int, int]:
        """Sort key: what a reader wants first stands first."""
        return self.kind, self.level, self.item


class Entry(NamedTuple):
    """One row of the segment table; the fields are in the order that sorts the rows."""

    kind: int
    level: int
    item: int
    length: int
    crc: int

    @property
    def name(self) -> str:
        """What the segment is, for the text of errors."""
        level = f", level {self.level}" if self.kind == KIND_PARAMETERS else ""
        return f"{KIND_NAMES[self.kind]}, item {self.item}{level}"


def entry_of(segment: Segment | RangedSegment) -> Entry:
    """Describe a segment in the table."""
    return Entry(segment.kind, segment.level, segment.item, len(segment.payload), crc32c(segment.payload))


def crc32c(data: bytes) -> int:
    """Return the CRC-32C of RFC 3720."""
    return int(google_crc32c.value(data))


def read_table(cursor: Cursor) -> list[Entry]:
    """Read the table; its values are still unchecked."""
    count = integer("number of segments", cursor.varint("the number of segments"), 0, MAX_SEGMENTS)
    return [_read_entry(cursor) for _ in range(count)]


def _read_entry(cursor: Cursor) -> Entry:
    kind, item = cursor.u8("the kind of a segment"), cursor.varint("the segment table")
    level, length = cursor.varint("the segment table"), cursor.varint("the segment table")
    return Entry(kind, level, item, length, cursor.u32("the checksum of a segment"))


def write_table(entries: Sequence[Entry]) -> bytes:
    """Write a table that is known to be valid."""
    parts = [varint(len(entries))]
    for entry in entries:
        parts += [bytes([entry.kind]), varint(entry.item), varint(entry.level), varint(entry.length), u32(entry.crc)]
    return b"".join(parts)


def validate_table(header: Header, entries: Sequence[Entry]) -> None:
    """Raise `FormatError` unless the rows are in order and belong to the header."""
    integer("number of segments", len(entries), 0, MAX_SEGMENTS)
    before = None
    for entry in entries:
        if entry.kind not in KIND_NAMES:
            known = ", ".join(map(str, KIND_NAMES))
            raise FormatError(
                f"kind of a segment: expected one of {known}, got {entry.kind}; update napari-tinc to read it"
            )
        integer("item of a segment", entry.item, 0, len(header.items) - 1)
        deepest = len(header.splits) if entry.kind == KIND_PARAMETERS else 0
        integer("level of a segment", entry.level, 0, deepest)
        if entry.kind not in _KINDS_OF_MODEL.get(header.model, _KINDS_OF_FAMILIES):
            raise FormatError(f"model {header.model}: expected no {KIND_NAMES[entry.kind]}, got a segment; {REMEDY}")
        if before is not None and before[:3] >= entry[:3]:
            raise FormatError(
                f"segment table: expected segments by kind, then by level, then by item, each once, got "
                f"({before.name}) before ({entry.name}); {REMEDY}"
            )
        before = entry

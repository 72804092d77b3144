"""The frame: the bytes of one compressed volume, specified in ``docs/format.md``.

A frame is a header that describes itself, followed by segments; each has its own CRC-32C. A ``.tinc`` file and a zarr
chunk are both exactly one frame. `parse` trusts nothing: it checks every number before it uses it, holds no more
memory than a small multiple of the bytes it was given, and raises `FormatError` for whatever is wrong.
"""

from __future__ import annotations

import math
import sys
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from reprlib import repr as shortened
from typing import Any, NamedTuple

import google_crc32c

from napari_tinc._bytes import (
    MAX_VARINT_BYTES,
    REMEDY,
    Cursor,
    deflate_json,
    inflate_json,
    scalar,
    u16,
    u32,
    varint,
    write_atomic,
)
from napari_tinc.core.metadata import LEADING, SPATIAL, Metadata
from napari_tinc.errors import FormatError

__all__ = [
    "DTYPES",
    "KIND_PARAMETERS",
    "KIND_QUALITY",
    "MAGIC",
    "MODEL_CONSTANT",
    "MODEL_TINC",
    "VERSION",
    "Frame",
    "Header",
    "ItemRange",
    "Segment",
    "SegmentReport",
    "check",
    "pack",
    "parse",
    "write_atomic",
]

MAGIC = b"\x89TNC\r\n\x1a\n"
VERSION = 1
DTYPES = ("u1", "i1", "u2", "i2", "u4", "i4", "f2", "f4", "f8")  # dtype code 1, 2, ...
MODEL_CONSTANT, MODEL_TINC = 0, 1
KIND_QUALITY, KIND_PARAMETERS = 0, 1
KIND_NAMES = ("octant quality", "parameters")

MAX_HEADER_BYTES = 2**24
MAX_SIZE = 2**31 - 1
MAX_VOXELS = 2**48
MAX_ITEMS = 2**16
MAX_LEVELS = 16
MAX_LEAVES = 2**24
MAX_SEGMENTS = 2**20


@dataclass(frozen=True, slots=True)
class ItemRange:
    """Value range of one item, and the normalisation of its model: value = offset + scale * f(x).

    Parameters
    ----------
    minimum, maximum : int or float
        Smallest and largest voxel of the original, in its dtype; finite.
    offset_code : int
        0..65535; offset = minimum + offset_code / 65535 * (maximum - minimum).
    scale_code : int
        0..255; scale = (maximum - minimum) * 2 ** (-scale_code / 16).
    """

    minimum: int | float
    maximum: int | float
    offset_code: int
    scale_code: int


@dataclass(frozen=True, slots=True)
class Header:
    """Everything about a compressed volume except its parameters.

    Parameters
    ----------
    shape : tuple of int
        Voxels along every axis of the array.
    dtype : str
        One of `DTYPES`: kind and bytes per voxel.
    metadata : Metadata
        Axes, voxel size, units and names.
    items : tuple of ItemRange
        One per (t, c) position, row-major in the array's axis order; a single one without such axes.
    splits : tuple of tuple of bool
        One per level below the root, and in it one per spatial axis: whether that level halves the axis.
    model : int
        `MODEL_CONSTANT` or `MODEL_TINC`.
    plan : bytes
        How the model's parameters are laid out; only the model family can tell whether it is valid.
    between, within : int
        0..15; how the budget was spread between levels and within a level.
    provenance : Mapping of str to str, int, float or bool
        How the file was made.
    """

    shape: tuple[int, ...]
    dtype: str
    metadata: Metadata
    items: tuple[ItemRange, ...]
    splits: tuple[tuple[bool, ...], ...]
    model: int
    plan: bytes
    between: int
    within: int
    provenance: Mapping[str, str | int | float | bool]

    @property
    def spatial_axes(self) -> str:
        """The z, y and x letters, in the array's order."""
        return "".join(axis for axis in self.metadata.axes if axis in SPATIAL)

    @property
    def spatial_shape(self) -> tuple[int, ...]:
        """Voxels along every spatial axis, in the array's order."""
        return _sizes(self.metadata.axes, self.shape, SPATIAL)

    @property
    def leading_shape(self) -> tuple[int, ...]:
        """Sizes of the t and c axes, in the array's order; their product is the number of items."""
        return _sizes(self.metadata.axes, self.shape, LEADING)

    @property
    def raw_nbytes(self) -> int:
        """Bytes of the uncompressed array."""
        return math.prod(self.shape) * int(self.dtype[1])


@dataclass(frozen=True, slots=True)
class Segment:
    """One checksummed part of a frame: `KIND_QUALITY` (always level 0) or `KIND_PARAMETERS` of an item's level."""

    kind: int
    item: int
    level: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Frame:
    """A header and its segments: quality by item, then parameters by (level, item), each at most once."""

    header: Header
    segments: tuple[Segment, ...]

    def find(self, kind: int, item: int, level: int) -> bytes:
        """Return the payload of one segment, or raise `FormatError` where the frame has no such segment."""
        wanted = (kind, level, item)
        index = bisect_left(self.segments, wanted, key=_order)
        if index == len(self.segments) or _order(self.segments[index]) != wanted:
            raise FormatError(f"expected a segment of kind {kind}, item {item}, level {level}, got none; {REMEDY}")
        return self.segments[index].payload


@dataclass(frozen=True, slots=True)
class SegmentReport:
    """Whether one part of a file is intact; `offset` and `length` are in bytes, as the file promises them."""

    name: str
    offset: int
    length: int
    ok: bool


class _Entry(NamedTuple):
    """One row of the segment table."""

    kind: int
    item: int
    level: int
    length: int
    crc: int

    @property
    def name(self) -> str:
        level = f", level {self.level}" if self.kind == KIND_PARAMETERS else ""
        return f"{KIND_NAMES[self.kind]}, item {self.item}{level}"


def pack(frame: Frame) -> bytes:
    """Return the bytes of a frame; the same frame always gives the same bytes.

    Raises
    ------
    FormatError
        The frame is not one that `parse` would accept.
    """
    _validate(frame.header)
    entries = [_entry(segment) for segment in frame.segments]
    _validate_table(frame.header, entries)
    header = _write_header(frame.header) + _write_table(entries)
    if len(header) > MAX_HEADER_BYTES:
        raise FormatError(f"header: expected at most {MAX_HEADER_BYTES} bytes, got {len(header)}; use a smaller plan")
    head = MAGIC + bytes([VERSION]) + varint(len(header)) + header
    return b"".join([head, u32(_crc(head)), *(segment.payload for segment in frame.segments)])


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
    header, entries, offset = _read_head(view)
    surplus = len(view) - offset - sum(entry.length for entry in entries)
    if surplus < 0:
        raise FormatError(
            f"truncated: expected {len(view) - surplus} bytes, got {len(view)}: {-surplus} are missing; fetch it again"
        )
    if surplus > 0:
        raise FormatError(
            f"trailing bytes: expected {len(view) - surplus} bytes, got {surplus} more; {REMEDY}, or cut them off"
        )
    segments = []
    for entry in entries:
        payload = bytes(view[offset : offset + entry.length])
        if _crc(payload) != entry.crc:
            raise FormatError(
                f"damaged segment ({entry.name}, offset {offset}): expected CRC-32C {entry.crc:08x}, "
                f"got {_crc(payload):08x}; get an undamaged copy or compress the volume again"
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
    _, entries, offset = _read_head(view)
    reports = [SegmentReport("header", 0, offset, True)]
    for entry in entries:
        # Asked first: the slice of a cut segment is shorter than promised, and may by chance match its checksum.
        whole = offset + entry.length <= len(view)
        ok = whole and _crc(bytes(view[offset : offset + entry.length])) == entry.crc
        reports.append(SegmentReport(entry.name, offset, entry.length, ok))
        offset += entry.length
    if offset < len(view):
        reports.append(SegmentReport("trailing bytes", offset, len(view) - offset, False))
    return tuple(reports)


def _crc(data: bytes) -> int:
    return int(google_crc32c.value(data))


def _sizes(axes: str, shape: tuple[int, ...], letters: str) -> tuple[int, ...]:
    return tuple(size for axis, size in zip(axes, shape, strict=True) if axis in letters)


def _order(part: Segment | _Entry) -> tuple[int, int, int]:
    """Sort key of segments: what a reader wants first stands first."""
    return part.kind, part.level, part.item


def _entry(segment: Segment) -> _Entry:
    return _Entry(segment.kind, segment.item, segment.level, len(segment.payload), _crc(segment.payload))


# --- reading ---------------------------------------------------------------------------------------------------------


def _read_head(view: memoryview) -> tuple[Header, list[_Entry], int]:
    """Return the header, the segment table, and the offset of the first segment."""
    head = bytes(view[: len(MAGIC) + 1 + MAX_VARINT_BYTES])
    _check_magic(head)
    cursor = Cursor(head, len(MAGIC), "the file")
    version = cursor.u8("the version")
    if version != VERSION:
        raise FormatError(f"expected format version {VERSION}, got version {version}; update napari-tinc to read it")
    length = _integer("header length", cursor.varint("the header length"), 0, MAX_HEADER_BYTES)
    end = cursor.position + length
    if len(view) < end + 4:
        missing = end + 4 - len(view)
        raise FormatError(
            f"truncated: expected a header of {end + 4} bytes, got {len(view)}: {missing} are missing; fetch it again"
        )
    cursor = Cursor(bytes(view[:end]), cursor.position, "the header")
    promised = int.from_bytes(view[end : end + 4], "little")
    if _crc(cursor.data) != promised:
        raise FormatError(
            f"damaged header: expected CRC-32C {promised:08x}, got {_crc(cursor.data):08x}; get an undamaged copy"
        )
    header = _read_header(cursor)
    count = _integer("number of segments", cursor.varint("the number of segments"), 0, MAX_SEGMENTS)
    entries = [_read_entry(cursor) for _ in range(count)]
    if cursor.remaining:
        raise FormatError(f"header: expected its end, got {cursor.remaining} more bytes; {REMEDY}")
    _validate_table(header, entries)
    return header, entries, end + 4


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


def _read_header(cursor: Cursor) -> Header:
    """Read and check everything up to the segment table."""
    dtype = DTYPES[_integer("dtype code", cursor.u8("the dtype"), 1, len(DTYPES)) - 1]
    ndim = _integer("number of axes", cursor.u8("the number of axes"), 2, 5)
    axes = cursor.take(ndim, "the axes").decode("latin-1")
    shape = tuple(cursor.varint("the shape") for _ in range(ndim))
    _validate_array(dtype, axes, shape)
    items = tuple(_read_item(cursor, dtype) for _ in range(math.prod(_sizes(axes, shape, LEADING))))
    splits = _read_splits(cursor, len(_sizes(axes, shape, SPATIAL)))
    model = cursor.u8("the model")
    plan = cursor.take(cursor.varint("the plan length"), "the plan")
    between, within = divmod(cursor.u8("the strategy"), 16)
    fields = inflate_json(cursor.take(cursor.varint("the metadata length"), "the metadata"))
    metadata, provenance = _metadata_of(fields, axes)
    header = Header(shape, dtype, metadata, items, splits, model, plan, between, within, provenance)
    _validate(header)
    sizes = tuple(float(size) for size in metadata.voxel_size)  # JSON may hold 1 for 1.0
    return replace(header, metadata=replace(metadata, voxel_size=sizes))


def _read_item(cursor: Cursor, dtype: str) -> ItemRange:
    minimum, maximum = (cursor.scalar(dtype, "the value range") for _ in range(2))
    return ItemRange(minimum, maximum, cursor.u16("the offset code"), cursor.u8("the scale code"))


def _read_splits(cursor: Cursor, axes: int) -> tuple[tuple[bool, ...], ...]:
    splits = []
    for _ in range(_integer("levels below the root", cursor.u8("the number of levels"), 0, MAX_LEVELS)):
        bits = _integer("split axes of a level", cursor.u8("the splits"), 1, 2**axes - 1)
        splits.append(tuple(bool(bits >> axis & 1) for axis in range(axes)))
    return tuple(splits)


def _metadata_of(fields: Mapping[str, Any], axes: str) -> tuple[Metadata, dict[str, Any]]:
    """Build the metadata, its values still unchecked; keys of later versions are passed over."""
    default = Metadata.default(len(axes))
    voxel_size = _array("voxel_size", fields.get("voxel_size", list(default.voxel_size)))
    units = _array("units", fields.get("units", list(default.units)))
    channel_names = _array("channel_names", fields.get("channel_names", []))
    metadata = Metadata(axes, voxel_size, units, channel_names, fields.get("name", ""))
    return metadata, fields.get("provenance", {})


def _array(key: str, value: object) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise FormatError(f"metadata {key}: expected a list, got {type(value).__name__}; {REMEDY}")
    return tuple(value)


def _read_entry(cursor: Cursor) -> _Entry:
    kind = cursor.u8("the kind of a segment")
    item, level, length = (cursor.varint("the segment table") for _ in range(3))
    return _Entry(kind, item, level, length, cursor.u32("the checksum of a segment"))


# --- writing a header that is known to be valid ----------------------------------------------------------------------


def _write_header(header: Header) -> bytes:
    axes = header.metadata.axes
    parts = [bytes([DTYPES.index(header.dtype) + 1, len(axes)]), axes.encode("ascii")]
    parts += [varint(size) for size in header.shape]
    for item in header.items:
        parts += [scalar(header.dtype, item.minimum), scalar(header.dtype, item.maximum)]
        parts += [u16(item.offset_code), bytes([item.scale_code])]
    masks = [sum(split << axis for axis, split in enumerate(level)) for level in header.splits]
    parts += [bytes([len(masks), *masks]), bytes([header.model]), varint(len(header.plan)), header.plan]
    extra = deflate_json(_fields_of(header))
    parts += [bytes([header.between << 4 | header.within]), varint(len(extra)), extra]
    return b"".join(parts)


def _fields_of(header: Header) -> dict[str, Any]:
    """Return what is not the default: a budget may be 512 bytes for the whole file."""
    metadata, default = header.metadata, Metadata.default(len(header.shape))
    fields = {
        "voxel_size": [] if metadata.voxel_size == default.voxel_size else [float(v) for v in metadata.voxel_size],
        "units": [] if metadata.units == default.units else list(metadata.units),
        "channel_names": list(metadata.channel_names),
        "name": metadata.name,
        "provenance": dict(header.provenance),
    }
    return {key: value for key, value in fields.items() if value}


def _write_table(entries: Sequence[_Entry]) -> bytes:
    parts = [varint(len(entries))]
    for entry in entries:
        parts += [bytes([entry.kind]), varint(entry.item), varint(entry.level), varint(entry.length), u32(entry.crc)]
    return b"".join(parts)


# --- what makes a header valid, asked before writing and after reading alike -----------------------------------------


def _integer(field: str, value: object, low: int, high: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise FormatError(f"{field}: expected an int, got {type(value).__name__}; {REMEDY}")
    if not low <= value <= high:
        raise FormatError(f"{field}: expected {low}..{high}, got {value}; {REMEDY}")
    return value


def _validate(header: Header) -> None:
    """Check everything but the segments; raise `FormatError` for the first thing that is wrong."""
    _validate_array(header.dtype, header.metadata.axes, header.shape)
    items = math.prod(header.leading_shape)
    if len(header.items) != items:
        raise FormatError(f"value ranges: expected {items}, one per item, got {len(header.items)}; {REMEDY}")
    for item in header.items:
        _validate_item(item, header.dtype)
    _validate_splits(header)
    if header.model not in (MODEL_CONSTANT, MODEL_TINC):
        raise FormatError(
            f"model: expected 0 (constant) or 1 (tinc), got {header.model}; update napari-tinc to read it"
        )
    if header.model == MODEL_CONSTANT and any(item.minimum != item.maximum for item in header.items):
        raise FormatError(f"model 0 (constant): expected minimum = maximum in every item, got a range; {REMEDY}")
    _integer("between-levels strategy", header.between, 0, 15)
    _integer("within-level strategy", header.within, 0, 15)
    _validate_metadata(header.metadata, dict(zip(header.metadata.axes, header.shape, strict=True)).get("c", 1))
    _validate_provenance(header.provenance)


def _validate_array(dtype: str, axes: str, shape: tuple[int, ...]) -> None:
    if dtype not in DTYPES:
        raise FormatError(f"dtype: expected one of {', '.join(DTYPES)}, got {dtype!r}; convert the volume")
    _integer("number of axes", len(axes), 2, 5)
    if len(set(axes)) != len(axes) or not set("yx") <= set(axes) <= set(LEADING + SPATIAL):
        raise FormatError(f"axes: expected y, x and others of t, c, z, each once, got {axes!r}; {REMEDY}")
    if len(shape) != len(axes):
        raise FormatError(f"shape: expected {len(axes)} sizes for axes {axes!r}, got {len(shape)}; {REMEDY}")
    for size in shape:
        _integer("shape", size, 1, MAX_SIZE)
    _integer("number of voxels", math.prod(shape), 1, MAX_VOXELS)
    _integer("number of items (t x c)", math.prod(_sizes(axes, shape, LEADING)), 1, MAX_ITEMS)


def _validate_item(item: ItemRange, dtype: str) -> None:
    for value in (item.minimum, item.maximum):
        if dtype[0] == "f":
            if not isinstance(value, float) or not math.isfinite(value):
                raise FormatError(f"value range: expected finite floats for {dtype}, got {value!r}; {REMEDY}")
        else:
            bits = 8 * int(dtype[1])
            low = -(2 ** (bits - 1)) if dtype[0] == "i" else 0
            _integer(f"value range of {dtype}", value, low, low + 2**bits - 1)
    if item.minimum > item.maximum:
        raise FormatError(
            f"value range: expected minimum <= maximum, got {item.minimum!r} and {item.maximum!r}; {REMEDY}"
        )
    _integer("offset code", item.offset_code, 0, 2**16 - 1)
    _integer("scale code", item.scale_code, 0, 2**8 - 1)


def _validate_splits(header: Header) -> None:
    _integer("levels below the root", len(header.splits), 0, MAX_LEVELS)
    for level in header.splits:
        if len(level) != len(header.spatial_axes) or not any(level):
            raise FormatError(
                f"splits: expected a flag for each of {header.spatial_axes!r}, at least one set, got {level}; {REMEDY}"
            )
    for index, size in enumerate(header.spatial_shape):
        parts = 2 ** sum(level[index] for level in header.splits)
        if parts > size:
            axis = header.spatial_axes[index]
            raise FormatError(f"splits: expected at most {size} parts along {axis}, got {parts}; {REMEDY}")
    leaves = len(header.items) * 2 ** sum(sum(level) for level in header.splits)
    _integer("number of leaves in all items", leaves, 1, MAX_LEAVES)


def _validate_metadata(metadata: Metadata, channels: int) -> None:
    ndim = len(metadata.axes)
    if len(metadata.voxel_size) != ndim:
        raise FormatError(f"metadata voxel_size: expected {ndim} numbers, got {len(metadata.voxel_size)}; {REMEDY}")
    for axis, size in zip(metadata.axes, metadata.voxel_size, strict=True):
        if not _is_positive(size):
            raise FormatError(
                f"metadata voxel_size of {axis}: expected a finite positive number, got {shortened(size)}; {REMEDY}"
            )
    if len(metadata.units) != ndim:
        raise FormatError(f"metadata units: expected {ndim}, got {len(metadata.units)}; {REMEDY}")
    if len(metadata.channel_names) not in (0, channels):
        raise FormatError(
            f"metadata channel_names: expected none or {channels}, got {len(metadata.channel_names)}; {REMEDY}"
        )
    for text in (*metadata.units, *metadata.channel_names, metadata.name):
        _validate_text(text)


def _is_positive(value: object) -> bool:
    # The comparison also keeps out NaN, infinity, and integers that no float can hold.
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= sys.float_info.max


def _validate_text(value: object) -> None:
    if not isinstance(value, str):
        raise FormatError(f"metadata: expected text, got {type(value).__name__}; {REMEDY}")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:  # JSON can spell half a surrogate pair, which no terminal can show
        raise FormatError(f"metadata: expected Unicode text, got {shortened(value)}; {REMEDY}") from error


def _validate_provenance(provenance: object) -> None:
    if not isinstance(provenance, Mapping):
        raise FormatError(f"metadata provenance: expected an object, got {type(provenance).__name__}; {REMEDY}")
    for key, value in provenance.items():
        _validate_text(key)
        if isinstance(value, str):
            _validate_text(value)
        elif not isinstance(value, bool | int | float):
            raise FormatError(
                f"metadata provenance {shortened(key)}: expected a str, int, float or bool, "
                f"got {type(value).__name__}; {REMEDY}"
            )
        elif not -sys.float_info.max <= value <= sys.float_info.max:
            raise FormatError(
                f"metadata provenance {shortened(key)}: expected a finite number, got one beyond 1.8e308; {REMEDY}"
            )


def _validate_table(header: Header, entries: Sequence[_Entry]) -> None:
    _integer("number of segments", len(entries), 0, MAX_SEGMENTS)
    for entry in entries:
        _integer("kind of a segment", entry.kind, KIND_QUALITY, KIND_PARAMETERS)
        _integer("item of a segment", entry.item, 0, len(header.items) - 1)
        deepest = len(header.splits) if entry.kind == KIND_PARAMETERS else 0
        _integer(f"level of a segment ({entry.name})", entry.level, 0, deepest)
        if header.model == MODEL_CONSTANT and entry.kind == KIND_PARAMETERS:
            raise FormatError(f"model 0 (constant): expected no parameters, got a segment ({entry.name}); {REMEDY}")
    for before, after in pairwise(entries):
        if _order(before) >= _order(after):
            raise FormatError(
                f"segment table: expected quality by item, then parameters by level and item, each once, "
                f"got ({before.name}) before ({after.name}); {REMEDY}"
            )

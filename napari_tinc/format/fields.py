"""The header's bytes, field by field, in the order of ``docs/format.md``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from napari_tinc.arrays.metadata import LEADING, SPATIAL, Display, Metadata
from napari_tinc.errors import FormatError
from napari_tinc.format.cursor import REMEDY, Cursor, deflate_json, inflate_json, integer, scalar, u16, varint
from napari_tinc.format.header import DTYPES, MAX_LEVELS, Header, ItemRange, sizes_of, validate, validate_array


def read_header(cursor: Cursor) -> Header:
    """Read and check everything up to the segment table."""
    dtype = DTYPES[integer("dtype code", cursor.u8("the dtype"), 1, len(DTYPES)) - 1]
    ndim = integer("number of axes", cursor.u8("the number of axes"), 2, 5)
    axes = cursor.take(ndim, "the axes").decode("latin-1")
    shape = tuple(cursor.varint("the shape") for _ in range(ndim))
    validate_array(dtype, axes, shape)
    items = tuple(_read_item(cursor, dtype) for _ in range(math.prod(sizes_of(axes, shape, LEADING))))
    splits = _read_splits(cursor, len(sizes_of(axes, shape, SPATIAL)))
    model = cursor.u8("the model")
    plan = cursor.take(cursor.varint("the plan length"), "the plan")
    between, within = divmod(cursor.u8("the strategy"), 16)
    fields = inflate_json(cursor.take(cursor.varint("the metadata length"), "the metadata"))
    metadata, provenance = _metadata_of(fields, axes)
    header = Header(shape, dtype, metadata, items, splits, model, plan, between, within, provenance)
    validate(header)
    sizes = tuple(float(size) for size in metadata.voxel_size)  # JSON may hold 1 for 1.0
    return replace(header, metadata=replace(metadata, voxel_size=sizes))


def _read_item(cursor: Cursor, dtype: str) -> ItemRange:
    minimum, maximum = (cursor.scalar(dtype, "the value range") for _ in range(2))
    return ItemRange(minimum, maximum, cursor.u16("the offset code"), cursor.u8("the scale code"))


def _read_splits(cursor: Cursor, axes: int) -> tuple[tuple[bool, ...], ...]:
    splits = []
    for _ in range(integer("levels below the root", cursor.u8("the number of levels"), 0, MAX_LEVELS)):
        bits = integer("split axes of a level", cursor.u8("the splits"), 1, 2**axes - 1)
        splits.append(tuple(bool(bits >> axis & 1) for axis in range(axes)))
    return tuple(splits)


def _metadata_of(fields: Mapping[str, Any], axes: str) -> tuple[Metadata, dict[str, Any]]:
    """Build the metadata, its values still unchecked; keys of later versions are passed over."""
    default = Metadata.default(len(axes))
    voxel_size = _array("voxel_size", fields.get("voxel_size", list(default.voxel_size)))
    units = _array("units", fields.get("units", list(default.units)))
    channel_names = _array("channel_names", fields.get("channel_names", []))
    display = _display_of(fields.get("display", {}))
    metadata = Metadata(axes, voxel_size, units, channel_names, fields.get("name", ""), display)
    return metadata, fields.get("provenance", {})


def _display_of(fields: object) -> Display:
    if not isinstance(fields, dict):
        raise FormatError(f"metadata display: expected an object, got {type(fields).__name__}; {REMEDY}")
    translate, linear, limits, colors = (
        _array(f"display {key}", fields.get(key, [])) for key in ("translate", "linear", "contrast_limits", "colors")
    )
    rows, pairs = (tuple(_array("display", row) for row in table) for table in (linear, limits))
    return Display(translate, rows, pairs, colors)  # checked with the header


def _array(key: str, value: object) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise FormatError(f"metadata {key}: expected a list, got {type(value).__name__}; {REMEDY}")
    return tuple(value)


def write_header(header: Header) -> bytes:
    """Write a header that is known to be valid, up to the segment table."""
    axes = header.metadata.axes
    parts = [bytes([DTYPES.index(header.dtype) + 1, len(axes)]), axes.encode("ascii")]
    parts += [varint(size) for size in header.shape]
    for item in header.items:
        parts += [scalar(header.dtype, item.minimum), scalar(header.dtype, item.maximum)]
        parts += [u16(item.offset_code), bytes([item.scale_code])]
    masks = [sum(split << axis for axis, split in enumerate(level)) for level in header.splits]
    parts += [bytes([len(masks), *masks]), bytes([header.model]), varint(len(header.plan)), header.plan]
    extra = pack_metadata(header.metadata, header.provenance)
    parts += [bytes([header.between << 4 | header.within]), varint(len(extra)), extra]
    return b"".join(parts)


def pack_metadata(metadata: Metadata, provenance: Mapping[str, Any]) -> bytes:
    """Deflate what is not the default: a budget may be 512 bytes for the whole file."""
    default = Metadata.default(len(metadata.axes))
    fields = {
        "voxel_size": [] if metadata.voxel_size == default.voxel_size else [float(v) for v in metadata.voxel_size],
        "units": [] if metadata.units == default.units else list(metadata.units),
        "channel_names": list(metadata.channel_names),
        "name": metadata.name,
        "display": {key: value for key, value in asdict(metadata.display).items() if value},
        "provenance": dict(provenance),
    }
    return deflate_json({key: value for key, value in fields.items() if value})

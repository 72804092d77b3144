"""The mask's segment in a frame, specified in ``docs/format.md``."""

from __future__ import annotations

from napari_tinc.errors import FormatError
from napari_tinc.format import ItemRange
from napari_tinc.format.cursor import Cursor, integer, scalar, varint
from napari_tinc.masks.mask import MAX_CELLS, SIDE_CODES, CodedMask, cells_of_block, pyramid_of


def pack_mask(coded: CodedMask, dtype: str) -> bytes:
    """Store a mask: the background's value, how it is cut, the lengths of its streams, the streams."""
    return b"".join([_head(coded, dtype), coded.trunk, *coded.streams])


def packed_mask_size(coded: CodedMask, dtype: str) -> int:
    """Bytes of what :func:`pack_mask` returns."""
    return len(_head(coded, dtype)) + len(coded.trunk) + sum(map(len, coded.streams))


def _head(coded: CodedMask, dtype: str) -> bytes:
    lengths = [len(coded.trunk), *map(len, coded.streams)]
    side = bytes([coded.pyramid.side.bit_length() - 1])
    return b"".join([scalar(dtype, coded.background), side, *map(varint, lengths)])


def parse_mask(payload: bytes, spatial: tuple[int, ...], limits: ItemRange, dtype: str) -> CodedMask:
    """Invert :func:`pack_mask`.

    Parameters
    ----------
    payload : bytes
    spatial : tuple of int
        Spatial shape of the item.
    limits : ItemRange
        Value range of the item.
    dtype : str
        One of :data:`napari_tinc.format.DTYPES`.

    Raises
    ------
    FormatError
        If the payload is not a mask of such an item.
    """
    cursor = Cursor(payload, 0, "a mask segment")
    background = cursor.scalar(dtype, "the background value")
    if not limits.minimum <= background <= limits.maximum:
        raise FormatError(
            f"background value: expected {limits.minimum} to {limits.maximum}, got {background}: damaged file"
        )
    side = 2 ** integer("block side code", cursor.u8("the block side"), SIDE_CODES[0], SIDE_CODES[-1])
    z, y, x = (1,) * (3 - len(spatial)) + spatial
    pyramid = pyramid_of((z, y, x), side)
    integer("octaves of a mask", pyramid.octaves, 1, 31)
    for octave in range(pyramid.octaves):
        integer("cells of a block", cells_of_block(pyramid, octave), 1, MAX_CELLS)
    trunk, *streams = cursor.streams(1 + pyramid.blocks)
    return CodedMask(pyramid, background, trunk, tuple(streams))


__all__ = ["pack_mask", "packed_mask_size", "parse_mask"]

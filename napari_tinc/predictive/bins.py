"""Voxels as whole numbers: each stands for a bin, and no voxel in it is farther from its value than allowed."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_tinc.arrays.scratch import boxes
from napari_tinc.errors import FormatError, InputError
from napari_tinc.format import ItemRange
from napari_tinc.format.cursor import Cursor, integer, varint, zigzag
from napari_tinc.limits import LIMITS
from napari_tinc.predictive.coder import BITS

Array = npt.NDArray[Any]
Keys = npt.NDArray[np.int64]

# How voxels become keys: integers as they are; the bits of floats, which sort as the floats do; multiples of a width.
WHOLE, FLOAT_BITS, MULTIPLES = range(3)
# Values that are listed: at most so many, and where they are at most this share of the bins that would be counted.
MAX_LISTED, _SPARSE = 2**20, 0.5
_RAW_DEFLATE = -15


@dataclass(frozen=True, eq=False)
class Bins:
    """What a number stands for.

    Parameters
    ----------
    keys : int
        ``WHOLE``, ``FLOAT_BITS`` or ``MULTIPLES``.
    width : int or float
        Between the keys of consecutive numbers; with ``MULTIPLES`` between their values, from the minimum on.
    first : int
        Key of number 0.
    listed : ndarray of int64 or None
        Keys of all numbers, ascending, where they are not evenly spaced.
    """

    keys: int
    width: int | float
    first: int
    listed: Keys | None

    def values(self, numbers: Keys, limits: ItemRange, dtype: np.dtype[Any]) -> Array:
        """Return what numbers stand for; values are clipped to the item's range.

        Parameters
        ----------
        numbers : ndarray of int64
        limits : ItemRange
        dtype : dtype
            Of the voxels.
        """
        if self.listed is not None:
            numbers = self.listed[np.minimum(numbers, len(self.listed) - 1)]
        elif self.keys != MULTIPLES:
            numbers = self.first + numbers * int(self.width)
        if self.keys == FLOAT_BITS:
            floats = _floats_of(numbers, dtype)
            # Not np.clip: it may give 0 for -0. A NaN is in damaged files only.
            floats = np.where(floats >= limits.minimum, floats, dtype.type(limits.minimum))
            return np.where(floats <= limits.maximum, floats, dtype.type(limits.maximum))
        if self.keys == WHOLE:
            values: Array = numbers
        else:
            values = limits.minimum + numbers * float(self.width)
        clipped: Array = np.clip(values, limits.minimum, limits.maximum)
        return clipped.astype(dtype)

    def numbers(self, voxels: Array, limits: ItemRange) -> Keys:
        """Return the numbers of voxels, each of which is near enough to its value."""
        keys = _keys(self.keys, voxels, limits, float(self.width))
        if self.listed is not None:
            return np.searchsorted(self.listed, keys - self.reach)
        return keys if self.keys == MULTIPLES else (keys - self.first + self.reach) // int(self.width)

    @property
    def reach(self) -> int:
        """How far the keys of a bin may be from its own."""
        return 0 if self.keys == MULTIPLES else (int(self.width) - 1) // 2

    def largest(self, limits: ItemRange, dtype: np.dtype[Any]) -> int:
        """Return the largest number of an item's voxels."""
        if self.listed is not None:
            return len(self.listed) - 1
        return int(self.numbers(np.array([limits.maximum], dtype), limits)[0])


def find_bins(item: Array, limits: ItemRange, error: float) -> Bins:
    """Find bins for an item.

    Parameters
    ----------
    item : ndarray
        Integers or floats of up to 32 bits, with more than one value.
    limits : ItemRange
    error : float
        No voxel may be farther from its value; 0 for none at all.

    Raises
    ------
    InputError
        The voxels have more bits.
    """
    if item.dtype.kind not in "iuf" or item.dtype.itemsize > 4:
        raise InputError(f"expected integers or floats of up to 32 bits for a largest error, got {item.dtype}")
    kind, width = WHOLE, 2.0 * math.floor(error) + 1
    if item.dtype.kind == "f":
        width = _safe_width(item.dtype, limits, error)
        kind, width = (MULTIPLES, width) if width else (FLOAT_BITS, 1.0)
    ends = _keys(kind, np.array([limits.minimum, limits.maximum], item.dtype), limits, width)
    low, high = int(ends[0]), int(ends[1])
    evenly = Bins(kind, width if kind == MULTIPLES else int(width), low, None)
    evenly = replace(evenly, first=low + evenly.reach)
    most = min(MAX_LISTED, _SPARSE * ((high - low) // (2 * evenly.reach + 1) + 1))
    used = np.zeros(0, np.int64)
    for box in boxes(tuple((0, side) for side in item.shape), LIMITS.voxels):
        keys = _keys(kind, item[tuple(slice(a, b) for a, b in box)], limits, width)
        used = np.union1d(used, _different(keys, low, high))
        if len(used) > (2 * evenly.reach + 1) * most:  # however they lie
            return evenly
    listed = _covering(used, evenly.reach)
    return replace(evenly, first=0, listed=listed) if len(listed) <= most else evenly


def _different(keys: Keys, low: int, high: int) -> Keys:
    """Return the different ones of keys that are all from ``low`` to ``high``."""
    if high - low >= MAX_LISTED:
        return np.unique(keys)
    return np.flatnonzero(np.bincount(keys.ravel() - low, minlength=1)) + low  # without sorting them


def _keys(kind: int, voxels: Array, limits: ItemRange, width: float) -> Keys:
    if kind == WHOLE:
        return voxels.astype(np.int64)
    if kind == FLOAT_BITS:
        return _bits_of(voxels)
    return np.rint((voxels.astype(np.float64) - limits.minimum) / width).astype(np.int64)


def _safe_width(dtype: np.dtype[Any], limits: ItemRange, error: float) -> float:
    """Twice the error, less what the rounding of the values adds; 0 if the voxels' own digits are no finer."""
    rounding = spacing(dtype, limits)
    width = 2 * (error - rounding)
    return width if width > 4 * rounding and limits.span / width < 2 ** (BITS - 2) else 0.0


def spacing(dtype: np.dtype[Any], limits: ItemRange) -> float:
    """Return how far apart floats are at the largest magnitude of an item; beside the largest of all lies infinity."""
    with np.errstate(over="ignore"):
        return float(np.spacing(dtype.type(max(abs(limits.minimum), abs(limits.maximum)))))


def _covering(used: Keys, error: int) -> Keys:
    """Return the fewest keys that no used one is farther from: the middles of intervals, each as late as can be."""
    if not error:
        return used
    listed, at = [], 0
    while at < len(used):
        listed.append(int(used[at]) + error)
        at = int(np.searchsorted(used, used[at] + 2 * error, side="right"))
    return np.array(listed, np.int64)


def _bits_of(voxels: Array) -> Keys:
    """Return the bits of floats as whole numbers in the order of the floats."""
    kind = np.dtype(f"u{voxels.dtype.itemsize}")
    bits = np.ascontiguousarray(voxels).view(kind).astype(np.int64)
    sign = 1 << (8 * kind.itemsize - 1)
    return np.where(bits & sign, 2 * sign - 1 - bits, bits + sign)


def _floats_of(keys: Keys, dtype: np.dtype[Any]) -> Array:
    """Invert :func:`_bits_of`; keys of a damaged file are floats of some kind."""
    kind = np.dtype(f"u{dtype.itemsize}")
    sign = 1 << (8 * kind.itemsize - 1)
    keys = np.clip(keys, 0, 2 * sign - 1)
    return np.where(keys < sign, 2 * sign - 1 - keys, keys - sign).astype(kind).view(dtype)


def pack_bins(bins: Bins) -> bytes:
    """Store what numbers stand for."""
    kind = bytes([bins.keys | (0 if bins.listed is None else 4)])
    width = np.array(bins.width, "<f8").tobytes() if bins.keys == MULTIPLES else b""
    if bins.listed is None:
        return kind + (width or zigzag(bins.first) + varint(int(bins.width)))
    gaps = b"".join(map(varint, np.diff(bins.listed).tolist()))
    packer = zlib.compressobj(9, zlib.DEFLATED, _RAW_DEFLATE)
    deflated = packer.compress(gaps) + packer.flush()
    return b"".join(
        [kind, width, zigzag(int(bins.listed[0])), varint(len(bins.listed)), varint(len(deflated)), deflated]
    )


def parse_bins(cursor: Cursor, dtype: np.dtype[Any]) -> Bins:
    """Invert :func:`pack_bins`, with which a segment begins.

    Parameters
    ----------
    cursor : Cursor
    dtype : dtype
        Of the voxels.

    Raises
    ------
    FormatError
        If these are not bins of such voxels.
    """
    code = integer("bins", cursor.u8("the bins"), 0, 7)
    keys, is_listed = code & 3, bool(code & 4)
    if keys not in ((FLOAT_BITS, MULTIPLES) if dtype.kind == "f" else (WHOLE,)):
        raise FormatError(f"expected bins of {dtype}, got kind {keys}: damaged file")
    width: int | float = 1
    if keys == MULTIPLES:
        width = float(np.frombuffer(cursor.take(8, "the width of bins"), "<f8")[0])
        if not 0 < width < math.inf:
            raise FormatError(f"width of bins: expected a positive number, got {width}: damaged file")
    if is_listed:
        return Bins(keys, width, 0, _parse_list(cursor))
    if keys == MULTIPLES:
        return Bins(keys, width, 0, None)
    first = integer("first bin", cursor.zigzag("the first bin"), -(2**BITS), 2**BITS)
    return Bins(keys, integer("width of bins", cursor.varint("the width of bins"), 1, 2**BITS), first, None)


def _parse_list(cursor: Cursor) -> Keys:
    first = integer("first bin", cursor.zigzag("the first bin"), -(2**BITS), 2**BITS)
    count = integer("listed bins", cursor.varint("the listed bins"), 2, MAX_LISTED)
    deflated = cursor.take(cursor.varint("the length of the list"), "the list of bins")
    unpacker = zlib.decompressobj(_RAW_DEFLATE)
    try:
        gaps = unpacker.decompress(deflated, 5 * count + 1)  # no gap has more bytes
    except zlib.error as error:
        raise FormatError(f"list of bins: expected a deflate stream, got {error}: damaged file") from error
    inner = Cursor(gaps, 0, "the list of bins")
    steps = [integer("a gap", inner.varint("a gap"), 1, 2**BITS) for _ in range(count - 1)]
    if inner.remaining or not unpacker.eof:
        raise FormatError(f"expected a list of {count} bins to end, got more: damaged file")
    return np.cumsum([first, *steps], dtype=np.int64)


__all__ = ["Bins", "find_bins", "pack_bins", "parse_bins", "spacing"]

"""The segments of predicted voxels and of corrections in a frame, specified in ``docs/format.md``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from napari_tinc.errors import FormatError
from napari_tinc.format.cursor import Cursor, integer, varint
from napari_tinc.predictive.bins import Bins, pack_bins, parse_bins
from napari_tinc.predictive.blocks import CodedNumbers, pack_numbers, packed_numbers_size, parse_numbers
from napari_tinc.predictive.coder import BITS

_LARGEST = 2**BITS - 1


@dataclass(frozen=True, eq=False)
class Predicted:
    """An item as bins.

    Parameters
    ----------
    bins : Bins
    numbers : CodedNumbers
    """

    bins: Bins
    numbers: CodedNumbers


@dataclass(frozen=True, eq=False)
class Corrections:
    """What moves the voxels of an item.

    Parameters
    ----------
    width : float
        In intensity units; a whole number for integers.
    numbers : CodedNumbers
    """

    width: float
    numbers: CodedNumbers


def pack_predicted(predicted: Predicted) -> bytes:
    """Store an item as bins."""
    return pack_bins(predicted.bins) + pack_numbers(predicted.numbers)


def packed_predicted_size(predicted: Predicted) -> int:
    """Bytes of what :func:`pack_predicted` returns."""
    return len(pack_bins(predicted.bins)) + packed_numbers_size(predicted.numbers)


def parse_predicted(payload: bytes, spatial: tuple[int, ...], dtype: np.dtype[Any]) -> Predicted:
    """Invert :func:`pack_predicted`.

    Parameters
    ----------
    payload : bytes
    spatial : tuple of int
        Spatial shape of the item.
    dtype : dtype
        Of its voxels.

    Raises
    ------
    FormatError
        If the payload is not a segment of such an item.
    """
    cursor = Cursor(payload, 0, "a segment of predicted voxels")
    bins = parse_bins(cursor, dtype)
    numbers = parse_numbers(cursor, _in_space(spatial), False, _LARGEST)
    if bins.listed is None:
        integer("key of the last bin", int(bins.first + numbers.largest * bins.width), -(2**BITS), 2**BITS)
    return Predicted(bins, numbers)


def pack_corrections(corrections: Corrections, dtype: np.dtype[Any]) -> bytes:
    """Store corrections."""
    return _width(corrections, dtype) + pack_numbers(corrections.numbers)


def packed_corrections_size(corrections: Corrections, dtype: np.dtype[Any]) -> int:
    """Bytes of what :func:`pack_corrections` returns."""
    return len(_width(corrections, dtype)) + packed_numbers_size(corrections.numbers)


def _width(corrections: Corrections, dtype: np.dtype[Any]) -> bytes:
    return np.array(corrections.width, "<f8").tobytes() if dtype.kind == "f" else varint(int(corrections.width))


def parse_corrections(payload: bytes, spatial: tuple[int, ...], dtype: np.dtype[Any]) -> Corrections:
    """Invert :func:`pack_corrections`; parameters and errors as for :func:`parse_predicted`."""
    cursor = Cursor(payload, 0, "a segment of corrections")
    if dtype.kind == "f":
        width = float(np.frombuffer(cursor.take(8, "the width of corrections"), "<f8")[0])
        if not 0 < width < math.inf:
            raise FormatError(f"width of corrections: expected a positive number, got {width}: damaged file")
    else:
        width = integer("width of corrections", cursor.varint("the width of corrections"), 1, 2**32)
    return Corrections(width, parse_numbers(cursor, _in_space(spatial), True, 2 ** (BITS - 3)))


def _in_space(spatial: tuple[int, ...]) -> tuple[int, int, int]:
    z, y, x = (1,) * (3 - len(spatial)) + spatial
    return z, y, x


__all__ = [
    "Corrections", "Predicted", "pack_corrections", "pack_predicted", "packed_corrections_size",
    "packed_predicted_size", "parse_corrections", "parse_predicted",
]  # fmt: skip

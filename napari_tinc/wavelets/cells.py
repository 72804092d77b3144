"""Symbols of a block, nearly all of which are zeros: kept are its cells of 4 x 4 x 4 that the coder has used."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_tinc.kernels import compiled, part

Symbols = npt.NDArray[np.int32]
Floats32 = npt.NDArray[np.float32]
Triple = tuple[int, int, int]

CELL = 4
_PLACES = CELL**3


@dataclass(frozen=True, eq=False)
class Cells:
    """The symbols of a block.

    Parameters
    ----------
    shape : tuple of int
        Bands, and coefficients along z, y, x.
    places : ndarray of int32, shape (n,)
        Which cells were used: see :func:`packed`.
    symbols : ndarray of uint8
        Their symbols, 64 of each, little-endian and of ``width`` bytes.
    width : int
        1, 2 or 4: the fewest that hold them; numba compiles for bytes alone.
    """

    shape: tuple[int, int, int, int]
    places: Symbols
    symbols: npt.NDArray[np.uint8]
    width: int

    @classmethod
    def of(cls, shape: tuple[int, int, int, int], places: Symbols, symbols: Symbols) -> Cells:
        """Keep symbols of cells, shape (n, 64), in as few bytes as hold them: nearly always in one."""
        largest = max(int(symbols.max(initial=0)), -int(symbols.min(initial=0)))
        width = np.min_scalar_type(-largest - 1).itemsize
        return cls(shape, places.copy(), symbols.astype(f"<i{width}").view(np.uint8).ravel(), width)

    @classmethod
    def within(cls, symbols: Symbols) -> Cells:
        """Find the cells of a block that have symbols."""
        band, z, y, x = np.nonzero(_cut(symbols).any((2, 4, 6)))
        return cls.at((band << 27 | z << 18 | y << 9 | x).astype(np.int32), symbols)

    @classmethod
    def at(cls, places: Symbols, symbols: Symbols) -> Cells:
        """Take the cells of a block that are known to have symbols."""
        band, z, y, x = places >> 27, places >> 18 & 511, places >> 9 & 511, places & 511
        return cls.of(symbols.shape, places, _cut(symbols)[band, z, :, y, :, x].reshape(-1, _PLACES))

    @property
    def nbytes(self) -> int:
        """Bytes that they take."""
        return self.places.nbytes + self.symbols.nbytes

    def box(self, begin: Triple, sides: Triple) -> Symbols:
        """Return the symbols of all bands in a box; beyond the block they are zeros."""
        out = np.zeros((self.shape[0], *sides), np.int32)
        _fill(self.places, self.symbols, self.width, begin, out)
        return out

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return self.box((0, 0, 0), self.shape[1:]).astype(dtype or np.int32, copy=False)

    def dequantise(
        self, begin: Triple, volume: Floats32, place: Triple, sides: Triple, orientations: Symbols, split: Triple,
        sizes: tuple[float, float, float],
    ) -> None:  # fmt: skip
        """Write what the symbols of a box stand for into the bands of a volume of zeros.

        Parameters
        ----------
        begin, place, sides : tuple of int
            Where the box begins in the block, and in the bands; how long it is. High-pass bands may be one shorter.
        volume : ndarray of float32
            Where :func:`napari_tinc.wavelets.transform.band_of` has bands.
        orientations : ndarray of int32
            Of all bands.
        split : tuple of int
            1 along axes that are split.
        sizes : tuple of float
            The step; what a magnitude of 1 stands for; what is taken from those beyond, times the step.
        """
        _dequantise(self.places, self.symbols, self.width, begin, volume, place, sides, orientations, split, *sizes)


def places_for(shape: tuple[int, ...]) -> Symbols:
    """Make an array, not filled, for the places of as many cells as a block may use."""
    return np.empty(shape[0] * math.prod(-(-n // CELL) for n in shape[1:]), np.int32)


def _cut(symbols: Symbols) -> Symbols:
    """See a block as cells: shape (bands, z, 4, y, 4, x, 4); what is beyond its end is 0."""
    bands, *sides = symbols.shape
    grid = [-(-n // CELL) for n in sides]
    if any(n % CELL for n in sides):
        beyond = [(0, CELL * n - side) for n, side in zip(grid, sides, strict=True)]
        symbols = np.pad(symbols, [(0, 0), *beyond])
    return symbols.reshape(bands, grid[0], CELL, grid[1], CELL, grid[2], CELL)


@part()
def packed(band, z, y, x):  # type: ignore[no-untyped-def]
    """Put a cell's band and its place in the grid of cells into one number."""
    return band << 27 | z << 18 | y << 9 | x


@part()
def unpacked(place):  # type: ignore[no-untyped-def]
    """Band of a cell, and its first coefficient along z, y, x."""
    return place >> 27, (place >> 18 & 511) * CELL, (place >> 9 & 511) * CELL, (place & 511) * CELL


@part(forceinline=True)
def symbol_at(symbols, place, width):  # type: ignore[no-untyped-def]
    """Put a symbol together from its bytes."""
    if width == 1:
        return np.int64(np.int8(symbols[np.uint64(place)]))  # unsigned: not looked at for being negative
    value = np.int64(np.int8(symbols[place * width + width - 1]))
    for i in range(width - 2, -1, -1):
        value = value << 8 | np.int64(symbols[place * width + i])
    return value


@compiled
def _fill(places, symbols, width, begin, out):  # type: ignore[no-untyped-def]
    _, depth, height, length = out.shape
    for i in range(places.size):
        band, z0, y0, x0 = unpacked(np.int64(places[i]))
        z0, y0, x0 = z0 - begin[0], y0 - begin[1], x0 - begin[2]
        for z in range(max(z0, 0), min(z0 + CELL, depth)):
            for y in range(max(y0, 0), min(y0 + CELL, height)):
                at = ((i * CELL + z - z0) * CELL + y - y0) * CELL - x0
                for x in range(max(x0, 0), min(x0 + CELL, length)):
                    out[band, z, y, x] = symbol_at(symbols, at + x, width)


@compiled
def _dequantise(  # type: ignore[no-untyped-def]
    places, symbols, width, begin, volume, place, sides, orientations, split, step, first, others
):  # fmt: skip
    depth, height, length = volume.shape
    for i in range(places.size):
        band, z0, y0, x0 = unpacked(np.int64(places[i]))
        z0, y0, x0 = z0 - begin[0], y0 - begin[1], x0 - begin[2]
        z_high, y_high, x_high = orientations[band] & 1, orientations[band] >> 1 & 1, orientations[band] >> 2 & 1
        z1 = min(sides[0], depth // 2 - place[0]) if z_high else sides[0]
        y1 = min(sides[1], height // 2 - place[1]) if y_high else sides[1]
        x1 = min(sides[2], length // 2 - place[2]) if x_high else sides[2]
        right = place[2] + ((length + 1) // 2 if x_high else 0)
        for z in range(max(z0, 0), min(z0 + CELL, z1)):
            for y in range(max(y0, 0), min(y0 + CELL, y1)):
                at = ((i * CELL + z - z0) * CELL + y - y0) * CELL - x0
                for x in range(max(x0, 0), min(x0 + CELL, x1)):
                    symbol = symbol_at(symbols, at + x, width)
                    if symbol:
                        size = first if abs(symbol) == 1 else abs(symbol) * step - others
                        value = size if symbol > 0 else -size
                        volume[(place[0] + z << split[0]) + z_high, (place[1] + y << split[1]) + y_high, right + x] = (
                            value
                        )


__all__ = ["CELL", "Cells", "packed", "places_for", "symbol_at", "unpacked"]

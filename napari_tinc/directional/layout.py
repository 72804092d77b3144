"""How a volume is cut into tiles, a tile into root blocks, and these into smaller ones."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_tinc.geometry.pyramid import Bounds, Cell

# Sides of root blocks are powers of two; the longest one is at least that of the smallest blocks.
ROOT_CODES = range(6)
LEAST_CODE = 2
MAX_TILE = 2**22
# Coarse samples need all tiles that they cover.
MAX_VOXELS = 2**26


@dataclass(frozen=True)
class Layout:
    """A grid of tiles, each a grid of root blocks.

    Parameters
    ----------
    shape : tuple of int
        Voxels along z, y, x; 1 along z for an image.
    root_codes : tuple of int
        Logarithms of the sides of a root block.
    roots : tuple of int
        Root blocks of a tile along every axis; the last tiles may have fewer.
    """

    shape: tuple[int, int, int]
    root_codes: tuple[int, int, int]
    roots: tuple[int, int, int]

    @property
    def depth(self) -> int:
        """How often a root block may be split: until its longest side is 4."""
        return max(self.root_codes) - LEAST_CODE

    @cached_property
    def codes(self) -> npt.NDArray[np.int64]:
        """Logarithms of the sides of blocks, shape (depth + 1, 3); a side of one voxel is not halved."""
        return np.array([[max(0, code - level) for code in self.root_codes] for level in range(self.depth + 1)])

    @cached_property
    def tile_sides(self) -> tuple[int, ...]:
        """Voxels of a whole tile along every axis."""
        return tuple(count << code for count, code in zip(self.roots, self.root_codes, strict=True))

    @cached_property
    def grid(self) -> tuple[int, ...]:
        """Tiles along every axis."""
        return tuple(-(-n // side) for n, side in zip(self.shape, self.tile_sides, strict=True))

    @property
    def tiles(self) -> int:
        """Number of tiles."""
        return math.prod(self.grid)

    def cells(self) -> Iterator[Cell]:
        """Places of the tiles in the grid, in coding order."""
        return product(*map(range, self.grid))  # type: ignore[return-value]

    def number(self, cell: Cell) -> int:
        """Position of a tile in coding order."""
        return int(np.ravel_multi_index(cell, self.grid))

    def box(self, cell: Cell) -> Bounds:
        """Voxels of a tile."""
        return tuple((i * s, min((i + 1) * s, n)) for i, s, n in zip(cell, self.tile_sides, self.shape, strict=True))

    def extent(self, cell: Cell) -> tuple[int, ...]:
        """Voxels of a tile along every axis."""
        return tuple(b - a for a, b in self.box(cell))

    def padded(self, cell: Cell) -> tuple[int, ...]:
        """Shape of a tile whose root blocks are all whole."""
        return tuple(-(-(b - a) >> c) << c for (a, b), c in zip(self.box(cell), self.root_codes, strict=True))

    def meeting(self, bounds: Bounds) -> list[Cell]:
        """Tiles that a region of voxels meets."""
        ranges = (range(a // s, -(-b // s)) for (a, b), s in zip(bounds, self.tile_sides, strict=True))
        return list(product(*ranges))  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class Tile:
    """What the blocks of a tile are.

    Parameters
    ----------
    levels : ndarray of int8, shape of the padded tile in smallest blocks
        How often the block was split that the place lies in; -1 outside the volume.
    modes : ndarray of int16, same shape
        How it is predicted, see :mod:`napari_tinc.directional.prediction`; -1 outside the volume.
    extents : ndarray of int8, shape (z, y, x, 3)
        Logarithms of the sides of the box that has all its symbols that are not 0; -1 if there is none.
    symbols : ndarray of int16, shape of the padded tile
        Quantised coefficients, every block's where its voxels are.
    """

    levels: npt.NDArray[Any]
    modes: npt.NDArray[Any]
    extents: npt.NDArray[Any]
    symbols: npt.NDArray[Any]

    @classmethod
    def empty(cls, padded: tuple[int, ...], layout: Layout) -> Tile:
        """Make room for a tile of a padded shape."""
        places = tuple(n >> int(code) for n, code in zip(padded, layout.codes[-1], strict=True))
        levels, modes = np.full(places, -1, np.int8), np.full(places, -1, np.int16)
        return cls(levels, modes, np.full((*places, 3), -1, np.int8), np.zeros(padded, np.int16))


__all__ = ["LEAST_CODE", "MAX_TILE", "MAX_VOXELS", "ROOT_CODES", "Layout", "Tile"]

"""How an array is cut: into chunks, which are coded by themselves, and shards of whole chunks, which are files."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product

from napari_tinc.arrays.metadata import LEADING
from napari_tinc.errors import InputError

Region = tuple[slice, ...]

CHUNK, PLANE_CHUNK = 128, 1024
# Chunks along every axis of a shard: the largest number with which there are shards enough for many workers.
_INSIDE, _FEWEST_SHARDS = (4, 2, 1), 64
_SMALLEST_CHUNK = 16


@dataclass(frozen=True)
class Grid:
    """The chunks and shards of an array.

    Parameters
    ----------
    shape : tuple of int
        Of the array.
    chunk : tuple of int
    shard : tuple of int
        A multiple of the chunk along every axis; the chunk itself where every chunk is a file.
    """

    shape: tuple[int, ...]
    chunk: tuple[int, ...]
    shard: tuple[int, ...]

    @property
    def chunks(self) -> tuple[int, ...]:
        """Chunks along every axis."""
        return tuple(-(-n // side) for n, side in zip(self.shape, self.chunk, strict=True))

    @property
    def shards(self) -> tuple[int, ...]:
        """Shards along every axis."""
        return tuple(-(-n // side) for n, side in zip(self.shape, self.shard, strict=True))

    @property
    def inside(self) -> tuple[int, ...]:
        """Chunks of a shard along every axis."""
        return tuple(whole // part for whole, part in zip(self.shard, self.chunk, strict=True))

    @property
    def count(self) -> int:
        """Number of shards."""
        return math.prod(self.shards)

    def shard_cell(self, number: int) -> tuple[int, ...]:
        """Position of a shard, which are numbered row-major."""
        return _unravelled(number, self.shards)

    def shard_region(self, number: int) -> Region:
        """Voxels of a shard, cut off at the array's end."""
        return _cut(self.shard_cell(number), self.shard, self.shape)

    def chunk_region(self, cell: tuple[int, ...]) -> Region:
        """Voxels of a chunk, cut off at the array's end."""
        return _cut(cell, self.chunk, self.shape)

    def chunks_of(self, number: int) -> list[tuple[int, tuple[int, ...]]]:
        """Chunks of a shard that lie in the array: number inside the shard, row-major, and position in the array."""
        first = tuple(cell * n for cell, n in zip(self.shard_cell(number), self.inside, strict=True))
        found = []
        for index, offset in enumerate(product(*map(range, self.inside))):
            cell = tuple(a + b for a, b in zip(first, offset, strict=True))
            if all(i < n for i, n in zip(cell, self.chunks, strict=True)):
                found.append((index, cell))
        return found


def grid_of(shape: tuple[int, ...], axes: str, chunk: int | None, shard: int | None) -> Grid:
    """Cut an array into chunks and shards of so many voxels a side; of channels and time points there is one in each.

    Parameters
    ----------
    shape : tuple of int
    axes : str
        One letter per axis.
    chunk : int or None
        By default 128 voxels, of images 1024.
    shard : int or None
        By default four or two chunks, or one where there would be few shards. The chunk's own size makes every chunk
        a file.

    Raises
    ------
    InputError
        If the chunk is too small or odd, or the shard no multiple of it.
    """
    planar = sum(n > 1 for n, letter in zip(shape, axes, strict=True) if letter not in LEADING) <= 2
    side = chunk or (PLANE_CHUNK if planar else CHUNK)
    if side < _SMALLEST_CHUNK or side % 2:
        raise InputError(f"expected an even chunk of at least {_SMALLEST_CHUNK} voxels, got {side}")
    if shard is not None and (shard < side or shard % side):
        raise InputError(f"expected a shard that is a multiple of the chunk of {side} voxels, got {shard}")
    # An axis that fits in a chunk gets one of its own length, made even, so that its half is whole.
    sides = tuple(1 if letter in LEADING else min(side, n + n % 2) for n, letter in zip(shape, axes, strict=True))
    grid = Grid(shape, sides, sides)
    for inside in _INSIDE if shard is None else (shard // side,):
        counts = (1 if letter in LEADING else min(inside, n) for n, letter in zip(grid.chunks, axes, strict=True))
        sharded = Grid(shape, sides, tuple(n * m for n, m in zip(sides, counts, strict=True)))
        if shard is not None or sharded.count >= _FEWEST_SHARDS:
            return sharded
    return grid


def _unravelled(number: int, counts: tuple[int, ...]) -> tuple[int, ...]:
    cell = []
    for count in reversed(counts):
        number, index = divmod(number, count)
        cell.append(index)
    return tuple(reversed(cell))


def _cut(cell: tuple[int, ...], sides: tuple[int, ...], shape: tuple[int, ...]) -> Region:
    return tuple(slice(i * s, min((i + 1) * s, n)) for i, s, n in zip(cell, sides, shape, strict=True))


__all__ = ["CHUNK", "PLANE_CHUNK", "Grid", "Region", "grid_of"]

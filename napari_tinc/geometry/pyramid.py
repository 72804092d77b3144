"""A spatial pyramid whose octaves are cut into blocks, each decodable from its own stream and those of its ancestors.

Octave *k* turns samples of the volume that octave *k* + 1 has left into twice as many along the axes that it splits;
octave 0 gives the volume itself. Wavelets and masks are coded in such blocks.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from threading import Event, Lock
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from napari_tinc.geometry.octree import Octree
from napari_tinc.system.forks import with_fresh_locks
from napari_tinc.system.threads import every_core_has_a_box

Cell = tuple[int, int, int]
Bounds = tuple[tuple[int, int], ...]
Key = TypeVar("Key", bound=Hashable)
# What is decoded, an array or something else of some `nbytes`, None where it is all alike; and what was learnt from it,
# None where nobody asks for it.
Block = tuple[Any, Any]


@with_fresh_locks
@dataclass(frozen=True)
class BlockPyramid:
    """Which axes every octave splits, and into which blocks it is cut.

    Parameters
    ----------
    shape : tuple of int
        Voxels along z, y, x; 1 along z for an image.
    splits : tuple of tuple of int
        Axes that each octave splits, the finest octave first. The last octave leaves one sample.
    side : int
        Side of a block in samples of the next coarser volume; even.
    """

    shape: tuple[int, int, int]
    splits: tuple[tuple[int, ...], ...]
    side: int

    @property
    def octaves(self) -> int:
        """Number of splits."""
        return len(self.splits)

    @cached_property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shape of the volume before each octave's split, and after the last: ``octaves + 1`` entries."""
        shapes: list[tuple[int, ...]] = [self.shape]
        for axes in self.splits:
            shapes.append(tuple((n + 1) // 2 if a in axes else n for a, n in enumerate(shapes[-1])))
        return tuple(shapes)

    def grid(self, octave: int) -> tuple[int, ...]:
        """Blocks along every axis at an octave."""
        return self._grids[octave]

    @cached_property
    def _grids(self) -> tuple[tuple[int, ...], ...]:
        return tuple(tuple(-(-n // self.side) for n in shape) for shape in self.shapes[1:])

    @cached_property
    def trunk(self) -> int:
        """First octave, from the finest, of the coarse ones that have one block each and share a stream."""
        octave = self.octaves
        while octave and self.grid(octave - 1) == (1, 1, 1):
            octave -= 1
        return octave

    @cached_property
    def _firsts(self) -> tuple[int, ...]:
        """Number of the first block of every octave below the trunk; last, the number of all of them."""
        firsts = [0]
        for octave in reversed(range(self.trunk)):
            firsts.append(firsts[-1] + self.number_at(octave))
        return (*reversed(firsts[:-1]), firsts[-1])

    @property
    def blocks(self) -> int:
        """Number of blocks outside the trunk."""
        return self._firsts[-1]

    def number(self, octave: int, cell: Cell) -> int:
        """Number of a block among those outside the trunk, which go from coarse to fine."""
        z, y, x = cell
        _, height, width = self._grids[octave]
        return self._firsts[octave] + (z * height + y) * width + x

    def box(self, octave: int, cell: Cell) -> tuple[slice, ...]:
        """Samples of a block, counted after the octave's split."""
        return tuple(
            slice(i * self.side, min((i + 1) * self.side, n))
            for i, n in zip(cell, self.shapes[octave + 1], strict=True)
        )

    def factors(self, octave: int) -> tuple[int, ...]:
        """Samples before an octave's split per sample after it, by axis."""
        return self._factors[octave]

    @cached_property
    def _factors(self) -> tuple[tuple[int, ...], ...]:
        return tuple(tuple(2 if axis in axes else 1 for axis in range(3)) for axes in self.splits)

    def parent_cell(self, octave: int, cell: Cell) -> Cell:
        """Block one octave coarser that covers a block."""
        z, y, x = self._factors[octave + 1]
        return cell[0] // z, cell[1] // y, cell[2] // x

    def ancestor(self, octave: int, cell: Cell, coarser: int) -> Cell:
        """Block of a coarser octave that covers a block."""
        while octave < coarser:
            cell, octave = self.parent_cell(octave, cell), octave + 1
        return cell

    def children(self, octave: int, cell: Cell) -> list[Cell]:
        """Blocks one octave finer that a block covers."""
        spans = zip(cell, self._factors[octave], self._grids[octave - 1], strict=True)
        return list(product(*(range(i * factor, min((i + 1) * factor, n)) for i, factor, n in spans)))  # type: ignore[arg-type]

    def number_at(self, octave: int) -> int:
        """Number of blocks of an octave."""
        return math.prod(self._grids[octave])

    def cells(self, octave: int) -> Iterator[Cell]:
        """Blocks of an octave in coding order."""
        return product(*(range(n) for n in self.grid(octave)))  # type: ignore[return-value]

    def meeting(self, bounds: Bounds) -> list[Cell]:
        """Blocks that a region of samples after an octave's split meets."""
        return list(product(*(range(a // self.side, -(-b // self.side)) for a, b in bounds)))  # type: ignore[arg-type]

    def octave_of(self, scale: float) -> tuple[int, list[int]]:
        """Coarsest octave whose samples are at least as dense as ``scale``, and how often it has halved each axis."""
        halvings, octave = [0, 0, 0], 0
        for axes in self.splits:
            following = [h + (a in axes) for a, h in enumerate(halvings)]
            if 2 ** max(following) * scale > 1 + 1e-9:
                break
            halvings, octave = following, octave + 1
        return octave, halvings


def dyadic_splits(shape: tuple[int, ...], elongation: float) -> tuple[tuple[int, ...], ...]:
    """Split long axes first, all axes in the end.

    Parameters
    ----------
    shape : tuple of int
    elongation : float
        An octave splits the axes of at least ``1 / elongation`` of the longest; infinite splits all of them.

    Returns
    -------
    tuple of tuple of int
        From the finest octave to the one that leaves one sample.
    """
    sides, splits = list(shape), []
    while max(sides) > 1:
        axes = tuple(a for a, n in enumerate(sides) if n > 1 and n * elongation >= max(sides))
        sides = [(n + 1) // 2 if a in axes else n for a, n in enumerate(sides)]
        splits.append(axes)
    return tuple(splits)


def overlap(box: Sequence[slice], bounds: Bounds) -> tuple[slice, ...]:
    """Where the part of a box that is inside a region is, counted from the region's start."""
    pairs = zip(box, bounds, strict=True)
    return tuple(slice(max(s.start, a) - a, min(s.stop, b) - a) for s, (a, b) in pairs)


def slices_of(bounds: Bounds) -> tuple[slice, ...]:
    """Return a region as slices."""
    return tuple(slice(a, b) for a, b in bounds)


def bounds_of(box: Sequence[slice]) -> Bounds:
    """Return a box as starts and stops."""
    return tuple((s.start, s.stop) for s in box)


class BlockCache:
    """Decoded blocks of all items of a volume; those used last are kept. Several threads may ask for them.

    Parameters
    ----------
    limit : int
        Bytes that the blocks may take; a single one is always kept.
    """

    def __init__(self, limit: int = 2**27) -> None:
        self._limit, self.nbytes, self._lock = limit, 0, Lock()
        self._blocks: OrderedDict[object, Block] = OrderedDict()
        self._begun: dict[object, Event] = {}

    def get(self, key: object) -> Block | None:
        """Return a block that was put here, unless it had to go."""
        with self._lock:
            return self._find(key)

    def decoded(
        self, keys: Iterable[Key], decode: Callable[[list[Key]], Iterable[Block]], at_once: bool = False
    ) -> dict[Key, Block]:
        """Return blocks by their keys; those that are not here are decoded, and kept.

        What another thread is at is waited for, after the blocks of this one. While it decodes them, a thread may ask
        for their ancestors, never the other way round: so none waits for one that waits for it.

        Parameters
        ----------
        keys : iterable
        decode : callable
            Given the keys of what is missing, gives the blocks in that order.
        at_once : bool
            Give it all of them, rather than one by one where other threads, each with a box of its own, may want the
            same.
        """
        found: dict[Key, Block] = {}
        left = list(dict.fromkeys(keys))
        while left:
            mine, elsewhere = self._begin(left, found, not at_once and every_core_has_a_box())
            try:
                for key, block in zip(mine, decode(mine) if mine else (), strict=True):
                    self.put(key, block)
                    found[key] = block
            finally:
                with self._lock:
                    for key in mine:
                        self._begun.pop(key).set()
            if not mine and elsewhere:
                elsewhere[0].wait()
            left = [key for key in left if key not in found]
        return found

    def _begin(self, keys: list[Key], found: dict[Key, Block], one: bool) -> tuple[list[Key], list[Event]]:
        """Find blocks; return the keys of those that this thread is to decode, or one, and those that others are at."""
        mine, elsewhere = [], []
        with self._lock:
            for key in keys:
                if (block := self._find(key)) is not None:
                    found[key] = block
                elif key in self._begun:
                    elsewhere.append(self._begun[key])
                else:
                    self._begun[key] = Event()
                    mine.append(key)
                    if one:
                        break
        return mine, elsewhere

    def _find(self, key: object) -> Block | None:
        if key in self._blocks:
            self._blocks.move_to_end(key)
        return self._blocks.get(key)

    def put(self, key: object, block: Block) -> None:
        """Keep a block; drop the ones unused for longest."""
        with self._lock:
            known = self._blocks.pop(key, None)
            self._blocks[key] = block
            self.nbytes += _block_size(block) - (_block_size(known) if known else 0)
            while self.nbytes > self._limit and len(self._blocks) > 1:
                self.nbytes -= _block_size(self._blocks.popitem(last=False)[1])


def _block_size(block: Block) -> int:
    """Bytes that a block takes in the cache, statistics and what Python needs included."""
    decoded, statistics = block
    return 256 + (0 if statistics is None else statistics.model.nbytes) + (0 if decoded is None else decoded.nbytes)


def leaf_bytes(pyramid: BlockPyramid, lengths: Sequence[int], nbytes: int, tree: Octree) -> npt.NDArray[np.float64]:
    """Bytes of a segment spent on every leaf of a tree.

    Those of a block are spread evenly over the voxels it covers, the rest over all voxels.

    Parameters
    ----------
    pyramid : BlockPyramid
    lengths : sequence of int
        Bytes of the stream of every block outside the trunk.
    nbytes : int
        Bytes of the segment.
    tree : Octree
    """
    rest, reach, layers = float(nbytes), [1, 1, 1], []
    for octave in range(pyramid.trunk):
        reach = [2 * r if axis in pyramid.splits[octave] else r for axis, r in enumerate(reach)]
        grid, first = pyramid.grid(octave), pyramid.number(octave, (0, 0, 0))
        shares = np.array(lengths[first : first + math.prod(grid)], np.float64).reshape(grid)
        rest -= shares.sum()
        layers.append((shares, tuple(pyramid.side * r for r in reach)))
    return _spread([*layers, (np.full((1, 1, 1), rest), pyramid.shape)], pyramid.shape, tree)


def tile_bytes(
    lengths: npt.NDArray[np.float64], sides: tuple[int, ...], shape: tuple[int, ...], nbytes: int, tree: Octree
) -> npt.NDArray[np.float64]:
    """Bytes of a segment spent on every leaf of a tree: those of tiles over their voxels, the rest over all.

    Parameters
    ----------
    lengths : ndarray of float64, shape (z, y, x)
        Bytes of the stream of every tile of the grid.
    sides : tuple of int
        Voxels of a tile along every axis.
    shape : tuple of int
        Voxels of the volume.
    nbytes : int
        Bytes of the segment.
    tree : Octree
    """
    return _spread([(lengths, sides), (np.full((1, 1, 1), nbytes - lengths.sum()), shape)], shape, tree)


def _spread(
    layers: Sequence[tuple[npt.NDArray[np.float64], tuple[int, ...]]], shape: tuple[int, ...], tree: Octree
) -> npt.NDArray[np.float64]:
    """Sum what the cells of several grids, each with the sides of its cells in voxels, have in every leaf of a tree."""
    missing = 3 - len(tree.shape)
    edges = [np.array([0, 1])] * missing + list(tree.edges(tree.depth))
    cells = np.zeros((1,) * missing + tree.counts(tree.depth))
    for grid, sides in layers:
        shares = grid
        # Axes with fewer cells than blocks first, so that nothing in between is larger than both grids.
        for _, axis in sorted((cells.shape[axis] > n, axis) for axis, n in enumerate(grid.shape)):
            starts = np.minimum(np.arange(shares.shape[axis] + 1) * sides[axis], shape[axis])
            shares = _regrid(shares, starts, edges[axis], axis)
        cells += shares
    out = np.zeros(tree.leaves)
    out[tree.leaf_of_cell.ravel()] = cells.ravel()
    return out


def _regrid(
    sums: npt.NDArray[np.float64], starts: npt.NDArray[Any], edges: npt.NDArray[Any], axis: int
) -> npt.NDArray[np.float64]:
    """Share out what is spread evenly over the intervals between ``starts`` among those between ``edges``."""
    running = np.insert(np.cumsum(sums, axis), 0, 0.0, axis)
    place = np.interp(edges, starts, np.arange(len(starts)))
    low = np.minimum(place.astype(np.int64), len(starts) - 2)
    share = (place - low).reshape([-1 if a == axis else 1 for a in range(3)])
    return np.diff(np.take(running, low, axis) * (1 - share) + np.take(running, low + 1, axis) * share, axis=axis)


__all__ = [
    "Block",
    "BlockCache",
    "BlockPyramid",
    "Bounds",
    "Cell",
    "bounds_of",
    "dyadic_splits",
    "leaf_bytes",
    "overlap",
    "slices_of",
    "tile_bytes",
]

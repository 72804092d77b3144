"""The detail layer: what a volume's network leaves over, as quantised wavelet coefficients in an octree of blocks.

A level of the wavelet pyramid is cut into blocks of equal side; a block's parent covers it one level coarser. Blocks
are coded one by one, so that a region decodes from its own blocks and their ancestors, and a block starts with the
statistics its parent ended with: what a network's segments do for parameters, blocks do for probabilities.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_tinc.geometry.octree import Octree
from napari_tinc.geometry.sampling import interpolate, neighbours
from napari_tinc.system.forks import with_fresh_locks
from napari_tinc.system.threads import block_threads
from napari_tinc.wavelets import coefficients
from napari_tinc.wavelets import transform as wavelet
from napari_tinc.wavelets.coefficients import NO_PARENT, Parent, Statistics
from napari_tinc.wavelets.transform import Axes, Bands, Floats

Ints = npt.NDArray[np.int32]
Cell = tuple[int, int, int]
Bounds = tuple[tuple[int, int], ...]

# Sides of blocks are powers of two; a block holds at most so many symbols.
SIDE_CODES = range(2, 9)
MAX_BLOCK = 2**18
# Steps from 2**-40 to 2**24: symbols times steps stay far inside float32.
STEP_CODES = 64 * 256


def step_of(code: int) -> float:
    """Quantisation step, in units of the model's output, that a code stands for."""
    return float(2.0 ** (code / 256 - 40))


@with_fresh_locks
@dataclass(frozen=True)
class Pyramid:
    """Which axes every level of the transform splits, and into which blocks its bands are cut.

    Parameters
    ----------
    shape : tuple of int
        Voxels along z, y, x; 1 along z for an image.
    splits : tuple of tuple of int
        Axes that each level splits, the finest level first. The last level leaves one low-pass coefficient.
    side : int
        Side of a block in coefficients; even.
    """

    shape: tuple[int, int, int]
    splits: tuple[Axes, ...]
    side: int

    @property
    def levels(self) -> int:
        """Number of splits."""
        return len(self.splits)

    @cached_property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shape of the low-pass volume before each level's split, and after the last: ``levels + 1`` entries."""
        shapes: list[tuple[int, ...]] = [self.shape]
        for axes in self.splits:
            shapes.append(tuple((n + 1) // 2 if a in axes else n for a, n in enumerate(shapes[-1])))
        return tuple(shapes)

    def grid(self, level: int) -> tuple[int, ...]:
        """Blocks along every axis at a level."""
        return tuple(-(-n // self.side) for n in self.shapes[level + 1])

    @cached_property
    def trunk(self) -> int:
        """First level, from the finest, of the coarse ones that have one block each and share a stream."""
        level = self.levels
        while level and self.grid(level - 1) == (1, 1, 1):
            level -= 1
        return level

    @cached_property
    def blocks(self) -> int:
        """Number of blocks outside the trunk."""
        return sum(math.prod(self.grid(level)) for level in range(self.trunk))

    @cached_property
    def _orientations(self) -> tuple[Ints, ...]:
        return tuple(np.array(wavelet.orientations(axes), np.int32) for axes in self.splits)

    def orientations(self, level: int) -> Ints:
        """Orientations of the bands of a level in the order they are coded."""
        return self._orientations[level]

    def box(self, level: int, cell: Cell) -> tuple[slice, ...]:
        """Coefficients of a block."""
        return tuple(
            slice(i * self.side, min((i + 1) * self.side, n)) for i, n in zip(cell, self.shapes[level + 1], strict=True)
        )

    def factors(self, level: int) -> tuple[int, ...]:
        """Coefficients of a level per coefficient one level coarser, by axis."""
        return tuple(2 if axis in self.splits[level + 1] else 1 for axis in range(3))

    def parent_cell(self, level: int, cell: Cell) -> Cell:
        """Block one level coarser that covers a block."""
        z, y, x = (i // f for i, f in zip(cell, self.factors(level), strict=True))
        return z, y, x

    def parent(self, level: int, cell: Cell, symbols: Ints | None) -> Parent:
        """What a block sees of its parent, whose symbols are given; nothing at the coarsest level."""
        if symbols is None:
            return NO_PARENT
        factors = self.factors(level)
        above = self.parent_cell(level, cell)
        known = {int(o): i for i, o in enumerate(self.orientations(level + 1))}
        bands = np.array([known.get(int(o), -1) for o in self.orientations(level)], np.int32)
        origin = [i * self.side // f - a * self.side for i, f, a in zip(cell, factors, above, strict=True)]
        return Parent(
            np.ascontiguousarray(symbols, np.int32), bands, np.array(origin, np.int32), np.array(factors, np.int32)
        )

    def cells(self, level: int) -> Iterator[Cell]:
        """Blocks of a level in coding order."""
        return product(*(range(n) for n in self.grid(level)))  # type: ignore[return-value]


def dyadic_splits(shape: tuple[int, ...], elongation: float) -> tuple[Axes, ...]:
    """Split long axes first, all axes in the end.

    Parameters
    ----------
    shape : tuple of int
    elongation : float
        A level splits the axes of at least ``1 / elongation`` of the longest; infinite splits all of them.

    Returns
    -------
    tuple of tuple of int
        From the finest level to the one that leaves one coefficient.
    """
    sides, splits = list(shape), []
    while max(sides) > 1:
        axes = tuple(a for a, n in enumerate(sides) if n > 1 and n * elongation >= max(sides))
        sides = [(n + 1) // 2 if a in axes else n for a, n in enumerate(sides)]
        splits.append(axes)
    return tuple(splits)


# Symbols, None where all are 0, and the statistics that children start with: the finest, most of all, have none.
_Block = tuple[Ints | None, Statistics | None]


@dataclass(frozen=True)
class DetailHead:
    """Everything of a detail segment but its streams.

    Parameters
    ----------
    pyramid : Pyramid
    step_code : int
        See :func:`step_of`.
    shrinkages : tuple of int
        By how many 256ths of a step symbols of magnitude 1, and larger ones, are decoded nearer to zero.
    mean : int
        Symbol of the one low-pass coefficient.
    """

    pyramid: Pyramid
    step_code: int
    shrinkages: tuple[int, int]
    mean: int

    @property
    def step(self) -> float:
        """Quantisation step."""
        return step_of(self.step_code)

    def dequantise(self, symbols: Ints) -> Floats:
        """Coefficients that symbols stand for."""
        first, others = ((1 - self.shrinkages[0] / 256) * self.step, self.shrinkages[1] / 256 * self.step)
        values = np.empty(symbols.shape, np.float32)
        coefficients.dequantise(
            np.ascontiguousarray(symbols, np.int32).ravel(), values.ravel(), self.step, first, others
        )
        return values


@dataclass(frozen=True)
class Detail:
    """The coded detail layer of one spatial volume.

    Parameters
    ----------
    head : DetailHead
    trunk : bytes
        Stream of the coarse levels.
    streams : tuple of bytes
        One per block outside the trunk, level by level from coarse to fine; empty where all symbols are 0.
    """

    head: DetailHead
    trunk: bytes
    streams: tuple[bytes, ...]


class BlockCache:
    """Decoded blocks of all items of a volume; those used last are kept.

    Parameters
    ----------
    limit : int
        Bytes that the blocks may take; a single one is always kept.
    """

    def __init__(self, limit: int = 2**27) -> None:
        self._limit, self.nbytes = limit, 0
        self._blocks: OrderedDict[object, _Block] = OrderedDict()

    def get(self, key: object) -> _Block | None:
        """Return a block that was put here, unless it had to go."""
        if key in self._blocks:
            self._blocks.move_to_end(key)
        return self._blocks.get(key)

    def put(self, key: object, block: _Block) -> None:
        """Keep a block; drop the ones unused for longest."""
        known = self._blocks.pop(key, None)
        self._blocks[key] = block
        self.nbytes += _block_size(block) - (_block_size(known) if known else 0)
        while self.nbytes > self._limit and len(self._blocks) > 1:
            self.nbytes -= _block_size(self._blocks.popitem(last=False)[1])


def narrowed(symbols: Ints) -> Ints:
    """Keep symbols in as few bytes as hold them: nearly all blocks fit in one per symbol."""
    return symbols.astype(np.min_scalar_type(-int(np.abs(symbols).max()) - 1))


def _block_size(block: _Block) -> int:
    """Bytes that a block takes in the cache, statistics and what Python needs included."""
    symbols, statistics = block
    return 256 + (0 if statistics is None else 2**15) + (0 if symbols is None else symbols.nbytes)


class DetailReader:
    """Decode regions of a detail layer. Not thread-safe.

    Parameters
    ----------
    detail : Detail
    cache : BlockCache
        Where decoded blocks are kept; readers may share it.
    """

    def __init__(self, detail: Detail, cache: BlockCache) -> None:
        self.head, self.pyramid = detail.head, detail.head.pyramid
        self._trunk, self._streams = detail.trunk, detail.streams
        self._cache = cache
        self._first = {}
        number = 0
        for level in reversed(range(self.pyramid.trunk)):
            self._first[level] = number
            number += math.prod(self.pyramid.grid(level))

    def region(self, level: int, bounds: Bounds) -> Floats:
        """Decode a region of the low-pass volume before a level's split; level 0 is the volume itself.

        Parameters
        ----------
        level : int
            0 … levels.
        bounds : tuple of (int, int)
            Start and stop along z, y, x in that level's samples.

        Returns
        -------
        ndarray of float32, shape of the bounds
            A level's samples carry the gain of the low-pass: the square root of 2 for every split of every axis.
        """
        pyramid = self.pyramid
        if level == pyramid.levels:
            return np.full([b - a for a, b in bounds], self.head.mean * self.head.step, np.float32)
        axes, shape = pyramid.splits[level], pyramid.shapes[level]
        inner = tuple(
            wavelet.needed(*bound, n) if axis in axes else bound
            for axis, (bound, n) in enumerate(zip(bounds, shape, strict=True))
        )
        bands = self._bands(level, inner)
        bands[0] = self.region(level + 1, inner)
        samples = wavelet.inverse(bands, axes)
        starts = [2 * lo if axis in axes else lo for axis, (lo, _) in enumerate(inner)]
        return samples[tuple(slice(a - s, b - s) for (a, b), s in zip(bounds, starts, strict=True))]

    def sample(self, positions: tuple[npt.NDArray[np.float64], ...], scale: float) -> Floats:
        """Evaluate the layer on a grid of positions, linearly between its samples.

        Parameters
        ----------
        positions : tuple of ndarray
            Ascending positions along z, y, x, in voxels, inside the volume.
        scale : float
            Positions per voxel: the coarsest level that is no coarser is the one decoded.

        Returns
        -------
        ndarray of float32, one sample per position of every axis
        """
        level, halvings = self._level_of(scale)
        sides = self.pyramid.shapes[level]
        grids = [np.clip(p / 2**h, 0, n - 1) for p, h, n in zip(positions, halvings, sides, strict=True)]
        bounds = neighbours(grids, sides)
        values = interpolate(self.region(level, bounds), bounds, grids)
        values *= np.float32(2 ** (-sum(halvings) / 2))
        return values

    def _level_of(self, scale: float) -> tuple[int, list[int]]:
        """Coarsest level whose samples are at least as dense as ``scale``, and how often it has halved each axis."""
        halvings, level = [0, 0, 0], 0
        for axes in self.pyramid.splits:
            following = [h + (a in axes) for a, h in enumerate(halvings)]
            if 2 ** max(following) * scale > 1 + 1e-9:
                break
            halvings, level = following, level + 1
        return level, halvings

    def block_bytes(self, level: int) -> npt.NDArray[np.float64]:
        """Bytes of every block of a level below the trunk, on its grid."""
        grid, first = self.pyramid.grid(level), self._first[level]
        sizes = [len(stream) for stream in self._streams[first : first + math.prod(grid)]]
        return np.array(sizes, np.float64).reshape(grid)

    def _bands(self, level: int, bounds: Bounds) -> Bands:
        """Dequantise all high-pass bands of a level in a region of its coefficients."""
        pyramid, head = self.pyramid, self.head
        codes = pyramid.orientations(level).tolist()
        values = np.zeros((len(codes), *(b - a for a, b in bounds)), np.float32)
        ranges = [range(a // pyramid.side, -(-b // pyramid.side)) for a, b in bounds]
        cells: list[Cell] = list(product(*ranges))  # type: ignore[arg-type]
        for cell, (decoded, _) in zip(cells, self._blocks(level, cells), strict=True):
            if decoded is None:
                continue
            box = pyramid.box(level, cell)
            spans = [(max(s.start, a), min(s.stop, b)) for s, (a, b) in zip(box, bounds, strict=True)]
            into = tuple(slice(lo - a, hi - a) for (lo, hi), (a, _) in zip(spans, bounds, strict=True))
            out = tuple(slice(lo - s.start, hi - s.start) for (lo, hi), s in zip(spans, box, strict=True))
            values[(slice(None), *into)] = head.dequantise(decoded[(slice(None), *out)])
        shape = pyramid.shapes[level]
        bands: Bands = {}
        for code, band in zip(codes, values, strict=True):
            # High-pass bands are one shorter than the low-pass along an axis of odd length.
            stops = [
                min(b, n // 2) - a if code >> axis & 1 else b - a
                for axis, ((a, b), n) in enumerate(zip(bounds, shape, strict=True))
            ]
            bands[code] = band[tuple(slice(0, max(0, stop)) for stop in stops)]
        return bands

    def _blocks(self, level: int, cells: list[Cell]) -> list[_Block]:
        """Blocks of a level, decoded side by side after all their ancestors."""
        pyramid = self.pyramid
        if level >= pyramid.trunk:
            return [self._cache.get((self, level, (0, 0, 0))) or self._read_trunk(level)]
        found = {cell: block for cell in cells if (block := self._cache.get((self, level, cell)))}
        missing = [cell for cell in cells if cell not in found]
        wanted = list(dict.fromkeys(pyramid.parent_cell(level, cell) for cell in missing))
        above = dict(zip(wanted, self._blocks(level + 1, wanted) if wanted else [], strict=True))
        jobs = []
        for cell in missing:
            number = self._first[level] + int(np.ravel_multi_index(cell, pyramid.grid(level)))
            jobs.append((level, cell, *above[pyramid.parent_cell(level, cell)], self._streams[number]))
        found |= zip(missing, block_threads().map(lambda job: self._decode(*job), jobs), strict=True)
        for cell in missing:
            self._cache.put((self, level, cell), found[cell])
        return [found[cell] for cell in cells]

    def _decode(
        self, level: int, cell: Cell, above: Ints | None, statistics: Statistics | None, stream: bytes
    ) -> _Block:
        assert statistics is not None
        if not stream:
            return None, statistics if level else None
        learnt = statistics.copy()
        parent = self.pyramid.parent(level, cell, above)
        symbols = coefficients.Decoder(stream).take(
            learnt, self._block_shape(level, cell), self.pyramid.orientations(level), parent
        )
        return narrowed(symbols), learnt if level else None

    def _block_shape(self, level: int, cell: Cell) -> tuple[int, int, int, int]:
        z, y, x = (s.stop - s.start for s in self.pyramid.box(level, cell))
        return len(self.pyramid.orientations(level)), z, y, x

    def _read_trunk(self, wanted: int) -> _Block:
        """Decode the coarse levels, which have one block each, and return one of them."""
        decoder, statistics, above = coefficients.Decoder(self._trunk), Statistics.fresh(), None
        coarse: dict[int, _Block] = {}
        for level in reversed(range(self.pyramid.trunk, self.pyramid.levels)):
            parent = self.pyramid.parent(level, (0, 0, 0), above)
            shape = self._block_shape(level, (0, 0, 0))
            above = decoder.take(statistics, shape, self.pyramid.orientations(level), parent)
            coarse[level] = above, statistics  # which go on learning: children start with those after the last level
        for level, block in coarse.items():
            self._cache.put((self, level, (0, 0, 0)), block)
        return coarse[wanted]


def detail_bytes(reader: DetailReader, tree: Octree, nbytes: int) -> npt.NDArray[np.float64]:
    """Bytes of a detail segment spent on every leaf.

    Those of a block are spread evenly over the voxels it covers, the rest of ``nbytes`` over all voxels.
    """
    pyramid, missing = reader.pyramid, 3 - len(tree.shape)
    edges = [np.array([0, 1])] * missing + list(tree.edges(tree.depth))
    rest, reach = float(nbytes), [1, 1, 1]
    cells = np.zeros((1,) * missing + tree.counts(tree.depth))
    for level in range(pyramid.trunk):
        reach = [2 * r if axis in pyramid.splits[level] else r for axis, r in enumerate(reach)]
        shares = reader.block_bytes(level)
        rest -= shares.sum()
        # Axes with fewer cells than blocks first, so that nothing in between is larger than both grids.
        for _, axis in sorted((cells.shape[axis] > n, axis) for axis, n in enumerate(shares.shape)):
            starts = np.minimum(np.arange(shares.shape[axis] + 1) * pyramid.side * reach[axis], pyramid.shape[axis])
            shares = _regrid(shares, starts, edges[axis], axis)
        cells += shares
    whole = np.full((1, 1, 1), rest)
    for axis in range(3):
        whole = _regrid(whole, np.array([0, pyramid.shape[axis]]), edges[axis], axis)
    cells += whole
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

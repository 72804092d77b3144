"""The wavelet layer: what a volume's network leaves over, as quantised wavelet coefficients in an octree of blocks.

An octave of the wavelet pyramid is cut into blocks of equal side; a block's parent covers it one octave coarser. Blocks
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
from napari_tinc.geometry.sampling import interpolate, neighbours, sample_positions
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
    """Which axes every octave of the transform splits, and into which blocks its bands are cut.

    Parameters
    ----------
    shape : tuple of int
        Voxels along z, y, x; 1 along z for an image.
    splits : tuple of tuple of int
        Axes that each octave splits, the finest octave first. The last octave leaves one low-pass coefficient.
    side : int
        Side of a block in coefficients; even.
    """

    shape: tuple[int, int, int]
    splits: tuple[Axes, ...]
    side: int

    @property
    def octaves(self) -> int:
        """Number of splits."""
        return len(self.splits)

    @cached_property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shape of the low-pass volume before each octave's split, and after the last: ``octaves + 1`` entries."""
        shapes: list[tuple[int, ...]] = [self.shape]
        for axes in self.splits:
            shapes.append(tuple((n + 1) // 2 if a in axes else n for a, n in enumerate(shapes[-1])))
        return tuple(shapes)

    def grid(self, octave: int) -> tuple[int, ...]:
        """Blocks along every axis at an octave."""
        return tuple(-(-n // self.side) for n in self.shapes[octave + 1])

    @cached_property
    def trunk(self) -> int:
        """First octave, from the finest, of the coarse ones that have one block each and share a stream."""
        octave = self.octaves
        while octave and self.grid(octave - 1) == (1, 1, 1):
            octave -= 1
        return octave

    @cached_property
    def blocks(self) -> int:
        """Number of blocks outside the trunk."""
        return sum(math.prod(self.grid(octave)) for octave in range(self.trunk))

    @cached_property
    def _orientations(self) -> tuple[Ints, ...]:
        return tuple(np.array(wavelet.orientations(axes), np.int32) for axes in self.splits)

    def orientations(self, octave: int) -> Ints:
        """Orientations of the bands of an octave in the order they are coded."""
        return self._orientations[octave]

    def box(self, octave: int, cell: Cell) -> tuple[slice, ...]:
        """Coefficients of a block."""
        return tuple(
            slice(i * self.side, min((i + 1) * self.side, n))
            for i, n in zip(cell, self.shapes[octave + 1], strict=True)
        )

    def factors(self, octave: int) -> tuple[int, ...]:
        """Coefficients of an octave per coefficient one octave coarser, by axis."""
        return tuple(2 if axis in self.splits[octave + 1] else 1 for axis in range(3))

    def parent_cell(self, octave: int, cell: Cell) -> Cell:
        """Block one octave coarser that covers a block."""
        z, y, x = (i // f for i, f in zip(cell, self.factors(octave), strict=True))
        return z, y, x

    def parent(self, octave: int, cell: Cell, symbols: Ints | None) -> Parent:
        """What a block sees of its parent, whose symbols are given; nothing at the coarsest octave."""
        if symbols is None:
            return NO_PARENT
        factors = self.factors(octave)
        above = self.parent_cell(octave, cell)
        known = {int(o): i for i, o in enumerate(self.orientations(octave + 1))}
        bands = np.array([known.get(int(o), -1) for o in self.orientations(octave)], np.int32)
        origin = [i * self.side // f - a * self.side for i, f, a in zip(cell, factors, above, strict=True)]
        return Parent(
            np.ascontiguousarray(symbols, np.int32), bands, np.array(origin, np.int32), np.array(factors, np.int32)
        )

    def cells(self, octave: int) -> Iterator[Cell]:
        """Blocks of an octave in coding order."""
        return product(*(range(n) for n in self.grid(octave)))  # type: ignore[return-value]


def dyadic_splits(shape: tuple[int, ...], elongation: float) -> tuple[Axes, ...]:
    """Split long axes first, all axes in the end.

    Parameters
    ----------
    shape : tuple of int
    elongation : float
        An octave splits the axes of at least ``1 / elongation`` of the longest; infinite splits all of them.

    Returns
    -------
    tuple of tuple of int
        From the finest octave to the one that leaves one coefficient.
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
class WaveletHead:
    """Everything of a wavelet segment but its streams.

    Parameters
    ----------
    pyramid : Pyramid
    step_code : int
        See :func:`step_of`.
    offsets : tuple of int
        By how many 256ths of a step symbols of magnitude 1, and larger ones, are decoded nearer to zero.
    dc : int
        Symbol of the one low-pass coefficient.
    """

    pyramid: Pyramid
    step_code: int
    offsets: tuple[int, int]
    dc: int

    @property
    def step(self) -> float:
        """Quantisation step."""
        return step_of(self.step_code)

    def dequantise(self, symbols: Ints) -> Floats:
        """Coefficients that symbols stand for."""
        first, others = ((1 - self.offsets[0] / 256) * self.step, self.offsets[1] / 256 * self.step)
        values = np.empty(symbols.shape, np.float32)
        coefficients.dequantise(
            np.ascontiguousarray(symbols, np.int32).ravel(), values.ravel(), self.step, first, others
        )
        return values


@dataclass(frozen=True)
class CodedWavelets:
    """The coded wavelet layer of one spatial volume.

    Parameters
    ----------
    head : WaveletHead
    trunk : bytes
        Stream of the coarse octaves.
    streams : tuple of bytes
        One per block outside the trunk, octave by octave from coarse to fine; empty where all symbols are 0.
    """

    head: WaveletHead
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
    return 256 + (0 if statistics is None else 2**14) + (0 if symbols is None else symbols.nbytes)


class WaveletLayer:
    """The wavelets of one item, decoded region by region. Not thread-safe.

    Parameters
    ----------
    coded : CodedWavelets
    cache : BlockCache
        Where decoded blocks are kept; layers may share it.
    nbytes : int
        Size of its segment in a frame, to be shared out by :meth:`leaf_bytes`.
    """

    def __init__(self, coded: CodedWavelets, cache: BlockCache, nbytes: int = 0) -> None:
        self._nbytes = nbytes
        self.head, self.pyramid = coded.head, coded.head.pyramid
        self._trunk, self._streams = coded.trunk, coded.streams
        self._cache = cache
        self._first = {}
        number = 0
        for octave in reversed(range(self.pyramid.trunk)):
            self._first[octave] = number
            number += math.prod(self.pyramid.grid(octave))

    def values(self, bounds: Bounds, scale: float) -> Floats:
        """Evaluate a region, see :class:`napari_tinc.layers.Layer`."""
        return self.sample(self._positions(bounds, scale), scale).reshape([b - a for a, b in bounds])

    def _positions(self, bounds: Bounds, scale: float) -> tuple[npt.NDArray[np.float64], ...]:
        """Where the samples of a region are, in voxels along z, y, x; an image has one plane."""
        sides = self.pyramid.shape[3 - len(bounds) :]
        positions = [sample_positions(a, b, scale, side) for (a, b), side in zip(bounds, sides, strict=True)]
        return (*[np.zeros(1)] * (3 - len(positions)), *positions)

    def region(self, octave: int, bounds: Bounds) -> Floats:
        """Decode a region of the low-pass volume before an octave's split; octave 0 is the volume itself.

        Parameters
        ----------
        octave : int
            0 … octaves.
        bounds : tuple of (int, int)
            Start and stop along z, y, x in that octave's samples.

        Returns
        -------
        ndarray of float32, shape of the bounds
            An octave's samples carry the gain of the low-pass: the square root of 2 for every split of every axis.
        """
        pyramid = self.pyramid
        if octave == pyramid.octaves:
            return np.full([b - a for a, b in bounds], self.head.dc * self.head.step, np.float32)
        axes, inner = pyramid.splits[octave], self._inner(octave, bounds)
        bands = self._bands(octave, inner)
        bands[0] = self.region(octave + 1, inner)
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
            Positions per voxel: the coarsest octave that is no coarser is the one decoded.

        Returns
        -------
        ndarray of float32, one sample per position of every axis
        """
        octave, halvings, grids = self._grids(positions, scale)
        bounds = neighbours(grids, self.pyramid.shapes[octave])
        values = interpolate(self.region(octave, bounds), bounds, grids)
        values *= np.float32(2 ** (-sum(halvings) / 2))
        return values

    def _grids(
        self, positions: tuple[npt.NDArray[np.float64], ...], scale: float
    ) -> tuple[int, list[int], list[npt.NDArray[np.float64]]]:
        """Octave that is decoded for a scale, how often it has halved each axis, and the positions in its samples."""
        octave, halvings = self._octave_of(scale)
        sides = self.pyramid.shapes[octave]
        grids = [np.clip(p / 2**h, 0, n - 1) for p, h, n in zip(positions, halvings, sides, strict=True)]
        return octave, halvings, grids

    def _inner(self, octave: int, bounds: Bounds) -> Bounds:
        """Coefficients of an octave that a region of what it splits needs."""
        axes, shape = self.pyramid.splits[octave], self.pyramid.shapes[octave]
        return tuple(
            wavelet.needed(*bound, n) if axis in axes else bound
            for axis, (bound, n) in enumerate(zip(bounds, shape, strict=True))
        )

    def _cells(self, bounds: Bounds) -> list[Cell]:
        """Blocks that a region of an octave's coefficients meets."""
        side = self.pyramid.side
        return list(product(*(range(a // side, -(-b // side)) for a, b in bounds)))  # type: ignore[arg-type]

    def _stream(self, octave: int, cell: Cell) -> bytes:
        """Stream of a block below the trunk."""
        return self._streams[self._first[octave] + int(np.ravel_multi_index(cell, self.pyramid.grid(octave)))]

    def _octave_of(self, scale: float) -> tuple[int, list[int]]:
        """Coarsest octave whose samples are at least as dense as ``scale``, and how often it has halved each axis."""
        halvings, octave = [0, 0, 0], 0
        for axes in self.pyramid.splits:
            following = [h + (a in axes) for a, h in enumerate(halvings)]
            if 2 ** max(following) * scale > 1 + 1e-9:
                break
            halvings, octave = following, octave + 1
        return octave, halvings

    def block_bytes(self, octave: int) -> npt.NDArray[np.float64]:
        """Bytes of every block of an octave below the trunk, on its grid."""
        grid, first = self.pyramid.grid(octave), self._first[octave]
        sizes = [len(stream) for stream in self._streams[first : first + math.prod(grid)]]
        return np.array(sizes, np.float64).reshape(grid)

    def region_bytes(self, bounds: Bounds, scale: float) -> int:
        """Bytes of the blocks that a region needs, their ancestors, the trunk and the head."""
        first, _, grids = self._grids(self._positions(bounds, scale), scale)
        inner, needed = neighbours(grids, self.pyramid.shapes[first]), set[Cell]()
        total = self._nbytes - sum(map(len, self._streams))
        for octave in range(first, self.pyramid.trunk):
            inner = self._inner(octave, inner)
            needed |= set(self._cells(inner))
            total += sum(len(self._stream(octave, cell)) for cell in needed)
            needed = {self.pyramid.parent_cell(octave, cell) for cell in needed}
        return total

    def leaf_bytes(self, tree: Octree) -> npt.NDArray[np.float64]:
        """Bytes of the segment spent on every leaf.

        Those of a block are spread evenly over the voxels it covers, the rest over all voxels.
        """
        pyramid, missing = self.pyramid, 3 - len(tree.shape)
        edges = [np.array([0, 1])] * missing + list(tree.edges(tree.depth))
        rest, reach = float(self._nbytes), [1, 1, 1]
        cells = np.zeros((1,) * missing + tree.counts(tree.depth))
        for octave in range(pyramid.trunk):
            reach = [2 * r if axis in pyramid.splits[octave] else r for axis, r in enumerate(reach)]
            shares = self.block_bytes(octave)
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

    def _bands(self, octave: int, bounds: Bounds) -> Bands:
        """Dequantise all high-pass bands of an octave in a region of its coefficients."""
        pyramid, head = self.pyramid, self.head
        codes = pyramid.orientations(octave).tolist()
        values = np.zeros((len(codes), *(b - a for a, b in bounds)), np.float32)
        cells = self._cells(bounds)
        for cell, (decoded, _) in zip(cells, self._blocks(octave, cells), strict=True):
            if decoded is None:
                continue
            box = pyramid.box(octave, cell)
            spans = [(max(s.start, a), min(s.stop, b)) for s, (a, b) in zip(box, bounds, strict=True)]
            into = tuple(slice(lo - a, hi - a) for (lo, hi), (a, _) in zip(spans, bounds, strict=True))
            out = tuple(slice(lo - s.start, hi - s.start) for (lo, hi), s in zip(spans, box, strict=True))
            values[(slice(None), *into)] = head.dequantise(decoded[(slice(None), *out)])
        shape = pyramid.shapes[octave]
        bands: Bands = {}
        for code, band in zip(codes, values, strict=True):
            # High-pass bands are one shorter than the low-pass along an axis of odd length.
            stops = [
                min(b, n // 2) - a if code >> axis & 1 else b - a
                for axis, ((a, b), n) in enumerate(zip(bounds, shape, strict=True))
            ]
            bands[code] = band[tuple(slice(0, max(0, stop)) for stop in stops)]
        return bands

    def _blocks(self, octave: int, cells: list[Cell]) -> list[_Block]:
        """Blocks of an octave, decoded side by side after all their ancestors."""
        pyramid = self.pyramid
        if octave >= pyramid.trunk:
            return [self._cache.get((self, octave, (0, 0, 0))) or self._read_trunk(octave)]
        found = {cell: block for cell in cells if (block := self._cache.get((self, octave, cell)))}
        missing = [cell for cell in cells if cell not in found]
        wanted = list(dict.fromkeys(pyramid.parent_cell(octave, cell) for cell in missing))
        above = dict(zip(wanted, self._blocks(octave + 1, wanted) if wanted else [], strict=True))
        jobs = []
        for cell in missing:
            jobs.append((octave, cell, *above[pyramid.parent_cell(octave, cell)], self._stream(octave, cell)))
        found |= zip(missing, block_threads().map(lambda job: self._decode(*job), jobs), strict=True)
        for cell in missing:
            self._cache.put((self, octave, cell), found[cell])
        return [found[cell] for cell in cells]

    def _decode(
        self, octave: int, cell: Cell, above: Ints | None, statistics: Statistics | None, stream: bytes
    ) -> _Block:
        assert statistics is not None
        if not stream:
            return None, statistics if octave else None
        learnt = statistics.copy()
        parent = self.pyramid.parent(octave, cell, above)
        symbols = coefficients.Decoder(stream).take(
            learnt, self._block_shape(octave, cell), self.pyramid.orientations(octave), parent
        )
        return narrowed(symbols), learnt if octave else None

    def _block_shape(self, octave: int, cell: Cell) -> tuple[int, int, int, int]:
        z, y, x = (s.stop - s.start for s in self.pyramid.box(octave, cell))
        return len(self.pyramid.orientations(octave)), z, y, x

    def _read_trunk(self, wanted: int) -> _Block:
        """Decode the coarse octaves, which have one block each, and return one of them."""
        decoder, statistics, above = coefficients.Decoder(self._trunk), Statistics.fresh(), None
        coarse: dict[int, _Block] = {}
        for octave in reversed(range(self.pyramid.trunk, self.pyramid.octaves)):
            parent = self.pyramid.parent(octave, (0, 0, 0), above)
            shape = self._block_shape(octave, (0, 0, 0))
            above = decoder.take(statistics, shape, self.pyramid.orientations(octave), parent)
            coarse[octave] = above, statistics  # which go on learning: children start with those after the last octave
        for octave, block in coarse.items():
            self._cache.put((self, octave, (0, 0, 0)), block)
        return coarse[wanted]


def _regrid(
    sums: npt.NDArray[np.float64], starts: npt.NDArray[Any], edges: npt.NDArray[Any], axis: int
) -> npt.NDArray[np.float64]:
    """Share out what is spread evenly over the intervals between ``starts`` among those between ``edges``."""
    running = np.insert(np.cumsum(sums, axis), 0, 0.0, axis)
    place = np.interp(edges, starts, np.arange(len(starts)))
    low = np.minimum(place.astype(np.int64), len(starts) - 2)
    share = (place - low).reshape([-1 if a == axis else 1 for a in range(3)])
    return np.diff(np.take(running, low, axis) * (1 - share) + np.take(running, low + 1, axis) * share, axis=axis)

"""The wavelet layer: what a volume's network leaves over, as quantised wavelet coefficients in an octree of blocks.

An octave of the wavelet pyramid is cut into blocks of equal side; a block's parent covers it one octave coarser. Blocks
are coded one by one, so that a region decodes from its own blocks and their ancestors, and a block starts with the
statistics its parent ended with: what a network's segments do for parameters, blocks do for probabilities.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import product
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from napari_tinc.format.ranged import RangedStreams
from napari_tinc.geometry.octree import Octree
from napari_tinc.geometry.pyramid import (
    BlockCache,
    BlockPyramid,
    Bounds,
    Cell,
    leaf_bytes,
)
from napari_tinc.geometry.sampling import interpolate, neighbours, sample_positions
from napari_tinc.quantiser import step_of
from napari_tinc.system.forks import with_fresh_locks
from napari_tinc.system.threads import block_threads
from napari_tinc.wavelets import coefficients
from napari_tinc.wavelets import transform as wavelet
from napari_tinc.wavelets.cells import Cells
from napari_tinc.wavelets.coefficients import NO_PARENT, Parent, Statistics
from napari_tinc.wavelets.transform import Floats32

Symbols = npt.NDArray[np.int32]

# Sides of blocks are powers of two; a block holds at most so many symbols.
SIDE_CODES = range(2, 9)
MAX_BLOCK = 2**18


@with_fresh_locks
@dataclass(frozen=True)
class Pyramid(BlockPyramid):
    """The blocks of a wavelet transform: every octave of the pyramid has a band for each set of its split axes."""

    @cached_property
    def _orientations(self) -> tuple[Symbols, ...]:
        return tuple(np.array(wavelet.orientations(axes), np.int32) for axes in self.splits)

    def orientations(self, octave: int) -> Symbols:
        """Orientations of the bands of an octave in the order they are coded."""
        return self._orientations[octave]

    def parent(self, octave: int, cell: Cell, symbols: Cells | None) -> Parent:
        """What a block sees of its parent, whose symbols are given; nothing at the coarsest octave."""
        if symbols is None:
            return NO_PARENT
        bands, factors = self._kin[octave]
        side, (z, y, x), (fz, fy, fx) = self.side, cell, self.factors(octave + 1)
        origin = np.array((z % fz * side // fz, y % fy * side // fy, x % fx * side // fx), np.int32)
        return Parent(symbols, bands, origin, factors)

    @cached_property
    def _kin(self) -> tuple[tuple[Symbols, Symbols], ...]:
        """By octave: which of its parents' bands has the orientation of each of its own, and their factors."""
        found = []
        for octave in range(self.octaves - 1):
            known = {int(o): i for i, o in enumerate(self.orientations(octave + 1))}
            bands = np.array([known.get(int(o), -1) for o in self.orientations(octave)], np.int32)
            found.append((bands, np.array(self.factors(octave + 1), np.int32)))
        return tuple(found)


# Symbols, None where all are 0, and the statistics that children start with: the finest, most of all, have none.
_Block = tuple[Cells | None, Statistics | None]


class Piece(NamedTuple):
    """The part of a block that is in a region."""

    cells: Cells
    """Symbols of the whole block."""
    begin: Cell
    """Where the part begins in the block."""
    place: Cell
    """Where it begins in the region."""
    sides: Cell


@with_fresh_locks
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

    @cached_property
    def _sizes(self) -> tuple[float, float, float]:
        """Step, what a magnitude of 1 stands for, and what is taken from the others."""
        return self.step, (1 - self.offsets[0] / 256) * self.step, self.offsets[1] / 256 * self.step

    def dequantise(self, octave: int, pieces: Sequence[Piece], samples: Floats32) -> None:
        """Write what pieces of an octave stand for, where :func:`napari_tinc.wavelets.transform.band_of` has bands."""
        orientations = self.pyramid.orientations(octave)
        z, y, x = (factor - 1 for factor in self.pyramid.factors(octave))
        split = z, y, x
        for cells, begin, place, sides in pieces:
            cells.dequantise(begin, samples, place, sides, orientations, split, self._sizes)

    def dequantised(self, symbols: Symbols) -> Floats32:
        """Return what symbols stand for, as :meth:`dequantise` does."""
        step, first, others = self._sizes
        sizes = np.abs(symbols.astype(np.int64))
        values = np.where(sizes > 1, sizes * step - others, np.where(sizes == 1, first, 0))
        return (np.sign(symbols) * values).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Known:
    """Blocks of a layer that who coded it need not decode.

    Parameters
    ----------
    cache : BlockCache
        Where they are kept; layers may share it.
    """

    cache: BlockCache

    def put(self, octave: int, cell: Cell, block: _Block) -> None:
        """Keep a block as decoding gives it, unless there are too many."""
        self.cache.put((self, octave, cell), block)

    def get(self, octave: int, cell: Cell) -> _Block | None:
        """Return a block that was kept."""
        return self.cache.get((self, octave, cell))


@dataclass(frozen=True)
class CodedWavelets:
    """The coded wavelet layer of one spatial volume.

    Parameters
    ----------
    head : WaveletHead
    trunk : bytes
        Stream of the coarse octaves.
    streams : sequence of bytes
        One per block outside the trunk, octave by octave from coarse to fine; empty where all symbols are 0. Of a
        file that is read by ranges they are read when they are asked for.
    trunk_ends_early : bool
        Whether the end of the trunk is not at hand: octaves that depend on it are taken for 0.
    known : Known, optional
        Blocks that need not be decoded.
    """

    head: WaveletHead
    trunk: bytes
    streams: Sequence[bytes]
    trunk_ends_early: bool = False
    known: Known | None = field(default=None, compare=False)

    @cached_property
    def lengths(self) -> tuple[int, ...]:
        """Bytes of every stream."""
        return self.streams.lengths if isinstance(self.streams, RangedStreams) else tuple(map(len, self.streams))

    def read(self, numbers: list[int]) -> list[bytes]:
        """Return some of the streams."""
        if isinstance(self.streams, RangedStreams):
            return self.streams.read(numbers)
        return [self.streams[number] for number in numbers]


class WaveletLayer:
    """The wavelets of one item, decoded region by region.

    Parameters
    ----------
    coded : CodedWavelets
    cache : BlockCache
        Where decoded blocks are kept; layers may share it.
    nbytes : int
        Size of its segment in a frame, to be shared out by :meth:`leaf_bytes`.
    """

    has_threads = False

    def __init__(self, coded: CodedWavelets, cache: BlockCache, nbytes: int = 0) -> None:
        self._nbytes = nbytes
        self.head, self.pyramid = coded.head, coded.head.pyramid
        self._coded = coded
        self._cache = cache

    def values(self, bounds: Bounds, scale: float) -> Floats32:
        """Evaluate a region, see :class:`napari_tinc.layers.Layer`."""
        return self.sample(self._positions(bounds, scale), scale).reshape([b - a for a, b in bounds])

    def grids(self, bounds: Bounds, scale: float) -> tuple[int, float, list[npt.NDArray[np.float64]]]:
        """Octave that is decoded for a region, what its samples are multiplied by, and positions among them."""
        octave, halvings, grids = self._grids(self._positions(bounds, scale), scale)
        return octave, 2 ** (-sum(halvings) / 2), grids

    def _positions(self, bounds: Bounds, scale: float) -> tuple[npt.NDArray[np.float64], ...]:
        """Where the samples of a region are, in voxels along z, y, x; an image has one plane."""
        sides = self.pyramid.shape[3 - len(bounds) :]
        positions = [sample_positions(a, b, scale, side) for (a, b), side in zip(bounds, sides, strict=True)]
        return (*[np.zeros(1)] * (3 - len(positions)), *positions)

    def region(self, octave: int, bounds: Bounds) -> Floats32:
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
        axes, shape, inner = pyramid.splits[octave], pyramid.shapes[octave], self.inner(octave, bounds)
        pairs = zip(inner, shape, strict=True)
        sides = [b - a + min(b, n // 2) - a if axis in axes else b - a for axis, ((a, b), n) in enumerate(pairs)]
        samples = np.zeros(sides, np.float32)
        wavelet.band_of(samples, 0, axes)[...] = self.region(octave + 1, inner)
        self.head.dequantise(octave, self.pieces(octave, inner), samples)
        wavelet.merge(samples, axes)
        starts = [2 * lo if axis in axes else lo for axis, (lo, _) in enumerate(inner)]
        return samples[tuple(slice(a - s, b - s) for (a, b), s in zip(bounds, starts, strict=True))]

    def sample(self, positions: tuple[npt.NDArray[np.float64], ...], scale: float) -> Floats32:
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
        return values * np.float32(2 ** (-sum(halvings) / 2)) if any(halvings) else values

    def _grids(
        self, positions: tuple[npt.NDArray[np.float64], ...], scale: float
    ) -> tuple[int, list[int], list[npt.NDArray[np.float64]]]:
        """Octave that is decoded for a scale, how often it has halved each axis, and the positions in its samples."""
        octave, halvings = self.pyramid.octave_of(scale)
        sides = self.pyramid.shapes[octave]
        grids = [np.clip(p / 2**h, 0, n - 1) for p, h, n in zip(positions, halvings, sides, strict=True)]
        return octave, halvings, grids

    def inner(self, octave: int, bounds: Bounds) -> Bounds:
        """Coefficients of an octave that a region of what it splits needs."""
        axes, shape = self.pyramid.splits[octave], self.pyramid.shapes[octave]
        return tuple(
            wavelet.needed(*bound, n) if axis in axes else bound
            for axis, (bound, n) in enumerate(zip(bounds, shape, strict=True))
        )

    def region_bytes(self, bounds: Bounds, scale: float) -> int:
        """Bytes of the blocks that a region needs, their ancestors, the trunk and the head."""
        first, _, grids = self._grids(self._positions(bounds, scale), scale)
        inner, needed = neighbours(grids, self.pyramid.shapes[first]), set[Cell]()
        total = self._nbytes - sum(self._coded.lengths)
        for octave in range(first, self.pyramid.trunk):
            inner = self.inner(octave, inner)
            needed |= set(self.pyramid.meeting(inner))
            total += sum(self._coded.lengths[self.pyramid.number(octave, cell)] for cell in needed)
            needed = {self.pyramid.parent_cell(octave, cell) for cell in needed}
        return total

    def leaf_bytes(self, tree: Octree) -> npt.NDArray[np.float64]:
        """Bytes of the segment spent on every leaf, see :func:`napari_tinc.geometry.pyramid.leaf_bytes`."""
        return leaf_bytes(self.pyramid, self._coded.lengths, self._nbytes, tree)

    def pieces(self, octave: int, bounds: Bounds) -> list[Piece]:
        """Decode the blocks that a region of an octave's coefficients meets; those of zeros are left out."""
        side = self.pyramid.side
        # By axis, for every block: its number, where the part begins in it and in the region, and how long it is.
        spans = [
            [
                (i, max(a - i * side, 0), max(i * side - a, 0), min((i + 1) * side, b) - max(i * side, a))
                for i in range(a // side, -(-b // side))
            ]
            for a, b in bounds
        ]
        found = list(product(*spans))
        blocks = self._blocks(octave, [(z[0], y[0], x[0]) for z, y, x in found])
        return [
            Piece(cells, (z[1], y[1], x[1]), (z[2], y[2], x[2]), (z[3], y[3], x[3]))
            for (z, y, x), (cells, _) in zip(found, blocks, strict=True)
            if cells is not None
        ]

    def _blocks(self, octave: int, cells: list[Cell]) -> list[_Block]:
        """Blocks of an octave; those that are not known are decoded."""
        if octave >= self.pyramid.trunk:
            cells = [(0, 0, 0)]
        found: dict[Cell, _Block] = {}
        if self._coded.known is not None:
            found = {cell: block for cell in cells if (block := self._coded.known.get(octave, cell))}
        keys = [(self, octave, cell) for cell in cells if cell not in found]
        if octave >= self.pyramid.trunk:
            decoded = self._cache.decoded(keys, lambda _: [self._read_trunk(octave)])
        else:
            from_afar = isinstance(self._coded.streams, RangedStreams)  # several streams take a read
            decoded = self._cache.decoded(keys, partial(self._decode_all, octave), at_once=from_afar)
        found |= {cell: block for (_, _, cell), block in decoded.items()}
        return [found[cell] for cell in cells]

    def _decode_all(self, octave: int, keys: list[tuple[WaveletLayer, int, Cell]]) -> Iterator[_Block]:
        """Decode blocks of an octave side by side, their ancestors before."""
        cells = [cell for _, _, cell in keys]
        parents = [self.pyramid.parent_cell(octave, cell) for cell in cells]
        wanted = list(dict.fromkeys(parents))
        above = dict(zip(wanted, self._blocks(octave + 1, wanted), strict=True))
        streams = self._coded.read([self.pyramid.number(octave, cell) for cell in cells])
        jobs = [
            (octave, cell, *above[parent], stream) for cell, parent, stream in zip(cells, parents, streams, strict=True)
        ]
        return block_threads().map(lambda job: self._decode(*job), jobs)

    def _decode(
        self, octave: int, cell: Cell, above: Cells | None, statistics: Statistics | None, stream: bytes
    ) -> _Block:
        assert statistics is not None
        if not stream:
            return None, statistics if octave else None
        learnt = statistics.copy()
        parent = self.pyramid.parent(octave, cell, above)
        cells = coefficients.Decoder(stream).take(
            learnt, self._block_shape(octave, cell), self.pyramid.orientations(octave), parent
        )
        return cells, learnt if octave else None

    def _block_shape(self, octave: int, cell: Cell) -> tuple[int, int, int, int]:
        side, (depth, height, width) = self.pyramid.side, self.pyramid.shapes[octave + 1]
        z, y, x = (i * side for i in cell)
        return len(self.pyramid.orientations(octave)), min(side, depth - z), min(side, height - y), min(side, width - x)

    @property
    def coarse_octave(self) -> int:
        """Finest octave of which the trunk that is at hand has everything, and all coarser ones."""
        first = self.pyramid.trunk
        found = (self._blocks(octave, [(0, 0, 0)])[0] for octave in range(first, self.pyramid.octaves))
        return first + sum(decoded is None for decoded, _ in found)

    def _read_trunk(self, wanted: int) -> _Block:
        """Decode the coarse octaves, which have one block each, and return one of them."""
        decoder, statistics, above = coefficients.Decoder(self._coded.trunk), Statistics.fresh(), None
        coarse: dict[int, _Block] = {}
        for octave in reversed(range(self.pyramid.trunk, self.pyramid.octaves)):
            parent = self.pyramid.parent(octave, (0, 0, 0), above)
            shape = self._block_shape(octave, (0, 0, 0))
            above = decoder.take(statistics, shape, self.pyramid.orientations(octave), parent)
            if self._coded.trunk_ends_early and decoder.read > len(self._coded.trunk):
                for rest in range(self.pyramid.trunk, octave + 1):
                    coarse[rest] = None, statistics
                break
            coarse[octave] = above, statistics  # which go on learning: children start with those after the last octave
        for octave, block in coarse.items():
            self._cache.put((self, octave, (0, 0, 0)), block)
        return coarse[wanted]

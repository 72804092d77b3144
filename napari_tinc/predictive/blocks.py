"""A volume of whole numbers in blocks that decode alone, each from its own stream."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt

from napari_tinc.format.cursor import Cursor, integer, varint, zigzag
from napari_tinc.geometry.octree import Octree
from napari_tinc.geometry.pyramid import (
    Block,
    BlockCache,
    Bounds,
    Cell,
    bounds_of,
    overlap,
    slices_of,
    tile_bytes,
)
from napari_tinc.predictive.coder import (
    IN_PLANE,
    MAX_CLASSES,
    NEIGHBOURS,
    Numbers,
    Predictor,
    decode_block,
    encode_block,
)
from napari_tinc.predictive.prediction import LARGEST_WEIGHT, fit
from napari_tinc.system.threads import block_threads

MAX_BLOCK = 2**21
_HIGHEST = 2**40  # nine differences of numbers have fewer bits
# A plane needs few blocks if they are thin; the thinner, the less a number is known from the plane before.
_THIN, _SIDE, _SIDE_OF_IMAGE, _VOXELS = 16, 256, 1024, 2**20


@dataclass(frozen=True)
class BlockGrid:
    """How a volume is cut.

    Parameters
    ----------
    shape : tuple of int
        Voxels along z, y, x.
    sides : tuple of int
        Those of a block; the last ones may be smaller.
    """

    shape: tuple[int, int, int]
    sides: tuple[int, int, int]

    @classmethod
    def of(cls, shape: tuple[int, int, int]) -> BlockGrid:
        """Cut a volume into blocks of about a million voxels."""
        depth, height, width = shape
        most = _SIDE_OF_IMAGE if depth == 1 else _SIDE
        y, x = _even(height, most), _even(width, most)
        return cls(shape, (_even(depth, max(_THIN, _VOXELS // (y * x))), y, x))

    @property
    def counts(self) -> tuple[int, ...]:
        """Blocks along every axis."""
        return tuple(-(-n // side) for n, side in zip(self.shape, self.sides, strict=True))

    def box(self, cell: Cell) -> tuple[slice, ...]:
        """Voxels of a block."""
        sides = zip(cell, self.sides, self.shape, strict=True)
        return tuple(slice(i * side, min((i + 1) * side, n)) for i, side, n in sides)

    def cells(self) -> list[Cell]:
        """All blocks, in the order of their streams."""
        return list(product(*map(range, self.counts)))  # type: ignore[arg-type]

    def meeting(self, bounds: Bounds) -> list[Cell]:
        """Blocks that a region meets."""
        sides = zip(bounds, self.sides, strict=True)
        return list(product(*(range(a // side, -(-b // side)) for (a, b), side in sides)))  # type: ignore[arg-type]

    def number(self, cell: Cell) -> int:
        """Number of the stream of a block."""
        return int(np.ravel_multi_index(cell, self.counts))


def _even(side: int, most: int) -> int:
    """Side of the pieces of an axis: as few as can be, all about alike."""
    return -(-side // -(-side // most))


@dataclass(frozen=True, eq=False)
class CodedNumbers:
    """A volume of whole numbers, coded.

    Parameters
    ----------
    grid : BlockGrid
    largest : int
        No number is larger; none is smaller than 0, or than its negative if they are corrections.
    corrections : bool
        Whether the numbers are mostly 0, and not predicted.
    streams : tuple of bytes
        Of every block; empty for a block of corrections that are all 0.
    """

    grid: BlockGrid
    largest: int
    corrections: bool
    streams: tuple[bytes, ...]


def encode_numbers(
    shape: tuple[int, int, int], read: Callable[[tuple[slice, ...]], Numbers], largest: int, corrections: bool
) -> CodedNumbers:
    """Code a volume, side by side on all cores.

    Parameters
    ----------
    shape : tuple of int
        Voxels along z, y, x.
    read : callable
        Returns the numbers of a box, of any integer dtype; called by several threads at a time.
    largest : int
        At least 1 and below 2**33.
    corrections : bool
    """
    grid = BlockGrid.of(shape)

    def stream(cell: Cell) -> bytes:
        block = np.ascontiguousarray(read(grid.box(cell)), np.int64)
        if corrections:
            return encode_block(block, None, largest) if block.any() else b""
        predictor = fit(block)
        return pack_predictor(predictor, block.shape[0]) + encode_block(block, predictor, largest)

    return CodedNumbers(grid, largest, corrections, tuple(block_threads().map(stream, grid.cells())))


def pack_predictor(predictor: Predictor, depth: int) -> bytes:
    """Store a predictor, with which the stream of a block begins.

    Parameters
    ----------
    predictor : Predictor
    depth : int
        Planes of the block.
    """
    thresholds = predictor.thresholds.tolist()
    steps = [b - a for a, b in zip([0, *thresholds], thresholds, strict=False)]
    parts = [bytes([len(thresholds) + 1]), *map(varint, steps)]
    for row, used in zip(predictor.weights.tolist(), _used(len(thresholds) + 1, depth), strict=True):
        parts += map(zigzag, row[:used])
    return b"".join(parts)


def parse_predictor(stream: bytes, depth: int) -> tuple[Predictor, bytes]:
    """Invert :func:`pack_predictor`; also return the rest of the stream.

    Raises
    ------
    FormatError
        If the stream does not begin with a predictor.
    """
    cursor = Cursor(stream, 0, "a block")
    classes = integer("classes of a predictor", cursor.u8("the classes"), 1, MAX_CLASSES)
    steps = [integer("a threshold", cursor.varint("a threshold"), 0, _HIGHEST) for _ in range(classes - 1)]
    rows = _used(classes, depth)
    weights = np.zeros((len(rows), NEIGHBOURS), np.int64)
    for row, used in zip(weights, rows, strict=True):
        for place in range(used):
            row[place] = integer("a weight", cursor.zigzag("a weight"), -LARGEST_WEIGHT, LARGEST_WEIGHT)
    return Predictor(np.cumsum(steps, dtype=np.int64), weights), stream[cursor.position :]


def _used(classes: int, depth: int) -> list[int]:
    """Weights of every row that are stored."""
    return [IN_PLANE] * classes if depth == 1 else [NEIGHBOURS] * classes + [IN_PLANE]


class NumberBlocks:
    """Decodes regions of a volume of whole numbers.

    Parameters
    ----------
    coded : CodedNumbers
    cache : BlockCache
        Where decoded blocks are kept; others may share it.
    nbytes : int
        Size of its segment in a frame, to be shared out by :meth:`leaf_bytes`.
    """

    def __init__(self, coded: CodedNumbers, cache: BlockCache, nbytes: int = 0) -> None:
        self._coded, self._cache, self._nbytes = coded, cache, nbytes

    def region(self, bounds: Bounds) -> Numbers:
        """Decode a region.

        Parameters
        ----------
        bounds : tuple of (int, int)
            Start and stop along z, y, x.

        Returns
        -------
        ndarray of int64

        Raises
        ------
        FormatError
            A stream does not begin with a predictor.
        """
        grid, streams = self._coded.grid, self._coded.streams
        out = np.zeros([b - a for a, b in bounds], np.int64)
        cells = [cell for cell in grid.meeting(bounds) if streams[grid.number(cell)] or not self._coded.corrections]
        keys = [(self, cell) for cell in cells]
        decoded = self._cache.decoded(keys, lambda missing: block_threads().map(self._decode, missing))
        for (_, cell), (block, _) in decoded.items():
            assert block is not None
            box = grid.box(cell)
            out[overlap(box, bounds)] = block[overlap(slices_of(bounds), bounds_of(box))]
        return out

    def _decode(self, key: tuple[NumberBlocks, Cell]) -> Block:
        grid, cell = self._coded.grid, key[1]
        stream = self._coded.streams[grid.number(cell)]
        shape = tuple(box.stop - box.start for box in grid.box(cell))
        if self._coded.corrections:
            numbers = decode_block(stream, shape, None, self._coded.largest)
            return numbers.astype(np.min_scalar_type(-self._coded.largest - 1)), None
        predictor, rest = parse_predictor(stream, shape[0])
        numbers = decode_block(rest, shape, predictor, self._coded.largest)
        return numbers.astype(np.min_scalar_type(self._coded.largest)), None

    def region_bytes(self, bounds: Bounds) -> int:
        """Bytes of the blocks that a region needs, and of the head."""
        grid, lengths = self._coded.grid, list(map(len, self._coded.streams))
        return self._nbytes - sum(lengths) + sum(lengths[grid.number(cell)] for cell in grid.meeting(bounds))

    def leaf_bytes(self, tree: Octree) -> npt.NDArray[np.float64]:
        """Bytes of the segment spent on every leaf; those of a block are spread evenly over its voxels."""
        grid = self._coded.grid
        lengths = np.array(list(map(len, self._coded.streams)), np.float64).reshape(grid.counts)
        return tile_bytes(lengths, grid.sides, grid.shape, self._nbytes, tree)


def pack_numbers(coded: CodedNumbers) -> bytes:
    """Store how numbers are cut, the lengths of their streams, and the streams."""
    lengths = b"".join(varint(len(stream)) for stream in coded.streams)
    return b"".join([varint(coded.largest), *map(varint, coded.grid.sides), lengths, *coded.streams])


def packed_numbers_size(coded: CodedNumbers) -> int:
    """Bytes of what :func:`pack_numbers` returns."""
    head = [coded.largest, *coded.grid.sides, *map(len, coded.streams)]
    return sum(len(varint(number)) for number in head) + sum(map(len, coded.streams))


def parse_numbers(cursor: Cursor, shape: tuple[int, int, int], corrections: bool, most: int) -> CodedNumbers:
    """Invert :func:`pack_numbers`, with which a segment ends.

    Parameters
    ----------
    cursor : Cursor
    shape : tuple of int
        Voxels along z, y, x.
    corrections : bool
    most : int
        What the largest number may be.

    Raises
    ------
    FormatError
        If these are not numbers of such a volume.
    """
    largest = integer("largest number", cursor.varint("the largest number"), 1, most)
    z, y, x = (integer("side of a block", cursor.varint("the side of a block"), 1, n) for n in shape)
    integer("voxels of a block", z * y * x, 1, MAX_BLOCK)
    grid = BlockGrid(shape, (z, y, x))
    return CodedNumbers(grid, largest, corrections, cursor.streams(math.prod(grid.counts)))

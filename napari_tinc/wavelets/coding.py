"""Coefficients of a volume, and what they become at one step of the quantiser: block by block, in any order."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from napari_tinc.geometry.pyramid import BlockCache, Cell
from napari_tinc.quantiser import step_of
from napari_tinc.system.threads import block_threads, usable_cores
from napari_tinc.wavelets.blocks import CodedWavelets, Known, Pyramid, WaveletHead
from napari_tinc.wavelets.cells import Cells
from napari_tinc.wavelets.coefficients import Encoder, Statistics
from napari_tinc.wavelets.likely import LAMBDA
from napari_tinc.wavelets.residual import Residual, halved, reader, split
from napari_tinc.wavelets.transform import Axes, Floats32

Sums = npt.NDArray[np.float64]

# What is coded between two steps: some blocks for every thread, and no fewer than this many symbols.
_BLOCKS_PER_THREAD, _SYMBOLS_AT_A_TIME = 8, 2**19
# A size is guessed from some of the blocks that have descendants of their own, where there are many; of all that many.
_MANY, _SOME = 24, 8
# Steps of a coefficient that may be kept: by their number sizes of blocks hardly scatter.
_KEPT = 0.6
# Blocks are coded again with their descendants where these have so much of the bytes.
_WORTH = 0.2


@dataclass(frozen=True, eq=False)
class Coefficients:
    """A volume in the wavelet domain.

    Parameters
    ----------
    pyramid : Pyramid
    bands : tuple of ndarray of float32
        Per octave, from the finest: all high-pass bands, shape (bands, z, y, x); shorter ones end in zeros.
    dc : float
        The one low-pass coefficient.
    weights : tuple of ndarray or None
        Per octave: weight of each coefficient's squared error, shape (1, z, y, x); or one for all.
    """

    pyramid: Pyramid
    bands: tuple[Floats32, ...]
    dc: float
    weights: tuple[Floats32, ...]

    @classmethod
    def of(cls, residual: Residual, splits: tuple[Axes, ...], side: int) -> Generator[None, None, Coefficients]:
        """Transform a volume, box by box."""
        pyramid = Pyramid(residual.shape, splits, side)
        read, read_weights = residual.read, residual.weights
        octaves, importance = [], []
        for octave, axes in enumerate(pyramid.splits):
            low, bands = yield from split(read, pyramid.shapes[octave], axes, pyramid.orientations(octave).tolist())
            octaves.append(bands)
            read = reader(low)
            if read_weights is not None:
                coarser = halved(read_weights, pyramid.shapes[octave], axes)
                importance.append(coarser[None])
                read_weights = reader(coarser)
            else:
                importance.append(np.ones((1, 1, 1, 1), np.float32))
        return cls(pyramid, tuple(octaves), float(read(((0, 1),) * 3).item()), tuple(importance))

    def part(self, octave: int, cell: Cell) -> Floats32:
        """Coefficients of a block."""
        return self.bands[octave][(slice(None), *self.pyramid.box(octave, cell))]

    def weights_of(self, octave: int, cell: Cell) -> Floats32:
        """Weights of the errors of a block's coefficients, or one for all."""
        weights = self.weights[octave]
        if weights.size == 1:
            return weights
        return np.ascontiguousarray(weights[(slice(None), *self.pyramid.box(octave, cell))])


class _Block(NamedTuple):
    """A block that is coded."""

    stream: bytes
    cells: Cells | None
    learnt: Statistics | None
    """What its children start with; None if it has none."""
    sums: Sums

    @property
    def nbytes(self) -> int:
        return len(self.stream) + _varint_size(len(self.stream))


# By octave and cell.
_Blocks = dict[tuple[int, Cell], _Block]
# Octave, cell and the parent's block.
_Job = tuple[int, Cell, _Block]


class Coding:
    """What coefficients become at one step, in the making.

    Parameters
    ----------
    coefficients : Coefficients
    step_code : int
    coded : BlockCache
        Keeps what has been coded, for who would decode it.
    """

    def __init__(self, coefficients: Coefficients, step_code: int, coded: BlockCache) -> None:
        self._coefficients, self._pyramid = coefficients, coefficients.pyramid
        self._step_code, self._step = step_code, step_of(step_code)
        self._known = Known(coded)
        self._trunk = self._encode_trunk()
        self._blocks: _Blocks = {}
        self.nbytes = len(self._trunk.stream)

    def whole(self, number: int) -> Generator[int, None, None]:
        """Code all that is not coded yet; yield the ``number`` of the try every so often."""
        octaves = reversed(range(self._pyramid.trunk))
        missing = dict.fromkeys(
            (o, cell) for o in octaves for cell in self._pyramid.cells(o) if (o, cell) not in self._blocks
        )
        # The others come after their parents.
        begin = [key for key in missing if self._parent(*key) not in missing]
        for made in self._down(begin, 0):
            self.keep(made)
            yield number

    def glance(self, number: int) -> Generator[int, None, float | None]:
        """Code a part, and guess from it how many bytes all will take; None if there are few blocks.

        Octaves of few blocks are coded, and of those below some blocks with their descendants, from all over the range
        of how many coefficients are likely to be kept.
        """
        pyramid = self._pyramid
        first = max((o for o in range(pyramid.trunk) if pyramid.number_at(o) >= _MANY), default=None)
        if first is None:
            return None
        for made in self._down([(pyramid.trunk - 1, cell) for cell in pyramid.cells(pyramid.trunk - 1)], first + 1):
            self.keep(made)
            yield number
        claims, before = self._claims(first), self.nbytes
        ordered = sorted(claims, key=claims.__getitem__)
        every = min(len(ordered) // _SOME, _SOME)
        some = ordered[every // 2 :: every]
        sizes = dict.fromkeys(some, 0)
        for made in self._down([(first, cell) for cell in some], 0):
            self.keep(made)
            for (octave, cell), block in made.items():
                sizes[pyramid.ancestor(octave, cell, first)] += block.nbytes
            yield number
        return before + _sum_between(
            [claims[cell] for cell in ordered], [claims[cell] for cell in some], list(sizes.values())
        )

    def apart(self) -> list[tuple[int, Cell]]:
        """Blocks that may be coded again, with their descendants, one without the others; the smallest first."""
        pyramid, total = self._pyramid, 0
        below: dict[Cell, int] = {}
        for octave in range(pyramid.trunk):
            sizes = {cell: self._blocks[octave, cell].nbytes for cell in pyramid.cells(octave)}
            for cell, nbytes in below.items():
                sizes[pyramid.parent_cell(octave - 1, cell)] += nbytes
            below, total = sizes, sum(sizes.values())
            if total >= _WORTH * self.nbytes:
                break
        else:
            return []
        return [(octave, cell) for cell in sorted(below, key=below.__getitem__)]

    def again(self, octave: int, cell: Cell, lagrangian: float) -> _Blocks:
        """Code a block and its descendants with another price of bits, to be kept or not."""
        made: _Blocks = {}
        for some in self._down([(octave, cell)], 0, lagrangian):
            made |= some
        return made

    def more(self, made: _Blocks) -> int:
        """Bytes that blocks take more than those in their place."""
        return sum(
            block.nbytes - (self._blocks[key].nbytes if key in self._blocks else 0) for key, block in made.items()
        )

    def keep(self, made: _Blocks) -> None:
        """Put blocks into their places."""
        self.nbytes += self.more(made)
        for (octave, cell), block in made.items():
            self._known.put(octave, cell, (block.cells, block.learnt))
            self._blocks[octave, cell] = block if octave else block._replace(cells=None)

    def finished(self) -> tuple[CodedWavelets, float]:
        """Return the layer, and its squared error."""
        pyramid, dc = self._pyramid, self._coefficients.dc
        low = round(dc / self._step)
        blocks = [self._blocks[o, cell] for o in reversed(range(pyramid.trunk)) for cell in pyramid.cells(o)]
        tally = _Tally([self._trunk.sums, *(block.sums for block in blocks)])
        head = WaveletHead(pyramid, self._step_code, tally.offsets, low)
        layer = CodedWavelets(head, self._trunk.stream, tuple(block.stream for block in blocks), known=self._known)
        return layer, tally.error(self._step) + (dc - low * self._step) ** 2

    def _claims(self, octave: int) -> dict[Cell, float]:
        """Count the coefficients, of every fourth row, that blocks and their descendants are likely to keep."""
        pyramid, below = self._pyramid, dict[Cell, float]()
        for o in range(octave + 1):
            cells = list(pyramid.cells(o))
            claims = dict(zip(cells, block_threads().map(partial(self._claim, o), cells), strict=True))
            for cell, claim in below.items():
                claims[pyramid.parent_cell(o - 1, cell)] += claim
            below = claims
        return below

    def _claim(self, octave: int, cell: Cell) -> float:
        rows = self._coefficients.part(octave, cell)[:, ::2, ::2]
        return 1.0 + int(np.count_nonzero(np.abs(rows) > _KEPT * self._step))

    def _encode_trunk(self) -> _Block:
        pyramid, encoder = self._pyramid, Encoder()
        statistics, above, sums = Statistics.fresh(), None, np.zeros(5)
        for octave in reversed(range(pyramid.trunk, pyramid.octaves)):
            above, added = self._add(encoder, octave, (0, 0, 0), above, statistics, LAMBDA)
            self._known.put(octave, (0, 0, 0), (above, statistics))  # which go on learning
            sums += added
        return _Block(encoder.finish(), above, statistics, sums)

    def _down(self, begin: Sequence[tuple[int, Cell]], last: int, lagrangian: float = LAMBDA) -> Iterator[_Blocks]:
        """Code blocks whose parents are coded, and all below them down to an octave; yield some at a time."""
        pyramid = self._pyramid

        def children(job: _Job, block: _Block) -> list[_Job]:
            octave, cell, _ = job
            return [(octave - 1, child, block) for child in pyramid.children(octave, cell)] if octave > last else []

        jobs = [(*key, self._block(*self._parent(*key))) for key in begin]
        most = max(_BLOCKS_PER_THREAD * usable_cores(), _SYMBOLS_AT_A_TIME // (7 * pyramid.side**3))
        made: _Blocks = {}
        for (octave, cell, _), block in block_threads().follow(
            lambda job: self._encode_block(*job, lagrangian), jobs, children
        ):
            made[octave, cell] = block
            if len(made) >= most:
                yield made
                made = {}
        yield made

    def _parent(self, octave: int, cell: Cell) -> tuple[int, Cell]:
        return octave + 1, self._pyramid.parent_cell(octave, cell)

    def _block(self, octave: int, cell: Cell) -> _Block:
        return self._trunk if octave == self._pyramid.trunk else self._blocks[octave, cell]

    def _encode_block(self, octave: int, cell: Cell, parent: _Block, lagrangian: float) -> _Block:
        assert parent.learnt is not None
        learnt, encoder = parent.learnt.copy(), Encoder()
        cells, sums = self._add(encoder, octave, cell, parent.cells, learnt, lagrangian)
        if not cells.places.size:
            return _Block(b"", None, parent.learnt if octave else None, sums)
        return _Block(encoder.finish() or b"\0", cells, learnt if octave else None, sums)

    def _add(
        self, encoder: Encoder, octave: int, cell: Cell, above: Cells | None, statistics: Statistics, lagrangian: float
    ) -> tuple[Cells, Sums]:
        coefficients, pyramid = self._coefficients, self._pyramid
        values, weights = (
            coefficients.part(octave, cell) / np.float32(self._step),
            coefficients.weights_of(octave, cell),
        )
        parent, orientations = pyramid.parent(octave, cell, above), pyramid.orientations(octave)
        return encoder.add(statistics, values, weights, lagrangian, orientations, parent)


def _sum_between(places: Sequence[float], known: Sequence[float], values: Sequence[float]) -> float:
    """Sum over ascending places of what is known at some of them; beyond those it is proportional to the place."""
    first, last = values[0] * places[0] / known[0], values[-1] * places[-1] / known[-1]
    return float(np.interp(places, [places[0], *known, places[-1]], [first, *values, last]).sum())


def streams_size(coded: CodedWavelets) -> int:
    """Bytes of a layer's streams, and of what says where they begin."""
    return len(coded.trunk) + sum(len(s) + _varint_size(len(s)) for s in coded.streams)


def _varint_size(number: int) -> int:
    """Bytes of a LEB128 number."""
    return max(1, -(-number.bit_length() // 7))


class _Tally:
    """Sums over all coefficients, from which the reconstruction offsets and the error follow.

    They are those of blocks, see :meth:`napari_tinc.wavelets.coefficients.Encoder.add`.
    """

    def __init__(self, blocks: Iterable[Sums]) -> None:
        self._sums: Sums = np.sum(list(blocks), 0)

    @property
    def offsets(self) -> tuple[int, int]:
        """Best reconstruction offsets in 256ths of a step."""
        first, others = (
            min(127, max(0, round(256 * excess / count))) if count else 0 for count, excess in self._of_kinds
        )
        return first, others

    def error(self, step: float) -> float:
        """Sum of squared errors with the best reconstruction offsets."""
        gained = sum(excess * excess / count for count, excess in self._of_kinds if count)
        return float(step**2 * (self._sums[0] - gained))

    @property
    def _of_kinds(self) -> Sums:
        return self._sums[1:].reshape(2, 2)


__all__ = ["Coding", "Coefficients", "streams_size"]

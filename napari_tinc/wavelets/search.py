"""Find the wavelet layer that fills a number of bytes: transform, quantise by rate and distortion, code."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from napari_tinc.geometry.pyramid import BlockCache, Cell, dyadic_splits
from napari_tinc.quantiser import STEP_CODES, code_of, step_of
from napari_tinc.system.steps import relay
from napari_tinc.system.threads import block_threads, usable_cores
from napari_tinc.wavelets.blocks import (
    MAX_BLOCK,
    SIDE_CODES,
    CodedWavelets,
    Known,
    Pyramid,
    WaveletHead,
)
from napari_tinc.wavelets.cells import Cells
from napari_tinc.wavelets.coefficients import LARGEST, Encoder, Statistics
from napari_tinc.wavelets.likely import LAMBDA, Likely, next_code
from napari_tinc.wavelets.residual import Residual, halved, reader, split
from napari_tinc.wavelets.transform import Axes, Floats32

Sums = npt.NDArray[np.float64]
# The first step to try for some share of the volumes, and the finest there may be.
_CodeOf = Callable[[Likely, int, float], int]

# Axes at least 1 / elongation of the longest are split together. Which is best depends on the steps between planes.
ELONGATIONS = (math.inf, 4.0, 1.5)
# Smaller blocks pay for the end of their stream; larger ones decode more than was asked for.
_BYTES_PER_BLOCK = 384
# Voxels of the blocks that a plane across the first axis meets: what a fifth of a second decodes.
_ROW_VOXELS = 2**22
TRIES = 12
# What is coded between two steps: some blocks for every thread, and no fewer than this many symbols.
_BLOCKS_PER_THREAD, _SYMBOLS_AT_A_TIME = 2, 2**19
_FILL = 0.993
_GOAL = math.log2((1 + _FILL) / 2)
# Of the room, what is enough where more would lower the error by less than so many octaves: 0.01 dB.
_NEARLY, _LEAST_GAIN = 0.985, 0.0035
# An error within so many octaves of its goal is close enough: 0.03 dB.
_CLOSE_ERROR = 0.01
# Smaller ones are asked for as this: logarithms have no 0.
LEAST_ERROR = 1e-300
# How much of the middle of larger volumes, and of how many, says which axes to split; how far off a guess of what that
# costs may be.
_MIDDLE_VOXELS, _ITEMS_TRIED, _UNSURE = 2**20, 4, 1.06


@dataclass(frozen=True, eq=False)
class Fit:
    """The wavelet layers of one or all of a file's items, and what they cost.

    Parameters
    ----------
    layers : tuple of CodedWavelets
    nbytes : int
        Size of all streams and what says where they begin.
    error : float
        Sum of all items' weighted squared errors, normalised.
    """

    layers: tuple[CodedWavelets, ...]
    nbytes: int
    error: float


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

    def encode(self, step_code: int, number: int, coded: BlockCache) -> Generator[int, None, Fit]:
        """Quantise and code with one step; yield the ``number`` of the try every so often.

        What has been coded is kept in ``coded``, for who would decode it.
        """
        pyramid, step = self.pyramid, step_of(step_code)
        dc = round(self.dc / step)
        tally, known = _Tally(), Known(coded)
        trunk, chosen, learnt = self._encode_trunk(step, tally)
        streams: list[bytes] = []
        above: dict[Cell, Cells | None] = {(0, 0, 0): chosen}
        statistics = {(0, 0, 0): learnt}
        for octave in reversed(range(pyramid.trunk)):
            cells, here, learnt_here = list(pyramid.cells(octave)), {}, {}
            symbols_of_one = len(pyramid.orientations(octave)) * pyramid.side**3
            at_a_time = max(_BLOCKS_PER_THREAD * usable_cores(), _SYMBOLS_AT_A_TIME // symbols_of_one)
            for first in range(0, len(cells), at_a_time):
                some = cells[first : first + at_a_time]
                parents = [pyramid.parent_cell(octave, cell) for cell in some]
                jobs = [(octave, cell, above[p], statistics[p], step) for cell, p in zip(some, parents, strict=True)]
                done = block_threads().map(lambda job: self._encode_block(*job), jobs)
                for cell, (stream, symbols, after, counted) in zip(some, done, strict=True):
                    streams.append(stream)
                    tally.add(counted)
                    known.put(octave, cell, (symbols, after if octave else None))
                    if octave:
                        here[cell], learnt_here[cell] = symbols, after
                yield number
            above, statistics = here, learnt_here
        head = WaveletHead(pyramid, step_code, tally.offsets, dc)
        layer = CodedWavelets(head, trunk, tuple(streams), known=known)
        return Fit((layer,), streams_size(layer), tally.error(step) + (self.dc - dc * step) ** 2)

    def _encode_trunk(self, step: float, tally: _Tally) -> tuple[bytes, Cells | None, Statistics]:
        pyramid, encoder = self.pyramid, Encoder()
        statistics, above = Statistics.fresh(), None
        for octave in reversed(range(pyramid.trunk, pyramid.octaves)):
            above, sums = self._add(encoder, octave, (0, 0, 0), above, statistics, step)
            tally.add(sums)
        return encoder.finish(), above, statistics

    def _encode_block(
        self, octave: int, cell: Cell, above: Cells | None, statistics: Statistics, step: float
    ) -> tuple[bytes, Cells | None, Statistics, Sums]:
        learnt, encoder = statistics.copy(), Encoder()
        symbols, sums = self._add(encoder, octave, cell, above, learnt, step)
        if not symbols.places.size:
            return b"", None, statistics, sums
        return encoder.finish() or b"\0", symbols, learnt, sums

    def _add(
        self, encoder: Encoder, octave: int, cell: Cell, above: Cells | None, statistics: Statistics, step: float
    ) -> tuple[Cells, Sums]:
        values, weights = self._part(octave, cell) / np.float32(step), self._weights(octave, cell)
        parent, orientations = self.pyramid.parent(octave, cell, above), self.pyramid.orientations(octave)
        return encoder.add(statistics, values, weights, LAMBDA, orientations, parent)

    def _part(self, octave: int, cell: Cell) -> Floats32:
        return self.bands[octave][(slice(None), *self.pyramid.box(octave, cell))]

    def _weights(self, octave: int, cell: Cell) -> Floats32:
        weights = self.weights[octave]
        if weights.size == 1:
            return weights
        return np.ascontiguousarray(weights[(slice(None), *self.pyramid.box(octave, cell))])


def streams_size(coded: CodedWavelets) -> int:
    """Bytes of a layer's streams, and of what says where they begin."""
    return len(coded.trunk) + sum(len(s) + _varint_size(len(s)) for s in coded.streams)


def _varint_size(number: int) -> int:
    """Bytes of a LEB128 number."""
    return max(1, -(-number.bit_length() // 7))


class _Tally:
    """Sums over all coefficients, from which the reconstruction offsets and the error follow."""

    def __init__(self) -> None:
        self._sums = np.zeros(5)

    def add(self, sums: Sums) -> None:
        """Add those of a block, see :meth:`napari_tinc.wavelets.coefficients.Encoder.add`."""
        self._sums += sums

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


def fit(residuals: Sequence[Residual], room: int, near: WaveletHead | None = None) -> Generator[int, None, Fit | None]:
    """Find the finest wavelet layers of at most ``room`` bytes: one step for all items.

    Parameters
    ----------
    residuals : sequence of Residual
        One per item, all of one shape.
    room : int
        Bytes for the streams and their lengths.
    near : WaveletHead, optional
        What filled nearly as many bytes: its axes are split again, and the search begins at its step.

    Yields
    ------
    int
        Number of the try, of at most `TRIES`; several times during each.

    Returns
    -------
    Fit or None
        None if even the coarsest step takes more.
    """
    room = max(1, room)

    def code_of(likely: Likely, finest: int, share: float) -> int:
        return likely.code_of_size(share * room, finest)

    best: Fit | None = None
    items, likely, finest, code = yield from _begun(residuals, code_of, near)
    tried: dict[int, float] = {}  # logarithms of sizes over what there is room for
    for number in range(TRIES):
        attempt = yield from _encode(items, code, number)
        tried[code] = math.log2(attempt.nbytes / room)
        if attempt.nbytes <= room and (best is None or attempt.nbytes >= best.nbytes):
            best = attempt
        if best is not None and best.nbytes >= _FILL * room:
            break
        code = next_code(tried, lambda code: _log2(likely.cost(code)[0] / room), _GOAL, finest)
        if code in tried:
            break
        if best is not None and best.nbytes >= _NEARLY * room:  # near the noise a step gains much less than bytes
            now, then = (_log2(likely.cost(at)[1]) for at in (best.layers[0].head.step_code, code))
            if now - then < _LEAST_GAIN:
                break
    return best


def fit_error(
    residuals: Sequence[Residual], error: float, near: WaveletHead | None = None
) -> Generator[int, None, Fit]:
    """Find the coarsest layers whose squared error is at most ``error``: one step for all items.

    Parameters
    ----------
    residuals : sequence of Residual
        One per item, all of one shape.
    error : float
        Sum of all items' weighted squared errors, normalised.
    near : WaveletHead, optional
        What had nearly that error: its axes are split again, and the search begins at its step.

    Yields
    ------
    int
        Number of the try, of at most `TRIES`; several times during each.

    Returns
    -------
    Fit
        If even the finest step loses more, that of the finest step.
    """
    error = max(error, LEAST_ERROR)

    def code_of(likely: Likely, finest: int, share: float) -> int:
        return likely.code_of_error(share * error, finest)

    best: Fit | None = None
    items, likely, finest, code = yield from _begun(residuals, code_of, near)
    tried: dict[int, float] = {}  # logarithms of the error allowed over the errors
    for number in range(TRIES):
        attempt = yield from _encode(items, code, number)
        tried[code] = -_log2(attempt.error / error)
        if (tried[code] >= 0 or code == finest) and (best is None or attempt.nbytes <= best.nbytes):
            best = attempt
        if 0 <= tried[code] <= _CLOSE_ERROR:
            break
        code = next_code(tried, lambda code: -_log2(likely.cost(code)[1] / error), _CLOSE_ERROR / 2, finest)
        if code in tried:
            break
    return best if best is not None else (yield from _encode(items, finest, TRIES - 1))


def fit_step(residual: Residual, step: float) -> Generator[int, None, Fit]:
    """Make the layer of a step, or of the nearest one there is.

    Parameters
    ----------
    residual : Residual
    step : float
        Normalised.

    Yields
    ------
    int
        Several times.

    Returns
    -------
    Fit
    """
    asked = code_of(step)
    items, _, _, code = yield from _begun([residual], lambda _, finest, share: max(asked, finest), None)
    return (yield from _encode(items, code, 0))


def at_step_of(residuals: Sequence[Residual], head: WaveletHead) -> Generator[int, None, Fit]:
    """Return the layers that have the step of another one, if their symbols are valid then, and split the same axes."""
    items = yield from _transformed(residuals, head.pyramid.splits, head.pyramid.side)
    return (yield from _encode(items, max(head.step_code, _finest_code(items)), 0))


def _encode(items: Sequence[Coefficients], code: int, number: int) -> Generator[int, None, Fit]:
    fits, coded = [], BlockCache()
    for item in items:
        fits.append((yield from item.encode(code, number, coded)))
    return Fit(tuple(f.layers[0] for f in fits), sum(f.nbytes for f in fits), sum(f.error for f in fits))


def _begun(
    residuals: Sequence[Residual], code_of: _CodeOf, near: WaveletHead | None
) -> Generator[int, None, tuple[list[Coefficients], Likely, int, int]]:
    """Transform all items; return what their coefficients are likely to cost, the finest step, and the first to try."""
    items: list[Coefficients] = []
    if near is None:
        items, splits = yield from _best_splits(residuals, code_of)
    else:
        splits = near.pyramid.splits
    items = items or (yield from _transformed(residuals, splits))
    finest, likely = _finest_code(items), _likely(items)
    code = code_of(likely, finest, 1.0) if near is None else max(near.step_code, finest)
    side = _block_side(residuals[0].shape, likely.cost(code)[0] / len(items)) if near is None else near.pyramid.side
    return [replace(item, pyramid=replace(item.pyramid, side=side)) for item in items], likely, finest, code


def _best_splits(
    residuals: Sequence[Residual], code_of: _CodeOf
) -> Generator[int, None, tuple[list[Coefficients], tuple[Axes, ...]]]:
    """Try how octaves may split the axes, at one step; return the best way, and the coefficients if they are all."""
    shape = residuals[0].shape
    ways = {dyadic_splits(shape, elongation): elongation for elongation in ELONGATIONS}
    if len(ways) == 1:
        return [], next(iter(ways))
    some = residuals[:: -(-len(residuals) // _ITEMS_TRIED)]
    share = min(1.0, _MIDDLE_VOXELS / (math.prod(shape) * len(some)))
    tried = [r.middle(int(share * math.prod(shape))) if share < 1 else r for r in some]
    made: dict[tuple[Axes, ...], list[Coefficients]] = {}
    for splits, elongation in ways.items():
        made[splits] = yield from _transformed(tried, dyadic_splits(tried[0].shape, elongation))
    begun = next(iter(made.values()))
    code = code_of(_likely(begun), _finest_code(begun), share * len(some) / len(residuals))
    price = LAMBDA * step_of(code) ** 2 * 8  # of a byte
    costs: dict[tuple[Axes, ...], float] = {}
    for splits, items in made.items():
        nbytes, error = _likely(items).cost(code)
        costs[splits] = error + price * nbytes
    close = [splits for splits, cost in costs.items() if cost <= _UNSURE * min(costs.values())]
    if len(close) > 1:
        for splits in close:
            side = _block_side(tried[0].shape, 0)
            items = [replace(item, pyramid=replace(item.pyramid, side=side)) for item in made[splits]]
            attempt = yield from _encode(items, code, 0)
            costs[splits] = attempt.error + price * attempt.nbytes
    best = min(close, key=costs.__getitem__)
    return (made[best] if len(tried) == len(residuals) and share == 1 else []), best


def _transformed(
    residuals: Sequence[Residual], splits: tuple[Axes, ...], side: int = 2 ** SIDE_CODES[0]
) -> Generator[int, None, list[Coefficients]]:
    items = []
    for residual in residuals:
        items.append((yield from relay(Coefficients.of(residual, splits, side), lambda done: 0)))
    return items


def _likely(items: Sequence[Coefficients]) -> Likely:
    return Likely([[item.bands[octave] for item in items] for octave in range(items[0].pyramid.octaves)])


def _log2(share: float) -> float:
    return math.log2(max(share, LEAST_ERROR))


def _block_side(shape: tuple[int, ...], room: float) -> int:
    """Side whose finest blocks have bytes enough; a larger one while a plane needs few voxels besides its own."""
    side: int = 2 ** SIDE_CODES[0]
    for code in SIDE_CODES:
        reach = [min(n, 2 ** (code + 1)) for n in shape]
        voxels, row = math.prod(reach), reach[0] * shape[1] * shape[2]
        few_bytes = room * (voxels / 8) / math.prod(shape) < _BYTES_PER_BLOCK
        if voxels > MAX_BLOCK or not (few_bytes or row <= _ROW_VOXELS):
            break
        side = 2**code
    return side


def _finest_code(items: Sequence[Coefficients]) -> int:
    """Find the smallest step whose symbols are all valid: any smaller one would resolve what float32 does not."""
    largest = max(max(abs(item.dc), *(_largest(bands) for bands in item.bands)) for item in items)
    return bisect_left(range(STEP_CODES - 1), True, key=lambda code: largest <= step_of(code) * (LARGEST / 4))


def _largest(bands: Floats32) -> float:
    return max(float(bands.max()), -float(bands.min()))


__all__ = [
    "LEAST_ERROR",
    "TRIES",
    "Coefficients",
    "Fit",
    "at_step_of",
    "fit",
    "fit_error",
    "fit_step",
    "streams_size",
]

"""Find the wavelet layer that fills a number of bytes: transform, quantise by rate and distortion, code."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from napari_tinc.geometry.pyramid import Cell, dyadic_splits
from napari_tinc.quantiser import STEP_CODES, code_of, step_of
from napari_tinc.system.steps import relay
from napari_tinc.system.threads import block_threads, usable_cores
from napari_tinc.wavelets.blocks import (
    MAX_BLOCK,
    SIDE_CODES,
    CodedWavelets,
    Pyramid,
    Symbols,
    WaveletHead,
    narrowed,
)
from napari_tinc.wavelets.coefficients import LARGEST, Encoder, Statistics
from napari_tinc.wavelets.residual import Residual, halved, reader, split
from napari_tinc.wavelets.transform import Axes, Floats32

Sums = npt.NDArray[np.float64]

# λ: squared steps that are worth a bit. docs/experiments.md shows how flat the optimum is.
LAMBDA = 0.08
# Axes at least 1 / elongation of the longest are split together. Which is best depends on the steps between planes.
ELONGATIONS = (math.inf, 4.0, 1.5)
# Smaller blocks pay for the end of their stream; larger ones decode more than was asked for.
_BYTES_PER_BLOCK = 384
# Voxels of the blocks that a plane across the first axis meets: what a fifth of a second decodes.
_ROW_VOXELS = 2**22
TRIES = 12
# What is coded between two steps: some blocks for every thread, and no fewer than this many symbols.
_BLOCKS_PER_THREAD, _SYMBOLS_AT_A_TIME = 2, 2**19
_FILL = 0.985
# Bits of a coefficient per octave of the step, to guess the step of a size; only speeds the search up.
_OCTAVES_PER_OCTAVE = 0.75
_BITS_PER_SYMBOL, _SAMPLED = 4.5, 2**20
# An error within so many octaves of its goal is close enough: 0.03 dB. Octaves of error per octave of step, and what
# share of a step is quantised to 0, to guess the step of an error; these only speed the search up.
_CLOSE_ERROR, _OCTAVES_OF_ERROR, _DEAD_ZONE = 0.01, 1.2, 0.65
# Smaller ones are asked for as this: logarithms have no 0.
LEAST_ERROR = 1e-300
# How much of a larger volume's middle says which axes to split.
_MIDDLE_VOXELS = 2**23


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

    def encode(self, step_code: int, number: int) -> Generator[int, None, Fit]:
        """Quantise and code with one step; yield the ``number`` of the try every so often."""
        pyramid, step = self.pyramid, step_of(step_code)
        dc = round(self.dc / step)
        tally = _Tally()
        trunk, chosen, learnt = self._encode_trunk(step, tally)
        streams: list[bytes] = []
        above: dict[Cell, Symbols | None] = {(0, 0, 0): chosen}
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
                    if octave:  # the finest blocks, most of all, have no children to remember them for
                        here[cell], learnt_here[cell] = symbols, after
                yield number
            above, statistics = here, learnt_here
        head = WaveletHead(pyramid, step_code, tally.offsets, dc)
        coded = CodedWavelets(head, trunk, tuple(streams))
        return Fit((coded,), streams_size(coded), tally.error(step) + (self.dc - dc * step) ** 2)

    def _encode_trunk(self, step: float, tally: _Tally) -> tuple[bytes, Symbols | None, Statistics]:
        pyramid, encoder = self.pyramid, Encoder()
        statistics, symbols = Statistics.fresh(), None
        for octave in reversed(range(pyramid.trunk, pyramid.octaves)):
            symbols, sums = self._add(encoder, octave, (0, 0, 0), symbols, statistics, step)
            tally.add(sums)
        return encoder.finish(), symbols, statistics

    def _encode_block(
        self, octave: int, cell: Cell, above: Symbols | None, statistics: Statistics, step: float
    ) -> tuple[bytes, Symbols | None, Statistics, Sums]:
        learnt, encoder = statistics.copy(), Encoder()
        symbols, sums = self._add(encoder, octave, cell, above, learnt, step)
        if not symbols.any():
            return b"", None, statistics, sums
        return encoder.finish() or b"\0", narrowed(symbols), learnt, sums

    def _add(
        self, encoder: Encoder, octave: int, cell: Cell, above: Symbols | None, statistics: Statistics, step: float
    ) -> tuple[Symbols, Sums]:
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
    best: Fit | None = None
    if near is None:
        items = yield from _in_best_elongation(residuals, room)
    else:
        items = yield from _transformed(residuals, near.pyramid.splits, near.pyramid.side)
    finest = _finest_code(items)
    guess = _likely_code(items, room, finest) if near is None else max(near.step_code, finest)
    tried: dict[int, float] = {}  # logarithms of sizes over what there is room for
    for number in range(TRIES):
        attempt = yield from _encode(items, guess, number)
        tried[guess] = math.log2(attempt.nbytes / room)
        if attempt.nbytes <= room and (best is None or attempt.nbytes >= best.nbytes):
            best = attempt
        following = max(next_code(tried, guess), finest)
        if (best is not None and best.nbytes >= _FILL * room) or following in tried:
            break
        guess = following
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
    if near is None:
        items = yield from _begun(residuals)
        sizes, weight = _sampled(items)
        room = weight * _likely_bits(sizes, _likely_code_of_error(items, error, _finest_code(items))) / 8
        items = yield from _in_best_elongation(residuals, max(1.0, room), begun=items)
    else:
        items = yield from _transformed(residuals, near.pyramid.splits, near.pyramid.side)
    finest = _finest_code(items)
    code = _likely_code_of_error(items, error, finest) if near is None else max(near.step_code, finest)
    best: Fit | None = None
    kept: tuple[int, float] | None = None  # a step whose error is small enough, and its logarithm above the goal's
    lost: tuple[int, float] | None = None
    for number in range(TRIES):
        attempt = yield from _encode(items, code, number)
        above = math.log2(max(attempt.error, LEAST_ERROR) / error)
        if above <= 0 or code == finest:
            kept, best = (code, above), attempt
        else:
            lost = (code, above)
        if best is not None and -_CLOSE_ERROR <= above <= 0:
            break
        if kept and lost:
            share = (kept[1] + _CLOSE_ERROR / 2) / (kept[1] - lost[1])
            following = min(max(kept[0] + round(share * (lost[0] - kept[0])), kept[0] + 1), lost[0] - 1)
        else:
            stride = 256 / _OCTAVES_OF_ERROR * (above + _CLOSE_ERROR / 2)
            following = code - round((1 << number) ** 0.5 * stride) - (1 if above > 0 else -1)
        following = min(max(following, finest), STEP_CODES - 1)
        if following in (code, kept and kept[0], lost and lost[0]):
            break
        code = following
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
    items = yield from _begun([residual])
    sizes, weight = _sampled(items)
    code = min(max(asked, _finest_code(items)), STEP_CODES - 1)
    room = max(1.0, weight * _likely_bits(sizes, code) / 8)
    items = yield from _in_best_elongation([residual], room, code, items)
    return (yield from _encode(items, max(code, _finest_code(items)), 0))


def at_step_of(residuals: Sequence[Residual], head: WaveletHead) -> Generator[int, None, Fit]:
    """Return the layers that have the step of another one, if their symbols are valid then, and split the same axes."""
    items = yield from _transformed(residuals, head.pyramid.splits, head.pyramid.side)
    return (yield from _encode(items, max(head.step_code, _finest_code(items)), 0))


def _encode(items: Sequence[Coefficients], code: int, number: int) -> Generator[int, None, Fit]:
    fits = []
    for item in items:
        fits.append((yield from item.encode(code, number)))
    return Fit(tuple(f.layers[0] for f in fits), sum(f.nbytes for f in fits), sum(f.error for f in fits))


def next_code(tried: dict[int, float], last: int) -> int:
    """Propose a step code: between those that are too fine and too coarse, or beyond all, further with every try.

    Parameters
    ----------
    tried : dict of int to float
        Logarithm of the size over the goal of every code that was tried, in the order of the tries.
    last : int
        The last one of them.
    """
    fine = max((code for code, size in tried.items() if size > 0), default=None)
    coarse = min((code for code, size in tried.items() if size <= 0), default=None)
    if fine is None or coarse is None:
        size = tried[last]
        stride = 256 * _OCTAVES_PER_OCTAVE * (size + (0.02 if size > 0 else -0.02)) + (1 if size > 0 else -1)
        return min(last + round((1 << (len(tried) - 1)) * stride), STEP_CODES - 1)
    near = sorted(tried, key=lambda code: min(abs(code - fine), abs(code - coarse)))[:3]
    goal = math.log2((1 + _FILL) / 2)
    return min(max(round(_crossing(near, [tried[code] - goal for code in near], fine, coarse)), fine + 1), coarse - 1)


def _crossing(codes: Sequence[int], sizes: Sequence[float], low: int, high: int) -> float:
    """Where sizes cross 0 between two codes: on the parabola through three of them, or on the line through two.

    Near the noise of a volume sizes fall ever faster, so that lines alone would creep up to the goal from one side.
    """
    at, values = np.array(codes, np.float64) - low, np.array(sizes)
    inside = [0.5 * (high - low)]
    for degree in range(1, len(codes)):
        roots = np.roots(np.polyfit(at[: degree + 1], values[: degree + 1], degree))
        real = [float(root.real) for root in roots if abs(root.imag) < 1e-9 and 0 < root.real < high - low]
        inside = real or inside
    return low + inside[0]


def _in_best_elongation(
    residuals: Sequence[Residual], room: float, code: int = 0, begun: Sequence[Coefficients] = ()
) -> Generator[int, None, list[Coefficients]]:
    """Try how octaves may split the axes, at one step, and transform in the way that costs least.

    Without a ``code`` the step is one that is likely to fill ``room`` bytes. What was ``begun``, see :func:`_begun`, is
    not transformed again.
    """
    shape = residuals[0].shape
    side = _block_side(shape, room / len(residuals))
    share = min(1.0, _MIDDLE_VOXELS / (math.prod(shape) * len(residuals)))
    tried = [r.middle(int(share * math.prod(shape))) if share < 1 else r for r in residuals]
    ways = {dyadic_splits(shape, elongation): elongation for elongation in ELONGATIONS}
    best: list[Coefficients] = []
    chosen, least = next(iter(ways)), math.inf
    for splits, elongation in ways.items():
        if len(ways) == 1:
            break
        of_tried = splits if share == 1 else dyadic_splits(tried[0].shape, elongation)
        items = yield from _transformed(tried, of_tried, side)
        code = code or _likely_code(items, share * room, _finest_code(items))
        attempt = yield from _encode(items, code, 0)
        cost = attempt.error + LAMBDA * step_of(code) ** 2 * 8 * attempt.nbytes
        if cost < least:
            best, chosen, least = items, splits, cost
    if best and share == 1:
        return best
    if begun and chosen == begun[0].pyramid.splits:
        return [replace(item, pyramid=Pyramid(item.pyramid.shape, chosen, side)) for item in begun]
    return (yield from _transformed(residuals, chosen, side))


def _begun(residuals: Sequence[Residual]) -> Generator[int, None, list[Coefficients]]:
    """Transform in the way that most volumes end with, before it is known how to cut it into blocks."""
    return (yield from _transformed(residuals, dyadic_splits(residuals[0].shape, math.inf), 2 ** SIDE_CODES[0]))


def _transformed(
    residuals: Sequence[Residual], splits: tuple[Axes, ...], side: int
) -> Generator[int, None, list[Coefficients]]:
    items = []
    for residual in residuals:
        items.append((yield from relay(Coefficients.of(residual, splits, side), lambda done: 0)))
    return items


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


def _sampled(items: Sequence[Coefficients]) -> tuple[Floats32, float]:
    """Absolute values of some of the coefficients, and how many each of them stands for."""
    total = sum(bands.size for item in items for bands in item.bands)
    stride = max(1, total // _SAMPLED) | 1  # odd, so as not to look at the same columns of every row
    sizes = np.concatenate([np.abs(bands.ravel()[::stride]) for item in items for bands in item.bands])
    return sizes, total / len(sizes)


def _likely_bits(sizes: Floats32, code: int) -> float:
    """Guess the bits that some coefficients take at a step."""
    steps = sizes[sizes > 0.5 * step_of(code)] / step_of(code)
    return float(np.log2(2 * steps).sum()) + _BITS_PER_SYMBOL * len(steps)


def _likely_code_of_error(items: Sequence[Coefficients], error: float, finest: int) -> int:
    """Guess the step at which the coefficients lose ``error``: small ones all, others a twelfth of a step squared."""
    sizes, weight = _sampled(items)
    squares = np.sort(sizes.astype(np.float64) ** 2)
    below = np.concatenate([[0.0], np.cumsum(squares)])

    def loses_more(code: int) -> bool:
        square = step_of(code) ** 2
        small = int(np.searchsorted(squares, _DEAD_ZONE**2 * square))
        return bool(weight * (below[small] + (len(squares) - small) * square / 12) > error)

    return max(finest, bisect_left(range(STEP_CODES - 1), True, lo=finest, key=loses_more) - 1)


def _likely_code(items: Sequence[Coefficients], room: float, finest: int) -> int:
    """Guess the step at which the coefficients take ``room`` bytes, from the sizes of some of them."""
    sizes, weight = _sampled(items)
    bits = 8 * room / weight
    return bisect_left(range(STEP_CODES - 1), True, lo=finest, key=lambda code: _likely_bits(sizes, code) <= bits)


__all__ = [
    "LEAST_ERROR",
    "TRIES",
    "Coefficients",
    "Fit",
    "at_step_of",
    "fit",
    "fit_error",
    "fit_step",
    "next_code",
    "streams_size",
]

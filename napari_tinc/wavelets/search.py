"""Find the wavelet layer that fills a number of bytes: transform, quantise by rate and distortion, code."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace

from napari_tinc.geometry.pyramid import BlockCache, dyadic_splits
from napari_tinc.quantiser import STEP_CODES, code_of, step_of
from napari_tinc.system.steps import relay
from napari_tinc.system.threads import block_threads, side_by_side
from napari_tinc.wavelets.blocks import MAX_BLOCK, SIDE_CODES, CodedWavelets, WaveletHead
from napari_tinc.wavelets.coding import Coding, Coefficients, streams_size
from napari_tinc.wavelets.coefficients import LARGEST
from napari_tinc.wavelets.likely import LAMBDA, Likely, next_code
from napari_tinc.wavelets.residual import Residual
from napari_tinc.wavelets.transform import Axes, Floats32

# The first step to try for some share of the volumes, and the finest there may be.
_CodeOf = Callable[[Likely, int, float], int]

# Axes at least 1 / elongation of the longest are split together. Which is best depends on the steps between planes.
ELONGATIONS = (math.inf, 4.0, 1.5)
# Smaller blocks pay for the end of their stream; larger ones decode more than was asked for.
_BYTES_PER_BLOCK = 384
# Voxels of the blocks that a plane across the first axis meets: what a fifth of a second decodes.
_ROW_VOXELS = 2**22
TRIES = 12
_FILL = 0.993
_GOAL = math.log2((1 + _FILL) / 2)
# Of the room, what is enough where more would lower the error by less than so many octaves: 0.01 dB.
_NEARLY, _LEAST_GAIN = 0.985, 0.0035
# Parts that are coded to guess a size from, and how far off a step, in codes, has the next one guessed from, too.
_GLANCES, _FAR = 2, 24
# Steps, in codes, that adjusting what is coded makes up for, and by how much bits are then dearer or cheaper.
_BESIDE, _DEARER = 2, 1.15
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
class Near:
    """A layer like the one wanted: its axes are split again, and the search begins with what it took.

    Parameters
    ----------
    head : WaveletHead
    nbytes : int
        Size of all streams and what says where they begin.
    """

    head: WaveletHead
    nbytes: int

    @classmethod
    def to(cls, fitted: Fit) -> Near:
        """Like all of these."""
        return cls(fitted.layers[0].head, fitted.nbytes)


def fit(residuals: Sequence[Residual], room: int, near: Near | None = None) -> Generator[int, None, Fit | None]:
    """Find the finest wavelet layers of at most ``room`` bytes: one step for all items.

    Parameters
    ----------
    residuals : sequence of Residual
        One per item, all of one shape.
    room : int
        Bytes for the streams and their lengths.
    near : Near, optional

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

    def next_to(tried: Mapping[int, float]) -> int:
        return next_code(tried, lambda code: _log2(likely.cost(code)[0] / room), _GOAL, finest)

    def is_enough(attempt: Fit, following: int) -> bool:
        if not _NEARLY * room <= attempt.nbytes <= room:
            return False
        now, then = (_log2(likely.cost(code)[1]) for code in (attempt.layers[0].head.step_code, following))
        return attempt.nbytes >= _FILL * room or now - then < _LEAST_GAIN  # near the noise a step gains little

    best: Fit | None = None
    items, likely, finest, code = yield from _begun(residuals, code_of, None if near is None else near.head)
    if near is not None and not _FILL * room <= near.nbytes <= room:
        code = next_to({code: _log2(near.nbytes / room)})
    code, codings = yield from _glanced(items, code, lambda code, guess: next_to({code: _log2(guess / room)}))
    tried: dict[int, float] = {}  # logarithms of sizes over what there is room for
    for number in range(TRIES):
        if number:
            codings.clear()  # or two would be in memory
            codings = _begin(items, code)
        attempt, here = (yield from _whole(codings, number)), code
        tried[here] = _log2(attempt.nbytes / room)
        code = next_to(tried)
        if (code in tried or abs(code - here) <= _BESIDE) and not is_enough(attempt, code):
            attempt = yield from _adjusted(codings, room, number)
        if attempt.nbytes <= room and (best is None or attempt.nbytes >= best.nbytes):
            best = attempt
        if code in tried or (best is not None and is_enough(best, code)):
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
    return (yield from _whole(_begin(items, code), number))


def _begin(items: Sequence[Coefficients], code: int) -> list[Coding]:
    coded = BlockCache()
    return [Coding(item, code, coded) for item in items]


def _glanced(
    items: Sequence[Coefficients], code: int, next_to: Callable[[int, float], int]
) -> Generator[int, None, tuple[int, list[Coding]]]:
    """Begin with the step that is guessed from a part of what another one takes; with that one if it was right."""
    for _ in range(_GLANCES):
        codings = _begin(items, code)
        guess = yield from _glance(codings)
        proposed = code if guess is None else next_to(code, guess)
        if abs(proposed - code) <= _BESIDE:
            return code, codings
        is_far, code = abs(proposed - code) > _FAR, proposed
        codings.clear()  # or two would be in memory
        if not is_far:
            break
    return code, _begin(items, code)


def _glance(codings: Sequence[Coding]) -> Generator[int, None, float | None]:
    """Guess from a part of all items what they will take; None if a part is not much less."""
    total = 0.0
    for coding in codings:
        guess = yield from coding.glance(0)
        if guess is None:
            return None
        total += guess
    return total


def _whole(codings: Sequence[Coding], number: int) -> Generator[int, None, Fit]:
    for coding in codings:
        yield from coding.whole(number)
    return _finished(codings)


def _finished(codings: Sequence[Coding]) -> Fit:
    layers, errors = zip(*(coding.finished() for coding in codings), strict=True)
    return Fit(layers, sum(coding.nbytes for coding in codings), sum(errors))


def _adjusted(codings: Sequence[Coding], room: int, number: int) -> Generator[int, None, Fit]:
    """Code some blocks again, with dearer or cheaper bits, until all just fit.

    Where D + λ R is least, a little more or less λ in some blocks trades D for R as well as a step does.
    """
    left = room - sum(coding.nbytes for coding in codings)
    fits, lagrangian = left >= 0, LAMBDA * (_DEARER if left < 0 else 1 / _DEARER)
    apart = [(coding, *block) for coding in codings for block in coding.apart()]
    coded = side_by_side(lambda block: block[0].again(*block[1:], lagrangian), apart)
    for (coding, _, _), made in zip(apart, coded, strict=True):
        left -= coding.more(made)
        if fits and left < 0:
            break
        coding.keep(made)
        if not fits and left >= 0:
            break
        yield number
    return _finished(codings)


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
    of_bands = block_threads().map(_largest, [band for item in items for bands in item.bands for band in bands])
    largest = max(*(abs(item.dc) for item in items), *of_bands)
    return bisect_left(range(STEP_CODES - 1), True, key=lambda code: largest <= step_of(code) * (LARGEST / 4))


def _largest(band: Floats32) -> float:
    return max(float(band.max()), -float(band.min()))


__all__ = [
    "LEAST_ERROR",
    "TRIES",
    "Coefficients",
    "Fit",
    "Near",
    "at_step_of",
    "fit",
    "fit_error",
    "fit_step",
    "streams_size",
]

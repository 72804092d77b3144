"""Files with a largest error: every voxel as a bin, predicted from its neighbours; or wavelets, and corrections.

Bins win where most voxels would need a correction: without loss, and where the error is within the noise. Wavelets win
where few do. Which, and with what step of the quantiser, is found out on the middle of the volume.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_tinc import format as frames
from napari_tinc.arrays import scratch
from napari_tinc.arrays.scratch import boxes
from napari_tinc.encode import framing, measuring
from napari_tinc.encode.framing import Content, Plan
from napari_tinc.encode.original import Original
from napari_tinc.encode.plan import octants
from napari_tinc.errors import BudgetError, InputError
from napari_tinc.format import ItemRange
from napari_tinc.layers import ItemDecoder
from napari_tinc.limits import LIMITS
from napari_tinc.predictive.bins import find_bins, spacing
from napari_tinc.predictive.blocks import encode_numbers
from napari_tinc.predictive.payload import Corrections, Predicted
from napari_tinc.progress import Progress
from napari_tinc.settings import Settings
from napari_tinc.system.steps import relay
from napari_tinc.wavelets import search
from napari_tinc.wavelets.blocks import CodedWavelets

logger = logging.getLogger(__name__)

# Voxels of the middle that is tried; and how near two ways must come there for both to be tried on the whole.
_TRIED, _NEAR = 2**19, 1.1
# Steps of the quantiser that are tried, as multiples of the largest error, and with which of them the search begins.
_FACTORS, _BEGIN = (1.2, 1.7, 2.4, 3.4, 4.8, 6.8), 3
# Larger volumes keep the coarse scales of wavelets, which cost a reader little; bins have none.
_MOST_VOXELS = 2**25
# How many voxels tell what a file without loss would take. Bins may be so many times smaller than the entropy of
# differences, which knows no neighbours, and than a guess from that and the middle of the volume, which is denser.
_ASKED, _BELOW_ENTROPY, _BELOW_GUESS = 2**17, 4.0, 1.4
# How far decoders may be apart before they round, as a share of an item's range, docs/format.md says.
DECODERS_APART = 2.0**-17
_LARGEST_CORRECTION = 2**30


@dataclass(frozen=True)
class BoundedPlan(Plan):
    """Plan of a file with a largest error.

    Parameters
    ----------
    error : float
        In intensity units.
    model : int
    """

    error: float
    model: int

    @property
    def provenance(self) -> Mapping[str, float]:
        """What the file guarantees."""
        return {"max_error": float(self.error)}


@dataclass(frozen=True)
class _File:
    plan: BoundedPlan
    content: Content

    @property
    def nbytes(self) -> int:
        return framing.size(self.plan, self.content)


_Files = Generator[Progress, None, _File | None]


def bounded(
    original: Original, settings: Settings, error: float
) -> Generator[Progress, None, tuple[bytes, Callable[[], npt.NDArray[Any]]]]:
    """Compress so that no voxel is farther from the original than ``error``, in intensity units; 0 for no loss.

    Returns
    -------
    bytes
        The frame.
    callable
        What it decodes to; most of that work has been done to measure it.

    Raises
    ------
    InputError
        The volume has weights, which mean nothing here, or voxels of more than 32 bits.
    """
    if original.weights is not None:
        raise InputError("expected no weights with a largest error, which holds for every voxel; leave them out")
    error = min(error, original.value_range)  # which no clipped voxel exceeds
    best = yield from _smallest(original, settings, error)
    return (yield from _framed(original, best, error))


def _framed(
    original: Original, made: _File, error: float
) -> Generator[Progress, None, tuple[bytes, Callable[[], npt.NDArray[Any]]]]:
    """Frame a file whose every voxel was compared with the original; return what decodes it, too."""
    # Decoded from the streams, not from what their encoder remembers: the promise is of the file.
    unknown = [one and replace(one, known=None) for one in made.content.wavelets]
    decoders = framing.bounded_decoders(made.plan, replace(made.content, wavelets=unknown))
    measured = yield from measuring.measure(decoders, original, made.plan.tree)
    if not measured.largest <= error:
        raise BudgetError(f"expected no error above {error:g}, got {measured.largest:g}: please report this as a bug")
    packed = framing.frame(made.plan, made.content, measured.psnr, measured.quality)
    return packed, framing.array_decoder(original, decoders)


def lossless(original: Original, settings: Settings, budget: int) -> Generator[Progress, None, bytes | None]:
    """Make a file without loss where one fits in ``budget`` bytes.

    Nearly always it does not, and a look at some voxels says so.

    Returns
    -------
    bytes or None
        The frame. None if it would be larger, or the volume has weights, too many voxels, or voxels of more than 32
        bits.
    """
    items = original.items
    if original.weights is not None or items.dtype.itemsize > 4 or items.size > _MOST_VOXELS or original.is_constant:
        return None
    entropy = _entropy(items)
    if entropy > _BELOW_ENTROPY * budget:
        return None
    middle = original.middle(_ASKED)
    if middle is not original and not middle.is_constant:
        tried = yield from _with_bins(middle, settings, 0.0)
        if entropy * tried.nbytes > _BELOW_GUESS * budget * _entropy(middle.items):
            return None
    made = yield from _with_bins(original, settings, 0.0)
    if made.nbytes > budget + framing.PROVENANCE_SLACK:
        return None
    packed, _ = yield from _framed(original, made, 0.0)
    return packed if len(packed) <= budget else None


def _entropy(items: npt.NDArray[Any]) -> float:
    """Bytes that all voxels take at the entropy of their differences, in rows from all over the items."""
    rows = items.reshape(-1, items.shape[-1])
    some = rows[:: max(1, items.size // _ASKED)].astype(np.float64)
    _, counts = np.unique(np.diff(some, axis=1), return_counts=True)
    shares = counts / max(1, counts.sum())
    return float(-(shares * np.log2(shares)).sum()) * items.size / 8


def _smallest(original: Original, settings: Settings, error: float) -> Generator[Progress, None, _File]:
    """Make the file in the way that makes the middle of the volume smallest."""
    middle = original.middle(_TRIED)
    if middle.is_constant:
        middle = original
    predicted = yield from _with_bins(middle, settings, error)
    corrected, factor = (yield from _with_best_step(middle, settings, error)) if error else (None, 0.0)
    logger.info("with bins %d bytes, with corrections %s", predicted.nbytes, corrected and corrected.nbytes)
    if middle is original:
        return _smaller(predicted, corrected)
    near = corrected is None or predicted.nbytes < _NEAR * corrected.nbytes
    if corrected is not None and corrected.nbytes < _NEAR * predicted.nbytes:
        # None where the whole has larger corrections than the middle, too large to code.
        corrected = yield from _with_corrections(original, settings, error, factor)
        if corrected is not None and not near:
            return corrected
    else:
        corrected = None
    return _smaller((yield from _with_bins(original, settings, error)), corrected)


def _smaller(predicted: _File, corrected: _File | None) -> _File:
    return predicted if corrected is None or predicted.nbytes <= corrected.nbytes else corrected


def _with_bins(original: Original, settings: Settings, error: float) -> Generator[Progress, None, _File]:
    """Make a file of bins."""
    parts: list[Predicted | None] = []
    dtype = original.items.dtype
    for number, (item, limits) in enumerate(zip(original.items, original.ranges, strict=True)):
        yield Progress.unmeasured("coding", number, len(original.items))
        if not limits.span:
            parts.append(None)
            continue
        bins, voxels = find_bins(item, limits, error), item.reshape(original.volume_shape)

        def read(box: tuple[slice, ...], bins=bins, voxels=voxels, limits=limits) -> Any:  # type: ignore[no-untyped-def]
            return bins.numbers(voxels[box], limits)

        largest = max(1, bins.largest(limits, dtype))
        parts.append(Predicted(bins, encode_numbers(original.volume_shape, read, largest, False)))
    size = sum(sum(map(len, part.numbers.streams)) for part in parts if part is not None)
    plan = BoundedPlan(original, settings, octants(original, settings, size), error, frames.MODEL_PREDICTIVE)
    return _File(plan, Content(predicted=parts))


def _with_best_step(
    original: Original, settings: Settings, error: float
) -> Generator[Progress, None, tuple[_File | None, float]]:
    """Try steps of the quantiser, from a common one on in the direction that makes files smaller."""
    tried: dict[int, _File | None] = {}

    def size(at: int) -> float:
        file = tried.get(at)
        return math.inf if file is None else file.nbytes

    at, direction = _BEGIN, -1
    tried[at] = yield from _with_corrections(original, settings, error, _FACTORS[at])
    if tried[at] is None:
        return None, 0.0
    while True:
        following = at + direction
        if 0 <= following < len(_FACTORS) and following not in tried:
            tried[following] = yield from _with_corrections(original, settings, error, _FACTORS[following])
        if size(following) < size(at):
            at = following
        elif direction < 0 and at == _BEGIN:
            direction = 1
        else:
            return tried[at], _FACTORS[at]


def _with_corrections(original: Original, settings: Settings, error: float, factor: float) -> _Files:
    """Make a file of wavelets and corrections; None if the error is too small, or a correction too large."""
    layers: list[CodedWavelets | None] = []
    nbytes = 0
    for number, limits in enumerate(original.ranges):
        residual = original.residual(number)
        if residual is None:
            layers.append(None)
            continue
        steps = search.fit_step(residual, factor * error / limits.scale)
        fitted = yield from relay(steps, partial(Progress.unmeasured, "coding", steps=len(original.ranges)))
        layers.append(fitted.layers[0])
        nbytes += fitted.nbytes
    tree = octants(original, settings, nbytes)
    plan = BoundedPlan(original, settings, tree, error, frames.MODEL_WAVELETS)
    content = Content(wavelets=layers)
    decoders = framing.decoders(plan, content)
    corrections: list[Corrections | None] = []
    for number, limits in enumerate(original.ranges):
        if not limits.span:
            corrections.append(None)
            continue
        found = _Tolerance.of(limits, original.items.dtype, error)
        numbers = None if found is None else (yield from _numbers(original, number, decoders(number), found))
        if found is None or numbers is None:
            return None
        largest = max(abs(int(numbers.min())), abs(int(numbers.max())))
        whole: Any = numbers.reshape(original.volume_shape)
        coded = encode_numbers(original.volume_shape, whole.__getitem__, largest, True)
        corrections.append(Corrections(found.width, coded) if largest else None)
    return _File(plan, Content(wavelets=layers, corrections=corrections))


@dataclass(frozen=True)
class _Tolerance:
    """Between which corrections a voxel is near enough, whoever decodes it.

    Parameters
    ----------
    apart : float
        How far any decoder's voxel may be from ours, before it is rounded.
    error : float
        That is allowed: a whole number for integers.
    width : float
        Of a correction: twice the error, less what decoders may be apart.
    """

    apart: float
    error: float
    width: float

    @classmethod
    def of(cls, limits: ItemRange, dtype: np.dtype[Any], error: float) -> _Tolerance | None:
        """Say what an item tolerates; None if decoders may be farther apart than it."""
        apart = limits.span * DECODERS_APART
        if dtype.itemsize < 4 or dtype == np.float32:  # mapped to intensities in float32
            apart += 2 * spacing(np.dtype(np.float32), limits)
        if dtype.kind == "f":
            apart += 2 * spacing(dtype, limits)
            width = (2 * error - 4 * apart) * (1 - 2.0**-40)
            return cls(apart, error - apart, width) if width > 0 else None
        error = math.floor(error)
        width = 2 * error + 1 - (math.floor(2 * apart) + 1)
        return cls(apart, error, width) if width > 0 else None

    def numbers(self, voxels: npt.NDArray[Any], decoded: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return by how many widths voxels must be moved; the least that is enough."""
        low, high = decoded - self.apart, decoded + self.apart
        if voxels.dtype.kind != "f":
            low, high = np.rint(low), np.rint(high)
        above, below = voxels - low, voxels - high  # what a decoder may be short of, at most and at least
        up = np.ceil(np.maximum(above - self.error, 0) / self.width)
        down = np.ceil(np.maximum(-below - self.error, 0) / self.width)
        return np.asarray(up - down)


def _numbers(
    original: Original, number: int, decoder: ItemDecoder, tolerance: _Tolerance
) -> Generator[Progress, None, npt.NDArray[np.int32] | None]:
    """Return the corrections of an item's voxels; None if one is too large."""
    item = original.items[number]
    numbers = scratch.zeros(item.shape, np.int32)
    for box in boxes(tuple((0, side) for side in item.shape), LIMITS.voxels):
        yield Progress.unmeasured("coding", number, len(original.items))
        place = tuple(slice(a, b) for a, b in box)
        decoded = np.empty([b - a for a, b in box])  # not rounded
        decoder.decode(box, 1.0, decoded)
        some = tolerance.numbers(item[place].astype(np.float64) if item.dtype.kind == "f" else item[place], decoded)
        if some.size and np.abs(some).max() > _LARGEST_CORRECTION:
            return None
        numbers[place] = some
    return numbers


__all__ = ["DECODERS_APART", "BoundedPlan", "bounded", "lossless"]

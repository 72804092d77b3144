"""What wavelet coefficients are likely to cost at a step of the quantiser, before any is coded."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from napari_tinc.quantiser import STEP_CODES, step_of
from napari_tinc.system.threads import block_threads
from napari_tinc.wavelets.transform import Floats32

# λ: squared steps that are worth a bit. docs/experiments.md shows how flat the optimum is.
LAMBDA = 0.07
# How many coefficients are looked at in all; coarse bands of fewer coefficients each are one.
_SAMPLED, _FEW = 2**18, 2**12
# Bits of a symbol but for its place and its size; what the coder, which sees neighbours, needs of all these bits.
_SYMBOL, _CODED = 3.5, 0.75
# Bits, besides those of its place, that a zero instead of a one saves.
_SAVED = 1.5
# A coefficient is kept where that saves more squared error than its bits are worth: found in so many rounds.
_LEAST_KEPT, _ROUNDS = 0.6, 4
# Between steps that are no farther apart, in codes, what was measured says more than what is expected.
_NARROW = 64


@dataclass(frozen=True, eq=False)
class _Band:
    """Some of the coefficients of a band."""

    negative: Floats32  # magnitudes with the sign turned, so that they ascend: the largest first
    each: float  # coefficients that one stands for
    octaves: npt.NDArray[np.float64]  # sum of the logarithms of the first so many magnitudes
    below: npt.NDArray[np.float64]  # sum of the squares of all but the first so many

    @classmethod
    def of(cls, parts: Sequence[Floats32], stride: int) -> _Band:
        negative = np.sort(np.concatenate([-np.abs(part.ravel()[::stride]) for part in parts]))
        sizes = -negative.astype(np.float64)
        octaves = np.concatenate([[0.0], np.cumsum(np.log2(np.maximum(sizes, np.finfo(np.float32).tiny)))])
        below = np.concatenate([np.cumsum(np.square(sizes)[::-1])[::-1], [0.0]])
        return cls(negative, sum(part.size for part in parts) / len(sizes), octaves, below)

    def cost(self, step: float) -> tuple[float, float]:
        """Bits and squared error."""
        threshold, kept, place = 1.0, 0, 0.0
        for _ in range(_ROUNDS):
            kept = self._before(-threshold * step)
            place = math.log2(len(self.negative) / max(kept, 0.5))
            threshold = max(_LEAST_KEPT, (1 + LAMBDA * (place + _SAVED)) / 2)
        large = min(kept, self._before(-step))
        sizes = self.octaves[large] - large * math.log2(step)
        bits = _CODED * (kept * (place + _SYMBOL) + sizes)
        return self.each * bits, self.each * float(self.below[kept] + kept * step**2 / 12)

    def _before(self, value: float) -> int:
        return int(self.negative.searchsorted(np.float32(value)))  # of their own kind, or all were converted


class Likely:
    """Guess bytes and errors from the sizes of some of the coefficients of every band.

    Of a band in which a share *p* is kept, a coefficient of *n* steps takes about log₂(1/p) bits for its place and
    log₂ n for its size, and some for its sign and the rest. It is kept if a zero would cost more: rate-distortion
    optimised quantisation, which decides on the *p* that it needs to know, so that both are found in a few rounds.
    ``benchmarks/rate_model.py`` shows how far that is off.

    Parameters
    ----------
    bands : sequence of sequence of ndarray of float32
        By octave, and by item: all coefficients of the bands of an octave, shape (bands, z, y, x).
    """

    def __init__(self, bands: Sequence[Sequence[Floats32]]) -> None:
        total = sum(item.size for octave in bands for item in octave)
        stride = max(1, total // _SAMPLED) | 1  # odd, so as not to look at the same columns of every row
        alike = [[item[band] for item in octave] for octave in bands for band in range(len(octave[0]))]
        large = [parts for parts in alike if parts[0].size >= _FEW]
        small = [part for parts in alike if parts[0].size < _FEW for part in parts]
        bands_or_few = [*large, small] if small else large
        self._bands = list(block_threads().map(lambda parts: _Band.of(parts, stride), bands_or_few))
        self._costs: dict[int, tuple[float, float]] = {}  # of codes that were asked for: searches share most of theirs

    def cost(self, code: int) -> tuple[float, float]:
        """Bytes that the coefficients take at a step, and their squared error."""
        if code not in self._costs:
            costs = [band.cost(step_of(code)) for band in self._bands]
            self._costs[code] = sum(bits for bits, _ in costs) / 8, sum(error for _, error in costs)
        return self._costs[code]

    def code_of_size(self, room: float, finest: int) -> int:
        """Return the finest step from ``finest`` on whose coefficients take ``room`` bytes at most."""
        return bisect_left(range(STEP_CODES - 1), True, lo=finest, key=lambda code: self.cost(code)[0] <= room)

    def code_of_error(self, error: float, finest: int) -> int:
        """Return the coarsest step from ``finest`` on whose coefficients lose ``error`` at most."""
        beyond = bisect_left(range(STEP_CODES - 1), True, lo=finest, key=lambda code: self.cost(code)[1] > error)
        return max(finest, beyond - 1)


def next_code(
    tried: Mapping[int, float],
    expected: Callable[[int], float],
    level: float,
    finest: int = 0,
    coarsest: int = STEP_CODES - 1,
) -> int:
    """Propose the code of a step to try, where something that falls from code to code is expected to reach a level.

    Parameters
    ----------
    tried : mapping of int to float
        What it was at the codes that were tried.
    expected : callable
        What it is expected to be at any code. It may be off; by as much as at the codes tried nearby.
    level : float
    finest, coarsest : int
        Least and largest code to propose.

    Returns
    -------
    int
        Between those tried above the level and below; one that was tried if there are none between.
    """
    fine = max((code for code, value in tried.items() if value > level), default=None)
    coarse = min((code for code, value in tried.items() if value <= level), default=None)
    ends = [code for code in (fine, coarse) if code is not None]
    narrow = fine is not None and coarse is not None and coarse - fine < _NARROW
    trusted = (lambda code: 0.0) if narrow else expected
    near = sorted(tried, key=lambda code: min(abs(code - end) for end in ends))[: 3 if len(ends) == 2 else 1]
    off = np.polynomial.Polynomial.fit(near, [tried[code] - trusted(code) for code in near], len(near) - 1)
    low, high = finest if fine is None else fine + 1, coarsest if coarse is None else coarse - 1

    def is_below(code: int) -> bool:
        return bool(trusted(code) + off(code) <= level)

    return min(low + bisect_left(range(low, max(low, high)), True, key=is_below), coarsest)


__all__ = ["LAMBDA", "Likely", "next_code"]

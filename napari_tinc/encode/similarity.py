"""The smallest file of a structural similarity: the quantiser's step is searched, since every try tells its SSIM."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Generator

import numpy as np

from napari_tinc.arrays import scratch
from napari_tinc.encode import framing, measuring
from napari_tinc.encode.attempts import Attempt, with_wavelets_of_step
from napari_tinc.encode.original import Original
from napari_tinc.errors import BudgetError
from napari_tinc.layers import ItemDecoder
from napari_tinc.measures import metrics
from napari_tinc.progress import Progress
from napari_tinc.settings import Settings
from napari_tinc.volume import CompressedVolume

logger = logging.getLogger(__name__)

# Nearer to the target no try needs to be; and how many there are at most.
_NEAR, _TRIES = 0.001, 12
# The search begins with a step of this share of the range, and expects 1 - SSIM to grow with its square.
_BEGIN, _SLOPE, _SLOPES, _LONGEST = 1 / 50, 2.0, (0.2, 4.0), 4.0
_TINY = 1e-12


def reach_ssim(original: Original, settings: Settings, wanted: float) -> Generator[Progress, None, CompressedVolume]:
    """Find the smallest file of wavelets of at least an SSIM, see :func:`napari_tinc.measures.metrics.ssim`.

    Returns
    -------
    CompressedVolume

    Raises
    ------
    BudgetError
        It is out of reach, or a file of it is no smaller than half of the volume.
    """
    tried: list[tuple[float, float]] = []  # logarithms of step and of 1 - SSIM
    best: Attempt | None = None
    octave, most = math.log2(original.value_range * _BEGIN), 0.0
    for _ in range(_TRIES):
        attempt = yield from with_wavelets_of_step(original, settings, 2**octave)
        decoders = framing.decoders(attempt.plan, attempt.content)
        reached = yield from _ssim(original, decoders)
        most = max(most, reached)
        logger.info("%d bytes reach an SSIM of %.4f of %.4f", attempt.nbytes, reached, wanted)
        too_large = attempt.nbytes > original.items.nbytes / 2
        if reached >= wanted and not too_large and (best is None or attempt.nbytes < best.nbytes):
            best = attempt
        tried.append((octave, math.log2(max(1 - reached, _TINY))))
        following = _next_octave(tried, math.log2(max(1 - wanted - _NEAR / 2, _TINY)))
        if wanted <= reached <= wanted + _NEAR or (reached < wanted and too_large) or abs(following - octave) < 1 / 256:
            break
        octave = following
    if best is None:
        raise BudgetError(f"expected to reach an SSIM of {wanted:g}, got {most:.4f} at best: lower it")
    plan, content = best.plan, best.content
    psnr, quality, _ = yield from measuring.measure(framing.decoders(plan, content), original, plan.tree)
    return CompressedVolume(framing.frame(plan, content, psnr, quality), settings.device)


def _ssim(original: Original, decoders: Callable[[int], ItemDecoder]) -> Generator[Progress, None, float]:
    """Decode all items, and measure them together."""
    decoded = scratch.zeros(original.items.shape, original.items.dtype)
    for number, item in enumerate(decoded):
        yield Progress.unmeasured("measuring", number, len(decoded))
        decoders(number).decode(tuple((0, side) for side in original.spatial), 1.0, item)
    return metrics.ssim(original.items, decoded, len(original.spatial))


def _next_octave(tried: list[tuple[float, float]], wanted: float) -> float:
    """Interpolate between the nearest tries on both sides, else go on from the last one."""
    below = [one for one in tried if one[1] <= wanted]
    above = [one for one in tried if one[1] > wanted]
    if below and above:
        (x0, y0), (x1, y1) = max(below), min(above)
        return x0 + (x1 - x0) * float(np.clip((wanted - y0) / max(y1 - y0, 1e-9), 0.1, 0.9))
    octave, reached = tried[-1]
    slope = _SLOPE
    if len(tried) > 1 and tried[-2][0] != octave:
        slope = float(np.clip((reached - tried[-2][1]) / (octave - tried[-2][0]), *_SLOPES))
    return octave + float(np.clip((wanted - reached) / slope, -_LONGEST, _LONGEST))


__all__ = ["reach_ssim"]

"""A trial of a few seconds, of whether networks may beat wavelets alone in the time that a preset gives.

Two short trainings on the middle of the volume, one twice as long as the other, each a whole one with its own
schedule, and the files they end in. What the second gained on the first is what a doubling of the time is worth there.
As further doublings are mostly worth less, to expect the same of each is to hope for the best: what is not ahead even
so is given up, by the end of the short training that follows or of the long one. ``benchmarks/presets.py`` measures
what comes of it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Generator
from dataclasses import replace

from napari_tinc.choices import DEFAULT_FAMILY, WAVELET
from napari_tinc.encode.attempts import Attempt, Training, smallest_budget, with_network, with_wavelets_alone
from napari_tinc.encode.original import Original
from napari_tinc.encode.plan import NETWORK_SHARE, ShouldStop, growth
from napari_tinc.progress import Progress
from napari_tinc.settings import Settings
from napari_tinc.system.steps import relay

logger = logging.getLogger(__name__)

# Optimiser steps of the presets for a volume of 2**18 voxels; larger ones take more, see encode.plan.growth.
TRAINING_STEPS = {"fast": 1500, "balanced": 6000, "best": 30000}
# Optimiser steps of the two trainings, counted as those of the presets are.
STEPS = (75, 150)
# Larger volumes are tried out on their middle.
VOXELS = 2**21
# By how many dB a short training may end behind wavelets and still promise something.
BEHIND = 0.8
# A promise in dB, the best that can be hoped for, that is worth minutes: some third of it is kept (docs/benchmarks.md).
WORTH = 1.0


def middle_to_try(original: Original, settings: Settings, budget: int) -> tuple[Original, int] | None:
    """Return what networks are tried on, the middle of a large volume, and its share of the bytes.

    None if it is all of one value, or no network fits in those bytes.
    """
    tried = original.middle(VOXELS)
    allowed = budget * tried.items.size // original.items.size
    if tried.is_constant or allowed < smallest_budget(tried, replace(settings, model=f"{DEFAULT_FAMILY}+{WAVELET}")):
        return None
    return tried, allowed


def promised_gain(
    original: Original,
    settings: Settings,
    budget: int,
    steps: int,
    step_seconds: float | None,
    should_stop: ShouldStop | None,
) -> Generator[Progress, None, float]:
    """Estimate by how much networks and wavelets together would beat wavelets alone.

    Parameters
    ----------
    original : Original
    settings : Settings
    budget : int
        Bytes of the file.
    steps : int
        Optimiser steps of the training that is to pay.
    step_seconds : float or None
        Time that a step may take at most.
    should_stop : callable, optional
        Asked before every step; once it says yes, there is no gain.

    Yields
    ------
    Progress
        Of the phase ``"trying"``.

    Returns
    -------
    float
        In dB, below `WORTH` where they are not worth their time; -inf where they cannot be tried.
    """
    middle = middle_to_try(original, settings, budget)
    if middle is None:
        return -math.inf
    tried, allowed = middle
    runs = len(STEPS) + 1

    def shown(run: int) -> Progress:
        return Progress.unmeasured("trying", run, runs)

    def told(steps_of_run: Generator[Progress, None, Attempt], run: int) -> Generator[Progress, None, Attempt]:
        return relay(steps_of_run, lambda _: shown(run))

    to_beat = yield from told(with_wavelets_alone(tried, settings, allowed), 0)
    if to_beat.error == 0:
        return -math.inf
    gains = []
    for run, short in enumerate(STEPS, 1):
        timed = replace(settings, time_limit=None if step_seconds is None else step_seconds * short)
        training = Training(DEFAULT_FAMILY, NETWORK_SHARE, short, should_stop)
        attempt = yield from told(with_network(tried, timed, allowed, training), run)
        if should_stop is not None and should_stop():
            return -math.inf
        gains.append(10 * math.log10(to_beat.error / attempt.error))
    # Larger volumes are trained for more steps: encode.plan.growth.
    ahead = math.log2(steps / STEPS[-1]) + math.log2(growth(original) / growth(tried))
    # The next training is as long as that of the preset fast, on the same voxels.
    promised = extrapolated(gains, math.log2(TRAINING_STEPS["fast"] / STEPS[-1]))
    if promised >= -BEHIND:
        promised = extrapolated(gains, ahead)
    logger.info("a trial of networks: %.2f and %.2f dB above wavelets, %.2f dB promised", *gains, promised)
    return promised


def extrapolated(gains: list[float], doublings: float) -> float:
    """Gain in dB after so many more doublings of the time, if each is worth as much as the one that was seen."""
    return gains[-1] + (gains[-1] - gains[0]) * max(0.0, doublings)


__all__ = ["BEHIND", "STEPS", "TRAINING_STEPS", "VOXELS", "WORTH", "extrapolated", "middle_to_try", "promised_gain"]

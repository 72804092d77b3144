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

from napari_tinc.encode import planning
from napari_tinc.encode.attempts import Attempt, restored_detail, restored_network
from napari_tinc.encode.planning import Finish
from napari_tinc.encode.settings import PRESETS, Settings
from napari_tinc.encode.source import Source
from napari_tinc.networks.training import Progress
from napari_tinc.system.steps import relay

logger = logging.getLogger(__name__)

# Optimiser steps of the two trainings, counted as those of the presets are.
STEPS = (75, 150)
# Larger volumes are tried out on their middle.
VOXELS = 2**21
# By how many dB a short training may end behind wavelets and still promise something.
BEHIND = 0.8
# A promise in dB, the best that can be hoped for, that is worth minutes: some third of it is kept (docs/benchmarks.md).
WORTH = 1.0


def middle_to_try(source: Source, settings: Settings, budget: int) -> tuple[Source, int] | None:
    """Return what networks are tried on, the middle of a large volume, and its share of the bytes.

    None if it is all of one value, or no network fits in those bytes.
    """
    tried = source.middle(VOXELS)
    allowed = budget * tried.items.size // source.items.size
    if tried.is_constant or allowed < planning.smallest_budget(tried, replace(settings, model="hybrid")):
        return None
    return tried, allowed


def promised_gain(
    source: Source, settings: Settings, budget: int, steps: int, step_seconds: float | None, finish: Finish | None
) -> Generator[Progress, None, float]:
    """Estimate by how much networks and wavelets together would beat wavelets alone.

    Parameters
    ----------
    source : Source
    settings : Settings
    budget : int
        Bytes of the file.
    steps : int
        Optimiser steps of the training that is to pay.
    step_seconds : float or None
        Time that a step may take at most.
    finish : callable, optional
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
    middle = middle_to_try(source, settings, budget)
    if middle is None:
        return -math.inf
    tried, allowed = middle
    runs = len(STEPS) + 1

    def shown(run: int) -> Progress:
        return Progress.unmeasured("trying", run, runs)

    def told(steps_of_run: Generator[Progress, None, Attempt], run: int) -> Generator[Progress, None, Attempt]:
        return relay(steps_of_run, lambda _: shown(run))

    to_beat = yield from told(restored_detail(tried, settings, allowed), 0)
    if to_beat.error == 0:
        return -math.inf
    gains = []
    for run, short in enumerate(STEPS, 1):
        timed = replace(settings, time_limit=None if step_seconds is None else step_seconds * short)
        training = restored_network(tried, timed, planning.NETWORK_SHARE, allowed, short, finish)
        attempt = yield from told(training, run)
        if finish is not None and finish():
            return -math.inf
        gains.append(10 * math.log10(to_beat.error / attempt.error))
    # Larger volumes are trained for more steps: planning.schedule.
    ahead = math.log2(steps / STEPS[-1]) + math.log2(planning.growth(source) / planning.growth(tried))
    # The next training is as long as that of the preset fast, on the same voxels.
    promised = extrapolated(gains, math.log2(PRESETS["fast"] / STEPS[-1]))
    if promised >= -BEHIND:
        promised = extrapolated(gains, ahead)
    logger.info("a trial of networks: %.2f and %.2f dB above wavelets, %.2f dB promised", *gains, promised)
    return promised


def extrapolated(gains: list[float], doublings: float) -> float:
    """Gain in dB after so many more doublings of the time, if each is worth as much as the one that was seen."""
    return gains[-1] + (gains[-1] - gains[0]) * max(0.0, doublings)


__all__ = ["BEHIND", "STEPS", "VOXELS", "WORTH", "extrapolated", "middle_to_try", "promised_gain"]

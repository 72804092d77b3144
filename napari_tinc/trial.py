"""A trial of a few seconds, of whether networks may beat wavelets alone in the time that a preset gives.

Two short trainings on the middle of the volume, one twice as long as the other, each a whole one with its own
schedule, and the files they end in. What the second gained on the first is what a doubling of the time is worth
there; every further one is worth less. The trial takes the gains to fall evenly to nothing at the end of the time
given. ``benchmarks/presets.py`` measures what comes of its decisions.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Generator
from dataclasses import replace

from napari_tinc import planning
from napari_tinc.attempts import Attempt, restored_detail, restored_network
from napari_tinc.core.steps import relay
from napari_tinc.core.training import Progress
from napari_tinc.planning import Finish
from napari_tinc.settings import Settings
from napari_tinc.source import Source

logger = logging.getLogger(__name__)

# Optimiser steps of the two trainings, counted as those of the presets are.
STEPS = (75, 150)
_VOXELS = 2**20


def middle_to_try(source: Source, settings: Settings, budget: int, voxels: int) -> tuple[Source, int] | None:
    """Return the middle of a volume, of about so many voxels, and its share of the bytes.

    None if it is all of one value, or no network fits in those bytes.
    """
    tried = source.middle(voxels)
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
        In dB; -inf where networks cannot be tried.
    """
    middle = middle_to_try(source, settings, budget, _VOXELS)
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
    promised = extrapolated(gains, steps)
    logger.info("a trial of networks: %.2f and %.2f dB above wavelets, %.2f dB promised", *gains, promised)
    return promised


def extrapolated(gains: list[float], steps: int) -> float:
    """Gain in dB after ``steps``, if what a doubling of the time is worth falls evenly to nothing by then."""
    doublings = max(0.0, math.log2(steps / STEPS[-1]))
    each = (gains[-1] - gains[0]) / math.log2(STEPS[-1] / STEPS[0])
    return gains[-1] + each * doublings / 2


__all__ = ["STEPS", "extrapolated", "middle_to_try", "promised_gain"]

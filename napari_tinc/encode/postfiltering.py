"""Give a file a post-filter where that leaves less error in the same bytes."""

from __future__ import annotations

import math
import time
from collections.abc import Generator
from dataclasses import replace
from functools import partial

import numpy as np

from napari_tinc.encode import filters, framing, measuring
from napari_tinc.encode.attempts import Attempt, Attempts, restored
from napari_tinc.encode.plan import ShouldStop
from napari_tinc.errors import BudgetError
from napari_tinc.postfilter import PostFilter, postfilter_size
from napari_tinc.progress import Progress
from napari_tinc.settings import Settings
from napari_tinc.system.steps import relay

CHANNELS = 8
# Of a file, what post-filters may take.
_SHARE = 0.08
# Steps of training, of all items together, by preset.
_STEPS = {"balanced": 1000, "best": 3000}
_LEAST_STEPS = 150
# Of the pieces of an item that are trained on, the largest.
_PIECE_VOXELS = 2**17
# Of a time limit, what post-filters may take.
_TIME_SHARE = 0.25


def with_postfilters(settings: Settings, budget: int, best: Attempt, should_stop: ShouldStop | None = None) -> Attempts:
    """Train a post-filter for every item, and make room for it; keep the other file unless this one is better.

    Parameters
    ----------
    settings : Settings
    budget : int
        Bytes of the file.
    best : Attempt
        A file of at most that size.
    should_stop : callable, optional
        Asked before every step of training.
    """
    original, items = best.plan.original, len(best.plan.original.items)
    room, steps = filters.room_for(postfilter_size(CHANNELS), items), _STEPS[settings.preset] // items
    if room > _SHARE * budget or steps < _LEAST_STEPS or not best.error:
        return best
    learnt = yield from _trained(settings, best, steps, should_stop)
    if not any(learnt):
        return best
    try:
        smaller = yield from restored(best.again, original, 0, budget - room)
    except BudgetError:
        return best
    content = replace(smaller.content, postfilters=tuple(learnt))
    error = yield from measuring.squared_error(framing.decoders(smaller.plan, content), original)
    # Measured as the other is: what coefficients tell of the error is off by a few percent.
    before = yield from measuring.squared_error(framing.decoders(best.plan, best.content), original)
    return replace(smaller, content=content, error=error) if error < before else replace(best, error=before)


def _trained(
    settings: Settings, attempt: Attempt, steps: int, should_stop: ShouldStop | None
) -> Generator[Progress, None, list[PostFilter | None]]:
    from napari_tinc.networks.filter_training import Piece, train_filter  # loads torch

    original = attempt.plan.original
    decoders, items = framing.decoders(attempt.plan, attempt.content), len(original.items)
    chosen: list[PostFilter | None] = []
    for item in range(items):
        residual = original.residual(item)
        if residual is None:
            chosen.append(None)
            continue
        pieces = []
        for box in filters.some_pieces(residual.shape, _PIECE_VOXELS, settings.seed):
            same = np.broadcast_to(np.float32(1), [b - a for a, b in box])
            weights = same if residual.weights is None else residual.weights(box)
            values = decoders(item).surrounded_restored(box[3 - len(original.spatial) :])
            pieces.append(Piece(values, residual.read(box), weights))
            yield Progress.unmeasured("coding", item, items)
        began = time.monotonic()

        def spent(began: float = began) -> float:
            if should_stop is not None and should_stop():
                return math.inf
            limit = settings.time_limit
            return 0.0 if limit is None else (time.monotonic() - began) * items / (_TIME_SHARE * limit)

        training = train_filter(pieces, CHANNELS, steps, settings.seed, settings.device, spent)
        chosen.append((yield from relay(training, partial(_told, item, items))))
    return chosen


def _told(item: int, items: int, done: float) -> Progress:
    return Progress.unmeasured("coding", round(1000 * (item + done)), 1000 * items)


__all__ = ["CHANNELS", "with_postfilters"]

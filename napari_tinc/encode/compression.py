"""One compression, top to bottom: check, measure, plan the tree, allocate, train, quantise, code, measure, frame."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_tinc.arrays.inputs import check_array, check_volume
from napari_tinc.arrays.metadata import Metadata
from napari_tinc.arrays.scratch import ArrayLike, fits_memory, read_steps
from napari_tinc.encode import draft as drafts
from napari_tinc.encode import planning, speeds, trial
from napari_tinc.encode.attempts import Attempts, restored_detail, restored_network, with_network
from napari_tinc.encode.planning import Finish
from napari_tinc.encode.settings import PRESETS, Settings
from napari_tinc.encode.source import Source
from napari_tinc.errors import BudgetError, InputError
from napari_tinc.networks.device import one_core_free, resolve_device
from napari_tinc.networks.training import Progress
from napari_tinc.samples import neuron_phantom
from napari_tinc.system.steps import complete, relay
from napari_tinc.target import Target
from napari_tinc.volume import CompressedVolume

logger = logging.getLogger(__name__)

Array = npt.NDArray[Any]
Steps = Generator[Progress, None, CompressedVolume]

NO_NETWORKS = "a trial showed that networks would not pay here: the file is that of preset fast"

# How much worse than a file without it a short training may end.
_PROMISING = 10 ** (trial.BEHIND / 10)
_SLACKS = (0, 16)
_CALIBRATION = (64, 64, 64)
_PSNR_RUNS, _PSNR_SLACK, _DB_PER_OCTAVE = 7, 0.25, 3.0


def compress(
    array: ArrayLike,
    target: Target,
    *,
    metadata: Metadata | None = None,
    preset: str = "fast",
    between: str | Sequence[float] = "auto",
    within: str = "equal",
    weights: ArrayLike | None = None,
    levels: int | None = None,
    device: str = "auto",
    seed: int = 0,
    time_limit: float | None = None,
    model: str = "auto",
) -> CompressedVolume:
    """Compress a volume; wait until it is done. See :func:`compress_steps`."""
    steps = compress_steps(
        array, target, metadata=metadata, preset=preset, between=between, within=within, weights=weights,
        levels=levels, device=device, seed=seed, time_limit=time_limit, model=model,
    )  # fmt: skip
    return complete(steps)


def compress_steps(
    array: ArrayLike,
    target: Target,
    *,
    metadata: Metadata | None = None,
    preset: str = "fast",
    between: str | Sequence[float] = "auto",
    within: str = "equal",
    weights: ArrayLike | None = None,
    levels: int | None = None,
    device: str = "auto",
    seed: int = 0,
    time_limit: float | None = None,
    model: str = "auto",
    finish: Callable[[], bool] | None = None,
) -> Steps:
    """Compress a volume step by step. Closing the generator at any yield cancels and leaves nothing behind.

    Parameters
    ----------
    array : ndarray, dask array, zarr array or the like
        2-D or 3-D image, possibly with channel and time axes; an integer of up to 32 bits or a float. What is larger
        than an eighth of the free memory is kept in files while it is worked on, see
        :func:`napari_tinc.memory_limit`; networks are trained only on what fits in memory.
    target : Target
        Size of the file, or PSNR to reach.
    metadata : Metadata, optional
        Axes, voxel size, names; by default ``Metadata.default(array.ndim)``.
    preset : str
        ``"fast"``, ``"balanced"`` or ``"best"``: 1, 4 or 20 units of training. With ``model="auto"`` no network is
        trained for the first. For the others a trial of seconds says whether networks may pay at all, see
        :mod:`napari_tinc.encode.trial`; if so, two are tried for a unit each, and the better one gets the rest of the
        units if it is not far behind wavelets alone. If not, the file is that of ``"fast"``, a progress of phase
        ``"coding"`` says so in its note, and the file's provenance has the decibels promised.
    between : str or sequence of float
        Allocation between levels, see :func:`napari_tinc.networks.allocation.level_ratios`.
    within : str
        Allocation within a level, see :func:`napari_tinc.networks.allocation.leaf_measure`.
    weights : ndarray, optional
        Weight of every voxel in the loss, of the array's or its spatial shape; not negative. With ``within="map"``
        it also steers the allocation.
    levels : int, optional
        Levels of the tree, root included; by default as many as leave the leaves wide enough to learn.
    device : str
        ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``.
    seed : int
        Same seed, device and number of threads: same bytes (unless a time limit is given).
    time_limit : float, optional
        Seconds that training may take at most; the schedule is shortened to fit.
    model : str
        ``"tinc"``: the octree of networks alone; ``"detail"``: wavelet coefficients alone; ``"hybrid"``: networks,
        and coefficients of what they leave over; ``"auto"``: the best of the three.
    finish : callable, optional
        Asked before every step of training; once it says yes, what was learnt so far becomes the result.

    Yields
    ------
    Progress

    Returns
    -------
    CompressedVolume
        Its size is at most the budget.

    Raises
    ------
    InputError
        If the volume or a setting cannot be used.
    BudgetError
        If the budget is too small, or the PSNR out of reach.
    TrainingError
        If training fails.
    """
    settings = Settings(preset, between, within, levels, device, seed, time_limit, model)  # type: ignore[arg-type]
    if within == "map" and weights is None:
        raise InputError("expected a weight per voxel for the strategy 'map', got none: give weights")
    if not isinstance(target, Target):
        raise InputError(f"expected a target such as Target.ratio(64), got {target!r}: make one")
    check_array(array)
    metadata = Metadata.default(len(array.shape)) if metadata is None else metadata
    voxels = yield from _read(array)
    check_volume(voxels, metadata)
    metadata = replace(metadata, voxel_size=tuple(float(step) for step in metadata.voxel_size))
    yield Progress.unmeasured("preparing", 0, 1)
    if weights is not None:
        check_array(weights)
    read_weights = None if weights is None else (yield from _read(weights))
    steps = _compress(voxels, target, metadata, read_weights, settings, finish)
    return (yield from relay(steps, lambda progress: progress, one_core_free))


def _compress(
    voxels: Array, target: Target, metadata: Metadata, weights: Array | None, settings: Settings, finish: Finish | None
) -> Steps:
    """Compress what has passed the checks."""
    source = Source.prepare(voxels, metadata, weights)
    if settings.model in ("tinc", "hybrid") and not _fits_training(source):
        raise InputError(
            f"expected a volume that fits in memory for model {settings.model!r}, got one of "
            f"{voxels.nbytes / 1e6:.0f} MB; take model 'detail', or raise the memory limit"
        )
    if source.is_constant:
        return drafts.constant(source, settings)
    if target.kind == "psnr":
        return (yield from _reach(source, settings, target.value, finish))
    steps = _run(source, settings, target.budget(voxels.nbytes, voxels.size), finish)
    return (yield from _timed(steps, source, settings, finish))


def calibrate() -> None:
    """Compress a small simulated volume, so that the first estimate of a time knows something; a fraction of a second.

    Nothing is done where runs were measured before, see :mod:`napari_tinc.encode.speeds`.
    """
    if speeds.estimate(math.prod(_CALIBRATION), np.uint16) is None:
        compress(neuron_phantom(_CALIBRATION).noisy, Target.ratio(64), preset="fast", device="cpu")


def _timed(steps: Steps, source: Source, settings: Settings, finish: Finish | None) -> Steps:
    """Run to the end, and remember how long it took unless it was cut short."""
    began, phases = time.perf_counter(), set()

    def seen(progress: Progress) -> Progress:
        phases.add(progress.phase)
        return progress

    result = yield from relay(steps, seen)
    if settings.time_limit is None and not (finish and finish()):
        name = "cpu" if settings.model == "detail" else resolve_device(settings.device).type
        trained, seconds = "training" in phases, time.perf_counter() - began
        items = source.items
        run = speeds.Run(settings.preset, settings.model, name, items.dtype.name, items.size, trained, seconds)
        speeds.remember(run)
    return result


def _read(array: ArrayLike) -> Generator[Progress, None, Array]:
    """Bring an array within reach, in memory or in a file; report how far."""
    return (yield from relay(read_steps(array), lambda read: Progress.unmeasured("preparing", *read)))


def _run(source: Source, settings: Settings, budget: int, finish: Finish | None) -> Steps:
    """Compress to at most ``budget`` bytes."""
    smallest = planning.smallest_budget(source, settings)
    if budget < smallest:
        raise BudgetError(f"expected a budget of at least {smallest} bytes for this volume, got {budget}")
    yield Progress.unmeasured("preparing", 0, 1)
    for slack in _SLACKS:
        attempt = yield from _best_attempt(source, settings, budget - slack, finish)
        result = yield from attempt.draft.finish(attempt.content, budget)
        if result is not None:
            return result
    raise BudgetError(f"expected a file of at most {budget} bytes, got a larger one: please report this as a bug")


def _fits_training(source: Source) -> bool:
    """Whether the samples of all voxels, in float32, are kept in memory."""
    return fits_memory(4 * source.items.size)


def _best_attempt(source: Source, settings: Settings, budget: int, finish: Finish | None) -> Attempts:
    """Make the file in the ways that the settings allow, and return the one with the least error."""
    if settings.model == "tinc":
        return (yield from with_network(source, settings, budget, budget, PRESETS[settings.preset], finish))
    long = PRESETS[settings.preset]
    if settings.model == "hybrid":
        return (yield from restored_network(source, settings, planning.NETWORK_SHARE, budget, long, finish))
    if settings.model == "detail" or settings.preset == "fast":
        return (yield from restored_detail(source, settings, budget))
    if not _fits_training(source):
        logger.warning("no networks are tried, for %d voxels are too many to train on in memory", source.items.size)
        return (yield from restored_detail(source, settings, budget))
    # Successive halving: a trial of seconds, then short trainings, show whether a long one is worth its time, and with
    # which share of the bytes. Together they take what the preset allows.
    short = PRESETS["fast"]
    long = max(short, long - 2 * short)
    step_seconds = None if settings.time_limit is None else settings.time_limit / (sum(trial.STEPS) + 2 * short + long)
    promised = yield from trial.promised_gain(source, settings, budget, long, step_seconds, finish)
    settings = replace(settings, promised=promised)
    best = yield from restored_detail(source, settings, budget)
    middle = trial.middle_to_try(source, settings, budget)
    if promised < trial.WORTH or middle is None:
        logger.info("no networks are trained: %s", NO_NETWORKS)
        yield Progress.unmeasured("coding", 1, 1, NO_NETWORKS)
        return best
    limits = [None if step_seconds is None else steps * step_seconds for steps in (short, long)]
    tried, allowed = middle
    to_beat = best
    if tried is not source:
        to_beat = yield from restored_detail(tried, settings, allowed)
    pilots: dict[float, float] = {}
    for share in (planning.NETWORK_SHARE, 1.0):
        if finish is None or not finish():
            timed, shown = replace(settings, time_limit=limits[0]), best.decoder()
            pilot = yield from restored_network(tried, timed, share, allowed, short, finish, shown)
            pilots[share] = pilot.error
            if tried is source:
                best = min(best, pilot, key=lambda c: c.error)
            if pilot.error >= to_beat.error * _PROMISING:
                break  # without the help of wavelets it would be farther behind
    if pilots and min(pilots.values()) < to_beat.error * _PROMISING and not (finish and finish()):
        timed = replace(settings, time_limit=limits[1])
        share = min(pilots, key=pilots.__getitem__)
        trained = yield from restored_network(source, timed, share, budget, long, finish, best.decoder())
        best = min(best, trained, key=lambda c: c.error)
    return best


def _reach(source: Source, settings: Settings, psnr: float, finish: Finish | None) -> Steps:
    """Find the smallest file that reaches a PSNR: PSNR grows almost linearly with the logarithm of the bytes."""
    nbytes = source.items.nbytes
    tried: list[tuple[float, float]] = []
    best: CompressedVolume | None = None
    smallest = planning.smallest_budget(source, settings)
    if smallest >= nbytes:
        raise BudgetError(f"expected a volume of more than {smallest} bytes, the smallest possible file, got {nbytes}")
    log_bytes, largest = math.log2(nbytes / 64), math.log2(max(nbytes / 2, smallest))
    for _ in range(_PSNR_RUNS):
        log_bytes = min(max(log_bytes, math.log2(smallest)), largest)
        result = yield from _run(source, settings, max(smallest, int(2**log_bytes)), finish)
        reached = float(result.provenance["psnr"])
        logger.info("%d bytes reach %.2f dB of %.2f", result.nbytes, reached, psnr)
        tried.append((log_bytes, reached))
        if reached >= psnr and (best is None or result.nbytes < best.nbytes):
            best = result
        if finish is not None and finish():
            return best or result
        if psnr <= reached <= psnr + _PSNR_SLACK:
            break
        proposal = _next_size(tried, psnr + _PSNR_SLACK / 2)
        if abs(proposal - log_bytes) < 0.01 or (log_bytes == largest and reached < psnr):
            break
        log_bytes = proposal
    if best is None:
        most = max(reached for _, reached in tried)
        raise BudgetError(f"expected to reach {psnr:.2f} dB, got {most:.2f} dB at best: lower it or take preset 'best'")
    return best


def _next_size(tried: list[tuple[float, float]], psnr: float) -> float:
    """Propose log2 bytes: interpolate between the nearest tries on both sides, else extrapolate."""
    below = [t for t in tried if t[1] < psnr]
    above = [t for t in tried if t[1] >= psnr]
    if below and above:
        (b0, p0), (b1, p1) = max(below, key=lambda t: t[1]), min(above, key=lambda t: t[1])
        return b0 + (b1 - b0) * float(np.clip((psnr - p0) / max(p1 - p0, 1e-6), 0.1, 0.9))
    last, reached = tried[-1]
    return last + float(np.clip((psnr - reached) / _DB_PER_OCTAVE, -3, 3))

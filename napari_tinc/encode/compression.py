"""One compression, top to bottom: check, measure, plan the tree, allocate, train, quantise, code, measure, frame."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Generator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_tinc.arrays.inputs import check_array, check_volume
from napari_tinc.arrays.metadata import Metadata
from napari_tinc.arrays.scratch import ArrayLike, fits_memory, read_steps
from napari_tinc.choices import AUTO, DEFAULT_FAMILY, WAVELET, family_of, has_wavelets
from napari_tinc.encode import framing, measuring, speeds, trial
from napari_tinc.encode.attempts import (
    Attempt,
    Attempts,
    Draft,
    Training,
    smallest_budget,
    with_network,
    with_network_alone,
    with_wavelets_of_error,
    with_wavelets_of_step,
)
from napari_tinc.encode.bounding import bounded, lossless
from napari_tinc.encode.directing import with_directions
from napari_tinc.encode.masking import promising, with_wavelets
from napari_tinc.encode.original import Original
from napari_tinc.encode.plan import NETWORK_SHARE, ShouldStop
from napari_tinc.encode.postfiltering import with_postfilters
from napari_tinc.encode.similarity import reach_ssim
from napari_tinc.encode.trial import TRAINING_STEPS
from napari_tinc.errors import BudgetError, InputError
from napari_tinc.progress import Progress
from napari_tinc.samples import neuron_phantom
from napari_tinc.settings import Settings
from napari_tinc.system.steps import complete, relay
from napari_tinc.target import Target
from napari_tinc.volume import CompressedVolume
from napari_tinc.wavelets import search
from napari_tinc.wavelets.blocks import WaveletHead

logger = logging.getLogger(__name__)

Array = npt.NDArray[Any]
Steps = Generator[Progress, None, CompressedVolume]

NO_NETWORKS = "a trial showed that networks would not pay here: the file has none"

# How much worse than a file without it a short training may end.
_PROMISING = 10 ** (trial.BEHIND / 10)
_SLACKS = (0, 16)
# A note on the noise takes some 25 bytes: smaller files do without.
_NOTED_BYTES, _USUAL_RATIO = 4096, 64
_CALIBRATION = (64, 64, 64)
_PSNR_RUNS, _PSNR_SLACK, _DB_PER_OCTAVE, _NEAR_PSNR = 7, 0.25, 3.0, 0.1


def compress(
    array: ArrayLike,
    target: Target,
    *,
    metadata: Metadata | None = None,
    weights: ArrayLike | None = None,
    **settings: Any,
) -> CompressedVolume:
    """Compress a volume; wait until it is done. See :func:`compress_steps`.

    Parameters
    ----------
    array, target, metadata, weights
        As there.
    **settings
        Fields of :class:`napari_tinc.settings.Settings`, such as ``preset="balanced"``.
    """
    return complete(compress_steps(array, target, Settings(**settings), metadata=metadata, weights=weights))


def compress_steps(
    array: ArrayLike,
    target: Target,
    settings: Settings | None = None,
    *,
    metadata: Metadata | None = None,
    weights: ArrayLike | None = None,
    should_stop: ShouldStop | None = None,
) -> Steps:
    """Compress a volume step by step. Closing the generator at any yield cancels and leaves nothing behind.

    Parameters
    ----------
    array : ndarray, dask array, zarr array or the like
        2-D or 3-D image, possibly with channel and time axes; an integer of up to 32 bits or a float. What is larger
        than an eighth of the free memory is kept in files while it is worked on, see
        :func:`napari_tinc.memory_limit`; networks are trained only on what fits in memory.
    target : Target
        Size of the file, PSNR or SSIM to reach, step of the quantiser, or largest error.
    settings : Settings, optional
        Preset, model, allocation, device and seed.
    metadata : Metadata, optional
        Axes, voxel size, names; by default ``Metadata.default(array.ndim)``.
    weights : ndarray, optional
        Weight of every voxel in the loss, of the array's or its spatial shape; not negative. With ``within="map"``
        it also steers the allocation.
    should_stop : callable, optional
        Asked before every step of training; once it says yes, what was learnt so far becomes the result.

    Yields
    ------
    Progress

    Returns
    -------
    CompressedVolume
        Its size is at most the budget, if there is one. With model ``"auto"`` nothing is lost where a file without
        loss is as small: its ``provenance["psnr"]`` is ``"inf"``.

    Raises
    ------
    InputError
        If the volume or a setting cannot be used.
    BudgetError
        If the budget is too small, or the PSNR or the step out of reach.
    TrainingError
        If training fails.
    """
    settings = settings or Settings()
    if settings.within == "map" and weights is None:
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
    return (yield from _compress(voxels, target, metadata, read_weights, settings, should_stop))


def _compress(
    voxels: Array,
    target: Target,
    metadata: Metadata,
    weights: Array | None,
    settings: Settings,
    should_stop: ShouldStop | None,
) -> Steps:
    """Compress what has passed the checks."""
    original = Original.prepare(voxels, metadata, weights)
    if settings.provenance and not original.is_constant and _expected_bytes(target, original) >= _NOTED_BYTES:
        settings = settings.noted("noise", original.noise_note)
    if settings.provenance and target.is_size:
        return (yield from _timed(fill_steps(original, target, settings, should_stop), original, settings, should_stop))
    return (yield from fill_steps(original, target, settings, should_stop))


def _expected_bytes(target: Target, original: Original) -> float:
    """Bytes of the file, roughly where the target does not say."""
    if target.is_size:
        return target.budget(original.items.nbytes, original.items.size)
    return original.items.nbytes / _USUAL_RATIO


def fill_steps(original: Original, target: Target, settings: Settings, should_stop: ShouldStop | None = None) -> Steps:
    """Compress a volume that has passed the checks and is measured; see :func:`compress_steps`."""
    if family_of(settings.model) and not _fits_training(original):
        raise InputError(
            f"expected a volume that fits in memory for model {settings.model!r}, got one of "
            f"{original.items.nbytes / 1e6:.0f} MB; take model 'wavelet', or raise the memory limit"
        )
    if original.is_constant:
        return CompressedVolume(framing.constant(original, settings.provenance), settings.device)
    if target.kind == "psnr":
        return (yield from _or_lossless(_reach(original, settings, target.value, should_stop), original, settings))
    if target.kind == "ssim":
        settings.check_no_networks("an SSIM")
        return (yield from _or_lossless(reach_ssim(original, settings, target.value), original, settings))
    if target.kind == "step":
        return (yield from _quantise(original, settings, target.value))
    if target.kind == "max_error":
        settings.check_no_networks("a largest error")
        return CompressedVolume((yield from bounded(original, settings, target.value))[0], settings.device)
    budget = target.budget(original.items.nbytes, original.items.size)
    exact = (yield from lossless(original, settings, budget)) if settings.model == AUTO else None
    if exact is not None:
        return CompressedVolume(exact, settings.device)
    return (yield from _run(original, settings, budget, should_stop))[0]


def _or_lossless(steps: Steps, original: Original, settings: Settings) -> Steps:
    """Reach a quality; return a file without loss where that is smaller, or where nothing else reaches it."""
    if settings.model != AUTO:
        return (yield from steps)
    try:
        result = yield from steps
    except BudgetError:
        exact = yield from lossless(original, settings, original.items.nbytes - 1)
        if exact is None:
            raise
        return CompressedVolume(exact, settings.device)
    exact = yield from lossless(original, settings, result.nbytes)
    return result if exact is None else CompressedVolume(exact, settings.device)


def calibrate() -> None:
    """Compress a small simulated volume, so that the first estimate of a time knows something; a fraction of a second.

    Nothing is done where runs were measured before, see :mod:`napari_tinc.encode.speeds`.
    """
    if speeds.estimate(math.prod(_CALIBRATION), np.uint16) is None:
        compress(neuron_phantom(_CALIBRATION).noisy, Target.ratio(64), preset="fast", device="cpu")


def _timed(steps: Steps, original: Original, settings: Settings, should_stop: ShouldStop | None) -> Steps:
    """Run to the end, and remember how long it took unless it was cut short, or so small that nothing was lost."""
    began, phases = time.perf_counter(), set()

    def seen(progress: Progress) -> Progress:
        phases.add(progress.phase)
        return progress

    result = yield from relay(steps, seen)
    if settings.time_limit is None and not (should_stop and should_stop()) and "max_error" not in result.provenance:
        trained, seconds = "training" in phases, time.perf_counter() - began
        name = _device_type(settings.device) if trained or "trying" in phases else "cpu"
        items = original.items
        run = speeds.Run(settings.preset, settings.model, name, items.dtype.name, items.size, trained, seconds)
        speeds.remember(run)
    return result


def _device_type(name: str) -> str:
    from napari_tinc.networks.device import resolve_device  # loads torch, which has worked by now

    return resolve_device(name).type


def _read(array: ArrayLike) -> Generator[Progress, None, Array]:
    """Bring an array within reach, in memory or in a file; report how far."""
    return (yield from relay(read_steps(array), lambda read: Progress.unmeasured("preparing", *read)))


def _quantise(original: Original, settings: Settings, step: float) -> Steps:
    packed, _ = yield from quantise(original, settings, step)
    return CompressedVolume(packed, settings.device)


def quantise(
    original: Original, settings: Settings, step: float
) -> Generator[Progress, None, tuple[bytes, Callable[[], Array]]]:
    """Compress with one step of the wavelets' quantiser.

    Returns
    -------
    bytes
        The frame.
    callable
        What it decodes to; most of that work has been done to measure it.
    """
    settings.check_no_networks("a step")
    attempt = yield from with_wavelets_of_step(original, settings, step)
    plan, content = attempt.plan, attempt.content
    decoders = framing.decoders(plan, content)
    psnr, quality, _ = yield from measuring.measure(decoders, original, plan.tree)
    error = original.value_range * 10 ** (-psnr / 20)
    if original.weights is None and error > step / 2:
        raise BudgetError(
            f"expected a root mean squared error of at most half the step, {step / 2:g}, got {error:g}: float32 has "
            "too few digits for this range of values; raise the step"
        )
    return framing.frame(plan, content, psnr, quality), framing.array_decoder(original, decoders)


def _run(
    original: Original, settings: Settings, budget: int, should_stop: ShouldStop | None
) -> Generator[Progress, None, tuple[CompressedVolume, float]]:
    """Compress to at most ``budget`` bytes; return the volume and its PSNR in dB."""
    smallest = smallest_budget(original, settings)
    if budget < smallest:
        raise BudgetError(f"expected a budget of at least {smallest} bytes for this volume, got {budget}")
    yield Progress.unmeasured("preparing", 0, 1)
    for slack in _SLACKS:
        best = yield from _best_draft(original, settings, budget - slack, should_stop)
        content, plan = best.content, best.plan
        psnr, quality, _ = yield from measuring.measure(framing.decoders(plan, content), original, plan.tree)
        packed = framing.frame(plan, content, psnr, quality)
        if len(packed) <= budget:
            return CompressedVolume(packed, settings.device), psnr
    raise BudgetError(f"expected a file of at most {budget} bytes, got a larger one: please report this as a bug")


def _fits_training(original: Original) -> bool:
    """Whether the samples of all voxels, in float32, are kept in memory."""
    return fits_memory(4 * original.items.size)


def _best_draft(
    original: Original, settings: Settings, budget: int, should_stop: ShouldStop | None
) -> Generator[Progress, None, Draft]:
    """Make the file in the ways that the settings allow, and return the one with the least error."""
    family, long = family_of(settings.model), TRAINING_STEPS[settings.preset]
    if family is not None and not has_wavelets(settings.model):
        training = Training(family, 1.0, long, should_stop)
        return (yield from with_network_alone(original, settings, budget, training))
    if family is not None:
        training = Training(family, NETWORK_SHARE, long, should_stop)
        return (yield from with_network(original, settings, budget, training))
    if settings.model == WAVELET or settings.preset == "fast":
        return (yield from with_wavelets(original, settings, budget))
    if not _fits_training(original):
        logger.warning("no networks are tried, for %d voxels are too many to train on in memory", original.items.size)
        best = yield from with_wavelets(original, settings, budget)
        return (yield from with_directions(original, settings, budget, best))
    best = yield from _best_of_all(original, settings, budget, should_stop)
    return (yield from with_postfilters(settings, budget, best, should_stop))


def _best_of_all(original: Original, settings: Settings, budget: int, should_stop: ShouldStop | None) -> Attempts:
    """Find out by successive halving whether a network is worth its time, and with which share of the bytes.

    A trial of seconds, then short trainings. Together with the long one they take what the preset allows.
    """

    def stopped() -> bool:
        return should_stop is not None and should_stop()

    def training(share: float, steps: int) -> Training:
        return Training(DEFAULT_FAMILY, share, steps, should_stop, best.decoder())

    short = TRAINING_STEPS["fast"]
    long = max(short, TRAINING_STEPS[settings.preset] - 2 * short)
    step_seconds = None if settings.time_limit is None else settings.time_limit / (sum(trial.STEPS) + 2 * short + long)
    promised = yield from trial.promised_gain(original, settings, budget, long, step_seconds, should_stop)
    settings = replace(settings, promised=promised)
    best = yield from with_wavelets(original, settings, budget)
    if not stopped():
        best = yield from with_directions(original, settings, budget, best)
    middle = trial.middle_to_try(original, settings, budget)
    if promised < trial.WORTH or middle is None:
        logger.info("no networks are trained: %s", NO_NETWORKS)
        yield Progress.unmeasured("coding", 1, 1, NO_NETWORKS)
        return best
    limits = [None if step_seconds is None else steps * step_seconds for steps in (short, long)]
    tried, allowed = middle
    to_beat = best
    if tried is not original:
        to_beat = yield from with_wavelets(tried, settings, allowed)
    pilots: dict[float, float] = {}
    for share in (NETWORK_SHARE, 1.0):
        if not stopped():
            timed = replace(settings, time_limit=limits[0])
            pilot = yield from with_network(tried, timed, allowed, training(share, short))
            pilots[share] = pilot.error
            if tried is original:
                best = min(best, pilot, key=lambda c: c.error)
            if pilot.error >= to_beat.error * _PROMISING:
                break  # without the help of wavelets it would be farther behind
    if pilots and min(pilots.values()) < to_beat.error * _PROMISING and not stopped():
        timed = replace(settings, time_limit=limits[1])
        share = min(pilots, key=pilots.__getitem__)
        trained = yield from with_network(original, timed, budget, training(share, long))
        best = min(best, trained, key=lambda c: c.error)
    return best


def _reach(original: Original, settings: Settings, psnr: float, should_stop: ShouldStop | None) -> Steps:
    """Find the smallest file that reaches a PSNR.

    Wavelets alone are searched directly, see :func:`_reach_with_wavelets`. Otherwise files of several sizes are made:
    PSNR grows almost linearly with the logarithm of the bytes.
    """
    if settings.is_wavelets_alone and original.weights is None:
        result = yield from _reach_with_wavelets(original, settings, psnr)
        if result is not None:
            return result
    nbytes = original.items.nbytes
    tried: list[tuple[float, float]] = []
    best: CompressedVolume | None = None
    smallest = smallest_budget(original, settings)
    if smallest >= nbytes:
        raise BudgetError(f"expected a volume of more than {smallest} bytes, the smallest possible file, got {nbytes}")
    log_bytes, largest = math.log2(nbytes / 64), math.log2(max(nbytes / 2, smallest))
    for _ in range(_PSNR_RUNS):
        log_bytes = min(max(log_bytes, math.log2(smallest)), largest)
        result, reached = yield from _run(original, settings, max(smallest, int(2**log_bytes)), should_stop)
        logger.info("%d bytes reach %.2f dB of %.2f", result.nbytes, reached, psnr)
        tried.append((log_bytes, reached))
        if reached >= psnr and (best is None or result.nbytes < best.nbytes):
            best = result
        if should_stop is not None and should_stop():
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


def _reach_with_wavelets(
    original: Original, settings: Settings, psnr: float
) -> Generator[Progress, None, CompressedVolume | None]:
    """Search the step that reaches a PSNR, without and with masks. None if it is out of reach."""
    best, last = yield from _search_step(original, original, settings, psnr, None)
    found = None if best is None or last is None else (yield from promising(last))
    if best is not None and last is not None and found is not None:
        other, _ = yield from _search_step(original, found[0], settings, psnr, last.heads[0])
        if other is not None and other.nbytes < best.nbytes:
            return other
    return best


def _search_step(
    original: Original, coded: Original, settings: Settings, psnr: float, near: WaveletHead | None
) -> Generator[Progress, None, tuple[CompressedVolume | None, Attempt | None]]:
    """Return the smallest file of a PSNR, and the last one that was made; every try tells its error.

    Parameters
    ----------
    original : Original
    coded : Original
        The same, or with masks.
    settings : Settings
    psnr : float
    near : WaveletHead, optional
        Of a file like it.
    """
    scales = [(limits.scale / original.value_range) ** 2 for limits in original.ranges if limits.span]
    error = original.items.size * 10 ** (-psnr / 10) / max(sum(scales) / len(scales), search.LEAST_ERROR)
    best: CompressedVolume | None = None
    attempt = None
    for _ in range(_PSNR_RUNS):
        if error <= coded.given_up:
            break
        attempt = yield from with_wavelets_of_error(coded, settings, error - coded.given_up, near)
        if attempt.nbytes > original.items.nbytes / 2:
            return None, None
        plan, content = attempt.plan, attempt.content
        reached, quality, _ = yield from measuring.measure(framing.decoders(plan, content), original, plan.tree)
        logger.info("%d bytes reach %.2f dB of %.2f", attempt.nbytes, reached, psnr)
        if reached >= psnr and (best is None or attempt.nbytes < best.nbytes):
            best = CompressedVolume(framing.frame(plan, content, reached, quality), settings.device)
        if psnr <= reached <= psnr + _NEAR_PSNR:
            break
        # What the filters gain and rounding costs shows in the measured value only.
        near = attempt.heads[0]
        error *= 10 ** (min(reached - psnr - _NEAR_PSNR / 2, 20.0) / 10)
    return best, attempt


def _next_size(tried: list[tuple[float, float]], psnr: float) -> float:
    """Propose log2 bytes: interpolate between the nearest tries on both sides, else extrapolate."""
    below = [t for t in tried if t[1] < psnr]
    above = [t for t in tried if t[1] >= psnr]
    if below and above:
        (b0, p0), (b1, p1) = max(below, key=lambda t: t[1]), min(above, key=lambda t: t[1])
        return b0 + (b1 - b0) * float(np.clip((psnr - p0) / max(p1 - p0, 1e-6), 0.1, 0.9))
    last, reached = tried[-1]
    return last + float(np.clip((psnr - reached) / _DB_PER_OCTAVE, -3, 3))

"""One way to fill a file: wavelets, networks, or both, and restoration filters; all but its measured quality."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from napari_tinc.choices import WAVELET, family_of, has_wavelets
from napari_tinc.encode import filters, framing
from napari_tinc.encode.framing import Content, Payloads, Plan
from napari_tinc.encode.original import Original
from napari_tinc.encode.plan import (
    NETWORK_SHARE,
    WAVELET_HEAD,
    ShouldStop,
    plan_wavelets,
)
from napari_tinc.errors import BudgetError
from napari_tinc.progress import Progress
from napari_tinc.restoration import bins_of
from napari_tinc.settings import Settings
from napari_tinc.system.steps import relay
from napari_tinc.wavelets import search
from napari_tinc.wavelets.blocks import CodedWavelets, WaveletHead
from napari_tinc.wavelets.residual import Residual
from napari_tinc.wavelets.search import Near

if TYPE_CHECKING:
    from napari_tinc.encode.training import Trained

Attempts = Generator[Progress, None, "Attempt"]

_SPARE = 0.01
# Bytes of wavelets that are of any use.
_LEAST_WAVELETS = 24
# What filters may leave of the bytes set aside for them.
_LEFT = 0.003


@dataclass(frozen=True)
class Draft:
    """A file that lacks only its measured quality."""

    plan: Plan
    content: Content

    @property
    def nbytes(self) -> int:
        """Size of the file, but for a few bytes of its measured quality."""
        return framing.size(self.plan, self.content)


@dataclass(frozen=True)
class Attempt(Draft):
    """A file to be compared with others, and the error left: with its filters, and without them."""

    error: float
    unfiltered: float
    again: Callable[[int], Attempts]  # makes it in another number of bytes, without training, without filters

    @property
    def heads(self) -> list[WaveletHead]:
        """Heads of the wavelet layers of the items that have one."""
        return [coded.head for coded in self.content.wavelets if coded is not None]

    @property
    def near(self) -> Near:
        """What another file like it begins its search with."""
        return Near(self.heads[0], self.wavelet_bytes)

    @property
    def wavelet_bytes(self) -> int:
        """Bytes of the streams of all wavelet layers, and of what says where they begin."""
        return sum(search.streams_size(coded) for coded in self.content.wavelets if coded is not None)

    @property
    def bins(self) -> list[int]:
        """Bins of every item's filter."""
        return [0 if one is None else bins_of(one) for one in self.content.restorations]

    def decoder(self) -> Callable[..., Any]:
        """Return what decodes regions of the file, like :meth:`napari_tinc.volume.CompressedVolume.decode`."""
        return framing.array_decoder(self.plan.original, framing.decoders(self.plan, self.content))


@dataclass(frozen=True)
class Training:
    """A network to be trained for a file.

    Parameters
    ----------
    family : str
    share : float
        Of the file's bytes, what the network takes; a wavelet layer takes the rest.
    steps : int
        Optimiser steps for a volume of 2**18 voxels.
    should_stop : callable, optional
        Asked before every step.
    shown : callable, optional
        What a preview decodes; by default the network in training.
    """

    family: str
    share: float
    steps: int
    should_stop: ShouldStop | None = None
    shown: Callable[..., Any] | None = None


def with_wavelets_alone(
    original: Original, settings: Settings, budget: int, near: Near | None = None, refill: bool = True
) -> Attempts:
    """Fill a file with wavelets and restoration filters.

    Parameters
    ----------
    original : Original
    settings : Settings
    budget : int
        Bytes of the file.
    near : Near, optional
        Of a file like it, which saves most of the search.
    refill : bool
        Whether the bytes that filters leave of theirs, up to 3 %, go back to the coefficients.
    """
    least = smallest_budget(original, replace(settings, model=WAVELET))

    def make(room: int) -> Attempts:
        return _fill_wavelets(plan_wavelets(original, settings, room), {}, room, near)

    return (yield from restored(make, original, least, budget, refill))


def with_wavelets_of_error(
    original: Original, settings: Settings, error: float, near: WaveletHead | None = None
) -> Attempts:
    """Find the smallest wavelet layer of at most a squared error, normalised, and the filters that lower it further.

    Parameters
    ----------
    original : Original
    settings : Settings
    error : float
        Sum of all items' squared errors, normalised.
    near : WaveletHead, optional
        Of a file of nearly that error, which saves most of the search.
    """
    residuals = [original.residual(item) for item in range(len(original.items))]
    fitted = yield from relay(search.fit_error(varied(residuals), error, near), _told)
    plan = plan_wavelets(original, settings, fitted.nbytes)
    content, like = Content(wavelets=_spread(fitted, residuals)), Near.to(fitted)
    bins = [filters.affordable(framing.size(plan, content), len(residuals))] * len(residuals)
    content, left = yield from filters.restore(plan, content, bins, fitted.error)
    return Attempt(plan, content, left, fitted.error, lambda size: _fill_wavelets(plan, {}, size, like))


def at_step_of(original: Original, attempt: Attempt) -> Generator[Progress, None, search.Fit]:
    """Return the wavelet layers of a volume at the step, and with the split axes, of an attempt."""
    residuals = varied([original.residual(item) for item in range(len(original.items))])
    return (yield from relay(search.at_step_of(residuals, attempt.heads[0]), _told))


def with_wavelets_of_step(original: Original, settings: Settings, step: float) -> Attempts:
    """Make the wavelet layer of a quantiser's step, in intensity units, and the filters that lower its error."""
    residuals = [original.residual(item) for item in range(len(original.items))]
    layers: list[CodedWavelets | None] = []
    nbytes, error = 0, 0.0
    for residual, limits in zip(residuals, original.ranges, strict=True):
        if residual is None:
            layers.append(None)
            continue
        fitted = yield from relay(search.fit_step(residual, step / limits.scale), _told)
        layers.append(fitted.layers[0])
        nbytes, error = nbytes + fitted.nbytes, error + fitted.error
    plan, content = plan_wavelets(original, settings, nbytes), Content(wavelets=layers)
    bins = [filters.affordable(framing.size(plan, content), len(residuals))] * len(residuals)
    content, left = yield from filters.restore(plan, content, bins, error)
    return Attempt(plan, content, left, error, lambda size: _fill_wavelets(plan, {}, size))


def with_network(original: Original, settings: Settings, budget: int, training: Training) -> Attempts:
    """Fill a file with a network, wavelets if its share is less than 1, and restoration filters."""
    least = smallest_budget(original, replace(settings, model=f"{training.family}+{WAVELET}"))

    def make(room: int) -> Attempts:
        return with_network_unfiltered(original, settings, room, training)

    return (yield from restored(make, original, least, budget))


def with_network_unfiltered(original: Original, settings: Settings, budget: int, training: Training) -> Attempts:
    """Train a network that takes its share of the bytes; a wavelet layer fills what is left of the budget."""
    network_bytes = int(training.share * budget)
    trained = yield from _trained(original, settings, network_bytes, training)
    if network_bytes == budget:
        return (yield from _rounded(trained, budget))
    return (yield from _fill_wavelets(trained.plan, trained.fill(network_bytes), budget))


def with_network_alone(
    original: Original, settings: Settings, budget: int, training: Training
) -> Generator[Progress, None, Draft]:
    """Fill a file with a network, whose error takes a decoder to know and is not needed."""
    trained = yield from _trained(original, settings, budget, training)
    return Draft(trained.plan, Content(trained.fill(budget)))


def _trained(
    original: Original, settings: Settings, network_bytes: int, training: Training
) -> Generator[Progress, None, Trained]:
    """Train a network for so many bytes."""
    from napari_tinc.encode.training import plan_network, train  # loads torch
    from napari_tinc.networks.device import one_core_free

    def steps() -> Generator[Progress, None, Trained]:
        plan = plan_network(original, settings, training.family, network_bytes)
        yield Progress.unmeasured("preparing", 0, 1)
        return (yield from train(plan, network_bytes, training.steps, training.should_stop, training.shown))

    return (yield from relay(steps(), lambda progress: progress, one_core_free))


def smallest_budget(original: Original, settings: Settings) -> int:
    """Bytes of the smallest file that a volume can become with the model and the levels asked for."""
    family = family_of(settings.model)
    if family is None:
        plan = plan_wavelets(original, settings, 0)
        heads = len(original.items) * (WAVELET_HEAD + _LEAST_WAVELETS)
        return framing.size(plan, Content()) + framing.PROVENANCE_SLACK + heads
    if has_wavelets(settings.model):
        return math.ceil(smallest_budget(original, replace(settings, model=family)) / NETWORK_SHARE)
    from napari_tinc.encode.training import smallest_network_budget  # loads torch

    return smallest_network_budget(original, settings)


def restored(
    make: Callable[[int], Attempts], original: Original, least: int, budget: int, refill: bool = True
) -> Attempts:
    """Make a file in what its restoration filters leave of the budget, if that is enough, and find these."""
    items = len(original.items)
    bins = [filters.affordable(budget, items)] * items
    room = budget - filters.reserve(bins[0], items)
    if not any(bins) or room < least:
        return (yield from make(budget))
    attempt = yield from make(room)
    while any(bins):
        content, error = yield from filters.restore(attempt.plan, attempt.content, bins, attempt.error)
        restored = replace(attempt, content=content, error=error)
        taken = restored.nbytes - attempt.nbytes
        if budget - room - taken <= _LEFT * budget or not refill:
            return restored
        # They need less: fill the rest. No filter may grow now, so that the next ones fit and this ends.
        bins, room = restored.bins, budget - taken
        attempt = yield from attempt.again(room)
    return attempt


def _rounded(trained: Trained, budget: int) -> Attempts:
    """Fill a file with a network's parameters alone."""
    yield from ()  # it is soon done
    payloads = trained.fill(budget)
    left = sum(residual.squared_error() for residual in varied(_residuals(trained.plan, payloads)))
    return Attempt(trained.plan, Content(payloads), left, left, lambda size: _rounded(trained, size))


def _fill_wavelets(plan: Plan, payloads: Payloads, budget: int, near: Near | None = None) -> Attempts:
    """Fill what a network leaves of the budget with wavelets; ``near`` is of a file of nearly that size."""
    residuals = _residuals(plan, payloads)
    coded, slack = varied(residuals), framing.PROVENANCE_SLACK
    room = budget - framing.size(plan, Content(payloads)) - WAVELET_HEAD * len(coded) - slack
    fitted = yield from _search(coded, room, near)
    content = Content(payloads, _spread(fitted, residuals))
    heads = framing.size(plan, content) - fitted.nbytes
    spare = budget - slack - heads - room
    if spare > _SPARE * budget:  # the heads of a small file were shorter than they might have been
        fitted = yield from _search(coded, room + spare, Near.to(fitted))
        content = Content(payloads, _spread(fitted, residuals))
    error, like = fitted.error, Near.to(fitted)
    return Attempt(plan, content, error, error, lambda size: _fill_wavelets(plan, payloads, size, like))


def _residuals(plan: Plan, payloads: Payloads) -> list[Residual | None]:
    """What the network leaves over of every item; None for an item of one value."""
    networks, original = plan.networks(payloads), plan.original
    whole = tuple((0, side) for side in original.spatial)
    return [
        original.residual(item, None if networks is None or not limits.span else networks(item).values(whole, 1.0))
        for item, limits in enumerate(original.ranges)
    ]


def varied(residuals: Sequence[Residual | None]) -> list[Residual]:
    """Residuals of the items that have more than one value."""
    return [residual for residual in residuals if residual is not None]


def _spread(fitted: search.Fit, residuals: Sequence[Residual | None]) -> list[CodedWavelets | None]:
    """Wavelets of every item, None for those of one value."""
    layers = iter(fitted.layers)
    return [None if residual is None else next(layers) for residual in residuals]


def _search(residuals: Sequence[Residual], room: int, near: Near | None) -> Generator[Progress, None, search.Fit]:
    """Search the step that fills ``room`` bytes; report how far the search is."""
    steps = search.fit(residuals, max(1, room), near)
    fitted = yield from relay(steps, _told)
    if fitted is None:
        raise BudgetError(f"the wavelets do not fit in {room} bytes even at their coarsest: raise the budget")
    return fitted


def _told(number: int) -> Progress:
    return Progress.unmeasured("coding", number, search.TRIES)


__all__ = [
    "Attempt",
    "Attempts",
    "Draft",
    "Training",
    "at_step_of",
    "restored",
    "smallest_budget",
    "varied",
    "with_network",
    "with_network_alone",
    "with_network_unfiltered",
    "with_wavelets_alone",
    "with_wavelets_of_error",
    "with_wavelets_of_step",
]

"""One way to fill a file: a detail layer, networks, or both, and restoration filters; all but its measured quality."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy.typing as npt

from napari_tinc.encode import draft as drafts
from napari_tinc.encode import planning, restoring
from napari_tinc.encode.draft import Content, Draft, Payloads
from napari_tinc.encode.planning import Finish
from napari_tinc.encode.settings import Settings
from napari_tinc.encode.source import Source
from napari_tinc.errors import BudgetError
from napari_tinc.networks.evaluation import Decoder
from napari_tinc.networks.training import Progress
from napari_tinc.system.steps import relay
from napari_tinc.wavelets import search as detail_coding
from napari_tinc.wavelets.blocks import Detail, DetailHead
from napari_tinc.wavelets.residual import Residual

Array = npt.NDArray[Any]
Attempts = Generator[Progress, None, "Attempt"]

_SPARE = 0.01
# What filters may leave of the bytes set aside for them.
_LEFT = 0.003


@dataclass(frozen=True)
class Attempt:
    """A file that lacks only its measured quality, and the error left."""

    draft: Draft
    content: Content
    error: float
    again: Callable[[int], Attempts]  # makes it in another number of bytes, without training, without filters

    @property
    def nbytes(self) -> int:
        """Size of the file, but for a few bytes of its measured quality."""
        return self.draft.size(self.content)

    @property
    def bins(self) -> list[int]:
        """Bins of every item's filter."""
        return [0 if one is None else len(one.edges) + 1 for one in self.content.restorations]

    def decoder(self) -> Callable[..., Array]:
        """Decode what the file would."""
        return self.draft.unmeasured(self.content).decode


def restored_detail(
    source: Source, settings: Settings, budget: int, near: DetailHead | None = None, refill: bool = True
) -> Attempts:
    """Fill a file with a detail layer and restoration filters.

    Parameters
    ----------
    source : Source
    settings : Settings
    budget : int
        Bytes of the file.
    near : DetailHead, optional
        Of a file like it, which saves most of the search.
    refill : bool
        Whether the bytes that filters leave of theirs, up to 3 %, go back to the coefficients.
    """
    least = planning.smallest_budget(source, replace(settings, model="detail"))

    def make(room: int) -> Attempts:
        return _with_detail(planning.plan_detail(source, settings, room), {}, room, near)

    return (yield from _restored(make, source, least, budget, refill))


def restored_network(
    source: Source, settings: Settings, share: float, budget: int, steps: int, finish: Finish | None,
    shown: Callable[..., Array] | None = None,
) -> Attempts:  # fmt: skip
    """Fill a file with networks, a detail layer if their ``share`` is less than 1, and restoration filters."""
    least = planning.smallest_budget(source, replace(settings, model="hybrid"))

    def make(room: int) -> Attempts:
        return with_network(source, settings, int(share * room), room, steps, finish, shown)

    return (yield from _restored(make, source, least, budget))


def _restored(
    make: Callable[[int], Attempts], source: Source, least: int, budget: int, refill: bool = True
) -> Attempts:
    """Make a file in what its restoration filters leave of the budget, if that is enough, and find these."""
    items = len(source.items)
    bins = [restoring.affordable(budget, items)] * items
    room = budget - restoring.reserve(bins[0], items)
    if not any(bins) or room < least:
        return (yield from make(budget))
    attempt = yield from make(room)
    while any(bins):
        content, error = yield from restoring.restore(attempt.draft, attempt.content, bins, attempt.error)
        restored = replace(attempt, content=content, error=error)
        taken = restored.nbytes - attempt.nbytes
        if budget - room - taken <= _LEFT * budget or not refill:
            return restored
        # They need less: fill the rest. No filter may grow now, so that the next ones fit and this ends.
        bins, room = restored.bins, budget - taken
        attempt = yield from attempt.again(room)
    return attempt


def with_network(
    source: Source, settings: Settings, share: int, budget: int, steps: int, finish: Finish | None,
    shown: Callable[..., Array] | None = None,
) -> Attempts:  # fmt: skip
    """Train a network that takes ``share`` bytes; a detail layer fills what is left of the budget.

    A preview shows what ``shown`` decodes, such as the best file so far; by default the network in training.
    """
    draft = planning.plan(source, settings, share)
    yield Progress.unmeasured("preparing", 0, 1)
    bits = 8.0 * (share - draft.overhead())
    trainer = planning.prepare_training(draft, bits, steps, finish)
    live = draft.placeholder()
    live.attach(Decoder.live(draft.layout, draft.tree, trainer.state.parameters))
    trainer.decode = shown or live.decode
    parameters, codes = yield from trainer.run()
    assert trainer.sensitivities is not None
    fill = partial(draft.fill, parameters, codes, trainer.sensitivities, bits)
    if share == budget:
        return (yield from _rounded(draft, fill, budget))
    return (yield from _with_detail(draft, fill(share), budget))


def _rounded(draft: Draft, fill: Callable[[int], Payloads], budget: int) -> Attempts:
    """Fill a file with a network's parameters alone."""
    yield from ()  # it is soon done
    payloads = fill(budget)
    left = [residual.squared_error() for residual in draft.residuals(payloads) if residual is not None]
    return Attempt(draft, Content(payloads), sum(left), lambda size: _rounded(draft, fill, size))


def _with_detail(draft: Draft, payloads: Payloads, budget: int, near: DetailHead | None = None) -> Attempts:
    """Fill what a network leaves of the budget with a detail layer; ``near`` is one of nearly that size."""
    residuals = draft.residuals(payloads)
    given = [i for i, residual in enumerate(residuals) if residual is not None]
    room = budget - draft.size(Content(payloads)) - planning.DETAIL_HEAD * len(given) - drafts.PROVENANCE_SLACK
    given_residuals = [residual for residual in residuals if residual is not None]
    fitted = yield from _fit_detail(given_residuals, room, near)
    content = Content(payloads, _spread(fitted, given, len(residuals)))
    heads = draft.size(content) - fitted.nbytes
    spare = budget - drafts.PROVENANCE_SLACK - heads - room
    if spare > _SPARE * budget:  # the heads of a small file were shorter than they might have been
        fitted = yield from _fit_detail(given_residuals, room + spare, fitted.details[0].head)
        content = Content(payloads, _spread(fitted, given, len(residuals)))
    head = fitted.details[0].head
    return Attempt(draft, content, fitted.error, lambda size: _with_detail(draft, payloads, size, head))


def _spread(fitted: detail_coding.Fit, given: Sequence[int], items: int) -> list[Detail | None]:
    """Detail layer of every item, None for those that need none."""
    details: list[Detail | None] = [None] * items
    for item, detail in zip(given, fitted.details, strict=True):
        details[item] = detail
    return details


def _fit_detail(
    residuals: Sequence[Residual], room: int, near: DetailHead | None
) -> Generator[Progress, None, detail_coding.Fit]:
    """Search the step that fills ``room`` bytes; report how far the search is."""
    search = detail_coding.fit(residuals, max(1, room), near)
    found = yield from relay(search, lambda number: Progress.unmeasured("coding", number, detail_coding.TRIES))
    if found is None:
        raise BudgetError(f"the detail layer does not fit in {room} bytes even at its coarsest: raise the budget")
    return found


__all__ = ["Attempt", "Attempts", "restored_detail", "restored_network", "with_network"]

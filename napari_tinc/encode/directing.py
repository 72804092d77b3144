"""Files of blocks continued along directions instead of wavelets, where that leaves less error."""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from functools import partial

from napari_tinc.directional import search
from napari_tinc.directional.layout import LEAST_CODE, MAX_TILE, Layout
from napari_tinc.directional.prediction import LATEST, Rules
from napari_tinc.directional.search import Prices
from napari_tinc.encode import framing, measuring
from napari_tinc.encode.attempts import Attempt, Attempts, restored, varied
from napari_tinc.encode.framing import Content, Plan
from napari_tinc.encode.original import Original
from napari_tinc.encode.plan import plan_wavelets
from napari_tinc.errors import BudgetError
from napari_tinc.progress import Progress
from napari_tinc.quantiser import STEP_CODES, step_of
from napari_tinc.settings import Settings
from napari_tinc.system.steps import relay
from napari_tinc.wavelets.likely import next_code
from napari_tinc.wavelets.residual import Residual

Sides = tuple[int, int, int]
Cut = tuple[Layout, Rules, Prices]

# Larger volumes are left to the wavelets, whose coarse scales cost a reader little.
_MOST_VOXELS = 2**25
# Of a volume, what says which root blocks are best, and what symbols cost with each.
_MIDDLE_VOXELS = 2**19
# Sides of root blocks that are tried, as logarithms: cubes, flat ones, and the flatter ones of stacks of few planes.
_ROOTS = ((4, 4, 4), (3, 4, 4), (4, 3, 4), (4, 4, 3), (3, 5, 5), (2, 5, 5))
# A tile and its neighbours across a plane along the first axis have no more voxels than a fifth of a second decodes.
_ROW_VOXELS = 2**22
_TRIES, _FILL = 8, 0.998
# By how many codes a step grows where a size halves, to guess the step of a size.
_CODES_PER_OCTAVE = 192
# Between two codes bits become dearer in so many parts. They make a file as much smaller as the next code does if λ
# grows by about a percent: 0.8 to 3.1 on eight volumes.
_PARTS, _DEARER = 4, 1.01
# A first guess: by how many codes the step of wavelets of the same size is coarser. On 14 volumes, at three sizes each,
# they are 46 codes finer to 237 coarser, in the median 50.
_CODES_COARSER = 50


def with_directions(original: Original, settings: Settings, budget: int, other: Attempt) -> Attempts:
    """Fill a file with the directional layer and restoration filters; keep the other file unless this one is better.

    Parameters
    ----------
    original : Original
        Without masks.
    settings : Settings
    budget : int
        Bytes of the file.
    other : Attempt
        A file of that size, maybe with masks: then the directional layer is tried with them, too.
    """
    if original.items.size > _MOST_VOXELS or original.weights is not None or not other.error:
        return other
    guess = max(0, other.heads[0].step_code - _CODES_COARSER)
    # Measured as the others are: what coefficients tell of the error is off by a few percent.
    error = yield from measuring.squared_error(framing.decoders(other.plan, other.content), original)
    best = replace(other, error=error)
    for coded in (original, other.plan.original) if other.plan.original.masks else (original,):
        plan = plan_wavelets(coded, settings, budget)
        try:
            directed = yield from restored(partial(_filled, plan, _PARTS * guess), coded, 0, budget)
        except BudgetError:
            continue
        # What the search tells of a masked volume's error is of the continuation, too.
        error = yield from measuring.squared_error(framing.decoders(plan, directed.content), original)
        best = min(best, replace(directed, error=error), key=lambda attempt: attempt.error)
    return best


def _filled(plan: Plan, code: int, budget: int, cuts: Sequence[Cut] = ()) -> Attempts:
    """Find the step, and how dear bits are, that fill a file.

    Parameters
    ----------
    plan : Plan
    code : int
        A guess, in parts of step codes.
    budget : int
    cuts : sequence of Cut, optional
        Those of a file of nearly that size, with their prices.
    """
    original = plan.original
    residuals = [original.residual(item) for item in range(len(original.items))]
    coded = varied(residuals)
    head = framing.size(plan, Content()) + framing.PROVENANCE_SLACK
    room = max(1, budget - head)

    def proposed(tried: Mapping[int, float]) -> int:
        return next_code(tried, _likely_octaves, math.log2((1 + _FILL) / 2), coarsest=_PARTS * STEP_CODES - 1)

    learning = not cuts
    if not cuts:
        cuts, nbytes = yield from relay(_cuts(coded, code // _PARTS), _told)
        code = proposed({code: math.log2(nbytes / room)})
    tried: dict[int, float] = {}
    best: tuple[float, Content, int, Sequence[Cut]] | None = None
    filled = 0.0
    for _ in range(_TRIES):
        fits, dearer = [], _DEARER ** (code % _PARTS / _PARTS)
        for one, (layout, rules, prices) in zip(coded, cuts, strict=True):
            steps = search.fit_step(
                one.read, one.weights, layout, rules, code // _PARTS, prices, search.LAMBDA * dearer
            )
            fits.append((yield from relay(steps, _told)))
        found = iter(fits)
        content = Content(directions=[None if one is None else next(found).coded for one in residuals])
        size = framing.size(plan, content) + framing.PROVENANCE_SLACK
        tried[code] = math.log2((size - head) / room)
        if size <= budget:
            filled, error = max(filled, (size - head) / room), sum(fit.error for fit in fits)
            if best is None or error < best[0]:  # of two that are as large, one can be better by luck
                best = error, content, code, cuts
        code = proposed(tried)
        if filled >= _FILL or code in tried:
            break
        if learning:
            # Once more, not every time, which drifts to ever fewer symbols; what they make of a step has another size.
            cuts = [(layout, rules, fit.prices) for (layout, rules, _), fit in zip(cuts, fits, strict=True)]
            learning = False
            tried.clear()
    if best is None:
        raise BudgetError(f"the blocks do not fit in {budget} bytes: raise the budget")
    error, content, chosen, known = best
    return Attempt(plan, content, error, error, lambda size: _filled(plan, chosen, size, known))


def _likely_octaves(code: int) -> float:
    return -code / (_PARTS * _CODES_PER_OCTAVE)


def _cuts(residuals: Sequence[Residual], code: int) -> Generator[None, None, tuple[list[Cut], int]]:
    """Choose root blocks and rules of all items, at one step; return the bytes that these take then, too."""
    roots, prices = yield from _roots(residuals[0], code)
    least, best, nbytes = math.inf, list[Cut](), 0
    for rules in LATEST:  # on the whole: one or two percent apart, they may be ranked otherwise on its middle
        fits = []
        for one in residuals:
            steps = search.fit_step(one.read, one.weights, _cut(one.shape, roots), rules, code, prices)
            fits.append((yield from steps))
        cost = sum(_cost(fit, code) for fit in fits)
        if cost < least:
            least, nbytes = cost, sum(fit.nbytes for fit in fits)
            best = [(_cut(one.shape, roots), rules, fit.prices) for one, fit in zip(residuals, fits, strict=True)]
    return best, nbytes


def _roots(residual: Residual, code: int) -> Generator[None, None, tuple[Sides, Prices]]:
    """Try root blocks on the middle of an item; return the best, and what symbols cost with them."""
    tried = residual.middle(_MIDDLE_VOXELS)
    costs: dict[Sides, float] = {}
    known: dict[Sides, Prices] = {}
    for codes in dict.fromkeys(_fitting(tried.shape, codes) for codes in _ROOTS):

        def made(prices: Prices, codes: Sides = codes) -> Generator[None, None, search.Fit]:
            return search.fit_step(tried.read, tried.weights, _cut(tried.shape, codes), LATEST[0], code, prices)

        # Guessed ones are far off for some volumes and sizes, those of other blocks, too: a worse cut would seem best.
        known[codes] = (yield from made(Prices.guessed())).prices
        costs[codes] = _cost((yield from made(known[codes])), code)
    best = min(costs, key=lambda codes: costs[codes])
    return best, known[best]


def _cost(fit: search.Fit, code: int) -> float:
    """D + λ R of a layer."""
    return fit.error + search.LAMBDA * step_of(code) ** 2 * 8 * fit.nbytes


def _fitting(shape: Sides, codes: Sides) -> Sides:
    """Sides no longer than the volume needs, the longest at least that of the smallest blocks."""
    z, y, x = (min(code, (n - 1).bit_length()) for n, code in zip(shape, codes, strict=True))
    return z, y, max(x, LEAST_CODE)


def _cut(shape: Sides, codes: Sides) -> Layout:
    """Cut a volume into tiles: as large as lets a plane across the first axis decode soon."""
    roots = [-(-n >> code) for n, code in zip(shape, codes, strict=True)]
    roots[0] = max(1, min(roots[0], _ROW_VOXELS // (roots[1] * roots[2] << sum(codes))))
    while math.prod(roots) << sum(codes) > MAX_TILE:
        longest = max(range(3), key=lambda axis: (roots[axis] > 1, roots[axis] << codes[axis]))
        roots[longest] = -(-roots[longest] // 2)
    return Layout(shape, codes, (roots[0], roots[1], roots[2]))


def _told(_: None) -> Progress:
    return Progress.unmeasured("coding", 0, 1)


__all__ = ["with_directions"]

"""What to use for a volume, from what was tried; which strategy ``auto`` takes and why, and whether that was right."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from napari_tinc.compare.candidates import NETWORK, TINC
from napari_tinc.compare.measures import Truth
from napari_tinc.compare.results import Result
from napari_tinc.geometry.octree import choose_splits
from napari_tinc.measures import signal
from napari_tinc.networks import allocation

# White noise has Rayleigh-distributed amplitudes, whose mean cosine similarity is E[a]² / E[a²] = π/4.
NOISE_CONSISTENCY = math.pi / 4
_NOISE_MARGIN = 0.02
_DECISIVE_DB = 0.1  # below this two settings are equally good for any practical purpose


@dataclass(frozen=True)
class Facts:
    """What is measured on a volume before anything is compressed.

    Parameters
    ----------
    consistency : float or None
        Global consistency, see :func:`napari_tinc.measures.signal.global_consistency`; mean over channels and
        times.
    foreground : float
        Share of voxels above the noise floor, see :func:`napari_tinc.measures.signal.noise_floor`; likewise.
    """

    consistency: float | None
    foreground: float


@dataclass(frozen=True)
class Recommendation:
    """The strategy to take and why.

    Parameters
    ----------
    between, within : str
        Strategies between levels and within a level.
    reason : str
        For the user, with the numbers it rests on.
    """

    between: str
    within: str
    reason: str

    @property
    def strategy(self) -> str:
        """As users write it."""
        return f"{self.between}/{self.within}"


@dataclass(frozen=True)
class Verdict:
    """How the recommended strategy did at one ratio.

    Parameters
    ----------
    target_ratio : float
    right : bool or None
        Whether no other network was more than a tenth of a decibel better; None if that was not tried.
    text : str
        For the user.
    """

    target_ratio: float
    right: bool | None
    text: str


def facts_of(truth: Truth) -> Facts:
    """Measure what the choice depends on."""
    splits = choose_splits(truth.items.shape[1:], 1)
    measured = [signal.global_consistency(item, splits) for item in truth.items]
    known = [value for value in measured if value is not None]
    shares = [float((item > signal.noise_floor(item)).mean()) for item in truth.items]
    return Facts(float(np.mean(known)) if known else None, float(np.mean(shares)))


def recommend(facts: Facts) -> Recommendation:
    """Choose a strategy; between levels it is the one that ``auto`` takes, by the same code."""
    between = allocation.resolve_auto(facts.consistency)
    if facts.consistency is None:
        why = "The volume is too small or too empty to measure how alike its octants are, so no level is favoured."
    else:
        side = {"shallow": "above", "deep": "below"}.get(between, "between")
        limits = {"shallow": f"{allocation.CONSISTENT}", "deep": f"{allocation.INCONSISTENT}"}.get(
            between, f"{allocation.INCONSISTENT} and {allocation.CONSISTENT}"
        )
        why = f"Global consistency {facts.consistency:.2f} is {side} {limits}: {between}."
        if facts.consistency < NOISE_CONSISTENCY + _NOISE_MARGIN:
            why += f" But noise alone would score {NOISE_CONSISTENCY:.2f}, so this is weak evidence."
    # docs/strategies.md: which volumes gain by importance could not be told from their foreground.
    why += f" Within a level all octants get the same, whatever the foreground ({facts.foreground:.0%} of the voxels):"
    why += " only a test shows whether importance helps."
    return Recommendation(between, "equal", why)


def answer(results: Iterable[Result]) -> str:
    """Say what to use, in a line per ratio, from what has finished; empty if nothing has.

    Of those within a tenth of a decibel of the best it is what Compress does by itself, or else the fastest.
    """
    return "\n".join(_answer(ratio, found) for ratio, found in _by_ratio(results).items())


def _answer(ratio: float, found: list[Result]) -> str:
    best = max(found, key=_psnr)
    as_good = [result for result in found if _psnr(result) >= _psnr(best) - _DECISIVE_DB]
    taken = min(as_good, key=lambda result: (not _is_default(result), _seconds(result)))
    said = f"At {ratio:g} times smaller use {_how(taken)}: {_said(taken)}{_took(taken)}"
    ours = [result for result in found if result.candidate.codec == TINC]
    others = [result for result in found if result.candidate.codec != TINC]
    rivals = others if taken in ours else ours
    if not rivals:
        return f"{said}."
    rival = max(rivals, key=_psnr)
    more = _psnr(taken) - _psnr(rival)  # infinite or undefined where one loses nothing
    apart = f", {abs(more):.2f} dB {'less' if more >= 0 else 'more'}" if math.isfinite(more) else ""
    return f"{said}; {_how(rival)} reaches {_said(rival)}{apart}."


def _how(result: Result) -> str:
    """What a user has to choose to get this file."""
    settings = result.candidate.settings
    if settings is None:
        return f"the codec {result.candidate.name}"
    said = f"Compress with preset {settings.preset} and model {settings.model}"
    if not _is_network(result):
        return said
    levels = "" if settings.levels is None else f", {settings.levels} level{'s' * (settings.levels != 1)}"
    return f"{said}, {settings.between} between levels, {settings.within} within levels{levels}"


def _took(result: Result) -> str:
    return f" in {_seconds(result):.1f} s" if math.isfinite(_seconds(result)) else ""


def _by_ratio(results: Iterable[Result]) -> dict[float, list[Result]]:
    """Those that have a file, by the ratio that was asked for."""
    found: dict[float, list[Result]] = {}
    for result in results:
        if result.ok:
            found.setdefault(result.target_ratio, []).append(result)
    return found


def verdicts(results: Iterable[Result], facts: Facts) -> tuple[Verdict, ...]:
    """Say, ratio by ratio, how the recommended strategy did among networks and the default among ours, and who won."""
    return tuple(_verdict(ratio, found, recommend(facts)) for ratio, found in _by_ratio(results).items())


def _verdict(ratio: float, found: list[Result], advice: Recommendation) -> Verdict:
    ours = [result for result in found if result.candidate.codec == TINC]
    followed = [result for result in ours if _follows(result, advice)]
    best = max(found, key=_psnr)
    leader = f"{_default(ours)}Best of all was {best.candidate.name} with {_said(best)}."
    if not followed:
        return Verdict(ratio, None, f"{advice.strategy} was not among the finished candidates. {leader}")
    networks = [result for result in ours if _is_network(result)]
    tried = {result.same_as or result.candidate.name for result in networks}
    taken, first = max(followed, key=_psnr), max(networks, key=_psnr)
    loss = _gap(first, taken)
    if loss == 0:
        others = f"the best of {len(tried)} network strategies" if len(tried) > 1 else "the only network strategy tried"
        said = f"{advice.strategy} was {others}"
    elif loss <= _DECISIVE_DB:
        said = f"{advice.strategy} was as good as the best, {first.candidate.name}, within {loss:.2f} dB"
    else:
        said = f"{advice.strategy} was wrong: {_better(first, loss)}"
    return Verdict(ratio, loss <= _DECISIVE_DB, f"{said} ({_said(taken)}). {leader}")


def _default(ours: list[Result]) -> str:
    """Say whether what Compress does by itself was the best of ours; nothing if it was not tried."""
    tried = [result for result in ours if _is_default(result)]
    if not tried:
        return ""
    taken, first = max(tried, key=_psnr), max(ours, key=_psnr)
    said = f"The default, {taken.candidate.name}, has {_said(taken)}"
    if (loss := _gap(first, taken)) <= _DECISIVE_DB:
        return f"{said}: none of ours is more than {_DECISIVE_DB:g} dB better. "
    return f"{said}: {_better(first, loss)}. "


def _is_default(result: Result) -> bool:
    """Whether it is what Compress does by itself."""
    return result.candidate.settings is not None and result.candidate.settings.model == "auto"


def _seconds(result: Result) -> float:
    return math.inf if result.costs is None else float(result.costs["encode_seconds"])


def _is_network(result: Result) -> bool:
    """Whether the result is about a strategy: the default and wavelets alone are not."""
    return result.candidate.settings is not None and result.candidate.settings.model == NETWORK


def _follows(result: Result, advice: Recommendation) -> bool:
    settings = result.candidate.settings
    return (
        settings is not None
        and _is_network(result)
        and settings.between in ("auto", advice.between)
        and settings.within == advice.within
        and settings.levels is None
    )


def _said(result: Result) -> str:
    return "no loss" if _psnr(result) == math.inf else f"{_psnr(result):.2f} dB"


def _better(first: Result, gap: float) -> str:
    by = f"is {gap:.2f} dB better" if math.isfinite(gap) else "loses nothing"
    return f"{first.candidate.name} {by}"


def _gap(first: Result, second: Result) -> float:
    """By how many dB the first is better; 0 where both lose nothing."""
    return 0.0 if _psnr(first) == _psnr(second) else _psnr(first) - _psnr(second)


def _psnr(result: Result) -> float:
    return -math.inf if result.measures is None else result.measures.psnr

"""How long a compression will take, from how long others took on this machine.

Every run that ended leaves its size and its seconds in a small file in the user's cache folder; `estimate` reads them.
Numbers of another machine would be guesses, so there are none: what was never measured is unknown.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy.typing as npt
import platformdirs
from numpy import dtype as numpy_dtype

from napari_tinc.choices import WAVELET
from napari_tinc.errors import InputError
from napari_tinc.system.output import write_atomic

logger = logging.getLogger(__name__)

# Runs that are remembered, and how many of the most similar ones tell the time of another.
_KEPT, _SIMILAR = 200, 5
# Even the same run again takes a few tenths more or less; of another size, more for every octave between them.
_SPREAD, _SPREAD_PER_OCTAVE = 1.3, 0.3
# Speeds differ between dtypes by less than between sizes so many octaves apart.
_OTHER_DTYPE = 1.0
# The first run of a process also loads or compiles the coder: it counts only where that is a small part of it.
_FIRST_SECONDS, _FIRST_VOXELS = 20.0, 2**18
_LARGEST_FILE = 2**20
# Kinds of runs, by their files: a compression; a candidate of a comparison, from its process's start to its end.
COMPRESSING, COMPARING = "speeds", "speeds-compare"
_runs = count()


@dataclass(frozen=True, slots=True)
class Run:
    """A compression that ended.

    Parameters
    ----------
    preset, model, device : str
        See :func:`napari_tinc.encode.compression.compress_steps`; the device is the one that was used. Of a candidate
        of a comparison, ``model`` is its name.
    dtype : str
        Name of the voxels' dtype.
    voxels : int
        Elements of the whole array.
    trained : bool
        Whether networks got more than a trial.
    seconds : float
    """

    preset: str
    model: str
    device: str
    dtype: str
    voxels: int
    trained: bool
    seconds: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """Seconds that a compression is likely to take.

    Parameters
    ----------
    low : float
    high : float or None
        None if it may take longer by an amount that is not known yet.
    """

    low: float
    high: float | None

    def text(self) -> str:
        """Write it for people: ``"4 to 9 s"``, ``"50 s to 3 min"``, ``"at least 20 s"``."""
        low, unit = _rounded(self.low)
        if self.high is None:
            return f"at least {low} {unit}"
        high, high_unit = _rounded(self.high)
        if (low, unit) == (high, high_unit):
            return f"about {low} {unit}"
        return f"{low} to {high} {unit}" if unit == high_unit else f"{low} {unit} to {high} {high_unit}"


def estimate_comparison(
    voxels: int, dtype: npt.DTypeLike, names: Iterable[str]
) -> tuple[Estimate | None, tuple[str, ...]]:
    """Estimate how long a comparison of candidates at one ratio will take here.

    Parameters
    ----------
    voxels : int
        Elements of the whole array, channels and time points included.
    dtype : dtype
    names : iterable of str
        Of the candidates, see :attr:`napari_tinc.compare.candidates.Candidate.name`.

    Returns
    -------
    expected : Estimate or None
        For those that were measured on this machine; None if none was.
    unknown : tuple of str
        The others.
    """
    known, dtype_name, found, unknown = remembered(COMPARING), numpy_dtype(dtype).name, [], []
    for name in names:
        one = _from(voxels, dtype_name, (run for run in known if run.model == name))
        unknown.append(name) if one is None else found.append(one)
    total = Estimate(sum(one.low for one in found), sum(one.high or one.low for one in found)) if found else None
    return total, tuple(unknown)


def estimate(
    voxels: int, dtype: npt.DTypeLike, preset: str = "fast", model: str = "auto", device: str = "cpu"
) -> Estimate | None:
    """Estimate how long a compression to a size will take here; reads a small file, loads no torch.

    Parameters
    ----------
    voxels : int
        Elements of the whole array, channels and time points included.
    dtype : dtype
    preset, model : str
        See :func:`napari_tinc.encode.compression.compress_steps`.
    device : str
        Where it runs: ``"auto"`` takes every device's runs into account.

    Returns
    -------
    Estimate or None
        None where nothing like it was measured on this machine. For presets that train networks only where a trial
        finds them promising, from the time without them to the time with them. A target that is a PSNR takes up
        to seven times as long.
    """
    if voxels < 1:
        raise InputError(f"expected at least one voxel, got {voxels}: choose a volume first")
    name = numpy_dtype(dtype).name
    known = remembered()
    if model == WAVELET or (model == "auto" and preset == "fast"):  # which no device but the CPU works on
        return _from(voxels, name, (run for run in known if _is_of_wavelets(run)))
    same = [run for run in known if (run.preset, run.model) == (preset, model) and device in ("auto", run.device)]
    trained = _from(voxels, name, (run for run in same if run.trained))
    if model != "auto":
        return trained
    without = _from(voxels, name, (run for run in same if not run.trained))
    least = without or _from(voxels, name, (run for run in known if _is_of_wavelets(run)))
    if least is None:
        return trained
    return Estimate(least.low, None if trained is None else max(trained.high or 0.0, least.high or 0.0))


def remember(run: Run, kind: str = COMPRESSING) -> None:
    """Keep a run for later estimates; a cache that cannot be written is left alone, and the log says so."""
    first = kind == COMPRESSING and next(_runs) == 0
    if first and (run.seconds < _FIRST_SECONDS or run.voxels < _FIRST_VOXELS):
        return
    runs = [*remembered(kind), run][-_KEPT:]
    path = store(kind)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        listed = [{name: getattr(one, name) for name in Run.__slots__} for one in runs]
        write_atomic(path, json.dumps(listed).encode(), overwrite=True)
    except (OSError, InputError) as error:
        logger.info("the time this took is not remembered: %s", error)


def remembered(kind: str = COMPRESSING) -> list[Run]:
    """Return the runs of this machine, the oldest first; none if there is no file, or none that can be read."""
    path = store(kind)
    try:
        if path.stat().st_size > _LARGEST_FILE:
            return []
        return [run for entry in json.loads(path.read_bytes()) if _sound(run := Run(**entry))]
    except (OSError, ValueError, TypeError, RecursionError):  # whatever the file holds, it is only a cache
        return []


def store(kind: str = COMPRESSING) -> Path:
    """Return the file that the runs are kept in."""
    return platformdirs.user_cache_path("napari-tinc") / f"{kind}.json"


def _rounded(seconds: float) -> tuple[str, str]:
    """Write seconds with no more digits than an estimate deserves."""
    for size, unit in ((3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f}", unit
    if seconds >= 10:
        return f"{10 * round(seconds / 10)}", "s"
    return (f"{seconds:.0f}" if seconds >= 1 else "1"), "s"


def _sound(run: Run) -> bool:
    numbers = isinstance(run.voxels, int) and isinstance(run.seconds, int | float)
    return numbers and run.voxels > 0 and math.isfinite(run.seconds) and run.seconds > 0


def _is_of_wavelets(run: Run) -> bool:
    return not run.trained and (run.model == WAVELET or (run.model, run.preset) == ("auto", "fast"))


def _from(voxels: int, dtype: str, runs: Iterable[Run]) -> Estimate | None:
    """Scale the most similar runs to a size; the less similar, the wider the range."""
    near = sorted(
        ((abs(math.log2(voxels / run.voxels)) + _OTHER_DTYPE * (run.dtype != dtype), run) for run in reversed([*runs])),
        key=lambda pair: pair[0],
    )[:_SIMILAR]
    if not near:
        return None
    expected = [run.seconds * voxels / run.voxels for _, run in near]
    wide = _SPREAD * 2 ** (_SPREAD_PER_OCTAVE * near[0][0])
    return Estimate(min(expected) / wide, max(expected) * wide)


__all__ = [
    "COMPARING",
    "COMPRESSING",
    "Estimate",
    "Run",
    "estimate",
    "estimate_comparison",
    "remember",
    "remembered",
    "store",
]

"""A ratio tried on a part of a volume: whether what it loses looks like noise, and what it does to measurements.

The measure is an estimate of how far a decoded volume is from the image without noise, which nobody has: Stein's
unbiased risk estimate (C. Stein, Annals of Statistics 9, 1135, 1981), its divergence found by compressing once more
with a little noise added (Ramani, Blu and Unser, *Monte-Carlo SURE*, IEEE TIP 17, 1540, 2008). In units of the
original's own distance from that image it is 1 where a file is as near to the truth as what was compressed.
``docs/advise.md`` derives and tests it.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import binary_dilation, uniform_filter

from napari_tinc.advice.sample_blocks import Sample
from napari_tinc.arrays.metadata import Metadata
from napari_tinc.encode import framing
from napari_tinc.encode.attempts import Attempt, smallest_budget, with_wavelets_alone
from napari_tinc.encode.framing import Content
from napari_tinc.encode.original import Original
from napari_tinc.encode.plan import plan_wavelets
from napari_tinc.errors import InputError
from napari_tinc.geometry.pyramid import dyadic_splits
from napari_tinc.measures import metrics
from napari_tinc.measures.downstream import LINES, TITLES, Score, Structure
from napari_tinc.measures.noise import Noise
from napari_tinc.progress import Progress
from napari_tinc.settings import Settings
from napari_tinc.wavelets.blocks import SIDE_CODES, CodedWavelets, Pyramid, WaveletHead
from napari_tinc.wavelets.search import Near

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]

# Ratios that may be tried where none are asked for.
_LADDER = tuple(2.0**k for k in range(1, 14))
_SETTINGS = Settings("fast", model="wavelet")
# Noise added to see how much of the noise a file follows, in the noise's own standard deviations.
_PERTURBATION = 0.3
# Sums over cubes of this side are the observations of which the error of the estimate is found.
_CUBE = 8
# How much farther from the truth than the original, in squares, a file may be for all that is known: 0.2 dB.
_MARGIN = 0.05
_ONE_SIDED_95 = 1.645
# What as much noise again changes by more says more of the noise than of a file.
_REPEATABLE = 0.85
# Fewer voxels next to structure are not judged by themselves: it would take luck.
_LEAST_STRUCTURE = _CUBE**3
_NEIGHBOURS = ((..., slice(1, None)), (..., slice(None, -1)))
# How wrong the variance of the noise may be: docs/advise.md has the measurements.
_NOISE_ERROR = 0.1
# Of a file, what its header and map of quality take: at most so many bytes, and this share.
_HEADER, _QUALITY = 200, 1 / 80


class Verdict(StrEnum):
    """What the loss at a ratio looks like."""

    NOISE = "noise"
    STRUCTURE = "structure"
    NO_NOISE = "no noise"


_TEXTS = {
    Verdict.NOISE: "the loss looks like noise",
    Verdict.STRUCTURE: "structure is lost",
    Verdict.NO_NOISE: "no noise was found: everything lost is structure",
}


@dataclass(frozen=True)
class Distance:
    """How far decoded voxels are from the image without noise: mean squares, in units of the noise's variance.

    Parameters
    ----------
    value : float
        1 where they are as far from it as the original's voxels; may be estimated a little below 0.
    limit : float
        Upper end of the one-sided 95 % confidence interval, the error of the noise's estimate included.
    """

    value: float
    limit: float

    @property
    def is_near(self) -> bool:
        """Whether they are no farther than the original's, but for a margin."""
        return self.value <= 1 and self.limit <= 1 + _MARGIN


@dataclass(frozen=True)
class Residual:
    """What is lost, over the standard deviation of the noise at each voxel; white noise has 0, 1, 0 and 0.

    Parameters
    ----------
    bias : float
        Mean.
    power : float
        Mean square: how much of the noise's variance, or more than it, is gone.
    neighbours : float
        Correlation between neighbours along the last axis. A file that keeps coarse noise and drops the fine has it
        below 0.
    structure : float
        Correlation with what is decoded.
    """

    bias: float
    power: float
    neighbours: float
    structure: float


@dataclass(frozen=True)
class Measured:
    """A measurement on a decoded volume, and the line below which it should not fall.

    Parameters
    ----------
    score : Score
    line : float
        That of :data:`napari_tinc.measures.downstream.LINES`; or, if it is lower, what as much noise again does to
        the original: no file can be held to more than the data repeat.
    """

    score: Score
    line: float

    @property
    def is_kept(self) -> bool:
        """Whether it is on the line or above."""
        return self.score.agreement >= self.line

    @property
    def text(self) -> str:
        """Say in words what it came to."""
        return f"{TITLES[self.score.key]} {self.score.agreement:.3f}, line {self.line:.3f}"


@dataclass(frozen=True, eq=False)
class Tried:
    """What a ratio costs.

    Parameters
    ----------
    ratio : float
        Bytes of the whole array over those of its file.
    nbytes : int
        Bytes that the file of the whole array may take.
    psnr : float
        PSNR expected of the whole array, in dB over its range.
    original, decoded : ndarray
        The region's voxels, of the array's dtype, spatial axes alone.
    distances : mapping of str to Distance
        From the image without noise: ``"here"``, of the region; ``"everywhere"``, of a sample of the whole array; and
        ``"structure"``, of the foreground of that sample, if there is any. Empty without noise.
    residual : Residual or None
        Of the sample; None without noise.
    measured : tuple of Measured
        What people measure later.
    """

    ratio: float
    nbytes: int
    psnr: float
    original: Array
    decoded: Array
    distances: Mapping[str, Distance]
    residual: Residual | None
    measured: tuple[Measured, ...]

    @property
    def verdict(self) -> Verdict:
        """Whether file and original are equally near to the image without noise, wherever one looks."""
        if not self.distances:
            return Verdict.NO_NOISE
        return Verdict.NOISE if all(one.is_near for one in self.distances.values()) else Verdict.STRUCTURE

    @property
    def below(self) -> tuple[Measured, ...]:
        """Measurements below their lines."""
        return tuple(one for one in self.measured if not one.is_kept)

    @property
    def is_safe(self) -> bool:
        """Whether there is nothing that speaks against the ratio, and something that could have."""
        judged = bool(self.measured) or self.verdict is Verdict.NOISE
        return judged and self.verdict is not Verdict.STRUCTURE and not self.below

    @property
    def text(self) -> str:
        """The verdict in words, and the measurement that falls farthest."""
        text = _TEXTS[self.verdict]
        if self.below:
            text += ", but " if self.verdict is Verdict.NOISE else "; "
            text += f"{min(self.below, key=lambda one: one.score.agreement - one.line).text}"
        return text

    @property
    def error(self) -> Floats:
        """Original minus decoded."""
        return np.subtract(self.original, self.decoded, dtype=np.float64)

    @property
    def planes(self) -> tuple[Array, Array, Floats]:
        """Original, decoded and error in the middle plane of the region."""
        middle = (self.original.shape[0] // 2,) * (self.original.ndim - 2)
        return self.original[middle], self.decoded[middle], self.error[middle]


@dataclass(frozen=True, eq=False)
class Trial:
    """A sample as the compressor sees it, with and without more noise."""

    sample: Sample
    noise: Noise
    source: Original
    noisier: Original
    variances: list[Floats]
    added: list[Floats]
    structure: Structure
    lines: Mapping[str, float]

    @classmethod
    def of(cls, sample: Sample, noise: Noise) -> Generator[None, None, Trial]:
        """Prepare what all ratios share; yield now and then."""
        blocks = sample.blocks
        wide = np.float64 if blocks[0].dtype.itemsize > 2 and blocks[0].dtype != np.float32 else np.float32
        axes = "yx" if blocks[0].ndim == 2 else "zyx"
        # One normalisation for all, as in the file of the whole: so one step of the quantiser is the same everywhere.
        joined = Original.prepare(np.concatenate(blocks).astype(wide), Metadata.default(blocks[0].ndim), None)
        if joined.is_constant:
            raise InputError("expected a volume with structure, got one value only: any ratio keeps it exactly")
        metadata = Metadata(f"c{axes}", (1.0,) * (1 + len(axes)), ("",) * (1 + len(axes)))
        generator = np.random.default_rng(0)
        variances = [noise.variance(uniform_filter(block.astype(np.float64), 3)) for block in blocks]
        added = [_PERTURBATION * np.sqrt(v) * generator.standard_normal(v.shape) for v in variances]

        def source(items: Sequence[Array]) -> Original:
            stacked = np.stack(items).astype(wide)
            return Original(stacked, stacked.shape, metadata, None, joined.ranges * len(items))

        noisier = [block + more for block, more in zip(blocks, added, strict=True)]
        usual = math.sqrt(float(np.median(np.concatenate([v.ravel() for v in variances]))))
        structure = Structure(blocks, usual)
        again = [block + more / _PERTURBATION for block, more in zip(blocks, added, strict=True)]
        lines = {}
        yield
        for one in structure.scores(again):
            if one.agreement >= _REPEATABLE:
                lines[one.key] = min(LINES[one.key], one.agreement)
            yield
        return cls(sample, noise, source(blocks), source(noisier), variances, added, structure, lines)

    def ladder(self) -> list[float]:
        """Return the powers of two for which a file can exist, in ascending order."""
        possible = [ratio for ratio in _LADDER if self._budget(ratio) >= self._least]
        if not possible:
            raise InputError("expected a volume large enough for a file half its size, got a smaller one")
        return possible

    def checked(self, asked: Sequence[float]) -> list[float]:
        """Return ratios that are asked for, in ascending order; errors as of ``advise_steps``."""
        for ratio in asked:
            if not (math.isfinite(ratio) and ratio > 1):
                raise InputError(f"expected ratios above 1, got {ratio:g}")
            if self._budget(ratio) < self._least:
                raise InputError(
                    f"expected a ratio for which a file can exist, got {ratio:g}: {self.sample.nbytes} bytes of voxels "
                    "are too few for it; lower it"
                )
        return sorted(set(asked))

    def at(self, ratio: float, near: Near | None) -> Generator[Progress, None, tuple[Tried, Near]]:
        """Compress the sample twice, and judge what is lost; ``near`` is how the ratio before was coded."""
        budget = self._budget(ratio)
        attempt: Attempt = yield from with_wavelets_alone(self.source, self._settings(), budget, near, refill=False)
        near = attempt.near
        decoded = list(attempt.decoder()())
        distances: Mapping[str, Distance] = {}
        residual = None
        if not self.noise.is_none:
            other: Attempt = yield from with_wavelets_alone(self.noisier, self._settings(), budget, near, refill=False)
            distances = self._distances(decoded, list(other.decoder()()))
            residual = self._residual(decoded)
        dtype = self.sample.blocks[0].dtype
        rounded = [_as(block, dtype) for block in decoded]
        pairs = list(zip(self.sample.blocks, rounded, strict=True))[0 if self.sample.is_whole else 1 :]
        error = float(np.mean([metrics.mse(block, found) for block, found in pairs]))
        place, measured = self.sample.place, []
        for score in self.structure.scores(rounded):
            if score.key in self.lines:
                measured.append(Measured(score, self.lines[score.key]))
            yield Progress.unmeasured("measuring", 0, 1)
        tried = Tried(
            ratio, int(self.sample.nbytes / ratio), metrics.psnr_from_mse(error, self.sample.value_range),
            self.sample.blocks[0][place], rounded[0][place], distances, residual,
            tuple(measured),
        )  # fmt: skip
        return tried, near

    def _residual(self, decoded: list[Array]) -> Residual:
        """Compare what is lost with white noise of the variance that was found."""
        units = [
            np.subtract(block, plain, dtype=np.float64) / np.sqrt(variance)
            for block, plain, variance in zip(self.sample.blocks, decoded, self.variances, strict=True)
        ]
        every, kept = (np.concatenate([one.ravel() for one in parts]) for parts in (units, decoded))
        first, second = (np.concatenate([unit[place].ravel() for unit in units]) for place in _NEIGHBOURS)
        return Residual(
            float(every.mean()), float(np.square(every).mean()), _correlation(first, second), _correlation(every, kept)
        )

    def _distances(self, decoded: list[Array], noisier: list[Array]) -> dict[str, Distance]:
        """Distance from the truth in the region, in all blocks, and where there is structure.

        What a file follows of added noise is what it follows of the noise that is there. The squares of the added noise
        have a known mean: what they are above it is taken out of the sums, as far as the file follows, and so these are
        exact for a file that keeps everything.
        """
        followed = [
            added * np.subtract(more, plain, dtype=np.float64) / _PERTURBATION**2
            for added, more, plain in zip(self.added, noisier, decoded, strict=True)
        ]
        share = sum(float(f.sum()) for f in followed) / sum(float(v.sum()) for v in self.variances)
        maps = []
        for block, plain, added, variance, same in zip(
            self.sample.blocks, decoded, self.added, self.variances, followed, strict=True
        ):
            loss = np.subtract(block, plain, dtype=np.float64) ** 2
            chance = share * ((added / _PERTURBATION) ** 2 - variance)
            maps.append((loss, loss - variance + 2 * (same - chance), variance))
        found = {"here": _distance(np.stack([_in_cubes(part[self.sample.place]) for part in maps[0]]))}
        found["everywhere"] = _distance(np.concatenate([[_in_cubes(part) for part in parts] for parts in maps], 1))
        if sum(map(np.count_nonzero, self._near_structure)) >= _LEAST_STRUCTURE:
            marked = zip(maps, self._near_structure, strict=True)
            sums = np.concatenate([[_in_cubes(part * mask) for part in parts] for parts, mask in marked], 1)
            found["structure"] = _distance(sums)
        return found

    @cached_property
    def _near_structure(self) -> list[npt.NDArray[np.bool_]]:
        """Foreground with dim parts, and what is next to it, so that no noise decides which voxels are asked."""
        return [np.asarray(binary_dilation(mask, iterations=2)) for mask in self.structure.dim]

    def _settings(self) -> Settings:
        return _SETTINGS if self.sample.is_whole else replace(_SETTINGS, levels=1)

    def _budget(self, ratio: float) -> int:
        """Bytes for the sample's file: its share of the whole file's bytes for coefficients, and its own heads."""
        budget = self.sample.item_nbytes / ratio
        if self.sample.is_whole:
            return int(budget)
        coefficients = budget * (1 - _QUALITY) - _HEADER
        return int(coefficients * self.sample.voxels / self.sample.item_voxels) + self._heads

    @cached_property
    def _heads(self) -> int:
        """Bytes of the sample's file without coefficients."""
        z, y, x = ((1, *self.source.spatial))[-3:]
        pyramid = Pyramid((z, y, x), dyadic_splits((z, y, x), math.inf), 2 ** SIDE_CODES[-1])
        blocks = sum(len(list(pyramid.cells(level))) for level in range(pyramid.trunk))
        empty = CodedWavelets(WaveletHead(pyramid, 0, (0, 0), 0), b"", (b"",) * blocks)
        plan = plan_wavelets(self.source, self._settings(), 0)
        return framing.size(plan, Content({}, [empty] * len(self.source.items)))

    @cached_property
    def _least(self) -> int:
        return smallest_budget(self.source, self._settings())


def _as(values: Array, dtype: np.dtype[Any]) -> Array:
    """Round to a dtype as a file does; values lie within its range."""
    return (np.rint(values) if dtype.kind in "iu" else values).astype(dtype)


def _correlation(first: Array, second: Array) -> float:
    """Correlation of two rows of numbers; 0 where one does not vary."""
    first, second = first - first.mean(), second - second.mean(dtype=np.float64)
    norm = math.sqrt(float(first @ first) * float(second @ second))
    return float(first @ second) / norm if norm else 0.0


def _in_cubes(values: Floats) -> Floats:
    for axis, side in enumerate(values.shape):
        values = np.add.reduceat(values, range(0, side, _CUBE), axis=axis)
    return values.ravel()


def _distance(sums: Floats) -> Distance:
    loss, risk, variance = sums
    noise = float(variance.sum())
    value = float(risk.sum()) / noise
    left = risk - value * variance
    sampling = _ONE_SIDED_95 * math.sqrt(float(left @ left)) / noise
    # The variance is the unit of the loss; what a file follows of the noise does not depend on it.
    return Distance(value, value + math.hypot(sampling, _NOISE_ERROR * float(loss.sum()) / noise))


__all__ = ["Distance", "Measured", "Residual", "Trial", "Tried", "Verdict"]

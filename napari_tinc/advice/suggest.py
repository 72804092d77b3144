"""How small a volume may become: a few ratios tried on a part of it, and whether what each loses looks like noise.

The measure is an estimate of how far a decoded volume is from the image without noise, which nobody has: Stein's
unbiased risk estimate (C. Stein, Annals of Statistics 9, 1135, 1981), its divergence found by compressing once more
with a little noise added (Ramani, Blu and Unser, *Monte-Carlo SURE*, IEEE TIP 17, 1540, 2008). In units of the
original's own distance from that image it is 1 where a file is as near to the truth as what was compressed.
``docs/suggest.md`` derives and tests it.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import uniform_filter

from napari_tinc.advice.noise import Noise, estimate_noise
from napari_tinc.advice.sample_blocks import Sample, draw
from napari_tinc.arrays.metadata import Metadata
from napari_tinc.arrays.scratch import ArrayLike
from napari_tinc.encode import framing
from napari_tinc.encode.attempts import Attempt, smallest_budget, with_wavelets_alone
from napari_tinc.encode.framing import Content
from napari_tinc.encode.original import Original
from napari_tinc.encode.plan import plan_wavelets
from napari_tinc.errors import InputError
from napari_tinc.geometry.pyramid import dyadic_splits
from napari_tinc.measures import metrics
from napari_tinc.progress import Progress
from napari_tinc.settings import Settings
from napari_tinc.system.steps import relay
from napari_tinc.wavelets.blocks import SIDE_CODES, CodedWavelets, Pyramid, WaveletHead

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]

RATIOS = (256.0, 128.0, 64.0, 32.0, 16.0, 8.0, 4.0, 2.0)
_TRIED = 4
_SETTINGS = Settings("fast", model="wavelet")
# Noise added to see how much of the noise a file follows, in the noise's own standard deviations.
_PERTURBATION = 0.3
# Sums over cubes of this side are the observations of which the error of the estimate is found.
_CUBE = 8
_ONE_SIDED_95 = 1.645
# How wrong the variance of the noise may be: docs/suggest.md has the measurements.
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


@dataclass(frozen=True, eq=False)
class Suggestion:
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
    here, everywhere : Distance or None
        Of the region, and of a sample of the whole array; None without noise.
    noise : Noise
        What was found of it.
    """

    ratio: float
    nbytes: int
    psnr: float
    original: Array
    decoded: Array
    here: Distance | None
    everywhere: Distance | None
    noise: Noise

    @property
    def verdict(self) -> Verdict:
        """Whether file and original are equally near to the image without noise, here and everywhere."""
        if self.here is None or self.everywhere is None:
            return Verdict.NO_NOISE
        return Verdict.NOISE if max(self.here.limit, self.everywhere.limit) <= 1 else Verdict.STRUCTURE

    @property
    def text(self) -> str:
        """The verdict in words."""
        text = _TEXTS[self.verdict]
        if self.verdict is Verdict.STRUCTURE and self.here is not None and self.here.limit <= 1:
            text += " elsewhere in the volume"
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


def advised(suggestions: Sequence[Suggestion]) -> Suggestion | None:
    """Return the last, by ratio, up to which every loss looks like noise; None if there is none."""
    best = None
    for one in sorted(suggestions, key=lambda suggestion: suggestion.ratio):
        if one.verdict is not Verdict.NOISE:
            break
        best = one
    return best


def suggest_steps(
    array: ArrayLike,
    *,
    region: tuple[slice, ...] | None = None,
    ratios: Sequence[float] | None = None,
    metadata: Metadata | None = None,
) -> Generator[Progress | Suggestion, None, list[Suggestion]]:
    """Try ratios on a part of a volume; yield progress, and every ratio as soon as it is done. Close it to cancel.

    Wavelets alone are tried, as ``preset="fast"`` does. A volume of up to 1048576 voxels is compressed whole. Of a
    larger one, the region and five blocks of its size, spread evenly over the volume, are compressed together with one
    quantiser, so that the region gets the share of the bytes that it would get in the file of the whole; what a header
    takes is counted as in that file. Of an array with channels or time points, the one that the region begins in is
    tried.

    Parameters
    ----------
    array : ndarray, dask array, zarr array or the like
        Only the blocks are read.
    region : tuple of slice, optional
        Where to look, one slice per axis of the array, such as the neighbourhood of the plane on the screen; by default
        the middle. A larger one than 131072 voxels is cut to its middle, a thin one is given its neighbours while it is
        compressed.
    ratios : sequence of float, optional
        Bytes of the array over bytes of the file; by default the four largest powers of two up to 256 for which a file
        can exist.
    metadata : Metadata, optional
        Axes; by default ``Metadata.default(array.ndim)``.

    Yields
    ------
    Progress or Suggestion
        The suggestions by ascending ratio.

    Returns
    -------
    list of Suggestion

    Raises
    ------
    InputError
        If the array, the region or a ratio cannot be used.
    """
    metadata = metadata or Metadata.default(len(array.shape))
    sample = yield from relay(draw(array, region, metadata), lambda read: Progress.unmeasured("preparing", *read))
    noise = estimate_noise(sample.blocks)
    trial = _Trial.of(sample, noise)
    chosen = trial.ratios(ratios)
    done: list[Suggestion] = []
    near: WaveletHead | None = None

    def told(_: Progress) -> Progress:
        return Progress.unmeasured("trying", len(done), len(chosen))

    for ratio in chosen:
        found, near = yield from relay(trial.at(ratio, near), told)
        done.append(found)
        yield found
    return done


@dataclass(frozen=True, eq=False)
class _Trial:
    """A sample as the compressor sees it, with and without more noise."""

    sample: Sample
    noise: Noise
    source: Original
    noisier: Original
    variances: list[Floats]
    added: list[Floats]

    @classmethod
    def of(cls, sample: Sample, noise: Noise) -> _Trial:
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
        return cls(sample, noise, source(blocks), source(noisier), variances, added)

    def ratios(self, asked: Sequence[float] | None) -> list[float]:
        """Return the ratios to try, in ascending order."""
        least = self._least()
        possible = [ratio for ratio in RATIOS if self._budget(ratio) >= least]
        if asked is None:
            if not possible:
                raise InputError("expected a volume large enough for a file half its size, got a smaller one")
            return sorted(possible[:_TRIED])
        for ratio in asked:
            if not (math.isfinite(ratio) and ratio > 1):
                raise InputError(f"expected ratios above 1, got {ratio:g}")
            if self._budget(ratio) < least:
                raise InputError(
                    f"expected a ratio for which a file can exist, got {ratio:g}: {self.sample.nbytes} bytes of voxels "
                    "are too few for it; lower it"
                )
        return sorted(set(asked))

    def at(self, ratio: float, near: WaveletHead | None) -> Generator[Progress, None, tuple[Suggestion, WaveletHead]]:
        """Compress the sample twice, and judge what is lost; ``near`` is how the ratio before was coded."""
        budget = self._budget(ratio)
        attempt: Attempt = yield from with_wavelets_alone(self.source, self._settings(), budget, near, refill=False)
        near = next(coded.head for coded in attempt.content.wavelets if coded is not None)
        decoded = list(attempt.decoder()())
        here = everywhere = None
        if not self.noise.is_none:
            other: Attempt = yield from with_wavelets_alone(self.noisier, self._settings(), budget, near, refill=False)
            here, everywhere = self._distances(decoded, list(other.decoder()()))
        dtype = self.sample.blocks[0].dtype
        rounded = [_as(block, dtype) for block in decoded]
        pairs = list(zip(self.sample.blocks, rounded, strict=True))[0 if self.sample.is_whole else 1 :]
        error = float(np.mean([metrics.mse(block, found) for block, found in pairs]))
        place = self.sample.place
        suggestion = Suggestion(
            ratio, int(self.sample.nbytes / ratio), metrics.psnr_from_mse(error, self.sample.value_range),
            self.sample.blocks[0][place], rounded[0][place], here, everywhere, self.noise,
        )  # fmt: skip
        return suggestion, near

    def _distances(self, decoded: list[Array], noisier: list[Array]) -> tuple[Distance, Distance]:
        """Distance from the truth in the region, and in all blocks.

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
        here = np.stack([_in_cubes(part[self.sample.place]) for part in maps[0]])
        everywhere = np.concatenate([[_in_cubes(part) for part in parts] for parts in maps], 1)
        return _distance(here), _distance(everywhere)

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

    def _least(self) -> int:
        return smallest_budget(self.source, self._settings())


def _as(values: Array, dtype: np.dtype[Any]) -> Array:
    """Round to a dtype as a file does; values lie within its range."""
    return (np.rint(values) if dtype.kind in "iu" else values).astype(dtype)


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


__all__ = ["RATIOS", "Distance", "Suggestion", "Verdict", "advised", "suggest_steps"]

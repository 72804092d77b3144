"""How small a volume may become: the highest ratio at which nothing is lost but noise, and what is measured is kept."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import takewhile
from typing import Any

from napari_tinc.advice.sample_blocks import draw
from napari_tinc.advice.trials import Measured, Trial, Tried, Verdict
from napari_tinc.arrays.metadata import Metadata
from napari_tinc.arrays.scratch import ArrayLike
from napari_tinc.measures.noise import NONE, Noise, estimate_noise
from napari_tinc.progress import Progress
from napari_tinc.system.steps import relay
from napari_tinc.wavelets.search import Near

# Where the search begins, how many ratios make a curve, and how fine the answer is.
_FIRST, _CURVE, _FINE = 64.0, 4, 2**0.5
# A file whose squared distance from the truth may be more of the data's is as near as they are, and no nearer.
_NOTEWORTHY = 0.95


@dataclass(frozen=True, eq=False)
class Advice:
    """What was tried, and what follows.

    Parameters
    ----------
    tried : tuple of Tried
        By ascending ratio.
    noise : Noise
        What was found of it.
    """

    tried: tuple[Tried, ...]
    noise: Noise

    @property
    def advised(self) -> Tried | None:
        """The last, by ratio, up to which every one is safe; None if there is none."""
        return next(reversed(list(takewhile(lambda one: one.is_safe, self.tried))), None)

    @property
    def limit(self) -> Tried | None:
        """The first that is not safe; None if all are."""
        return next((one for one in self.tried if not one.is_safe), None)

    @property
    def last_of_noise(self) -> Tried | None:
        """The last, by ratio, up to which every loss looks like noise; None if there is none."""
        return next(reversed(list(takewhile(lambda one: one.verdict is Verdict.NOISE, self.tried))), None)

    @property
    def first_of_structure(self) -> Tried | None:
        """The first that loses structure; None if none does."""
        return next((one for one in self.tried if one.verdict is Verdict.STRUCTURE), None)

    @property
    def last_kept(self) -> Tried | None:
        """The last, by ratio, up to which every measurement is on its line or above; None if there is none."""
        return next(reversed(list(takewhile(lambda one: one.measured and not one.below, self.tried))), None)

    @property
    def text(self) -> str:
        """Say how small is safe, and why not smaller."""
        best, limit, noise = self.advised, self.limit, self.last_of_noise
        if best is None:
            assert limit is not None
            if limit.verdict is Verdict.NO_NOISE and not limit.measured:
                return "No noise was found, and nothing that could be measured: judge by the pictures."
            said = f"Less than {limit.ratio:g} times smaller. At {limit.ratio:g}, {limit.text}: try smaller ratios."
            return said + self._further(limit.ratio)
        said = f"Up to {best.ratio:g} times smaller, "
        if noise is None:
            said += "what was measured is kept. No noise was found, so everything lost is structure: see the pictures."
        else:
            said += "the loss looks like noise, and what was measured is kept."
        if limit is not None:
            said += f" At {limit.ratio:g}, {limit.text}."
        return said + self._further(best.ratio)

    def _further(self, ratio: float) -> str:
        """Say up to which ratio each of both criteria alone would go, if that is farther than this one."""
        noise, kept, said = self.last_of_noise, self.last_kept, ""
        if noise is not None and noise.ratio > ratio:
            said += f" The loss looks like noise up to {noise.ratio:g}."
        if kept is not None and kept.ratio > ratio:
            said += f" What was measured is kept up to {kept.ratio:g}."
        return said

    @property
    def nearer(self) -> str:
        """What is to be known where the file at the advised ratio is nearer to the truth than the data; else empty."""
        best = self.advised
        if best is None or not best.distances or best.distances["everywhere"].limit > _NOTEWORTHY:
            return ""
        return (
            "By this estimate the file's squared distance from the image without noise is "
            f"{best.distances['everywhere'].value:.2f} of the data's own: it dropped more noise than structure. "
            "That is a side effect, not an aim, and what is fainter than the noise may have gone with it."
        )

    @property
    def note(self) -> str:
        """What a file that was made after this advice says of it."""
        best, noise = self.advised, self.last_of_noise
        parts = [f"advised {'none' if best is None else f'{best.ratio:g}'}"]
        parts.append("no noise found" if self.noise.is_none else f"like noise up to {noise.ratio if noise else 1:g}")
        return "; ".join(parts)


def advise_steps(
    array: ArrayLike,
    *,
    region: tuple[slice, ...] | None = None,
    ratios: Sequence[float] | None = None,
    metadata: Metadata | None = None,
) -> Generator[Progress | Tried, None, Advice]:
    """Try ratios on a part of a volume; yield progress, and every ratio as soon as it is done. Close it to cancel.

    Wavelets alone are tried, as ``preset="fast"`` does. A volume of up to 4194304 voxels is compressed whole. Of a
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
        Bytes of the array over bytes of the file. By default powers of two around 64, down to one that is safe and up
        to one that loses structure, and one between the last that is safe and the first that is not.
    metadata : Metadata, optional
        Axes; by default ``Metadata.default(array.ndim)``.

    Yields
    ------
    Progress or Tried
        In the order in which they are tried.

    Returns
    -------
    Advice

    Raises
    ------
    InputError
        If the array, the region or a ratio cannot be used.
    """
    metadata = metadata or Metadata.default(len(array.shape))
    sample = yield from relay(draw(array, region, metadata), lambda read: Progress.unmeasured("preparing", *read))
    noise = estimate_noise(sample.blocks)
    trial = yield from relay(Trial.of(sample, noise), lambda _: Progress.unmeasured("preparing", 1, 1))
    done: list[Tried] = []
    near: Near | None = None
    wanted = None if ratios is None else trial.checked(ratios)

    def told(_: Progress) -> Progress:
        return Progress.unmeasured(
            "trying", len(done), max(len(done) + 1, _CURVE + 1 if wanted is None else len(wanted))
        )

    for ratio in _search(trial.ladder(), done) if wanted is None else wanted:
        found, near = yield from relay(trial.at(ratio, near), told)
        done.append(found)
        yield found
    return Advice(_sorted(done), noise)


def _search(ladder: list[float], done: list[Tried]) -> Iterator[float]:
    """Ratios to try, while ``done`` grows: down to one that is safe, up to one that is not noise; then between."""
    lower = upper = min(range(len(ladder)), key=lambda k: abs(ladder[k] - _FIRST))
    yield ladder[lower]
    first = done[0]
    while not done[-1].is_safe and lower > 0:
        lower -= 1
        yield ladder[lower]
    last = first
    while (last.is_safe or last.verdict is Verdict.NOISE) and upper < len(ladder) - 1:
        upper += 1
        yield ladder[upper]
        last = done[-1]
    so_far = Advice(_sorted(done), NONE)
    brackets = [(so_far.advised, so_far.limit), (so_far.last_of_noise, so_far.first_of_structure)]
    yield from sorted({float(f"{good.ratio * _FINE:.2g}") for good, bad in brackets if good and bad})
    # A curve has some points.
    while len(done) < _CURVE and (lower > 0 or upper < len(ladder) - 1):
        down = lower > 0
        lower, upper = (lower - 1, upper) if down else (lower, upper + 1)
        yield ladder[lower] if down else ladder[upper]


def _sorted(done: list[Tried]) -> tuple[Tried, ...]:
    return tuple(sorted(done, key=lambda one: one.ratio))


def said_of(advice: Advice) -> dict[str, Any]:
    """Return all figures as what JSON can hold."""
    best, last, kept = advice.advised, advice.last_of_noise, advice.last_kept
    return {
        "advised": None if best is None else best.ratio,
        "like_noise_up_to": None if last is None else last.ratio,
        "kept_up_to": None if kept is None else kept.ratio,
        "advice": advice.text,
        "nearer_to_the_truth": advice.nearer,
        "noise": asdict(advice.noise),
        "ratios": [_row(one) for one in advice.tried],
    }


def _row(one: Tried) -> dict[str, Any]:
    return {
        "ratio": one.ratio,
        "file_bytes": one.nbytes,
        "psnr": one.psnr,
        "verdict": str(one.verdict),
        "safe": one.is_safe,
        "distances": {where: asdict(distance) for where, distance in one.distances.items()},
        "residual": None if one.residual is None else asdict(one.residual),
        "measures": {m.score.key: _numbers(m) for m in one.measured},
    }


def _numbers(measured: Measured) -> dict[str, float]:
    score = measured.score
    return {"before": score.before, "after": score.after, "agreement": score.agreement, "line": measured.line}


__all__ = ["Advice", "advise_steps", "said_of"]

"""What people measure on a volume later, before and after: foreground, centrelines, nuclei, spots.

Everything is decided on the original, thresholds and positions too, and then asked of another version of it. So a
score says what that version changes, and nothing of how good a segmentation is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import distance_transform_edt, gaussian_filter, label, maximum
from scipy.spatial import cKDTree
from skimage.feature import peak_local_max
from skimage.filters import threshold_triangle
from skimage.morphology import skeletonize

from napari_tinc.measures.metrics import otsu_threshold

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

# Standard deviations of the Gaussians whose differences show blobs of about nuclear size, and spots; voxels.
_NUCLEAR, _SPOT = (2.0, 3.2, 5.1, 8.2), (1.0, 3.0)
# Fewer of these say nothing.
_LEAST = {"foreground": 50, "skeleton": 100, "nuclei": 5, "spots": 10}
_MOST_SPOTS = 5000
# A structure is thin if its centreline is so many times as long as it is wide.
_THIN = 6.0
# Blobs and spots are so many standard deviations of the noise above their surroundings: few are there by chance, and
# few of the measured heights owe much to chance.
_CLEAR = 10.0
# Without noise, what stands out by less than this share of the most prominent one is not looked at.
_PROMINENT = 0.05
# Another version still has a blob if it is there at this share of the threshold: else all near it would come and go.
_HYSTERESIS = 0.8


@dataclass(frozen=True, slots=True)
class Score:
    """One thing that is measured.

    Parameters
    ----------
    key : str
        One of :data:`TITLES`.
    before, after : float
        Voxels of foreground, voxels of centreline, number of nuclei, mean height of spots above their surroundings.
    agreement : float
        In [0, 1]; 1 if nothing has changed. See ``docs/advise.md``.
    """

    key: str
    before: float
    after: float
    agreement: float


# What each agreement is called, and the line below which it should not fall.
TITLES = {
    "dice": "Dice of the bright foreground",
    "dice_dim": "Dice with dim parts",
    "centreline": "centreline Dice of bright structure",
    "centreline_dim": "centreline Dice with dim parts",
    "nuclei": "nuclei found again",
    "spots": "intensity of spots",
}
LINES = {"dice": 0.95, "dice_dim": 0.95, "centreline": 0.98, "centreline_dim": 0.98, "nuclei": 0.98, "spots": 0.95}


class Structure:
    """The structure of a volume, or of blocks of it, as others are measured against it.

    Parameters
    ----------
    blocks : sequence of ndarray
        Of one kind, 2-D or 3-D.
    deviation : float
        Standard deviation of the noise at the usual intensity; 0 without noise.
    """

    def __init__(self, blocks: Sequence[Array], deviation: float) -> None:
        self._low = min(float(block.min()) for block in blocks)
        self._span = max(float(block.max()) for block in blocks) - self._low
        self._noise = deviation / self._span
        self._thin: dict[int, bool] = {}
        self._original = _Version([self._normalised(block) for block in blocks])
        self._bright = otsu_threshold(_joined(self._original.blocks))
        self._dim = float(threshold_triangle(_joined(self._original.smooth)))  # type: ignore[no-untyped-call]

    def _normalised(self, block: Array) -> Floats:
        """Bring values to 0 … 1, so that no dtype overflows."""
        return ((np.asarray(block, np.float64) - self._low) / self._span).astype(np.float32)

    @cached_property
    def dim(self) -> list[Mask]:
        """Foreground with dim parts, of every block."""
        return [block >= self._dim for block in self._original.smooth]

    def scores(self, blocks: Iterable[Array]) -> Iterator[Score]:
        """Measure another version of the same blocks.

        Yields
        ------
        Score
            Of what the original has enough of; a second each.
        """
        other = _Version([self._normalised(block) for block in blocks])
        # Where Otsu's threshold is the lower one there are no two classes for it: it cuts through the background.
        if self._bright >= self._dim:
            yield from self._outlined("", self._bright, self._outlines, other.blocks)
        yield from self._outlined("_dim", self._dim, self._dim_outlines, other.smooth)
        # Along vessels and neurites there are bulges everywhere, which are no nuclei.
        if not self._is_thin(self._dim_outlines) and self._nuclei.count >= _LEAST["nuclei"]:
            yield self._nuclei.score(other)
        if sum(map(len, self._spots)) >= _LEAST["spots"]:
            before, after = (_at(version.spots, self._spots) for version in (self._original, other))
            change = float(np.median(after / before)) - 1
            height, left = (self._span * float(many.mean()) for many in (before, after))
            yield Score("spots", height, left, max(0.0, 1 - abs(change)))

    def kept(self, block: Array) -> tuple[float, float | None] | None:
        """Dice and centreline Dice with dim parts, of another version of the one block.

        Returns
        -------
        tuple of float and (float or None)
            No centreline Dice where the structure is not thin; None if there is hardly any.
        """
        other = _Version([self._normalised(block)])
        found = {
            score.key: score.agreement for score in self._outlined("_dim", self._dim, self._dim_outlines, other.smooth)
        }
        return (found["dice_dim"], found.get("centreline_dim")) if found else None

    def _outlined(
        self, suffix: str, threshold: float, parts: list[_Outline], versions: Sequence[Floats]
    ) -> Iterator[Score]:
        masks = [np.asarray(block >= threshold) for block in versions]
        size, left = (sum(map(np.count_nonzero, many)) for many in ([part.mask for part in parts], masks))
        if size < _LEAST["foreground"]:
            return
        both = sum(np.count_nonzero(part.mask & mask) for part, mask in zip(parts, masks, strict=True))
        yield Score(f"dice{suffix}", int(size), int(left), float(2 * both / (size + left)))
        if self._is_thin(parts):
            yield _centrelines(f"centreline{suffix}", parts, [_Outline(mask) for mask in masks])

    def _is_thin(self, outlines: list[_Outline]) -> bool:
        """Whether a foreground, which is asked about again and again, is vessels or neurites."""
        if id(outlines) not in self._thin:
            self._thin[id(outlines)] = _elongation(outlines) >= _THIN
        return self._thin[id(outlines)]

    @cached_property
    def _outlines(self) -> list[_Outline]:
        return [_Outline(np.asarray(block >= self._bright)) for block in self._original.blocks]

    @cached_property
    def _dim_outlines(self) -> list[_Outline]:
        return [_Outline(mask) for mask in self.dim]

    @cached_property
    def _nuclei(self) -> _Nuclei:
        narrow, wide = _NUCLEAR[:2]
        ndim = self._original.blocks[0].ndim
        responses = self._original.nuclei
        least = max(
            _CLEAR * self._noise * _gain(narrow, wide, ndim), _PROMINENT * max(float(r.max()) for r in responses)
        )
        return _Nuclei(responses, least)

    @cached_property
    def _spots(self) -> list[npt.NDArray[np.intp]]:
        responses = self._original.spots
        ndim = responses[0].ndim
        least = max(_CLEAR * self._noise * _gain(*_SPOT, ndim), _PROMINENT * max(float(r.max()) for r in responses))
        most = _MOST_SPOTS // len(responses)
        return [_peaks(response, least, 1, most) for response in responses]


class _Version:
    """One version of the blocks, and what is made of it."""

    def __init__(self, blocks: list[Floats]) -> None:
        self.blocks = blocks

    @cached_property
    def smooth(self) -> list[Floats]:
        """Blurred by a voxel, as one does before a threshold on noisy data."""
        return [gaussian_filter(block, 1) for block in self.blocks]

    @cached_property
    def nuclei(self) -> list[Floats]:
        """Largest difference of Gaussians at every voxel."""
        found = []
        for block in self.blocks:
            ladder = [gaussian_filter(block, sigma) for sigma in _NUCLEAR]
            found.append(np.maximum.reduce([a - b for a, b in pairwise(ladder)]))
        return found

    @cached_property
    def spots(self) -> list[Floats]:
        """How much every voxel's surroundings stand out from those farther away."""
        near, far = _SPOT
        return [gaussian_filter(block, near) - gaussian_filter(block, far) for block in self.blocks]


class _Outline:
    """A foreground and its centrelines."""

    def __init__(self, mask: Mask) -> None:
        self.mask = mask

    @cached_property
    def skeleton(self) -> Mask:
        if not self.mask.any():
            return self.mask
        return np.asarray(skeletonize(self.mask) != 0)  # type: ignore[no-untyped-call]


def _centrelines(key: str, before: list[_Outline], after: list[_Outline]) -> Score:
    """Centreline Dice over all blocks, see :func:`napari_tinc.measures.centreline.centreline_dice`."""
    true, found = (sum(int(one.skeleton.sum()) for one in many) for many in (before, after))
    if not found:
        return Score(key, true, 0, 0.0)
    pairs = list(zip(before, after, strict=True))
    sensitivity = sum(int((one.skeleton & other.mask).sum()) for one, other in pairs) / true
    precision = sum(int((other.skeleton & one.mask).sum()) for one, other in pairs) / found
    total = precision + sensitivity
    return Score(key, true, found, 2 * precision * sensitivity / total if total else 0.0)


def _elongation(outlines: list[_Outline]) -> float:
    """Length of centrelines over width, of the components, large ones counting more; 0 if there is too little."""
    weighted = total = length = 0.0
    for outline in outlines:
        mask = outline.mask
        parts, count = label(mask, np.ones((3,) * mask.ndim))
        if not count:
            continue
        inside = np.pad(mask, 1)  # a structure ends where the picture does
        radii = distance_transform_edt(inside)[(slice(1, -1),) * mask.ndim]
        widths = 2 * np.asarray(maximum(radii, parts, np.arange(1, count + 1)))
        sizes, lengths = (np.bincount(parts[where], minlength=count + 1)[1:] for where in (mask, outline.skeleton))
        weighted += float((sizes * lengths / widths).sum())
        total += float(sizes.sum())
        length += float(lengths.sum())
    return weighted / total if length >= _LEAST["skeleton"] else 0.0


class _Nuclei:
    """Blobs of the original."""

    def __init__(self, responses: list[Floats], least: float) -> None:
        self._least = least
        self._clear, self._faint = (self._peaks(responses, share) for share in (1.0, _HYSTERESIS))
        self.count = sum(map(len, self._clear))

    def _peaks(self, responses: list[Floats], share: float) -> list[npt.NDArray[np.intp]]:
        return [_peaks(response, share * self._least, 2) for response in responses]

    def score(self, other: _Version) -> Score:
        """F1 of the blobs that both have, within two voxels."""
        clear, faint = (self._peaks(other.nuclei, share) for share in (1.0, _HYSTERESIS))
        count = sum(map(len, clear))
        found = sum(map(_found, self._clear, faint)) / self.count
        right = sum(map(_found, clear, self._faint)) / count if count else 0.0
        return Score("nuclei", self.count, count, 2 * found * right / (found + right) if found + right else 0.0)


def _peaks(response: Floats, least: float, apart: int, most: float = math.inf) -> npt.NDArray[np.intp]:
    """Places of local maxima, the highest first."""
    found: npt.NDArray[np.intp] = peak_local_max(  # type: ignore[no-untyped-call]
        response, min_distance=apart, threshold_abs=least, num_peaks=most
    )
    return found


def _found(wanted: npt.NDArray[np.intp], there: npt.NDArray[np.intp]) -> int:
    """How many points have another one within the least sigma of a blob."""
    if not len(wanted) or not len(there):
        return 0
    return int(np.isfinite(cKDTree(there).query(wanted, distance_upper_bound=_NUCLEAR[0] + 1e-6)[0]).sum())


def _gain(near: float, far: float, ndim: int) -> float:
    """Standard deviation of the difference of two Gaussians of white noise of deviation 1."""
    between = (near**2 + far**2) / 2
    norms = [(4 * np.pi * square) ** (-ndim / 2) for square in (near**2, far**2, between)]
    return float(np.sqrt(norms[0] + norms[1] - 2 * norms[2]))


def _at(responses: list[Floats], places: list[npt.NDArray[np.intp]]) -> npt.NDArray[np.float32]:
    return np.concatenate([r[tuple(place.T)] for r, place in zip(responses, places, strict=True)])


def _joined(blocks: Sequence[Floats]) -> Floats:
    return np.concatenate([block.ravel() for block in blocks])


__all__ = ["LINES", "TITLES", "Score", "Structure"]

"""What a volume is like: how alike its octants are, and where its signal is."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from napari_tinc.choices import WITHIN
from napari_tinc.errors import InputError
from napari_tinc.geometry.octree import Octree, Splits

Floats = npt.NDArray[np.float64]


def global_consistency(volume: npt.NDArray[Any], splits: Splits) -> float | None:
    """Measure how alike the octants of a volume are, in [0, 1].

    The mean cosine similarity of the amplitude spectra ``|FFT|`` of all pairs of the root's children, each after
    removing its mean; octants that are constant are left out. Amplitudes forget where things lie and keep which
    frequencies there are: that is what leaves share through a common ancestor. (The paper names a global consistency
    without giving a formula; this definition is ours.)

    Parameters
    ----------
    volume : ndarray
        One spatial volume.
    splits : tuple of tuple of bool
        Splits of the tree; only the first level matters.

    Returns
    -------
    float or None
        ``None`` if the tree has one level only or fewer than two octants vary.
    """
    if not splits:
        return None
    tree = Octree(volume.shape, splits[:1])
    side = tuple(int(np.diff(edge).min()) for edge in tree.edges(1))
    low, high = float(volume.min()), float(volume.max())
    if low == high:
        return None
    spectra = []
    for box in tree.boxes(1):
        block = volume[tuple(slice(b.start, b.start + s) for b, s in zip(box, side, strict=True))]
        block = ((block.astype(np.float64) - low) / (high - low)).astype(np.float32)
        spectra.append(np.abs(np.fft.rfftn(block - block.mean())).ravel())
    norms = [float(np.linalg.norm(spectrum)) for spectrum in spectra]
    unit = [spectrum / norm for spectrum, norm in zip(spectra, norms, strict=True) if norm > 0]
    if len(unit) < 2:
        return None
    similarity = np.stack(unit) @ np.stack(unit).T
    return float(np.clip(similarity[np.triu_indices(len(unit), 1)].mean(), 0, 1))


def noise_floor(volume: npt.NDArray[Any]) -> float:
    """Estimate the intensity above which a voxel is taken for signal: the background's mode plus 3 sigma of the noise.

    Sigma is 1.4826 times the median absolute difference of neighbours along the last axis over sqrt(2) (Rousseeuw &
    Croux, 1993); the mode is the fullest of 256 bins between the minimum and the 99th percentile.
    """
    sample = volume.reshape(-1, volume.shape[-1])
    sample = sample[:: max(1, sample.shape[0] // 4096)].astype(np.float64)
    low, high = sample.min(), np.percentile(sample, 99)
    counts, edges = np.histogram(sample, bins=256, range=(low, max(high, low + 1e-12)))
    peak = int(counts.argmax())
    sigma = 1.4826 * np.median(np.abs(np.diff(sample, axis=1))) / np.sqrt(2) if sample.shape[1] > 1 else 0.0
    return float((edges[peak] + edges[peak + 1]) / 2 + 3 * sigma)


def leaf_measure(volume: npt.NDArray[Any], tree: Octree, within: str, weights: Floats | None) -> Floats:
    """Measure every leaf of one spatial volume for the strategy within a level.

    ``importance``: share of voxels above :func:`noise_floor`. ``variance``: variance of the leaf. ``map``: mean of
    the given weights. ``equal``: 1.

    Returns
    -------
    ndarray, shape (leaves,)

    Raises
    ------
    InputError
        If the name is unknown, or ``map`` comes without weights.
    """
    if within not in WITHIN:
        raise InputError(f"expected a strategy within a level among {WITHIN}, got {within!r}")
    if within == "equal":
        return np.ones(tree.leaves)
    if within == "map":
        if weights is None:
            raise InputError("expected a weight per voxel for the strategy 'map', got none: give weights")
        return _leaf_means(weights, tree)
    if within == "importance":
        return _leaf_means(volume > noise_floor(volume), tree)
    centred = volume - volume.mean(dtype=np.float64)  # else a large offset swallows the variance
    return np.maximum(_leaf_means(np.square(centred), tree) - _leaf_means(centred, tree) ** 2, 0)


def _leaf_means(volume: npt.NDArray[Any], tree: Octree) -> Floats:
    """Mean of every leaf over its own voxels, in node order."""
    edges = tree.edges(tree.depth)
    sums = volume.astype(np.float64)
    for axis, edge in enumerate(edges):
        sums = np.add.reduceat(sums, edge[:-1], axis=axis)
    sizes = np.ones(())
    for edge in edges:
        sizes = np.multiply.outer(sizes, np.diff(edge))
    means: Floats = (sums / sizes)[tuple(tree.grid_index(tree.depth).T)]
    return means


__all__ = ["global_consistency", "leaf_measure", "noise_floor"]

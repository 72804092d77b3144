"""The linear predictor of a block, fitted to it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from napari_tinc.predictive.coder import DIGITS, IN_PLANE, MAX_CLASSES, NEIGHBOURS, Numbers, Predictor, gather

# A class costs some 30 bytes of weights: it must have this many numbers.
_PER_CLASS, _MOST_CLASSES = 2**14, 6
_SAMPLES = 2**18
_ROUNDS = 3
LARGEST_WEIGHT = 2**15 - 1

Floats = npt.NDArray[np.float64]


def fit(numbers: Numbers) -> Predictor:
    """Fit the weights of every class to a block by least absolute errors, which are nearer to bits than squares.

    Parameters
    ----------
    numbers : ndarray of int64, shape (z, y, x)
    """
    depth, plane = numbers.shape[0], numbers.shape[1] * numbers.shape[2]
    at = np.arange(0, numbers.size, max(1, numbers.size // _SAMPLES))
    at = at[at >= plane] if depth > 1 else at
    classes = min(MAX_CLASSES, _MOST_CLASSES, max(1, numbers.size // _PER_CLASS))
    seen, reference, activity = gather(numbers, at)
    target = numbers.ravel()[at] - reference
    thresholds = np.unique(np.quantile(activity, np.linspace(0, 1, classes + 1)[1:-1]).astype(np.int64))
    of_class = np.searchsorted(thresholds, activity, side="right")
    weights = [_weights(seen[of_class == row], target[of_class == row]) for row in range(len(thresholds) + 1)]
    if depth > 1:
        first = np.arange(0, plane, max(1, plane // _SAMPLES))
        seen, reference, _ = gather(numbers, first)
        weights.append(_weights(seen, numbers.ravel()[first] - reference))
    return Predictor(thresholds, np.array(weights))


def _weights(seen: Numbers, target: Numbers) -> Numbers:
    """Return the weights of least absolute error by iterated least squares, rounded."""
    used = np.flatnonzero(seen.any(axis=0)) if len(seen) else np.zeros(0, np.intp)
    weights = np.zeros(NEIGHBOURS, np.int64)
    if not used.size:
        return weights
    matrix, wanted = seen[:, used].astype(np.float64), target.astype(np.float64)
    trust: Floats = np.ones(len(matrix))
    found: Floats = np.zeros(used.size)
    for _ in range(_ROUNDS):
        weighed = matrix * trust[:, None]
        normal = weighed.T @ matrix
        normal[np.diag_indices_from(normal)] += 1e-4 * np.trace(normal) / used.size + 1e-9
        found[:] = np.linalg.solve(normal, weighed.T @ wanted)
        errors = np.abs(wanted - matrix @ found)
        trust = 1 / np.maximum(errors, np.median(errors) + 0.5)
    weights[used] = np.clip(np.rint(found * 2**DIGITS), -LARGEST_WEIGHT, LARGEST_WEIGHT)
    return weights


__all__ = ["IN_PLANE", "LARGEST_WEIGHT", "fit"]

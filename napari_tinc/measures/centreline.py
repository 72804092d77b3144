"""Centreline Dice: how well the course of thin structures is kept, whatever their thickness."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.morphology import skeletonize

from napari_tinc.errors import InputError


def centreline_dice(truth: NDArray[Any], found: NDArray[Any]) -> float:
    """Centreline Dice (clDice, Shit et al., CVPR 2021, arXiv 2003.07311) of two binary volumes.

    The harmonic mean of two shares: of the found skeleton, what lies inside the true foreground, and of the true
    skeleton, what lies inside the found foreground. Skeletons are scikit-image's, in 3-D after Lee et al. (1994).

    Parameters
    ----------
    truth, found : ndarray, 2-D or 3-D
        Foreground is what is not 0; the same shape.

    Returns
    -------
    float
        In [0, 1]; 1 if neither has foreground, 0 if one alone has.

    Raises
    ------
    InputError
        If the shapes differ or are not 2-D or 3-D.
    """
    if truth.shape != found.shape or truth.ndim not in (2, 3):
        raise InputError(
            f"expected two pictures or volumes of one shape, got {truth.shape} and {found.shape}: compare equal regions"
        )
    true, detected = np.asarray(truth != 0), np.asarray(found != 0)
    if not true.any() or not detected.any():
        return float(true.any() == detected.any())
    precision = _share(skeletonize(detected), true)  # type: ignore[no-untyped-call]
    sensitivity = _share(skeletonize(true), detected)  # type: ignore[no-untyped-call]
    return 2 * precision * sensitivity / (precision + sensitivity) if precision + sensitivity else 0.0


def _share(skeleton: NDArray[Any], foreground: NDArray[np.bool_]) -> float:
    return float(np.count_nonzero((skeleton != 0) & foreground) / np.count_nonzero(skeleton))

"""Where a layer lies in the world, and where coarser samples of it do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from napari.utils.transforms import Affine

Floats = npt.NDArray[np.float64]

PLACE = ("axis_labels", "scale", "translate", "rotate", "shear", "affine", "units")


def place_of(layer: Any) -> dict[str, Any]:
    """Return the options that put another layer of the same axes exactly where a layer is."""
    return {name: getattr(layer, name) for name in PLACE}


def coarser(place: dict[str, Any], size: Sequence[float] | Floats) -> dict[str, Any]:
    """Place samples each of which stands for a box of voxels, and lies in its middle.

    Parameters
    ----------
    place : dict
        Of the voxels, see :func:`place_of`.
    size : sequence of float
        Voxels per sample, along every axis.
    """
    scale, size = np.asarray(place["scale"], float), np.asarray(size, float)
    translate = np.asarray(place["translate"], float) + linear_of(place) @ ((size - 1) / 2)
    return {**place, "scale": scale * size, "translate": translate}


def linear_of(place: dict[str, Any]) -> Floats:
    """Return the matrix that turns steps of one voxel into steps before ``affine`` is applied."""
    ndim = len(place["scale"])
    rotate, shear = place.get("rotate"), place.get("shear")
    transform = Affine(scale=place["scale"], rotate=rotate, shear=shear, ndim=ndim)
    return np.asarray(transform.linear_matrix, float)


def to_world(place: dict[str, Any]) -> Affine:
    """Return what turns positions in voxels into positions in the world."""
    own = Affine(linear_matrix=linear_of(place), translate=place["translate"])
    affine = place.get("affine")
    return own if affine is None else Affine(affine_matrix=np.asarray(affine)).compose(own)


__all__ = ["PLACE", "coarser", "linear_of", "place_of", "to_world"]

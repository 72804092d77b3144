"""Where a layer lies in the world, and where coarser samples of it do."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from napari.utils.transforms import Affine

from napari_tinc.errors import InputError
from napari_tinc.plugin.compress.model import full_resolution

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


def cropped(place: dict[str, Any], region: Sequence[slice]) -> dict[str, Any]:
    """Place a region of the voxels, one slice per axis."""
    translate = np.asarray(place.get("translate", 0.0), float)
    return {**place, "translate": translate + linear_of(place) @ [span.start for span in region]}


def region_of(layer: Any, shapes: Any) -> tuple[slice, ...]:
    """Return the voxels of a layer that a rectangle of a Shapes layer encloses, one slice per axis.

    Parameters
    ----------
    layer : Image
    shapes : Shapes
        Of its selected shapes the first counts, without a selection the last one. Axes along which it does not extend
        more than a voxel are taken whole.

    Raises
    ------
    InputError
        If there is no shape, or it lies beside the layer.
    """
    if not len(shapes.data):
        raise InputError(f"expected a rectangle in {shapes.name!r}, got none; draw one around what to compress")
    corners = np.asarray(shapes.data[min(shapes.selected_data, default=len(shapes.data) - 1)], float)
    world = np.array([shapes.data_to_world(corner) for corner in corners])
    missing = layer.ndim - world.shape[1]  # napari aligns layers at their last axes
    padded = np.pad(world, ((0, 0), (max(missing, 0), 0)))[:, max(-missing, 0) :]
    voxels = np.array([layer.world_to_data(point) for point in padded])
    region = []
    for axis, side in enumerate(full_resolution(layer).shape):
        low, high = voxels[:, axis].min(), voxels[:, axis].max()
        if axis < missing or high - low <= 1:
            region.append(slice(0, side))
            continue
        span = slice(max(0, math.floor(low + 0.5)), min(side, math.floor(high + 0.5) + 1))
        if span.stop - span.start < 1:
            raise InputError(f"expected a rectangle inside {layer.name!r}, got one beside it; move it onto the image")
        region.append(span)
    return tuple(region)


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


__all__ = ["PLACE", "coarser", "cropped", "linear_of", "place_of", "region_of", "to_world"]

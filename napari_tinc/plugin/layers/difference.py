"""Original against decoded: their difference as a lazy layer, and a swap between the two."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image, Layer
from napari.utils.colormaps import Colormap

from napari_tinc.plugin.compress.model import full_resolution
from napari_tinc.plugin.layers.place import place_of
from napari_tinc.plugin.layers.results import one_or_all, original_array, result_volume

_BLACK_AT_ZERO = Colormap(
    ((0.45, 0.75, 1.0), (0.05, 0.30, 0.80), (0.0, 0.0, 0.0), (0.80, 0.25, 0.05), (1.0, 0.75, 0.35)),
    name="difference",
)
# Errors are about normally distributed: the colours span all but 1 in 16000.
_SIGMAS = 4.0


def toggle_difference(viewer: ViewerModel, source_layer: Any, result_layer: Any) -> None:
    """Show original minus decoded; if it is shown already, remove it."""
    present = [layer for layer in viewer.layers if _is_difference(layer, source_layer, result_layer)]
    for layer in present:
        viewer.layers.remove(layer)
    if not present:
        add_difference(viewer, source_layer, result_layer)


def _is_difference(layer: Any, source_layer: Any, result_layer: Any) -> bool:
    return bool(layer.metadata.get("tinc_between") == (source_layer.unique_id, result_layer.unique_id))


def add_difference(viewer: ViewerModel, source_layer: Any, result_layer: Any) -> Layer:
    """Show original minus decoded, computed for the voxels that are looked at.

    Parameters
    ----------
    viewer : ViewerModel
    source_layer : Image
        The original.
    result_layer : Image
        A result layer, see :func:`napari_tinc.plugin.layers.results.add_result`.

    Returns
    -------
    Image
        Blue where the result is too bright, orange where it is too dark, black where it is right. Where that takes long
        to compute, nothing is shown until it is.

    Raises
    ------
    InputError
        If the result layer shows no compressed volume, or the original has another shape.
    """
    from napari_tinc.lazy import lazy_difference
    from napari_tinc.plugin.layers.sharpening import sharpener_in

    volume = result_volume(result_layer)
    data = original_array(source_layer, result_layer)
    # With the decoder of the result's fine voxels: what one has decoded, the other need not.
    fine = full_resolution(result_layer)
    decoded = getattr(getattr(fine, "source", None), "volume", volume)
    levels = lazy_difference(data, decoded)
    if len(levels) > 1 and volume.has_wide_planes:
        sharpener = sharpener_in(viewer, lambda layer: layer.metadata.get("tinc_difference") is volume)
        levels = [sharpener.level(level, None) for level in levels]
    shown, multiscale = one_or_all(levels)
    limit = _SIGMAS * _error(result_layer)
    layer = Image(
        shown,
        multiscale=multiscale,
        name=f"{source_layer.name} minus {result_layer.name}",
        contrast_limits=(-limit, limit),
        colormap=_BLACK_AT_ZERO,
        blending="translucent_no_depth",
        rendering="average",
        metadata={
            "tinc_derived": True,
            "tinc_difference": volume,
            "tinc_between": (source_layer.unique_id, result_layer.unique_id),
        },
        visible=False,
        **place_of(result_layer),
    )
    viewer.add_layer(layer)
    layer.colorbar.visible = True
    layer.visible = True
    return layer


def swap(source_layer: Any, result_layer: Any) -> None:
    """Show the original if the decoded is shown, and the other way round."""
    source_layer.visible = not source_layer.visible
    result_layer.visible = not source_layer.visible


def _error(layer: Any) -> float:
    """Root of the mean squared error, from the octants' PSNR in the file; 1 if there is none."""
    volume = result_volume(layer)
    spans = np.array([high - low for low, high in volume.value_ranges])
    psnr = np.array([octant.psnr for octant in volume.octants]).reshape(len(spans), -1)
    squared = spans[:, None] ** 2 * 10 ** (-psnr / 10)
    return math.sqrt(float(np.mean(squared))) or 1.0


__all__ = ["add_difference", "swap", "toggle_difference"]

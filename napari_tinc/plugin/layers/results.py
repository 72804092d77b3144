"""Result layers: a compressed volume as a lazy image layer that lies exactly on the original."""

from __future__ import annotations

import copy
import logging
import math
import re
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image, Layer
from napari.utils.colormaps import AVAILABLE_COLORMAPS
from napari.utils.transforms import Affine

from napari_tinc.arrays.metadata import Display
from napari_tinc.errors import InputError
from napari_tinc.plugin.compress.model import full_resolution
from napari_tinc.plugin.layers import place
from napari_tinc.plugin.layers.depth import follow_depth
from napari_tinc.plugin.window.preferences import limit_cache
from napari_tinc.plugin.window.viewers import guard_removals
from napari_tinc.system.text import decibels_text, printable

if TYPE_CHECKING:  # these import torch, which takes seconds
    from napari_tinc.lazy import Compressed, Source

logger = logging.getLogger(__name__)

LayerData = tuple[Any, dict[str, Any], str]
Region = tuple[slice, ...]

# What a result takes from the layer it was made from, besides its place in space.
LOOKS = (
    "gamma", "rendering", "attenuation", "iso_threshold", "interpolation2d", "interpolation3d", "colormap", "blending",
)  # fmt: skip
# What is shown until finer voxels are decoded has at most so many: it decodes in milliseconds.
COARSE_VOXELS = 2**18
# Beyond that the digits of a float leave nothing of a position; and what bends space so much cannot be unbent.
_FARTHEST = 1e9


def add_result(
    viewer: ViewerModel, volume: Compressed, source_layer: Any = None, region: Region | None = None
) -> Layer:
    """Show a compressed volume as one lazy layer with the axes of the volume.

    Parameters
    ----------
    viewer : ViewerModel
        The viewer; ``napari.Viewer`` is one.
    volume : Compressed
    source_layer : Image, optional
        The layer it was made from: place, units, contrast limits and looks are taken from it. Otherwise they come
        from the file.
    region : tuple of slice, optional
        What was compressed of the source, one slice per axis; by default all.

    Returns
    -------
    Image
        With ``metadata["tinc"]`` the volume and ``metadata["tinc_provenance"]`` how it was made.
    """
    limit_cache()
    guard_removals(viewer)
    follow_depth(viewer)
    data, options, _ = layer_data(volume, source_layer, viewer=viewer, region=region)
    # A layer that is visible when it is added is sliced at plane 0 before it is sliced where the user is.
    layer = viewer.add_layer(Image(data, **{**options, "visible": False}))
    layer.visible = True
    return layer


def layer_data(
    volume: Compressed,
    source_layer: Any = None,
    name: str = "",
    viewer: ViewerModel | None = None,
    region: Region | None = None,
) -> LayerData:
    """Describe the result layer of a volume as napari's (data, options, type) tuple; nothing is decoded.

    It has all axes of the volume, channels included: napari aligns the layers of a viewer at their last axes, so that
    only layers of the same axes show the same voxel at the same sliders. A volume and a source without a name take
    ``name``. In a ``viewer``, planes that take long to decode are coarse at first, and the layer is refreshed when they
    are not any more.
    """
    levels = levels_of(volume, viewer)
    where = place_of(source_layer, volume.metadata.axes) or file_place(volume)
    if region is not None:
        where = place.cropped(where, region)
    options = where | _looks(volume, source_layer)
    options["name"] = _title(volume, (source_layer.name if source_layer is not None else volume.metadata.name) or name)
    options["metadata"] = _provenance(volume, source_layer) | {"tinc_region": region}
    data, options["multiscale"] = one_or_all(levels)
    return data, options, "image"


def one_or_all(levels: list[Any]) -> tuple[Any, bool]:
    """Return the levels of a layer, or the only one, and whether they are several: napari wants to be told both."""
    return (levels, True) if len(levels) > 1 else (levels[0], False)


def levels_of(
    volume: Compressed,
    viewer: ViewerModel | None,
    wrap: Callable[[Source], Source] = lambda source: source,
    channel: int | None = None,
) -> list[Any]:
    """Return the arrays of a layer; in a viewer they are sharpened as long as it shows the volume.

    A plane that costs no more than its own samples, as with networks alone, is waited for: a coarse one costs hardly
    less. It is only not decoded before the viewer shows it.

    Parameters
    ----------
    volume : Compressed
    viewer : ViewerModel or None
    wrap : callable
        What to make of the voxels before they are shown.
    channel : int, optional
        Read this one only.
    """
    from napari_tinc.lazy import LazyArray, lazy_levels
    from napari_tinc.plugin.layers.sharpening import sharpener_in

    def arrays(read_from: Compressed, **options: int) -> list[Any]:
        return [LazyArray(wrap(level.source)) for level in lazy_levels(read_from, channel, **options)]

    if viewer is None:
        return arrays(volume)
    wide = volume.has_wide_planes
    sharpener = sharpener_in(viewer, lambda layer: _shows(layer, volume), patient=not wide)
    fine = copy.copy(volume) if wide else volume  # a copy has a decoder of its own
    levels, coarse = arrays(fine), arrays(volume, max_voxels=COARSE_VOXELS)[-1]
    return levels if len(levels) == 1 else [sharpener.level(level, coarse) for level in levels]


def _shows(layer: Any, volume: Compressed) -> bool:
    return volume in (layer.metadata.get("tinc"), layer.metadata.get("tinc_channels"))


def is_result(layer: Any) -> bool:
    """Tell whether a layer shows a compressed volume."""
    return isinstance(layer, Image) and "tinc" in layer.metadata


def result_volume(layer: Any) -> Compressed:
    """Return the volume behind a result layer.

    Raises
    ------
    InputError
        If the layer does not show a compressed volume.
    """
    if not is_result(layer):
        raise InputError(
            f"expected a compressed volume, got the layer {layer.name!r}: select one, or open a .tinc file"
        )
    volume: Compressed = layer.metadata["tinc"]
    return volume


def source_layer_of(viewer: ViewerModel, result: Any) -> Any:
    """Return the layer that a result was made from, or ``None`` if it is not in the viewer any more."""
    reference = result.metadata.get("tinc_source")
    source = None if reference is None else reference()
    return source if source is not None and source in viewer.layers else None


def original_array(source: Any, result: Any) -> Any:
    """Return what a result was made from: the array of a source layer at full resolution, or the region taken of it."""
    data = full_resolution(source)
    region = result.metadata.get("tinc_region")
    return data if region is None else data[region]


def _provenance(volume: Compressed, source: Any) -> dict[str, Any]:
    made = {**volume.provenance, "bytes": volume.nbytes, "ratio": round(volume.ratio, 2)}
    metadata: dict[str, Any] = {"tinc": volume, "tinc_provenance": made}
    return metadata if source is None else metadata | {"tinc_source": weakref.ref(source)}


def _looks(volume: Compressed, source: Any) -> dict[str, Any]:
    if source is not None:
        return {look: getattr(source, look) for look in LOOKS} | {"contrast_limits": tuple(source.contrast_limits)}
    display = volume.metadata.display
    # In one layer all channels share limits and colours.
    limits = display.contrast_limits or volume.value_ranges
    low, high = min(pair[0] for pair in limits), max(pair[1] for pair in limits)
    return {
        "contrast_limits": apart(low, high),
        "colormap": color_of(display.colors[0]) if len(display.colors) == 1 else "gray",
        "blending": "translucent_no_depth",
    }


def _title(volume: Compressed, name: str) -> str:
    """Name a result by what it is: "neuron, 64×, 49.2 dB"."""
    ratio = f"{volume.ratio:.0f}" if volume.ratio >= 10 else f"{volume.ratio:.1f}"
    psnr = volume.provenance.get("psnr")
    quality = "" if psnr is None else f", {decibels_text(float(psnr), 1)}"
    return printable(f"{name or 'volume'}, {ratio}×{quality}")


def apart(low: float, high: float) -> tuple[float, float]:
    """Return limits that napari takes: it refuses equal ones."""
    low, high = float(low), float(high)
    if high > low and math.isfinite(high - low):
        return low, high
    step = max(1.0, 1e-6 * abs(low))  # a smaller one is lost in the digits that a float has, or the display's do
    return (low, low + step) if math.isfinite(low + step) else (low - step, low)


def place_of(source: Any, axes: str) -> dict[str, Any] | None:
    """Return the options that put a volume in the place of its source; None without one, or if it has other axes."""
    if source is None or source.ndim != len(axes):
        return None
    return place.place_of(source)


def file_place(volume: Compressed) -> dict[str, Any]:
    """Return the options that put a volume where its file says."""
    from napari_tinc.files.units import shown_unit

    metadata, ndim = volume.metadata, len(volume.shape)
    translate = np.array(metadata.display.translate or (0.0,) * ndim)
    if not np.abs(translate).max() < _FARTHEST:
        logger.warning("expected a place that can be shown, got %s: shown at 0", translate)
        translate = np.zeros(ndim)
    where: dict[str, Any] = {"translate": translate}
    linear = np.array(metadata.display.linear or np.eye(ndim), float)
    if metadata.display.linear and np.abs(linear).max() < _FARTHEST and np.linalg.cond(linear) < _FARTHEST:
        # What the file holds applies to positions in voxel sizes, as napari's ``affine`` does.
        where = {"affine": Affine(linear_matrix=linear, translate=translate)}
    return {
        "axis_labels": tuple(metadata.axes),
        "scale": metadata.voxel_size,
        "units": tuple(shown_unit(unit) or "pixel" for unit in metadata.units),
        **where,
    }


def color_of(name: str) -> Any:
    """Return a colour map that napari knows, or makes from a colour such as ``"#00ff00"``; gray for anything else."""
    if name in AVAILABLE_COLORMAPS or re.fullmatch("#[0-9a-fA-F]{6}", name):
        return name
    logger.warning("expected a colour or a colour map of napari, got %r: shown gray", name)
    return "gray"


def display_of(where: dict[str, Any], layer: Any) -> Display:
    """Return what a file keeps of a place and of the looks of a layer; to save bytes, no place at 0 and no gray."""
    ndim = layer.ndim
    world = place.to_world(where)
    translate = tuple(_rounded(value) for value in world.translate)
    linear = world.linear_matrix / np.asarray(layer.scale, float)
    rows = tuple(tuple(_rounded(value) for value in row) for row in linear)
    straight = np.allclose(linear, np.eye(ndim), rtol=0, atol=1e-9)
    low, high = (_rounded(value) for value in layer.contrast_limits)
    color = layer.colormap.name
    return Display(
        translate if any(translate) else (),
        () if straight else rows,
        ((low, high),),
        (color,) if color != "gray" and (color in AVAILABLE_COLORMAPS or color.startswith("#")) else (),
    )


def _rounded(value: float) -> float:
    """Keep what a position or an intensity needs; a file has few bytes to spare."""
    return float(f"{value:.9g}")


__all__ = [
    "LOOKS",
    "LayerData",
    "add_result",
    "apart",
    "color_of",
    "display_of",
    "file_place",
    "is_result",
    "layer_data",
    "levels_of",
    "one_or_all",
    "original_array",
    "place_of",
    "result_volume",
    "source_layer_of",
]

"""Result layers: a compressed volume as lazy image layers that lie exactly on the original."""

from __future__ import annotations

import copy
import math
import weakref
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image, Layer

from napari_tinc.core.metadata import LEADING
from napari_tinc.core.text import printable
from napari_tinc.errors import InputError
from napari_tinc.plugin.preferences import limit_cache

if TYPE_CHECKING:  # these import torch, which takes seconds
    from napari_tinc.volume import CompressedVolume

LayerData = tuple[Any, dict[str, Any], str]

# What a result takes from the layer it was made from, besides its place in space.
LOOKS = ("gamma", "rendering", "attenuation", "iso_threshold", "interpolation2d", "interpolation3d")
# What is shown until finer voxels are decoded has at most so many: it decodes in milliseconds.
COARSE_VOXELS = 2**18
_CHANNEL_COLORS = {1: ("gray",), 2: ("magenta", "green")}
_MANY_COLORS = ("cyan", "yellow", "magenta", "red", "green", "blue")


def add_result(viewer: ViewerModel, volume: CompressedVolume, source_layer: Any = None) -> list[Layer]:
    """Show a compressed volume: one lazy layer per channel, time as a slider.

    Parameters
    ----------
    viewer : ViewerModel
        The viewer; ``napari.Viewer`` is one.
    volume : CompressedVolume
    source_layer : Image, optional
        The layer it was made from: place, units, contrast limits and looks are taken from it. Otherwise they come
        from the file.

    Returns
    -------
    list of Image
        With ``metadata["tinc"]`` the volume, ``metadata["tinc_channel"]`` the channel and
        ``metadata["tinc_provenance"]`` how it was made.
    """
    limit_cache()
    layers = []
    for data, options, _ in layer_data(volume, source_layer, viewer=viewer):
        # A layer that is visible when it is added is sliced at plane 0 before it is sliced where the user is.
        layer = viewer.add_layer(Image(data, **{**options, "visible": False}))
        layer.visible = True
        layers.append(layer)
    return layers


def layer_data(
    volume: CompressedVolume, source_layer: Any = None, name: str = "", viewer: ViewerModel | None = None
) -> list[LayerData]:
    """Describe the result layers of a volume as napari's (data, options, type) tuples; nothing is decoded.

    A volume and a source without a name take ``name``. In a ``viewer``, planes that take long to decode are coarse at
    first, and its layers are refreshed when they are not any more.
    """
    channels, read = _channels(volume), _reader(volume, viewer)
    title = (source_layer.name if source_layer is not None else volume.metadata.name) or name
    described: list[LayerData] = []
    for channel in range(channels) if channels else [None]:
        levels = read(channel)
        options = (place_of(source_layer, volume.metadata.axes) or _file_place(volume)) | _looks(
            volume, channel, source_layer
        )
        options["name"] = _title(volume, channel, title)
        options["metadata"] = _provenance(volume, channel, source_layer)
        options["multiscale"] = len(levels) > 1
        described.append((levels if len(levels) > 1 else levels[0], options, "image"))
    return described


def _reader(volume: CompressedVolume, viewer: ViewerModel | None) -> Callable[[int | None], list[Any]]:
    """Return what makes the levels of a channel; in a viewer they are sharpened as long as it shows the volume.

    Not if a plane costs no more than its own samples, as with networks alone: a coarse one costs hardly less. Those are
    only not decoded before the viewer shows them.
    """
    from napari_tinc.lazy import lazy_levels
    from napari_tinc.plugin.sharpening import sharpener_in

    if viewer is None:
        return partial(lazy_levels, volume)
    wide = volume.has_wide_planes
    sharpener = sharpener_in(viewer, lambda layer: layer.metadata.get("tinc") is volume, patient=not wide)
    fine = copy.copy(volume) if wide else volume  # a copy has a decoder of its own

    def read(channel: int | None) -> list[Any]:
        levels = lazy_levels(fine, channel)
        coarse = lazy_levels(volume, channel, COARSE_VOXELS)[-1] if wide else None
        return levels if len(levels) == 1 else [sharpener.level(level, coarse) for level in levels]

    return read


def is_result(layer: Any) -> bool:
    """Tell whether a layer shows a compressed volume."""
    return isinstance(layer, Image) and "tinc" in layer.metadata and "tinc_channel" in layer.metadata


def result_volume(layer: Any) -> CompressedVolume:
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
    volume: CompressedVolume = layer.metadata["tinc"]
    return volume


def source_layer_of(viewer: ViewerModel, result: Any) -> Any:
    """Return the layer that a result was made from, or ``None`` if it is not in the viewer any more."""
    reference = result.metadata.get("tinc_source")
    source = None if reference is None else reference()
    return source if source in viewer.layers else None


def items_of(volume: CompressedVolume, channel: int | None) -> list[int]:
    """Item numbers (see :class:`napari_tinc.volume.Octant`) of a channel, one per time point."""
    leading = [axis for axis in volume.metadata.axes if axis in LEADING]
    grid = np.arange(len(volume.value_ranges)).reshape(volume.header.leading_shape)
    return [int(item) for item in np.ravel(grid if channel is None else grid.take(channel, leading.index("c")))]


def _channels(volume: CompressedVolume) -> int:
    """Length of the channel axis, 0 without one."""
    axes = volume.metadata.axes
    return volume.shape[axes.index("c")] if "c" in axes else 0


def _provenance(volume: CompressedVolume, channel: int | None, source: Any) -> dict[str, Any]:
    made = {**volume.provenance, "bytes": volume.nbytes, "ratio": round(volume.ratio, 2)}
    metadata: dict[str, Any] = {"tinc": volume, "tinc_channel": channel, "tinc_provenance": made}
    return metadata if source is None else metadata | {"tinc_source": weakref.ref(source)}


def _looks(volume: CompressedVolume, channel: int | None, source: Any) -> dict[str, Any]:
    channels = _channels(volume)
    looks = {} if source is None else {look: getattr(source, look) for look in LOOKS}
    if source is not None and not channels:
        return looks | {
            "contrast_limits": tuple(source.contrast_limits),
            "colormap": source.colormap,
            "blending": source.blending,
        }
    colors = _CHANNEL_COLORS.get(max(channels, 1), _MANY_COLORS)
    return looks | {
        "contrast_limits": _value_range(volume, channel),
        "colormap": colors[(channel or 0) % len(colors)],
        "blending": "additive" if channels > 1 else "translucent_no_depth",
    }


def _title(volume: CompressedVolume, channel: int | None, name: str) -> str:
    names = volume.metadata.channel_names
    part = "" if channel is None else f" {names[channel] if names else f'channel {channel}'}"
    return printable(f"{name or 'volume'}{part} (TINC)")


def _value_range(volume: CompressedVolume, channel: int | None) -> tuple[float, float]:
    """Smallest and largest value of the channel's original; napari refuses equal limits."""
    ranges = [volume.value_ranges[item] for item in items_of(volume, channel)]
    low, high = float(min(limits[0] for limits in ranges)), float(max(limits[1] for limits in ranges))
    if high > low:
        return low, high
    step = max(1.0, 1e-6 * abs(low))  # a smaller one is lost in the digits that a float has, or the display's do
    return (low, low + step) if math.isfinite(low + step) else (low - step, low)


def place_of(source: Any, axes: str) -> dict[str, Any] | None:
    """Return the options that put a channel in the place of its source, which may have the channel axis or lack it.

    None without a source, or if it has other axes.
    """
    if source is None:
        return None
    kept = [i for i, axis in enumerate(axes) if axis != "c"]
    if source.ndim == len(kept) != len(axes):
        kept = list(range(source.ndim))
    elif source.ndim != len(axes):
        return None
    place = {name: getattr(source, name) for name in ("axis_labels", "scale", "translate", "units")}
    return {name: tuple(values[i] for i in kept) for name, values in place.items()}


def _file_place(volume: CompressedVolume) -> dict[str, Any]:
    from napari_tinc.files.units import shown_unit

    metadata = volume.metadata
    entries = zip(metadata.axes, metadata.voxel_size, metadata.units, strict=True)
    labels, sizes, units = zip(*(entry for entry in entries if entry[0] != "c"), strict=True)
    return {
        "axis_labels": labels,
        "scale": sizes,
        "translate": (0.0,) * len(labels),
        "units": tuple(shown_unit(unit) or "pixel" for unit in units),
    }


__all__ = [
    "LOOKS",
    "LayerData",
    "add_result",
    "is_result",
    "items_of",
    "layer_data",
    "place_of",
    "result_volume",
    "source_layer_of",
]

"""The layers of a comparison: decoded candidates, their octants' quality, and which codec is best where."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from napari.components import ViewerModel
from napari.layers import Image, Labels
from napari.utils.colormaps import Colormap, DirectLabelColormap

from napari_tinc.core.metadata import LEADING
from napari_tinc.plugin.compare_model import Row
from napari_tinc.plugin.compress_model import full_resolution
from napari_tinc.plugin.layers import LOOKS, layer_data, place_of
from napari_tinc.plugin.overlays import BAD_TO_GOOD, HEAT_OPACITY

if TYPE_CHECKING:
    from napari_tinc.volume import CompressedVolume

Floats = npt.NDArray[np.float64]

_KEY = "tinc_candidate"
_LOWEST_DB, _HIGHEST_DB = 0.0, 1.0  # of a scale where all octants are without error
# Told apart by every kind of colour vision (Okabe and Ito, 2008), then repeated.
LEGEND = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7", "#bbbbbb")
_BEST_OPACITY = 0.45


def find_candidate(viewer: ViewerModel, row: Row, source: Any) -> list[Any]:
    """Return the layers that already show a candidate's file in the place of a source."""
    assert row.result is not None
    return [layer for layer in viewer.layers if layer.metadata.get(_KEY) == (row.result.path, id(source))]


def add_candidate(viewer: ViewerModel, row: Row, content: Any, axes: str, source: Any) -> list[Any]:
    """Show a candidate's decoded volume, a layer per channel, unless it is there already.

    Parameters
    ----------
    viewer : ViewerModel
    row : Row
    content : CompressedVolume or ndarray
        See :func:`napari_tinc.plugin.compare_worker.content_of`: our own files decode where one looks.
    axes : str
        Of the volume.
    source : Image
        The original's layer: place, contrast and colours are taken from it.

    Returns
    -------
    list of Image
        With the file's path and the source in ``metadata["tinc_candidate"]``.
    """
    if present := find_candidate(viewer, row, source):
        return present
    assert row.result is not None
    described = (
        _array_layers(content, axes, source) if isinstance(content, np.ndarray) else _own(viewer, content, source)
    )
    layers = []
    for part, (data, options) in described:
        options["metadata"][_KEY] = (row.result.path, id(source))
        options["name"] = row.title() + part
        layer = viewer.add_layer(Image(data, **{**options, "visible": False}))
        layer.visible = True  # a layer that is visible when it is added is sliced twice
        layers.append(layer)
    return layers


def _own(viewer: ViewerModel, volume: CompressedVolume, source: Any) -> list[tuple[str, tuple[Any, dict[str, Any]]]]:
    described = layer_data(volume, source, viewer=viewer)
    return [(_channel_title(i, len(described)), (data, options)) for i, (data, options, _) in enumerate(described)]


def _array_layers(array: Any, axes: str, source: Any) -> list[tuple[str, tuple[Any, dict[str, Any]]]]:
    looks = {name: getattr(source, name) for name in (*LOOKS, "contrast_limits", "colormap", "blending")}
    options = {**(place_of(source, axes) or {}), **looks}
    channels = np.moveaxis(array, axes.index("c"), 0) if "c" in axes else array[None]
    metadata = {"tinc_derived": True, "tinc_source": weakref.ref(source)}
    return [
        (_channel_title(i, len(channels)), (channel, {**options, "metadata": dict(metadata)}))
        for i, channel in enumerate(channels)
    ]


def _channel_title(channel: int, channels: int) -> str:
    return f", channel {channel}" if channels > 1 else ""


def octant_grid(octants: Floats, shape: Sequence[int], axes: str, channel: int = 0) -> Floats:
    """Lay the PSNR of the octants of one channel out along the axes of its layer.

    Parameters
    ----------
    octants : ndarray, shape (items, *grid)
        See :class:`napari_tinc.compare.results.Result`.
    shape : sequence of int
        Of the volume.
    axes : str
        Of the volume.
    channel : int
        Ignored if there are none.
    """
    leading = [axis for axis in axes if axis in LEADING]
    sides = [shape[axes.index(axis)] for axis in leading]
    grid: Floats = octants.reshape(*sides, *octants.shape[1:])
    if "c" in leading:
        grid = np.take(grid, channel, axis=leading.index("c"))
    return np.moveaxis(grid, 0, axes.replace("c", "").index("t")) if "t" in leading else grid


def heat_maps(grids: Sequence[Floats], layers: Sequence[Any]) -> list[Image]:
    """Draw the octants' PSNR of several candidates in the same colours, hidden at first.

    Parameters
    ----------
    grids : sequence of ndarray
        See :func:`octant_grid`.
    layers : sequence of Image
        The candidates.
    """
    values = np.concatenate([grid.ravel() for grid in grids])
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (_LOWEST_DB, _HIGHEST_DB)
    limits = low, high if high > low else low + 1
    maps = []
    for grid, layer in zip(grids, layers, strict=True):
        shown = np.where(np.isfinite(grid), grid, limits[1]).astype(np.float32)  # without error: the best there is
        options: dict[str, Any] = {
            "name": f"PSNR (dB): {layer.name}", "contrast_limits": limits, "opacity": HEAT_OPACITY, "visible": False,
            "colormap": Colormap(BAD_TO_GOOD, name="octant psnr"), "blending": "translucent_no_depth",
            "interpolation2d": "nearest", "metadata": {"tinc_derived": True},
            **_over(_place(layer), full_resolution(layer).shape, grid.shape),
        }  # fmt: skip
        maps.append(Image(shown, **options))
    return maps


def best_map(grids: Sequence[Floats], names: Sequence[str], sides: Sequence[int], place: dict[str, Any]) -> Labels:
    """Draw which of several candidates is best in every octant.

    Parameters
    ----------
    grids : sequence of ndarray
        See :func:`octant_grid`; of one ratio.
    names : sequence of str
        Of the candidates. Label ``i + 1`` stands for the i-th one; the status bar tells it under the cursor.
    sides : sequence of int
        Voxels of every axis of the volume, without channels.
    place : dict
        Of the volume, see :func:`napari_tinc.plugin.layers.place_of`.
    """
    stacked = np.stack(grids)
    best = stacked.argmax(0)
    colours: dict[int | None, Any] = {i + 1: legend_colour(i) for i in range(len(names))}
    features = {"best": ["", *names]}
    return Labels(
        (best + 1).astype(np.uint8), name="best codec per octant", features=features, opacity=_BEST_OPACITY,
        colormap=DirectLabelColormap(color_dict=colours | {None: "transparent"}),
        metadata={"tinc_derived": True}, **_over(place, sides, best.shape),
    )  # fmt: skip


def shares(best: Labels, names: Sequence[str]) -> list[tuple[str, str, float]]:
    """Return name, colour and share of the octants of every candidate that is best somewhere, most first."""
    counts = np.bincount(np.ravel(best.data), minlength=len(names) + 1)[1:]
    total = counts.sum()
    found = [(names[i], legend_colour(i), float(counts[i] / total)) for i in range(len(names)) if counts[i]]
    return sorted(found, key=lambda one: -one[2])


def legend_colour(index: int) -> str:
    """Colour of a candidate on the map."""
    return LEGEND[index % len(LEGEND)]


def _place(layer: Any) -> dict[str, Any]:
    return {name: getattr(layer, name) for name in ("scale", "translate", "units", "axis_labels")}


def _over(place: dict[str, Any], sides: Sequence[int], cells: Sequence[int]) -> dict[str, Any]:
    """Place a layer of one voxel per octant over one of all voxels."""
    size, scale = np.array(sides) / np.array(cells), np.array(place["scale"])
    return {**place, "scale": scale * size, "translate": np.array(place["translate"]) + scale * (size - 1) / 2}


__all__ = ["add_candidate", "best_map", "find_candidate", "heat_maps", "legend_colour", "octant_grid", "shares"]

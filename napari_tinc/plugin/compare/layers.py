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

from napari_tinc.arrays.metadata import LEADING
from napari_tinc.plugin.compare.model import Row
from napari_tinc.plugin.compress.model import full_resolution
from napari_tinc.plugin.layers.overlays import BAD_TO_GOOD, HEAT_OPACITY
from napari_tinc.plugin.layers.place import coarser, place_of
from napari_tinc.plugin.layers.results import LOOKS, layer_data

if TYPE_CHECKING:
    from napari_tinc.volume import CompressedVolume

Floats = npt.NDArray[np.float64]

_KEY = "tinc_candidate"
_LOWEST_DB, _HIGHEST_DB = 0.0, 1.0  # of a scale where all octants are without error
# Told apart by every kind of colour vision (Okabe and Ito, 2008), then repeated.
LEGEND = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7", "#bbbbbb")
_BEST_OPACITY = 0.45


def find_candidate(viewer: ViewerModel, row: Row, source: Any) -> Any:
    """Return the layer that already shows a candidate's file in the place of a source, or None."""
    return next((layer for layer in viewer.layers if layer.metadata.get(_KEY) == _key(row, source)), None)


def add_candidate(viewer: ViewerModel, row: Row, content: Any, source: Any) -> Any:
    """Show a candidate's decoded volume, unless it is there already.

    Parameters
    ----------
    viewer : ViewerModel
    row : Row
    content : CompressedVolume or ndarray
        See :func:`napari_tinc.plugin.compare.worker.content_of`: our own files decode where one looks.
    source : Image
        The original's layer: place, contrast and colours are taken from it.

    Returns
    -------
    Image
        With the file's path and the source in ``metadata["tinc_candidate"]``.
    """
    if present := find_candidate(viewer, row, source):
        return present
    data, options = _array_layer(content, source) if isinstance(content, np.ndarray) else _own(viewer, content, source)
    options["metadata"][_KEY] = _key(row, source)
    layer = Image(data, **{**options, "name": row.title(), "visible": False})
    viewer.add_layer(layer)
    layer.visible = True  # a layer that is visible when it is added is sliced twice
    return layer


def _key(row: Row, source: Any) -> tuple[Any, Any]:
    assert row.result is not None
    return row.result.path, source.unique_id


def _own(viewer: ViewerModel, volume: CompressedVolume, source: Any) -> tuple[Any, dict[str, Any]]:
    data, options, _ = layer_data(volume, source, viewer=viewer)
    return data, options


def _array_layer(array: Any, source: Any) -> tuple[Any, dict[str, Any]]:
    looks = {name: getattr(source, name) for name in (*LOOKS, "contrast_limits")}
    metadata = {"tinc_derived": True, "tinc_source": weakref.ref(source)}
    return array, {**place_of(source), **looks, "metadata": metadata}


def octant_grid(octants: Floats, shape: Sequence[int], axes: str) -> Floats:
    """Lay the PSNR of the octants out along the axes of the volume.

    Parameters
    ----------
    octants : ndarray, shape (items, *grid)
        See :class:`napari_tinc.compare.results.Result`.
    shape : sequence of int
        Of the volume.
    axes : str
        Of the volume.
    """
    leading = [i for i, axis in enumerate(axes) if axis in LEADING]
    grid: Floats = octants.reshape(*(shape[i] for i in leading), *octants.shape[1:])
    return np.moveaxis(grid, range(len(leading)), leading)


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
            **_over(layer, grid.shape),
        }  # fmt: skip
        maps.append(Image(shown, **options))
    return maps


def best_map(grids: Sequence[Floats], names: Sequence[str], source: Any) -> Labels:
    """Draw which of several candidates is best in every octant, hidden at first.

    Shown in 3-D and active, it would make napari 0.9 ask what is under a cursor that has not been on the canvas yet,
    which is an error.

    Parameters
    ----------
    grids : sequence of ndarray
        See :func:`octant_grid`; of one ratio.
    names : sequence of str
        Of the candidates. Label ``i + 1`` stands for the i-th one; the status bar tells it under the cursor.
    source : Image
        The original's layer.
    """
    stacked = np.stack(grids)
    best = stacked.argmax(0)
    colours: dict[int | None, Any] = {i + 1: legend_colour(i) for i in range(len(names))}
    features = {"best": ["", *names]}
    return Labels(
        (best + 1).astype(np.uint8), name="best codec per octant", features=features, opacity=_BEST_OPACITY,
        visible=False,
        colormap=DirectLabelColormap(color_dict=colours | {None: "transparent"}),
        metadata={"tinc_derived": True}, **_over(source, best.shape),
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


def _over(layer: Any, cells: Sequence[int]) -> dict[str, Any]:
    """Place a layer of one voxel per octant over one of all voxels."""
    return coarser(place_of(layer), np.array(full_resolution(layer).shape) / np.array(cells))


__all__ = ["add_candidate", "best_map", "find_candidate", "heat_maps", "legend_colour", "octant_grid", "shares"]

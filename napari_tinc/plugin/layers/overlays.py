"""Where to trust a result: its octants' quality as layers over it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
from napari.components import ViewerModel
from napari.layers import Image, Labels, Layer, Surface, Vectors
from napari.utils.colormaps import Colormap

from napari_tinc.errors import InputError
from napari_tinc.plugin.layers.octants import MEASURES, OctantModel
from napari_tinc.plugin.layers.place import coarser, place_of

Floats = npt.NDArray[np.float64]

_KEY = "tinc_overlay"  # under it every layer of an overlay holds the overlay
# Boxes in 3-D: more are a tangle, and of few octants not all are the worst.
_WORST, _WORST_SHARE = 8, 8
# Bad is orange, good is blue: told apart by every kind of colour vision, and neither is the grey of the volume.
BAD_TO_GOOD = ((0.85, 0.25, 0.05), (0.99, 0.68, 0.30), (0.85, 0.90, 0.80), (0.35, 0.65, 0.85), (0.10, 0.30, 0.60))
HEAT_OPACITY = 0.35
_FEW_TO_MANY = ((0.1, 0.1, 0.3), (0.2, 0.6, 0.6), (0.95, 0.95, 0.5))
_OUTLINE = "white"
# Corners of a unit cube, its triangles and its edges.
_CUBE = np.array(list(product((0, 1), repeat=3)))
_TRIANGLES = np.array(
    [(0, 1, 3), (0, 3, 2), (4, 6, 7), (4, 7, 5), (0, 4, 5), (0, 5, 1),
     (2, 3, 7), (2, 7, 6), (0, 2, 6), (0, 6, 4), (1, 5, 7), (1, 7, 3)]
)  # fmt: skip
_EDGES = [(i, j) for i in range(8) for j in range(i) if np.abs(_CUBE[i] - _CUBE[j]).sum() == 1]


def show_quality(viewer: ViewerModel, result_layer: Any, measure: str = "psnr") -> list[Layer]:
    """Show how well every octant of a result is kept, instead of what was shown of it before.

    In 2-D: a heat-map with a colour bar, the octants' outlines in the plane that is shown, and their numbers in the
    status bar under the cursor. In 3-D: the octants of the lowest PSNR as translucent boxes. Everything comes from the
    file, so a file that was opened again shows the same.

    Parameters
    ----------
    viewer : ViewerModel
    result_layer : Image
        A result layer, see :func:`napari_tinc.plugin.layers.results.add_result`.
    measure : str
        What the heat-map shows: ``"psnr"``, ``"nbytes"``, ``"max_error"`` or ``"dice"``.

    Returns
    -------
    list of layers
        Heat-map, outlines and numbers; in 3-D also boxes and their edges. They go when the result goes.

    Raises
    ------
    InputError
        If the layer shows no compressed volume, or the measure is unknown.
    """
    if measure not in MEASURES:
        raise InputError(f"expected a measure among {tuple(MEASURES)}, got {measure!r}")
    overlay = _overlay_of(viewer, result_layer)
    if overlay is None:
        overlay = QualityOverlay(viewer, OctantModel(result_layer), measure)
        overlay.follow()
    else:
        overlay.show(measure)
    viewer.layers.selection.active = overlay.numbers
    return list(overlay.layers)


def hide_quality(viewer: ViewerModel, result_layer: Any) -> None:
    """Remove what is shown of a result's octants."""
    if (overlay := _overlay_of(viewer, result_layer)) is not None:
        overlay.remove()


def toggle_quality(viewer: ViewerModel, result_layer: Any, measure: str) -> None:
    """Show a measure of a result's octants; asked for the one that is shown, hide it."""
    if shown_measure(viewer, result_layer) == measure:
        hide_quality(viewer, result_layer)
    else:
        show_quality(viewer, result_layer, measure)


def shown_measure(viewer: ViewerModel, result_layer: Any) -> str:
    """Return which measure of a result's octants is shown; empty if none is."""
    overlay = _overlay_of(viewer, result_layer)
    return "" if overlay is None else overlay.measure


def _overlay_of(viewer: ViewerModel, result_layer: Any) -> QualityOverlay | None:
    overlays = (layer.metadata.get(_KEY) for layer in viewer.layers)
    return next((one for one in overlays if one is not None and one.model.layer is result_layer), None)


class QualityOverlay:
    """The layers of :func:`show_quality`, kept in step with the viewer.

    Parameters
    ----------
    viewer : ViewerModel
    model : OctantModel
    measure : str
    """

    def __init__(self, viewer: ViewerModel, model: OctantModel, measure: str) -> None:
        self._viewer, self.model, self.measure = viewer, model, measure
        self.heat_map = heat_map(model, measure)
        self.outlines = Vectors(self._lines(), **_look_of(model, "octants"), **_line_style(model))
        self.numbers = numbers(model)
        self._flat: list[Layer] = [self.heat_map, self.outlines, self.numbers]
        self._solid: list[Layer] = []  # made when the viewer goes to 3-D
        for layer in self._flat:
            # The viewer refers to its listeners weakly: the overlay lives as long as a layer of it.
            layer.metadata[_KEY] = self
            viewer.add_layer(layer)

    def __deepcopy__(self, memo: dict[int, Any]) -> None:
        """Copy nothing: a duplicate of a layer is no overlay."""

    @property
    def layers(self) -> list[Layer]:
        """What there is of it."""
        return self._flat + self._solid

    def show(self, measure: str) -> None:
        """Show another measure in the layers that are there."""
        made = heat_map(self.model, measure)
        self.measure = measure
        self.heat_map.data = made.data
        self.heat_map.contrast_limits_range = made.contrast_limits_range
        for name in ("contrast_limits", "colormap", "name"):
            setattr(self.heat_map, name, getattr(made, name))
        for layer in self._flat:
            layer.visible = True
        self.switch()

    def remove(self) -> None:
        """Take all of it out of the viewer."""
        self._unfollow()
        for layer in self.layers:
            if layer in self._viewer.layers:
                self._viewer.layers.remove(layer)

    def follow(self) -> None:
        """Listen to the viewer until the result or the outlines are removed."""
        self._viewer.dims.events.current_step.connect(self._redraw)
        self._viewer.dims.events.order.connect(self._redraw)
        self._viewer.dims.events.ndisplay.connect(self.switch)
        self._viewer.layers.events.removed.connect(self._forget)
        self.switch()

    def switch(self) -> None:
        """Show what reads well in 2-D or in 3-D, unless the user has hidden all of it."""
        deep = self._viewer.dims.ndisplay == 3 and len(self.model.edges) == 3
        if deep and not self._solid:
            self._solid = list(worst_boxes(self.model))
            for layer in self._solid:
                layer.metadata[_KEY] = self
                self._viewer.add_layer(layer)
        leaving, entering = (self._flat, self._solid) if deep else (self._solid, self._flat)
        if any(layer.visible for layer in leaving):
            for layer in self.layers:
                layer.visible = layer in entering
        self._redraw()

    def _redraw(self) -> None:
        if self._viewer.dims.ndisplay == 2:
            self.outlines.data = self._lines()

    def _unfollow(self) -> None:
        self._viewer.dims.events.current_step.disconnect(self._redraw)
        self._viewer.dims.events.order.disconnect(self._redraw)
        self._viewer.dims.events.ndisplay.disconnect(self.switch)
        self._viewer.layers.events.removed.disconnect(self._forget)

    def _forget(self, event: Any) -> None:
        """Go with the result, or with the heat-map; other layers may be removed by themselves."""
        if event.value is self.model.layer or event.value is self.heat_map:
            self.remove()

    def _lines(self) -> Floats:
        """Borders in the plane that is shown: (lines, 2, axes), start and direction in voxels.

        Bytes are shown with the borders of the network's parts, if there is one, all else with those of octants.
        """
        dims, ndim = self._viewer.dims, len(self.model.sides)
        displayed = [axis - dims.ndim + ndim for axis in dims.displayed[-2:]]
        here = np.round(self.model.layer.world_to_data(dims.point)[-ndim:])
        here = np.clip(here, 0, np.array(self.model.sides) - 1)
        if self.measure == "nbytes" and len(self.model.parts):
            return part_borders(self.model, here, displayed)
        lines = []
        for axis, along in ((displayed[0], displayed[1]), (displayed[1], displayed[0])):
            if axis < 0 or axis not in self.model.edges:
                continue
            # On a sliced axis anything beyond the voxels' centres would stretch the viewer's slider.
            for cut in np.clip(self.model.edges[axis] - 0.5, 0, self.model.sides[axis] - 1):
                line = np.array([here, np.zeros(ndim)])
                line[:, axis], line[:, along] = (cut, 0), (0, self.model.sides[along] - 1)
                lines.append(line)
        return np.array(lines).reshape(-1, 2, ndim)


def part_borders(model: OctantModel, here: Floats, displayed: Sequence[int]) -> Floats:
    """Borders of the parts that a plane meets: (lines, 2, axes), start and direction in voxels.

    Parameters
    ----------
    model : OctantModel
    here : ndarray, shape (axes,)
        A voxel of the plane.
    displayed : sequence of int
        The plane's axes; those that are not spatial have no borders.
    """
    spatial = sorted(model.edges)
    low = np.tile(here, (len(model.parts), 1))
    high = low + 1
    low[:, spatial], high[:, spatial] = model.parts[..., 0], model.parts[..., 1]
    sliced = [axis for axis in range(len(here)) if axis not in displayed]
    met = ((low <= here) & (here < high))[:, sliced].all(1)
    # Half a voxel before the first voxel's centre, but for the outermost faces: no slider is stretched.
    first, last = np.maximum(low[met] - 0.5, 0), np.minimum(high[met] - 0.5, np.array(model.sides) - 1)
    first[:, sliced] = here[sliced]
    lines = []
    for axis in (axis for axis in displayed if axis in model.edges):
        along = np.zeros_like(first)
        along[:, axis] = (last - first)[:, axis]
        for other in (other for other in displayed if other != axis):
            end = first.copy()
            end[:, other] = last[:, other]
            lines += [np.stack([first, along], 1), np.stack([end, along], 1)]
    return np.concatenate(lines) if lines else np.zeros((0, 2, len(model.sides)))


def heat_map(model: OctantModel, measure: str) -> Image:
    """Draw a measure as an image of one voxel per octant."""
    grid = model.grid(measure)
    finite = grid[np.isfinite(grid)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    good = {"psnr": BAD_TO_GOOD, "dice": BAD_TO_GOOD, "max_error": BAD_TO_GOOD[::-1]}
    colors = good.get(measure, _FEW_TO_MANY)
    layer = Image(
        grid.astype(np.float32),
        contrast_limits=(low, high if high > low else low + 1.0),
        colormap=Colormap(colors, name=f"octant {measure}"),
        blending="translucent_no_depth",
        opacity=HEAT_OPACITY,
        interpolation2d="nearest",
        **_on_grid(model, MEASURES[measure]),
    )
    layer.colorbar.visible = True
    return layer


def numbers(model: OctantModel) -> Labels:
    """Draw the octants' numbers, unseen: the status bar shows what is known about the one under the cursor."""
    features = {name: np.concatenate([[np.nan], np.round(column, 3)]) for name, column in model.values.items()}
    layer = Labels(model.numbers.astype(np.int32), features=features, **_on_grid(model, "octant numbers"))
    # Only a visible layer answers the cursor; this one has nothing to show.
    layer.opacity = 0.0
    return layer


def worst_boxes(model: OctantModel) -> tuple[Surface, Vectors]:
    """Draw the octants of the lowest PSNR as boxes, for 3-D."""
    spatial = sorted(model.edges)
    count = min(_WORST, math.ceil(len(model.starts) / _WORST_SHARE))
    vertices, faces, values, edges = [], [], [], []
    for box, octant in enumerate(model.worst(count)):
        start, stop = model.starts[octant], model.stops[octant]
        corners = np.tile(start.astype(float), (8, 1))
        # On the outermost faces half a voxel less, so that no slider is stretched.
        low = np.maximum(start - 0.5, 0)[spatial]
        high = np.minimum(stop - 0.5, np.array(model.sides) - 1)[spatial]
        corners[:, spatial] = low + _CUBE * (high - low)
        vertices.append(corners)
        faces.append(_TRIANGLES + 8 * box)
        values.append(np.full(8, model.values["psnr"][octant]))
        edges += [(corners[i], corners[j] - corners[i]) for i, j in _EDGES]
    psnr = np.nan_to_num(np.concatenate(values), posinf=0.0)
    surface = Surface(
        (np.concatenate(vertices), np.concatenate(faces), psnr),
        contrast_limits=(psnr.min(), psnr.max() if psnr.max() > psnr.min() else psnr.min() + 1.0),
        colormap=Colormap(BAD_TO_GOOD[:3], name="worst octants"),
        opacity=0.3,
        shading="none",
        blending="translucent_no_depth",
        visible=False,
        **_look_of(model, f"worst octants ({count})"),
    )
    lines = Vectors(np.array(edges), visible=False, **_look_of(model, "worst octants' edges"), **_line_style(model))
    return surface, lines


def _line_style(model: OctantModel) -> dict[str, Any]:
    width = max(model.sides) / 200
    return {"edge_color": _OUTLINE, "edge_width": width, "vector_style": "line", "opacity": 0.6}


def _look_of(model: OctantModel, title: str) -> dict[str, Any]:
    """Place a layer whose coordinates are the result's voxels."""
    layer = model.layer
    return {"name": f"{title}: {layer.name}", "metadata": {"tinc_derived": True}, **place_of(layer)}


def _on_grid(model: OctantModel, title: str) -> dict[str, Any]:
    """Place a layer with one voxel per octant."""
    return coarser(_look_of(model, title), model.cell_size())


__all__ = [
    "BAD_TO_GOOD",
    "HEAT_OPACITY",
    "QualityOverlay",
    "heat_map",
    "hide_quality",
    "numbers",
    "show_quality",
    "shown_measure",
    "toggle_quality",
    "worst_boxes",
]

"""The octants of a result layer: their numbers, where they lie, and how to get there. Needs no window."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from napari.components import ViewerModel

from napari_tinc.plugin.layers import items_of, result_volume

Floats = npt.NDArray[np.float64]

# What is known about every octant: attribute of napari_tinc.volume.Octant, title.
MEASURES = {"psnr": "PSNR (dB)", "nbytes": "bytes", "max_error": "max. error", "dice": "Dice"}


@dataclass(frozen=True, eq=False)
class OctantModel:
    """Octants of a result layer, in item and node order.

    Parameters
    ----------
    layer : Image
        A result layer, see :func:`napari_tinc.plugin.layers.add_result`.
    """

    layer: Any

    @cached_property
    def axes(self) -> str:
        """Axes of the layer."""
        return str(result_volume(self.layer).metadata.axes.replace("c", ""))

    @cached_property
    def sides(self) -> tuple[int, ...]:
        """Voxels of every axis."""
        volume = result_volume(self.layer)
        pairs = zip(volume.metadata.axes, volume.shape, strict=True)
        return tuple(side for axis, side in pairs if axis != "c")

    @cached_property
    def edges(self) -> dict[int, npt.NDArray[np.int64]]:
        """Cuts between octants, both ends included, by spatial axis of the layer."""
        tree = result_volume(self.layer).tree
        spatial = [i for i, axis in enumerate(self.axes) if axis != "t"]
        return dict(zip(spatial, tree.edges(tree.depth), strict=True))

    @cached_property
    def values(self) -> dict[str, Floats]:
        """Every measure of all octants that the layer shows."""
        volume = result_volume(self.layer)
        leaves, octants = volume.tree.leaves, volume.octants
        shown = [
            i
            for item in items_of(volume, self.layer.metadata["tinc_channel"])
            for i in range(item * leaves, (item + 1) * leaves)
        ]
        return {name: np.array([getattr(octants[i], name) for i in shown]) for name in MEASURES}

    @cached_property
    def starts(self) -> npt.NDArray[np.int64]:
        """First voxel of every octant, shape (octants, axes of the layer)."""
        return self._corners[0]

    @cached_property
    def stops(self) -> npt.NDArray[np.int64]:
        """Voxel after the last one of every octant, shape (octants, axes of the layer)."""
        return self._corners[1]

    def grid(self, name: str) -> Floats:
        """Lay a measure out on the octant grid, axes as in the layer."""
        volume = result_volume(self.layer)
        cells = volume.tree.leaf_of_cell
        by_time = self.values[name].reshape(-1, volume.tree.leaves)[:, cells]
        return np.moveaxis(by_time, 0, self.axes.index("t")) if "t" in self.axes else by_time[0]

    @cached_property
    def numbers(self) -> npt.NDArray[np.int64]:
        """Lay the octants' numbers out on the octant grid, counted from 1 as labels are."""
        volume = result_volume(self.layer)
        times = len(self.starts) // volume.tree.leaves
        offsets = np.arange(times) * volume.tree.leaves
        by_time = 1 + offsets.reshape(-1, *(1,) * volume.tree.leaf_of_cell.ndim) + volume.tree.leaf_of_cell
        return np.moveaxis(by_time, 0, self.axes.index("t")) if "t" in self.axes else by_time[0]

    def grid_place(self) -> tuple[Floats, Floats]:
        """Size of a cell of the octant grid, and centre of the first one, in voxels."""
        counts = np.array([len(self.edges[i]) - 1 if i in self.edges else n for i, n in enumerate(self.sides)])
        size = np.array(self.sides) / counts
        return size, (size - 1) / 2

    def worst(self, count: int) -> list[int]:
        """Octants of the lowest PSNR, the worst first."""
        return [int(i) for i in np.argsort(self.values["psnr"], kind="stable")[:count]]

    @cached_property
    def _corners(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        volume = result_volume(self.layer)
        boxes = volume.tree.boxes(volume.tree.depth)
        starts, stops = [], []
        for time in range(self.sides[self.axes.index("t")] if "t" in self.axes else 1):
            for box in boxes:
                spatial = iter(box)
                spans = [slice(time, time + 1) if axis == "t" else next(spatial) for axis in self.axes]
                starts.append([span.start for span in spans])
                stops.append([span.stop for span in spans])
        return np.array(starts), np.array(stops)


def go_to_octant(viewer: ViewerModel, model: OctantModel, octant: int) -> None:
    """Move the sliders and the camera to the middle of an octant, and zoom so that it fills a third of the view."""
    start, stop = model.starts[octant], model.stops[octant]
    low, high = (np.array(model.layer.data_to_world(corner)) for corner in (start, stop - 1))
    middle = np.array(model.layer.data_to_world((start + stop - 1) // 2))
    first = viewer.dims.ndim - len(middle)
    for axis in viewer.dims.not_displayed:
        if axis >= first:
            viewer.dims.set_point(axis, float(middle[axis - first]))
    shown = [axis - first for axis in viewer.dims.displayed if axis >= first]
    centre = [float((low[axis] + high[axis]) / 2) for axis in shown]
    viewer.scene.camera.center = (0.0,) * (3 - len(centre)) + tuple(centre)
    extent = max(float(abs(high[axis] - low[axis])) for axis in shown) or float(model.layer.scale[-1])
    viewer.scene.camera.zoom = min(viewer.canvas.size) / (3 * extent)


__all__ = ["MEASURES", "OctantModel", "go_to_octant"]

"""The octants of a result layer: their numbers, where they lie, and how to get there. Needs no window."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from napari.components import ViewerModel

from napari_tinc.arrays.metadata import LEADING
from napari_tinc.plugin.layers.results import result_volume

Floats = npt.NDArray[np.float64]

# What is known about every octant: attribute of napari_tinc.volume.Octant, title.
MEASURES = {"psnr": "PSNR (dB)", "nbytes": "bytes", "max_error": "max. error", "dice": "Dice"}


# Cells that a chunk may have along an axis, as many as end exactly with the volume if they are not too many; and that
# all of them may have.
_PARTS, _MOST_CELLS = (1024, 64, 16, 8, 4, 2, 1), 2**22


@dataclass(frozen=True, eq=False)
class OctantModel:
    """Octants of a result layer, in item and node order.

    Parameters
    ----------
    layer : Image
        A result layer, see :func:`napari_tinc.plugin.layers.results.add_result`.
    """

    layer: Any

    @cached_property
    def axes(self) -> str:
        """Axes of the layer, which are the volume's."""
        return str(result_volume(self.layer).metadata.axes)

    @cached_property
    def sides(self) -> tuple[int, ...]:
        """Voxels of every axis."""
        return tuple(result_volume(self.layer).shape)

    @cached_property
    def edges(self) -> dict[int, npt.NDArray[np.int64]]:
        """Cuts between octants, both ends included, by spatial axis of the layer."""
        tree = result_volume(self.layer).tree
        spatial = [i for i, axis in enumerate(self.axes) if axis not in LEADING]
        return dict(zip(spatial, tree.edges(tree.depth), strict=True))

    @cached_property
    def parts(self) -> npt.NDArray[np.int64]:
        """Where those parts of the volume lie that have a network of their own, shape (parts, spatial axes, 2)."""
        boxes = result_volume(self.layer).parts
        ends = [[(side.start, side.stop) for side in box] for box in boxes]
        return np.array(ends, np.int64).reshape(len(boxes), len(self.edges), 2)

    @cached_property
    def values(self) -> dict[str, Floats]:
        """Every measure of all octants."""
        octants = result_volume(self.layer).octants
        return {name: np.array([getattr(octant, name) for octant in octants]) for name in MEASURES}

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
        by_item = self.values[name].reshape(*volume.leading_shape, volume.tree.leaves)
        return self._in_axes_of_layer(by_item[..., volume.tree.leaf_of_cell])

    @cached_property
    def numbers(self) -> npt.NDArray[np.int64]:
        """Lay the octants' numbers out on the octant grid, counted from 1 as labels are."""
        volume = result_volume(self.layer)
        octants = np.arange(1, len(volume.octants) + 1).reshape(*volume.leading_shape, volume.tree.leaves)
        return self._in_axes_of_layer(octants[..., volume.tree.leaf_of_cell])

    def _in_axes_of_layer(self, grid: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Reorder the axes of a grid: time and channel come first in it, in the layer they may be anywhere."""
        order = sorted(self.axes, key=lambda axis: axis not in LEADING)
        arranged = grid.transpose([order.index(axis) for axis in self.axes])
        for axis, (_, times) in self._cells.items():
            arranged = np.repeat(arranged, times, axis)
        return arranged

    def cell_size(self) -> Floats:
        """Voxels of a cell of the octant grid along every axis; 1 along channels and time."""
        return np.array([self._cells[i][0] if i in self._cells else 1.0 for i in range(len(self.sides))])

    @cached_property
    def _cells(self) -> dict[int, tuple[float, npt.NDArray[np.int64]]]:
        """Voxels of a cell along every spatial axis, and how many cells each octant has.

        One each where octants are equal but for a voxel. The last chunk of an array may be much shorter than the
        others: then every chunk has several cells, so that its edges are where they should be.
        """
        for parts in _PARTS:
            cells = {axis: _cells_of(edges, parts) for axis, edges in self.edges.items()}
            if math.prod(int(times.sum()) for _, times in cells.values()) <= _MOST_CELLS:
                break
        return cells

    def worst(self, count: int) -> list[int]:
        """Octants of the lowest PSNR, the worst first."""
        return [int(i) for i in np.argsort(self.values["psnr"], kind="stable")[:count]]

    @cached_property
    def _corners(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        volume = result_volume(self.layer)
        cell_of_leaf = np.argsort(volume.tree.leaf_of_cell, axis=None)
        cells = zip(self.edges.values(), np.unravel_index(cell_of_leaf, volume.tree.leaf_of_cell.shape), strict=True)
        spatial = np.stack([np.stack([edges[cell], edges[cell + 1]], axis=-1) for edges, cell in cells], axis=1)
        count = len(volume.value_ranges)
        items = np.array(list(np.ndindex(volume.leading_shape)), np.int64).reshape(count, len(self._leading))
        ends = np.empty((len(items), len(spatial), len(self.axes), 2), np.int64)
        ends[:, :, self._leading] = np.stack([items, items + 1], axis=-1)[:, None]
        ends[:, :, sorted(self.edges)] = spatial[None]
        return ends[..., 0].reshape(-1, len(self.axes)), ends[..., 1].reshape(-1, len(self.axes))

    @property
    def _leading(self) -> list[int]:
        return [i for i, axis in enumerate(self.axes) if axis in LEADING]


def _cells_of(edges: npt.NDArray[np.int64], parts: int) -> tuple[float, npt.NDArray[np.int64]]:
    """Voxels of a cell of one axis, and the number of cells of every octant; at most so many."""
    widths = np.diff(edges)
    if widths.max() - widths.min() <= 1:
        return float(edges[-1] / len(widths)), np.ones(len(widths), np.int64)
    cell = max(math.gcd(int(widths[0]), int(edges[-1])), -(-int(widths[0]) // parts))
    return float(cell), -(-widths // cell)


def go_to_octant(viewer: ViewerModel, model: OctantModel, octant: int, voxel: tuple[int, ...] | None = None) -> None:
    """Move sliders and camera to an octant, and zoom so that it fills a third of the view.

    Parameters
    ----------
    viewer : ViewerModel
    model : OctantModel
    octant : int
    voxel : tuple of int, optional
        Where in it; by default its middle.
    """
    start, stop = model.starts[octant], model.stops[octant]
    low, high = (np.array(model.layer.data_to_world(corner)) for corner in (start, stop - 1))
    middle = np.array(model.layer.data_to_world((start + stop - 1) // 2 if voxel is None else voxel))
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

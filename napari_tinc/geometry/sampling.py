"""Which leaves, at which local coordinates, make up a region of the volume at any scale.

Positions on every axis are grouped into *runs*: leaves that are sampled at the very same local coordinates. One run
per axis gives one batch for the network, so that a region costs its own voxels and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_tinc.geometry.octree import Octree, local_coordinate

Ints = npt.NDArray[np.int64]
Floats32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Run:
    """Leaves of one axis that are sampled at the same local coordinates.

    Parameters
    ----------
    cells : ndarray of int, shape (leaves,)
        Positions on the leaf grid.
    local : ndarray of float32, shape (samples,)
        Local coordinates.
    targets : ndarray of int, shape (leaves, samples)
        Where the samples go, counted from the region's start.
    """

    cells: Ints
    local: Floats32
    targets: Ints


def scaled_side(side: int, scale: float) -> int:
    """Samples of an axis of ``side`` voxels at ``scale``: as many as cover it, at least one."""
    return max(1, math.ceil(side * scale - 1e-9))


def sample_positions(start: int, stop: int, scale: float, side: int) -> npt.NDArray[np.float64]:
    """Positions, in voxels, of the samples ``start … stop - 1`` of an axis of ``side`` voxels.

    Sample ``j`` covers the original from ``j / scale`` to ``(j + 1) / scale``, cut off at the volume's end, and sits
    in the middle of that; voxel ``v`` covers ``v`` to ``v + 1`` and sits at ``v``.
    """
    index = np.arange(start, stop)
    return (index / scale + np.minimum((index + 1) / scale, side)) / 2 - 0.5


def axis_runs(tree: Octree, axis: int, start: int, stop: int, scale: float) -> list[Run]:
    """Group the samples ``start … stop - 1`` of an axis at ``scale`` into runs.

    Where they sit: :func:`sample_positions`.
    """
    edges, side = tree.edges(tree.depth)[axis], tree.shape[axis]
    position = sample_positions(start, stop, scale, side)
    voxel = np.clip(np.floor(position + 0.5), 0, side - 1)
    cell = np.searchsorted(edges, voxel, side="right") - 1
    local = local_coordinate(position - edges[cell], tree.leaf_shape[axis])
    bounds = np.flatnonzero(np.diff(cell)) + 1
    firsts = np.concatenate([[0], bounds]).astype(np.int64)
    lasts = np.concatenate([bounds, [len(cell)]])
    members: dict[bytes, list[int]] = {}
    for i, (first, last) in enumerate(zip(firsts.tolist(), lasts.tolist(), strict=True)):
        members.setdefault(local[first:last].tobytes(), []).append(i)
    runs = []
    for same in members.values():
        origin = firsts[same]
        count = int(lasts[same[0]] - origin[0])
        runs.append(Run(cell[origin], local[origin[0] : origin[0] + count], origin[:, None] + np.arange(count)))
    return runs


def sample_region(
    tree: Octree,
    bounds: tuple[tuple[int, int], ...],
    scale: float,
    evaluate: Callable[[Ints, Floats32], Iterator[tuple[slice | Ints, slice, npt.NDArray[Any]]]],
    out: npt.NDArray[Any],
) -> None:
    """Fill a region of one spatial volume.

    Parameters
    ----------
    tree : Octree
    bounds : tuple of (int, int)
        Start and stop of every spatial axis, in samples at ``scale``.
    scale : float
        Samples per voxel.
    evaluate : callable
        Called with leaf numbers (leaves,) and coordinates (axes, points); yields blocks as (which leaves, slice
        of the points, values of shape (leaves, points)).
    out : ndarray, C-contiguous, shape of the region
        Receives the values.
    """
    runs = [axis_runs(tree, axis, start, stop, scale) for axis, (start, stop) in enumerate(bounds)]
    flat = out.reshape(-1)
    for combination in product(*runs):
        cells = tree.leaf_of_cell[np.ix_(*(run.cells for run in combination))].ravel()
        order = np.argsort(cells)
        grid = np.meshgrid(*(run.local for run in combination), indexing="ij")
        coordinates = np.stack([axis.ravel() for axis in grid])
        firsts, offsets = _flat_targets(combination, out.shape)
        firsts = firsts[order]
        for leaves, points, values in evaluate(cells[order], coordinates):
            flat[firsts[leaves, None] + offsets[None, points]] = values


def leaves_of_region(tree: Octree, bounds: tuple[tuple[int, int], ...], scale: float) -> Ints:
    """Numbers of the leaves that :func:`sample_region` evaluates, ascending."""
    runs = [axis_runs(tree, axis, start, stop, scale) for axis, (start, stop) in enumerate(bounds)]
    cells = [np.unique(np.concatenate([run.cells for run in of_axis])) for of_axis in runs]
    return np.sort(tree.leaf_of_cell[np.ix_(*cells)].ravel())


def nearest_voxels(bounds: Sequence[tuple[int, int]], scale: float, shape: Sequence[int]) -> list[npt.NDArray[np.intp]]:
    """Return the voxels that are the nearest to the samples of a region, along every axis.

    Parameters
    ----------
    bounds : tuple of (int, int)
        Start and stop of every axis, in samples at ``scale``.
    scale : float
        Samples per voxel.
    shape : sequence of int
        Voxels along every axis.
    """
    return [
        np.clip(np.rint(sample_positions(start, stop, scale, side)), 0, side - 1).astype(np.intp)
        for (start, stop), side in zip(bounds, shape, strict=True)
    ]


def neighbours(grids: Sequence[npt.NDArray[np.float64]], shape: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """Bounds of the samples between which ascending positions lie, which are inside a volume of this shape."""
    return tuple((int(grid[0]), min(int(grid[-1]) + 2, side)) for grid, side in zip(grids, shape, strict=True))


def interpolate(
    values: Floats32, bounds: tuple[tuple[int, int], ...], grids: Sequence[npt.NDArray[np.float64]]
) -> Floats32:
    """Evaluate samples linearly on a grid of positions; ``bounds`` say which samples ``values`` are."""
    for axis, (grid, (start, stop)) in enumerate(zip(grids, bounds, strict=True)):
        low = np.floor(grid).astype(np.int64)
        share = (grid - low).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(len(bounds))])
        if low.size and not share.any() and (np.diff(low) == 1).all():  # samples themselves, one after the other
            values = values[(slice(None),) * axis + (slice(low[0] - start, low[-1] + 1 - start),)]
            continue
        first = np.take(values, low - start, axis)
        values = first + share * (np.take(values, np.minimum(low + 1, stop - 1) - start, axis) - first)
    return values


def _flat_targets(combination: tuple[Run, ...], shape: tuple[int, ...]) -> tuple[Ints, Ints]:
    """Flat index of every leaf's first sample, and of every sample from there."""
    strides = [int(np.prod(shape[axis + 1 :], dtype=np.int64)) for axis in range(len(shape))]
    first, offset = np.zeros((), dtype=np.int64), np.zeros((), dtype=np.int64)
    for run, stride in zip(combination, strides, strict=True):
        first = np.add.outer(first, run.targets[:, 0] * stride)
        offset = np.add.outer(offset, (run.targets[0] - run.targets[0, 0]) * stride)
    return first.ravel(), offset.ravel()

"""The partition of a spatial volume: a full octree whose levels split some or all axes in two.

Nodes of a level are numbered depth first, so that the children of node ``n`` are ``c * n … c * n + c - 1``
(``c`` = 8, 4 or 2): a level's activations become its children's inputs by a view, without a gather.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_tinc.errors import InputError
from napari_tinc.settings import Settings
from napari_tinc.system.forks import with_fresh_locks

Splits = tuple[tuple[bool, ...], ...]
Box = tuple[slice, ...]

# A leaf side below this many voxels holds too little to learn from and costs more parameters than voxels.
MIN_LEAF_SIDE = 4


@with_fresh_locks
@dataclass(frozen=True)
class Octree:
    """A full tree over a box of voxels.

    Every axis is cut at ``floor(i * N / 2**k)``: the pieces differ by at most one voxel, none is empty, and the
    cuts of a level are among the cuts of the next. All leaves share one padded shape; what a leaf lacks to that
    shape (at most one plane an axis) is padding and belongs to nobody.

    Parameters
    ----------
    shape : tuple of int
        Spatial shape in voxels, 2 or 3 axes, any size from 1.
    splits : tuple of tuple of bool
        One entry per level below the root: which axes that level splits.

    Raises
    ------
    ValueError
        If an axis is split into more pieces than it has voxels.
    """

    shape: tuple[int, ...]
    splits: Splits = ()

    def __post_init__(self) -> None:
        for side, count in zip(self.shape, self.counts(self.depth), strict=True):
            if count > side:
                raise ValueError(f"expected at least {count} voxels on an axis split in {count}, got {side}")

    @property
    def depth(self) -> int:
        """Level of the leaves; the root is level 0."""
        return len(self.splits)

    def counts(self, level: int) -> tuple[int, ...]:
        """Nodes per axis at ``level``."""
        cuts = self.splits[:level]
        return tuple(2 ** sum(split[axis] for split in cuts) for axis in range(len(self.shape)))

    def nodes(self, level: int) -> int:
        """Nodes at ``level``."""
        return int(np.prod(self.counts(level), dtype=np.int64))

    def children(self, level: int) -> int:
        """Children of every node at ``level``: 8, 4 or 2."""
        return int(2 ** sum(self.splits[level]))

    @property
    def leaves(self) -> int:
        """Number of leaves."""
        return self.nodes(self.depth)

    def edges(self, level: int) -> tuple[npt.NDArray[np.int64], ...]:
        """Cuts of every axis at ``level``, both ends included, in voxels."""
        return tuple(
            np.arange(count + 1, dtype=np.int64) * side // count
            for side, count in zip(self.shape, self.counts(level), strict=True)
        )

    @cached_property
    def leaf_shape(self) -> tuple[int, ...]:
        """Padded shape of every leaf in voxels."""
        return tuple(int(np.diff(edge).max()) for edge in self.edges(self.depth))

    def grid_index(self, level: int) -> npt.NDArray[np.int64]:
        """Position of every node of ``level`` on the level's grid, in node order; shape (nodes, axes)."""
        index = np.zeros((1, len(self.shape)), dtype=np.int64)
        for split in self.splits[:level]:
            step = np.array(split, dtype=np.int64)
            offsets = np.array(list(product(*(range(2 if s else 1) for s in split))), dtype=np.int64)
            index = ((index * (1 + step))[:, None, :] + offsets[None]).reshape(-1, len(self.shape))
        return index

    @cached_property
    def leaf_of_cell(self) -> npt.NDArray[np.int64]:
        """Leaf number at every cell of the leaf grid; shape ``counts(depth)``."""
        table = np.empty(self.counts(self.depth), dtype=np.int64)
        table[tuple(self.grid_index(self.depth).T)] = np.arange(self.leaves)
        return table

    def boxes(self, level: int) -> list[Box]:
        """Box of every node of ``level`` in voxels, in node order."""
        edges = self.edges(level)
        return [
            tuple(slice(int(edge[i]), int(edge[i + 1])) for edge, i in zip(edges, cell, strict=True))
            for cell in self.grid_index(level)
        ]

    def to_leaves(self, volume: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Cut a spatial volume into its leaves.

        Parameters
        ----------
        volume : ndarray, shape ``shape``

        Returns
        -------
        ndarray, shape (leaves, voxels of ``leaf_shape``)
            Padding repeats the leaf's last plane; see :meth:`valid`.
        """
        for axis, edge in enumerate(self.edges(self.depth)):
            local = np.arange(self.leaf_shape[axis])
            index = np.minimum(edge[:-1, None] + local[None], edge[1:, None] - 1)
            volume = np.take(volume, index.ravel(), axis=axis)
        return self._gather(volume)

    def valid(self) -> npt.NDArray[np.bool_] | None:
        """Which voxels of :meth:`to_leaves` are not padding, or ``None`` if none is."""
        sizes = [np.diff(edge) for edge in self.edges(self.depth)]
        if all((size == side).all() for size, side in zip(sizes, self.leaf_shape, strict=True)):
            return None
        mask = np.ones((1,) * len(self.shape), dtype=bool)
        for axis, (size, side) in enumerate(zip(sizes, self.leaf_shape, strict=True)):
            inside = (np.arange(side)[None] < size[:, None]).ravel()
            mask = mask & inside.reshape([-1 if a == axis else 1 for a in range(len(self.shape))])
        return self._gather(mask)

    def _gather(self, padded: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Reorder a padded volume, leaf grid times leaf shape, to (leaves, voxels)."""
        counts, ndim = self.counts(self.depth), len(self.shape)
        split = padded.reshape([n for pair in zip(counts, self.leaf_shape, strict=True) for n in pair])
        cells: npt.NDArray[Any] = split.transpose([2 * a for a in range(ndim)] + [2 * a + 1 for a in range(ndim)])
        leaves: npt.NDArray[Any] = cells[tuple(self.grid_index(self.depth).T)].reshape(self.leaves, -1)
        return leaves

    def local_axes(self) -> tuple[npt.NDArray[np.float32], ...]:
        """Local coordinate of every plane of a leaf, axis by axis, in [-1, 1] (0 for a single plane)."""
        return tuple(local_coordinate(np.arange(side), side) for side in self.leaf_shape)


def local_coordinate(position: npt.NDArray[Any], side: int) -> npt.NDArray[np.float32]:
    """Map positions in voxels from a leaf's first plane to the coordinates every leaf shares.

    Parameters
    ----------
    position : ndarray
        Voxels from the leaf's first plane; fractions and half a voxel beyond the ends are allowed.
    side : int
        Padded side of the leaf in voxels; its first and last planes are at -1 and 1.
    """
    if side == 1:
        return np.zeros(position.shape, dtype=np.float32) + (2 * position).astype(np.float32)
    return (2.0 * position / (side - 1) - 1.0).astype(np.float32)


def choose_splits(shape: tuple[int, ...], depth: int) -> Splits:
    """Split the long axes first, so that leaves come out as near to cubes as the shape allows.

    An axis is split at a level if it is at least ``1/sqrt(2)`` of the longest one and its halves keep
    :data:`MIN_LEAF_SIDE` voxels. Fewer levels than asked for come back when nothing is left to split.

    Parameters
    ----------
    shape : tuple of int
        Spatial shape in voxels.
    depth : int
        Levels below the root that are wanted.
    """
    sides = np.array(shape, dtype=np.float64)
    splits: list[tuple[bool, ...]] = []
    for _ in range(depth):
        wide = (sides >= sides.max() / np.sqrt(2)) & (sides >= 2 * MIN_LEAF_SIDE)
        if not wide.any():
            break
        splits.append(tuple(bool(w) for w in wide))
        sides = np.where(wide, sides / 2, sides)
    return tuple(splits)


def asked_splits(spatial: tuple[int, ...], settings: Settings, depth: int) -> Splits:
    """Split a volume; a depth that the user asked for must be possible.

    Raises
    ------
    InputError
        If it is not.
    """
    splits = choose_splits(spatial, depth)
    asked = settings.levels is not None or not isinstance(settings.between, str)
    if len(splits) < depth and asked:
        raise InputError(f"expected at most {len(splits) + 1} levels for a volume of {spatial}, got {depth + 1}")
    return splits

"""The directional layer of one item, decoded tile by tile."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from napari_tinc.arrays.scratch import boxes
from napari_tinc.directional.coder import decode_tile, fresh
from napari_tinc.directional.layout import Layout
from napari_tinc.directional.prediction import Rules, rebuild
from napari_tinc.geometry.octree import Octree
from napari_tinc.geometry.pyramid import Block, BlockCache, Bounds, Cell, overlap, slices_of, tile_bytes
from napari_tinc.geometry.sampling import interpolate, neighbours, sample_positions
from napari_tinc.limits import LIMITS
from napari_tinc.mixing import Statistics
from napari_tinc.quantiser import step_of
from napari_tinc.system.threads import block_threads

Floats32 = npt.NDArray[np.float32]
Grids = list[npt.NDArray[np.float64]]
_FIRST: Cell = (0, 0, 0)


@dataclass(frozen=True, eq=False)
class CodedDirections:
    """The coded directional layer of one spatial volume.

    Parameters
    ----------
    layout : Layout
    rules : Rules
        How blocks are predicted and corrected.
    step_code : int
        See :func:`napari_tinc.quantiser.step_of`.
    offsets : tuple of int
        By how many 256ths of a step symbols of magnitude 1, and larger ones, are decoded nearer to zero.
    streams : tuple of bytes
        One per tile; empty where the tile is 0 everywhere.
    """

    layout: Layout
    rules: Rules
    step_code: int
    offsets: tuple[int, int]
    streams: tuple[bytes, ...]


class DirectionalLayer:
    """The directional layer of one item, decoded region by region.

    Parameters
    ----------
    coded : CodedDirections
    cache : BlockCache
        Where decoded tiles are kept; layers may share it.
    nbytes : int
        Size of its segment in a frame, to be shared out by :meth:`leaf_bytes`.
    """

    has_threads = False

    def __init__(self, coded: CodedDirections, cache: BlockCache, nbytes: int = 0) -> None:
        self._coded, self._layout, self._cache, self._nbytes = coded, coded.layout, cache, nbytes

    def values(self, bounds: Bounds, scale: float) -> Floats32:
        """Evaluate a region, see :class:`napari_tinc.layers.Layer`.

        Samples coarser than voxels are means of boxes of voxels, whose sides are powers of two.
        """
        side, grids = self._grids(bounds, scale)
        near = neighbours(grids, tuple(-(-n // side) for n in self._layout.shape))
        values = self._region(near) if side == 1 else self._means(near, side)
        return interpolate(values, near, grids).reshape([b - a for a, b in bounds])

    def region_bytes(self, bounds: Bounds, scale: float) -> int:
        """Bytes of the tiles that a region needs, of the first one and of the head."""
        streams, layout = self._coded.streams, self._layout
        side, grids = self._grids(bounds, scale)
        near = neighbours(grids, tuple(-(-n // side) for n in layout.shape))
        needed = {_FIRST, *layout.meeting(self._voxels(near, side))}
        head = self._nbytes - sum(map(len, streams))
        return head + sum(len(streams[layout.number(cell)]) for cell in needed)

    def leaf_bytes(self, tree: Octree) -> npt.NDArray[np.float64]:
        """Bytes of the segment spent on every leaf; those of a tile are spread evenly over its voxels."""
        lengths = np.array([len(stream) for stream in self._coded.streams], np.float64).reshape(self._layout.grid)
        return tile_bytes(lengths, self._layout.tile_sides, self._layout.shape, self._nbytes, tree)

    def _grids(self, bounds: Bounds, scale: float) -> tuple[int, Grids]:
        """Side of the boxes that are averaged for a scale, and the positions of its samples among them."""
        shape = self._layout.shape
        side = 2 ** max(0, math.floor(-math.log2(scale) + 1e-9))
        positions = [np.zeros(1)] * (3 - len(bounds))
        for (a, b), n in zip(bounds, shape[3 - len(bounds) :], strict=True):
            positions.append(sample_positions(a, b, scale, n))
        grids = [
            np.clip((p - (min(side, n) - 1) / 2) / side, 0, -(-n // side) - 1)
            for p, n in zip(positions, shape, strict=True)
        ]
        return side, grids

    def _voxels(self, bounds: Bounds, side: int) -> Bounds:
        """Voxels of boxes of some side."""
        return tuple((a * side, min(b * side, n)) for (a, b), n in zip(bounds, self._layout.shape, strict=True))

    def _means(self, bounds: Bounds, side: int) -> Floats32:
        """Return means of boxes of voxels, never with more voxels in memory than fit."""
        out = np.empty([b - a for a, b in bounds], np.float32)
        shape = self._layout.shape
        per_box = math.prod(min(side, n) for n in shape)
        for box in boxes(bounds, max(1, LIMITS.voxels // per_box)):
            values = self._region(self._voxels(box, side))
            for axis in range(3):
                starts = np.arange(0, values.shape[axis], side)
                counts = np.diff([*starts, values.shape[axis]]).astype(np.float32)
                values = np.add.reduceat(values, starts, axis)
                values /= counts.reshape([-1 if a == axis else 1 for a in range(3)])
            out[overlap(slices_of(box), bounds)] = values
        return out

    def _region(self, bounds: Bounds) -> Floats32:
        """Return a region of voxels."""
        out = np.zeros([b - a for a, b in bounds], np.float32)
        cells = [cell for cell in self._layout.meeting(bounds) if self._coded.streams[self._layout.number(cell)]]
        others = [(self, cell) for cell in cells if cell != _FIRST]
        # First the one that the others start from, where it is asked for, lest its stream be read twice.
        tiles = self._cache.decoded([(self, _FIRST)] * (len(others) < len(cells)), partial(self._decode_all, fresh))
        tiles |= self._cache.decoded(others, partial(self._decode_all, self._learnt))
        for (_, cell), (values, _) in tiles.items():
            assert values is not None
            box = self._layout.box(cell)
            out[overlap(slices_of(box), bounds)] = values[overlap(slices_of(bounds), box)]
        return out

    def _decode_all(
        self, start: Callable[[], Statistics], keys: list[tuple[DirectionalLayer, Cell]]
    ) -> Iterator[Block]:
        """Decode tiles side by side, all with what was learnt before."""
        return block_threads().map(partial(self._decode, start()), keys)

    def _decode(self, start: Statistics, key: tuple[DirectionalLayer, Cell]) -> Block:
        coded, layout, cell, statistics = self._coded, self._layout, key[1], start.copy()
        tile = decode_tile(coded.streams[layout.number(cell)], layout, cell, coded.rules, statistics)
        decoded = rebuild(tile, layout, layout.extent(cell), coded.rules, *meanings(coded.step_code, coded.offsets))
        return decoded, statistics if cell == _FIRST else None

    def _learnt(self) -> Statistics:
        """Return what was learnt from the first tile, with which the others start."""
        known = self._cache.get((self, _FIRST))
        if known is None:
            key = self, "learnt"
            known = self._cache.decoded([key], lambda _: [(None, self._read_first())])[key]
        statistics: Statistics = known[1]
        return statistics

    def _read_first(self) -> Statistics:
        statistics = fresh()
        if self._coded.streams[0]:
            decode_tile(self._coded.streams[0], self._layout, _FIRST, self._coded.rules, statistics)
        return statistics


def meanings(step_code: int, offsets: tuple[int, int]) -> tuple[float, float, float]:
    """Step, what symbols of magnitude 1 stand for, and by how much larger ones are nearer to zero."""
    step = step_of(step_code)
    return step, (1 - offsets[0] / 256) * step, offsets[1] / 256 * step


__all__ = ["CodedDirections", "DirectionalLayer", "meanings"]

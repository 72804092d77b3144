"""A finished array as viewers need it: like a compressed volume, with chunks for octants."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_tinc.arrays.axes import items_first, spatial_shape
from napari_tinc.arrays.metadata import LEADING, Metadata
from napari_tinc.chunks.manifest import Manifest, read_manifest
from napari_tinc.decoding import resolve_region, scaled_shape
from napari_tinc.errors import InputError
from napari_tinc.files.zarr import described
from napari_tinc.format.header import sizes_of
from napari_tinc.geometry.octree import Box
from napari_tinc.geometry.sampling import sample_positions
from napari_tinc.measures.metrics import psnr_from_mse
from napari_tinc.system.output import folder_size
from napari_tinc.volume import Octant, Region


@dataclass(frozen=True, eq=False)
class ChunkCells:
    """The chunks of an item, seen as the leaves of a tree of one level.

    Parameters
    ----------
    shape : tuple of int
        Spatial shape in voxels.
    chunk : tuple of int
        Spatial shape of a chunk.
    """

    shape: tuple[int, ...]
    chunk: tuple[int, ...]

    depth = 0

    def counts(self, level: int) -> tuple[int, ...]:
        """Chunks along every axis."""
        return tuple(-(-n // side) for n, side in zip(self.shape, self.chunk, strict=True))

    @property
    def leaves(self) -> int:
        """Number of chunks."""
        return math.prod(self.counts(0))

    @property
    def leaf_of_cell(self) -> npt.NDArray[np.int64]:
        """Numbers of the chunks on their grid: row-major."""
        return np.arange(self.leaves).reshape(self.counts(0))

    def edges(self, level: int) -> tuple[npt.NDArray[np.int64], ...]:
        """Cuts along every axis, both ends included."""
        pairs = zip(self.shape, self.chunk, strict=True)
        return tuple(np.array([*range(0, n, side), n], np.int64) for n, side in pairs)

    def boxes(self, level: int) -> list[Box]:
        """Voxels of every chunk."""
        return list(product(*([slice(*ends) for ends in pairwise(edges.tolist())] for edges in self.edges(0))))


@dataclass(frozen=True, eq=False)
class CompressedArray:
    """An OME-Zarr of ours: its voxels, and what its manifest knows.

    Parameters
    ----------
    path : Path
    manifest : Manifest
    levels : tuple of zarr.Array
        The finest first.
    metadata : Metadata
    nbytes : int
        Of all its files.
    """

    path: Path
    manifest: Manifest
    levels: tuple[Any, ...]
    metadata: Metadata
    nbytes: int

    has_wide_planes = True

    @classmethod
    def open(cls, path: Path) -> CompressedArray | None:
        """Open an array; None if it is another Zarr.

        Raises
        ------
        InputError
            It is unfinished.
        FormatError
            Its manifest is damaged.
        """
        manifest = read_manifest(path)
        if manifest is None:
            return None
        levels, axes, said = described(path)
        steps = [said.steps.get(letter, (1.0, "")) for letter in axes]
        channels = levels[0].shape[axes.index("c")] if "c" in axes else 1
        names = said.channel_names if len(said.channel_names) == channels else ()
        sizes, units = tuple(step for step, _ in steps), tuple(unit for _, unit in steps)
        metadata = Metadata(axes, sizes, units, names, said.name, said.display(axes, channels))
        nbytes = folder_size(path)
        return cls(path, manifest, tuple(levels), metadata, nbytes)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return tuple(self.levels[0].shape)

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """Dtype of the voxels."""
        dtype: np.dtype[np.generic] = np.dtype(self.levels[0].dtype)
        return dtype

    @property
    def leading_shape(self) -> tuple[int, ...]:
        """Sizes of the channel and time axes, in the array's order."""
        return sizes_of(self.metadata.axes, self.shape, LEADING)

    @property
    def spatial_shape(self) -> tuple[int, ...]:
        """Voxels along every spatial axis, in the array's order."""
        return spatial_shape(self.metadata.axes, self.shape)

    @property
    def raw_nbytes(self) -> int:
        """Bytes of the finest level's voxels."""
        return int(math.prod(self.shape) * self.dtype.itemsize)

    @property
    def ratio(self) -> float:
        """``raw_nbytes / nbytes``: all levels are counted in the bytes on the disk."""
        return self.raw_nbytes / self.nbytes

    @property
    def provenance(self) -> Mapping[str, Any]:
        """How it was made."""
        shown = ("software", "step", "max_error", "psnr", "dice", "largest_error", "chunks", "exact_chunks")
        return {key: self.manifest.facts[key] for key in shown if key in self.manifest.facts}

    @cached_property
    def tree(self) -> ChunkCells:
        """The chunks of an item."""
        return ChunkCells(self.spatial_shape, spatial_shape(self.metadata.axes, self.manifest.chunks[0]))

    def _by_item(self, numbers: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Arrange numbers of chunks, of the shape of their grid, as (items, chunks of an item)."""
        return items_first(numbers, self.metadata.axes).reshape(-1, self.tree.leaves)

    @cached_property
    def value_ranges(self) -> tuple[tuple[float, float], ...]:
        """Smallest and largest value of every item of the original."""
        low, high = (self._by_item(self.manifest.field(name)) for name in ("low", "high"))
        lows, highs = low.min(axis=1), high.max(axis=1)
        return tuple(zip(lows.tolist(), highs.tolist(), strict=True))

    @cached_property
    def octants(self) -> tuple[Octant, ...]:
        """All chunks of all items, with what is known of them."""
        boxes = self.tree.boxes(0)
        known = (self.manifest.mse(), *map(self.manifest.field, ("largest", "nbytes")), self.manifest.dice())
        numbers = list(map(self._by_item, known))
        octants = []
        for item, (low, high) in enumerate(self.value_ranges):
            mse, largest, nbytes, dice = (number[item] for number in numbers)
            psnr = np.asarray(psnr_from_mse(mse, high - low))
            rows = zip(boxes, *(number.tolist() for number in (psnr, largest, nbytes, dice)), strict=True)
            octants += [Octant(box, item, 0, *row) for box, *row in rows]
        return tuple(octants)

    @property
    def parts(self) -> tuple[Box, ...]:
        """None: it has no network of its own."""
        return ()

    def scaled_shape(self, scale: float) -> tuple[int, ...]:
        """Shape of the whole array at ``scale``; channels and time points keep their number."""
        return scaled_shape(self.shape, self.metadata.axes, scale)

    def decode(self, region: Region | None = None, scale: float = 1.0) -> npt.NDArray[np.generic]:
        """Decode a region, see :meth:`napari_tinc.volume.CompressedVolume.decode`.

        Below scale 1 samples are voxels of the coarsest level that is no coarser.
        """
        bounds, squeezed = resolve_region(region, self.scaled_shape(scale))
        level = self._level_for(scale)
        grids = []
        for axis, (start, stop) in enumerate(bounds):
            side, samples = self.shape[axis], level.shape[axis]
            if self.metadata.axes[axis] in LEADING:
                grids.append(np.arange(start, stop))
                continue
            factor = side / samples
            places = (sample_positions(start, stop, scale, side) - (factor - 1) / 2) / factor
            grids.append(np.clip(np.rint(places).astype(np.intp), 0, samples - 1))
        if not all(grid.size for grid in grids):
            decoded = np.empty(tuple(grid.size for grid in grids), self.dtype)
        else:
            first = [int(grid.min()) for grid in grids]
            box = tuple(slice(f, int(grid.max()) + 1) for f, grid in zip(first, grids, strict=True))
            decoded = np.asarray(level[box])[np.ix_(*(grid - f for grid, f in zip(grids, first, strict=True)))]
        return decoded.squeeze(squeezed) if squeezed else decoded

    def _level_for(self, scale: float) -> Any:
        """Return the coarsest level that has a voxel for every sample."""
        wanted = self.scaled_shape(min(scale, 1.0))
        fine = [level for level in self.levels if all(n >= w for n, w in zip(level.shape, wanted, strict=True))]
        return fine[-1] if fine else self.levels[0]

    def save(self, path: str | Path, overwrite: bool = False) -> None:
        """Refuse: it is many files, which are there already.

        Raises
        ------
        InputError
        """
        raise InputError(f"expected a compressed volume of one file, got an OME-Zarr; copy the folder {self.path}")


__all__ = ["ChunkCells", "CompressedArray"]

"""Volumes cut into blocks of voxels, from which networks are trained that see what is around a voxel.

A block is a sample: its voxels share the work of looking around. Many small ones are spread over the volume as voxels
drawn one by one are; planes are what others are evaluated by.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from napari_tinc.networks.leafwise import mean_psnr, normalised, psnr_offsets
from napari_tinc.networks.protocol import Batch, TrainingVolume

# Voxels along every axis of a block: as many in all for an image as for a volume.
_SIDE = {2: 8, 3: 4}


@dataclass(frozen=True)
class Blocks:
    """Blocks of equal shape that cover a volume; the last ones reach beyond its ends.

    Parameters
    ----------
    shape : tuple of int
        Of the volume.
    sides : tuple of int
        Of a block.
    """

    shape: tuple[int, ...]
    sides: tuple[int, ...]

    @classmethod
    def small(cls, shape: tuple[int, ...]) -> Blocks:
        """Cut into blocks of 64 voxels."""
        return cls(shape, (_SIDE[len(shape)],) * len(shape))

    @classmethod
    def planes(cls, shape: tuple[int, ...]) -> Blocks:
        """Cut along the first axis."""
        return cls(shape, (1, *shape[1:]))

    @classmethod
    def frames(cls, shape: tuple[int, ...]) -> Blocks:
        """Take the last two axes as images; of an image there is one."""
        return cls(shape, (*(1,) * (len(shape) - 2), *shape[-2:]))

    @property
    def voxels(self) -> int:
        """Voxels of a block."""
        return math.prod(self.sides)

    @cached_property
    def counts(self) -> tuple[int, ...]:
        """Blocks along every axis."""
        return tuple(-(-n // side) for n, side in zip(self.shape, self.sides, strict=True))

    @property
    def padded(self) -> tuple[int, ...]:
        """Shape of all blocks together."""
        return tuple(count * side for count, side in zip(self.counts, self.sides, strict=True))

    def cut(self, volume: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Cut a volume into (blocks, voxels of a block); what is beyond its ends repeats the last voxel."""
        axes = range(volume.ndim)
        beyond = [(0, padded - n) for n, padded in zip(self.shape, self.padded, strict=True)]
        pairs = [n for pair in zip(self.counts, self.sides, strict=True) for n in pair]
        padded = np.pad(volume, beyond, mode="edge").reshape(pairs)
        return padded.transpose([2 * a for a in axes] + [2 * a + 1 for a in axes]).reshape(-1, self.voxels)

    def inside(self) -> npt.NDArray[np.bool_]:
        """Which voxels of :meth:`cut` are the volume's own."""
        within = np.zeros(self.padded, dtype=bool)
        within[tuple(slice(0, n) for n in self.shape)] = True
        return Blocks(self.padded, self.sides).cut(within)


@dataclass
class BlockSamples:
    """Normalised blocks on the training device.

    Parameters
    ----------
    values : Tensor, shape (items, blocks, voxels)
        Normalised intensities.
    weights : Tensor of shape (items or 1, blocks, voxels), or None
        Weight of every voxel in the loss, 0 beyond the volume's ends, mean 1; ``None`` if all are 1.
    psnr_offsets : ndarray, shape (items,)
        See :func:`napari_tinc.networks.leafwise.psnr_offsets`.
    """

    values: Tensor
    weights: Tensor | None
    psnr_offsets: npt.NDArray[np.float64]

    @classmethod
    def of(cls, original: TrainingVolume, blocks: Blocks, device: torch.device) -> BlockSamples:
        """Cut the items of a volume."""
        pairs = zip(original.items, original.ranges, strict=True)
        values = np.stack([normalised(blocks.cut(item), limits) for item, limits in pairs])
        inside, weights = blocks.inside(), None
        if original.weights is not None or not inside.all():
            given = [np.ones(blocks.shape, np.float32)] if original.weights is None else list(original.weights)
            stacked = np.stack([blocks.cut(one) * inside for one in given])
            weights = torch.from_numpy((stacked / stacked.mean()).astype(np.float32)).to(device)
        return cls(torch.from_numpy(values).to(device), weights, psnr_offsets(original))

    @property
    def points(self) -> int:
        """Blocks."""
        return self.values.shape[1]

    @property
    def items(self) -> int:
        """Volumes."""
        return self.values.shape[0]

    @property
    def device(self) -> torch.device:
        """Where the blocks are."""
        return self.values.device

    def batch(self, index: Tensor) -> Batch:
        """Return the same blocks of all items."""
        weights = None
        if self.weights is not None:
            weights = self.weights[:, index].expand(self.items, -1, -1).flatten(0, 1)
        return Batch(index, self.values[:, index].flatten(0, 1), weights)

    def psnr(self, losses: Tensor) -> float:
        """PSNR in dB of the items' mean squared errors taken together."""
        return mean_psnr(losses, self.psnr_offsets)


def blocks_of(voxels: float, blocks: Blocks) -> int:
    """How many blocks hold so many voxels, at least one."""
    return max(1, math.ceil(voxels / blocks.voxels))


__all__ = ["BlockSamples", "Blocks", "blocks_of"]

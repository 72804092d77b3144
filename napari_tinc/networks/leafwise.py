"""Networks that are evaluated leaf by leaf, at local coordinates which all leaves of a partition share.

Families of that kind inherit how they are trained and decoded. One network for a whole volume is one of a single leaf.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from napari_tinc.arrays.scratch import spans
from napari_tinc.format import ItemRange
from napari_tinc.geometry.octree import Octree
from napari_tinc.geometry.sampling import Ints, leaves_of_region, sample_region
from napari_tinc.networks.device import is_out_of_memory, one_thread
from napari_tinc.networks.protocol import Array, Batch, Bounds, Floats32, Nodes, Parameters, Schedule, TrainingVolume
from napari_tinc.system.threads import side_by_side

# Activations per batch: what a CPU's caches hold, and enough to fill a GPU.
_ACTIVATIONS = {"cpu": 1 << 19, "cuda": 1 << 26, "mps": 1 << 24}
# Leaves per batch: every batch evaluates what they share again, so that small ones cost more.
_LEAF_BATCH = 256
_SMALLEST_TILE = 64
_VOXELS_PER_STEP = 2**14
PEAK_RATE, RATE_PER_WIDTH = 0.05, 1.2
_OMEGA_PER_VOXEL = 0.5


@dataclass
class LeafSamples:
    """Normalised leaves on the training device.

    Parameters
    ----------
    coordinates : Tensor, shape (axes, points)
        Local coordinates of a leaf's voxels.
    values : Tensor, shape (points, rows)
        Normalised intensities; a row is a leaf of an item.
    weights : Tensor of shape (points, rows), or None
        Weight of every voxel in the loss, 0 for padding, mean 1 over the rest; ``None`` if all are 1.
    items : int
        Volumes; each owns ``rows / items`` consecutive rows.
    psnr_offsets : ndarray, shape (items,)
        PSNR over the volume's own range of a mean squared error of 1 in normalised units, in dB.
    """

    coordinates: Tensor
    values: Tensor
    weights: Tensor | None
    items: int
    psnr_offsets: npt.NDArray[np.float64]

    @property
    def points(self) -> int:
        """Voxels of a leaf, padding included."""
        return self.coordinates.shape[1]

    @property
    def device(self) -> torch.device:
        """Where the leaves are."""
        return self.values.device

    def batch(self, index: Tensor) -> Batch:
        """Return the same local positions of all leaves."""
        weights = None if self.weights is None else self.weights[index].T
        return Batch(self.coordinates[:, index], self.values[index].T, weights)

    def psnr(self, losses: Tensor) -> float:
        """PSNR in dB of the items' mean squared errors taken together."""
        return mean_psnr(losses, self.psnr_offsets)


class LeafNetwork(ABC):
    """What families inherit whose networks are evaluated leaf by leaf."""

    @property
    @abstractmethod
    def arrays(self) -> tuple[Array, ...]:
        """See :class:`napari_tinc.networks.protocol.Network`."""

    @property
    @abstractmethod
    def items(self) -> int:
        """Volumes."""

    @property
    @abstractmethod
    def partition(self) -> Octree:
        """The leaves of every item: those of the network, not those that users see."""

    @property
    @abstractmethod
    def widest(self) -> int:
        """Most activations of a point at a time, over all leaves together."""

    @property
    @abstractmethod
    def layer_width(self) -> int:
        """Width of the widest layer: the wider, the lower the rate."""

    @abstractmethod
    def evaluate(self, parameters: Sequence[Tensor], inputs: Tensor) -> Tensor:
        """Evaluate every leaf at the same local coordinates: (axes, points) to (rows, points)."""

    @abstractmethod
    def restrict(self, leaves: Nodes) -> tuple[LeafNetwork, list[tuple[int, Nodes]]]:
        """Keep some leaves, numbered over all items; say which rows of which arrays they need."""

    @property
    def omega(self) -> list[float]:
        """First-layer frequency of every axis, in radians per unit of local coordinate: it grows with the leaf."""
        return [_OMEGA_PER_VOXEL * side for side in self.partition.leaf_shape]

    def schedule(self, steps: int, growth: float, time_limit: float | None) -> Schedule:
        """Grow steps and batch with the square root of the volume, so that the cost per voxel stays the same."""
        rows = self.partition.leaves * self.items
        points = max(64, round(_VOXELS_PER_STEP * growth / rows))
        rate = min(PEAK_RATE, RATE_PER_WIDTH / self.layer_width)
        return Schedule(round(steps * growth), points, rate, time_limit)

    def samples(self, original: TrainingVolume, device: torch.device) -> LeafSamples:
        """Cut the items into normalised leaves on a device."""
        return leaf_samples(self.partition, original, device)

    @property
    def leaf_count(self) -> int:
        """Leaves of an item."""
        return self.partition.leaves

    def leaves(self, bounds: Bounds, scale: float) -> Nodes | None:
        """Return the leaves that meet a region."""
        return leaves_of_region(self.partition, bounds, scale)

    def decode(self, parameters: Parameters, item: int, bounds: Bounds, scale: float) -> Floats32:
        """Evaluate a region, batch by batch of leaves sampled at the same local coordinates."""
        out = np.zeros([stop - start for start, stop in bounds], np.float32)
        sample_region(self.partition, bounds, scale, partial(self._evaluate_leaves, parameters, item), out)
        return out

    def _evaluate_leaves(
        self, parameters: Parameters, item: int, leaves: Ints, coordinates: Floats32
    ) -> Iterator[tuple[slice, slice, Floats32]]:
        """Evaluate leaves of an item, in ascending order, at shared local coordinates; what fits memory at a time."""
        count = self.partition.leaves
        tensors, device = parameters.of(item, leaves, count), parameters.device
        points = torch.from_numpy(coordinates).to(device)
        for first in range(0, len(leaves), _LEAF_BATCH):
            rows = slice(first, min(first + _LEAF_BATCH, len(leaves)))
            network, selection = self.restrict(item * count + leaves[rows])
            with torch.inference_mode():
                chosen = [tensors[i][torch.from_numpy(nodes).to(device)] for i, nodes in selection]
            side = max(_SMALLEST_TILE, _ACTIVATIONS[device.type] // network.widest)
            tiles = [slice(*span) for span in spans(0, points.shape[1], side)]
            evaluated = partial(_evaluated, network, chosen, points)
            values = side_by_side(evaluated, tiles) if device.type == "cpu" else map(evaluated, tiles)
            yield from ((rows, columns, part) for columns, part in zip(tiles, values, strict=True))


def _evaluated(network: LeafNetwork, parameters: Sequence[Tensor], points: Tensor, columns: slice) -> Floats32:
    """Evaluate leaves at some of the points, by halves where memory does not suffice."""
    try:
        with torch.inference_mode(), one_thread():
            return network.evaluate(parameters, points[:, columns]).cpu().numpy()
    except RuntimeError as error:
        if not is_out_of_memory(error) or columns.stop - columns.start <= _SMALLEST_TILE:
            raise
    middle = (columns.start + columns.stop) // 2
    halves = slice(columns.start, middle), slice(middle, columns.stop)
    return np.concatenate([_evaluated(network, parameters, points, half) for half in halves], 1)


def leaf_samples(tree: Octree, original: TrainingVolume, device: torch.device) -> LeafSamples:
    """Cut the items into the normalised leaves of a partition, on a device."""
    pairs = zip(original.items, original.ranges, strict=True)
    rows = [normalised(tree.to_leaves(item), limits) for item, limits in pairs]
    values = torch.from_numpy(np.ascontiguousarray(np.concatenate(rows).T)).to(device)
    grid = np.meshgrid(*tree.local_axes(), indexing="ij")
    coordinates = torch.from_numpy(np.stack([axis.ravel() for axis in grid])).to(device)
    weights = _loss_weights(original, tree)
    on_device = None if weights is None else weights.to(device)
    return LeafSamples(coordinates, values, on_device, len(original.items), psnr_offsets(original))


def normalised(voxels: npt.NDArray[Any], limits: ItemRange) -> Floats32:
    """Map intensities of an item to what networks learn, of any shape."""
    result: Floats32 = ((voxels.astype(np.float64) - limits.offset) / (limits.scale or 1.0)).astype(np.float32)
    return result


def psnr_offsets(original: TrainingVolume) -> npt.NDArray[np.float64]:
    """PSNR over the volume's own range of a mean squared error of 1 in normalised units, in dB, of every item."""
    values = (
        20 * math.log10(original.value_range / limits.scale) if limits.span else math.inf for limits in original.ranges
    )
    return np.array(list(values))


def mean_psnr(losses: Tensor, offsets: npt.NDArray[np.float64]) -> float:
    """PSNR in dB of the items' mean squared errors, normalised, taken together."""
    errors = losses.double().cpu().numpy() * 10 ** (-offsets / 10)
    return float(-10 * np.log10(max(errors.mean(), 1e-30)))


def _loss_weights(original: TrainingVolume, tree: Octree) -> Tensor | None:
    """Weight of every voxel of every leaf, padding 0, mean 1; ``None`` if all weigh the same."""
    valid = tree.valid()
    if original.weights is None and valid is None:
        return None
    inside = np.ones((tree.leaves, math.prod(tree.leaf_shape)), np.float32) if valid is None else valid
    given: list[npt.NDArray[Any] | None] = [None] if original.weights is None else list(original.weights)
    rows = [inside if weights is None else inside * tree.to_leaves(weights) for weights in given]
    stacked = np.concatenate(rows * (len(original.items) // len(rows))).astype(np.float32)
    return torch.from_numpy(np.ascontiguousarray((stacked / stacked.mean()).T))


__all__ = [
    "PEAK_RATE",
    "RATE_PER_WIDTH",
    "LeafNetwork",
    "LeafSamples",
    "leaf_samples",
    "mean_psnr",
    "normalised",
    "psnr_offsets",
]

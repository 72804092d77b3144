"""One network of sine layers over the whole volume: what families of that kind share.

The frequency ω of a SIREN (Sitzmann et al., 2020, arXiv 2006.09661) is folded into the weights.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import replace
from functools import cached_property

import torch
from torch import Tensor

from napari_tinc.geometry.octree import Octree
from napari_tinc.networks.leafwise import LeafNetwork
from napari_tinc.networks.protocol import Array, Nodes, Schedule
from napari_tinc.networks.undivided import UndividedNetwork, arrays_of, layer_tensors

MAX_WIDTH = 4096


class WholeNetwork(UndividedNetwork, LeafNetwork):
    """One network for every item.

    Parameters
    ----------
    tree : Octree
        Partition into octants, which the network knows nothing of.
    items : int
    width : int
        Features of every layer.
    layers : int
        Sine layers; a linear output follows.
    """

    def __init__(self, tree: Octree, items: int, width: int, layers: int) -> None:
        super().__init__(tree, items)
        self.width, self.layers = width, layers

    @abstractmethod
    def of_items(self, items: int) -> WholeNetwork:
        """Return the same for another number of items."""

    @cached_property
    def partition(self) -> Octree:
        """One leaf: local coordinates are those of the volume."""
        return Octree(self.tree.shape)

    @property
    def widest(self) -> int:
        """Activations of a point at a time."""
        return self.items * self.width

    @property
    def layer_width(self) -> int:
        """Width of the widest layer."""
        return self.width

    @property
    def parameters(self) -> int:
        """Number of parameters."""
        return self.items * network_parameters(len(self.tree.shape), self.width, self.layers)

    def schedule(self, steps: int, growth: float, time_limit: float | None) -> Schedule:
        """Take a quarter of the usual points a step: no leaves share what a layer computes."""
        usual = super().schedule(steps, growth, time_limit)
        return replace(usual, points=max(usual.fewest, usual.points // 4))

    @cached_property
    def arrays(self) -> tuple[Array, ...]:
        """Of every layer its weights, then its biases; the output is the last one."""
        inner = [(self.width, self.width)] * (self.layers - 1)
        return arrays_of(self.items, layer_tensors([(self.width, len(self.tree.shape)), *inner, (1, self.width)]))

    def initial(self, generator: torch.Generator) -> list[Tensor]:
        """Draw SIREN's initial weights with ω folded in."""
        return [self._draw(array, generator) for array in self.arrays]

    def _draw(self, array: Array, generator: torch.Generator) -> Tensor:
        uniform = torch.rand(array.shape, generator=generator) * 2 - 1
        layer, is_bias = divmod(array.position, 2)
        is_output = layer == self.layers
        if is_bias:
            return uniform * (0.0 if is_output else math.pi)
        if layer == 0:
            return uniform * torch.tensor(self.omega, dtype=torch.float32) / len(self.omega)
        bound = math.sqrt(6 / array.shape[2])
        return uniform * (bound / 30 if is_output else bound)

    def restrict(self, leaves: Nodes) -> tuple[WholeNetwork, list[tuple[int, Nodes]]]:
        """Keep the networks of some items."""
        return self.of_items(len(leaves)), [(array, leaves) for array in range(len(self.arrays))]


def network_parameters(axes: int, width: int, layers: int) -> int:
    """Count the parameters of one item's network."""
    return (axes + 1) * width + (layers - 1) * (width + 1) * width + width + 1


def widest(axes: int, parameters: float, layers: int) -> int:
    """Largest width of a network, of two sine layers or more, with at most so many parameters; 0 if there is none."""
    a, b, c = layers - 1, axes + 1 + layers, 1 - parameters
    width = int((math.sqrt(max(0.0, b * b - 4 * a * c)) - b) / (2 * a))
    return max(0, min(width, MAX_WIDTH))


__all__ = ["MAX_WIDTH", "WholeNetwork", "network_parameters", "widest"]

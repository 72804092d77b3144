"""What families share whose parameters belong to items as a whole, not to the nodes of a tree."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import numpy as np

from napari_tinc.geometry.octree import Box, Octree
from napari_tinc.networks.protocol import Array, Nodes


class UndividedNetwork(ABC):
    """One network for every item, of one level.

    Parameters
    ----------
    tree : Octree
        Partition into octants, which the network knows nothing of.
    items : int
    """

    between = "even"
    provenance: Mapping[str, float] = {}

    def __init__(self, tree: Octree, items: int) -> None:
        self.tree, self._items = tree, items

    @property
    def items(self) -> int:
        """Volumes."""
        return self._items

    @property
    @abstractmethod
    def parameters(self) -> int:
        """Number of parameters."""

    @property
    def nodes(self) -> tuple[int, ...]:
        """One level, of a node per item."""
        return (self.items,)

    @property
    def parts(self) -> list[Box]:
        """The whole volume."""
        return [tuple(slice(0, side) for side in self.tree.shape)]

    def node_parameters(self, level: int) -> Nodes:
        """Parameters of every item's network."""
        return np.full(self.items, self.parameters // self.items, np.int64)


def arrays_of(items: int, tensors: Sequence[tuple[str, tuple[int, ...]]]) -> tuple[Array, ...]:
    """Return the parameter tensors of such a network, from the name and the shape of each for one item."""
    nodes = np.arange(items)
    return tuple(Array(0, position, name, nodes, (items, *shape)) for position, (name, shape) in enumerate(tensors))


def layer_tensors(sizes: Sequence[tuple[int, int]]) -> list[tuple[str, tuple[int, ...]]]:
    """Name the weights, then the biases, of every layer of so many outputs and inputs."""
    return [
        (f"{name} {layer}", shape)
        for layer, (out, fan_in) in enumerate(sizes)
        for name, shape in (("weight", (out, fan_in)), ("bias", (out, 1)))
    ]


__all__ = ["UndividedNetwork", "arrays_of", "layer_tensors"]

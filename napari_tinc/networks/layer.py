"""The networks of a frame as layers: one for every item, on parameters that all of them share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import cache
from threading import Lock

import numpy as np
import numpy.typing as npt

from napari_tinc.format import KIND_PARAMETERS, Frame
from napari_tinc.geometry.octree import Box, Octree
from napari_tinc.networks import payload
from napari_tinc.networks.device import one_core_free
from napari_tinc.networks.families import load
from napari_tinc.networks.leafwise import LeafNetwork
from napari_tinc.networks.parameters import CodedParameters
from napari_tinc.networks.plans import allowed_parameters
from napari_tinc.networks.protocol import Bounds, Floats32, Network, Parameters
from napari_tinc.networks.quantization import Layout


class NetworkLayer:
    """What a network says of one item.

    Parameters
    ----------
    network : Network
    parameters : Parameters
    item : int
    segments : sequence of CodedLevel
        The item's segment of every level; none while it is being trained.
    """

    def __init__(
        self, network: Network, parameters: Parameters, item: int, segments: Sequence[payload.CodedLevel] = ()
    ) -> None:
        self._network, self._parameters, self._item, self._segments = network, parameters, item, segments
        self._lock = nullcontext() if parameters.device.type == "cpu" else Lock()

    @property
    def has_threads(self) -> bool:
        """See :class:`napari_tinc.layers.Layer`."""
        return isinstance(self._network, LeafNetwork)

    @property
    def parts(self) -> list[Box]:
        """Boxes of voxels that have parameters of their own."""
        return self._network.parts

    def values(self, bounds: Bounds, scale: float) -> Floats32:
        """Evaluate a region, see :class:`napari_tinc.layers.Layer`."""
        with self._lock, one_core_free():  # what a device has to do takes its memory, too
            return self._network.decode(self._parameters, self._item, bounds, scale)

    def region_bytes(self, bounds: Bounds, scale: float) -> int:
        """Bytes of the blocks that hold the leaves of a region, or their ancestors, and of the segments' heads."""
        leaves, count = self._network.leaves(bounds, scale), self._network.leaf_count
        total = 0
        for segment in self._segments:
            sizes = np.array([len(stream) for stream in segment.streams])
            needed = sizes if leaves is None else sizes[np.unique(leaves * len(sizes) // count)]
            total += segment.nbytes - int(sizes.sum()) + int(needed.sum())
        return total

    def leaf_bytes(self, tree: Octree) -> npt.NDArray[np.float64]:
        """Bytes spent on every leaf: a segment is divided by parameters among its nodes, each node among its leaves."""
        spent = np.zeros(tree.leaves)
        for level, segment in enumerate(self._segments):
            size = segment.nbytes
            nodes = self._network.nodes[level] // self._network.items
            counts = self._network.node_parameters(level)[self._item * nodes : (self._item + 1) * nodes]
            below = tree.leaves // nodes
            spent += np.repeat(size * counts / counts.sum() / below, below)
        return spent


def open_network(frame: Frame, family: str, tree: Octree) -> Network:
    """Rebuild the network of a frame from its plan.

    Raises
    ------
    FormatError
        If the plan is not one of the family.
    """
    size = sum(len(segment.payload) for segment in frame.segments if segment.kind == KIND_PARAMETERS)
    return load(family).parse(frame.header.plan, tree, len(frame.header.items), allowed_parameters(size))


def open_layers(frame: Frame, family: str, tree: Octree, device: str) -> Callable[[int], NetworkLayer]:
    """Return what makes the layer of an item of a frame.

    Raises
    ------
    FormatError
        If the plan is not one of the family, or its symbol models take longer to tabulate than its bytes justify.
    """
    network = open_network(frame, family, tree)
    found = [(s.level, s.payload) for s in frame.segments if s.kind == KIND_PARAMETERS]
    payload.check_tables(Layout(network), found)
    return layers_of(network, lambda item, level: frame.find(KIND_PARAMETERS, item, level), device)


def layers_of(network: Network, find: Callable[[int, int], bytes], device: str) -> Callable[[int], NetworkLayer]:
    """Return what makes the layer of an item; parameters are decoded when a region needs them.

    Parameters
    ----------
    network : Network
    find : callable
        Returns the parameter segment of an item and a level.
    device : str
        Where to evaluate.
    """
    layout = Layout(network)

    @cache
    def coded(item: int, level: int) -> payload.CodedLevel:
        return payload.parse_parameters(layout, item, level, find(item, level))

    parameters = CodedParameters(layout, lambda item, level, block: coded(item, level).decode(block), device)

    def layer(item: int) -> NetworkLayer:
        return NetworkLayer(network, parameters, item, [coded(item, level) for level in range(len(network.nodes))])

    return layer


__all__ = ["NetworkLayer", "layers_of", "open_layers", "open_network"]

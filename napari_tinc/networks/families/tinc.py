"""TINC: a SIREN cut into segments, one per tree node, shared along the paths from the root to the leaves.

``f_k = f_out ∘ f_L ∘ … ∘ f_1 ∘ f_in``: segment ``l`` of leaf ``k`` belongs to the leaf's ancestor at level ``l``
(Yang et al., "TINC: Tree-structured Implicit Neural Compression", CVPR 2023, arXiv 2211.06689). Every leaf sees the
same local coordinates, so what the root computes for a coordinate serves all leaves.

Activations have the layout (nodes, features, points): the children of a node then read its output through one
matrix product without a copy. Nodes of unequal width are grouped by (input width, width), never looped over.
The frequency ω of a SIREN (Sitzmann et al., 2020, arXiv 2006.09661) is folded into the weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from napari_tinc.geometry.octree import Octree
from napari_tinc.system.forks import with_fresh_locks

Nodes = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Array:
    """One parameter tensor: the same layer of a group of nodes.

    Parameters
    ----------
    level, layer : int
        Level of the nodes and position of the layer in their segment.
    kind : str
        ``"weight"`` with shape (nodes, out, in) or ``"bias"`` with shape (nodes, out, 1).
    nodes : ndarray of int
        Numbers of the nodes on their level, ascending.
    shape : tuple of int
        Shape of the tensor.
    """

    level: int
    layer: int
    kind: str
    nodes: Nodes
    shape: tuple[int, int, int]


@dataclass(frozen=True)
class Group:
    """Nodes of one level with equal input width and width, evaluated together."""

    nodes: Nodes
    fan_in: int
    width: int
    parents: Nodes
    """Rows of the parents among the parent level's nodes of width ``fan_in``."""
    siblings: int
    """Children per parent if the group is all children of all those parents in order, else 0."""


@with_fresh_locks
class TincNetwork:
    """Structure of a TINC network; parameters are passed in as a list of tensors that follows :attr:`arrays`.

    Parameters
    ----------
    dimensions : int
        Number of local coordinates.
    layers : sequence of int
        Sine layers per segment, one entry per level; at least 1. A leaf adds a linear output layer.
    widths : sequence of ndarray of int
        Width of every node's layers, one array per level.
    parents : sequence of ndarray of int
        Parent of every node, one array per level; the roots' entry is not used. Several roots are several items
        (channels, time points) that share nothing.
    """

    def __init__(self, dimensions: int, layers: Sequence[int], widths: Sequence[Nodes], parents: Sequence[Nodes]):
        self.dimensions, self.layers = dimensions, tuple(layers)
        self.widths, self.parents = tuple(widths), tuple(parents)
        self.depth = len(self.layers) - 1
        self.groups = self._group()
        leaf_groups = self.groups[self.depth]
        order = np.argsort(np.concatenate([group.nodes for group in leaf_groups]))
        self._output_order = None if len(leaf_groups) == 1 else torch.from_numpy(order)

    @classmethod
    def on_tree(cls, tree: Octree, layers: Sequence[int], widths: Sequence[Nodes]) -> TincNetwork:
        """Build the network of a whole tree; ``widths`` hold ``items * nodes(level)`` entries."""
        parents = [np.zeros(len(widths[0]), dtype=np.int64)]
        for level in range(1, tree.depth + 1):
            parents.append(np.arange(len(widths[level])) // tree.children(level - 1))
        return cls(len(tree.shape), layers, widths, parents)

    def fan_in(self, level: int) -> Nodes:
        """Input width of every node at ``level``: its parent's width, or the number of coordinates."""
        if level == 0:
            return np.full(len(self.widths[0]), self.dimensions, dtype=np.int64)
        return self.widths[level - 1][self.parents[level]]

    def node_parameters(self, level: int) -> Nodes:
        """Count the parameters of every node's segment at ``level``."""
        is_leaf = level == self.depth
        return segment_parameters(self.fan_in(level), self.widths[level], self.layers[level], is_leaf)

    @property
    def parameters(self) -> int:
        """Number of parameters of all segments together."""
        return sum(int(self.node_parameters(level).sum()) for level in range(self.depth + 1))

    def _group(self) -> list[list[Group]]:
        rows: Nodes = np.zeros(len(self.widths[0]), dtype=np.int64)
        levels = []
        for level, width in enumerate(self.widths):
            fan_in = self.fan_in(level)
            keys, index = np.unique(np.stack([width, fan_in], 1), axis=0, return_inverse=True)
            members = [np.flatnonzero(index.ravel() == key) for key in range(len(keys))]
            levels.append(
                [
                    self._wired(level, nodes, int(key[1]), int(key[0]), rows)
                    for key, nodes in zip(keys, members, strict=True)
                ]
            )
            rows = _rows(keys[:, 0], members, len(width))
        return levels

    def _wired(self, level: int, nodes: Nodes, fan_in: int, width: int, rows: Nodes) -> Group:
        """Make a group and point it at its parents' rows."""
        if level == 0:
            return Group(nodes, fan_in, width, np.zeros(len(nodes), dtype=np.int64), 0)
        parents = rows[self.parents[level][nodes]]
        available = int((self.widths[level - 1] == fan_in).sum())
        siblings = len(parents) // available
        in_order = np.array_equal(parents, np.repeat(np.arange(available), siblings))
        return Group(nodes, fan_in, width, parents, siblings if in_order else 0)

    def restrict(self, leaves: Nodes) -> tuple[TincNetwork, list[tuple[int, Nodes]]]:
        """Keep only some leaves and their ancestors.

        Parameters
        ----------
        leaves : ndarray of int
            Leaf numbers, ascending, without repeats.

        Returns
        -------
        network : TincNetwork
            Its output rows are those leaves.
        selection : list of (int, ndarray of int)
            For each of its arrays: which of this network's arrays, and which rows of it.
        """
        kept: list[Nodes] = [leaves]
        parents: list[Nodes] = []
        for level in range(self.depth, 0, -1):
            above = self.parents[level][kept[0]]
            needed, position = np.unique(above, return_inverse=True)
            kept.insert(0, needed)
            parents.insert(0, position.ravel())
        parents.insert(0, np.zeros(len(kept[0]), dtype=np.int64))
        widths = [width[nodes] for width, nodes in zip(self.widths, kept, strict=True)]
        smaller = TincNetwork(self.dimensions, self.layers, widths, parents)
        position_of = {key: i for i, key in enumerate(self._keys)}
        selection = []
        for key, array in zip(smaller._keys, smaller.arrays, strict=True):
            source = position_of[key]
            rows = np.searchsorted(self.arrays[source].nodes, kept[array.level][array.nodes])
            selection.append((source, rows))
        return smaller, selection

    @cached_property
    def _keys(self) -> tuple[tuple[int, int, int, int, str], ...]:
        """What tells every array from the others: level, width and input width of its group, layer, kind."""
        return tuple(
            (level, group.width, group.fan_in, layer, kind)
            for level, groups in enumerate(self.groups)
            for group in groups
            for layer, kind, _ in self._segment_shapes(level, group)
        )

    @cached_property
    def arrays(self) -> tuple[Array, ...]:
        """The parameter tensors in evaluation order, root first."""
        return tuple(
            Array(level, layer, kind, group.nodes, shape)
            for level, groups in enumerate(self.groups)
            for group in groups
            for layer, kind, shape in self._segment_shapes(level, group)
        )

    def _segment_shapes(self, level: int, group: Group) -> list[tuple[int, str, tuple[int, int, int]]]:
        layers, count, width = self.layers[level], len(group.nodes), group.width
        sizes = [(width, group.fan_in)] + [(width, width)] * (layers - 1)
        if level == self.depth:
            sizes.append((1, width))
        return [
            entry
            for layer, (out, fan_in) in enumerate(sizes)
            for entry in ((layer, "weight", (count, out, fan_in)), (layer, "bias", (count, out, 1)))
        ]

    def initial(self, omega: Sequence[float], generator: torch.Generator) -> list[Tensor]:
        """Draw SIREN's initial weights with ω folded in.

        First layer of the root: U(±ω_axis/d); hidden layers: U(±sqrt(6/n)), the SIREN rule inside the whole tree
        (the authors restart the coordinate rule at every level, which hurts deep trees); output: as hidden / 30.

        Parameters
        ----------
        omega : sequence of float
            First-layer frequency of every spatial axis, radians per unit of local coordinate.
        generator : torch.Generator
            CPU generator; the draw does not depend on the device.
        """
        return [self._draw(array, omega, generator) for array in self.arrays]

    def _draw(self, array: Array, omega: Sequence[float], generator: torch.Generator) -> Tensor:
        uniform = torch.rand(array.shape, generator=generator) * 2 - 1
        is_output = array.level == self.depth and array.layer == self.layers[array.level]
        if array.kind == "bias":
            return uniform * (0.0 if is_output else np.pi)
        if array.level == 0 and array.layer == 0:
            return uniform * torch.tensor(omega, dtype=torch.float32) / len(omega)
        bound = float(np.sqrt(6 / array.shape[2]))
        return uniform * (bound / 30 if is_output else bound)

    def evaluate(self, parameters: Sequence[Tensor], coordinates: Tensor) -> Tensor:
        """Evaluate every leaf at the same local coordinates.

        Parameters
        ----------
        parameters : sequence of Tensor
            Follows :attr:`arrays`.
        coordinates : Tensor, shape (spatial axes, points)
            Local coordinates in [-1, 1].

        Returns
        -------
        Tensor, shape (items * leaves, points)
        """
        queue = iter(parameters)
        outputs = {len(coordinates): coordinates[None]}
        for level, groups in enumerate(self.groups):
            by_width: dict[int, list[Tensor]] = {}
            for group in groups:
                hidden = self._segment(queue, level, group, outputs[group.fan_in])
                by_width.setdefault(1 if level == self.depth else group.width, []).append(hidden)
            outputs = {width: torch.cat(parts) if len(parts) > 1 else parts[0] for width, parts in by_width.items()}
        values = outputs[1][:, 0]
        return values if self._output_order is None else values[self._output_order.to(values.device)]

    def _segment(self, queue: object, level: int, group: Group, inputs: Tensor) -> Tensor:
        weight, bias = next(queue), next(queue)  # type: ignore[call-overload]
        hidden = torch.sin(_first_layer(group, level, weight, bias, inputs))
        for _ in range(self.layers[level] - 1):
            weight, bias = next(queue), next(queue)  # type: ignore[call-overload]
            hidden = torch.sin(torch.baddbmm(bias, weight, hidden))
        if level == self.depth:
            weight, bias = next(queue), next(queue)  # type: ignore[call-overload]
            with _full_precision(hidden):  # the output is what the loss compares
                hidden = torch.baddbmm(bias, weight, hidden.to(bias.dtype))
        return hidden


def _first_layer(group: Group, level: int, weight: Tensor, bias: Tensor, inputs: Tensor) -> Tensor:
    """Apply a group's first layer to its parents' outputs."""
    points = inputs.shape[2]
    if level == 0:  # all roots see the same coordinates: one product
        with _full_precision(inputs):  # these phases run over many turns
            stacked = torch.addmm(bias.reshape(-1, 1), weight.reshape(-1, group.fan_in), inputs[0])
        return stacked.reshape(len(group.nodes), group.width, points)
    if group.siblings:  # all children of a parent read its output in one product
        wide = group.siblings * group.width
        product = torch.baddbmm(bias.reshape(-1, wide, 1), weight.reshape(-1, wide, group.fan_in), inputs)
        return product.reshape(len(group.nodes), group.width, points)
    rows = torch.as_tensor(group.parents, device=inputs.device)
    return torch.baddbmm(bias, weight, inputs[rows])


def _full_precision(tensor: Tensor) -> torch.autocast:
    """Switch off the autocast of a training step."""
    return torch.autocast(tensor.device.type, enabled=False)


def _rows(widths: Nodes, members: list[Nodes], count: int) -> Nodes:
    """Row of every node among the concatenated groups of its own width."""
    rows = np.empty(count, dtype=np.int64)
    filled: dict[int, int] = {}
    for width, nodes in zip(widths.tolist(), members, strict=True):
        start = filled.get(width, 0)
        rows[nodes] = np.arange(start, start + len(nodes))
        filled[width] = start + len(nodes)
    return rows


def segment_parameters(fan_in: Nodes, width: Nodes, layers: int, is_leaf: bool) -> Nodes:
    """Parameters of a segment: ``layers`` sine layers with biases and, in a leaf, the linear output."""
    count: Nodes = (fan_in + 1) * width + (layers - 1) * (width + 1) * width
    return count + width + 1 if is_leaf else count

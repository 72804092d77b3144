"""TINC: a SIREN cut into segments, one per tree node, shared along the paths from the root to the leaves.

``f_k = f_out ∘ f_L ∘ … ∘ f_1 ∘ f_in``: segment ``l`` of leaf ``k`` belongs to the leaf's ancestor at level ``l``
(Yang et al., "TINC: Tree-structured Implicit Neural Compression", CVPR 2023, arXiv 2211.06689). Every leaf sees the
same local coordinates, so what the root computes for a coordinate serves all leaves.

Activations have the layout (nodes, features, points): the children of a node then read its output through one
matrix product without a copy. Nodes of unequal width are grouped by (input width, width), never looped over.
The frequency ω of a SIREN (Sitzmann et al., 2020, arXiv 2006.09661) is folded into the weights.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from napari_tinc.errors import FormatError
from napari_tinc.format.cursor import Cursor, varint
from napari_tinc.geometry.octree import Box, Octree, asked_splits
from napari_tinc.networks import allocation
from napari_tinc.networks.allocation import segment_parameters
from napari_tinc.networks.leafwise import LeafNetwork
from napari_tinc.networks.plans import check_end, check_size
from napari_tinc.networks.protocol import BITS_PER_PARAMETER, Array, Nodes, Request, TrainingVolume
from napari_tinc.settings import Settings
from napari_tinc.system.forks import with_fresh_locks

_MAX_WIDTH, _MAX_WIDTH_CLASSES, _MAX_LAYERS = 4096, 8, 8
# With fewer parameters than this many times the least, a network is not worth its usual layers.
_WORTH_LAYERS = 1.5
_LEAST_WIDTH, _USUAL_WIDTH = 4, 8


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
class TincNetwork(LeafNetwork):
    """Structure of a TINC network; parameters are passed in as a list of tensors that follows :attr:`arrays`.

    Parameters
    ----------
    tree : Octree
        Partition of every item.
    layers : sequence of int
        Sine layers per segment, one entry per level; at least 1. A leaf adds a linear output layer.
    widths : sequence of ndarray of int
        Width of every node's layers, one array per level.
    parents : sequence of ndarray of int
        Parent of every node, one array per level; the roots' entry is not used. Several roots are several items
        (channels, time points) that share nothing.
    between : str
        Strategy between levels that the widths follow.
    provenance : mapping of str to float
        What planning has found out about the volume.
    """

    def __init__(
        self, tree: Octree, layers: Sequence[int], widths: Sequence[Nodes], parents: Sequence[Nodes],
        between: str = "even", provenance: Mapping[str, float] | None = None,
    ) -> None:  # fmt: skip
        self.tree, self.layers = tree, tuple(layers)
        self.widths, self.parents = tuple(widths), tuple(parents)
        self.between, self.provenance = between, dict(provenance or {})
        self.depth = len(self.layers) - 1
        self.groups = self._group()
        leaf_groups = self.groups[self.depth]
        order = np.argsort(np.concatenate([group.nodes for group in leaf_groups]))
        self._output_order = None if len(leaf_groups) == 1 else torch.from_numpy(order)

    @classmethod
    def on_tree(
        cls, tree: Octree, layers: Sequence[int], widths: Sequence[Nodes],
        between: str = "even", provenance: Mapping[str, float] | None = None,
    ) -> TincNetwork:  # fmt: skip
        """Build the network of a whole tree; ``widths`` hold ``items * nodes(level)`` entries."""
        parents = [np.zeros(len(widths[0]), dtype=np.int64)]
        for level in range(1, tree.depth + 1):
            parents.append(np.arange(len(widths[level])) // tree.children(level - 1))
        return cls(tree, layers, widths, parents, between, provenance)

    @property
    def partition(self) -> Octree:
        """The network's leaves are those that users see."""
        return self.tree

    @property
    def parts(self) -> list[Box]:
        """The octants."""
        return self.tree.boxes(self.depth)

    @property
    def items(self) -> int:
        """Volumes: each is a root."""
        return len(self.widths[0])

    @property
    def nodes(self) -> tuple[int, ...]:
        """Nodes of every level, all items together."""
        return tuple(len(widths) for widths in self.widths)

    @property
    def widest(self) -> int:
        """Most activations of a point at a time."""
        return max(int(level.sum()) for level in self.widths)

    @property
    def layer_width(self) -> int:
        """Width of the widest node."""
        return max(int(level.max()) for level in self.widths)

    def fan_in(self, level: int) -> Nodes:
        """Input width of every node at ``level``: its parent's width, or the number of coordinates."""
        if level == 0:
            return np.full(len(self.widths[0]), len(self.tree.shape), dtype=np.int64)
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
        smaller = TincNetwork(self.tree, self.layers, widths, parents)
        position_of = {key: i for i, key in enumerate(self._keys)}
        selection = []
        for key, array in zip(smaller._keys, smaller.arrays, strict=True):
            source = position_of[key]
            rows = np.searchsorted(self.arrays[source].nodes, kept[array.level][array.nodes])
            selection.append((source, rows))
        return smaller, selection

    @cached_property
    def _keys(self) -> tuple[tuple[int, int, int, int], ...]:
        """What tells every array from the others: level, width and input width of its group, position."""
        return tuple((level, group.width, group.fan_in, position) for level, group, position, _ in self._segments())

    @cached_property
    def arrays(self) -> tuple[Array, ...]:
        """The parameter tensors in evaluation order, root first: of every layer its weights, then its biases."""
        return tuple(
            Array(level, position, f"{'bias' if position % 2 else 'weight'} {position // 2}", group.nodes, shape)
            for level, group, position, shape in self._segments()
        )

    def _segments(self) -> Iterator[tuple[int, Group, int, tuple[int, int, int]]]:
        """Level, group, position and shape of every array."""
        for level, groups in enumerate(self.groups):
            for group in groups:
                count, width = len(group.nodes), group.width
                sizes = [(width, group.fan_in)] + [(width, width)] * (self.layers[level] - 1)
                if level == self.depth:
                    sizes.append((1, width))
                for layer, (out, fan_in) in enumerate(sizes):
                    yield level, group, 2 * layer, (count, out, fan_in)
                    yield level, group, 2 * layer + 1, (count, out, 1)

    def initial(self, generator: torch.Generator) -> list[Tensor]:
        """Draw SIREN's initial weights with ω folded in.

        First layer of the root: U(±ω_axis/d); hidden layers: U(±sqrt(6/n)), the SIREN rule inside the whole tree
        (the authors restart the coordinate rule at every level, which hurts deep trees); output: as hidden / 30.

        Parameters
        ----------
        generator : torch.Generator
            CPU generator; the draw does not depend on the device.
        """
        return [self._draw(array, generator) for array in self.arrays]

    def _draw(self, array: Array, generator: torch.Generator) -> Tensor:
        uniform = torch.rand(array.shape, generator=generator) * 2 - 1
        layer, is_bias = divmod(array.position, 2)
        is_output = array.level == self.depth and layer == self.layers[array.level]
        if is_bias:
            return uniform * (0.0 if is_output else np.pi)
        if array.level == 0 and layer == 0:
            return uniform * torch.tensor(self.omega, dtype=torch.float32) / len(self.omega)
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


class _Tinc:
    """Plans TINC networks, and stores and restores their plans."""

    def plan(self, request: Request) -> TincNetwork:
        """Choose the tree and the widths of its nodes for a budget."""
        original, settings, items = request.original, request.settings, len(request.original.items)
        small = self._narrow(original, settings, 0, _LEAST_WIDTH, least=True)
        parameters = max(16 / BITS_PER_PARAMETER, request.parameters(small))
        consistency = original.consistency
        ratios: str | Sequence[float] = settings.between
        if isinstance(ratios, str):
            ratios = between = allocation.resolve_auto(consistency) if ratios == "auto" else ratios
            depth = allocation.choose_depth(original.spatial, items, parameters, between)
        else:
            between, depth = "ratios", len(ratios) - 1
        if settings.levels is not None:
            depth = settings.levels - 1
        found = {} if consistency is None else {"consistency": round(consistency, 2)}
        thin = self._narrow(original, settings, depth, _USUAL_WIDTH, between=between, provenance=found)
        tree = thin.tree
        widths = allocation.allocate(
            tree,
            original.leaf_measure(tree, settings.within),
            items,
            max(1.0, request.parameters(thin)),
            allocation.level_ratios(ratios, tree.depth + 1),
            thin.layers,
        )
        network = TincNetwork.on_tree(tree, thin.layers, widths, between, found)
        least = self._narrow(original, settings, tree.depth, _LEAST_WIDTH, True, between, found)
        return least if network.parameters < _WORTH_LAYERS * least.parameters else network

    def least(self, original: TrainingVolume, settings: Settings, octants: Octree) -> TincNetwork:
        """Return a network whose every node is as narrow as is still of any use."""
        return self._narrow(original, settings, (settings.levels or 1) - 1, _LEAST_WIDTH, least=True)

    def _narrow(
        self, original: TrainingVolume, settings: Settings, depth: int, width: int, least: bool = False,
        between: str = "even", provenance: Mapping[str, float] | None = None,
    ) -> TincNetwork:  # fmt: skip
        """Return a network of equal widths; the least of one level has half the layers."""
        tree = Octree(original.spatial, asked_splits(original.spatial, settings, depth))
        layers = allocation.default_layers(tree.depth) if tree.depth or not least else (2,)
        widths = [np.full(len(original.items) * tree.nodes(level), width) for level in range(tree.depth + 1)]
        return TincNetwork.on_tree(tree, layers, widths, between, provenance)

    def pack(self, network: TincNetwork) -> bytes:
        """Store per level its layers, the distinct widths and, if several, which node has which."""
        parts = []
        for layers, widths in zip(network.layers, network.widths, strict=True):
            classes, index = np.unique(widths, return_inverse=True)
            parts.append(bytes([layers, len(classes)]) + b"".join(varint(int(width)) for width in classes))
            if len(classes) > 1:
                packed = zlib.compress(index.astype(np.uint8).tobytes(), 9)
                parts.append(varint(len(packed)) + packed)
        return b"".join(parts)

    def parse(self, plan: bytes, tree: Octree, items: int, allowed: int) -> TincNetwork:
        """Invert :meth:`pack`."""
        cursor = Cursor(plan, 0, "the plan")
        layers, widths = [], []
        claimed, fan_in = 0, np.array([len(tree.shape)], dtype=np.int64)
        for level in range(tree.depth + 1):
            layer_count, classes = _level_shape(cursor, level)
            nodes = items * tree.nodes(level)
            # Before anything is allocated for these nodes: they have at least the parameters of the narrowest class.
            narrow = np.array(classes[:1], dtype=np.int64)
            claimed += nodes * int(segment_parameters(fan_in, narrow, layer_count, level == tree.depth)[0])
            check_size(claimed, allowed)
            fan_in = narrow
            layers.append(layer_count)
            widths.append(np.array(classes, dtype=np.int64)[_class_index(cursor, len(classes), nodes)])
        check_end(cursor)
        network = TincNetwork.on_tree(tree, layers, widths)
        check_size(network.parameters, allowed)
        return network


def _level_shape(cursor: Cursor, level: int) -> tuple[int, list[int]]:
    """Read the layers and the distinct widths of a level."""
    layers, count = cursor.u8("layers"), cursor.u8("width classes")
    if not (1 <= layers <= _MAX_LAYERS and 1 <= count <= _MAX_WIDTH_CLASSES):
        raise FormatError(
            f"expected 1 to {_MAX_LAYERS} layers of 1 to {_MAX_WIDTH_CLASSES} widths at level {level} of the plan, "
            f"got {layers} and {count}: damaged file"
        )
    classes = [cursor.varint("width") for _ in range(count)]
    bounds = [0, *classes, _MAX_WIDTH + 1]
    if not all(before < after for before, after in pairwise(bounds)):
        raise FormatError(
            f"expected ascending widths from 1 to {_MAX_WIDTH} at level {level} of the plan: damaged file"
        )
    return layers, classes


def _class_index(cursor: Cursor, classes: int, nodes: int) -> npt.NDArray[np.uint8]:
    if classes == 1:
        return np.zeros(nodes, dtype=np.uint8)
    packed = cursor.take(cursor.varint("width map size"), "width map")
    inflater = zlib.decompressobj()
    try:
        raw = inflater.decompress(packed, nodes + 1)
    except zlib.error as error:
        raise FormatError(f"the width map of the plan does not inflate ({error}): damaged file") from error
    index = np.frombuffer(raw, dtype=np.uint8)
    if len(index) != nodes or not inflater.eof or inflater.unused_data or index.max(initial=0) >= classes:
        raise FormatError(f"expected a width class for each of {nodes} nodes in the plan: damaged file")
    return index


FAMILY = _Tinc()

__all__ = ["FAMILY", "Group", "TincNetwork"]

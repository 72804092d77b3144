"""Neurcomp: one sine network with residual blocks for a whole volume.

Lu, Jiang, Levine and Berger, "Compressive Neural Representations of Volumetric Scalar Fields", Computer Graphics Forum
40, 2021, arXiv 2104.04523. A sine layer, then blocks ``x ← w₂ (x + sin(W₂ sin(W₁ w₁ x + b₁) + b₂))`` with ``w₁`` = ½ in
all but the first and ``w₂`` = ½ in the last, then a linear output.

Departures, and why: the frequency ω is folded into the weights and grows with the volume (theirs is 30 for any);
quantisation, coding and training are those of all families (theirs: k-means of the inner matrices, Adam at 5e-5 for
hours). Where its bytes are few, a network has fewer blocks than their seven rather than narrow ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from napari_tinc.choices import BETWEEN
from napari_tinc.errors import InputError
from napari_tinc.format.cursor import Cursor, integer, varint
from napari_tinc.geometry.octree import Octree
from napari_tinc.networks.leafwise import LeafNetwork
from napari_tinc.networks.plans import check_end, check_size
from napari_tinc.networks.protocol import Array, Nodes, Request, Schedule, TrainingVolume
from napari_tinc.settings import Settings
from napari_tinc.system.forks import with_fresh_locks

_BLOCKS, _MAX_BLOCKS, _MAX_WIDTH = 7, 32, 4096
# Blocks of fewer features learn badly: better to have fewer blocks.
_NARROW, _LEAST_WIDTH = 16, 4


@with_fresh_locks
class NeurcompNetwork(LeafNetwork):
    """One network for every item.

    Parameters
    ----------
    tree : Octree
        Partition into octants, which the network knows nothing of.
    items : int
    width : int
        Features of every layer.
    blocks : int
        Residual blocks, of two layers each.
    """

    between = "even"
    provenance: Mapping[str, float] = {}

    def __init__(self, tree: Octree, items: int, width: int, blocks: int) -> None:
        self.tree, self.width, self.blocks = tree, width, blocks
        self._items = items

    @property
    def items(self) -> int:
        """Volumes."""
        return self._items

    @cached_property
    def partition(self) -> Octree:
        """One leaf: local coordinates are those of the volume."""
        return Octree(self.tree.shape)

    @property
    def nodes(self) -> tuple[int, ...]:
        """One level, of a node per item."""
        return (self._items,)

    @property
    def widest(self) -> int:
        """Activations of a point at a time."""
        return self._items * self.width

    @property
    def layer_width(self) -> int:
        """Width of the widest layer; residual blocks bear half the rate of plain layers."""
        return 2 * self.width

    @property
    def parameters(self) -> int:
        """Number of parameters."""
        return self._items * network_parameters(len(self.tree.shape), self.width, self.blocks)

    def schedule(self, steps: int, growth: float, time_limit: float | None) -> Schedule:
        """Take a quarter of the usual points a step: no leaves share what a layer computes."""
        usual = super().schedule(steps, growth, time_limit)
        return replace(usual, points=max(usual.fewest, usual.points // 4))

    def node_parameters(self, level: int) -> Nodes:
        """Parameters of every item's network."""
        return np.full(self._items, self.parameters // self._items, dtype=np.int64)

    @cached_property
    def arrays(self) -> tuple[Array, ...]:
        """Of every layer its weights, then its biases: the first, two for every block, the output."""
        sizes = [(self.width, len(self.tree.shape)), *[(self.width, self.width)] * (2 * self.blocks), (1, self.width)]
        nodes = np.arange(self._items)
        return tuple(
            Array(0, 2 * layer + position, f"{name} {layer}", nodes, (self._items, *shape))
            for layer, (out, fan_in) in enumerate(sizes)
            for position, (name, shape) in enumerate((("weight", (out, fan_in)), ("bias", (out, 1))))
        )

    def initial(self, generator: torch.Generator) -> list[Tensor]:
        """Draw SIREN's initial weights with ω folded in."""
        return [self._draw(array, generator) for array in self.arrays]

    def _draw(self, array: Array, generator: torch.Generator) -> Tensor:
        uniform = torch.rand(array.shape, generator=generator) * 2 - 1
        layer, is_bias = divmod(array.position, 2)
        is_output = layer == 2 * self.blocks + 1
        if is_bias:
            return uniform * (0.0 if is_output else math.pi)
        if layer == 0:
            return uniform * torch.tensor(self.omega, dtype=torch.float32) / len(self.omega)
        bound = math.sqrt(6 / array.shape[2])
        return uniform * (bound / 30 if is_output else bound)

    def evaluate(self, parameters: Sequence[Tensor], inputs: Tensor) -> Tensor:
        """Evaluate every item at the same coordinates: (axes, points) to (items, points)."""
        layers = list(zip(parameters[::2], parameters[1::2], strict=True))
        (weight, bias), *inner, (out_weight, out_bias) = layers
        with torch.autocast(inputs.device.type, enabled=False):  # these phases run over many turns
            hidden = torch.sin(torch.baddbmm(bias, weight, inputs.expand(self._items, -1, -1)))
        for block in range(self.blocks):
            (weight, bias), (next_weight, next_bias) = inner[2 * block : 2 * block + 2]
            entering = hidden if block == 0 else 0.5 * hidden
            residual = torch.sin(torch.baddbmm(bias, weight, entering))
            hidden = hidden + torch.sin(torch.baddbmm(next_bias, next_weight, residual))
            if block == self.blocks - 1:
                hidden = 0.5 * hidden
        with torch.autocast(inputs.device.type, enabled=False):  # the output is what the loss compares
            return torch.baddbmm(out_bias, out_weight, hidden.to(out_bias.dtype))[:, 0]

    def restrict(self, leaves: Nodes) -> tuple[NeurcompNetwork, list[tuple[int, Nodes]]]:
        """Keep the networks of some items."""
        smaller = NeurcompNetwork(self.tree, len(leaves), self.width, self.blocks)
        return smaller, [(array, leaves) for array in range(len(self.arrays))]


def network_parameters(axes: int, width: int, blocks: int) -> int:
    """Count the parameters of one item's network."""
    return (axes + 1) * width + 2 * blocks * (width + 1) * width + width + 1


def widest(axes: int, parameters: float, blocks: int) -> int:
    """Largest width of a network of at most so many parameters; 0 if there is none."""
    a, b, c = 2 * blocks, axes + 2 + 2 * blocks, 1 - parameters
    width = int((math.sqrt(max(0.0, b * b - 4 * a * c)) - b) / (2 * a))
    return max(0, min(width, _MAX_WIDTH))


class _Neurcomp:
    """Plans Neurcomp's networks, and stores and restores their plans."""

    def plan(self, request: Request) -> NeurcompNetwork:
        """Choose the blocks and their width for a budget."""
        least = self.least(request.original, request.settings, request.octants)
        items, axes = least.items, len(least.tree.shape)
        parameters = request.parameters(least) / items
        blocks = next((n for n in range(_BLOCKS, 1, -1) if widest(axes, parameters, n) >= _NARROW), 1)
        width = max(_LEAST_WIDTH, widest(axes, parameters, blocks))
        return NeurcompNetwork(request.octants, items, width, blocks)

    def least(self, original: TrainingVolume, settings: Settings, octants: Octree) -> NeurcompNetwork:
        """Return a network of one narrow block."""
        if settings.between not in BETWEEN[:2] or settings.within != "equal":
            raise InputError(
                f"expected no strategy for neurcomp, which has one network for all octants, got {settings.between} "
                f"between levels and {settings.within} within a level: leave them out, or take model 'tinc'"
            )
        return NeurcompNetwork(octants, len(original.items), _LEAST_WIDTH, 1)

    def pack(self, network: NeurcompNetwork) -> bytes:
        """Store the blocks and their width."""
        return bytes([network.blocks]) + varint(network.width)

    def parse(self, plan: bytes, tree: Octree, items: int, allowed: int) -> NeurcompNetwork:
        """Invert :meth:`pack`."""
        cursor = Cursor(plan, 0, "the plan")
        blocks = integer("residual blocks", cursor.u8("the residual blocks"), 1, _MAX_BLOCKS)
        width = integer("width", cursor.varint("the width"), 1, _MAX_WIDTH)
        check_end(cursor)
        network = NeurcompNetwork(tree, items, width, blocks)
        check_size(network.parameters, allowed)
        return network


FAMILY = _Neurcomp()

__all__ = ["FAMILY", "NeurcompNetwork", "network_parameters", "widest"]

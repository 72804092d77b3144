"""Neurcomp: one sine network with residual blocks for a whole volume.

Lu, Jiang, Levine and Berger, "Compressive Neural Representations of Volumetric Scalar Fields", Computer Graphics Forum
40, 2021, arXiv 2104.04523. A sine layer, then blocks ``x ← w₂ (x + sin(W₂ sin(W₁ w₁ x + b₁) + b₂))`` with ``w₁`` = ½ in
all but the first and ``w₂`` = ½ in the last, then a linear output.

Departures, and why: the frequency ω is folded into the weights and grows with the volume (theirs is 30 for any);
quantisation, coding and training are those of all families (theirs: k-means of the inner matrices, Adam at 5e-5 for
hours). Where its bytes are few, a network has fewer blocks than their seven rather than narrow ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from napari_tinc.geometry.octree import Octree
from napari_tinc.networks.plans import check_no_strategy, check_size, pack_sizes, parse_sizes
from napari_tinc.networks.protocol import Request, TrainingVolume
from napari_tinc.networks.whole import MAX_WIDTH, WholeNetwork, widest
from napari_tinc.settings import Settings
from napari_tinc.system.forks import with_fresh_locks

_BLOCKS, _MAX_BLOCKS = 7, 32
# Blocks of fewer features learn badly: better to have fewer blocks.
_NARROW, _LEAST_WIDTH = 16, 4


@with_fresh_locks
class NeurcompNetwork(WholeNetwork):
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

    def __init__(self, tree: Octree, items: int, width: int, blocks: int) -> None:
        super().__init__(tree, items, width, 1 + 2 * blocks)
        self.blocks = blocks

    @property
    def layer_width(self) -> int:
        """Width of the widest layer; residual blocks bear half the rate of plain layers."""
        return 2 * self.width

    def evaluate(self, parameters: Sequence[Tensor], inputs: Tensor) -> Tensor:
        """Evaluate every item at the same coordinates: (axes, points) to (items, points)."""
        layers = list(zip(parameters[::2], parameters[1::2], strict=True))
        (weight, bias), *inner, (out_weight, out_bias) = layers
        with torch.autocast(inputs.device.type, enabled=False):  # these phases run over many turns
            hidden = torch.sin(torch.baddbmm(bias, weight, inputs.expand(self.items, -1, -1)))
        for block in range(self.blocks):
            (weight, bias), (next_weight, next_bias) = inner[2 * block : 2 * block + 2]
            entering = hidden if block == 0 else 0.5 * hidden
            residual = torch.sin(torch.baddbmm(bias, weight, entering))
            hidden = hidden + torch.sin(torch.baddbmm(next_bias, next_weight, residual))
            if block == self.blocks - 1:
                hidden = 0.5 * hidden
        with torch.autocast(inputs.device.type, enabled=False):  # the output is what the loss compares
            return torch.baddbmm(out_bias, out_weight, hidden.to(out_bias.dtype))[:, 0]

    def of_items(self, items: int) -> NeurcompNetwork:
        """Return the same for another number of items."""
        return NeurcompNetwork(self.tree, items, self.width, self.blocks)


class _Neurcomp:
    """Plans Neurcomp's networks, and stores and restores their plans."""

    def plan(self, request: Request) -> NeurcompNetwork:
        """Choose the blocks and their width for a budget."""
        least = self.least(request.original, request.settings, request.octants)
        items, axes = least.items, len(least.tree.shape)
        parameters = request.parameters(least) / items
        blocks = next((n for n in range(_BLOCKS, 1, -1) if widest(axes, parameters, 1 + 2 * n) >= _NARROW), 1)
        width = max(_LEAST_WIDTH, widest(axes, parameters, 1 + 2 * blocks))
        return NeurcompNetwork(request.octants, items, width, blocks)

    def least(self, original: TrainingVolume, settings: Settings, octants: Octree) -> NeurcompNetwork:
        """Return a network of one narrow block."""
        check_no_strategy("neurcomp", settings)
        return NeurcompNetwork(octants, len(original.items), _LEAST_WIDTH, 1)

    def pack(self, network: NeurcompNetwork) -> bytes:
        """Store the blocks and their width."""
        return pack_sizes(network.blocks, network.width)

    def parse(self, plan: bytes, tree: Octree, items: int, allowed: int) -> NeurcompNetwork:
        """Invert :meth:`pack`."""
        blocks, width = parse_sizes(plan, "residual blocks", (1, _MAX_BLOCKS), MAX_WIDTH)
        network = NeurcompNetwork(tree, items, width, blocks)
        check_size(network.parameters, allowed)
        return network


FAMILY = _Neurcomp()

__all__ = ["FAMILY", "NeurcompNetwork"]

"""SIREN: one network of sine layers for a whole volume, as COIN compresses with it.

Sitzmann et al., "Implicit Neural Representations with Periodic Activation Functions", NeurIPS 2020, arXiv 2006.09661;
Dupont et al., "COIN: COmpression with Implicit Neural representations", 2021, arXiv 2103.03123:
``f = W_n h_n + b_n`` with ``h_{i+1} = sin(W_i h_i + b_i)``.

Departures, and why: ω is folded into the weights and grows with the volume (30 for any there); about 6 bits a weight
and entropy coding for 16 bits; five layers, as TINC and SCI have, and fewer where they would be narrow (COIN: ten).
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

_LAYERS, _LEAST_LAYERS, _MAX_LAYERS = 5, 2, 64
_NARROW, _LEAST_WIDTH = 12, 4


@with_fresh_locks
class SirenNetwork(WholeNetwork):
    """Sine layers of equal width, then a linear one."""

    def evaluate(self, parameters: Sequence[Tensor], inputs: Tensor) -> Tensor:
        """Evaluate every item at the same coordinates: (axes, points) to (items, points)."""
        layers = list(zip(parameters[::2], parameters[1::2], strict=True))
        (weight, bias), *inner, (out_weight, out_bias) = layers
        with torch.autocast(inputs.device.type, enabled=False):  # these phases run over many turns
            hidden = torch.sin(torch.baddbmm(bias, weight, inputs.expand(self.items, -1, -1)))
        for weight, bias in inner:
            hidden = torch.sin(torch.baddbmm(bias, weight, hidden))
        with torch.autocast(inputs.device.type, enabled=False):  # the output is what the loss compares
            return torch.baddbmm(out_bias, out_weight, hidden.to(out_bias.dtype))[:, 0]

    def of_items(self, items: int) -> SirenNetwork:
        """Return the same for another number of items."""
        return SirenNetwork(self.tree, items, self.width, self.layers)


class _Siren:
    """Plans SIRENs, and stores and restores their plans."""

    def plan(self, request: Request) -> SirenNetwork:
        """Choose layers and width for a budget."""
        least = self.least(request.original, request.settings, request.octants)
        axes, parameters = len(least.tree.shape), request.parameters(least) / least.items
        usual = range(_LAYERS, _LEAST_LAYERS, -1)
        layers = next((n for n in usual if widest(axes, parameters, n) >= _NARROW), _LEAST_LAYERS)
        return SirenNetwork(request.octants, least.items, max(_LEAST_WIDTH, widest(axes, parameters, layers)), layers)

    def least(self, original: TrainingVolume, settings: Settings, octants: Octree) -> SirenNetwork:
        """Return a narrow network of two layers."""
        check_no_strategy("siren", settings)
        return SirenNetwork(octants, len(original.items), _LEAST_WIDTH, _LEAST_LAYERS)

    def pack(self, network: SirenNetwork) -> bytes:
        """Store the sine layers and their width."""
        return pack_sizes(network.layers, network.width)

    def parse(self, plan: bytes, tree: Octree, items: int, allowed: int) -> SirenNetwork:
        """Invert :meth:`pack`."""
        layers, width = parse_sizes(plan, "sine layers", (1, _MAX_LAYERS), MAX_WIDTH)
        network = SirenNetwork(tree, items, width, layers)
        check_size(network.parameters, allowed)
        return network


FAMILY = _Siren()

__all__ = ["FAMILY", "SirenNetwork"]

"""NeRV: a convolutional decoder that makes a whole plane of its number.

Chen et al., "NeRV: Neural Representations for Videos", NeurIPS 2021, arXiv 2110.13903. The number of a frame,
``t`` in [0, 1], becomes ``sin, cos(π 1.25^k t)``; two dense layers make a small image of that, and blocks of a 3 × 3
convolution and a pixel shuffle make it twice as large each, until it has the plane's size. GELU behind all of them,
then a 1 × 1 convolution.

Departures, and why: planes along z are the frames, and an image is one; all blocks have the same channels, and
as many as the budget pays for; what is beyond the plane's size is cut off, so that sides may be any; the loss is the
squared error that all families have (theirs: L1 and SSIM); no pruning.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import conv2d, gelu, pixel_shuffle

from napari_tinc.geometry.octree import Octree
from napari_tinc.geometry.sampling import interpolate, neighbours, sample_positions
from napari_tinc.networks.blockwise import Blocks, BlockSamples, blocks_of
from napari_tinc.networks.plans import check_no_strategy, check_size, pack_sizes, parse_sizes
from napari_tinc.networks.protocol import (
    Array,
    Bounds,
    Floats32,
    Nodes,
    Parameters,
    Request,
    Schedule,
    TrainingVolume,
)
from napari_tinc.networks.undivided import UndividedNetwork, arrays_of, layer_tensors
from napari_tinc.settings import Settings
from napari_tinc.system.forks import with_fresh_locks

# Frequencies of the number of a frame: the highest turns once in some three frames of 500.
_BASE, _FREQUENCIES = 1.25, 24
# Blocks double a plane; the first one starts from at least this side.
_LEAST_SIDE, _MOST_BLOCKS = 4, 5
_LEAST_WIDTH, _MAX_WIDTH = 2, 1024
_VOXELS_PER_STEP, _RATE = 2**13, 0.005


@with_fresh_locks
class NervNetwork(UndividedNetwork):
    """One decoder for every item.

    Parameters
    ----------
    tree : Octree
        Partition into octants, which the network knows nothing of.
    items : int
    width : int
        Channels of all layers.
    blocks : int
        Convolutions that double a plane.
    """

    leaf_count = 1

    def __init__(self, tree: Octree, items: int, width: int, blocks: int) -> None:
        super().__init__(tree, items)
        self.width, self.blocks = width, blocks

    @property
    def frames(self) -> int:
        """Planes of an item."""
        return math.prod(self.tree.shape[:-2])

    @property
    def small(self) -> tuple[int, int]:
        """Sides of the plane that the dense layers make."""
        height, width = (-(-n // 2**self.blocks) for n in self.tree.shape[-2:])
        return height, width

    @property
    def _layers(self) -> list[tuple[int, int]]:
        """Outputs of every layer, and inputs of each: two dense ones, the blocks, the output."""
        width = self.width
        dense = [(width, 2 * _FREQUENCIES), (width * math.prod(self.small), width)]
        return [*dense, *[(4 * width, 9 * width)] * self.blocks, (1, width)]

    @property
    def parameters(self) -> int:
        """Number of parameters."""
        return self.items * sum(out * (fan_in + 1) for out, fan_in in self._layers)

    @cached_property
    def arrays(self) -> tuple[Array, ...]:
        """Of every layer its weights, then its biases."""
        return arrays_of(self.items, layer_tensors(self._layers))

    def initial(self, generator: torch.Generator) -> list[Tensor]:
        """Draw weights that keep the variance through rectifiers (He et al., 2015, arXiv 1502.01852)."""
        return [
            torch.zeros(array.shape) if array.position % 2
            else (torch.rand(array.shape, generator=generator) * 2 - 1) * math.sqrt(6 / array.shape[2])
            for array in self.arrays
        ]  # fmt: skip

    def schedule(self, steps: int, growth: float, time_limit: float | None) -> Schedule:
        """Grow steps and batch with the square root of the volume, so that the cost per voxel stays the same."""
        planes = min(self.frames, blocks_of(_VOXELS_PER_STEP * growth / self.items, self._frames))
        return Schedule(round(steps * growth), planes, _RATE, time_limit, fewest=1)

    @cached_property
    def _frames(self) -> Blocks:
        return Blocks.frames(self.tree.shape)

    def samples(self, original: TrainingVolume, device: torch.device) -> BlockSamples:
        """Cut the items into planes."""
        return BlockSamples.of(original, self._frames, device)

    def evaluate(self, parameters: Sequence[Tensor], inputs: Tensor) -> Tensor:
        """Evaluate the same planes of every item: their numbers (n,) to values (items * n, voxels)."""
        planes = self.planes(parameters, inputs, self.items)
        return planes.movedim(1, 0).reshape(self.items * len(inputs), -1)

    def planes(self, parameters: Sequence[Tensor], numbers: Tensor, items: int) -> Tensor:
        """Make planes of their numbers, which need not be whole; (n, items, height, width)."""
        # In float64, for the highest frequency turns often; on the CPU, for not every device has that.
        times = numbers.to("cpu", torch.float64) / max(self.frames - 1, 1)
        angles = math.pi * times[:, None] * _BASE ** torch.arange(_FREQUENCIES, dtype=torch.float64)
        waves = torch.cat([torch.sin(angles), torch.cos(angles)], 1).T.float().to(parameters[0].device)
        hidden = waves.expand(items, -1, -1)
        layers = list(zip(parameters[::2], parameters[1::2], strict=True))
        for weight, bias in layers[:2]:
            hidden = gelu(torch.baddbmm(bias, weight, hidden))
        images = hidden.permute(2, 0, 1).reshape(len(numbers), items * self.width, *self.small)
        for weight, bias in layers[2:-1]:
            kernels = weight.reshape(-1, self.width, 3, 3)
            images = gelu(pixel_shuffle(conv2d(images, kernels, bias.flatten(), padding=1, groups=items), 2))
        images = images[..., : self.tree.shape[-2], : self.tree.shape[-1]]
        weight, bias = layers[-1]
        with torch.autocast(images.device.type, enabled=False):  # the output is what the loss compares
            kernels = weight.reshape(-1, self.width, 1, 1)
            return conv2d(images.to(bias.dtype), kernels, bias.flatten(), groups=items)

    def leaves(self, bounds: Bounds, scale: float) -> Nodes | None:
        """Return all: every plane needs all parameters."""
        return None

    @torch.inference_mode()
    def decode(self, parameters: Parameters, item: int, bounds: Bounds, scale: float) -> Floats32:
        """Make the planes of a region, as a whole, and read it from them."""
        own = [tensor[item : item + 1] for tensor in parameters.of(item, None, 1)]
        sides = zip(bounds, self.tree.shape, strict=True)
        grids = [np.clip(sample_positions(start, stop, scale, n), 0, n - 1) for (start, stop), n in sides]
        near = neighbours(grids[-2:], self.tree.shape[-2:])
        place = tuple(slice(start, stop) for start, stop in near)
        out = np.empty([stop - start for start, stop in bounds], np.float32)
        numbers = grids[0] if len(grids) > 2 else np.zeros(1)
        flat = out.reshape(len(numbers), *out.shape[-2:])
        for number, plane in enumerate(self._each(own, torch.from_numpy(numbers))):
            flat[number] = interpolate(plane[place], near, grids[-2:])
        return out

    def _each(self, parameters: Sequence[Tensor], numbers: Tensor) -> Iterator[Floats32]:
        """Make planes of an item one after the other."""
        for number in numbers:
            plane: Floats32 = self.planes(parameters, number[None], 1)[0, 0].cpu().numpy()
            yield plane


class _Nerv:
    """Plans decoders, and stores and restores their plans."""

    def plan(self, request: Request) -> NervNetwork:
        """Spend a budget on channels."""
        least = self.least(request.original, request.settings, request.octants)
        parameters = request.parameters(least)
        width = _LEAST_WIDTH
        while width < _MAX_WIDTH and self._of(least, width + 1).parameters <= parameters:
            width += 1
        return self._of(least, width)

    def _of(self, like: NervNetwork, width: int) -> NervNetwork:
        return NervNetwork(like.tree, like.items, width, like.blocks)

    def least(self, original: TrainingVolume, settings: Settings, octants: Octree) -> NervNetwork:
        """Return a narrow decoder, of as many blocks as the plane has octaves."""
        check_no_strategy("nerv", settings)
        side = min(octants.shape[-2:])
        blocks = max((n for n in range(1, _MOST_BLOCKS + 1) if side >> n >= _LEAST_SIDE), default=0)
        return NervNetwork(octants, len(original.items), _LEAST_WIDTH, blocks)

    def pack(self, network: NervNetwork) -> bytes:
        """Store the blocks and their width."""
        return pack_sizes(network.blocks, network.width)

    def parse(self, plan: bytes, tree: Octree, items: int, allowed: int) -> NervNetwork:
        """Invert :meth:`pack`."""
        # What blocks make is cut to the plane: they may not make much more.
        most = min(tree.shape[-2:]).bit_length() - 1
        blocks, width = parse_sizes(plan, "blocks", (0, most), _MAX_WIDTH)
        network = NervNetwork(tree, items, width, blocks)
        check_size(network.parameters, allowed)
        return network


FAMILY = _Nerv()

__all__ = ["FAMILY", "NervNetwork"]

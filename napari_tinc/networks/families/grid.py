"""A pyramid of latent grids, read by linear interpolation, and a small network that makes voxels of what they say.

Weiss, Hermüller and Westermann, "Fast Neural Representations for Direct Volume Rendering" (fV-SRN), Computer Graphics
Forum 41, 2022, arXiv 2112.01579: ``f(x) = network(grid(x), x, Fourier features of x)`` with layers of
``x / 2 + sin² x``. Here ``f(x) = Σ first features + network(features of all grids at x)``.

Departures, and why: several grids, each half as fine as the next, instead of one, for a pyramid is what an entropy
coder can use (Ladune et al., "COOL-CHIC", 2023, arXiv 2212.05458); as many features as the budget pays for instead of
16. The first features are added to the output and start as a Laplacian pyramid of the volume (Burt and Adelson, 1983),
so that training begins where a linear pyramid ends. No coordinates and no Fourier features: they gained nothing
(docs/families-measured.md). Latents have learnt steps, a coder with spatial contexts and a rate in the loss; theirs
take 8 bits each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from napari_tinc.format.cursor import Cursor, integer, varint
from napari_tinc.geometry.octree import Octree
from napari_tinc.geometry.sampling import sample_positions
from napari_tinc.networks.blockwise import Blocks, BlockSamples, blocks_of
from napari_tinc.networks.leafwise import normalised
from napari_tinc.networks.plans import check_end, check_no_strategy, check_size
from napari_tinc.networks.protocol import (
    BITS_PER_PARAMETER,
    PHASES,
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

_MAX_GRIDS, _MAX_FEATURES, _MAX_WIDTH, _MAX_OCTAVE = 8, 32, 256, 20
# Grids of a pyramid; the coarsest is eight times as coarse as the finest.
_GRIDS = 4
# Hidden features, few where the budget is small: the network may have this part of it.
_WIDTHS, _LEAST_WIDTH, _SHARE = (16, 8), 4, 0.3
# Found to win at equal bytes, see docs/families-measured.md: most latents of fine grids are 0.
_BITS_PER_LATENT = 1.3
_VOXELS_PER_STEP, _RATE, _RATE_WEIGHT = 2**13, 0.02, 0.5
# Latents besides the first feature's start nearly at 0.
_SPREAD = 0.01
# Positions in the list of arrays: weights and biases of three layers, then the grids.
_LAYERS = 3
_FIRST_GRID = 2 * _LAYERS
# Samples whose features are in the caches together.
_TILE = 2**14


@dataclass(frozen=True)
class Grid:
    """Where the cells of one grid are: at every voxel whose number is a multiple of the stride, axis by axis.

    Parameters
    ----------
    octaves : tuple of int
        Logarithm to base 2 of the strides.
    shape : tuple of int
        Of the volume.
    """

    octaves: tuple[int, ...]
    shape: tuple[int, ...]

    @cached_property
    def sides(self) -> tuple[int, ...]:
        """Cells along every axis: the last one is at the volume's last voxel or beyond."""
        return tuple((n - 2 >> octave) + 2 if n > 1 else 1 for n, octave in zip(self.shape, self.octaves, strict=True))

    @property
    def cells(self) -> int:
        """Number of cells."""
        return math.prod(self.sides)

    def place(self, axis: int, voxels: npt.NDArray[np.float64]) -> tuple[Nodes, Nodes, Floats32]:
        """Return the cells before and behind positions on an axis, and how far between the two they are."""
        places = voxels / 2 ** self.octaves[axis]
        low = np.floor(places).astype(np.int64)
        return low, np.minimum(low + 1, self.sides[axis] - 1), (places - low).astype(np.float32)

    def weights(self, axis: int) -> Floats32:
        """What every cell of an axis adds to every voxel; shape (voxels, cells)."""
        voxels = np.arange(self.shape[axis])
        low, high, share = self.place(axis, voxels.astype(np.float64))
        found = np.zeros((len(voxels), self.sides[axis]), np.float32)
        found[voxels, low] = 1 - share
        found[voxels, high] += share
        return found


@dataclass(frozen=True)
class _Reach:
    """What the blocks along an axis need of a grid.

    Parameters
    ----------
    cells : Tensor of int, shape (blocks, cells)
        Numbers of the cells that a block needs.
    weights : Tensor, shape (blocks, voxels, cells)
        What they add to its voxels.
    """

    cells: Tensor
    weights: Tensor

    @classmethod
    def of(cls, grid: Grid, axis: int, blocks: Blocks) -> _Reach:
        side, count = blocks.sides[axis], blocks.counts[axis]
        voxels = np.minimum(np.arange(count * side), grid.shape[axis] - 1)
        first = voxels[::side] >> grid.octaves[axis]
        cells = np.minimum(first[:, None] + np.arange((side - 1 >> grid.octaves[axis]) + 2), grid.sides[axis] - 1)
        rows = grid.weights(axis)[voxels].reshape(count, side, -1)
        weights = np.take_along_axis(rows, cells[:, None], 2)
        weights[:, :, 1:][np.broadcast_to((cells[:, 1:] == cells[:, :-1])[:, None], weights[:, :, 1:].shape)] = 0
        return cls(torch.from_numpy(cells), torch.from_numpy(weights))


@with_fresh_locks
class GridNetwork(UndividedNetwork):
    """Grids and a network of two hidden layers for every item.

    Parameters
    ----------
    tree : Octree
        Partition into octants, which the network knows nothing of.
    items : int
    width : int
        Hidden features of the network.
    features : int
        Of every cell.
    grids : sequence of Grid
        Coarse to fine.
    start : sequence of ndarray, optional
        First features of every grid before training, shape (items, *sides); see :func:`laplacian`.
    """

    leaf_count = 1

    def __init__(
        self, tree: Octree, items: int, width: int, features: int, grids: Sequence[Grid],
        start: Sequence[Floats32] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(tree, items)
        self.width, self.features = width, features
        self.grids, self._start = tuple(grids), start

    @property
    def latents(self) -> int:
        """Latents of an item."""
        return self.features * sum(grid.cells for grid in self.grids)

    @property
    def synthesis(self) -> int:
        """Parameters of an item besides its latents."""
        return sum(out * (fan_in + 1) for out, fan_in in self._layers)

    @property
    def parameters(self) -> int:
        """Number of parameters."""
        return self.items * (self.synthesis + self.latents)

    @property
    def _layers(self) -> list[tuple[int, int]]:
        """Outputs and inputs of every layer of the network."""
        return [(self.width, self.features * len(self.grids)), (self.width, self.width), (1, self.width)]

    @cached_property
    def arrays(self) -> tuple[Array, ...]:
        """Of every layer its weights, then its biases; then the grids, coarse to fine."""
        grids = [(f"grid {number}", (self.features, *grid.sides)) for number, grid in enumerate(self.grids)]
        return arrays_of(self.items, [*layer_tensors(self._layers), *grids])

    def initial(self, generator: torch.Generator) -> list[Tensor]:
        """Draw initial parameters: at first the network adds nothing to the pyramid that it starts from."""
        drawn = []
        for array in self.arrays[: _FIRST_GRID - 2]:
            bound = 0.0 if array.position % 2 else math.sqrt(3 / array.shape[2])
            drawn.append((torch.rand(array.shape, generator=generator) * 2 - 1) * bound)
        drawn += [torch.zeros(array.shape) for array in self.arrays[_FIRST_GRID - 2 : _FIRST_GRID]]
        drawn += [torch.randn(array.shape, generator=generator) * _SPREAD for array in self.arrays[_FIRST_GRID:]]
        for latents, first in zip(drawn[_FIRST_GRID:], self._start or (), strict=bool(self._start)):
            latents[:, 0] = torch.from_numpy(first)
        return drawn

    def schedule(self, steps: int, growth: float, time_limit: float | None) -> Schedule:
        """Grow steps and batch with the square root of the volume, so that the cost per voxel stays the same."""
        points = blocks_of(_VOXELS_PER_STEP * growth / self.items, self._blocks)
        phases = tuple(replace(phase, penalty=self.rate) for phase in PHASES)
        return Schedule(round(steps * growth), points, _RATE, time_limit, phases, fewest=1)

    def rate(self, parameters: Sequence[Tensor]) -> Tensor:
        """Share of their bits that the latents may take: ½ log₂(1 + (w / s)²) each, s being half the grid's own scale.

        A doubling of bytes is worth some 4 dB, so dD / dR ≈ -D / R, and D (1 + R / R₀) is what is minimised; half of
        that was better than all.
        """
        bits = torch.zeros((), device=parameters[0].device)
        for latents in parameters[_FIRST_GRID:]:
            scale = latents.detach().square().mean().sqrt() / 2 + 1e-6
            bits = bits + 0.5 * torch.log2(1 + (latents / scale).square()).sum()
        return _RATE_WEIGHT * bits / (_BITS_PER_LATENT * self.items * self.latents)

    def samples(self, original: TrainingVolume, device: torch.device) -> BlockSamples:
        """Cut the items into blocks."""
        return BlockSamples.of(original, self._blocks, device)

    @cached_property
    def _blocks(self) -> Blocks:
        return Blocks.small(self.tree.shape)

    @cached_property
    def _reaches(self) -> list[list[_Reach]]:
        """What blocks need of every grid, axis by axis."""
        axes = range(len(self.tree.shape))
        return [[_Reach.of(grid, axis, self._blocks) for axis in axes] for grid in self.grids]

    def evaluate(self, parameters: Sequence[Tensor], inputs: Tensor) -> Tensor:
        """Evaluate the same blocks of every item: numbers of blocks (n,) to values (items * n, voxels)."""
        where = torch.unravel_index(inputs, self._blocks.counts)
        read = [
            self._read(
                latents,
                [(r.cells.to(i.device)[i], r.weights.to(i.device)[i]) for r, i in zip(reach, where, strict=True)],
            )
            for latents, reach in zip(parameters[_FIRST_GRID:], self._reaches, strict=True)
        ]
        return self._synthesise(parameters, torch.cat(read, 2)).reshape(self.items * len(inputs), -1)

    def _read(self, latents: Tensor, places: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        """Interpolate a grid in blocks, given as cells and weights along every axis; (items, voxels, features)."""
        axes, count = len(places), len(places[0][0])
        index = torch.zeros((count,) + (1,) * axes, dtype=torch.long, device=latents.device)
        for axis, (cells, _) in enumerate(places):
            along = [-1 if other == axis else 1 for other in range(axes)]
            index = index + cells.reshape(count, *along) * math.prod(latents.shape[3 + axis :])
        rows = latents.flatten(2).mT[:, index.flatten()]
        read = rows.reshape(self.items * count, *index.shape[1:], self.features)
        with torch.autocast(latents.device.type, enabled=False):
            for _, weights in places:  # the first axis becomes the last one before the features
                read = torch.einsum("nvc,nc...f->n...vf", weights.repeat(self.items, 1, 1), read)
        return read.reshape(self.items, -1, self.features)

    def _synthesise(self, parameters: Sequence[Tensor], features: Tensor) -> Tensor:
        """Make voxels of features: (items, n, features of all grids) to (items, n)."""
        hidden = features
        for weight, bias in zip(parameters[: _FIRST_GRID - 2 : 2], parameters[1 : _FIRST_GRID - 2 : 2], strict=True):
            hidden = torch.baddbmm(bias.mT, hidden, weight.mT)
            hidden = hidden / 2 + torch.sin(hidden).square()
        weight, bias = parameters[_FIRST_GRID - 2 : _FIRST_GRID]
        with torch.autocast(features.device.type, enabled=False):  # the output is what the loss compares
            output = torch.baddbmm(bias.mT, hidden.to(bias.dtype), weight.mT)[..., 0]
            return output + features[..., :: self.features].sum(-1)

    def leaves(self, bounds: Bounds, scale: float) -> Nodes | None:
        """Return all: the grids of an item are decoded as a whole, some million latents a second."""
        return None

    @torch.inference_mode()
    def decode(self, parameters: Parameters, item: int, bounds: Bounds, scale: float) -> Floats32:
        """Interpolate the grids axis by axis, and evaluate the network some planes at a time."""
        tensors, device = parameters.of(item, None, 1), parameters.device
        sides = zip(bounds, self.tree.shape, strict=True)
        grids = [np.clip(sample_positions(start, stop, scale, n), 0, n - 1) for (start, stop), n in sides]
        own = [tensor[item : item + 1] for tensor in tensors[:_FIRST_GRID]]
        out = np.empty([stop - start for start, stop in bounds], np.float32)
        planes = max(1, _TILE // max(1, math.prod(out.shape[1:])))
        for first in range(0, len(out), planes):
            part = [grids[0][first : first + planes], *grids[1:]]
            read = [
                _interpolated(latents[item], grid, part, device)
                for latents, grid in zip(tensors[_FIRST_GRID:], self.grids, strict=True)
            ]
            values = self._synthesise(own, torch.cat(read, 1)[None])
            out[first : first + planes] = values.reshape([len(places) for places in part]).cpu().numpy()
        return out


def _interpolated(
    latents: Tensor, grid: Grid, places: Sequence[npt.NDArray[np.float64]], device: torch.device
) -> Tensor:
    """Interpolate a grid, (features, *sides), at positions along every axis; (samples, features)."""
    for axis, voxels in enumerate(places):
        low, high, share = (torch.from_numpy(part).to(device) for part in grid.place(axis, voxels))
        share = share.reshape([-1 if other == axis else 1 for other in range(len(places))])
        latents = torch.lerp(latents.index_select(axis + 1, low), latents.index_select(axis + 1, high), share)
    return latents.flatten(1).T


def pyramid(shape: tuple[int, ...], octave: int) -> list[Grid]:
    """Grids coarse to fine; the finest has a stride of 2**octave, or less along short axes."""
    found: list[Grid] = []
    for coarser in range(_GRIDS - 1, -1, -1):
        octaves = tuple(min(octave + coarser, max(0, (n // 3).bit_length() - 1)) for n in shape)
        if not found or octaves != found[-1].octaves:
            found.append(Grid(octaves, shape))
    return found


def laplacian(original: TrainingVolume, grids: Sequence[Grid]) -> list[Floats32]:
    """Return least-squares cells of every grid for what the coarser ones leave over; shape (items, *sides)."""
    found: list[list[Floats32]] = [[] for _ in grids]
    for item, limits in zip(original.items, original.ranges, strict=True):
        left = normalised(item, limits)
        for grid, of_grid in zip(grids, found, strict=True):
            cells = left
            matrices = [grid.weights(axis) for axis in range(left.ndim)]
            for axis, matrix in enumerate(matrices):
                gram = matrix.T @ matrix + 1e-6 * np.eye(matrix.shape[1], dtype=np.float32)
                cells = _along(np.linalg.solve(gram, matrix.T), cells, axis)
            said = cells
            for axis, matrix in enumerate(matrices):
                said = _along(matrix, said, axis)
            left = left - said
            of_grid.append(cells)
    return [np.stack(cells) for cells in found]


def _along(matrix: Floats32, values: Floats32, axis: int) -> Floats32:
    """Multiply an axis by a matrix."""
    return np.moveaxis(np.tensordot(matrix, values, (1, axis)), 0, axis)


class _Grid:
    """Plans pyramids of grids, and stores and restores their plans."""

    def plan(self, request: Request) -> GridNetwork:
        """Choose the finest pyramid that a feature of it fits the budget, then the features."""
        original, tree = request.original, request.octants
        least = self.least(original, request.settings, tree)
        bits = BITS_PER_PARAMETER * request.parameters(least) / least.items

        def fits(network: GridNetwork) -> bool:
            return BITS_PER_PARAMETER * network.synthesis + _BITS_PER_LATENT * network.latents <= bits

        for width in (*_WIDTHS, _LEAST_WIDTH):
            for octave in range(1, _MAX_OCTAVE + 1):
                grids = pyramid(tree.shape, octave)
                made = [GridNetwork(tree, least.items, width, n, grids) for n in range(1, _MAX_FEATURES + 1)]
                fitting = [network for network in made if fits(network)]
                if fitting or grids[-1].cells == least.grids[-1].cells:
                    break
            if fitting and BITS_PER_PARAMETER * fitting[-1].synthesis <= _SHARE * bits:
                break
        chosen = fitting[-1] if fitting else least
        start = laplacian(original, chosen.grids)
        return GridNetwork(tree, least.items, chosen.width, chosen.features, chosen.grids, start)

    def least(self, original: TrainingVolume, settings: Settings, octants: Octree) -> GridNetwork:
        """Return the coarsest grid, and a narrow network."""
        check_no_strategy("grid", settings)
        return GridNetwork(octants, len(original.items), _LEAST_WIDTH, 1, pyramid(octants.shape, _MAX_OCTAVE)[:1])

    def pack(self, network: GridNetwork) -> bytes:
        """Store the features, the width, and the strides of every grid."""
        head = bytes([len(network.grids), network.features]) + varint(network.width)
        return head + b"".join(bytes(grid.octaves) for grid in network.grids)

    def parse(self, plan: bytes, tree: Octree, items: int, allowed: int) -> GridNetwork:
        """Invert :meth:`pack`."""
        cursor = Cursor(plan, 0, "the plan")
        count = integer("grids", cursor.u8("the grids"), 1, _MAX_GRIDS)
        features = integer("features", cursor.u8("the features"), 1, _MAX_FEATURES)
        width = integer("width", cursor.varint("the width"), 1, _MAX_WIDTH)
        grids = []
        for _ in range(count):
            octaves = (integer("octave of a stride", cursor.u8("a stride"), 0, _MAX_OCTAVE) for _ in tree.shape)
            grids.append(Grid(tuple(octaves), tree.shape))
        check_end(cursor)
        network = GridNetwork(tree, items, width, features, grids)
        check_size(network.parameters, allowed)
        return network


FAMILY = _Grid()

__all__ = ["FAMILY", "Grid", "GridNetwork", "laplacian", "pyramid"]

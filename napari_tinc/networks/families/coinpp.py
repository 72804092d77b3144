"""COIN++: a base network that comes with the program, and a few numbers per patch that modulate it.

Dupont et al., "COIN++: Neural Compression Across Modalities", TMLR 2022, arXiv 2201.12904: a SIREN (Sitzmann et al.,
2020, arXiv 2006.09661) is learnt beforehand from many patches, ``h_{i+1} = sin(W_i h_i + b_i + M_i φ)``; a file holds φ
of every patch, which some gradient steps find. The base is meta-learnt (Finn et al., "MAML", 2017, arXiv 1703.03400)
by ``scripts/make_coinpp_base.py``.

Departures, and why: the inner step of the meta-learning, and the start here, is a least-squares solution of the network
made linear at φ = 0, for that is the same small matrix for all patches (Bertinetto et al., 2019, arXiv 1805.08136);
theirs are three gradient steps. M is turned so that numbers at the beginning of φ say the most and all are worth the
same: one base serves any number of them, and one step quantises all (theirs: a base for every number). The side of a
patch follows the budget. Rows of a modulation and columns of a patch are contexts to each other.
"""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import resources

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import linear

from napari_tinc.errors import FormatError, TincError
from napari_tinc.format.cursor import Cursor, integer, varint
from napari_tinc.geometry.octree import Octree
from napari_tinc.geometry.sampling import sample_positions
from napari_tinc.networks.blockwise import Blocks, BlockSamples, blocks_of
from napari_tinc.networks.leafwise import normalised
from napari_tinc.networks.plans import check_end, check_no_strategy, check_size
from napari_tinc.networks.protocol import (
    BITS_PER_PARAMETER,
    Array,
    Bounds,
    Floats32,
    Nodes,
    Parameters,
    Request,
    Schedule,
    TrainingVolume,
)
from napari_tinc.networks.undivided import UndividedNetwork, arrays_of
from napari_tinc.settings import Settings
from napari_tinc.system.forks import with_fresh_locks

# Voxels along every axis of the patches that the base has learnt from.
SIDE = 16
# Logarithms to base 2 of the voxels that patches of files have.
_COARSEST, _FINEST = 5, 3
# The beginning of the SHA-256 of data/coinpp.npz: files say which base they need, and this is the one there is.
BASE = bytes.fromhex("97e56db613d537d4")
# Found to win at equal bytes, see docs/families-measured.md.
_BITS_PER_MODULATION = 1.5
# Half of what the grid sees in a step: the other half gained 0.2 dB in the median (docs/families-measured.md).
_VOXELS_PER_STEP, _RATE = 2**12, 0.003
# Voxels that are decoded together.
_TILE = 2**14


@dataclass(frozen=True, eq=False)
class Base:
    """A network of sine layers, and what modulations do to it.

    Parameters
    ----------
    weights, biases : tuple of Tensor
        Of every layer, shapes (out, in) and (out,); the first takes three coordinates in -1 … 1, z first, the last is
        linear.
    turns : Tensor, shape (sum of the sine layers' widths, modulations)
        Maps modulations to what is added in every sine layer.
    """

    weights: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]
    turns: Tensor

    @property
    def modulations(self) -> int:
        """The most of a patch."""
        return self.turns.shape[1]

    def values(self, coordinates: Tensor, shifts: Tensor) -> Tensor:
        """Evaluate the network.

        Parameters
        ----------
        coordinates : Tensor, shape (points, 3)
        shifts : Tensor, shape (..., points or 1, sum of widths)
            What is added before every sine, layer after layer.

        Returns
        -------
        Tensor, shape (..., points)
        """
        *sines, (weight, bias) = zip(self.weights, self.biases, strict=True)
        hidden, first = coordinates, 0
        for matrix, offset in sines:
            last = first + len(matrix)
            hidden = torch.sin(linear(hidden, matrix, offset) + shifts[..., first:last])
            first = last
        return linear(hidden, weight, bias)[..., 0]

    def linear(self, coordinates: Tensor, *, differentiable: bool = False) -> tuple[Tensor, Tensor]:
        """Make the network linear where all modulations are 0.

        Returns
        -------
        values : Tensor, shape (points,)
        slopes : Tensor, shape (points, modulations)
        """
        shifts = torch.zeros(len(coordinates), len(self.turns), requires_grad=True)
        values = self.values(coordinates, shifts)
        (slopes,) = torch.autograd.grad(values.sum(), shifts, create_graph=differentiable)
        return values, slopes @ self.turns

    def to(self, device: torch.device) -> Base:
        """Return the same on another device."""
        weights, biases = (tuple(tensor.to(device) for tensor in of) for of in (self.weights, self.biases))
        return Base(weights, biases, self.turns.to(device))


@cache
def shipped(device: str = "cpu") -> Base:
    """Return the base that comes with the program."""
    # Whoever asks first may be decoding, and what is made in inference mode cannot be trained with later.
    with torch.inference_mode(False), np.load(io.BytesIO(_content()), allow_pickle=False) as arrays:
        layers = range(sum(name.startswith("weight") for name in arrays))
        weights, biases = (tuple(torch.from_numpy(arrays[f"{n}_{i}"]) for i in layers) for n in ("weight", "bias"))
        return Base(weights, biases, torch.from_numpy(arrays["turns"])).to(torch.device(device))


def _content() -> bytes:
    content = resources.files("napari_tinc").joinpath("data", "coinpp.npz").read_bytes()
    found = hashlib.sha256(content).digest()[: len(BASE)]
    if found != BASE:
        raise TincError(f"expected the base {BASE.hex()} of coinpp, got {found.hex()}: install napari-tinc again")
    return content


def patch_coordinates(sides: Sequence[int], side: int = SIDE) -> Tensor:
    """Coordinates of the voxels of a patch, which is thin where a volume is; z = 0 in images. Shape (voxels, 3)."""
    axes = [(torch.arange(n) * 2.0 - (n - 1)) / side for n in sides]
    axes = [torch.zeros(1)] * (3 - len(axes)) + axes
    return torch.stack([axis.ravel() for axis in torch.meshgrid(*axes, indexing="ij")], 1)


@with_fresh_locks
class CoinppNetwork(UndividedNetwork):
    """Modulations of the shipped base for every patch of every item.

    Parameters
    ----------
    tree : Octree
        Partition into octants, which the network knows nothing of.
    items : int
    octave : int
        Logarithm to base 2 of the side of a patch.
    kept : int
        Modulations of a patch.
    start : ndarray, optional
        Modulations before training, shape (items, kept, patches); see :func:`solved`.
    """

    leaf_count = 1

    def __init__(self, tree: Octree, items: int, octave: int, kept: int, start: Floats32 | None = None) -> None:
        super().__init__(tree, items)
        self.octave, self.kept, self._start = octave, kept, start

    @cached_property
    def patches(self) -> Blocks:
        """The patches."""
        return Blocks(self.tree.shape, tuple(min(2**self.octave, n) for n in self.tree.shape))

    @property
    def parameters(self) -> int:
        """Number of parameters."""
        return self.items * self.kept * math.prod(self.patches.counts)

    @property
    def provenance(self) -> Mapping[str, float]:  # type: ignore[override]
        """Side of a patch, and modulations."""
        return {"patch_side": 2**self.octave, "modulations": self.kept}

    @cached_property
    def arrays(self) -> tuple[Array, ...]:
        """One: a row for every modulation, a column for every patch."""
        return arrays_of(self.items, [("modulations", (self.kept, math.prod(self.patches.counts)))])

    @cached_property
    def coordinates(self) -> Tensor:
        """Of the voxels of a patch."""
        return patch_coordinates(self.patches.sides, 2**self.octave)

    def initial(self, generator: torch.Generator) -> list[Tensor]:
        """Return what was solved for; nothing is drawn."""
        return [torch.zeros(self.arrays[0].shape) if self._start is None else torch.from_numpy(self._start)]

    def schedule(self, steps: int, growth: float, time_limit: float | None) -> Schedule:
        """Grow steps and batch with the square root of the volume, so that the cost per voxel stays the same."""
        points = blocks_of(_VOXELS_PER_STEP * growth / self.items, self.patches)
        return Schedule(round(steps * growth), points, _RATE, time_limit, fewest=1)

    def samples(self, original: TrainingVolume, device: torch.device) -> BlockSamples:
        """Cut the items into patches."""
        return BlockSamples.of(original, self.patches, device)

    def evaluate(self, parameters: Sequence[Tensor], inputs: Tensor) -> Tensor:
        """Evaluate the same patches of every item: numbers of patches (n,) to values (items * n, voxels)."""
        base, (modulations,) = shipped(str(inputs.device)), parameters
        with torch.autocast(inputs.device.type, enabled=False):  # phases run over many turns
            rows = modulations[:, :, inputs].mT.flatten(0, 1)
            shifts = rows @ base.turns[:, : self.kept].T
            return base.values(self.coordinates.to(inputs.device), shifts[:, None])

    def leaves(self, bounds: Bounds, scale: float) -> Nodes | None:
        """Return all: the modulations of an item are decoded as a whole, some million a second."""
        return None

    @torch.inference_mode()
    def decode(self, parameters: Parameters, item: int, bounds: Bounds, scale: float) -> Floats32:
        """Evaluate the base some lines at a time."""
        rows, device = parameters.of(item, None, 1)[0][item].T, parameters.device
        base, out = shipped(str(device)), np.empty([stop - start for start, stop in bounds], np.float32)
        places = [self._place(axis, *ends, scale) for axis, ends in enumerate(bounds)]
        lines = out.reshape(-1, out.shape[-1])
        count = max(1, _TILE // out.shape[-1])
        for first in range(0, len(lines), count):
            index = np.unravel_index(np.arange(first, min(first + count, len(lines))), out.shape[:-1])
            part = [(patch[i][:, None], local[i][:, None]) for (patch, local), i in zip(places, index, strict=False)]
            part.append((places[-1][0][None], places[-1][1][None]))
            numbers = np.ravel_multi_index(np.broadcast_arrays(*(patch for patch, _ in part)), self.patches.counts)
            needed, own = np.unique(numbers, return_inverse=True)
            shifts = rows[torch.from_numpy(needed).to(device)] @ base.turns[:, : self.kept].T
            local = np.zeros((3, *numbers.shape), np.float32)
            local[3 - len(part) :] = np.broadcast_arrays(*(places for _, places in part))
            at = torch.from_numpy(local.reshape(3, -1).T).to(device)
            values = base.values(at, shifts[torch.from_numpy(own.ravel()).to(device)])
            lines[first : first + count] = values.reshape(numbers.shape).cpu().numpy()
        return out

    def _place(self, axis: int, start: int, stop: int, scale: float) -> tuple[npt.NDArray[np.int64], Floats32]:
        """Patches of samples along an axis, and their coordinates there."""
        n, side = self.tree.shape[axis], self.patches.sides[axis]
        voxels = np.clip(sample_positions(start, stop, scale, n), 0, n - 1)
        patch = np.floor(voxels + 0.5).astype(np.int64) // side
        local = (2 * (voxels - patch * side) - (side - 1)) / 2**self.octave
        return patch, local.astype(np.float32)


def solved(original: TrainingVolume, network: CoinppNetwork) -> Floats32:
    """Return the modulations of least squares where the base is linear; shape (items, kept, patches)."""
    base, kept = shipped(), network.kept
    with torch.enable_grad():
        said, slopes = (tensor.detach().numpy() for tensor in base.linear(network.coordinates))
        whole = base.linear(patch_coordinates((SIDE,) * 3))[1].detach().numpy()[:, :kept]
    slopes = slopes[:, :kept]
    # The base is turned so that its prior and the slopes of a whole patch make 1.
    prior = np.eye(kept) - whole.T @ whole / len(whole)
    matrix = np.linalg.solve(slopes.T @ slopes / len(slopes) + prior, slopes.T / len(slopes))
    found = [
        matrix @ (normalised(network.patches.cut(item), limits) - said).T
        for item, limits in zip(original.items, original.ranges, strict=True)
    ]
    return np.stack(found).astype(np.float32)


class _Coinpp:
    """Plans patches and their modulations, and stores and restores their plans."""

    def plan(self, request: Request) -> CoinppNetwork:
        """Take the largest patches that can use the budget, and as many modulations as it pays for."""
        least = self.least(request.original, request.settings, request.octants)
        bits = BITS_PER_PARAMETER * request.parameters(least) / least.items
        most = shipped().modulations
        for octave in range(_COARSEST, _FINEST - 1, -1):
            patches = math.prod(CoinppNetwork(least.tree, least.items, octave, 1).patches.counts)
            kept = int(bits / (_BITS_PER_MODULATION * patches))
            if kept <= most:
                break
        kept = min(max(1, kept), most)
        network = CoinppNetwork(least.tree, least.items, octave, kept)
        return CoinppNetwork(least.tree, least.items, octave, kept, solved(request.original, network))

    def least(self, original: TrainingVolume, settings: Settings, octants: Octree) -> CoinppNetwork:
        """Return one modulation for every large patch."""
        check_no_strategy("coinpp", settings)
        return CoinppNetwork(octants, len(original.items), _COARSEST, 1)

    def pack(self, network: CoinppNetwork) -> bytes:
        """Store the patches, the modulations, and which base they are for."""
        return bytes([network.octave]) + varint(network.kept) + BASE

    def parse(self, plan: bytes, tree: Octree, items: int, allowed: int) -> CoinppNetwork:
        """Invert :meth:`pack`."""
        cursor = Cursor(plan, 0, "the plan")
        octave = integer("octave of a patch's side", cursor.u8("the patches"), _FINEST, _COARSEST)
        kept = integer("modulations", cursor.varint("the modulations"), 1, shipped().modulations)
        needed = cursor.take(len(BASE), "the base")
        check_end(cursor)
        if needed != BASE:
            raise FormatError(
                f"expected a file for the base {BASE.hex()} that this version has, got one for {needed.hex()}: "
                "open it with the version that wrote it"
            )
        network = CoinppNetwork(tree, items, octave, kept)
        check_size(network.parameters, allowed)
        return network


FAMILY = _Coinpp()

__all__ = ["BASE", "FAMILY", "SIDE", "Base", "CoinppNetwork", "patch_coordinates", "shipped", "solved"]

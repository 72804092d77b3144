"""Tucker decomposition: a core of coefficients, and a basis for every axis that is made for the volume.

Ballester-Ripoll, Lindstrom and Pajarola, "TTHRESH: Tensor Compression for Multidimensional Visual Data", IEEE TVCG 26,
2020, arXiv 1806.05952: ``v = C ×₁ U₁ ×₂ U₂ ×₃ U₃`` by the higher-order singular value decomposition, of which the core
``C`` is coded coarsely, and factors ``U`` in columns weighted by the norms of the core's slices. No network, and no
training: the family finds its parameters when it plans.

Departures, and why: one step for the core and each factor and the coder of all families, with contexts in space, for
bit planes with run lengths; the norms are stored as rounded logarithms, not as doubles, for small files feel them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from napari_tinc.errors import InputError
from napari_tinc.format.cursor import Cursor, integer, varint
from napari_tinc.geometry.octree import Octree
from napari_tinc.geometry.sampling import sample_positions
from napari_tinc.networks.blockwise import Blocks, BlockSamples, blocks_of
from napari_tinc.networks.entropy import estimated_bits
from napari_tinc.networks.latents import LARGEST, estimated_latent_bits
from napari_tinc.networks.leafwise import normalised
from napari_tinc.networks.plans import (
    MAX_PARAMETERS_PER_BYTE,
    allowed_parameters,
    check_end,
    check_no_strategy,
    check_size,
)
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

Decomposition = tuple[Floats32, list[Floats32]]
"""Core, and of every axis its orthonormal factor, (side, side): columns by falling norm of the core's slices."""

_VOXELS_PER_STEP = 2**16
# Not trained: the one step that a schedule has at least changes nothing.
_NO_RATE = 1e-30
# A slice of the core that is this much weaker than the first is as good as 0, and has a logarithm.
_WEAKEST = 2**-30
_TRIES = 12
_COLUMNS = 2**14


@with_fresh_locks
class TuckerNetwork(UndividedNetwork):
    """A core and factors for every item.

    Parameters
    ----------
    tree : Octree
        Partition into octants, which the decomposition knows nothing of.
    items : int
    ranks : tuple of int
        Sides of the core.
    start : sequence of Decomposition, optional
        Of every item, before they are cut to the ranks.
    """

    leaf_count = 1

    def __init__(
        self, tree: Octree, items: int, ranks: tuple[int, ...], start: Sequence[Decomposition] | None = None
    ) -> None:
        super().__init__(tree, items)
        self.ranks, self._start = ranks, start

    @property
    def parameters(self) -> int:
        """Number of parameters."""
        pairs = zip(self.tree.shape, self.ranks, strict=True)
        return self.items * (math.prod(self.ranks) + sum((n + 1) * rank for n, rank in pairs))

    @cached_property
    def arrays(self) -> tuple[Array, ...]:
        """Of every axis the logarithms of its norms and its weighted factor; then the core."""
        named: list[tuple[str, tuple[int, ...]]] = []
        for axis, (n, rank) in enumerate(zip(self.tree.shape, self.ranks, strict=True)):
            named += [(f"norms {axis}", (1, rank)), (f"factor {axis}", (n, rank))]
        named.append(("core", (1, *self.ranks)))
        return arrays_of(self.items, named)

    def initial(self, generator: torch.Generator) -> list[Tensor]:
        """Return the decomposition that was found for the volume; zeros without one."""
        tensors = [torch.zeros(array.shape) for array in self.arrays]
        for item, (core, factors) in enumerate(self._start or ()):
            kept = core[tuple(slice(0, rank) for rank in self.ranks)]
            tensors[-1][item, 0] = torch.from_numpy(kept)
            for axis, (factor, rank) in enumerate(zip(factors, self.ranks, strict=True)):
                norms = slice_norms(kept, axis)
                tensors[2 * axis][item, 0] = torch.from_numpy(np.log2(norms))
                tensors[2 * axis + 1][item] = torch.from_numpy(factor[:, :rank] * norms)
        return tensors

    def schedule(self, steps: int, growth: float, time_limit: float | None) -> Schedule:
        """Return one step that changes nothing."""
        points = blocks_of(_VOXELS_PER_STEP, self._planes)
        return Schedule(1, min(points, self.tree.shape[0]), _NO_RATE, fewest=1)

    def samples(self, original: TrainingVolume, device: torch.device) -> BlockSamples:
        """Cut the items into planes."""
        return BlockSamples.of(original, self._planes, device)

    @cached_property
    def _planes(self) -> Blocks:
        return Blocks.planes(self.tree.shape)

    def evaluate(self, parameters: Sequence[Tensor], inputs: Tensor) -> Tensor:
        """Evaluate the same planes of every item: their numbers (n,) to values (items * n, voxels)."""
        bases = self._bases(parameters)
        values = _expand(parameters[-1][:, 0], [bases[0][:, inputs], *bases[1:]])
        return values.reshape(self.items * len(inputs), -1)

    def _bases(self, parameters: Sequence[Tensor]) -> list[Tensor]:
        """Factors of every axis, (items, side, rank)."""
        pairs = zip(parameters[:-1:2], parameters[1:-1:2], strict=True)
        return [factor * torch.exp2(-norms) for norms, factor in pairs]

    def leaves(self, bounds: Bounds, scale: float) -> Nodes | None:
        """Return all: every coefficient of the core matters everywhere."""
        return None

    @torch.inference_mode()
    def decode(self, parameters: Parameters, item: int, bounds: Bounds, scale: float) -> Floats32:
        """Multiply the core by the rows of the factors that the region needs, interpolated where it is scaled."""
        tensors = [tensor[item : item + 1] for tensor in parameters.of(item, None, 1)]
        rows = []
        sides = zip(bounds, self.tree.shape, self._bases(tensors), strict=True)
        for (start, stop), n, base in sides:
            places = np.clip(sample_positions(start, stop, scale, n), 0, n - 1)
            low = np.floor(places).astype(np.int64)
            share = torch.from_numpy((places - low).astype(np.float32)[:, None]).to(base.device)
            first, second = (torch.from_numpy(i).to(base.device) for i in (low, np.minimum(low + 1, n - 1)))
            rows.append(torch.lerp(base[:, first], base[:, second], share))
        values: Floats32 = _expand(tensors[-1][:, 0], rows)[0].cpu().numpy()
        return values


def _expand(core: Tensor, rows: Sequence[Tensor]) -> Tensor:
    """Multiply every axis of cores by rows of factors: (items, *ranks) to (items, *rows)."""
    for base in rows:  # the first axis is taken away in front, and what it becomes is appended behind
        core = torch.einsum("ir...,inr->i...n", core, base)
    return core


def slice_norms(core: Floats32, axis: int) -> Floats32:
    """Norm of every slice of a core across an axis; never 0."""
    others = tuple(other for other in range(core.ndim) if other != axis)
    norms = np.sqrt(np.square(core.astype(np.float64)).sum(others))
    floored: Floats32 = np.maximum(norms, max(float(norms.max()), 1.0) * _WEAKEST).astype(np.float32)
    return floored


def decompose(volume: Floats32) -> Decomposition:
    """Higher-order singular value decomposition: eigenvectors of the Gram matrix of one axis after the other."""
    core, factors = volume, []
    for axis, n in enumerate(volume.shape):
        unfolded = np.moveaxis(core, axis, 0).reshape(n, -1)
        gram = np.zeros((n, n))
        for first in range(0, unfolded.shape[1], _COLUMNS):  # in float64, a part at a time
            some = unfolded[:, first : first + _COLUMNS].astype(np.float64)
            gram += some @ some.T
        _, vectors = np.linalg.eigh(gram)
        factor = np.ascontiguousarray(vectors[:, ::-1]).astype(np.float32)
        others = np.moveaxis(core, axis, 0).shape[1:]
        core = np.moveaxis((factor.T @ unfolded).reshape(n, *others), 0, axis)
        factors.append(factor)
    return np.ascontiguousarray(core), factors


def choose_ranks(parts: Sequence[Decomposition], bits: float, most: int) -> tuple[int, ...]:
    """Sides of the smallest core that holds all coefficients which are not 0 at the step that fills the budget.

    Parameters
    ----------
    parts : sequence of Decomposition
        Of every item.
    bits : float
        Of all items.
    most : int
        Parameters that a file of this size may have.
    """
    sides = parts[0][0].shape
    low, high = -24.0, 24.0  # log2 of the step: too fine … coarse enough
    ranks = (1,) * len(sides)
    for _ in range(_TRIES):
        step = 2 ** ((low + high) / 2)
        found = _box(parts, step)
        size = len(parts) * (math.prod(found) + sum((n + 1) * rank for n, rank in zip(sides, found, strict=True)))
        if size > most or sum(_estimate(part, found, step) for part in parts) > bits:
            low = (low + high) / 2
        else:
            high, ranks = (low + high) / 2, found
    return ranks


def _box(parts: Sequence[Decomposition], step: float) -> tuple[int, ...]:
    """Ranks that keep everything which is not rounded to 0."""
    sides = parts[0][0].shape
    kept = np.zeros(sides, dtype=bool)
    for core, _ in parts:
        kept |= np.abs(core) > step / 2
    axes = range(len(sides))
    along = [kept.any(tuple(other for other in axes if other != axis)) for axis in axes]
    return tuple(int(np.flatnonzero(found)[-1]) + 1 if found.any() else 1 for found in along)


def _estimate(part: Decomposition, ranks: tuple[int, ...], step: float) -> float:
    """Bits of an item whose core and weighted factors have the same step, which is best: both are orthogonal."""
    core, factors = part
    kept = core[tuple(slice(0, rank) for rank in ranks)]

    def symbols(values: npt.NDArray[np.float32]) -> npt.NDArray[np.int32]:
        return np.asarray(np.clip(np.rint(values / step), -LARGEST, LARGEST), np.int32)

    bits = estimated_latent_bits(symbols(kept), [(1, *(1,) * (3 - len(ranks)), *ranks)])
    for axis, factor in enumerate(factors):
        bits += estimated_bits(symbols(factor[:, : ranks[axis]] * slice_norms(kept, axis)))
        bits += BITS_PER_PARAMETER * ranks[axis]
    return bits


class _Tucker:
    """Decomposes volumes, and stores and restores the ranks."""

    def plan(self, request: Request) -> TuckerNetwork:
        """Decompose, and choose the ranks for a budget."""
        original, tree = request.original, request.octants
        least = self.least(original, request.settings, tree)
        pairs = zip(original.items, original.ranges, strict=True)
        parts = [decompose(normalised(item, limits)) for item, limits in pairs]
        # A part of what readers allow: what a file takes besides its parameters is not counted there.
        most = max(allowed_parameters(0), MAX_PARAMETERS_PER_BYTE * request.budget // 2)
        ranks = choose_ranks(parts, BITS_PER_PARAMETER * request.parameters(least), most)
        return TuckerNetwork(tree, least.items, ranks, parts)

    def least(self, original: TrainingVolume, settings: Settings, octants: Octree) -> TuckerNetwork:
        """Return a core of one coefficient."""
        check_no_strategy("tucker", settings)
        if original.weights is not None:
            raise InputError("expected no weights for tucker, whose bases serve all voxels alike: take another model")
        return TuckerNetwork(octants, len(original.items), (1,) * len(octants.shape))

    def pack(self, network: TuckerNetwork) -> bytes:
        """Store the ranks."""
        return b"".join(varint(rank) for rank in network.ranks)

    def parse(self, plan: bytes, tree: Octree, items: int, allowed: int) -> TuckerNetwork:
        """Invert :meth:`pack`."""
        cursor = Cursor(plan, 0, "the plan")
        ranks = tuple(integer("rank", cursor.varint("a rank"), 1, n) for n in tree.shape)
        check_end(cursor)
        network = TuckerNetwork(tree, items, ranks)
        check_size(network.parameters, allowed)
        return network


FAMILY = _Tucker()

__all__ = ["FAMILY", "TuckerNetwork", "choose_ranks", "decompose", "slice_norms"]

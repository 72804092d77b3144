"""SCI: an adaptive octree of sine networks, blocks chosen by the concentration of their spectra.

Yang et al., "SCI: A Spectrum Concentrated Implicit Neural Compression for Biomedical Data", AAAI 2023, arXiv
2209.15180, and Yang et al., "BRIEF", PNAS 121(28), 2024, which has the partition: see
:mod:`napari_tinc.networks.partition`. Every block has a network of its own at its own coordinates, a *funnel*, whose
first layer is twice as wide as the others; parameters are spread by ``size / D``; flat blocks have none.

Departures, and why: the integer programme is solved by dynamic programming instead of a commercial solver; sides of
any length; flat blocks decode to the background's value, not to 0; ω is folded into the weights and grows with the
block; weights are quantised and entropy-coded (theirs: float32 or float16).
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from napari_tinc.errors import FormatError
from napari_tinc.format.cursor import Cursor, integer, varint
from napari_tinc.geometry.octree import Box, Octree, Splits, choose_splits
from napari_tinc.geometry.sampling import Ints, leaves_of_region, sample_region
from napari_tinc.networks.allocation import width_classes
from napari_tinc.networks.leafwise import PEAK_RATE, RATE_PER_WIDTH, LeafSamples, leaf_samples, mean_psnr
from napari_tinc.networks.partition import best_blocks, concentrations
from napari_tinc.networks.plans import check_end, check_no_strategy, check_size
from napari_tinc.networks.protocol import (
    Array,
    Batch,
    Bounds,
    Floats32,
    Nodes,
    Parameters,
    Request,
    Schedule,
    TrainingVolume,
)
from napari_tinc.settings import Settings
from napari_tinc.system.forks import with_fresh_locks

# Layers of a block's network: sine layers, then a linear one.
_LAYERS, _FUNNEL = 5, 2
_LEAST_WIDTH, _MAX_WIDTH, _MAX_CLASSES = 4, 1024, 16
# The authors' budget of blocks: one for every 1361 parameters; and their levels of the partition.
_PARAMETERS_PER_BLOCK, _LEVELS_OF_BLOCKS = 1361, 2
# What dynamic programming does in a second or two, and what a reader is ready to look at.
_MOST_BLOCKS, _MAX_NODES, _MAX_LEVELS = 256, 2**14, 12
# A block is flat if its values are within this share of the range around the background.
_FLAT = 1e-3
_VOXELS_PER_STEP, _OMEGA_PER_VOXEL = 2**12, 0.5
_TILE, _TRIES = 2**18, 12
_SPLIT, _DROPPED = 255, 0


@dataclass(frozen=True)
class Blocks:
    """The blocks of one level that have one width.

    Parameters
    ----------
    level : int
        Of the partition's tree.
    width : int
        Of their networks; 0 for flat ones.
    numbers : ndarray of int
        Nodes of the level, ascending.
    """

    level: int
    width: int
    numbers: Nodes


@dataclass
class _Samples:
    """Normalised blocks, group by group; rows are items, then blocks."""

    groups: list[LeafSamples]

    @property
    def points(self) -> int:
        return max(group.points for group in self.groups)

    @property
    def items(self) -> int:
        return self.groups[0].items

    @property
    def device(self) -> torch.device:
        return self.groups[0].device

    def batch(self, index: Tensor) -> Batch:
        """Return as many points of every block; a small block's are drawn with repeats."""
        coordinates, targets, weights = [], [], []
        for group in self.groups:
            part = group.batch(index * group.points // self.points)
            coordinates.append(part.inputs)
            targets.append(part.targets.reshape(self.items, -1, len(index)))
            assert part.weights is not None
            weights.append(part.weights.reshape(self.items, -1, len(index)))
        return Batch(coordinates, torch.cat(targets, 1).flatten(0, 1), torch.cat(weights, 1).flatten(0, 1))

    def psnr(self, losses: Tensor) -> float:
        return mean_psnr(losses, self.groups[0].psnr_offsets)


@with_fresh_locks
class SciNetwork:
    """The networks of all blocks, and the value of flat ones, which is added to all.

    Parameters
    ----------
    tree : Octree
        Partition into octants; a block belongs to the first octant that it meets.
    items : int
    splits : tuple
        Of the partition's tree: those of the octants, or their beginning, or more.
    groups : sequence of Blocks
        All of them cover the volume; by level and width.
    start : ndarray, optional
        Background of every item before training, normalised.
    """

    between = "even"

    def __init__(
        self, tree: Octree, items: int, splits: Splits, groups: Sequence[Blocks], start: Floats32 | None = None
    ) -> None:
        self.tree, self.items, self.splits, self.groups = tree, items, splits, tuple(groups)
        self._start = start

    @property
    def provenance(self) -> Mapping[str, float]:
        """How many blocks there are, and how many are flat."""
        sizes = [(len(group.numbers), group.width) for group in self.groups]
        return {"blocks": sum(n for n, _ in sizes), "flat": sum(n for n, width in sizes if not width)}

    def level_tree(self, level: int) -> Octree:
        """Return the partition's tree down to a level."""
        return Octree(self.tree.shape, self.splits[:level])

    @property
    def nodes(self) -> tuple[int, ...]:
        """One level, of a node per octant."""
        return (self.items * self.tree.leaves,)

    @property
    def leaf_count(self) -> int:
        """Octants."""
        return self.tree.leaves

    def owners(self, group: Blocks) -> Nodes:
        """Return the first octant of every block."""
        nodes = math.prod(self.level_tree(group.level).counts(group.level))
        return group.numbers * self.tree.leaves // nodes

    @property
    def parts(self) -> list[Box]:
        """The blocks, flat ones too."""
        boxes = {level: self.level_tree(level).boxes(level) for level in {group.level for group in self.groups}}
        return [boxes[group.level][number] for group in self.groups for number in group.numbers.tolist()]

    @property
    def parameters(self) -> int:
        """Number of parameters."""
        axes = len(self.tree.shape)
        return self.items * (1 + sum(len(g.numbers) * block_parameters(axes, g.width) for g in self.groups))

    def node_parameters(self, level: int) -> Nodes:
        """Parameters of every octant's blocks; a block of several octants is spread over them."""
        counts, axes = np.zeros(self.tree.leaves, np.int64), len(self.tree.shape)
        counts[0] = 1
        for group in self.groups:
            size, leaves = block_parameters(axes, group.width), self.tree.leaves
            spread = max(1, leaves // math.prod(self.level_tree(group.level).counts(group.level)))
            for owner in self.owners(group).tolist():
                counts[owner : owner + spread] += size // spread
                counts[owner] += size % spread
        return np.tile(counts, self.items)

    @cached_property
    def arrays(self) -> tuple[Array, ...]:
        """The backgrounds; then of every group and layer weights and biases."""
        leaves = self.tree.leaves
        items = np.arange(self.items)
        made = [Array(0, 0, "background", items * leaves, (self.items, 1, 1))]
        for group in self.groups:
            nodes = (items[:, None] * leaves + self.owners(group)).ravel()
            for layer, (out, fan_in) in enumerate(_sizes(len(self.tree.shape), group.width)):
                for position, (name, shape) in enumerate((("weight", (out, fan_in)), ("bias", (out, 1)))):
                    made.append(Array(0, 1 + 2 * layer + position, f"{name} {layer}", nodes, (len(nodes), *shape)))
        return tuple(made)

    def initial(self, generator: torch.Generator) -> list[Tensor]:
        """Draw SIREN's initial weights with ω folded in."""
        drawn = [torch.zeros(self.items, 1, 1)]
        if self._start is not None:
            drawn[0] += torch.from_numpy(self._start)[:, None, None]
        arrays = iter(self.arrays[1:])
        for group in self.groups:
            sides = self.level_tree(group.level).leaf_shape
            omega = torch.tensor([_OMEGA_PER_VOXEL * side for side in sides], dtype=torch.float32)
            for layer in range(_LAYERS if group.width else 0):
                weight, bias = next(arrays), next(arrays)
                last, fan_in = layer == _LAYERS - 1, weight.shape[2]
                bound = omega / len(omega) if layer == 0 else math.sqrt(6 / fan_in) / (30 if last else 1)
                drawn.append((torch.rand(weight.shape, generator=generator) * 2 - 1) * bound)
                drawn.append((torch.rand(bias.shape, generator=generator) * 2 - 1) * (0.0 if last else math.pi))
        return drawn

    def schedule(self, steps: int, growth: float, time_limit: float | None) -> Schedule:
        """Grow steps and batch with the square root of the volume, so that the cost per voxel stays the same."""
        rows = self.items * sum(len(group.numbers) for group in self.groups)
        points = max(64, round(_VOXELS_PER_STEP * growth / rows))
        widest = max((group.width for group in self.groups), default=0)
        rate = min(PEAK_RATE, RATE_PER_WIDTH / max(1, _FUNNEL * widest))
        return Schedule(round(steps * growth), points, rate, time_limit)

    def samples(self, original: TrainingVolume, device: torch.device) -> _Samples:
        """Cut the items into normalised blocks; a voxel of a large one, of which fewer are drawn, weighs more."""
        groups, total = [], 0.0
        for group in self.groups:
            whole = leaf_samples(self.level_tree(group.level), original, device)
            leaves = whole.values.shape[1] // self.items
            rows = torch.from_numpy((np.arange(self.items)[:, None] * leaves + group.numbers).ravel()).to(device)
            values = whole.values[:, rows].contiguous()
            weights = torch.ones_like(values) if whole.weights is None else whole.weights[:, rows]
            weights = weights * whole.points
            total += float(weights.mean()) * len(group.numbers)
            groups.append(LeafSamples(whole.coordinates, values, weights, self.items, whole.psnr_offsets))
        mean = total / sum(len(group.numbers) for group in self.groups)
        for made in groups:
            assert made.weights is not None
            made.weights /= mean
        return _Samples(groups)

    def evaluate(self, parameters: Sequence[Tensor], inputs: Sequence[Tensor]) -> Tensor:
        """Evaluate every block at the coordinates of its group: (axes, points) each, to (items * blocks, points)."""
        background, rest, found = parameters[0], list(parameters[1:]), []
        for group, coordinates in zip(self.groups, inputs, strict=True):
            blocks, points = len(group.numbers), coordinates.shape[1]
            if not group.width:
                found.append(background.expand(self.items, blocks, points))
                continue
            own, rest = rest[: 2 * _LAYERS], rest[2 * _LAYERS :]
            found.append(funnel(own, coordinates).reshape(self.items, blocks, points) + background)
        return torch.cat(found, 1).flatten(0, 1)

    def leaves(self, bounds: Bounds, scale: float) -> Nodes | None:
        """Return the octants that the blocks of a region belong to, and the first, which has the background."""
        found = [np.zeros(1, np.int64)]
        for group in self.groups:
            meeting = np.isin(group.numbers, leaves_of_region(self.level_tree(group.level), bounds, scale))
            found.append(self.owners(group)[meeting])
        return np.unique(np.concatenate(found))

    @torch.inference_mode()
    def decode(self, parameters: Parameters, item: int, bounds: Bounds, scale: float) -> Floats32:
        """Evaluate the blocks of a region, group by group."""
        tensors, device = parameters.of(item, self.leaves(bounds, scale), self.tree.leaves), parameters.device
        background, rest = float(tensors[0][item]), list(tensors[1:])
        out = np.full([stop - start for start, stop in bounds], background, np.float32)
        for group in self.groups:
            if not group.width:
                continue
            own, rest = rest[: 2 * _LAYERS], rest[2 * _LAYERS :]
            mine = [tensor[item * len(group.numbers) : (item + 1) * len(group.numbers)] for tensor in own]
            evaluate = partial(_evaluate_group, group, mine, background, device)
            sample_region(self.level_tree(group.level), bounds, scale, evaluate, out)
        return out


def _evaluate_group(
    group: Blocks, parameters: Sequence[Tensor], background: float, device: torch.device, leaves: Ints,
    coordinates: Floats32,
) -> Iterator[tuple[Ints, slice, Floats32]]:  # fmt: skip
    """Evaluate those of some leaves that are blocks of a group, some points at a time."""
    wanted = np.flatnonzero(np.isin(leaves, group.numbers))
    if not wanted.size:
        return
    rows = torch.from_numpy(np.searchsorted(group.numbers, leaves[wanted])).to(device)
    own, points = [tensor[rows] for tensor in parameters], torch.from_numpy(coordinates).to(device)
    tile = max(64, _TILE // (len(wanted) * group.width))
    for start in range(0, points.shape[1], tile):
        part = slice(start, min(start + tile, points.shape[1]))
        yield wanted, part, (funnel(own, points[:, part]) + background).cpu().numpy()


def funnel(parameters: Sequence[Tensor], coordinates: Tensor) -> Tensor:
    """Evaluate networks at the same coordinates: (axes, points) to (networks, points)."""
    weight, bias = parameters[:2]
    with torch.autocast(coordinates.device.type, enabled=False):  # these phases run over many turns
        hidden = torch.sin(torch.baddbmm(bias, weight, coordinates.expand(len(weight), -1, -1)))
    for layer in range(1, _LAYERS - 1):
        hidden = torch.sin(torch.baddbmm(parameters[2 * layer + 1], parameters[2 * layer], hidden))
    weight, bias = parameters[-2:]
    with torch.autocast(coordinates.device.type, enabled=False):  # the output is what the loss compares
        return torch.baddbmm(bias, weight, hidden.to(bias.dtype))[:, 0]


def _sizes(axes: int, width: int) -> list[tuple[int, int]]:
    """Outputs and inputs of every layer of a block's network; none for a flat block."""
    if not width:
        return []
    wide = _FUNNEL * width
    return [(wide, axes), (width, wide), *[(width, width)] * (_LAYERS - 3), (1, width)]


def block_parameters(axes: int, width: int) -> int:
    """Count the parameters of a block's network."""
    return sum(out * (fan_in + 1) for out, fan_in in _sizes(axes, width))


def block_width(axes: int, parameters: npt.NDArray[np.float64]) -> Nodes:
    """Largest width of networks of at most so many parameters, but at least the narrowest that is of any use."""
    widths = np.arange(_LEAST_WIDTH, _MAX_WIDTH + 1)
    sizes = np.array([block_parameters(axes, int(width)) for width in widths])
    return widths[np.maximum(np.searchsorted(sizes, parameters, side="right") - 1, 0)]


def spent(axes: int, claims: npt.NDArray[np.float64], parameters: float) -> Nodes:
    """Widths of blocks in proportion to their claims, of few kinds, that spend the parameters and not more."""
    low, high = 0.0, 2.0  # widths are rounded down to those of few kinds, which leaves something to spend again
    widths = np.full(len(claims), _LEAST_WIDTH)
    for _ in range(_TRIES):
        share = (low + high) / 2 * parameters / max(float(claims.sum()), 1e-30)
        tried = width_classes(block_width(axes, share * claims))
        if sum(block_parameters(axes, int(width)) for width in tried[claims > 0]) > parameters:
            high = (low + high) / 2
        else:
            low, widths = (low + high) / 2, tried
    return widths


class _Sci:
    """Plans partitions and widths, and stores and restores them."""

    def plan(self, request: Request) -> SciNetwork:
        """Choose the blocks for a budget, drop the flat ones, and give the others what their size and spectrum ask."""
        original, tree = request.original, request.octants
        least = self.least(original, request.settings, tree)
        axes, parameters = len(tree.shape), request.parameters(least) / least.items
        most = int(min(max(1, parameters // _PARAMETERS_PER_BLOCK), _MOST_BLOCKS))
        splits = choose_splits(tree.shape, _MAX_LEVELS)
        first = max(level for level in range(len(splits) + 1) if Octree(tree.shape, splits[:level]).leaves <= most)
        whole = Octree(tree.shape, splits[: first + _LEVELS_OF_BLOCKS])
        scaled = np.stack([_scaled(item, limits.minimum, limits.span) for item, limits in
                           zip(original.items, original.ranges, strict=True)])  # fmt: skip
        values = concentrations(scaled, whole, first)
        chosen = [(level, node) for level, nodes in enumerate(best_blocks(whole, values, most)) for node in nodes]
        background = np.median(scaled.reshape(len(scaled), -1), 1)
        boxes = [whole.boxes(level) if values[level].size else [] for level in range(whole.depth + 1)]
        flat = np.array([
            bool((np.abs(scaled[(slice(None), *boxes[level][node])].reshape(len(scaled), -1) - background[:, None])
                  <= _FLAT).all()) for level, node in chosen
        ])  # fmt: skip
        claims = np.array([1 / whole.nodes(level) / values[level][node] for level, node in chosen]) * ~flat
        widths = spent(axes, claims, parameters - 1) * ~flat
        start = [(b * limits.span + limits.minimum - limits.offset) / (limits.scale or 1.0) for b, limits in
                 zip(background, original.ranges, strict=True)]  # fmt: skip
        return SciNetwork(tree, least.items, whole.splits, _grouped(chosen, widths), np.array(start, np.float32))

    def least(self, original: TrainingVolume, settings: Settings, octants: Octree) -> SciNetwork:
        """Return one narrow network for the whole volume."""
        check_no_strategy("sci", settings)
        return SciNetwork(octants, len(original.items), (), [Blocks(0, _LEAST_WIDTH, np.zeros(1, np.int64))])

    def pack(self, network: SciNetwork) -> bytes:
        """Store the tree's splits, the widths, and what every node is, children behind their parent."""
        classes = sorted({group.width for group in network.groups} - {0})
        of_block = {
            (group.level, int(node)): classes.index(group.width) + 1 if group.width else _DROPPED
            for group in network.groups for node in group.numbers
        }  # fmt: skip
        tree, kinds = network.level_tree(len(network.splits)), bytearray()
        queue = [(0, 0)]
        while queue:
            level, node = queue.pop()
            kinds.append(of_block.get((level, node), _SPLIT))
            if kinds[-1] == _SPLIT:
                children = tree.children(level)
                queue += [(level + 1, children * node + i) for i in reversed(range(children))]
        masks = bytes(sum(split << axis for axis, split in enumerate(splits)) for splits in network.splits)
        head = bytes([len(masks)]) + masks + bytes([len(classes)]) + b"".join(varint(width) for width in classes)
        return head + zlib.compress(bytes(kinds), 9)

    def parse(self, plan: bytes, tree: Octree, items: int, allowed: int) -> SciNetwork:
        """Invert :meth:`pack`."""
        cursor = Cursor(plan, 0, "the plan")
        levels = integer("levels", cursor.u8("the levels"), 0, _MAX_LEVELS)
        axes = len(tree.shape)
        masks = [integer("axes of a split", cursor.u8("a split"), 1, 2**axes - 1) for _ in range(levels)]
        splits = tuple(tuple(bool(mask >> axis & 1) for axis in range(axes)) for mask in masks)
        if splits[: tree.depth] != tree.splits[:levels]:
            raise FormatError("expected blocks that octants divide into or join to, got other splits: damaged file")
        count = integer("widths", cursor.u8("the widths"), 0, _MAX_CLASSES)
        classes = [integer("width", cursor.varint("a width"), 1, _MAX_WIDTH) for _ in range(count)]
        if any(before >= after for before, after in pairwise(classes)):
            raise FormatError(f"expected ascending widths, got {classes}: damaged file")
        kinds = _inflated(cursor.take(cursor.remaining, "the partition"))
        check_end(cursor)
        try:
            whole = Octree(tree.shape, splits)
        except ValueError as error:
            raise FormatError(f"the plan splits more than there is ({error}): damaged file") from error
        network = SciNetwork(tree, items, splits, _grouped(*_blocks(kinds, whole, classes)))
        check_size(network.parameters, allowed)
        return network


def _scaled(item: npt.NDArray[np.generic], minimum: float, span: float) -> npt.NDArray[np.float32]:
    """Map an item's range to 0 … 1."""
    return ((item.astype(np.float64) - minimum) / (span or 1.0)).astype(np.float32)


def _grouped(blocks: Sequence[tuple[int, int]], widths: npt.NDArray[np.integer]) -> list[Blocks]:
    """Sort blocks, given as level and node, by level and width."""
    levels, nodes = np.array(blocks, np.int64).reshape(-1, 2).T
    return [
        Blocks(int(level), int(width), np.sort(nodes[(levels == level) & (widths == width)]))
        for level, width in sorted(set(zip(levels.tolist(), np.asarray(widths).tolist(), strict=True)))
    ]


def _inflated(packed: bytes) -> bytes:
    inflater = zlib.decompressobj()
    try:
        kinds = inflater.decompress(packed, _MAX_NODES)
    except zlib.error as error:
        raise FormatError(f"the partition does not inflate ({error}): damaged file") from error
    if not inflater.eof or inflater.unused_data:
        raise FormatError(f"expected a partition of at most {_MAX_NODES} nodes, got more: damaged file")
    return kinds


def _blocks(kinds: bytes, tree: Octree, classes: Sequence[int]) -> tuple[list[tuple[int, int]], Nodes]:
    """Read what every node of a partition is; return its blocks as level and node, and their widths."""
    blocks, widths, queue = [], [], [(0, 0)]
    for kind in kinds:
        if not queue:
            raise FormatError("expected the partition to end with its last block, got more: damaged file")
        level, node = queue.pop()
        if kind == _SPLIT and level < tree.depth:
            children = tree.children(level)
            queue += [(level + 1, children * node + i) for i in reversed(range(children))]
        elif kind <= len(classes):
            blocks.append((level, node))
            widths.append(classes[kind - 1] if kind else 0)
        else:
            raise FormatError(f"expected a width of {len(classes)} or a split in the partition, got {kind}: damaged")
    if queue:
        raise FormatError(f"expected {len(queue)} more blocks in the partition, got its end: damaged file")
    return blocks, np.array(widths, np.int64)


FAMILY = _Sci()

__all__ = ["FAMILY", "Blocks", "SciNetwork", "block_parameters", "block_width", "funnel"]

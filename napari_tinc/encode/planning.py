"""What a file will be made of: its tree, its network's widths, its training, and how small it can be."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch

from napari_tinc import segments
from napari_tinc.encode import draft as drafts
from napari_tinc.encode.draft import Content, Draft
from napari_tinc.encode.settings import Settings
from napari_tinc.encode.source import Source
from napari_tinc.errors import InputError
from napari_tinc.geometry.octree import Octree, Splits, choose_splits
from napari_tinc.networks import allocation
from napari_tinc.networks.device import resolve_device
from napari_tinc.networks.families.tinc import TincNetwork
from napari_tinc.networks.quantization import TENSOR_OVERHEAD_BITS
from napari_tinc.networks.training import Schedule, Trainer

Finish = Callable[[], bool]

# Found to win at equal bytes: docs/quantization.md shows the curve.
BITS_PER_PARAMETER = 6.2
# Of a file with both, what the network takes.
NETWORK_SHARE = 0.6
# Bytes of a detail segment and its row in the table besides the streams, at most; and what a useful one has.
DETAIL_HEAD, _LEAST_DETAIL = 48, 24
_QUALITY_SHARE = 1 / 80
_REFERENCE_VOXELS = 2**18
_VOXELS_PER_STEP = 2**14
# With fewer parameters than this many times the least, a network is not worth its usual layers.
_WORTH_LAYERS = 1.5
_PEAK_RATE, _RATE_PER_WIDTH = 0.05, 1.2
_OMEGA_PER_VOXEL = 0.5


def plan_detail(source: Source, settings: Settings, budget: int) -> Draft:
    """Choose the octants of a file without a network: as many as its bytes can say the quality of."""
    depth = 0
    while settings.levels is None:
        splits = choose_splits(source.spatial, depth + 1)
        leaves = 2 ** sum(sum(level) for level in splits)
        if len(splits) <= depth or segments.quality_size(leaves) * len(source.items) > budget * _QUALITY_SHARE:
            break
        depth += 1
    else:
        depth = settings.levels - 1
    return Draft(source, settings, Octree(source.spatial, _splits(source, settings, depth)), None, "even")


def plan(source: Source, settings: Settings, budget: int) -> Draft:
    """Choose the tree and the widths of its nodes for a budget."""
    parameters = max(16.0, 8.0 * (budget - _smallest(source, settings, 0).overhead())) / BITS_PER_PARAMETER
    consistency = source.consistency
    ratios: str | Sequence[float] = settings.between
    if isinstance(ratios, str):
        ratios = between = allocation.resolve_auto(consistency) if ratios == "auto" else ratios
        depth = allocation.choose_depth(source.spatial, len(source.items), parameters, between)
    else:
        between, depth = "ratios", len(ratios) - 1
    if settings.levels is not None:
        depth = settings.levels - 1
    tree = Octree(source.spatial, _splits(source, settings, depth))
    layers = allocation.default_layers(tree.depth)
    thin = [np.full(len(source.items) * tree.nodes(level), 8) for level in range(tree.depth + 1)]
    overhead = Draft(source, settings, tree, TincNetwork.on_tree(tree, layers, thin), between, consistency).overhead()
    network = allocation.allocate(
        tree,
        source.leaf_measure(tree, settings.within),
        len(source.items),
        max(1.0, 8.0 * (budget - overhead) / BITS_PER_PARAMETER),
        allocation.level_ratios(ratios, tree.depth + 1),
        layers,
    )
    least = _smallest(source, settings, tree.depth).network
    assert least is not None
    if network.parameters < _WORTH_LAYERS * least.parameters:
        network = least
    return Draft(source, settings, tree, network, between, consistency)


def prepare_training(draft: Draft, bits: float, steps: int, finish: Finish | None = None) -> Trainer:
    """Put the volume and the initial network on the device."""
    assert draft.network is not None
    device = resolve_device(draft.settings.device)
    generator = torch.Generator().manual_seed(draft.settings.seed)
    omega = [_OMEGA_PER_VOXEL * side for side in draft.tree.leaf_shape]
    initial = [p.to(device) for p in draft.network.initial(omega, generator)]
    data = draft.source.training_data(draft.tree, device)
    return Trainer(draft.network, initial, data, schedule(draft, steps), bits, generator, finish)


def schedule(draft: Draft, steps: int) -> Schedule:
    """Steps and batch both grow with the square root of the volume, so the cost per voxel stays the same."""
    assert draft.network is not None
    longer = growth(draft.source)
    points = max(64, round(_VOXELS_PER_STEP * longer / (draft.tree.leaves * len(draft.source.items))))
    widest = max(int(level.max()) for level in draft.network.widths)
    rate = min(_PEAK_RATE, _RATE_PER_WIDTH / widest)
    return Schedule(round(steps * longer), points, rate, draft.settings.time_limit)


def growth(source: Source) -> float:
    """How many times the steps of a preset a volume is trained for."""
    return math.sqrt(max(1.0, source.items.size / _REFERENCE_VOXELS))


def smallest_budget(source: Source, settings: Settings) -> int:
    """Bytes of the smallest file that a volume can become with the levels asked for."""
    if settings.model == "hybrid":
        return math.ceil(smallest_budget(source, replace(settings, model="tinc")) / NETWORK_SHARE)
    if settings.model != "tinc":
        draft = plan_detail(source, settings, 0)
        return draft.size(Content()) + drafts.PROVENANCE_SLACK + len(source.items) * (DETAIL_HEAD + _LEAST_DETAIL)
    draft = _smallest(source, settings, (settings.levels or 1) - 1)
    assert draft.network is not None
    tensors = len(source.items) * len(draft.layout.kinds)
    bits = draft.network.parameters * BITS_PER_PARAMETER + tensors * TENSOR_OVERHEAD_BITS
    return draft.overhead() + math.ceil(bits / 8)


def _smallest(source: Source, settings: Settings, depth: int) -> Draft:
    """Draft of a file whose every node is as narrow as is still of any use."""
    tree = Octree(source.spatial, _splits(source, settings, depth))
    layers = allocation.default_layers(tree.depth) if tree.depth else (2,)
    widths = [np.full(len(source.items) * tree.nodes(level), 4) for level in range(tree.depth + 1)]
    return Draft(source, settings, tree, TincNetwork.on_tree(tree, layers, widths), "even")


def _splits(source: Source, settings: Settings, depth: int) -> Splits:
    """Split the volume; a depth that the user asked for must be possible."""
    splits = choose_splits(source.spatial, depth)
    asked = settings.levels is not None or not isinstance(settings.between, str)
    if len(splits) < depth and asked:
        raise InputError(f"expected at most {len(splits) + 1} levels for a volume of {source.spatial}, got {depth + 1}")
    return splits

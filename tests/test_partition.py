"""The partition of SCI: the best one there is, found without trying all."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_tinc.arrays.metadata import Metadata
from napari_tinc.encode.original import Original
from napari_tinc.geometry.octree import Octree
from napari_tinc.networks.families.sci import Blocks, SciNetwork
from napari_tinc.networks.partition import Levels, best_blocks, concentration


def partitions(tree: Octree, first: int, level: int = 0, node: int = 0) -> Iterator[list[tuple[int, int]]]:
    """All ways to cut a subtree into blocks of the levels from ``first`` on."""
    if level >= first:
        yield [(level, node)]
    if level < tree.depth:
        count = tree.children(level)
        below = [list(partitions(tree, first, level + 1, count * node + i)) for i in range(count)]
        for parts in product(*below):
            yield [block for part in parts for block in part]


def worth(blocks: list[tuple[int, int]], values: list[np.ndarray], tree: Octree) -> float:
    return sum(values[level][node] / tree.nodes(level) for level, node in blocks)


def listed(chosen: Levels) -> list[tuple[int, int]]:
    return [(level, int(node)) for level, nodes in enumerate(chosen) for node in nodes]


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([((8, 8), ((True, True),) * 2), ((8, 8, 8), ((True,) * 3,)), ((8, 8), ((False, True),) * 3),
                        ((4, 8), ((True, False), (True, True)))]),
       st.integers(0, 1), st.integers(0, 20), st.integers(0, 10**6))  # fmt: skip
def test_dynamic_programming_finds_what_brute_force_finds(
    shape_and_splits: tuple[tuple[int, ...], tuple[tuple[bool, ...], ...]], first: int, more: int, seed: int
) -> None:
    tree = Octree(*shape_and_splits)
    draw = np.random.default_rng(seed)
    values = [draw.random(tree.nodes(level)) if level >= first else np.zeros(0) for level in range(tree.depth + 1)]
    most = tree.nodes(first) + more
    chosen = listed(best_blocks(tree, values, most))
    assert len(chosen) <= most
    assert sum(1 / tree.nodes(level) for level, _ in chosen) == pytest.approx(1), "they cover the volume"
    best = max(worth(p, values, tree) for p in partitions(tree, first) if len(p) <= most)
    assert worth(chosen, values, tree) == pytest.approx(best)


def test_a_voxel_counts_the_same_in_the_loss_whatever_the_size_of_its_block() -> None:
    volume = np.random.default_rng(0).normal(100, 20, (16, 16, 16)).astype("f4")
    original = Original.prepare(volume, Metadata.default(3), None)
    splits = ((True, True, True),) * 2
    blocks = [
        Blocks(1, 4, np.array([0, 2, 3, 4, 5, 6, 7])),
        Blocks(2, 4, np.arange(8, 12)),
        Blocks(2, 0, np.arange(12, 16)),
    ]
    network = SciNetwork(Octree(volume.shape, splits[:1]), 1, splits, blocks)
    samples = network.samples(original, torch.device("cpu"))
    batch = samples.batch(torch.arange(samples.points))
    assert batch.weights is not None
    normalised = (volume.astype(float) - original.ranges[0].offset) / original.ranges[0].scale
    assert float((batch.weights * batch.targets.square()).mean()) == pytest.approx(np.square(normalised).mean())


def test_concentration_is_that_of_the_whole_spectrum() -> None:
    draw = np.random.default_rng(0)
    for shape in ((6, 5), (4, 5, 6), (3, 4, 7), (1, 1)):
        block = draw.random(shape)
        whole = np.abs(np.fft.fftn(block))
        assert concentration(block) == pytest.approx(whole.max() / whole.sum())
    assert concentration(np.zeros((4, 4))) == 1

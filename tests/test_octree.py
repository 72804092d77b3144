"""The partition, and which of its leaves make up a region, against brute force."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_tinc.geometry.octree import MIN_LEAF_SIDE, Octree, choose_splits, local_coordinate
from napari_tinc.geometry.sampling import axis_runs, sample_region, scaled_side

quickly = settings(max_examples=60, deadline=None)
shapes = st.lists(st.integers(1, 23), min_size=2, max_size=3).map(tuple)


@st.composite
def trees(draw: st.DrawFn) -> Octree:
    """Any legal tree: every axis in at most as many pieces as it has voxels."""
    shape = draw(shapes)
    splits = []
    pieces = np.ones(len(shape), dtype=int)
    for _ in range(draw(st.integers(0, 3))):
        able = [bool(2 * p <= side) for p, side in zip(pieces, shape, strict=True)]
        split = tuple(a and draw(st.booleans()) for a in able)
        if not any(split):
            break
        splits.append(split)
        pieces = pieces * (1 + np.array(split))
    return Octree(shape, tuple(splits))


def reference_boxes(shape: tuple[int, ...], splits: tuple[tuple[bool, ...], ...]) -> list[tuple[tuple[int, int], ...]]:
    """Depth first, by counting pieces instead of halving, first axis slowest."""

    def below(
        cell: tuple[int, ...], pieces: tuple[int, ...], rest: tuple[tuple[bool, ...], ...]
    ) -> Iterator[tuple[tuple[int, int], ...]]:
        if not rest:
            yield tuple((c * n // p, (c + 1) * n // p) for c, n, p in zip(cell, shape, pieces, strict=True))
            return
        finer = tuple(p * (2 if s else 1) for p, s in zip(pieces, rest[0], strict=True))
        for half in product(*((0, 1) if s else (0,) for s in rest[0])):
            child = tuple(c * (2 if s else 1) + h for c, s, h in zip(cell, rest[0], half, strict=True))
            yield from below(child, finer, rest[1:])

    return list(below((0,) * len(shape), (1,) * len(shape), splits))


@quickly
@given(trees())
def test_leaves_cover_every_voxel_exactly_once(tree: Octree) -> None:
    covered = np.zeros(tree.shape, dtype=int)
    for box in tree.boxes(tree.depth):
        covered[box] += 1
    assert (covered == 1).all()


@quickly
@given(trees())
def test_boxes_of_every_level_are_those_of_the_definition(tree: Octree) -> None:
    for level in range(tree.depth + 1):
        got = [tuple((s.start, s.stop) for s in box) for box in tree.boxes(level)]
        assert got == reference_boxes(tree.shape, tree.splits[:level])
        assert len(got) == tree.nodes(level)


@quickly
@given(trees())
def test_children_of_a_node_partition_its_box(tree: Octree) -> None:
    for level in range(tree.depth):
        count = tree.children(level)
        children = tree.boxes(level + 1)
        for node, box in enumerate(tree.boxes(level)):
            own = children[node * count : (node + 1) * count]
            assert sum(math.prod(s.stop - s.start for s in child) for child in own) == math.prod(
                s.stop - s.start for s in box
            )
            assert all(
                outer.start <= inner.start < inner.stop <= outer.stop
                for child in own
                for inner, outer in zip(child, box, strict=True)
            )


@quickly
@given(trees())
def test_leaves_differ_by_at_most_one_plane(tree: Octree) -> None:
    sides = np.array([[s.stop - s.start for s in box] for box in tree.boxes(tree.depth)])
    assert (sides.max(0) == tree.leaf_shape).all()
    assert (sides >= 1).all()
    assert (np.ptp(sides, axis=0) <= 1).all()


@quickly
@given(trees())
def test_cutting_into_leaves_keeps_every_voxel_in_its_place(tree: Octree) -> None:
    volume = np.arange(math.prod(tree.shape), dtype=np.int32).reshape(tree.shape)
    leaves, valid = tree.to_leaves(volume), tree.valid()
    assert leaves.shape == (tree.leaves, math.prod(tree.leaf_shape))
    for number, box in enumerate(tree.boxes(tree.depth)):
        own = volume[box]
        padded = np.pad(own, [(0, full - n) for full, n in zip(tree.leaf_shape, own.shape, strict=True)], mode="edge")
        np.testing.assert_array_equal(leaves[number], padded.ravel())
        inside = np.zeros(tree.leaf_shape, dtype=bool)
        inside[tuple(slice(n) for n in own.shape)] = True
        np.testing.assert_array_equal(np.ones(inside.size, bool) if valid is None else valid[number], inside.ravel())


@quickly
@given(trees())
def test_a_cell_of_the_leaf_grid_names_the_leaf_that_lies_there(tree: Octree) -> None:
    boxes = tree.boxes(tree.depth)
    edges = tree.edges(tree.depth)
    for cell in np.ndindex(tree.counts(tree.depth)):
        box = boxes[tree.leaf_of_cell[cell]]
        assert [s.start for s in box] == [int(edge[c]) for edge, c in zip(edges, cell, strict=True)]


@pytest.mark.parametrize("shape", [(1, 1), (1, 1, 1), (1, 7, 1), (3, 2, 3)])
def test_a_volume_smaller_than_a_leaf_is_one_leaf(shape: tuple[int, ...]) -> None:
    tree = Octree(shape, choose_splits(shape, 6))
    assert tree.leaves == 1
    np.testing.assert_array_equal(tree.to_leaves(np.ones(shape)), np.ones((1, math.prod(shape))))


def test_more_pieces_than_voxels_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 4 voxels on an axis split in 4, got 3"):
        Octree((3, 8), ((True, True), (True, True)))


@pytest.mark.parametrize("shape", [(64, 64, 64), (26, 512, 512), (8, 300, 300), (997, 991), (1, 5, 4096), (31, 37, 41)])
@pytest.mark.parametrize("depth", [0, 1, 3, 6])
def test_chosen_splits_are_legal_and_keep_leaves_worth_splitting(shape: tuple[int, ...], depth: int) -> None:
    splits = choose_splits(shape, depth)
    tree = Octree(shape, splits)
    assert len(splits) <= depth
    for split, side, leaf in zip(zip(*splits, strict=True), shape, tree.leaf_shape, strict=False):
        if any(split):
            assert side / 2 ** sum(split) >= MIN_LEAF_SIDE
            assert leaf >= MIN_LEAF_SIDE
    assert all(any(split) for split in splits)


def test_a_thin_stack_is_split_in_its_plane_first() -> None:
    assert choose_splits((26, 512, 512), 4) == ((False, True, True),) * 4
    assert choose_splits((64, 64, 64), 2) == ((True, True, True),) * 2


def test_local_coordinates_run_from_minus_one_to_one() -> None:
    np.testing.assert_allclose(local_coordinate(np.arange(5), 5), [-1, -0.5, 0, 0.5, 1])
    assert local_coordinate(np.arange(1), 1) == 0
    tree = Octree((7, 16, 1), ((True, True, False),))
    for axis, side in zip(tree.local_axes(), (4, 8, 1), strict=True):
        np.testing.assert_allclose(axis, np.linspace(-1, 1, side) if side > 1 else [0], atol=1e-7)


def brute_axis(tree: Octree, axis: int, sample: int, scale: float) -> tuple[int, float]:
    """Leaf cell and local coordinate of one sample: the middle of what it covers of the volume, in the leaf nearest."""
    edges, side = tree.edges(tree.depth)[axis].tolist(), tree.shape[axis]
    first, last = sample / scale, min((sample + 1) / scale, side)
    position = (first + last) / 2 - 0.5
    voxel = min(max(math.floor(position + 0.5), 0), side - 1)
    cell = next(c for c in range(len(edges) - 1) if edges[c] <= voxel < edges[c + 1])
    full = tree.leaf_shape[axis]
    return cell, 2 * (position - edges[cell]) / (full - 1) - 1 if full > 1 else 2 * (position - edges[cell])


@quickly
@given(trees(), st.sampled_from([1.0, 0.5, 0.3, 2.0, 1.7]), st.data())
def test_a_region_asks_for_its_own_samples_only_and_puts_each_in_its_place(
    tree: Octree, scale: float, data: st.DataObject
) -> None:
    sides = [scaled_side(side, scale) for side in tree.shape]
    bounds = []
    for side in sides:
        start = data.draw(st.integers(0, side - 1))
        bounds.append((start, data.draw(st.integers(start + 1, side))))
    out = np.full([stop - start for start, stop in bounds], np.nan)
    evaluated = 0

    def evaluate(
        leaves: npt.NDArray[np.int64], points: npt.NDArray[np.float32]
    ) -> Iterator[tuple[slice, slice, npt.NDArray[np.float64]]]:
        nonlocal evaluated
        assert (np.diff(leaves) > 0).all()
        evaluated += len(leaves) * points.shape[1]
        yield slice(None), slice(None), leaves[:, None] * 1000.0 + (points.T * [7, 11, 13][: len(points)]).sum(1)

    sample_region(tree, tuple(bounds), scale, evaluate, out)
    assert evaluated == out.size
    for index in np.ndindex(out.shape):
        pairs = [brute_axis(tree, a, bounds[a][0] + i, scale) for a, i in enumerate(index)]
        leaf = tree.leaf_of_cell[tuple(cell for cell, _ in pairs)]
        expected = leaf * 1000.0 + sum(f * local for f, (_, local) in zip([7, 11, 13], pairs, strict=False))
        assert out[index] == pytest.approx(expected, abs=1e-3)


def test_equal_leaves_of_an_axis_make_one_batch() -> None:
    tree = Octree((64, 64), ((True, True),) * 3)
    assert len(axis_runs(tree, 0, 0, 64, 1.0)) == 1
    assert len(axis_runs(tree, 0, 3, 61, 1.0)) == 3


@pytest.mark.parametrize(
    ("side", "scale", "samples"), [(10, 1, 10), (10, 0.5, 5), (11, 0.5, 6), (5, 2, 10), (7, 0.01, 1)]
)
def test_a_scaled_axis_has_as_many_samples_as_cover_it(side: int, scale: float, samples: int) -> None:
    assert scaled_side(side, scale) == samples

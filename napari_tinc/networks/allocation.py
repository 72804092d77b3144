"""How a parameter budget is spread over the tree: between its levels, and among the nodes of a level.

Between levels (Yang et al., CVPR 2023, arXiv 2211.06689): a per-node ratio ``r_l`` gives level ``l`` the share
``r_l n_l / Σ r_j n_j`` of all parameters, ``n_l`` its nodes. Within a level every node gets its share of the level's
parameters, and the shares of a level sum to 1, whatever the measure.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from napari_tinc.choices import BETWEEN, MAX_DEPTH
from napari_tinc.errors import InputError
from napari_tinc.geometry.octree import Octree, choose_splits
from napari_tinc.settings import check_ratios

Floats = npt.NDArray[np.float64]

CONSISTENT, INCONSISTENT = 0.7, 0.6  # thresholds of the paper, read on our own measure
_LEAN = 3.0  # per-node parameters of one level against the next for "shallow" and "deep"
_EVEN_SHARE = 0.25  # part of a level that is dealt out evenly, so that no node is starved
_WIDTH_CLASSES = 5  # distinct widths per level; bounds the number of groups
MIN_LEAF_WIDTH = 8


def level_ratios(between: str | Sequence[float], levels: int) -> tuple[float, ...]:
    """Per-node ratio of every level.

    Parameters
    ----------
    between : str or sequence of float
        ``"even"``: equal for every node. ``"shallow"``: thrice as much per node at every level up. ``"deep"``: thrice
        as much at every level down. Numbers: the ratios themselves. (``"auto"`` becomes one of the names in
        :func:`resolve_auto`.)
    levels : int
        Levels of the tree, root included.

    Raises
    ------
    InputError
        If the name is unknown, or the ratios are not one positive number per level.
    """
    if not isinstance(between, str):
        ratios = tuple(float(ratio) for ratio in between)
        check_ratios(ratios, levels)
        return ratios
    if between not in BETWEEN[1:]:
        raise InputError(f"expected a strategy between levels among {BETWEEN}, got {between!r}")
    lean = {"even": 1.0, "shallow": _LEAN, "deep": 1 / _LEAN}[between]
    return tuple(lean ** (levels - 1 - level) for level in range(levels))


def resolve_auto(consistency: float | None) -> str:
    """Name the strategy that ``"auto"`` stands for (paper: shallow above 0.7, deep below 0.6).

    Without a measure, as for a volume too small to split, it is ``"even"``.
    """
    if consistency is None or INCONSISTENT <= consistency <= CONSISTENT:
        return "even"
    return "shallow" if consistency > CONSISTENT else "deep"


def node_shares(measure: Floats, nodes: int) -> Floats:
    """Share of a level's parameters for each of its nodes; they sum to 1.

    A quarter is dealt out evenly, so that a node without signal is not starved to a width of 1.

    Parameters
    ----------
    measure : ndarray, shape (all leaves,)
        Leaf measures of all items in node order.
    nodes : int
        Nodes of the level, all items together.
    """
    level = measure.reshape(nodes, -1).mean(1)
    total = level.sum()
    proportional = level / total if total > 0 else np.full(nodes, 1 / nodes)
    return _EVEN_SHARE / nodes + (1 - _EVEN_SHARE) * proportional


def default_layers(depth: int) -> tuple[int, ...]:
    """Sine layers per segment for a tree of ``depth`` levels below the root: about five on every path."""
    return {0: (4,), 1: (2, 2), 2: (2, 1, 2)}.get(depth, (2, *([1] * (depth - 1)), 2))


def solve_width(budget: Floats, fan_in: Floats, layers: int, is_leaf: bool) -> npt.NDArray[np.int64]:
    """Largest width whose segment has at most ``budget`` parameters; at least 1."""
    a = float(layers - 1)
    b = fan_in + layers + (1 if is_leaf else 0)
    c = (1.0 if is_leaf else 0.0) - budget
    root = np.sqrt(np.maximum(b * b - 4 * a * c, 0))
    width = (root - b) / (2 * a) if a else -c / b
    return np.maximum(np.floor(width + 1e-9), 1).astype(np.int64)


def allocate(
    tree: Octree, measure: Floats, items: int, parameters: float, ratios: Sequence[float], layers: Sequence[int]
) -> list[npt.NDArray[np.int64]]:
    """Turn a parameter budget into the widths of all nodes, level by level.

    Parameters
    ----------
    tree : Octree
    measure : ndarray, shape (items * leaves,)
        See :func:`napari_tinc.measures.signal.leaf_measure`.
    items : int
        Volumes in the file; each is a root of its own.
    parameters : float
        Parameters to spend on all items together.
    ratios : sequence of float
        See :func:`level_ratios`.
    layers : sequence of int
        Sine layers per segment, one entry per level.
    """
    nodes = [items * tree.nodes(level) for level in range(tree.depth + 1)]
    claims = np.array([ratio * count for ratio, count in zip(ratios, nodes, strict=True)])
    budgets = parameters * claims / claims.sum()
    widths: list[npt.NDArray[np.int64]] = []
    for level, budget in enumerate(budgets):
        if level == 0:
            fan_in = np.full(items, float(len(tree.shape)))
        else:
            fan_in = np.repeat(widths[-1], tree.children(level - 1)).astype(np.float64)
        is_leaf = level == tree.depth
        share = _lift(budget * node_shares(measure, nodes[level]), fan_in, layers[level], is_leaf)
        widths.append(width_classes(solve_width(share, fan_in, layers[level], is_leaf)))
    return widths


def _lift(shares: Floats, fan_in: Floats, layers: int, is_leaf: bool) -> Floats:
    """Raise every node to half the width that equal shares would give; the others pay, the sum stays.

    A share alone is no safeguard: below a wide parent each unit of width costs so much that a small share buys one.
    """
    equal = np.full(len(shares), shares.mean())
    usable = np.maximum(solve_width(equal, np.full(len(shares), fan_in.mean()), layers, is_leaf) // 2, 1)
    floor = segment_parameters(fan_in.astype(np.int64), usable, layers, is_leaf).astype(np.float64)
    room = shares.sum() - floor.sum()
    surplus = np.maximum(shares - floor, 0)
    if room <= 0 or surplus.sum() == 0:
        return shares
    lifted: Floats = floor + surplus * room / surplus.sum()
    return lifted


def width_classes(widths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Round widths down to a few distinct values, so that nodes fall into few groups."""
    if len(np.unique(widths)) <= _WIDTH_CLASSES:
        return widths
    edges = np.unique(np.geomspace(widths.min(), widths.max() + 1, _WIDTH_CLASSES + 1).astype(np.int64)[:-1])
    return edges[np.searchsorted(edges, widths, side="right") - 1]


def choose_depth(shape: tuple[int, ...], items: int, parameters: float, between: str) -> int:
    """Deepest tree whose leaves, with equal shares within a level, are at least :data:`MIN_LEAF_WIDTH` wide.

    Deeper trees train and decode faster at equal parameters; a narrow leaf learns badly.

    Parameters
    ----------
    shape : tuple of int
        Spatial shape in voxels.
    items : int
        Volumes in the file.
    parameters : float
        Parameters for all of them.
    between : str
        ``"even"``, ``"shallow"`` or ``"deep"``.
    """
    depth = 0
    for candidate in range(1, MAX_DEPTH + 1):
        splits = choose_splits(shape, candidate)
        if len(splits) < candidate:
            break
        tree = Octree(shape, splits)
        ratios, layers = level_ratios(between, candidate + 1), default_layers(candidate)
        widths = allocate(tree, np.ones(items * tree.leaves), items, parameters, ratios, layers)
        if widths[-1].min() < MIN_LEAF_WIDTH:
            break
        depth = candidate
    return depth


def segment_parameters(
    fan_in: npt.NDArray[np.int64], width: npt.NDArray[np.int64], layers: int, is_leaf: bool
) -> npt.NDArray[np.int64]:
    """Parameters of a segment: ``layers`` sine layers with biases and, in a leaf, the linear output."""
    count: npt.NDArray[np.int64] = (fan_in + 1) * width + (layers - 1) * (width + 1) * width
    return count + width + 1 if is_leaf else count

"""An adaptive octree: which blocks a volume is cut into, if there may be so many.

Yang et al., "SCI: A Spectrum Concentrated Implicit Neural Compression for Biomedical Data", AAAI 2023, arXiv
2209.15180: a network of sines learns best what has few frequencies. The concentration of a block's spectrum is
``D = max |FFT| / Σ |FFT|``; of all partitions with at most ``N`` blocks, take the one of the largest mean of ``D`` over
the volume. The authors solve this integer programme with a commercial solver; it is a knapsack on a tree, which dynamic
programming solves exactly.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from napari_tinc.geometry.octree import Octree

Floats = npt.NDArray[np.float64]
Levels = list[npt.NDArray[np.int64]]
"""Of every level of a tree the numbers of the nodes that are blocks, ascending."""


def concentration(block: npt.NDArray[np.floating]) -> float:
    """Share that the largest amplitude has of a block's spectrum, zero frequency included; 1 where all are 0."""
    amplitudes = np.abs(np.fft.rfftn(block))
    # Of a real block's spectrum the other half is its mirror image, but for these planes.
    alone = amplitudes[..., 0].sum() + (amplitudes[..., -1].sum() if block.shape[-1] % 2 == 0 else 0.0)
    total = 2 * amplitudes.sum() - alone
    return float(amplitudes.max() / total) if total > 0 else 1.0


def concentrations(items: npt.NDArray[np.floating], tree: Octree, first: int) -> list[Floats]:
    """Mean concentration over the items, of every node of the levels from ``first`` on; nothing for those above."""
    found: list[Floats] = [np.zeros(0)] * first
    for level in range(first, tree.depth + 1):
        boxes = tree.boxes(level)
        found.append(np.array([np.mean([concentration(item[box]) for item in items]) for box in boxes]))
    return found


def best_blocks(tree: Octree, values: list[Floats], most: int) -> Levels:
    """Choose the blocks of the largest sum of values, each weighted with its share of the volume.

    Parameters
    ----------
    tree : Octree
    values : list of ndarray
        Of every level's nodes; a level without any cannot have blocks. The last level has some.
    most : int
        Blocks, at least as many as the first level with values has nodes.
    """
    tables: list[list[Floats]] = []
    for level in range(tree.depth, -1, -1):  # from the leaves up: the best sums with 1, 2, … blocks below every node
        below = tables[-1] if tables else None
        own = values[level] / tree.nodes(level) if values[level].size else np.full(tree.nodes(level), -np.inf)
        tables.append([_best_below(own[n], n, below, tree, level, most) for n in range(tree.nodes(level))])
    tables.reverse()
    chosen: Levels = [np.zeros(0, np.int64) for _ in tables]
    counts = {0: int(np.argmax(tables[0][0])) + 1}
    for level in range(tree.depth + 1):
        here: list[int] = []
        counts_below: dict[int, int] = {}
        for node, count in counts.items():
            alone = values[level][node] / tree.nodes(level) if values[level].size else -np.inf
            if tables[level][node][count - 1] <= alone:
                here.append(node)
                continue
            children = tree.children(level)
            among = tables[level + 1][children * node : children * (node + 1)]
            counts_below |= {children * node + i: n for i, n in enumerate(_split(among, count))}
        chosen[level] = np.array(here, np.int64)
        counts = counts_below
    return chosen


def _best_below(own: float, node: int, below: list[Floats] | None, tree: Octree, level: int, most: int) -> Floats:
    """Best sum of a node's subtree with at most 1, 2, … blocks."""
    if below is None:
        return np.array([own])
    children = tree.children(level)
    best = np.full(0, -np.inf)
    for table in below[children * node : children * (node + 1)]:
        best = table if not best.size else _joined(best, table, most)
    padded = np.concatenate([np.full(children - 1, -np.inf), best])[:most]
    return np.maximum.accumulate(np.maximum(padded, np.concatenate([[own], np.full(len(padded) - 1, -np.inf)])))


def _joined(first: Floats, second: Floats, most: int) -> Floats:
    """Best sums of two subtrees together; entry *i* is for two blocks more than *i*."""
    size = min(len(first) + len(second) - 1, most)
    best = np.full(size, -np.inf)
    for i, value in enumerate(first[:size]):
        count = min(len(second), size - i)
        np.maximum(best[i : i + count], value + second[:count], out=best[i : i + count])
    return best


def _split(tables: list[Floats], count: int) -> list[int]:
    """How many of the blocks each child has in the best way to share them."""
    joined = [tables[0]]
    for table in tables[1:]:
        joined.append(_joined(joined[-1], table, count))
    left, shares = min(count - len(tables), len(joined[-1]) - 1), []
    left = int(np.argmax(joined[-1][: left + 1]))
    for before, table in zip(joined[-2::-1], tables[:0:-1], strict=True):
        sums = [
            before[left - i] + table[i] if left - i < len(before) else -np.inf for i in range(min(left + 1, len(table)))
        ]
        share = int(np.argmax(sums))
        shares.append(share + 1)
        left -= share
    return [left + 1, *reversed(shares)]


__all__ = ["Levels", "best_blocks", "concentration", "concentrations"]

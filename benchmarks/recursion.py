"""Reference points: the TINC authors' recipe as they ship it, and a tree evaluated node by node in Python.

The recipe (their repository, commit c1481bf): data scaled to 0-100, Adamax 1e-3 cut to a fifth at steps 20,000 and
50,000, SIREN with omega 30 whose coordinate initialisation is repeated in every node, coordinates drawn with
replacement, loss summed over leaves, float32 weights as they are. Each node is a module of its own, called once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from napari_tinc.geometry.octree import Octree

OMEGA = 30.0


class Node(nn.Module):
    """Segment of one node and the nodes below it, evaluated by recursion."""

    def __init__(self, tree: Octree, level: int, fan_in: int, widths: list[int], layers: list[int]) -> None:
        super().__init__()
        width = widths[level]
        sizes = [(fan_in, width)] + [(width, width)] * (layers[level] - 1)
        self.layers = nn.ModuleList([nn.Linear(*size) for size in sizes])
        self.output = nn.Linear(width, 1) if level == tree.depth else None
        children = 0 if level == tree.depth else tree.children(level)
        self.below = nn.ModuleList([Node(tree, level + 1, width, widths, layers) for _ in range(children)])
        for index, layer in enumerate(self.layers):
            bound = 1 / layer.in_features if index == 0 else math.sqrt(6 / layer.in_features) / OMEGA
            nn.init.uniform_(layer.weight, -bound, bound)

    def forward(self, hidden: Tensor) -> list[Tensor]:
        for layer in self.layers:
            hidden = torch.sin(OMEGA * layer(hidden))
        if self.output is not None:
            return [self.output(hidden)]
        return [leaf for child in self.below for leaf in child(hidden)]


def authors_width(budget: float, fan_in: int, layers: int, is_leaf: bool) -> int:
    """Width of a node with ``budget`` float32 parameters; a leaf's last of ``layers`` is the linear output."""
    if is_leaf:
        a, b, c = layers - 2, fan_in + layers, 1 - budget
    else:
        a, b, c = layers - 1, fan_in + layers, -budget
    return max(1, int((-b + math.sqrt(b * b - 4 * a * c)) / (2 * a) if a else -c / b))


def authors_tree(tree: Octree, parameters: float, seed: int) -> Node:
    """The network of the recipe: equal budget per node; 5 layers in one level, 2 and 3 in two."""
    torch.manual_seed(seed)
    layers = {0: [5], 1: [2, 3]}.get(tree.depth, [2] * tree.depth + [3])
    nodes = sum(tree.nodes(level) for level in range(tree.depth + 1))
    widths: list[int] = []
    for level, count in enumerate(layers):
        fan_in = widths[-1] if widths else len(tree.shape)
        widths.append(authors_width(parameters / nodes, fan_in, count, level == tree.depth))
    return Node(tree, 0, len(tree.shape), widths, [*layers[:-1], layers[-1] - 1])


def train_authors(
    volume: np.ndarray, tree: Octree, parameters: float, steps: int, seed: int = 0, batch: int = 262144
) -> Iterator[tuple[int, float]]:
    """Train the recipe; yield (step, PSNR over the range in dB) every 250 steps."""
    low, high = float(volume.min()), float(volume.max())
    target = torch.from_numpy(((tree.to_leaves(volume) - low) / (high - low) * 100).astype(np.float32))
    grid = np.meshgrid(*tree.local_axes(), indexing="ij")
    coordinates = torch.from_numpy(np.stack([axis.ravel() for axis in grid], 1))
    network = authors_tree(tree, parameters, seed)
    optimiser = torch.optim.Adamax(network.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, [20000, 50000], 0.2)
    for step in range(1, steps + 1):
        index = torch.randint(len(coordinates), (batch // tree.leaves,))
        leaves = network(coordinates[index])
        loss = sum(((leaf[:, 0] - values[index]) ** 2).mean() for leaf, values in zip(leaves, target, strict=True))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % 250 == 0:
            yield step, psnr(network, coordinates, target)


@torch.no_grad()
def psnr(network: Node, coordinates: Tensor, target: Tensor) -> float:
    error = 0.0
    for start in range(0, len(coordinates), 32768):
        leaves = network(coordinates[start : start + 32768])
        decoded = torch.stack([leaf[:, 0] for leaf in leaves]).clamp(0, 100)
        error += float((decoded - target[:, start : start + 32768]).square().sum())
    return 10 * math.log10(100**2 / (error / target.numel()))

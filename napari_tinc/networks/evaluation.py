"""Evaluate a quantised network where it is asked for: leaf by leaf batches that fit caches and device memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from napari_tinc.geometry.octree import Octree
from napari_tinc.geometry.sampling import Floats32, Ints
from napari_tinc.networks.device import is_out_of_memory, resolve_device
from napari_tinc.networks.quantization import Layout, step_sizes

Coded = Callable[[int, int, int], Iterable[tuple[int, int, npt.NDArray[np.int32]]]]

# Activations per batch: what a CPU's caches hold, and enough to fill a GPU.
_ACTIVATIONS = {"cpu": 1 << 19, "cuda": 1 << 26, "mps": 1 << 24}
# Leaves per batch: every batch evaluates the tree's trunk again, so that small ones cost more.
_LEAF_BATCH = 256
_SMALLEST_TILE = 64


class Decoder:
    """Decode leaves of one file.

    Parameters
    ----------
    layout : Layout
    tree : Octree
    coded : callable
        Takes an item, a level and a block (see :meth:`napari_tinc.networks.quantization.Layout.blocks`) and returns
        (kind, step code, symbols) of the block's part of every tensor; called on first use.
    device : str
        See :func:`napari_tinc.networks.device.resolve_device`.
    """

    def __init__(self, layout: Layout, tree: Octree, coded: Coded, device: str) -> None:
        self.layout, self.tree, self._coded = layout, tree, coded
        self.device = resolve_device(device)
        # Not filled: only the blocks that were loaded are ever read, and the others take no memory.
        self._parameters = [torch.empty(array.shape, device=self.device) for array in layout.network.arrays]
        self._loaded: dict[tuple[int, int], npt.NDArray[np.bool_]] = {}

    @classmethod
    def live(cls, layout: Layout, tree: Octree, parameters: Sequence[Tensor]) -> Decoder:
        """Decode with parameters that are still being trained, where they are: use it between two steps only."""
        decoder = cls(layout, tree, lambda item, level, block: (), str(parameters[0].device))
        decoder._parameters = list(parameters)
        return decoder

    def _load(self, item: int, leaves: Ints) -> None:
        """Decode the blocks that hold leaves or their ancestors: nodes are numbered depth first."""
        for level in range(self.tree.depth + 1):
            blocks = self.layout.blocks(item, level)
            loaded = self._loaded.setdefault((item, level), np.zeros(blocks, dtype=bool))
            needed = np.unique(leaves * blocks // self.tree.leaves)
            for block in needed[~loaded[needed]].tolist():
                for kind, code, symbols in self._coded(item, level, block):
                    values = torch.from_numpy(symbols.astype(np.float32) * step_sizes(np.array(code)))
                    for view in self.layout.tensor(self._parameters, item, kind, (block, blocks)):
                        view.copy_(values[: view.numel()].reshape(view.shape))
                        values = values[view.numel() :]
                loaded[block] = True

    @torch.inference_mode()
    def evaluate(self, item: int, leaves: Ints, coordinates: Floats32) -> Iterator[tuple[slice, slice, Floats32]]:
        """Evaluate leaves of an item at shared local coordinates, batch by batch.

        Parameters
        ----------
        leaves : ndarray of int, shape (leaves,)
            Ascending.
        coordinates : ndarray, shape (axes, points)

        Yields
        ------
        rows, points : slice
            Which leaves and which points.
        values : ndarray, shape (leaves, points)

        Raises
        ------
        RuntimeError
            Torch's own, if memory runs out even for the smallest batch; larger ones are halved.
        """
        self._load(item, leaves)
        points = torch.from_numpy(coordinates).to(self.device)
        for first in range(0, len(leaves), _LEAF_BATCH):
            rows = slice(first, min(first + _LEAF_BATCH, len(leaves)))
            network, selection = self.layout.network.restrict(item * self.tree.leaves + leaves[rows])
            parameters = [self._parameters[i][torch.from_numpy(nodes).to(self.device)] for i, nodes in selection]
            width = max(int(level.sum()) for level in network.widths)
            tile = max(_SMALLEST_TILE, _ACTIVATIONS[self.device.type] // width)
            start = 0
            while start < points.shape[1]:
                columns = slice(start, min(start + tile, points.shape[1]))
                try:
                    values = network.evaluate(parameters, points[:, columns]).cpu().numpy()
                except RuntimeError as error:
                    if not is_out_of_memory(error) or tile <= _SMALLEST_TILE:
                        raise
                    tile //= 2
                    continue
                yield rows, columns, values
                start = columns.stop

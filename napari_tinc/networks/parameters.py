"""Where a network's parameters come from: a file, block by block as they are needed, or a training that goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from threading import Lock

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from napari_tinc.networks.device import resolve_device
from napari_tinc.networks.protocol import Nodes
from napari_tinc.networks.quantization import Layout, step_sizes

Coded = Callable[[int, int, int], Iterable[tuple[int, int, npt.NDArray[np.int32]]]]


class CodedParameters:
    """Parameters of a file, entropy-decoded and dequantised when they are asked for.

    Parameters
    ----------
    layout : Layout
    coded : callable
        Takes an item, a level and a block (see :meth:`napari_tinc.networks.quantization.Layout.blocks`) and returns
        (tensor, step code, symbols) of the block's part of every tensor; called once for each.
    device : str
        See :func:`napari_tinc.networks.device.resolve_device`.
    """

    def __init__(self, layout: Layout, coded: Coded, device: str) -> None:
        self.layout, self._coded = layout, coded
        self.device = resolve_device(device)
        # Not filled: only the blocks that were loaded are ever read, and the others take no memory.
        self._tensors = [torch.empty(array.shape, device=self.device) for array in layout.network.arrays]
        self._loaded: dict[tuple[int, int], npt.NDArray[np.bool_]] = {}
        self._lock = Lock()

    def of(self, item: int, leaves: Nodes | None, count: int) -> Sequence[Tensor]:
        """Decode the blocks that hold leaves or their ancestors, and return all tensors."""
        with self._lock:
            self._decode(item, leaves, count)
        return self._tensors

    def _decode(self, item: int, leaves: Nodes | None, count: int) -> None:
        for level in range(len(self.layout.network.nodes)):
            blocks = self.layout.blocks(item, level)
            loaded = self._loaded.setdefault((item, level), np.zeros(blocks, dtype=bool))
            needed = np.arange(blocks) if leaves is None else np.unique(leaves * blocks // count)
            for block in needed[~loaded[needed]].tolist():
                self._load(item, level, block, blocks)
                loaded[block] = True

    def _load(self, item: int, level: int, block: int, blocks: int) -> None:
        for tensor, code, symbols in self._coded(item, level, block):
            values = torch.from_numpy(symbols.astype(np.float32) * step_sizes(np.array(code)))
            for view in self.layout.tensor(self._tensors, item, tensor, (block, blocks)):
                view.copy_(values[: view.numel()].reshape(view.shape))
                values = values[view.numel() :]


class LiveParameters:
    """Parameters that are still being trained, where they are: use them between two steps only."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._tensors = tensors
        self.device = tensors[0].device

    def of(self, item: int, leaves: Nodes | None, count: int) -> Sequence[Tensor]:
        """Return all tensors."""
        return self._tensors


__all__ = ["CodedParameters", "LiveParameters"]

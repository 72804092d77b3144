"""From float parameters to integer symbols whose coded size fits a budget.

The step of a tensor follows from how much the output depends on it: for small errors the distortion is
``Σ n_t h_t Δ_t² / 12`` with ``h_t`` the mean diagonal of the Gauss-Newton matrix, the rate ``-Σ n_t log2 Δ_t``, and
their Lagrangian is least at ``Δ_t ∝ h_t**-1/2`` (the reverse water-filling of Gersho & Gray, "Vector Quantization
and Signal Compression", 1992, ch. 8). One common factor then sets the size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from napari_tinc.networks.entropy import MAX_SYMBOL, Matrix, estimated_bits
from napari_tinc.networks.latents import LARGEST, estimated_latent_bits
from napari_tinc.networks.protocol import Network
from napari_tinc.system.forks import with_fresh_locks

Codes = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Part = tuple[int, int]
"""Which of how many equal parts of an item's nodes on a level."""

WHOLE: Part = (0, 1)
# Parameters that are decoded together. A plane of a large volume needs few of its blocks; a smaller block would cost
# more than a thousandth of the file, for a length and the coder's last words.
BLOCK_PARAMETERS = 2**16
_FINEST, _PER_OCTAVE = -10, 16
MAX_STEP_CODE = 255
# Bytes a tensor costs besides its symbols: step code, bucket code.
TENSOR_OVERHEAD_BITS = 8 * 2


@with_fresh_locks
@dataclass(frozen=True)
class Layout:
    """Which tensor every parameter belongs to, and how the tensors are cut into blocks.

    A *tensor* is what shares one step and one model of symbols: all arrays of one level and position, of one item.

    Parameters
    ----------
    network : Network
        The nodes of a level are divided among its items in order.
    """

    network: Network

    @property
    def items(self) -> int:
        """Volumes in the file."""
        return self.network.items

    @cached_property
    def tensors(self) -> list[tuple[int, int]]:
        """Tensors of an item in file order: (level, position)."""
        return sorted({(array.level, array.position) for array in self.network.arrays})

    @cached_property
    def tensor_of_array(self) -> list[int]:
        """Position in :attr:`tensors` of every array."""
        return [self.tensors.index((array.level, array.position)) for array in self.network.arrays]

    @cached_property
    def _level_sizes(self) -> list[npt.NDArray[np.int64]]:
        """Number of parameters of every item, level by level."""
        levels = range(len(self.network.nodes))
        return [self.network.node_parameters(level).reshape(self.items, -1).sum(1) for level in levels]

    def blocks(self, item: int, level: int) -> int:
        """Into how many blocks of consecutive nodes the parameters of an item's level are coded.

        A power of two, as the number of nodes is: the least that makes blocks of :data:`BLOCK_PARAMETERS` on average.
        """
        blocks, nodes = 1, self.network.nodes[level] // self.items
        while blocks < nodes and self._level_sizes[level][item] > blocks * BLOCK_PARAMETERS:
            blocks *= 2
        return blocks

    def rows(self, array: int, item: int, part: Part = WHOLE) -> slice:
        """Rows of an array that belong to an item, or to a part of its nodes."""
        owner = self.network.arrays[array]
        per_item = self.network.nodes[owner.level] // self.items
        number, count = part
        ends = [item * per_item + per_item * i // count for i in (number, number + 1)]
        first, last = np.searchsorted(owner.nodes, ends)
        return slice(int(first), int(last))

    def matrices(self, item: int, tensor: int, part: Part = WHOLE) -> list[Matrix]:
        """Rows and columns of one tensor, or of a part of it, array by array; the last axis makes the columns."""
        found = []
        for i in self._owners(tensor):
            rows, array = self.rows(i, item, part), self.network.arrays[i]
            columns = array.shape[-1] if len(array.shape) > 1 else 1
            found.append(((rows.stop - rows.start) * array.per_node // columns, columns))
        return found

    @cached_property
    def has_volumes(self) -> bool:
        """Whether an array lies on a grid: its last axes are spatial ones, behind those of nodes and features."""
        return any(len(array.shape) > 3 for array in self.network.arrays)

    def shapes(self, item: int, tensor: int, part: Part = WHOLE) -> list[tuple[int, ...]]:
        """As :meth:`matrices`, but of an array on a grid: volumes of all nodes and features, planes, rows, columns."""
        found: list[tuple[int, ...]] = []
        for i, matrix in zip(self._owners(tensor), self.matrices(item, tensor, part), strict=True):
            shape, rows = self.network.arrays[i].shape, self.rows(i, item, part)
            if len(shape) > 3:
                planes = shape[2] if len(shape) > 4 else 1
                matrix = ((rows.stop - rows.start) * shape[1], planes, *shape[-2:])
            found.append(matrix)
        return found

    def size(self, item: int, tensor: int, part: Part = WHOLE) -> int:
        """Number of parameters of one tensor, or of a part of it."""
        return sum(rows * columns for rows, columns in self.matrices(item, tensor, part))

    def tensor(self, parameters: Sequence[Tensor], item: int, tensor: int, part: Part = WHOLE) -> list[Tensor]:
        """Views of the parameters of one tensor, or of a part of it, array by array."""
        return [parameters[i][self.rows(i, item, part)] for i in self._owners(tensor)]

    def cut(self, item: int, tensor: int, symbols: npt.NDArray[np.int32], blocks: int) -> list[npt.NDArray[np.int32]]:
        """Cut the symbols of a tensor, array by array, into those of its blocks, each array by array again."""
        pieces: list[list[npt.NDArray[np.int32]]] = [[] for _ in range(blocks)]
        for i in self._owners(tensor):
            whole, per_node = self.rows(i, item), self.network.arrays[i].per_node
            of_array, symbols = np.split(symbols, [(whole.stop - whole.start) * per_node])
            ends = [(self.rows(i, item, (b, blocks)).stop - whole.start) * per_node for b in range(blocks - 1)]
            for piece, symbols_of_block in zip(pieces, np.split(of_array, ends), strict=True):
                piece.append(symbols_of_block)
        return [np.concatenate(piece) for piece in pieces]

    def _owners(self, tensor: int) -> list[int]:
        """Arrays that hold the nodes of a tensor."""
        return [i for i, owner in enumerate(self.tensor_of_array) if owner == tensor]


def step_sizes(codes: Codes) -> npt.NDArray[np.float32]:
    """Step of every code: ``2**(code / 16 - 10)``."""
    return np.exp2(codes / _PER_OCTAVE + _FINEST).astype(np.float32)


def expand_steps(layout: Layout, codes: Codes, device: torch.device) -> list[Tensor]:
    """Step of every node of every array, of its rank: (nodes, 1, …); ``codes`` has shape (items, tensors)."""
    steps, expanded = step_sizes(codes), []
    for array, tensor in zip(layout.network.arrays, layout.tensor_of_array, strict=True):
        item = array.nodes // (layout.network.nodes[array.level] // layout.items)
        ones = (1,) * (len(array.shape) - 1)
        expanded.append(torch.from_numpy(steps[item, tensor]).reshape(-1, *ones).to(device))
    return expanded


def round_straight_through(parameters: Sequence[Tensor], steps: Sequence[Tensor]) -> list[Tensor]:
    """Quantise and dequantise; gradients pass as if nothing had happened (Bengio et al., 2013, arXiv 1308.3432)."""
    return [p + (torch.round(p / s) * s - p).detach() for p, s in zip(parameters, steps, strict=True)]


def sensitivity(
    layout: Layout, parameters: Sequence[Tensor], batches: Callable[[], tuple[Any, Tensor]], probes: int = 8
) -> Floats:
    """Estimate the mean Gauss-Newton diagonal of every tensor with random signs (Bekas et al., 2007).

    Parameters
    ----------
    batches : callable
        Returns (inputs, signs); the signs are ±sqrt(weight), in the shape of the output.

    Returns
    -------
    ndarray, shape (items, tensors)
    """
    total = np.zeros((layout.items, len(layout.tensors)))
    count = np.zeros_like(total)
    for _ in range(probes):
        inputs, signs = batches()
        output = layout.network.evaluate(parameters, inputs)
        gradients = torch.autograd.grad((output * signs).sum(), list(parameters))
        for i, (gradient, tensor) in enumerate(zip(gradients, layout.tensor_of_array, strict=True)):
            for item in range(layout.items):
                part = gradient[layout.rows(i, item)]
                total[item, tensor] += float(part.square().sum())
                count[item, tensor] += part.numel()
    return total / count


def quantise(layout: Layout, parameters: Sequence[Tensor], codes: Codes) -> list[list[npt.NDArray[np.int32]]]:
    """Symbols of every tensor, ``[item][tensor]``; out-of-range symbols are clipped."""
    steps, most = step_sizes(codes), LARGEST if layout.has_volumes else MAX_SYMBOL
    symbols = []
    for item in range(layout.items):
        row = []
        for tensor in range(len(layout.tensors)):
            flat = np.concatenate([p.detach().cpu().numpy().ravel() for p in layout.tensor(parameters, item, tensor)])
            rounded = np.rint(flat / steps[item, tensor])
            row.append(np.clip(rounded, -most, most).astype(np.int32))
        symbols.append(row)
    return symbols


def dequantise(layout: Layout, symbols: Sequence[Sequence[npt.NDArray[np.int32]]], codes: Codes) -> list[Tensor]:
    """Parameters on the CPU from symbols; invert :func:`quantise` up to half a step."""
    steps = step_sizes(codes)
    parameters = [torch.empty(a.shape) for a in layout.network.arrays]
    for item in range(layout.items):
        for tensor in range(len(layout.tensors)):
            values = symbols[item][tensor].astype(np.float32) * steps[item, tensor]
            for view in layout.tensor(parameters, item, tensor):
                view.copy_(torch.from_numpy(values[: view.numel()]).reshape(view.shape))
                values = values[view.numel() :]
    return parameters


def coded_bits(layout: Layout, symbols: Sequence[Sequence[npt.NDArray[np.int32]]]) -> float:
    """Estimate the size of all parameter segments."""
    total = 0.0
    for item, row in enumerate(symbols):
        for tensor, own in enumerate(row):
            shapes = layout.shapes(item, tensor) if layout.has_volumes else ()
            total += (estimated_latent_bits(own, shapes) if shapes else estimated_bits(own)) + TENSOR_OVERHEAD_BITS
    return total


def fit_steps(layout: Layout, parameters: Sequence[Tensor], sensitivities: Floats, bits: float) -> tuple[Codes, float]:
    """Choose the finest steps in proportion to ``h**-1/2`` whose symbols fit in ``bits``.

    Returns
    -------
    codes : ndarray of int, shape (items, tensors)
    estimate : float
        Bits that they take; above ``bits`` only if even the coarsest steps do not fit.
    """
    shape = -0.5 * np.log2(np.maximum(sensitivities, 1e-12))
    low, high = -40.0, 40.0  # log2 of the common factor: too fine … coarse enough
    for _ in range(16):
        middle = (low + high) / 2
        if coded_bits(layout, quantise(layout, parameters, step_codes(shape + middle))) > bits:
            low = middle
        else:
            high = middle
    codes = step_codes(shape + high)
    return codes, coded_bits(layout, quantise(layout, parameters, codes))


def step_codes(log2_steps: Floats) -> Codes:
    """Nearest codes of steps given by their logarithm."""
    codes = np.rint((log2_steps - _FINEST) * _PER_OCTAVE)
    return np.clip(codes, 0, MAX_STEP_CODE).astype(np.int64)

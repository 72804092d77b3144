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

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from napari_tinc.networks.entropy import MAX_SYMBOL, SymbolModel, fit_model
from napari_tinc.networks.families import Network
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
# Bytes a tensor costs besides its symbols: step code, model, bound.
TENSOR_OVERHEAD_BITS = 8 * 4


@with_fresh_locks
@dataclass(frozen=True)
class Layout:
    """Which tensor (item, level, layer, weight or bias) every parameter belongs to.

    A *tensor* here is what shares one step and one symbol model: all nodes of one item in one layer.

    Parameters
    ----------
    network : Network
    items : int
        Volumes in the file; the nodes of a level are divided among them in order.
    """

    network: Network
    items: int

    @cached_property
    def kinds(self) -> list[tuple[int, int, str]]:
        """Tensors of an item in file order: (level, layer, kind)."""
        return list(dict.fromkeys((a.level, a.layer, a.kind) for a in sorted(self.network.arrays, key=_file_order)))

    @cached_property
    def kind_of_array(self) -> list[int]:
        """Position in :attr:`kinds` of every array."""
        return [self.kinds.index((a.level, a.layer, a.kind)) for a in self.network.arrays]

    @cached_property
    def _level_sizes(self) -> list[npt.NDArray[np.int64]]:
        """Number of parameters of every item, level by level."""
        levels = range(len(self.network.widths))
        return [self.network.node_parameters(level).reshape(self.items, -1).sum(1) for level in levels]

    def blocks(self, item: int, level: int) -> int:
        """Into how many blocks of consecutive nodes the parameters of an item's level are coded.

        A power of two, as the number of nodes is: the least that makes blocks of :data:`BLOCK_PARAMETERS` on average.
        """
        blocks, nodes = 1, len(self.network.widths[level]) // self.items
        while blocks < nodes and self._level_sizes[level][item] > blocks * BLOCK_PARAMETERS:
            blocks *= 2
        return blocks

    def rows(self, array: int, item: int, part: Part = WHOLE) -> slice:
        """Rows of an array that belong to an item, or to a part of its nodes."""
        nodes = self.network.arrays[array].nodes
        per_item = len(self.network.widths[self.network.arrays[array].level]) // self.items
        number, count = part
        ends = [item * per_item + per_item * i // count for i in (number, number + 1)]
        first, last = np.searchsorted(nodes, ends)
        return slice(int(first), int(last))

    def size(self, item: int, kind: int, part: Part = WHOLE) -> int:
        """Number of parameters of one tensor, or of a part of it."""
        total = 0
        for i in self._owners(kind):
            rows, (_, out, fan_in) = self.rows(i, item, part), self.network.arrays[i].shape
            total += (rows.stop - rows.start) * out * fan_in
        return total

    def tensor(self, parameters: Sequence[Tensor], item: int, kind: int, part: Part = WHOLE) -> list[Tensor]:
        """Views of the parameters of one tensor, or of a part of it, group by group."""
        return [parameters[i][self.rows(i, item, part)] for i in self._owners(kind)]

    def cut(self, item: int, kind: int, symbols: npt.NDArray[np.int32], blocks: int) -> list[npt.NDArray[np.int32]]:
        """Cut the symbols of a tensor, group by group, into those of its blocks, each group by group again."""
        pieces: list[list[npt.NDArray[np.int32]]] = [[] for _ in range(blocks)]
        for i in self._owners(kind):
            whole, (_, out, fan_in) = self.rows(i, item), self.network.arrays[i].shape
            group, symbols = np.split(symbols, [(whole.stop - whole.start) * out * fan_in])
            ends = [(self.rows(i, item, (b, blocks)).stop - whole.start) * out * fan_in for b in range(blocks - 1)]
            for piece, symbols_of_block in zip(pieces, np.split(group, ends), strict=True):
                piece.append(symbols_of_block)
        return [np.concatenate(piece) for piece in pieces]

    def _owners(self, kind: int) -> list[int]:
        """Arrays that hold the nodes of a tensor."""
        return [i for i, owner in enumerate(self.kind_of_array) if owner == kind]


def _file_order(array: object) -> tuple[int, int, bool]:
    return array.level, array.layer, array.kind == "bias"  # type: ignore[attr-defined]


def step_sizes(codes: Codes) -> npt.NDArray[np.float32]:
    """Step of every code: ``2**(code / 16 - 10)``."""
    return np.exp2(codes / _PER_OCTAVE + _FINEST).astype(np.float32)


def expand_steps(layout: Layout, codes: Codes, device: torch.device) -> list[Tensor]:
    """Step of every node of every array, shape (nodes, 1, 1); ``codes`` has shape (items, kinds)."""
    steps, expanded = step_sizes(codes), []
    for array, kind in zip(layout.network.arrays, layout.kind_of_array, strict=True):
        item = array.nodes // (len(layout.network.widths[array.level]) // layout.items)
        expanded.append(torch.from_numpy(steps[item, kind]).reshape(-1, 1, 1).to(device))
    return expanded


def round_straight_through(parameters: Sequence[Tensor], steps: Sequence[Tensor]) -> list[Tensor]:
    """Quantise and dequantise; gradients pass as if nothing had happened (Bengio et al., 2013, arXiv 1308.3432)."""
    return [p + (torch.round(p / s) * s - p).detach() for p, s in zip(parameters, steps, strict=True)]


def sensitivity(
    layout: Layout, parameters: Sequence[Tensor], batches: Callable[[], tuple[Tensor, Tensor]], probes: int = 8
) -> Floats:
    """Estimate the mean Gauss-Newton diagonal of every tensor with random signs (Bekas et al., 2007).

    Parameters
    ----------
    batches : callable
        Returns (coordinates, signs); the signs are ±sqrt(weight), shape (rows, points).

    Returns
    -------
    ndarray, shape (items, kinds)
    """
    total = np.zeros((layout.items, len(layout.kinds)))
    count = np.zeros_like(total)
    for _ in range(probes):
        coordinates, signs = batches()
        output = layout.network.evaluate(parameters, coordinates)
        gradients = torch.autograd.grad((output * signs).sum(), list(parameters))
        for i, (gradient, kind) in enumerate(zip(gradients, layout.kind_of_array, strict=True)):
            for item in range(layout.items):
                part = gradient[layout.rows(i, item)]
                total[item, kind] += float(part.square().sum())
                count[item, kind] += part.numel()
    return total / count


def quantise(layout: Layout, parameters: Sequence[Tensor], codes: Codes) -> list[list[npt.NDArray[np.int32]]]:
    """Symbols of every tensor, ``[item][kind]``; out-of-range symbols are clipped."""
    steps = step_sizes(codes)
    symbols = []
    for item in range(layout.items):
        row = []
        for kind in range(len(layout.kinds)):
            flat = np.concatenate([p.detach().cpu().numpy().ravel() for p in layout.tensor(parameters, item, kind)])
            rounded = np.rint(flat / steps[item, kind])
            row.append(np.clip(rounded, -MAX_SYMBOL, MAX_SYMBOL).astype(np.int32))
        symbols.append(row)
    return symbols


def dequantise(layout: Layout, symbols: Sequence[Sequence[npt.NDArray[np.int32]]], codes: Codes) -> list[Tensor]:
    """Parameters on the CPU from symbols; invert :func:`quantise` up to half a step."""
    steps = step_sizes(codes)
    parameters = [torch.empty(a.shape) for a in layout.network.arrays]
    for item in range(layout.items):
        for kind in range(len(layout.kinds)):
            values = symbols[item][kind].astype(np.float32) * steps[item, kind]
            for view in layout.tensor(parameters, item, kind):
                view.copy_(torch.from_numpy(values[: view.numel()]).reshape(view.shape))
                values = values[view.numel() :]
    return parameters


def coded_bits(symbols: Sequence[Sequence[npt.NDArray[np.int32]]]) -> float:
    """Estimate the size of all parameter segments."""
    return sum(fit_model(s)[1] + TENSOR_OVERHEAD_BITS for row in symbols for s in row)


def fit_steps(layout: Layout, parameters: Sequence[Tensor], sensitivities: Floats, bits: float) -> tuple[Codes, float]:
    """Choose the finest steps in proportion to ``h**-1/2`` whose symbols fit in ``bits``.

    Returns
    -------
    codes : ndarray of int, shape (items, kinds)
    estimate : float
        Bits that they take; above ``bits`` only if even the coarsest steps do not fit.
    """
    shape = -0.5 * np.log2(np.maximum(sensitivities, 1e-12))
    low, high = -40.0, 40.0  # log2 of the common factor: too fine … coarse enough
    for _ in range(16):
        middle = (low + high) / 2
        if coded_bits(quantise(layout, parameters, step_codes(shape + middle))) > bits:
            low = middle
        else:
            high = middle
    codes = step_codes(shape + high)
    return codes, coded_bits(quantise(layout, parameters, codes))


def step_codes(log2_steps: Floats) -> Codes:
    """Nearest codes of steps given by their logarithm."""
    codes = np.rint((log2_steps - _FINEST) * _PER_OCTAVE)
    return np.clip(codes, 0, MAX_STEP_CODE).astype(np.int64)


def symbol_models(symbols: Sequence[Sequence[npt.NDArray[np.int32]]]) -> list[list[SymbolModel]]:
    """Choose the symbol model of every tensor."""
    return [[fit_model(s)[0] for s in row] for row in symbols]

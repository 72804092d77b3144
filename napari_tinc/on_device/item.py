"""The voxels of an item of wavelets: the CPU's threads decode its symbols, a device does all that comes behind."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, pairwise
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from napari_tinc.arrays.scratch import Bounds, boxes
from napari_tinc.errors import InputError
from napari_tinc.format import ItemRange
from napari_tinc.geometry.pyramid import overlap, slices_of
from napari_tinc.geometry.sampling import neighbours, sample_positions
from napari_tinc.networks.device import is_out_of_memory, one_core_free
from napari_tinc.on_device import operations
from napari_tinc.postfilter import REACH, PostFilter
from napari_tinc.restoration import RADIUS, Restoration, around
from napari_tinc.wavelets.blocks import WaveletLayer

logger = logging.getLogger(__name__)

Tensor = torch.Tensor

# Coarser octaves are inverted on the CPU: they have a few hundredths of the samples, and take as many operations.
_OCTAVES = 3
# Voxels of a box: so many that a device is busy, and so few that they take a gigabyte there.
BOX_VOXELS, _LEAST_VOXELS = 2**23, 2**15
_SIGNED = {1: torch.int8, 2: torch.int16, 4: torch.int32}


@dataclass(frozen=True, eq=False)
class _Coded:
    """What the device needs for a region of an octave: the bands of some octaves, and the low-pass of the last.

    Parameters
    ----------
    octave : int
    regions : list of tuple of (int, int)
        What each of the octaves, from this one on, gives; last, the region of the low-pass.
    parts : list of ndarray
        For every octave float32 coefficients, or int8 symbols; last, the low-pass. Its first axis is for bands.
    """

    octave: int
    regions: list[Bounds]
    parts: list[npt.NDArray[Any]]

    @classmethod
    def of(cls, layer: WaveletLayer, octave: int, bounds: Bounds) -> _Coded:
        last = min(octave + _OCTAVES, layer.pyramid.octaves)
        regions, parts = [bounds], []
        for number in range(octave, last):
            inner = layer.inner(number, regions[-1])
            parts.append(_symbols(layer, number, inner))
            regions.append(inner)
        parts.append(layer.region(last, regions[-1])[None])
        return cls(octave, regions, parts)

    def sent(self, device: torch.device) -> list[Tensor]:
        """Copy all parts to the device, at once."""
        order = sorted(range(len(self.parts)), key=lambda i: -self.parts[i].itemsize)  # so that all are aligned
        arrays = [self.parts[i] for i in order]
        everything = torch.from_numpy(np.concatenate([a.reshape(-1).view(np.uint8) for a in arrays])).to(device)
        tensors: list[Tensor] = [everything] * len(arrays)
        ends = [0, *accumulate(a.nbytes for a in arrays)]
        for i, array, (start, stop) in zip(order, arrays, pairwise(ends), strict=True):
            part = everything[start:stop]
            tensors[i] = (part if array.dtype == np.int8 else part.view(torch.float32)).reshape(array.shape)
        return tensors


def _symbols(layer: WaveletLayer, octave: int, bounds: Bounds) -> npt.NDArray[Any]:
    """Symbols of a region in a byte each, or, where one does not fit, the coefficients that they stand for."""
    pieces = layer.pieces(octave, bounds)
    sides = (len(layer.pyramid.orientations(octave)), *(b - a for a, b in bounds))
    fit = all(piece.cells.width == 1 for piece in pieces)
    dense = np.zeros(sides, np.int8 if fit else np.int32)
    for cells, begin, (z, y, x), (depth, height, width) in pieces:
        dense[:, z : z + depth, y : y + height, x : x + width] = cells.box(begin, (depth, height, width))
    return dense if fit else layer.head.dequantised(dense)


class WaveletsOnDevice:
    """The voxels of one item of wavelets, see :class:`napari_tinc.layers.Elsewhere`.

    Parameters
    ----------
    layer : WaveletLayer
    shape : tuple of int
        Spatial shape in voxels.
    limits : ItemRange
    restoration : Restoration or None
    postfilter : PostFilter or None
    device : torch.device
    """

    def __init__(
        self, layer: WaveletLayer, shape: tuple[int, ...], limits: ItemRange, restoration: Restoration | None,
        postfilter: PostFilter | None, device: torch.device,
    ) -> None:  # fmt: skip
        self._layer, self._shape, self._limits, self._device = layer, shape, limits, device
        self._restoration, self._postfilter = restoration, postfilter
        self._lock = Lock()
        self.box_voxels = BOX_VOXELS
        # What symbols of a byte stand for, first 0 … 127 and then the negative ones.
        symbols = np.concatenate([np.arange(128), np.arange(-128, 0)]).astype(np.int32)
        self._table = torch.from_numpy(layer.head.dequantised(symbols)).to(device)

    def intensities(self, bounds: Bounds, scale: float, wide: np.dtype[Any], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        """Decode a region; what the device has no memory for is decoded in smaller boxes, and a warning says so.

        Raises
        ------
        InputError
            If it has no memory even for the smallest.
        """
        if math.prod(b - a for a, b in bounds) > self.box_voxels:
            out = np.empty([b - a for a, b in bounds], dtype)
            for box in boxes(bounds, self.box_voxels):
                out[overlap(slices_of(box), bounds)] = self.intensities(box, scale, wide, dtype)
            return out
        coded = list(self._wanted(bounds, scale))
        try:
            with self._lock, one_core_free(), torch.inference_mode():
                values = self._normalised(bounds, scale, coded)
                return self._converted(values, wide, dtype)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        # Here, where the error no longer holds what was in work.
        self.box_voxels = math.prod(b - a for a, b in bounds) // 2
        if self.box_voxels < _LEAST_VOXELS:
            raise InputError(
                f"expected memory for {2 * self.box_voxels} voxels on {self._device}, got none: decode on 'cpu'"
            )
        logger.warning("out of memory on %s: going on with boxes of %d voxels", self._device, self.box_voxels)
        return self.intensities(bounds, scale, wide, dtype)

    def _wanted(self, bounds: Bounds, scale: float) -> Iterator[_Coded]:
        """Decode the symbols that a region needs; above scale 1 first those of the voxels that are filtered."""
        filtered = self._restoration is not None or self._postfilter is not None
        if filtered and scale >= 1:
            near = bounds if scale == 1 else neighbours(self._positions(bounds, scale), self._shape)
            yield _Coded.of(self._layer, 0, self._in_space(self._around(near)[0]))
        if not filtered or scale != 1:
            octave, _, grids = self._layer.grids(bounds, scale)
            yield _Coded.of(self._layer, octave, neighbours(grids, self._layer.pyramid.shapes[octave]))

    def _normalised(self, bounds: Bounds, scale: float, coded: list[_Coded]) -> Tensor:
        """Return what :meth:`napari_tinc.layers.ItemDecoder.normalised` does."""
        if (self._restoration is None and self._postfilter is None) or scale < 1:
            return self._sampled(bounds, scale, coded[0])
        if scale == 1:
            return self._filtered(bounds, coded[0])[0]
        grids = self._positions(bounds, scale)
        near = neighbours(grids, self._shape)
        filtered, voxels = self._filtered(near, coded[0])
        return self._sampled(bounds, scale, coded[1]) + operations.interpolated(filtered - voxels, near, grids)

    def _sampled(self, bounds: Bounds, scale: float, coded: _Coded) -> Tensor:
        octave, gain, grids = self._layer.grids(bounds, scale)
        samples = operations.interpolated(self._samples(coded), coded.regions[0], grids).reshape(
            [b - a for a, b in bounds]
        )
        return samples * float(np.float32(gain)) if octave else samples

    def _samples(self, coded: _Coded) -> Tensor:
        """Invert the transform."""
        *bands, low = coded.sent(self._device)
        samples = low[0]
        for number in reversed(range(len(bands))):
            values = (self._dequantised(band) for band in bands[number])
            octave, region = coded.octave + number, coded.regions[number]
            samples = self._inverted(octave, region, list(values), samples)
        return samples

    def _inverted(self, octave: int, bounds: Bounds, bands: list[Tensor], low: Tensor) -> Tensor:
        """Invert an octave's split in a region of what it splits."""
        pyramid, inner = self._layer.pyramid, self._layer.inner(octave, bounds)
        axes, shape, cut = pyramid.splits[octave], pyramid.shapes[octave], {0: low}
        for code, band in zip(pyramid.orientations(octave).tolist(), bands, strict=True):
            # High-pass bands are one shorter than the low-pass along an axis of odd length.
            stops = [
                min(b, n // 2) - a if code >> axis & 1 else b - a
                for axis, ((a, b), n) in enumerate(zip(inner, shape, strict=True))
            ]
            cut[code] = band[tuple(slice(stop) for stop in stops)]
        samples = operations.inverse(cut, axes)
        starts = [2 * lo if axis in axes else lo for axis, (lo, _) in enumerate(inner)]
        return samples[tuple(slice(a - s, b - s) for (a, b), s in zip(bounds, starts, strict=True))]

    def _dequantised(self, band: Tensor) -> Tensor:
        if band.dtype == torch.float32:
            return band
        return self._table.index_select(0, band.reshape(-1).int()).reshape(band.shape)

    def _filtered(self, bounds: Bounds, coded: _Coded) -> tuple[Tensor, Tensor]:
        """Return voxels of a region after the filters, and before."""
        whole, inner = self._around(bounds)
        flat = 3 - len(bounds)
        values = self._samples(coded).reshape([b - a for a, b in whole])
        plain = values[overlap(slices_of(bounds), whole)]
        values = values.reshape((1,) * flat + values.shape)
        if self._restoration is not None:
            beyond = [(RADIUS, RADIUS)] * flat + around(inner, self._shape)[1]
            values = operations.restored(operations.padded(values, beyond), self._restoration)
        if self._postfilter is not None:
            beyond = [(REACH, REACH)] * flat + around(bounds, self._shape, REACH)[1]
            values = operations.postfiltered(operations.padded(values, beyond), self._postfilter)
        return values.reshape(plain.shape), plain

    def _around(self, bounds: Bounds) -> tuple[Bounds, Bounds]:
        """Voxels that the filters of a region depend on, and of these what is restored."""
        restored = bounds if self._postfilter is None else around(bounds, self._shape, REACH)[0]
        return (restored if self._restoration is None else around(restored, self._shape)[0]), restored

    def _converted(self, values: Tensor, wide: np.dtype[Any], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        """Do what :func:`napari_tinc.layers.to_intensities` does, and copy it back."""
        if wide == np.float64:
            values = values.to(torch.float64)
        values = values * self._limits.scale
        values += self._limits.offset
        if dtype.kind != "f":
            values.round_()
        values.clamp_(self._limits.minimum, self._limits.maximum)
        if dtype.kind == "f":
            narrow = values.half() if dtype == np.float16 else values
        else:  # wraps, so that unsigned numbers have the right bits
            narrow = values.to(torch.int64 if dtype.itemsize == 4 else torch.int32).to(_SIGNED[dtype.itemsize])
        found: npt.NDArray[Any] = narrow.cpu().numpy()
        return found.astype(dtype, copy=False) if dtype.kind == "f" else found.view(dtype)

    def _positions(self, bounds: Bounds, scale: float) -> list[npt.NDArray[np.float64]]:
        sides = zip(bounds, self._shape, strict=True)
        return [np.clip(sample_positions(a, b, scale, side), 0, side - 1) for (a, b), side in sides]

    def _in_space(self, bounds: Bounds) -> Bounds:
        return ((0, 1),) * (3 - len(bounds)) + tuple(bounds)


__all__ = ["BOX_VOXELS", "WaveletsOnDevice"]

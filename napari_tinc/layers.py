"""Layers: what adds to the voxels of an item, and how their sum becomes intensities.

``voxels = round(offset + scale · filter(restore(Σ layers)))``, clipped to the original's range; outside of
a mask they are the background. Nobody above knows what a layer is made of.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from napari_tinc.arrays.scratch import Bounds, boxes, spans
from napari_tinc.choices import FAMILIES
from napari_tinc.directional.layer import DirectionalLayer
from napari_tinc.directional.payload import parse_directions
from napari_tinc.errors import FormatError
from napari_tinc.exact import ExactItem
from napari_tinc.format import (
    KIND_CORRECTIONS,
    KIND_DIRECTIONAL,
    KIND_EXACT,
    KIND_MASK,
    KIND_POSTFILTER,
    KIND_PREDICTED,
    KIND_RESTORATION,
    KIND_WAVELETS,
    MODEL_EXACT,
    MODEL_PREDICTIVE,
    MODEL_WAVELETS,
    MODELS,
    Frame,
    ItemRange,
    RangedSegment,
)
from napari_tinc.geometry.octree import Box, Octree
from napari_tinc.geometry.pyramid import BlockCache, overlap, slices_of
from napari_tinc.geometry.sampling import Floats32, interpolate, neighbours, sample_positions
from napari_tinc.limits import LIMITS
from napari_tinc.masks.coder import INSIDE, MIXED, OUTSIDE
from napari_tinc.masks.mask import Mask
from napari_tinc.masks.payload import parse_mask
from napari_tinc.postfilter import REACH, PostFilter, channels_of, parse_postfilter, postfilter_size
from napari_tinc.predictive.item import CorrectedItem, PredictedItem
from napari_tinc.predictive.payload import parse_corrections, parse_predicted
from napari_tinc.restoration import (
    RADIUS,
    Mapping,
    Restoration,
    Surrounded,
    around,
    bins_of,
    parse_restoration,
    restoration_size,
)
from napari_tinc.system.cuda import cuda_is_at_hand
from napari_tinc.system.forks import with_fresh_locks
from napari_tinc.system.threads import side_by_side, usable_cores
from napari_tinc.wavelets.blocks import WaveletLayer
from napari_tinc.wavelets.payload import open_wavelets, parse_wavelets

if TYPE_CHECKING:
    from napari_tinc.networks.layer import NetworkLayer

_WIDE = (
    KIND_WAVELETS, KIND_RESTORATION, KIND_MASK, KIND_DIRECTIONAL, KIND_PREDICTED, KIND_CORRECTIONS, KIND_POSTFILTER
)  # fmt: skip
# How many times larger boxes are where small ones cost more.
_LARGE = 4
# Floats that fit in a core's own cache.
_CACHED_VOXELS = 2**17
# A network may overshoot a float32 volume's range by far before it is clipped: leave room below float32's largest.
_LARGEST_NARROW_RANGE = 1e30


class Layer(Protocol):
    """What adds to the voxels of one item. Several threads may ask for regions of it."""

    @property
    def has_threads(self) -> bool:
        """Whether it decodes a region with threads of its own, and a large one for less than several small ones."""

    def values(self, bounds: Bounds, scale: float) -> Floats32:
        """Evaluate a region.

        Parameters
        ----------
        bounds : tuple of (int, int)
            Start and stop of every spatial axis, in samples at ``scale``.
        scale : float
            Samples per voxel.

        Returns
        -------
        ndarray of float32, normalised, the shape of the bounds; the caller may change it
        """

    def region_bytes(self, bounds: Bounds, scale: float) -> int:
        """Bytes of the file that :meth:`values` decodes for a region: the blocks it needs, and what is always read."""

    def leaf_bytes(self, tree: Octree) -> npt.NDArray[np.float64]:
        """Bytes of the file spent on every leaf of the item."""


class Item(Protocol):
    """Decodes regions of one item. Several threads may ask for regions of it."""

    def decode(self, bounds: Bounds, scale: float, out: npt.NDArray[Any]) -> None:
        """Fill an array of the original's dtype and the shape of the bounds with intensities."""

    def region_bytes(self, bounds: Bounds, scale: float) -> int:
        """Bytes of the file that :meth:`decode` needs for a region."""

    def leaf_bytes(self, tree: Octree) -> npt.NDArray[np.float64]:
        """Bytes of the file spent on every leaf of the item."""


class Elsewhere(Protocol):
    """Decodes regions of one item on a device. Several threads may ask for regions of it."""

    box_voxels: int
    """How many voxels it decodes at once."""

    def intensities(self, bounds: Bounds, scale: float, wide: np.dtype[Any], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        """Return what :func:`to_intensities` makes of :meth:`ItemDecoder.normalised`, within float32 rounding."""


@dataclass(frozen=True)
class ItemDecoder:
    """Decodes regions of one item from layers, a restoration filter and a post-filter.

    Parameters
    ----------
    shape : tuple of int
        Spatial shape in voxels.
    limits : ItemRange
        Value range and normalisation.
    layers : sequence of Layer
    restoration : Restoration or None
    mask : Mask or None
    postfilter : PostFilter or None
        Applied after the restoration filter.
    elsewhere : Elsewhere or None
        What decodes its voxels; None for this class itself, on the CPU.
    """

    shape: tuple[int, ...]
    limits: ItemRange
    layers: Sequence[Layer]
    restoration: Restoration | None
    mask: Mask | None = None
    postfilter: PostFilter | None = None
    elsewhere: Elsewhere | None = None

    def decode(self, bounds: Bounds, scale: float, out: npt.NDArray[Any]) -> None:
        """Fill an array of the original's dtype and the shape of the bounds with intensities."""
        limits = self.limits
        if limits.minimum == limits.maximum:
            out[...] = limits.minimum
            return
        narrow = out.dtype.itemsize < 4 or (out.dtype == np.float32 and limits.span < _LARGEST_NARROW_RANGE)
        wide = np.dtype(np.float32 if narrow else np.float64)

        def decoded(box: Bounds) -> None:
            part = out[overlap(slices_of(box), bounds)]
            if self.mask is None:
                self._fill(box, scale, wide, part)
            else:
                self._decode_inside(self.mask, box, scale, wide, part)

        # Boxes are nearly cubes: they have least surface, beyond which wavelets reach.
        have_threads = self.elsewhere is None and any(layer.has_threads for layer in self.layers)
        if self.elsewhere is not None:
            most = self.elsewhere.box_voxels
        elif have_threads:
            most = _LARGE * LIMITS.voxels
        else:  # with several in work, half as large: their copies take no more memory than a small volume
            most = LIMITS.voxels // (1 if usable_cores() == 1 else 2)
        for _ in (map if have_threads else side_by_side)(decoded, boxes(bounds, most)):
            pass

    def _fill(self, bounds: Bounds, scale: float, wide: np.dtype[Any], out: npt.NDArray[Any]) -> None:
        if self.elsewhere is not None:
            out[...] = self.elsewhere.intensities(bounds, scale, wide, out.dtype)
            return
        if scale != 1 or self.restoration is None or self.postfilter is not None:
            values = self.normalised(bounds, scale)
            for start, stop in _few_planes(bounds):
                out[start:stop] = to_intensities(values[start:stop], self.limits, wide, out.dtype)
            return
        voxels = self.surrounded(bounds)
        if len(bounds) < 3:
            out = out[None]
        mapping = mapping_to(self.limits, out.dtype) if wide == np.float32 else None
        # What is done with a few planes finds them in a cache.
        for start, stop in _few_planes((0, n) for n in voxels.sides):
            values = self.restoration.apply(voxels.planes(start, stop), mapping)
            out[start:stop] = values if mapping else to_intensities(values, self.limits, wide, out.dtype)

    def _decode_inside(
        self, mask: Mask, bounds: Bounds, scale: float, wide: np.dtype[Any], out: npt.NDArray[Any]
    ) -> None:
        """Decode no more than the box around what is inside; samples that are partly so are half background."""
        out[...] = mask.background
        states = mask.states(bounds, scale)
        place = _box_around(states != OUTSIDE)
        if place is None:
            return
        box = tuple((s.start + first, s.stop + first) for s, (first, _) in zip(place, bounds, strict=True))
        values = np.empty([stop - start for start, stop in box], out.dtype)
        self._fill(box, scale, wide, values)
        states, inner = states[place], out[place]
        inner[states == INSIDE] = values[states == INSIDE]
        mixed = states == MIXED
        if mixed.any():
            halves = values[mixed].astype(np.float64) / 2 + mask.background / 2
            inner[mixed] = halves if out.dtype.kind == "f" else np.rint(halves)

    def normalised(self, bounds: Bounds, scale: float) -> Floats32:
        """Return what the file says of a region, before the mapping to intensities.

        Filters are left out of samples coarser than voxels, and what they change is interpolated between voxels.
        """
        if (self.restoration is None and self.postfilter is None) or scale < 1:
            return self.unrestored(bounds, scale)
        if scale == 1:
            return self._filtered(bounds)[0]
        grids = self._grids(bounds, scale)
        near = neighbours(grids, self.shape)
        filtered, plain = self._filtered(near)
        return self.unrestored(bounds, scale) + interpolate(filtered - plain, near, grids)

    def surrounded(self, bounds: Bounds) -> Surrounded:
        """Return voxels as the restoration filter needs them: normalised, not filtered."""
        grown = around(bounds, self.shape)[0]
        return Surrounded.of(self.unrestored(grown, 1.0), bounds, grown)

    def surrounded_restored(self, bounds: Bounds) -> Floats32:
        """Return voxels as the post-filter needs them.

        Returns
        -------
        ndarray of float32, shape (z + 4, y + 4, x + 4)
            Normalised and restored, with two neighbours on every side, see
            :meth:`napari_tinc.postfilter.PostFilter.apply`; z is 1 for an image.
        """
        grown, beyond = around(bounds, self.shape, REACH)
        return _padded(self._restored(grown)[0], beyond)

    def _restored(self, bounds: Bounds) -> tuple[Floats32, Floats32]:
        """Return voxels of a region after the restoration filter, and before."""
        if self.restoration is None:
            plain = self.unrestored(bounds, 1.0)
            return plain, plain
        grown, sides = around(bounds, self.shape)[0], [stop - start for start, stop in bounds]
        values = self.unrestored(grown, 1.0)
        restored = self.restoration.apply(Surrounded.of(values, bounds, grown))
        return restored.reshape(sides), values[overlap(slices_of(bounds), grown)]

    def _filtered(self, bounds: Bounds) -> tuple[Floats32, Floats32]:
        """Return voxels of a region after both filters, and before."""
        if self.postfilter is None:
            return self._restored(bounds)
        grown, beyond = around(bounds, self.shape, REACH)
        restored, plain = self._restored(grown)
        filtered = self.postfilter.apply(_padded(restored, beyond))
        return filtered.reshape([stop - start for start, stop in bounds]), plain[overlap(slices_of(bounds), grown)]

    def region_bytes(self, bounds: Bounds, scale: float) -> int:
        """Bytes of the segments of layers and mask that a region needs."""
        masked = 0 if self.mask is None else self.mask.region_bytes(bounds, scale)
        reach = (0 if self.restoration is None else RADIUS) + (0 if self.postfilter is None else REACH)
        if reach and scale >= 1:
            if scale > 1:
                bounds = neighbours(self._grids(bounds, scale), self.shape)
            bounds, scale = around(bounds, self.shape, reach)[0], 1.0
        return masked + sum(layer.region_bytes(bounds, scale) for layer in self.layers)

    def leaf_bytes(self, tree: Octree) -> npt.NDArray[np.float64]:
        """Bytes of every leaf, of all layers, the mask and the filters."""
        spent = np.zeros(tree.leaves)
        for part in (*self.layers, *(() if self.mask is None else (self.mask,))):
            spent += part.leaf_bytes(tree)
        if self.restoration is not None:
            spent += restoration_size(bins_of(self.restoration)) / tree.leaves
        if self.postfilter is not None:
            spent += postfilter_size(channels_of(self.postfilter)) / tree.leaves
        return spent

    def _grids(self, bounds: Bounds, scale: float) -> list[npt.NDArray[np.float64]]:
        """Positions of the samples of a region, in voxels inside the volume."""
        sides = zip(bounds, self.shape, strict=True)
        return [np.clip(sample_positions(start, stop, scale, side), 0, side - 1) for (start, stop), side in sides]

    def unrestored(self, bounds: Bounds, scale: float) -> Floats32:
        """Return the sum of the layers."""
        if not self.layers:
            return np.zeros([stop - start for start, stop in bounds], np.float32)
        first, *others = self.layers
        values = first.values(bounds, scale)
        for layer in others:
            values += layer.values(bounds, scale)
        return values


def _few_planes(bounds: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Cut a region into parts that a core's own cache holds."""
    depth, *sides = (stop - start for start, stop in bounds)
    return spans(0, depth, max(1, _CACHED_VOXELS // math.prod(sides)))


def _padded(values: Floats32, beyond: list[tuple[int, int]]) -> Floats32:
    """Return a region with three axes, its last voxels repeated beyond the volume, and across the plane of an image."""
    flat = 3 - values.ndim
    return np.pad(values.reshape((1,) * flat + values.shape), [(REACH, REACH)] * flat + beyond, mode="edge")


def _box_around(marked: npt.NDArray[np.bool_]) -> tuple[slice, ...] | None:
    """Return the smallest box that holds all marked samples; None if none is."""
    box = []
    for axis in range(marked.ndim):
        found = np.flatnonzero(marked.any(tuple(a for a in range(marked.ndim) if a != axis)))
        if not found.size:
            return None
        box.append(slice(int(found[0]), int(found[-1]) + 1))
    return tuple(box)


def mapping_to(limits: ItemRange, dtype: np.dtype[Any]) -> Mapping:
    """Return what :func:`to_intensities` does in float32."""
    with np.errstate(over="ignore"):  # only what a hostile file says
        scale, offset, minimum, maximum = map(np.float32, (limits.scale, limits.offset, limits.minimum, limits.maximum))
    return Mapping(scale, offset, minimum, maximum, dtype.kind != "f")


def to_intensities(values: Floats32, limits: ItemRange, wide: np.dtype[Any], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Map the sum of the layers to intensities: rounded for integers, clipped to the original's range.

    Parameters
    ----------
    values : ndarray of float32
        Changed in place where ``wide`` is float32.
    limits : ItemRange
    wide : dtype
        What is computed in.
    dtype : dtype
        What is returned.
    """
    result: npt.NDArray[Any] = values.astype(wide, copy=False)
    with np.errstate(over="ignore"):  # only what a hostile file says: clipped like everything beyond the range
        result *= limits.scale
        result += limits.offset
    if dtype.kind != "f":
        np.rint(result, out=result)
    return np.clip(result, limits.minimum, limits.maximum, out=result).astype(dtype)


@with_fresh_locks
class Decoders:
    """The decoder of every item of a frame, made when it is asked for.

    Parameters
    ----------
    frame : Frame
    tree : Octree
    device : str
        Where networks are evaluated. Wavelets are transformed and filtered there if it is CUDA; ``"auto"`` takes that
        for them only where torch is loaded already, for loading it takes longer than most files take to decode.
    """

    def __init__(self, frame: Frame, tree: Octree, device: str) -> None:
        self._frame, self._tree, self._device = frame, tree, device
        self._made: dict[int, Item] = {}
        self._cache = BlockCache()

    def __getitem__(self, item: int) -> Item:
        """Return the decoder of an item.

        Raises
        ------
        FormatError
            If a segment of the item is not valid, or missing.
        """
        if item not in self._made:
            self._made[item] = self._decoder(item)
        return self._made[item]

    def parts(self) -> list[Box]:
        """Boxes that have parameters of a network of their own; none for a frame without networks."""
        return [] if self._networks is None else self._networks(0).parts

    def _decoder(self, item: int) -> Item:
        header = self._frame.header
        if header.model == MODEL_EXACT:
            return ExactItem(self._frame.find(KIND_EXACT, item, 0), np.dtype(header.dtype), self._tree.shape)
        limits, dtype = header.items[item], np.dtype(header.dtype)
        if header.model == MODEL_PREDICTIVE and limits.span:
            payload = self._frame.find(KIND_PREDICTED, item, 0)
            predicted = parse_predicted(payload, self._tree.shape, dtype)
            return PredictedItem.of(predicted, self._tree.shape, limits, self._cache, len(payload))
        weights = self._frame.get(KIND_RESTORATION, item, 0)
        restoration = None if weights is None else parse_restoration(weights)
        learnt = self._frame.get(KIND_POSTFILTER, item, 0)
        postfilter = None if learnt is None else parse_postfilter(learnt)
        mask = self._mask(item, limits)
        layers = self._layers(item)
        elsewhere = self._elsewhere(layers, limits, restoration, postfilter)
        decoder = ItemDecoder(self._tree.shape, limits, layers, restoration, mask, postfilter, elsewhere)
        moved = self._frame.get(KIND_CORRECTIONS, item, 0)
        if moved is None:
            return decoder
        corrections = parse_corrections(moved, self._tree.shape, dtype)
        return CorrectedItem.of(corrections, decoder, limits, self._cache, len(moved))

    def _elsewhere(
        self, layers: list[Layer], limits: ItemRange, restoration: Restoration | None, postfilter: PostFilter | None
    ) -> Elsewhere | None:
        """Return what decodes an item of wavelets alone on CUDA, if that was asked for."""
        if not (cuda_is_at_hand() if self._device == "auto" else self._device.startswith("cuda")):
            return None
        if len(layers) != 1 or not isinstance(layers[0], WaveletLayer):
            return None
        # Here and not above: torch is loaded for who asks for a device, or has loaded it.
        from napari_tinc.networks.device import resolve_device
        from napari_tinc.on_device.item import WaveletsOnDevice

        device = resolve_device(self._device)
        return WaveletsOnDevice(layers[0], self._tree.shape, limits, restoration, postfilter, device)

    def _mask(self, item: int, limits: ItemRange) -> Mask | None:
        payload = self._frame.get(KIND_MASK, item, 0)
        if payload is None:
            return None
        coded = parse_mask(payload, self._tree.shape, limits, self._frame.header.dtype)
        return Mask(coded, self._cache, len(payload))

    def _layers(self, item: int) -> list[Layer]:
        header = self._frame.header
        layers: list[Layer] = [] if self._networks is None else [self._networks(item)]
        wavelets = self._frame.segment(KIND_WAVELETS, item, 0)
        if isinstance(wavelets, RangedSegment):
            layers.append(WaveletLayer(open_wavelets(wavelets, self._tree.shape), self._cache, wavelets.length))
        elif wavelets is not None:
            coded = parse_wavelets(wavelets.payload, self._tree.shape)
            layers.append(WaveletLayer(coded, self._cache, len(wavelets.payload)))
        directions = self._frame.get(KIND_DIRECTIONAL, item, 0)
        if directions is not None:
            if wavelets is not None:
                raise FormatError(f"expected wavelets or directions for item {item}, got both: damaged file")
            layers.append(
                DirectionalLayer(parse_directions(directions, self._tree.shape), self._cache, len(directions))
            )
        elif wavelets is None and header.model == MODEL_WAVELETS and header.items[item].span:
            raise FormatError(f"expected a wavelet or a directional segment for item {item}, got none: damaged file")
        return layers

    @cached_property
    def _networks(self) -> Callable[[int], NetworkLayer] | None:
        """Make the network layer of an item; None for a frame without networks."""
        family = MODELS[self._frame.header.model]
        if family not in FAMILIES:
            return None
        # Here and not above: torch is loaded for files that hold a network.
        from napari_tinc.networks.layer import open_layers

        return open_layers(self._frame, family, self._tree, self._device)


def has_wide_planes(frame: Frame) -> bool:
    """Whether a plane needs more than its own samples: a whole row of blocks of coefficients, or its neighbours."""
    return any(segment.kind in _WIDE for segment in frame.segments)


__all__ = ["Decoders", "Item", "ItemDecoder", "Layer", "has_wide_planes", "to_intensities"]

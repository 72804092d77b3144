"""From plan and content to the bytes of a file: how large it is, what it decodes to, and the frame itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_tinc import format as frames
from napari_tinc import quality
from napari_tinc.arrays.axes import items_first
from napari_tinc.arrays.metadata import Metadata
from napari_tinc.decoding import ArrayDecoder
from napari_tinc.directional.layer import CodedDirections, DirectionalLayer
from napari_tinc.directional.payload import pack_directions, packed_directions_size
from napari_tinc.encode.original import Original
from napari_tinc.exact import pack_exact
from napari_tinc.geometry.octree import Octree
from napari_tinc.geometry.pyramid import BlockCache
from napari_tinc.layers import Item, ItemDecoder, Layer
from napari_tinc.masks.mask import Mask
from napari_tinc.masks.payload import pack_mask, packed_mask_size
from napari_tinc.postfilter import PostFilter, channels_of, pack_postfilter, postfilter_size
from napari_tinc.predictive.item import CorrectedItem, PredictedItem
from napari_tinc.predictive.payload import (
    Corrections,
    Predicted,
    pack_corrections,
    pack_predicted,
    packed_corrections_size,
    packed_predicted_size,
)
from napari_tinc.restoration import Restoration, bins_of, pack_restoration, restoration_size
from napari_tinc.settings import Settings
from napari_tinc.wavelets.blocks import CodedWavelets, WaveletLayer
from napari_tinc.wavelets.payload import pack_wavelets, packed_wavelets_size

Payloads = dict[tuple[int, int], bytes]
Provenance = dict[str, str | int | float | bool]

# Bytes left for a measured PSNR that deflates worse than the placeholder; nearly always enough.
PROVENANCE_SLACK = 4
_SOME_PSNR = 88.88  # as long as a real one


@dataclass(frozen=True, eq=False)
class Content:
    """What fills a file, besides its measured quality.

    Parameters
    ----------
    payloads : dict of (item, level) to bytes
        The network's parameter segments; empty without a network.
    wavelets : sequence of CodedWavelets or None
        One per item, None for an item of one value; empty without a wavelet layer.
    restorations : sequence of Restoration or None
        One per item, None where a filter does not pay; empty without any.
    directions : sequence of CodedDirections or None
        One per item, None for an item of one value; empty without a directional layer.
    predicted : sequence of Predicted or None
        One per item, None for an item of one value; empty unless nothing else is in the file.
    corrections : sequence of Corrections or None
        One per item, None where no voxel needs one; empty without any.
    postfilters : sequence of PostFilter or None
        One per item, None where one does not pay; empty without any.
    blocks : BlockCache
        What was decoded of it; filters and measurement need the same.
    """

    payloads: Payloads = field(default_factory=dict)
    wavelets: Sequence[CodedWavelets | None] = ()
    restorations: Sequence[Restoration | None] = ()
    directions: Sequence[CodedDirections | None] = ()
    predicted: Sequence[Predicted | None] = ()
    corrections: Sequence[Corrections | None] = ()
    postfilters: Sequence[PostFilter | None] = ()
    blocks: BlockCache = field(default_factory=lambda: BlockCache())
    _layers: dict[CodedWavelets | CodedDirections, Layer] = field(default_factory=dict)

    def layers(self, item: int) -> Iterator[Layer]:
        """Layers of an item that are no networks, the same ones every time."""
        if self.wavelets and (coded := self.wavelets[item]) is not None:
            yield self._layers.setdefault(coded, WaveletLayer(coded, self.blocks))
        if self.directions and (blocks := self.directions[item]) is not None:
            yield self._layers.setdefault(blocks, DirectionalLayer(blocks, self.blocks))


@dataclass(frozen=True)
class Plan:
    """Everything about a file except its content and its quality; this one holds no network.

    Parameters
    ----------
    original : Original
    settings : Settings
    tree : Octree
        Partition into octants.
    """

    original: Original
    settings: Settings
    tree: Octree

    model = frames.MODEL_WAVELETS
    between = "even"

    @property
    def packed(self) -> bytes:
        """The plan in the header: how the network's parameters are laid out."""
        return b""

    @property
    def provenance(self) -> Mapping[str, float]:
        """What planning has found out about the volume, or what the file guarantees."""
        return {}

    def networks(self, payloads: Payloads) -> Callable[[int], Layer] | None:
        """Return what makes the network layer of an item from parameter segments; None without a network."""
        return None


def header(plan: Plan, psnr: float = _SOME_PSNR) -> frames.Header:
    """Return the header of a file; before its PSNR is known, one of the same size but for a few bytes."""
    original = plan.original
    return frames.Header(
        shape=original.shape,
        dtype=original.dtype,
        metadata=original.metadata,
        items=original.ranges,
        splits=plan.tree.splits,
        model=plan.model,
        plan=plan.packed,
        between=frames.BETWEEN.index(plan.between),
        within=frames.WITHIN.index(plan.settings.within),
        provenance=_provenance(plan, psnr),
    )


def size(plan: Plan, content: Content) -> int:
    """Bytes of the file, before its quality is known."""
    qualities = [quality.quality_size(plan.tree.leaves)] * len(plan.original.items)
    entries = [(frames.KIND_QUALITY, 0, item, nbytes) for item, nbytes in enumerate(qualities)]
    entries += [(kind, level, item, nbytes) for kind, level, item, nbytes, _ in _segments(plan, content)]
    return frames.packed_size(header(plan), entries)


def frame(plan: Plan, content: Content, psnr: float, qualities: Sequence[bytes]) -> bytes:
    """Return the bytes of the file.

    Parameters
    ----------
    plan : Plan
    content : Content
    psnr : float
        Over the whole array's own range, in dB.
    qualities : sequence of bytes
        Quality segment of every item.
    """
    parts = [frames.Segment(frames.KIND_QUALITY, item, 0, payload) for item, payload in enumerate(qualities)]
    parts += [frames.Segment(kind, item, level, pack()) for kind, level, item, _, pack in _segments(plan, content)]
    return frames.pack(frames.Frame(header(plan, psnr), tuple(parts)))


def _segments(plan: Plan, content: Content) -> Iterator[tuple[int, int, int, int, Callable[[], bytes]]]:
    """Kind, level, item and size of every segment but those of quality, in the order of a frame, and what packs it."""
    for (item, level), payload in sorted(content.payloads.items(), key=lambda entry: entry[0][::-1]):
        yield frames.KIND_PARAMETERS, level, item, len(payload), partial(bytes, payload)
    for item, coded in enumerate(content.wavelets):
        if coded is not None:
            yield frames.KIND_WAVELETS, 0, item, packed_wavelets_size(coded), partial(pack_wavelets, coded)
    for item, one in enumerate(content.restorations):
        if one is not None:
            yield frames.KIND_RESTORATION, 0, item, restoration_size(bins_of(one)), partial(pack_restoration, one)
    dtype = plan.original.dtype
    for item, mask in enumerate(plan.original.masks):
        if mask is not None:
            yield frames.KIND_MASK, 0, item, packed_mask_size(mask, dtype), partial(pack_mask, mask, dtype)
    for item, blocks in enumerate(content.directions):
        if blocks is not None:
            yield frames.KIND_DIRECTIONAL, 0, item, packed_directions_size(blocks), partial(pack_directions, blocks)
    for item, bins in enumerate(content.predicted):
        if bins is not None:
            yield frames.KIND_PREDICTED, 0, item, packed_predicted_size(bins), partial(pack_predicted, bins)
    kind = plan.original.items.dtype
    for item, moved in enumerate(content.corrections):
        if moved is not None:
            size, pack = packed_corrections_size(moved, kind), partial(pack_corrections, moved, kind)
            yield frames.KIND_CORRECTIONS, 0, item, size, pack
    for item, learnt in enumerate(content.postfilters):
        if learnt is not None:
            size = postfilter_size(channels_of(learnt))
            yield frames.KIND_POSTFILTER, 0, item, size, partial(pack_postfilter, learnt)


def constant(original: Original, provenance: bool = True) -> bytes:
    """Frame a volume whose every item has one value: exact, without parameters."""
    made = frames.Header(
        shape=original.shape,
        dtype=original.dtype,
        metadata=original.metadata,
        items=original.ranges,
        splits=(),
        model=frames.MODEL_CONSTANT,
        plan=b"",
        between=0,
        within=0,
        provenance={"version": software_version(), "psnr": "inf"} if provenance else {},
    )
    return frames.pack(frames.Frame(made, ()))


def exact(array: npt.NDArray[Any], metadata: Metadata) -> bytes:
    """Frame a volume as it is, without provenance.

    Parameters
    ----------
    array : ndarray
        Of any dtype of a frame, with any values.
    metadata : Metadata
    """
    items = items_first(array, metadata.axes)
    made = frames.Header(
        shape=array.shape,
        dtype=array.dtype.str[1:],
        metadata=metadata,
        items=tuple(frames.ItemRange(*_finite_range(item), 0, 0) for item in items),
        splits=(),
        model=frames.MODEL_EXACT,
        plan=b"",
        between=0,
        within=0,
        provenance={},
    )
    segments = [frames.Segment(frames.KIND_EXACT, number, 0, pack_exact(item)) for number, item in enumerate(items)]
    return frames.pack(frames.Frame(made, tuple(segments)))


def _finite_range(item: npt.NDArray[Any]) -> tuple[int | float, int | float]:
    """Smallest and largest finite value; 0 and 0 where there are none, or a header cannot hold them."""
    if item.dtype.kind != "f":
        whole = int(item.min()), int(item.max())
        return whole if whole[0] >= -frames.MAX_WHOLE and whole[1] <= frames.MAX_WHOLE else (0, 0)
    finite = item[np.isfinite(item)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    return (low, high) if math.isfinite(high - low) else (0.0, 0.0)


def decoders(plan: Plan, content: Content) -> Callable[[int], ItemDecoder]:
    """Return what decodes the layers of every item, as that of the file will."""
    networks = plan.networks(content.payloads)

    @cache
    def decoder(item: int) -> ItemDecoder:
        layers: list[Layer] = [] if networks is None else [networks(item)]
        layers += content.layers(item)
        restoration = content.restorations[item] if content.restorations else None
        coded_mask = plan.original.masks[item] if plan.original.masks else None
        mask = None if coded_mask is None else Mask(coded_mask, content.blocks)
        postfilter = content.postfilters[item] if content.postfilters else None
        return ItemDecoder(plan.original.spatial, plan.original.ranges[item], layers, restoration, mask, postfilter)

    return decoder


def bounded_decoders(plan: Plan, content: Content) -> Callable[[int], Item]:
    """Return the decoder of every item of a file with predicted voxels or corrections."""
    original, layered = plan.original, decoders(plan, content)

    @cache
    def decoder(item: int) -> Item:
        limits = original.ranges[item]
        if content.predicted and (predicted := content.predicted[item]) is not None:
            return PredictedItem.of(predicted, original.spatial, limits, content.blocks)
        if content.corrections and (corrections := content.corrections[item]) is not None:
            return CorrectedItem.of(corrections, layered(item), limits, content.blocks)
        return layered(item)

    return decoder


def array_decoder(original: Original, items: Callable[[int], Item]) -> Callable[..., Any]:
    """Return what decodes regions of an array like the original from the decoders of its items."""
    return ArrayDecoder(original.shape, original.items.dtype, original.metadata.axes, items).decode


@cache
def software_version() -> str:
    """Version of napari-tinc, ``"unknown"`` where it is not installed."""
    try:
        return version("napari-tinc")
    except PackageNotFoundError:
        return "unknown"


def _provenance(plan: Plan, psnr: float) -> Provenance:
    settings = plan.settings
    if not settings.provenance:
        return {}
    made: Provenance = {
        "version": software_version(),
        "preset": settings.preset,
        "seed": settings.seed,
        "psnr": round(psnr, 2) if math.isfinite(psnr) else "inf",
    }
    if settings.promised is not None and math.isfinite(settings.promised):
        made["promised_dB"] = round(settings.promised, 1)
    return made | dict(settings.notes) | dict(plan.provenance)


__all__ = [
    "PROVENANCE_SLACK",
    "Content",
    "Payloads",
    "Plan",
    "array_decoder",
    "bounded_decoders",
    "constant",
    "decoders",
    "exact",
    "frame",
    "header",
    "size",
    "software_version",
]

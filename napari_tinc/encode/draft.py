"""A file in the making: how large it will be, which symbols fill it, and how good what it decodes to is."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version

import numpy as np
from torch import Tensor

from napari_tinc import format as frames
from napari_tinc import segments
from napari_tinc.arrays.scratch import Bounds, boxes
from napari_tinc.encode.settings import Settings
from napari_tinc.encode.source import Source
from napari_tinc.errors import BudgetError
from napari_tinc.geometry.octree import Octree
from napari_tinc.geometry.sampling import Floats32
from napari_tinc.measures import metrics
from napari_tinc.networks import entropy, quantization
from napari_tinc.networks.families.tinc import TincNetwork
from napari_tinc.networks.quantization import Codes, Layout
from napari_tinc.networks.training import Progress
from napari_tinc.restoration import Restoration
from napari_tinc.volume import CompressedVolume
from napari_tinc.wavelets.blocks import Detail
from napari_tinc.wavelets.residual import Residual

Payloads = dict[tuple[int, int], bytes]
Provenance = dict[str, str | int | float | bool]

# Coder byte and the range coder's last words; every further block has a length and last words of its own.
_SEGMENT_OVERHEAD, _BLOCK_OVERHEAD = 7, 9
# Bytes left for a measured PSNR that deflates worse than the placeholder; nearly always enough.
PROVENANCE_SLACK = 4
# What is decoded at a time to be measured.
_BOX_VOXELS = 2**19
_FILL = 0.985
_FILL_TRIES = 8
_SOME_PSNR, _SOME_CONSISTENCY = 88.88, 0.88  # as long as real ones


@dataclass(frozen=True, eq=False)
class Content:
    """What fills a file, besides its measured quality.

    Parameters
    ----------
    payloads : dict of (item, level) to bytes
        The network's symbols, see :meth:`Draft.fill`; empty without a network.
    details : sequence of Detail or None
        One per item, None for an item of one value; empty without a detail layer.
    restorations : sequence of Restoration or None
        One per item, None where a filter does not pay; empty without any.
    """

    payloads: Payloads = field(default_factory=dict)
    details: Sequence[Detail | None] = ()
    restorations: Sequence[Restoration | None] = ()


@dataclass(frozen=True)
class Draft:
    """Everything about a file except its parameters and their quality.

    Parameters
    ----------
    source : Source
    settings : Settings
    tree : Octree
    network : TincNetwork or None
        None if the detail layer stands alone.
    between : str
        Strategy between levels that was used, one of ``format.BETWEEN``.
    consistency : float or None
        Global consistency of the volume.
    """

    source: Source
    settings: Settings
    tree: Octree
    network: TincNetwork | None
    between: str
    consistency: float | None = field(default=None)

    @cached_property
    def layout(self) -> Layout:
        """Which tensor every parameter belongs to."""
        assert self.network is not None
        return Layout(self.network, len(self.source.items))

    def overhead(self) -> int:
        """Bytes of the file besides its coded symbols."""
        empty = self.pack(_SOME_PSNR, self._no_quality(), Content(self._no_symbols()))
        lengths = 2 * len(self.source.items) * (self.tree.depth + 1)  # varints that the real lengths may need
        return len(empty) + lengths + PROVENANCE_SLACK

    def pack(self, psnr: float, quality: Sequence[bytes], content: Content) -> bytes:
        """Frame the file."""
        header = frames.Header(
            shape=self.source.shape,
            dtype=self.source.items.dtype.str[1:],
            metadata=self.source.metadata,
            items=self.source.ranges,
            splits=self.tree.splits,
            model=frames.MODEL_DETAIL if self.network is None else frames.MODEL_TINC,
            plan=b"" if self.network is None else segments.pack_plan(self.network),
            between=frames.BETWEEN.index(self.between),
            within=frames.WITHIN.index(self.settings.within),
            provenance=self._provenance(psnr),
        )
        parts = [frames.Segment(frames.KIND_QUALITY, i, 0, payload) for i, payload in enumerate(quality)]
        for (item, level), payload in sorted(content.payloads.items(), key=lambda entry: entry[0][::-1]):
            parts.append(frames.Segment(frames.KIND_PARAMETERS, item, level, payload))
        for item, detail in enumerate(content.details):
            if detail is not None:
                parts.append(frames.Segment(frames.KIND_DETAIL, item, 0, segments.pack_detail(detail)))
        for item, filtered in enumerate(content.restorations):
            if filtered is not None:
                parts.append(frames.Segment(frames.KIND_RESTORATION, item, 0, segments.pack_restoration(filtered)))
        return frames.pack(frames.Frame(header, tuple(parts)))

    def placeholder(self) -> CompressedVolume:
        """Return a volume of this shape that holds no symbols and no quality."""
        return self.unmeasured(Content(self._no_symbols()))

    def _no_quality(self) -> list[bytes]:
        return [bytes(segments.quality_size(self.tree.leaves))] * len(self.source.items)

    def _no_symbols(self) -> Payloads:
        if self.network is None:
            return {}
        items, levels = range(len(self.source.items)), range(self.tree.depth + 1)
        return {(item, level): bytes(self._segment_overhead(item, level)) for item in items for level in levels}

    def _segment_overhead(self, item: int, level: int) -> int:
        return _SEGMENT_OVERHEAD + _BLOCK_OVERHEAD * (self.layout.blocks(item, level) - 1)

    def _provenance(self, psnr: float) -> Provenance:
        made: Provenance = {
            "version": software_version(),
            "preset": self.settings.preset,
            "seed": self.settings.seed,
            "psnr": round(psnr, 2) if math.isfinite(psnr) else "inf",
        }
        if self.settings.promised is not None and math.isfinite(self.settings.promised):
            made["promised_dB"] = round(self.settings.promised, 1)
        if self.consistency is not None:
            made["consistency"] = round(self.consistency, 2)
        return made

    def finish(self, content: Content, budget: int) -> Generator[Progress, None, CompressedVolume | None]:
        """Measure what the file decodes to, and frame it; ``None`` if it is a few bytes over the budget.

        Parameters
        ----------
        content : Content
        budget : int
            Bytes the file may take.
        """
        psnr, quality = yield from measure(self.unmeasured(content), self.source)
        result = CompressedVolume(self.pack(psnr, quality, content), self.settings.device)
        return result if result.nbytes <= budget else None

    def unmeasured(self, content: Content) -> CompressedVolume:
        """Return the volume as its file will decode, without measured quality."""
        return CompressedVolume(self.pack(_SOME_PSNR, self._no_quality(), content), self.settings.device)

    def originals(self) -> list[Residual | None]:
        """Voxels of every item, normalised; None for an item of one value."""
        return self._left_over(None)

    def residuals(self, payloads: Payloads) -> list[Residual | None]:
        """What the network leaves over of every item, normalised; None for an item of one value."""
        return self._left_over(None if self.network is None else self.unmeasured(Content(payloads)))

    def _left_over(self, network: CompressedVolume | None) -> list[Residual | None]:
        return [
            None
            if limits.minimum == limits.maximum
            else self._residual(index, None if network is None else network.evaluate_network(index))
            for index, limits in enumerate(self.source.ranges)
        ]

    def _residual(self, index: int, network: Floats32 | None) -> Residual:
        source = self.source
        flat = (1,) * (3 - len(source.spatial))
        limits, item = source.ranges[index], source.items[index].reshape(flat + source.spatial)
        wide = np.float64 if item.dtype.itemsize > 2 else np.float32

        def read(box: Bounds) -> Floats32:
            place = tuple(slice(a, b) for a, b in box)
            values: Floats32 = np.subtract(item[place], limits.offset, dtype=wide)
            values = np.divide(values, limits.scale, dtype=wide).astype(np.float32, copy=False)
            if network is not None:
                values -= network.reshape(item.shape)[place]
            return values

        def read_weights(box: Bounds) -> Floats32:
            return source.voxel_weights(index, box[3 - len(source.spatial) :]).reshape([b - a for a, b in box])

        z, y, x = item.shape
        return Residual((z, y, x), read, None if source.weights is None else read_weights)

    def fill(
        self, parameters: list[Tensor], codes: Codes, sensitivities: quantization.Floats, bits: float, budget: int
    ) -> Payloads:
        """Round the parameters so that a file of them alone fills the budget: the steps move until few bytes are left.

        Parameters
        ----------
        parameters : list of Tensor
            Trained parameters, to be rounded.
        codes : ndarray of int, shape (items, kinds)
            Step codes they were trained with.
        sensitivities : ndarray, shape (items, kinds)
            See :func:`napari_tinc.networks.quantization.sensitivity`.
        bits : float
            Bits of symbols that the step codes were chosen for.
        budget : int
            Bytes the file may take.

        Raises
        ------
        BudgetError
            If even the coarsest symbols do not fit.
        """
        room = budget - PROVENANCE_SLACK
        coder = entropy.default_coder()
        best, best_size, best_codes = None, -1, codes
        for _ in range(_FILL_TRIES):
            payloads = segments.pack_parameters(self.layout, parameters, codes, coder)
            size = self.size(Content(payloads))
            if best_size < size <= room:
                best, best_size, best_codes = payloads, size, codes
            if _FILL * room <= size <= room:
                break
            bits += 8 * (0.995 * room - size)
            codes, _ = quantization.fit_steps(self.layout, parameters, sensitivities, bits)
        if best is None:
            raise BudgetError(f"the parameters do not fit in {room} bytes even coarsely rounded: raise the budget")
        for tensor in np.argwhere(best_codes > 0):  # a small file has few tensors: refine them one by one
            if best_size >= _FILL * room:
                break
            codes = best_codes.copy()
            codes[tuple(tensor)] -= 1
            payloads = segments.pack_parameters(self.layout, parameters, codes, coder)
            if best_size < (size := self.size(Content(payloads))) <= room:
                best, best_size, best_codes = payloads, size, codes
        return best

    def size(self, content: Content) -> int:
        """Bytes of the file, before its quality is known."""
        return len(self.pack(_SOME_PSNR, self._no_quality(), content))


def constant(source: Source, settings: Settings) -> CompressedVolume:
    """Frame a volume whose every item has one value: exact, without parameters."""
    header = frames.Header(
        shape=source.shape,
        dtype=source.items.dtype.str[1:],
        metadata=source.metadata,
        items=source.ranges,
        splits=(),
        model=frames.MODEL_CONSTANT,
        plan=b"",
        between=0,
        within=0,
        provenance={"version": software_version(), "psnr": "inf"},
    )
    return CompressedVolume(frames.pack(frames.Frame(header, ())), settings.device)


def measure(volume: CompressedVolume, source: Source) -> Generator[Progress, None, tuple[float, list[bytes]]]:
    """Decode a compressed volume box by box and compare it with the original; yield after every box.

    Returns
    -------
    psnr : float
        Over the whole array's own range, in dB.
    quality : list of bytes
        Quality segment of every item, see :func:`napari_tinc.segments.pack_quality`.
    """
    tree = volume.tree
    edges, order = tree.edges(tree.depth), tuple(tree.grid_index(tree.depth).T)
    pieces = list(boxes(tuple((0, side) for side in tree.shape), _BOX_VOXELS))
    squared, quality = 0.0, []
    for index, (item, limits) in enumerate(zip(source.items, source.ranges, strict=True)):
        code = source.threshold_codes[index]
        threshold = segments.threshold_value(code, limits.minimum, limits.maximum)
        total = metrics.OctantErrors(edges, threshold)
        for number, box in enumerate(pieces):
            yield Progress.unmeasured("measuring", index * len(pieces) + number, len(source.items) * len(pieces))
            place = tuple(slice(a, b) for a, b in box)
            total.add(item[place], volume.decode_item(index, place), box)
        squared += float(total.squares.sum())
        psnr = metrics.psnr_from_mse(total.mse, limits.span)[order]
        with np.errstate(divide="ignore", invalid="ignore"):
            peak = -20 * np.log10(total.max_error / limits.span)[order] if limits.span else np.full(tree.leaves, np.inf)
        quality.append(segments.pack_quality(segments.Quality(code, psnr, peak, total.dice[order])))
    return float(metrics.psnr_from_mse(squared / source.items.size, source.value_range)), quality


def software_version() -> str:
    """Version of napari-tinc, ``"unknown"`` where it is not installed."""
    try:
        return version("napari-tinc")
    except PackageNotFoundError:
        return "unknown"

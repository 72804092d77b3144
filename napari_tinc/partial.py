"""What the beginning of a file decodes to: a download that broke off, or one that was stopped because it was enough.

A frame runs from coarse to fine. Blocks of coefficients that are not at hand are taken for 0; items without any become
flat; what comes behind them (filter, mask, corrections) is done without. What is left is a valid frame, but it says
nothing of its quality: that in the file is of the whole.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from napari_tinc import format as frames
from napari_tinc.errors import FormatError, TruncatedError

# What decodes loads numba: a whole file is opened without.
if TYPE_CHECKING:
    from napari_tinc.wavelets.blocks import CodedWavelets

_LEFT_OUT = (frames.KIND_RESTORATION, frames.KIND_MASK, frames.KIND_CORRECTIONS, frames.KIND_POSTFILTER)
_NAMES = {
    frames.KIND_RESTORATION: "restoration filter",
    frames.KIND_MASK: "mask",
    frames.KIND_CORRECTIONS: "corrections",
    frames.KIND_POSTFILTER: "post-filter",
}
_OF_THE_WHOLE = ("psnr", "max_error")


@dataclass(frozen=True)
class Held:
    """How much of a file is at hand.

    Parameters
    ----------
    nbytes, whole : int
        Bytes at hand, and of the whole file.
    items : int
        Channels and time points of which something is there.
    blocks, all_blocks : int
        Blocks of coefficients that are there, and in the whole file.
    scale : float
        The finest scale of which everything is there in all items, 1 for the full resolution; 0 if none is.
    missing : tuple of str
        What else the file has that is not there.
    """

    nbytes: int
    whole: int
    items: int
    blocks: int
    all_blocks: int
    scale: float
    missing: tuple[str, ...]

    @property
    def text(self) -> str:
        """Say it in words."""
        said = (
            f"{self.nbytes} of {self.whole} bytes, {self.blocks} of {self.all_blocks} blocks of coefficients; "
            f"complete up to scale {self.scale:g}"
        )
        return said + (f"; without {', '.join(self.missing)}" if self.missing else "")


def open_prefix(read: Callable[[int, int], bytes], size: int) -> tuple[frames.Frame, Held | None]:
    """Open the beginning of a file.

    Parameters
    ----------
    read : callable
        Returns the bytes of the file from start to stop.
    size : int
        Bytes at hand.

    Returns
    -------
    frame : Frame
        What can be decoded.
    Held or None
        None if nothing is missing.

    Raises
    ------
    FormatError
        If the head is not valid or not complete, what is there is damaged, or nothing can be decoded without the rest.
    """
    header, segments, whole = frames.open_ranged(read, size, partial=True)
    if size == whole:
        return frames.Frame(header, segments), None
    if header.model != frames.MODEL_WAVELETS or any(s.kind == frames.KIND_DIRECTIONAL for s in segments):
        name = frames.MODELS[header.model] if header.model != frames.MODEL_WAVELETS else "directional"
        raise FormatError(
            f"truncated: expected all {whole} bytes of a {name} file, got {size}: only wavelets decode in part; "
            "fetch it again"
        )
    ranges, kept, scales = list(header.items), [], []
    blocks = all_blocks = items = 0
    missing = list(dict.fromkeys(_NAMES[s.kind] for s in segments if s.kind in _LEFT_OUT and s.held < s.length))
    for segment in segments:
        if segment.kind == frames.KIND_WAVELETS:
            coded = _begun(segment, header.spatial_shape)
            if coded is None:
                ranges[segment.item] = _flat(ranges[segment.item], header.dtype)
                scales.append(0.0)
                continue
            kept.append(segment)
            held = coded.streams.held if isinstance(coded.streams, frames.RangedStreams) else len(coded.streams)
            items, blocks, all_blocks = items + 1, blocks + held, all_blocks + len(coded.streams)
            scales.append(_complete_scale(coded, held))
        elif segment.kind in _LEFT_OUT and segment.held == segment.length:
            kept.append(segment)
    if not items:
        raise FormatError(f"truncated: expected {whole} bytes, got {size}: too few to decode anything; fetch it again")
    if items < len(scales):
        missing.append(f"{len(scales) - items} of {len(scales)} channels and time points")
    held_now = Held(size, whole, items, blocks, all_blocks, min(scales), tuple(missing))
    made = {key: value for key, value in header.provenance.items() if key not in _OF_THE_WHOLE}
    made["partial"] = f"{size} of {whole} bytes"
    # Without its octants, whose quality is that of the whole.
    prefix = replace(header, items=tuple(ranges), splits=(), provenance=made)
    kept = [s for s in kept if ranges[s.item].span]  # a mask of a flat item
    return frames.Frame(prefix, tuple(kept)), held_now


def _begun(segment: frames.RangedSegment, spatial: tuple[int, ...]) -> CodedWavelets | None:
    """Open what is there of an item's wavelets; None if that is not even all of their head.

    A whole segment is tested; of one that is cut off nothing can be.
    """
    from napari_tinc.wavelets.payload import open_wavelets

    if segment.held == segment.length:
        segment.payload  # noqa: B018  raises if its checksum does not hold
        return open_wavelets(segment, spatial)
    try:
        return open_wavelets(segment, spatial)
    except TruncatedError:
        return None


def _flat(limits: frames.ItemRange, dtype: str) -> frames.ItemRange:
    """Range of an item of which nothing is there: its mean, as far as the head knows it."""
    value = np.dtype(dtype).type(limits.offset if dtype[0] == "f" else round(limits.offset)).item()
    return frames.ItemRange(value, value, 0, 0)


def _complete_scale(coded: CodedWavelets, held: int) -> float:
    """Samples per voxel of the finest volume whose coefficients are all there; 0 if there is none."""
    from napari_tinc.geometry.pyramid import BlockCache
    from napari_tinc.wavelets.blocks import WaveletLayer

    pyramid, octave, left = coded.head.pyramid, coded.head.pyramid.trunk, held
    if coded.trunk_ends_early:
        octave = WaveletLayer(coded, BlockCache()).coarse_octave
    else:
        while octave and (count := math.prod(pyramid.grid(octave - 1))) <= left:
            left -= count
            octave -= 1
    halvings = [sum(axis in axes for axes in pyramid.splits[:octave]) for axis in range(3)]
    return float(2.0 ** -max(halvings)) if octave < pyramid.octaves else 0.0


__all__ = ["Held", "open_prefix"]

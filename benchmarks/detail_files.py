"""Files of the detail layer to measure with: a real one, and one larger than anybody wants to wait for."""

from __future__ import annotations

import hashlib
import math
import tempfile
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np

import napari_tinc
from napari_tinc import CompressedVolume, Metadata, Target, compress, quality, samples
from napari_tinc.encode import framing
from napari_tinc.encode import plan as planning
from napari_tinc.encode.framing import Content
from napari_tinc.encode.original import Original
from napari_tinc.format import ItemRange
from napari_tinc.geometry.pyramid import Cell, dyadic_splits
from napari_tinc.quantiser import step_of
from napari_tinc.restoration import Restoration
from napari_tinc.settings import Settings
from napari_tinc.wavelets import search
from napari_tinc.wavelets import transform as wavelet
from napari_tinc.wavelets.blocks import CodedWavelets, Pyramid, WaveletHead
from napari_tinc.wavelets.coefficients import NO_PARENT, Encoder, Statistics
from napari_tinc.wavelets.likely import LAMBDA

Coded = tuple[bytes, np.ndarray | None, Statistics]

_TILE = 256
_ALIKE = np.ones((1, 1, 1, 1), np.float32)


@dataclass(frozen=True)
class Unseen(Original):
    """A volume that nobody looks at: only its shape and range count."""

    consistency = 0.9  # type: ignore[assignment]

    @classmethod
    def cube(cls, side: int) -> Unseen:
        items = np.broadcast_to(np.uint16(0), (1, side, side, side))
        return cls(items, items.shape[1:], Metadata.default(3), None, (ItemRange(0, 65535, 32768, 32),))


def vessels(shape: tuple[int, int, int], ratio: float) -> CompressedVolume:
    """Compress a simulated, noisy vessel stack with ``fast``; kept among the temporary files."""
    name = f"tinc-vessels-{'x'.join(map(str, shape))}-{ratio:g}-{_coder()}.tinc"
    path = Path(tempfile.gettempdir()) / name
    if not path.exists():
        compress(np.asarray(samples.vessel_tree(shape).noisy), Target.ratio(ratio), preset="fast").save(path)
    return CompressedVolume.open(path, "cpu")


def _coder() -> str:
    """Name the state of the codec: other sources may make, and read, other bytes."""
    sources = sorted(Path(napari_tinc.__file__).parent.rglob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:8]


def repeated(side: int, ratio: float) -> CompressedVolume:
    """Make a file of ``side``³ voxels whose blocks are those of a vessel stack of 256³, again and again.

    The levels coarser than a block of the stack are empty: they would differ from place to place, and are hardly any of
    the symbols. All streams are valid, so that decoding takes what it takes for a volume of this size.
    """
    source = Unseen.cube(side)
    budget = int(2 * side**3 / ratio)
    shape = (side,) * 3
    block = search._block_side(shape, budget)
    pyramid = Pyramid(shape, dyadic_splits(shape, math.inf), block)
    bands = _tile_bands(pyramid)
    low, high = 0, 64 * 256 - 1
    while high - low > 16:  # a finer step makes a larger file
        code = (low + high) // 2
        detail = _encode(pyramid, bands, code)
        small = sum(map(len, detail.streams)) <= budget
        low, high = (low, code) if small else (code, high)
    draft = planning.plan_wavelets(source, Settings(device="cpu", model="wavelet"), budget)
    some = Restoration((120, 130, 140), np.full((4, 2, 6), 5, np.int8))  # as much work as any of four bins
    content = Content(wavelets=(_encode(pyramid, bands, high),), restorations=(some,))
    qualities = [bytes(quality.quality_size(draft.tree.leaves))]
    return CompressedVolume(framing.frame(draft, content, 30.0, qualities))


def _tile_bands(pyramid: Pyramid) -> list[np.ndarray]:
    """Coefficients of the stack's levels that have whole blocks: per level all bands, finest level first."""
    tile = np.asarray(samples.vessel_tree((_TILE,) * 3).noisy, np.float32)
    low, levels = (tile - tile.mean()) / tile.std(), []
    for level in range(int(math.log2(_TILE // pyramid.side))):
        split = wavelet.forward(low, pyramid.splits[level])
        low = split.pop(0)
        levels.append(np.stack([split[code] for code in pyramid.orientations(level).tolist()]))
    return levels


def _encode(pyramid: Pyramid, bands: list[np.ndarray], code: int) -> CodedWavelets:
    """Code every block of the stack once, after the block above it, and lay the streams out over the volume."""
    learnt, trunk = Statistics.fresh(), Encoder()
    for level in reversed(range(pyramid.trunk, pyramid.octaves)):
        sides = [part.stop for part in pyramid.box(level, (0, 0, 0))]
        orientations = pyramid.orientations(level)
        trunk.add(learnt, np.zeros((len(orientations), *sides), np.float32), _ALIKE, LAMBDA, orientations, NO_PARENT)
    streams: list[bytes] = []
    above: dict[Cell, Coded] = {}
    for level in reversed(range(pyramid.trunk)):
        if level >= len(bands):
            streams += [b""] * math.prod(pyramid.grid(level))
            continue
        period = bands[level].shape[1] // pyramid.side
        coded: dict[Cell, Coded] = {}
        for cell in product(range(period), repeat=3):
            _, symbols, statistics = above.get(pyramid.parent_cell(level, cell), (b"", None, learnt))
            coded[cell] = _encode_block(
                pyramid, level, cell, bands[level] / np.float32(step_of(code)), symbols, statistics
            )
        streams += [coded[z % period, y % period, x % period][0] for z, y, x in pyramid.cells(level)]
        above = coded
    return CodedWavelets(WaveletHead(pyramid, code, (20, 10), 0), trunk.finish(), tuple(streams))


def _encode_block(
    pyramid: Pyramid, level: int, cell: Cell, values: np.ndarray, above: np.ndarray | None, statistics: Statistics
) -> Coded:
    """Quantise and code as the encoder does."""
    orientations, parent = pyramid.orientations(level), pyramid.parent(level, cell, above)
    part = np.ascontiguousarray(values[(slice(None), *pyramid.box(level, cell))])
    learnt, encoder = statistics.copy(), Encoder()
    symbols, _ = encoder.add(learnt, part, _ALIKE, LAMBDA, orientations, parent)
    if not symbols.places.size:
        return b"", None, statistics
    return encoder.finish() or b"\0", symbols, learnt

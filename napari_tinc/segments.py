"""The payloads inside a frame: the plan and parameters of a TINC network, and the quality of its octants.

Specified in ``docs/format.md`` beside the frame itself.
"""

from __future__ import annotations

import math
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from torch import Tensor

from napari_tinc.errors import FormatError
from napari_tinc.format._bytes import Cursor, integer, u16, varint, zigzag
from napari_tinc.geometry.octree import Octree
from napari_tinc.networks import entropy, quantization
from napari_tinc.networks.families.tinc import TincNetwork, segment_parameters
from napari_tinc.networks.quantization import Codes, Layout
from napari_tinc.restoration import FEATURES, MAX_BINS, Restoration
from napari_tinc.wavelets.blocks import MAX_BLOCK, SIDE_CODES, STEP_CODES, Detail, DetailHead, Pyramid
from napari_tinc.wavelets.coefficients import LARGEST

Floats = npt.NDArray[np.float64]

MAX_WIDTH = 4096
MAX_WIDTH_CLASSES = 8
MAX_LAYERS = 8
# A network may not claim more parameters than this per byte of its segments: the symbols of an honest file take
# several bits each, and a decoder must be able to refuse before it allocates. What any machine can hold is always
# allowed: an item of one value may get its share of the parameters and need no bits for them.
MAX_PARAMETERS_PER_BYTE = 64
_HARMLESS_PARAMETERS = 2**20
# Nor may the bounds of its tensors' symbols add up to more: each is an exponential of 30 digits in a table.
MAX_BOUNDS_PER_BYTE = 64
_HARMLESS_BOUNDS = 2**17
# Every axis of 2**31 voxels split by itself.
MAX_DETAIL_LEVELS = 3 * 31
_DECIBEL_STEP = 0.5
_EXACT = 255
_THRESHOLD_STEPS = 65535


@dataclass(frozen=True, eq=False)
class Quality:
    """How well the leaves of an item are kept.

    Parameters
    ----------
    threshold_code : int
        Where the foreground begins, see :func:`threshold_value`.
    psnr, peak : ndarray, shape (leaves,)
        PSNR, and the largest error as ``-20 log10(error / range)``, in dB; infinite where exact.
    dice : ndarray, shape (leaves,)
        Dice of the leaf's foreground, 1 where neither the original nor the decoded has any.
    """

    threshold_code: int
    psnr: Floats
    peak: Floats
    dice: Floats


def pack_plan(network: TincNetwork) -> bytes:
    """Describe a network's shape: per level its layers, the distinct widths and, if several, which node has which."""
    parts = []
    for layers, widths in zip(network.layers, network.widths, strict=True):
        classes, index = np.unique(widths, return_inverse=True)
        parts.append(bytes([layers, len(classes)]) + b"".join(varint(int(width)) for width in classes))
        if len(classes) > 1:
            packed = zlib.compress(index.astype(np.uint8).tobytes(), 9)
            parts.append(varint(len(packed)) + packed)
    return b"".join(parts)


def parse_plan(plan: bytes, tree: Octree, items: int, parameter_bytes: int) -> TincNetwork:
    """Rebuild a network's shape; invert :func:`pack_plan`.

    Parameters
    ----------
    parameter_bytes : int
        Size of all parameter segments; bounds how many parameters the plan may claim.

    Raises
    ------
    FormatError
        If the plan does not describe a network on this tree, or one that is too large for its bytes.
    """
    cursor = Cursor(plan, 0, "the plan")
    allowed = max(_HARMLESS_PARAMETERS, MAX_PARAMETERS_PER_BYTE * parameter_bytes)
    layers, widths = [], []
    claimed, fan_in = 0, np.array([len(tree.shape)], dtype=np.int64)
    for level in range(tree.depth + 1):
        layer_count, classes = _level_shape(cursor, level)
        nodes = items * tree.nodes(level)
        # Before anything is allocated for these nodes: they have at least the parameters of the narrowest class.
        narrow = np.array(classes[:1], dtype=np.int64)
        claimed += nodes * int(segment_parameters(fan_in, narrow, layer_count, level == tree.depth)[0])
        _check_size(claimed, allowed)
        fan_in = narrow
        layers.append(layer_count)
        widths.append(np.array(classes, dtype=np.int64)[_class_index(cursor, len(classes), nodes)])
    if cursor.remaining:
        raise FormatError(f"expected the plan to end after its last level, got {cursor.remaining} bytes more: damaged")
    network = TincNetwork.on_tree(tree, layers, widths)
    _check_size(network.parameters, allowed)
    return network


def _level_shape(cursor: Cursor, level: int) -> tuple[int, list[int]]:
    """Read the layers and the distinct widths of a level."""
    layers, count = cursor.u8("layers"), cursor.u8("width classes")
    if not (1 <= layers <= MAX_LAYERS and 1 <= count <= MAX_WIDTH_CLASSES):
        raise FormatError(
            f"expected 1 to {MAX_LAYERS} layers of 1 to {MAX_WIDTH_CLASSES} widths at level {level} of the plan, "
            f"got {layers} and {count}: damaged file"
        )
    classes = [cursor.varint("width") for _ in range(count)]
    bounds = [0, *classes, MAX_WIDTH + 1]
    if not all(before < after for before, after in pairwise(bounds)):
        raise FormatError(f"expected ascending widths from 1 to {MAX_WIDTH} at level {level} of the plan: damaged file")
    return layers, classes


def _check_size(parameters: int, allowed: int) -> None:
    if parameters > allowed:
        raise FormatError(
            f"expected at most {allowed} parameters in a file of this size, got {parameters}: damaged or hostile file"
        )


def _class_index(cursor: Cursor, classes: int, nodes: int) -> npt.NDArray[np.uint8]:
    if classes == 1:
        return np.zeros(nodes, dtype=np.uint8)
    packed = cursor.take(cursor.varint("width map size"), "width map")
    inflater = zlib.decompressobj()
    try:
        raw = inflater.decompress(packed, nodes + 1)
    except zlib.error as error:
        raise FormatError(f"the width map of the plan does not inflate ({error}): damaged file") from error
    index = np.frombuffer(raw, dtype=np.uint8)
    if len(index) != nodes or not inflater.eof or inflater.unused_data or index.max(initial=0) >= classes:
        raise FormatError(f"expected a width class for each of {nodes} nodes in the plan: damaged file")
    return index


@dataclass(frozen=True, eq=False)
class CodedLevel:
    """The parameters of an item's level, still coded, block by block.

    Parameters
    ----------
    layout : Layout
    item : int
    kinds : list of int
        The level's tensors, as positions in ``layout.kinds``.
    codes : list of int
        Step code of every tensor.
    models : list of SymbolModel
        Distribution of every tensor's symbols.
    coder : int
        Entropy coder, see :func:`napari_tinc.networks.entropy.encode`.
    streams : tuple of bytes
        Symbols of all tensors, one stream per block.
    """

    layout: Layout
    item: int
    kinds: list[int]
    codes: list[int]
    models: list[entropy.SymbolModel]
    coder: int
    streams: tuple[bytes, ...]

    def decode(self, block: int) -> list[tuple[int, int, entropy.Symbols]]:
        """Return kind, step code and symbols of the block's part of every tensor.

        Raises
        ------
        FormatError
            If the block's stream does not hold them.
        """
        part = block, len(self.streams)
        sizes = [self.layout.size(self.item, kind, part) for kind in self.kinds]
        symbols = entropy.decode(self.streams[block], sizes, self.models, self.coder)
        return list(zip(self.kinds, self.codes, symbols, strict=True))


def pack_parameters(
    layout: Layout, parameters: Sequence[Tensor], codes: Codes, coder: int
) -> dict[tuple[int, int], bytes]:
    """Code the parameters: one payload per (item, level)."""
    symbols = quantization.quantise(layout, parameters, codes)
    models = quantization.symbol_models(symbols)
    payloads = {}
    for item in range(layout.items):
        for level in range(len(layout.network.widths)):
            kinds = [k for k, kind in enumerate(layout.kinds) if kind[0] == level]
            head = bytes([coder])
            for kind in kinds:
                model = models[item][kind]
                head += bytes([int(codes[item, kind]), model.family << 7 | model.scale_code]) + varint(model.bound)
            blocks = layout.blocks(item, level)
            cut = [layout.cut(item, kind, symbols[item][kind], blocks) for kind in kinds]
            level_models = [models[item][kind] for kind in kinds]
            streams = [entropy.encode(block, level_models, coder) for block in zip(*cut, strict=True)]
            lengths = b"".join(varint(len(stream)) for stream in streams[:-1])
            payloads[item, level] = head + lengths + b"".join(streams)
    return payloads


def parse_parameters(layout: Layout, item: int, level: int, payload: bytes) -> CodedLevel:
    """Take one payload apart; its symbols are decoded when a block of them is asked for.

    Raises
    ------
    FormatError
        If the payload is not valid for this network.
    """
    kinds = [k for k, kind in enumerate(layout.kinds) if kind[0] == level]
    cursor = Cursor(payload, 0, "a parameter segment")
    coder = cursor.u8("entropy coder")
    codes, models = [], []
    for _ in kinds:
        codes.append(cursor.u8("step code"))
        packed, bound = cursor.u8("symbol model"), cursor.varint("symbol bound")
        if packed & 127 >= entropy.SCALE_CODES or bound > entropy.MAX_SYMBOL:
            raise FormatError(f"expected a symbol model within its limits in item {item}, level {level}: damaged file")
        models.append(entropy.SymbolModel(packed >> 7, packed & 127, bound))
    lengths = [cursor.varint("block length") for _ in range(layout.blocks(item, level) - 1)]
    streams = [cursor.take(length, "a block of symbols") for length in lengths]
    streams.append(cursor.take(cursor.remaining, "the symbols"))
    return CodedLevel(layout, item, kinds, codes, models, coder, tuple(streams))


def check_tables(layout: Layout, payloads: Sequence[tuple[int, bytes]]) -> None:
    """Refuse a file whose symbol models would take longer to tabulate than its size can justify.

    Parameters
    ----------
    payloads : sequence of (int, bytes)
        Level and content of every parameter segment.

    Raises
    ------
    FormatError
        If they do, or a segment ends within its models.
    """
    tensors = Counter(level for level, _, _ in layout.kinds)
    claimed = 0
    for level, payload in payloads:
        cursor = Cursor(payload, 0, "a parameter segment")
        if cursor.u8("entropy coder") != entropy.RANGE_CODER:
            continue
        for _ in range(tensors[level]):
            cursor.take(2, "a symbol model")
            claimed += cursor.varint("symbol bound")
    allowed = _HARMLESS_BOUNDS + MAX_BOUNDS_PER_BYTE * sum(len(payload) for _, payload in payloads)
    if claimed > allowed:
        raise FormatError(
            f"expected bounds of symbols that add up to at most {allowed} in a file of this size, got {claimed}: "
            "damaged or hostile file"
        )


def pack_detail(detail: Detail) -> bytes:
    """Store a detail layer: how it is cut and quantised, the lengths of its streams, the streams."""
    head, pyramid = detail.head, detail.head.pyramid
    masks = [sum(1 << axis for axis in axes) for axes in pyramid.splits]
    parts = [bytes([pyramid.side.bit_length() - 1, len(masks), *masks]), u16(head.step_code), bytes(head.shrinkages)]
    parts += [zigzag(head.mean), varint(len(detail.trunk))]
    parts += [varint(len(stream)) for stream in detail.streams]
    return b"".join([*parts, detail.trunk, *detail.streams])


def parse_detail(payload: bytes, spatial: tuple[int, ...]) -> Detail:
    """Invert :func:`pack_detail` for a volume of this spatial shape.

    Raises
    ------
    FormatError
        If the payload is not a detail layer of such a volume.
    """
    cursor = Cursor(payload, 0, "a detail segment")
    shape = (1,) * (3 - len(spatial)) + spatial
    side = integer("block side code", cursor.u8("the block side"), SIDE_CODES[0], SIDE_CODES[-1])
    pyramid = Pyramid(shape, _detail_splits(cursor, shape), 2**side)  # type: ignore[arg-type]
    for level in range(pyramid.levels):
        symbols = len(pyramid.orientations(level)) * math.prod(s.stop for s in pyramid.box(level, (0, 0, 0)))
        integer("symbols of a block", symbols, 1, MAX_BLOCK)
    step_code = integer("step code", cursor.u16("the step code"), 0, STEP_CODES - 1)
    shrinkages = cursor.u8("a shrinkage"), cursor.u8("a shrinkage")
    mean = integer("low-pass symbol", cursor.zigzag("the low-pass symbol"), -LARGEST, LARGEST)
    if pyramid.blocks > cursor.remaining:  # before anything is made for them
        raise FormatError(f"expected lengths of {pyramid.blocks} blocks, got {cursor.remaining} bytes: damaged file")
    lengths = [cursor.varint("the length of a stream") for _ in range(1 + pyramid.blocks)]
    trunk, *streams = (cursor.take(length, "a stream") for length in lengths)
    if cursor.remaining:
        raise FormatError(f"expected a detail segment to end after its streams, got {cursor.remaining} bytes more")
    return Detail(DetailHead(pyramid, step_code, shrinkages, mean), trunk, tuple(streams))


def _detail_splits(cursor: Cursor, shape: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """Read which axes each level splits: the longest among them, and in the end all down to one sample."""
    sides, splits = list(shape), []
    for _ in range(integer("detail levels", cursor.u8("the detail levels"), 0, MAX_DETAIL_LEVELS)):
        mask = integer("split axes of a detail level", cursor.u8("the split axes"), 1, 7)
        axes = tuple(axis for axis in range(3) if mask >> axis & 1)
        # The longest, or else a coarse level might have nearly as many samples as the volume.
        if any(sides[axis] < 2 for axis in axes) or any(sides[a] == max(sides) and a not in axes for a in range(3)):
            raise FormatError(
                f"expected detail levels that split the longest axes, and none of 1 sample, got {axes} of {sides}: "
                "damaged file"
            )
        sides = [(n + 1) // 2 if axis in axes else n for axis, n in enumerate(sides)]
        splits.append(axes)
    if sides != [1, 1, 1]:
        raise FormatError(f"expected detail levels down to one coefficient, got {sides}: damaged file")
    return tuple(splits)


def restoration_size(bins: int) -> int:
    """Bytes of a restoration segment."""
    return bins * (1 + 2 * FEATURES) - 1


def pack_restoration(restoration: Restoration) -> bytes:
    """Store a restoration filter: the edges of its bins, then its weights."""
    return bytes(restoration.edges) + restoration.weights.tobytes()


def parse_restoration(payload: bytes) -> Restoration:
    """Invert :func:`pack_restoration`.

    Raises
    ------
    FormatError
        If the payload is not a restoration filter.
    """
    bins = (len(payload) + 1) // (1 + 2 * FEATURES)
    integer("bins of a restoration filter", bins, 1, MAX_BINS)
    if len(payload) != restoration_size(bins):
        raise FormatError(f"expected {restoration_size(bins)} bytes of {bins} bins, got {len(payload)}: damaged file")
    edges = tuple(payload[: bins - 1])
    if any(a >= b for a, b in pairwise((0, *edges))):
        raise FormatError(f"expected ascending edges of bins, got {edges}: damaged file")
    return Restoration(edges, np.frombuffer(payload, np.int8, offset=bins - 1).reshape(bins, 2, FEATURES))


def threshold_code(threshold: float, minimum: float, maximum: float) -> int:
    """Round a threshold to the codes of an item's value range; 0 for an item of one value."""
    span = float(maximum) - float(minimum)
    share = (threshold - minimum) / span if span else 0.0
    return min(max(round(_THRESHOLD_STEPS * share), 0), _THRESHOLD_STEPS)


def threshold_value(code: int, minimum: float, maximum: float) -> float:
    """Lowest value of the foreground of an item with this value range."""
    return minimum + code / _THRESHOLD_STEPS * (float(maximum) - float(minimum))


def quality_size(leaves: int) -> int:
    """Bytes of a quality segment."""
    return 2 + 3 * leaves


def pack_quality(quality: Quality) -> bytes:
    """Store the quality of an item's leaves in three bytes each.

    PSNR is rounded to half a decibel; the peak downwards, so that no error is larger than what is stored; Dice
    downwards to 255ths, so that 1 means agreement in every voxel.
    """
    decibels = [np.rint(quality.psnr / _DECIBEL_STEP), np.floor(quality.peak / _DECIBEL_STEP)]
    coded = [np.where(np.isinf(c), _EXACT, np.clip(np.nan_to_num(c), 0, _EXACT - 1)) for c in decibels]
    coded.append(np.floor(quality.dice * 255))
    return quality.threshold_code.to_bytes(2, "little") + b"".join(c.astype(np.uint8).tobytes() for c in coded)


def parse_quality(payload: bytes, leaves: int) -> Quality:
    """Invert :func:`pack_quality`.

    Raises
    ------
    FormatError
        If the payload is not one of that many leaves.
    """
    if len(payload) != quality_size(leaves):
        raise FormatError(f"expected {quality_size(leaves)} bytes of octant quality, got {len(payload)}: damaged file")
    coded = np.frombuffer(payload, dtype=np.uint8, offset=2).reshape(3, leaves)
    decibels = np.where(coded[:2] == _EXACT, np.inf, coded[:2] * _DECIBEL_STEP)
    return Quality(int.from_bytes(payload[:2], "little"), decibels[0], decibels[1], coded[2] / 255)

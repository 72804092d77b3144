"""Parameter segments of a frame, one per item and level, the same for every family; specified in ``docs/format.md``."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from napari_tinc.errors import FormatError
from napari_tinc.format.cursor import Cursor, integer, varint
from napari_tinc.networks import entropy, latents, older_coders, quantization
from napari_tinc.networks.entropy import Symbols
from napari_tinc.networks.latents import Shape
from napari_tinc.networks.quantization import Codes, Layout

# Bounds of range-coded symbols in a file may not add up to more than this per byte of its segments: each is an
# exponential of 30 digits in a table, and a decoder must be able to refuse before it computes them.
MAX_BOUNDS_PER_BYTE = 64
_HARMLESS_BOUNDS = 2**17
_OLDER = (older_coders.RANGE_CODER, older_coders.DEFLATE)


@dataclass(frozen=True, eq=False)
class CodedLevel:
    """The parameters of an item's level, still coded, block by block.

    Parameters
    ----------
    layout : Layout
    item : int
    tensors : list of int
        The level's tensors, as positions in ``layout.tensors``.
    codes : list of int
        Step code of every tensor.
    nbytes : int
        Size of the segment.
    streams : tuple of bytes
        Symbols of all tensors, one stream per block.
    read : callable
        Takes a stream, and the matrices of the block's part of every tensor; returns their symbols.
    """

    layout: Layout
    item: int
    tensors: list[int]
    codes: list[int]
    nbytes: int
    streams: tuple[bytes, ...]
    read: Callable[[bytes, list[list[Shape]]], list[Symbols]]

    def decode(self, block: int) -> list[tuple[int, int, Symbols]]:
        """Return tensor, step code and symbols of the block's part of every tensor.

        Raises
        ------
        FormatError
            If the block's stream does not hold them.
        """
        part = block, len(self.streams)
        shapes = [self.layout.shapes(self.item, tensor, part) for tensor in self.tensors]
        return list(zip(self.tensors, self.codes, self.read(self.streams[block], shapes), strict=True))


def pack_parameters(layout: Layout, parameters: Sequence[Tensor], codes: Codes) -> dict[tuple[int, int], bytes]:
    """Code the parameters: one payload per (item, level)."""
    symbols = quantization.quantise(layout, parameters, codes)
    payloads = {}
    for item in range(layout.items):
        for level in range(len(layout.network.nodes)):
            tensors = [k for k, tensor in enumerate(layout.tensors) if tensor[0] == level]
            buckets = [entropy.bucket_code(symbols[item][tensor]) for tensor in tensors]
            coder = latents.VOLUME_CODER if layout.has_volumes else entropy.MIXING_CODER
            head = bytes([coder])
            head += b"".join(bytes([codes[item, tensor], code]) for tensor, code in zip(tensors, buckets, strict=True))
            blocks = layout.blocks(item, level)
            cut = [layout.cut(item, tensor, symbols[item][tensor], blocks) for tensor in tensors]
            streams = []
            for block, own in enumerate(zip(*cut, strict=True)):
                if layout.has_volumes:
                    shapes = [layout.shapes(item, tensor, (block, blocks)) for tensor in tensors]
                    streams.append(latents.encode_latents(own, shapes, buckets))
                    continue
                matrices = [layout.matrices(item, tensor, (block, blocks)) for tensor in tensors]
                streams.append(entropy.encode_symbols(own, matrices, buckets))
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
    tensors = [k for k, tensor in enumerate(layout.tensors) if tensor[0] == level]
    cursor = Cursor(payload, 0, "a parameter segment")
    coder = cursor.u8("entropy coder")
    codes, read = _older_head(cursor, coder, tensors) if coder in _OLDER else _head(cursor, coder, tensors)
    lengths = [cursor.varint("block length") for _ in range(layout.blocks(item, level) - 1)]
    streams = [cursor.take(length, "a block of symbols") for length in lengths]
    streams.append(cursor.take(cursor.remaining, "the symbols"))
    return CodedLevel(layout, item, tensors, codes, len(payload), tuple(streams), read)


_Head = tuple[list[int], Callable[[bytes, list[list[Shape]]], list[Symbols]]]


def _head(cursor: Cursor, coder: int, tensors: list[int]) -> _Head:
    """Read the step codes of all tensors, and how their symbols are coded."""
    decoders = {entropy.MIXING_CODER: _decode_matrices, latents.VOLUME_CODER: latents.decode_latents}
    if coder not in decoders:
        raise FormatError(
            f"expected entropy coder 1, 2, 3 or 4, got {coder}: the file is damaged or from a newer version"
        )
    codes, buckets = [], []
    for _ in tensors:
        codes.append(cursor.u8("step code"))
        buckets.append(integer("bucket code", cursor.u8("bucket code"), 0, entropy.MAX_BUCKET_CODE))
    return codes, partial(decoders[coder], codes=buckets)


def _decode_matrices(stream: bytes, shapes: Sequence[Sequence[Shape]], codes: Sequence[int]) -> list[Symbols]:
    """Read what coder 3 wrote, which takes grids for matrices as it does all arrays."""
    matrices = [[(math.prod(shape[:-1]), shape[-1]) for shape in own] for own in shapes]
    return entropy.decode_symbols(stream, matrices, codes)


def _older_head(cursor: Cursor, coder: int, tensors: list[int]) -> _Head:
    codes, models = [], []
    for _ in tensors:
        codes.append(cursor.u8("step code"))
        models.append(older_coders.read_model(cursor))

    def read(stream: bytes, shapes: list[list[Shape]]) -> list[Symbols]:
        sizes = [sum(math.prod(shape) for shape in own) for own in shapes]
        return older_coders.decode(stream, sizes, models, coder)

    return codes, read


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
    tensors = Counter(level for level, _ in layout.tensors)
    claimed = 0
    for level, payload in payloads:
        cursor = Cursor(payload, 0, "a parameter segment")
        if cursor.u8("entropy coder") != older_coders.RANGE_CODER:
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


__all__ = ["CodedLevel", "check_tables", "pack_parameters", "parse_parameters"]

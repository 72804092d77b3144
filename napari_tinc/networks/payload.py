"""Parameter segments of a frame, one per item and level, the same for every family; specified in ``docs/format.md``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from napari_tinc.errors import FormatError
from napari_tinc.format.cursor import Cursor, varint
from napari_tinc.networks import entropy, quantization
from napari_tinc.networks.quantization import Codes, Layout

# Bounds of symbols in a file may not add up to more than this per byte of its segments: each is an exponential of 30
# digits in a table, and a decoder must be able to refuse before it computes them.
MAX_BOUNDS_PER_BYTE = 64
_HARMLESS_BOUNDS = 2**17


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
    models : list of SymbolModel
        Distribution of every tensor's symbols.
    nbytes : int
        Size of the segment.
    coder : int
        Entropy coder, see :func:`napari_tinc.networks.entropy.encode`.
    streams : tuple of bytes
        Symbols of all tensors, one stream per block.
    """

    layout: Layout
    item: int
    tensors: list[int]
    codes: list[int]
    models: list[entropy.SymbolModel]
    nbytes: int
    coder: int
    streams: tuple[bytes, ...]

    def decode(self, block: int) -> list[tuple[int, int, entropy.Symbols]]:
        """Return tensor, step code and symbols of the block's part of every tensor.

        Raises
        ------
        FormatError
            If the block's stream does not hold them.
        """
        part = block, len(self.streams)
        sizes = [self.layout.size(self.item, tensor, part) for tensor in self.tensors]
        symbols = entropy.decode(self.streams[block], sizes, self.models, self.coder)
        return list(zip(self.tensors, self.codes, symbols, strict=True))


def pack_parameters(
    layout: Layout, parameters: Sequence[Tensor], codes: Codes, coder: int
) -> dict[tuple[int, int], bytes]:
    """Code the parameters: one payload per (item, level)."""
    symbols = quantization.quantise(layout, parameters, codes)
    models = quantization.symbol_models(symbols)
    payloads = {}
    for item in range(layout.items):
        for level in range(len(layout.network.nodes)):
            tensors = [k for k, tensor in enumerate(layout.tensors) if tensor[0] == level]
            head = bytes([coder])
            for tensor in tensors:
                model = models[item][tensor]
                head += bytes([int(codes[item, tensor]), model.family << 7 | model.scale_code]) + varint(model.bound)
            blocks = layout.blocks(item, level)
            cut = [layout.cut(item, tensor, symbols[item][tensor], blocks) for tensor in tensors]
            level_models = [models[item][tensor] for tensor in tensors]
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
    tensors = [k for k, tensor in enumerate(layout.tensors) if tensor[0] == level]
    cursor = Cursor(payload, 0, "a parameter segment")
    coder = cursor.u8("entropy coder")
    codes, models = [], []
    for _ in tensors:
        codes.append(cursor.u8("step code"))
        packed, bound = cursor.u8("symbol model"), cursor.varint("symbol bound")
        if packed & 127 >= entropy.SCALE_CODES or bound > entropy.MAX_SYMBOL:
            raise FormatError(f"expected a symbol model within its limits in item {item}, level {level}: damaged file")
        models.append(entropy.SymbolModel(packed >> 7, packed & 127, bound))
    lengths = [cursor.varint("block length") for _ in range(layout.blocks(item, level) - 1)]
    streams = [cursor.take(length, "a block of symbols") for length in lengths]
    streams.append(cursor.take(cursor.remaining, "the symbols"))
    return CodedLevel(layout, item, tensors, codes, models, len(payload), coder, tuple(streams))


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


__all__ = ["CodedLevel", "check_tables", "pack_parameters", "parse_parameters"]

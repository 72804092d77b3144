"""Writers of the parameters of older files, whose readers must go on: the range coder of constriction, and deflate."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from functools import cache

import constriction
import numpy as np
import numpy.typing as npt
from torch import Tensor

from napari_tinc.format.cursor import varint
from napari_tinc.networks import quantization
from napari_tinc.networks.entropy import Symbols
from napari_tinc.networks.older_coders import DEFLATE, GAUSSIAN, LAPLACE, SCALE_CODES, SymbolModel, frequencies
from napari_tinc.networks.quantization import Layout


def fit_model(symbols: Symbols) -> SymbolModel:
    """The family and scale of the least bits, by the density's closed form."""
    counts = np.bincount(np.abs(symbols.ravel()))
    magnitude = np.arange(len(counts))
    candidates = []
    for family in (GAUSSIAN, LAPLACE):
        for code in range(SCALE_CODES):
            scale = 2 ** (code / 8 - 2)
            exponent = magnitude / scale if family == LAPLACE else magnitude**2 / (2 * scale**2)
            mass = 2 * np.exp(-exponent).sum() - 1
            candidates.append((float(counts @ exponent + counts.sum() * np.log(mass)), family, code))
    _, family, code = min(candidates)
    return SymbolModel(family, code, len(counts) - 1)


@cache
def categorical(model: SymbolModel) -> object:
    return constriction.stream.model.Categorical(frequencies(model) / 2**20, perfect=False)


def encode(tensors: Sequence[Symbols], models: Sequence[SymbolModel], coder: int) -> bytes:
    if coder == DEFLATE:
        return zlib.compress(b"".join(tensor.astype("<i2").tobytes() for tensor in tensors), 9)
    encoder = constriction.stream.queue.RangeEncoder()
    for tensor, model in zip(tensors, models, strict=True):
        if model.bound:
            encoder.encode((tensor.ravel() + model.bound).astype(np.int32), categorical(model))
    return bytes(encoder.get_compressed().astype("<u4").tobytes())


def pack_parameters(
    layout: Layout, parameters: Sequence[Tensor], codes: npt.NDArray[np.int64], coder: int
) -> dict[tuple[int, int], bytes]:
    symbols = quantization.quantise(layout, parameters, codes)
    payloads = {}
    for item in range(layout.items):
        for level in range(len(layout.network.nodes)):
            tensors = [k for k, tensor in enumerate(layout.tensors) if tensor[0] == level]
            models = [fit_model(symbols[item][tensor]) for tensor in tensors]
            head = bytes([coder])
            for tensor, model in zip(tensors, models, strict=True):
                head += bytes([codes[item, tensor], model.family << 7 | model.scale_code]) + varint(model.bound)
            blocks = layout.blocks(item, level)
            cut = [layout.cut(item, tensor, symbols[item][tensor], blocks) for tensor in tensors]
            streams = [encode(block, models, coder) for block in zip(*cut, strict=True)]
            payloads[item, level] = head + b"".join(varint(len(s)) for s in streams[:-1]) + b"".join(streams)
    return payloads

"""What the symbols of trained networks take, by the mixing coder, and by the coders of older files.

    napari-tinc compress VOLUME.tif network.tinc --model tinc --ratio 64
    python benchmarks/parameter_coding.py tests/golden/*.tinc network.tinc

The parameter segments of every file are decoded, and their symbols coded again by each coder, heads included; files
without a network are passed over. Decoding is timed with all that is compiled or tabulated ready; last comes the stream
that asks for most decisions per byte.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from napari_tinc import CompressedVolume
from napari_tinc.format import KIND_PARAMETERS, parse
from napari_tinc.format.cursor import varint
from napari_tinc.format.header import MODELS
from napari_tinc.networks.entropy import Matrix, Symbols, bucket_code, decode_symbols, encode_symbols
from napari_tinc.networks.layer import open_network
from napari_tinc.networks.older_coders import DEFLATE, RANGE_CODER, decode
from napari_tinc.networks.payload import parse_parameters
from napari_tinc.networks.quantization import Layout

sys.path.append(str(Path(__file__).parent.parent / "tests"))
import older_writers

Block = tuple[list[Symbols], list[list[Matrix]]]
"""Symbols and matrices of all tensors."""


def levels(path: Path) -> Iterator[list[Block]]:
    """Decode the blocks of every level of a file's network."""
    frame = parse(path.read_bytes())
    found = [segment for segment in frame.segments if segment.kind == KIND_PARAMETERS]
    if not found:
        return
    tree = CompressedVolume(path.read_bytes(), "cpu").tree
    layout = Layout(open_network(frame, MODELS[frame.header.model], tree))
    for segment in found:
        coded = parse_parameters(layout, segment.item, segment.level, segment.payload)
        level: list[Block] = []
        for block in range(len(coded.streams)):
            part = block, len(coded.streams)
            matrices = [layout.matrices(segment.item, tensor, part) for tensor in coded.tensors]
            level.append(([symbols for _, _, symbols in coded.decode(block)], matrices))
        yield level


def mixed(level: list[Block]) -> tuple[int, float]:
    """Return bytes, step codes included, and seconds of decoding."""
    codes = [bucket_code(np.concatenate(tensor)) for tensor in zip(*(symbols for symbols, _ in level), strict=True)]
    streams = [encode_symbols(symbols, matrices, codes) for symbols, matrices in level]
    pairs = list(zip(streams, (matrices for _, matrices in level), strict=True))
    seconds = best(lambda: [decode_symbols(stream, matrices, codes) for stream, matrices in pairs])
    return 2 * len(codes) + framed(streams), seconds


def older(level: list[Block], coder: int) -> tuple[int, float]:
    """Return the same of an older coder."""
    tensors = [np.concatenate(tensor) for tensor in zip(*(symbols for symbols, _ in level), strict=True)]
    models = [older_writers.fit_model(tensor) for tensor in tensors]
    streams = [older_writers.encode(symbols, models, coder) for symbols, _ in level]
    pairs = [(s, [symbols.size for symbols in own]) for s, (own, _) in zip(streams, level, strict=True)]
    seconds = best(lambda: [decode(stream, sizes, models, coder) for stream, sizes in pairs])
    return sum(2 + len(varint(model.bound)) for model in models) + framed(streams), seconds


def framed(streams: list[bytes]) -> int:
    """Bytes of streams, the coder's number, and all lengths but the last."""
    return 1 + sum(len(varint(len(stream))) for stream in streams[:-1]) + sum(len(stream) for stream in streams)


def best(work: Callable[[], Any]) -> float:
    """Return the seconds of the fastest of five runs."""
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def worst() -> None:
    """Print what the symbols cost that are in a late bucket of their own: many decisions, next to no bits."""
    for symbol in (0, 7):
        matrices = [[(2**10, 2**10)]]
        stream = encode_symbols([np.full(2**20, symbol, np.int32)], matrices, [1])
        seconds = best(partial(decode_symbols, stream, matrices, [1]))
        print(f"2**20 symbols {symbol} in {len(stream)} bytes: {seconds:.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+")
    print("| file | parameters | mixing, bytes | range coder | deflate | mixing, M/s | range coder, M/s |")
    print("|---|---|---|---|---|---|---|")
    for path in parser.parse_args().files:
        all_levels = list(levels(path))
        if not all_levels:
            continue
        parameters = sum(symbols.size for level in all_levels for tensors, _ in level for symbols in tensors)
        ours, ranged, deflated = (
            np.sum([code(level) for level in all_levels], axis=0)
            for code in (mixed, lambda level: older(level, RANGE_CODER), lambda level: older(level, DEFLATE))
        )
        percent = 100 * (ours[0] / ranged[0] - 1)
        sizes = f"{ours[0]:.0f} ({percent:+.2f} %) | {ranged[0]:.0f} | {deflated[0]:.0f}"
        speeds = " | ".join(f"{parameters / seconds / 1e6:.1f}" for _, seconds in (ours, ranged))
        print(f"| `{path.stem}` | {parameters} | {sizes} | {speeds} |")
    worst()


if __name__ == "__main__":
    main()

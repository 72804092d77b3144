"""What three ways to make a smaller file of a file cost, against a file made for that size.

    OMP_NUM_THREADS=1 python benchmarks/cuts.py VOLUMES... [--sources 16 64] [--factors 2 4 8]

*octaves*: the finest octaves of coefficients are left out, so many that the file is small enough. *blocks*: blocks of
coefficients are left out, those with the least energy a byte first and none before its children. *coded again*: what
``napari-tinc cut`` does. Decibels of PSNR, against the original, beyond those of the file made for that size.
"""

from __future__ import annotations

import argparse
import heapq
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import tifffile

from napari_tinc import CompressedVolume, Target, compress, cut
from napari_tinc import format as frames
from napari_tinc.geometry.pyramid import BlockCache
from napari_tinc.measures.metrics import psnr
from napari_tinc.wavelets.blocks import CodedWavelets, WaveletLayer
from napari_tinc.wavelets.payload import pack_wavelets, parse_wavelets


def without(volume: CompressedVolume, dropped: set[int]) -> CompressedVolume:
    """The same file without the streams of some blocks."""
    frame = frames.parse(volume.to_bytes())
    segments = []
    for segment in frame.segments:
        if segment.kind == frames.KIND_WAVELETS:
            coded = parse_wavelets(segment.payload, volume.spatial_shape)
            streams = tuple(b"" if number in dropped else stream for number, stream in enumerate(coded.streams))
            segment = replace(segment, payload=pack_wavelets(CodedWavelets(coded.head, coded.trunk, streams)))
        segments.append(segment)
    return CompressedVolume(frames.pack(frames.Frame(frame.header, tuple(segments))))


def octaves_out(coded: CodedWavelets, nbytes: int, budget: int) -> set[int] | None:
    pyramid, dropped = coded.head.pyramid, set[int]()
    for octave in range(pyramid.trunk):
        if nbytes <= budget:
            break
        numbers = {pyramid.number(octave, cell) for cell in pyramid.cells(octave)}
        dropped |= numbers
        nbytes -= sum(len(coded.streams[number]) for number in numbers)
    return dropped if nbytes <= budget else None


def blocks_out(coded: CodedWavelets, nbytes: int, budget: int) -> set[int] | None:
    pyramid, layer = coded.head.pyramid, WaveletLayer(coded, BlockCache())
    worth, children = {}, dict[tuple[int, tuple[int, int, int]], int]()
    for octave in range(pyramid.trunk):
        cells = list(pyramid.cells(octave))
        for cell, (symbols, _) in zip(cells, layer._blocks(octave, cells), strict=True):
            values = coded.head.dequantised(np.zeros((1,) * 4, np.int32) if symbols is None else np.asarray(symbols))
            size = len(coded.streams[pyramid.number(octave, cell)])
            worth[octave, cell] = float(np.square(values, dtype=np.float64).sum()) / max(1, size)
            if octave + 1 < pyramid.trunk:
                above = octave + 1, pyramid.parent_cell(octave, cell)
                children[above] = children.get(above, 0) + 1
    heap = [(value, key) for key, value in worth.items() if key not in children]
    heapq.heapify(heap)
    dropped = set[int]()
    while heap and nbytes > budget:
        _, (octave, cell) = heapq.heappop(heap)
        number = pyramid.number(octave, cell)
        dropped.add(number)
        nbytes -= len(coded.streams[number])
        above = octave + 1, pyramid.parent_cell(octave, cell) if octave + 1 < pyramid.trunk else (0, 0, 0)
        if above in children:
            children[above] -= 1
            if not children[above]:
                heapq.heappush(heap, (worth[above], above))
    return dropped if nbytes <= budget else None


def rows(name: str, array: np.ndarray, sources: Sequence[float], factors: Sequence[float]) -> None:
    for source in sources:
        file = compress(array, Target.ratio(source), model="wavelet")
        payload = frames.parse(file.to_bytes()).find(frames.KIND_WAVELETS, 0, 0)
        coded = parse_wavelets(payload, file.spatial_shape)
        for factor in factors:
            target = Target.ratio(source * factor)
            budget = target.budget(array.nbytes, array.size)
            made = psnr(array, compress(array, target, model="wavelet").decode())
            began = time.perf_counter()
            again = cut(file, target)
            seconds = time.perf_counter() - began
            cells = []
            for dropped in (octaves_out(coded, file.nbytes, budget), blocks_out(coded, file.nbytes, budget)):
                cells.append(
                    "not possible" if dropped is None else f"{psnr(array, without(file, dropped).decode()) - made:+.2f}"
                )
            true = psnr(array, again.decode())
            cells += [f"{true - made:+.2f}", f"{true - float(again.provenance['psnr']):.2f}", f"{seconds:.1f}"]
            print(f"| {name} | {source:g} → {source * factor:g} | {made:.2f} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("volumes", nargs="+", type=Path, metavar="VOLUMES")
    parser.add_argument("--sources", type=float, nargs="+", default=[16, 64])
    parser.add_argument("--factors", type=float, nargs="+", default=[2, 4, 8])
    args = parser.parse_args()
    print("| volume | ratio | made for it, dB | octaves | blocks | coded again | bound below truth, dB | seconds |")
    print("|---" * 8 + "|")
    for path in args.volumes:
        rows(path.stem, tifffile.imread(path), args.sources, args.factors)


if __name__ == "__main__":
    main()

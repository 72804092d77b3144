"""A second decoder, written from ``docs/format.md`` alone, slowly and in plain numbers: it must see the same voxels."""

from __future__ import annotations

import math
import zlib
from bisect import bisect_right
from collections.abc import Iterator
from decimal import Context, Decimal, localcontext
from itertools import pairwise, product
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from napari_tinc.compression import compress
from napari_tinc.core import entropy, quantization
from napari_tinc.core.entropy import DEFLATE, RANGE_CODER, SymbolModel
from napari_tinc.format import KIND_PARAMETERS, KIND_QUALITY, Frame, parse
from napari_tinc.settings import PRESETS
from napari_tinc.target import Target

Array = npt.NDArray[np.generic]
Floats = npt.NDArray[np.float64]


class Bytes:
    """Fields one after the other."""

    def __init__(self, data: bytes) -> None:
        self.data, self.position = data, 0

    def u8(self) -> int:
        self.position += 1
        return self.data[self.position - 1]

    def varint(self) -> int:
        value = shift = 0
        while True:
            byte = self.u8()
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    def take(self, count: int) -> bytes:
        self.position += count
        return self.data[self.position - count : self.position]

    def rest(self) -> bytes:
        return self.data[self.position :]


def table(family: int, scale_code: int, bound: int) -> list[int]:
    """Left ends of the symbols' intervals out of 2**24, and 2**24."""
    with localcontext(Context(prec=30)):
        s = (Decimal(2).ln() * (Decimal(scale_code) / 8 - 2)).exp()
        power, divisor = (1, s) if family else (2, 2 * s * s)
        half = [int((-Decimal(k**power) / divisor).exp().scaleb(24)) for k in range(bound + 1)]
    weights = half[:0:-1] + half
    count, total = len(weights), sum(weights)
    frequencies = [1 + weight * (2**20 - count) // total for weight in weights]
    frequencies[bound] += 2**20 - sum(frequencies)
    left, below = [], 0
    for index, frequency in enumerate(frequencies):
        left.append(below * (2**24 - count) // 2**20 + index)
        below += frequency
    return [*left, 2**24]


def range_decode(stream: bytes, heads: list[tuple[int, int, int]], sizes: list[int]) -> list[list[int]]:
    words = [int.from_bytes(stream[i : i + 4], "little") for i in range(0, len(stream), 4)]
    queue = iter(words)
    lower, width, point = 0, 2**64 - 1, next(queue, 0) << 32 | next(queue, 0)
    tensors = []
    for (family, scale_code, bound), size in zip(heads, sizes, strict=True):
        symbols = []
        left = table(family, scale_code, bound) if bound else []
        for _ in range(size if bound else 0):
            unit = width >> 24
            quantile = (point - lower) % 2**64 // unit
            index = bisect_right(left, quantile) - 1
            lower = (lower + unit * left[index]) % 2**64
            width = unit * (left[index + 1] - left[index])
            if width < 2**32:
                lower, width = lower << 32 & 2**64 - 1, width << 32
                point = (point << 32 | next(queue, 0)) % 2**64
            symbols.append(index - bound)
        tensors.append(symbols or [0] * size)
    assert next(queue, None) is None
    assert not words or (point - lower) % 2**64 < 2**33 - 1 or width == 2**64 - 1
    return tensors


def deflate_decode(stream: bytes, sizes: list[int]) -> list[list[int]]:
    flat = np.frombuffer(zlib.decompress(stream), "<i2").tolist()
    ends = np.cumsum(sizes).tolist()
    return [flat[end - size : end] for size, end in zip(sizes, ends, strict=True)]


class Tree:
    """Nodes of every level, their boxes and parents."""

    def __init__(self, shape: tuple[int, ...], splits: tuple[tuple[bool, ...], ...]) -> None:
        cells: list[list[tuple[int, ...]]] = [[(0,) * len(shape)]]
        for split in splits:
            steps = list(product(*(range(2) if halved else range(1) for halved in split)))
            cells.append([
                tuple(i * (2 if halved else 1) + j for i, j, halved in zip(cell, step, split, strict=True))
                for cell in cells[-1] for step in steps
            ])  # fmt: skip
        self.nodes = [len(level) for level in cells]
        self.children = [2 ** sum(split) for split in splits]
        parts = [2 ** sum(split[axis] for split in splits) for axis in range(len(shape))]
        cuts = [[i * side // part for i in range(part + 1)] for side, part in zip(shape, parts, strict=True)]
        self.boxes = [[(cut[i], cut[i + 1]) for cut, i in zip(cuts, cell, strict=True)] for cell in cells[-1]]
        self.sides = [max(b - a for a, b in pairwise(cut)) for cut in cuts]


def read_plan(plan: bytes, tree: Tree, items: int) -> tuple[list[int], list[list[int]]]:
    """Layers of every level, and the width of every node of every level."""
    fields, layers, widths = Bytes(plan), [], []
    for nodes in tree.nodes:
        layers.append(fields.u8())
        classes = [0] * fields.u8()
        classes = [fields.varint() for _ in classes]
        index = zlib.decompress(fields.take(fields.varint())) if len(classes) > 1 else bytes(items * nodes)
        widths.append([classes[i] for i in index])
    assert not fields.rest()
    return layers, widths


Layers = list[tuple[Floats, Floats]]


def read_level(
    payload: bytes, nodes: list[tuple[int, int]], layers: int, leaf: bool, block_parameters: int
) -> list[Layers]:
    """Weights and biases of every node of an item's level; nodes are given as (input width, width)."""
    order = sorted(range(len(nodes)), key=lambda n: (nodes[n][1], nodes[n][0], n))
    kinds = list(product(range(layers + leaf), ("weight", "bias")))

    def shapes(layer: int, kind: str, members: range) -> Iterator[tuple[int, int, int]]:
        for n in (n for n in order if n in members):
            fan_in, width = nodes[n]
            columns = 1 if kind == "bias" else fan_in if layer == 0 else width
            yield n, 1 if layer == layers else width, columns

    fields = Bytes(payload)
    coder, heads, steps = fields.u8(), [], []
    for _ in kinds:
        steps.append(float(np.float32(2 ** (fields.u8() / 16 - 10))))
        packed = fields.u8()
        heads.append((packed >> 7, packed & 127, fields.varint()))
    everyone = range(len(nodes))
    parameters = sum(out * columns for kind in kinds for _, out, columns in shapes(*kind, everyone))
    count = 1
    while parameters / count > block_parameters and count < len(nodes):
        count *= 2
    lengths = [fields.varint() for _ in range(count - 1)]
    streams = [fields.take(length) for length in lengths] + [fields.rest()]
    result: list[list[list[Floats]]] = [[[] for _ in range(layers + leaf)] for _ in nodes]
    for block, stream in enumerate(streams):
        members = everyone[block * len(nodes) // count : (block + 1) * len(nodes) // count]
        sizes = [sum(out * columns for _, out, columns in shapes(*kind, members)) for kind in kinds]
        tensors = range_decode(stream, heads, sizes) if coder == 1 else deflate_decode(stream, sizes)
        for (layer, kind), step, symbols in zip(kinds, steps, tensors, strict=True):
            values = np.array(symbols) * step
            for n, out, columns in shapes(layer, kind, members):
                result[n][layer].append(values[: out * columns].reshape(out, columns))
                values = values[out * columns :]
    return [[(weight, bias) for weight, bias in node] for node in result]


def decode(frame: Frame, block_parameters: int = 2**16) -> Array:
    """All voxels of a frame of model 1, evaluated in float64."""
    header = frame.header
    spatial = [i for i, axis in enumerate(header.metadata.axes) if axis in "zyx"]
    leading = [i for i in range(len(header.shape)) if i not in spatial]
    tree = Tree(tuple(header.shape[i] for i in spatial), header.splits)
    layers, widths = read_plan(header.plan, tree, len(header.items))
    axes = [2 * np.arange(side) / (side - 1) - 1 if side > 1 else np.zeros(1) for side in tree.sides]
    coordinates = np.stack([axis.ravel() for axis in np.meshgrid(*axes, indexing="ij")])
    items = []
    for item, limits in enumerate(header.items):
        below: list[Floats] = [coordinates]
        for level, nodes in enumerate(tree.nodes):
            parents = [0] * nodes if level == 0 else [n // tree.children[level - 1] for n in range(nodes)]
            shapes = [(len(below[parents[n]]), widths[level][item * nodes + n]) for n in range(nodes)]
            leaf = level == len(tree.nodes) - 1
            payload = frame.find(KIND_PARAMETERS, item, level)
            parameters = read_level(payload, shapes, layers[level], leaf, block_parameters)
            outputs = []
            for n in range(nodes):
                hidden = below[parents[n]]
                for weight, bias in parameters[n][: layers[level]]:
                    hidden = np.sin(weight @ hidden + bias)
                outputs.append(parameters[n][-1][0] @ hidden + parameters[n][-1][1] if leaf else hidden)
            below = outputs
        span = limits.maximum - limits.minimum
        offset, scale = limits.minimum + limits.offset_code / 65535 * span, span * 2 ** (-limits.scale_code / 16)
        volume = np.empty([header.shape[i] for i in spatial])
        for box, output in zip(tree.boxes, below, strict=True):
            inside = tuple(slice(0, stop - start) for start, stop in box)
            volume[tuple(slice(*ends) for ends in box)] = (offset + scale * output.reshape(tree.sides))[inside]
        items.append(np.clip(volume, limits.minimum, limits.maximum))
    stacked = np.stack(items).reshape([header.shape[i] for i in leading + spatial])
    return stacked.transpose(np.argsort(leading + spatial))


def blobs(*shape: int) -> Array:
    """Something to learn for items and leaves to differ in."""
    draw = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, side) for side in shape), indexing="ij"))
    centre = np.linspace(0.3, 0.7, len(shape)).reshape(-1, *[1] * len(shape))
    return np.rint(900 * np.exp(-6 * np.square(grid - centre).sum(0)) + draw.normal(100, 2, shape)).astype("u2")


@pytest.mark.parametrize(
    ("shape", "budget", "levels", "within", "coder", "block"),
    [
        ((13, 11, 9), 900, 2, "importance", RANGE_CODER, 2**16),
        ((13, 11, 9), 900, 2, "equal", DEFLATE, 2**16),
        ((2, 5, 21, 23), 3000, 3, "importance", RANGE_CODER, 2**16),
        ((2, 5, 21, 23), 3000, 3, "importance", RANGE_CODER, 100),
        ((13, 11, 9), 1200, 2, "equal", DEFLATE, 300),
        ((17, 30), 400, 1, "equal", RANGE_CODER, 2**16),
    ],
)
def test_a_decoder_written_from_the_page_alone_sees_the_same_voxels(
    monkeypatch: pytest.MonkeyPatch,
    shape: tuple[int, ...],
    budget: int,
    levels: int,
    within: str,
    coder: int,
    block: int,
) -> None:
    monkeypatch.setattr(entropy, "default_coder", lambda: coder)
    monkeypatch.setattr(quantization, "BLOCK_PARAMETERS", block)  # so that a small file has several
    target = Target.size(budget)
    settings: dict[str, Any] = {"levels": levels, "within": within, "device": "cpu", "model": "tinc"}
    volume = compress(blobs(*shape), target, preset="fast", time_limit=0.5, **settings)
    frame = parse(volume.to_bytes())
    assert {s.payload[0] for s in frame.segments if s.kind == KIND_PARAMETERS} == {coder}
    voxels = volume.decode()
    # Ours is in float32 and rounded to integers.
    np.testing.assert_allclose(voxels, decode(frame, block), rtol=0, atol=0.51)


def test_the_quality_that_octants_show_is_the_one_in_the_bytes_and_true(monkeypatch: pytest.MonkeyPatch) -> None:
    original = blobs(13, 11, 9)
    monkeypatch.setitem(PRESETS, "fast", 100)  # a number of steps and no time limit: the same file at every run
    volume = compress(original, Target.size(900), preset="fast", levels=2, device="cpu", model="tinc")
    voxels = volume.decode()
    payload = parse(volume.to_bytes()).find(KIND_QUALITY, 0, 0)
    span = float(original.max()) - float(original.min())
    tree = Tree(original.shape, volume.header.splits)
    leaves = len(volume.octants)
    assert len(payload) == 2 + 3 * leaves
    psnr, peak, dice = (payload[2 + i * leaves : 2 + (i + 1) * leaves] for i in range(3))
    threshold = float(original.min()) + int.from_bytes(payload[:2], "little") / 65535 * span
    assert volume.threshold() == threshold
    for leaf, (octant, box) in enumerate(zip(volume.octants, tree.boxes, strict=True)):
        inside = tuple(slice(*ends) for ends in box)
        assert octant.box == inside
        error = original[inside].astype(float) - voxels[inside]
        assert psnr[leaf] / 2 == octant.psnr
        assert octant.psnr == pytest.approx(10 * math.log10(span**2 / np.square(error).mean()), abs=0.26)
        assert octant.max_error == pytest.approx(span * 10 ** (-peak[leaf] / 40))
        assert np.abs(error).max() <= octant.max_error <= 1.06 * np.abs(error).max() + 1e-9
        marked, found = original[inside].astype(float) >= threshold, voxels[inside].astype(float) >= threshold
        either = int(marked.sum()) + int(found.sum())
        exact = 2 * int((marked & found).sum()) / either if either else 1.0
        assert dice[leaf] / 255 == octant.dice
        assert octant.dice <= exact <= octant.dice + 1 / 255
        assert (octant.dice == 1) == (exact == 1)
    # Both kinds of octants are there, or the page would not have been put to the test.
    assert {octant.dice == 1 for octant in volume.octants} == {True, False}


@pytest.mark.parametrize(("family", "scale_code", "bound"), [(0, 30, 40), (1, 21, 300), (0, 119, 16383), (1, 0, 2000)])
def test_the_range_decoder_of_the_page_reads_symbols_of_any_table(family: int, scale_code: int, bound: int) -> None:
    symbols = np.random.default_rng(bound).integers(-bound, bound + 1, 300).astype(np.int32)
    stream = entropy.encode([symbols], [SymbolModel(family, scale_code, bound)], RANGE_CODER)
    assert range_decode(stream, [(family, scale_code, bound)], [300]) == [symbols.tolist()]

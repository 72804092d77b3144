"""A second decoder of networks, written from ``docs/format.md`` alone, slowly and in plain numbers."""

from __future__ import annotations

import zlib
from bisect import bisect_right
from collections.abc import Iterator
from decimal import Context, Decimal, localcontext
from itertools import pairwise, product

import numpy as np
import numpy.typing as npt
from reference_mixing import Knowledge, Stream

from napari_tinc.format import KIND_PARAMETERS, Frame

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


def mixed_decode(stream: bytes, codes: list[int], matrices: list[list[tuple[int, int]]]) -> list[list[int]]:
    """Symbols of tensors, given as the rows and columns of their matrices."""
    bits, knowledge, tensors = Stream(stream), Knowledge(112 * 8, 1, 65536 // 7), []
    for number, (code, own) in enumerate(zip(codes, matrices, strict=True)):
        symbols: list[int] = []
        for rows, columns in own:
            if code == 0:
                symbols += [0] * (rows * columns)
                continue
            mean, of_column, last = 48, [48] * columns, [0] * columns
            for _ in range(rows):
                of_row, left = mean, 0
                for x in range(columns):
                    views = [
                        0, 1 + number % 32, 33 + min(15, of_row // 8), 49 + min(15, of_column[x] // 8),
                        65 + min(15, (of_row + of_column[x]) // 16), 81 + min(15, mean // 8), 97 + left + last[x],
                    ]  # fmt: skip
                    symbol = mixed_symbol(bits, knowledge, views, code - 1)
                    bucket = abs(symbol) // 2 ** (code - 1)
                    left = last[x] = min(7, bucket)
                    of_row += (16 * bucket - of_row) // 8
                    of_column[x] += (16 * bucket - of_column[x]) // 8
                    mean += (16 * bucket - mean) // 32
                    symbols.append(symbol)
        tensors.append(symbols)
    assert len(stream) <= bits.position
    return tensors


def mixed_symbol(bits: Stream, knowledge: Knowledge, views: list[int], shift: int) -> int:
    bucket = 0
    while bucket < 24 and bits.decision(knowledge, [8 * view + min(7, bucket) for view in views], 0):
        bucket += 1
    if bucket == 24:
        extra, rest = 0, 1
        while extra < 14 and bits.bit(32768):
            extra += 1
        for _ in range(extra):
            rest = 2 * rest + bits.bit(32768)
        bucket = 23 + rest
    magnitude = bucket
    for _ in range(shift):
        magnitude = 2 * magnitude + bits.bit(32768)
    assert magnitude < 2**14
    return -magnitude if magnitude and bits.bit(32768) else magnitude


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

    def matrices(layer: int, kind: str, members: range) -> list[tuple[int, int]]:
        """Nodes of one width and input width lie together, one matrix of them all."""
        rows: dict[tuple[int, int], list[int]] = {}
        for n, out, columns in shapes(layer, kind, members):
            known = rows.setdefault(nodes[n], [0, columns])
            known[0] += out
        return [(height, columns) for height, columns in rows.values()]

    fields = Bytes(payload)
    coder, heads, steps = fields.u8(), [], []
    for _ in kinds:
        steps.append(float(np.float32(2 ** (fields.u8() / 16 - 10))))
        packed = fields.u8()
        heads.append((packed >> 7, packed & 127, 0 if coder == 3 else fields.varint()))
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
        if coder == 3:
            tensors = mixed_decode(stream, [code for _, code, _ in heads], [matrices(*kind, members) for kind in kinds])
        else:
            tensors = range_decode(stream, heads, sizes) if coder == 1 else deflate_decode(stream, sizes)
        for (layer, kind), step, symbols in zip(kinds, steps, tensors, strict=True):
            values = np.array(symbols) * step
            for n, out, columns in shapes(layer, kind, members):
                result[n][layer].append(values[: out * columns].reshape(out, columns))
                values = values[out * columns :]
    return [[(weight, bias) for weight, bias in node] for node in result]


def network_output(frame: Frame, item: int, block_parameters: int = 2**16) -> Floats:
    """What the network of an item says at all its voxels, evaluated in float64."""
    header = frame.header
    tree = Tree(header.spatial_shape, header.splits)
    layers, widths = read_plan(header.plan, tree, len(header.items))
    axes = [2 * np.arange(side) / (side - 1) - 1 if side > 1 else np.zeros(1) for side in tree.sides]
    below: list[Floats] = [np.stack([axis.ravel() for axis in np.meshgrid(*axes, indexing="ij")])]
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
    volume = np.empty(header.spatial_shape)
    for box, output in zip(tree.boxes, below, strict=True):
        inside = tuple(slice(0, stop - start) for start, stop in box)
        volume[tuple(slice(*ends) for ends in box)] = output.reshape(tree.sides)[inside]
    return volume


def neurcomp_output(frame: Frame, item: int, block_parameters: int = 2**16) -> Floats:
    """What Neurcomp's network of an item says at all its voxels, evaluated in float64."""
    shape = frame.header.spatial_shape
    fields = Bytes(frame.header.plan)
    blocks, width = fields.u8(), fields.varint()
    assert not fields.rest()
    layers = 2 * blocks + 1
    payload = frame.find(KIND_PARAMETERS, item, 0)
    ((first, *inner, output),) = read_level(payload, [(len(shape), width)], layers, True, block_parameters)
    axes = [2 * np.arange(side) / (side - 1) - 1 if side > 1 else np.zeros(1) for side in shape]
    hidden = np.stack([axis.ravel() for axis in np.meshgrid(*axes, indexing="ij")])
    hidden = np.sin(first[0] @ hidden + first[1])
    for block in range(blocks):
        (weight, bias), (other_weight, other_bias) = inner[2 * block : 2 * block + 2]
        entering = hidden if block == 0 else hidden / 2
        hidden = hidden + np.sin(other_weight @ np.sin(weight @ entering + bias) + other_bias)
    return (output[0] @ (hidden / 2) + output[1]).reshape(shape)

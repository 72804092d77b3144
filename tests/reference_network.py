"""A second decoder of networks, written from ``docs/format.md`` alone, slowly and in plain numbers."""

from __future__ import annotations

import hashlib
import io
import math
import zlib
from bisect import bisect_right
from collections.abc import Iterator
from decimal import Context, Decimal, localcontext
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import numpy.typing as npt
from reference_mixing import Knowledge, Stream

import napari_tinc
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
        for shape in own:
            symbols += matrix_decode(bits, knowledge, number, shape, code) if code else [0] * (shape[0] * shape[1])
        tensors.append(symbols)
    assert len(stream) <= bits.position
    return tensors


def matrix_decode(
    bits: Stream, knowledge: Knowledge, number: int, shape: tuple[int, ...], code: int, most: int = 14
) -> list[int]:
    rows, columns = shape
    mean, of_column, last, symbols = 48, [48] * columns, [0] * columns, []
    for _ in range(rows):
        of_row, left = mean, 0
        for x in range(columns):
            views = [
                0, 1 + number % 32, 33 + min(15, of_row // 8), 49 + min(15, of_column[x] // 8),
                65 + min(15, (of_row + of_column[x]) // 16), 81 + min(15, mean // 8), 97 + left + last[x],
            ]  # fmt: skip
            symbol = mixed_symbol(bits, knowledge, views, code - 1, 0, most)
            bucket = abs(symbol) // 2 ** (code - 1)
            left = last[x] = min(7, bucket)
            of_row += (16 * bucket - of_row) // 8
            of_column[x] += (16 * bucket - of_column[x]) // 8
            mean += (16 * bucket - mean) // 32
            symbols.append(symbol)
    return symbols


def mixed_symbol(
    bits: Stream, knowledge: Knowledge, views: list[int], shift: int, weights: int = 0, most: int = 14
) -> int:
    bucket = 0
    while bucket < 24 and bits.decision(knowledge, [8 * view + min(7, bucket) for view in views], weights):
        bucket += 1
    if bucket == 24:
        extra, rest = 0, 1
        while extra < most and bits.bit(32768):
            extra += 1
        for _ in range(extra):
            rest = 2 * rest + bits.bit(32768)
        bucket = 23 + rest
    magnitude = bucket
    for _ in range(shift):
        magnitude = 2 * magnitude + bits.bit(32768)
    assert magnitude < 2**most
    return -magnitude if magnitude and bits.bit(32768) else magnitude


def at_most(number: int, edges: str) -> int:
    """How many edges are not above a number."""
    return sum(int(edge) <= number for edge in edges.split())


P, Q = "1 2 3 5 8 12 18 26 38 60 100", "1 3 6 12 24 48"
R = "1 2 3 5 7 10 14 19 26 36 50 70 100 160 300"


def volumes_decode(stream: bytes, codes: list[int], shapes: list[tuple[int, ...]]) -> list[list[int]]:
    """Symbols of coder 4: of tensors given as rows and columns, or as volumes, planes, rows and columns."""
    bits, knowledge = Stream(stream), Knowledge(395 * 8, 4, 65536 // 7)
    before: Floats | None = None
    tensors = []
    for number, (code, shape) in enumerate(zip(codes, shapes, strict=True)):
        if code == 0:
            tensors.append([0] * int(np.prod(shape)))
            continue
        if len(shape) == 2:
            tensors.append(matrix_decode(bits, knowledge, number, shape, code, 22))
            continue
        mean, symbols = 48, []
        known = np.zeros((shape[0], *(side + 2 for side in shape[1:])), int)
        for n, z, y, x in product(*map(range, shape)):

            def at(volume: Floats, z: int, y: int, x: int, n: int = n) -> int:
                return int(volume[n, z + 1, y + 1, x + 1])

            west, north, back = at(known, z, y, x - 1), at(known, z, y - 1, x), at(known, z - 1, y, x)
            diagonal = [(0, -1, -1), (0, -1, 1), (-1, 0, -1), (-1, 0, 1), (-1, -1, 0), (-1, 1, 0)]
            same = 3 * (west + north + back) + 2 * sum(at(known, z + i, y + j, x + k) for i, j, k in diagonal)
            above = 0
            if before is not None and len(before) == shape[0]:
                sides = [side - 2 for side in before.shape[1:]]
                i, j, k = (p * own // side for p, own, side in zip((z, y, x), sides, shape[1:], strict=True))
                above = 3 * at(before, i, j, k)
                for d in (-1, 0, 1):
                    above += at(before, i + d, j, k) + at(before, i, j + d, k) + at(before, i, j, k + d)
                above -= 2 * at(before, i, j, k)
            both = at_most(same + above, R)
            views = [
                112 + 12 * (number % 8) + at_most(same, P), 208 + 7 * at_most(same, P) + at_most(above, Q),
                292 + min(west, 2) + 3 * min(north, 2) + 9 * min(back, 2), 319 + both, 335 + at_most(above, R),
                351 + min(15, mean // 8), 367 + min(west, 7) + min(north, 7) + min(back, 7),
            ]  # fmt: skip
            symbol = mixed_symbol(bits, knowledge, views, code - 1, 1 + (both >= 3) + (both >= 6), 22)
            bucket = abs(symbol) // 2 ** (code - 1)
            mean += (16 * bucket - mean) // 32
            known[n, z + 1, y + 1, x + 1] = min(bucket, 15)
            symbols.append(symbol)
        before = known
        tensors.append(symbols)
    assert len(stream) <= bits.position
    return tensors


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


def whole_layers(frame: Frame, item: int, width: int, layers: int, block_parameters: int) -> tuple[Floats, Layers]:
    """Coordinates of all voxels, and the layers of an item's only network."""
    shape = frame.header.spatial_shape
    payload = frame.find(KIND_PARAMETERS, item, 0)
    (found,) = read_level(payload, [(len(shape), width)], layers, True, block_parameters)
    axes = [2 * np.arange(side) / (side - 1) - 1 if side > 1 else np.zeros(1) for side in shape]
    return np.stack([axis.ravel() for axis in np.meshgrid(*axes, indexing="ij")]), found


def neurcomp_output(frame: Frame, item: int, block_parameters: int = 2**16) -> Floats:
    """What Neurcomp's network of an item says at all its voxels, evaluated in float64."""
    fields = Bytes(frame.header.plan)
    blocks, width = fields.u8(), fields.varint()
    assert not fields.rest()
    hidden, layers = whole_layers(frame, item, width, 2 * blocks + 1, block_parameters)
    first, *inner, output = layers
    hidden = np.sin(first[0] @ hidden + first[1])
    for block in range(blocks):
        (weight, bias), (other_weight, other_bias) = inner[2 * block : 2 * block + 2]
        entering = hidden if block == 0 else hidden / 2
        hidden = hidden + np.sin(other_weight @ np.sin(weight @ entering + bias) + other_bias)
    return (output[0] @ (hidden / 2) + output[1]).reshape(frame.header.spatial_shape)


def siren_output(frame: Frame, item: int, block_parameters: int = 2**16) -> Floats:
    """What the SIREN of an item says at all its voxels, evaluated in float64."""
    fields = Bytes(frame.header.plan)
    count, width = fields.u8(), fields.varint()
    assert not fields.rest()
    hidden, layers = whole_layers(frame, item, width, count, block_parameters)
    *inner, output = layers
    for weight, bias in inner:
        hidden = np.sin(weight @ hidden + bias)
    return (output[0] @ hidden + output[1]).reshape(frame.header.spatial_shape)


def read_tensors(payload: bytes, shapes: list[tuple[int, ...]]) -> list[Floats]:
    """Tensors of an item's only node, in one block of coder 4 (or 3, where none is a volume)."""
    fields = Bytes(payload)
    coder, codes, steps = fields.u8(), [], []
    for _ in shapes:
        steps.append(float(np.float32(2 ** (fields.u8() / 16 - 10))))
        codes.append(fields.u8())
    assert coder == 3 + any(len(shape) > 2 for shape in shapes)
    stream = fields.rest()
    symbols = (
        volumes_decode(stream, codes, shapes)
        if coder == 4
        else mixed_decode(stream, codes, [[(rows, columns)] for rows, columns in shapes])
    )
    return [np.array(own).reshape(shape) * step for own, step, shape in zip(symbols, steps, shapes, strict=True)]


def grid_output(frame: Frame, item: int, block_parameters: int = 2**16) -> Floats:
    """What the grids of an item, and their network, say at all its voxels, evaluated in float64."""
    shape = frame.header.spatial_shape
    fields = Bytes(frame.header.plan)
    count, features, width = fields.u8(), fields.u8(), fields.varint()
    octaves = [[fields.u8() for _ in shape] for _ in range(count)]
    assert not fields.rest()
    sides = [[(n - 2) // 2**o + 2 if n > 1 else 1 for n, o in zip(shape, own, strict=True)] for own in octaves]
    layers = [(width, count * features), (width, 1), (width, width), (width, 1), (1, width), (1, 1)]
    flat = (1,) * (3 - len(shape))
    volumes = [(features, *flat, *own) for own in sides]
    tensors = read_tensors(frame.find(KIND_PARAMETERS, item, 0), [*layers, *volumes])
    found, skipped = [], np.zeros(shape)
    for latents, own, cells in zip(tensors[6:], octaves, sides, strict=True):
        values = latents.reshape(features, *cells)
        for axis, (n, octave) in enumerate(zip(shape, own, strict=True)):
            place = np.arange(n) / 2**octave
            low = np.floor(place).astype(int)
            high = np.minimum(low + 1, cells[axis] - 1)
            share = (place - low).reshape([-1 if a == axis else 1 for a in range(len(shape))])
            values = (1 - share) * values.take(low, axis + 1) + share * values.take(high, axis + 1)
        skipped += values[0]
        found.append(values.reshape(features, -1))
    hidden = np.concatenate(found)
    for weight, bias in (tensors[0:2], tensors[2:4]):
        hidden = weight @ hidden + bias
        hidden = hidden / 2 + np.sin(hidden) ** 2
    return (tensors[4] @ hidden + tensors[5]).reshape(shape) + skipped


def tucker_output(frame: Frame, item: int, block_parameters: int = 2**16) -> Floats:
    """The core of an item times the factors of all axes, in float64."""
    shape = frame.header.spatial_shape
    fields = Bytes(frame.header.plan)
    ranks = [fields.varint() for _ in shape]
    assert not fields.rest()
    matrices: list[tuple[int, ...]] = [size for n, r in zip(shape, ranks, strict=True) for size in ((1, r), (n, r))]
    core = (1, *(1,) * (3 - len(shape)), *ranks)
    *pairs, values = read_tensors(frame.find(KIND_PARAMETERS, item, 0), [*matrices, core])
    values = values.reshape(ranks)
    for axis, (norms, factor) in enumerate(zip(pairs[::2], pairs[1::2], strict=True)):
        values = np.moveaxis(np.tensordot(factor / 2**norms, values, (1, axis)), 0, axis)
    return values


def sci_output(frame: Frame, item: int, block_parameters: int = 2**16) -> Floats:
    """What the networks of an item's blocks say at all its voxels, evaluated in float64."""
    header = frame.header
    shape, axes = header.spatial_shape, len(header.spatial_shape)
    fields = Bytes(header.plan)
    masks = [fields.u8() for _ in range(fields.u8())]
    splits = tuple(tuple(bool(mask >> axis & 1) for axis in range(axes)) for mask in masks)
    widths = [0, *(fields.varint() for _ in range(fields.u8()))]
    kinds = iter(zlib.decompress(fields.rest()))
    trees = [Tree(shape, splits[:level]) for level in range(len(splits) + 1)]
    blocks: list[tuple[int, int, int]] = []

    def visit(level: int, node: int) -> None:
        kind = next(kinds)
        if kind == 255:
            count = trees[level + 1].children[level]
            for i in range(count):
                visit(level + 1, count * node + i)
        else:
            blocks.append((level, widths[kind], node))

    visit(0, 0)
    assert next(kinds, None) is None
    octants = Tree(shape, header.splits).nodes[-1]
    sizes = {w: [(2 * w, axes), (w, 2 * w), (w, w), (w, w), (1, w)] for w in widths if w}
    members = sorted(block for block in blocks if block[1])
    owner = [node * octants // trees[level].nodes[-1] for level, _, node in members]
    total = 1 + sum(out * (fan_in + 1) for _, width, _ in members for out, fan_in in sizes[width])
    count = 1
    while total / count > block_parameters and count < octants:
        count *= 2
    fields = Bytes(frame.find(KIND_PARAMETERS, item, 0))
    assert fields.u8() == 3
    steps, codes = [], []
    for _ in range(11 if members else 1):
        steps.append(float(np.float32(2 ** (fields.u8() / 16 - 10))))
        codes.append(fields.u8())
    lengths = [fields.varint() for _ in range(count - 1)]
    streams = [fields.take(length) for length in lengths] + [fields.rest()]
    background, layers = 0.0, [[np.zeros(0)] * 10 for _ in members]
    for number, stream in enumerate(streams):
        inside = [i for i, own in enumerate(owner) if own * count // octants == number]
        groups: dict[tuple[int, int], list[int]] = {}
        for i in inside:
            groups.setdefault(members[i][:2], []).append(i)
        matrices = [[(1, 1)] if number == 0 else []]
        for layer in range(5 if members else 0):
            own = [(len(rows) * sizes[width][layer][0], sizes[width][layer][1]) for (_, width), rows in groups.items()]
            matrices += [own, [(rows, 1) for rows, _ in own]]
        tensors = mixed_decode(stream, codes, matrices)
        if number == 0:
            background = tensors[0][0] * steps[0]
        for k, symbols in enumerate(tensors[1:]):
            values = np.array(symbols) * steps[k + 1]
            for (_, width), rows in groups.items():
                out, fan_in = sizes[width][k // 2]
                wanted = (out, 1) if k % 2 else (out, fan_in)
                for i in rows:
                    layers[i][k] = values[: wanted[0] * wanted[1]].reshape(wanted)
                    values = values[wanted[0] * wanted[1] :]
    volume = np.full(shape, background)
    for (level, _, node), own in zip(members, layers, strict=True):
        box = trees[level].boxes[node]
        sides = trees[level].sides
        local = [
            2 * np.arange(b - a) / (n - 1) - 1 if n > 1 else np.zeros(1) for (a, b), n in zip(box, sides, strict=True)
        ]
        hidden = np.stack([axis.ravel() for axis in np.meshgrid(*local, indexing="ij")])
        for layer in range(4):
            hidden = np.sin(own[2 * layer] @ hidden + own[2 * layer + 1])
        place = tuple(slice(*ends) for ends in box)
        volume[place] += (own[8] @ hidden + own[9]).reshape([b - a for a, b in box])
    return volume


def coinpp_output(frame: Frame, item: int, block_parameters: int = 2**16) -> Floats:
    """What the shipped base says in every patch of an item with the patch's modulations, in float64."""
    shape = frame.header.spatial_shape
    file = (Path(napari_tinc.__file__).parent / "data" / "coinpp.npz").read_bytes()
    base = np.load(io.BytesIO(file), allow_pickle=False)
    fields = Bytes(frame.header.plan)
    side, kept = 2 ** fields.u8(), fields.varint()
    assert fields.rest() == hashlib.sha256(file).digest()[:8]
    sides = [min(side, n) for n in shape]
    counts = [-(-n // s) for n, s in zip(shape, sides, strict=True)]
    (modulations,) = read_tensors(frame.find(KIND_PARAMETERS, item, 0), [(kept, math.prod(counts))])
    volume = np.empty(shape)
    for number, patch in enumerate(np.ndindex(*counts)):
        ends = [(p * s, min((p + 1) * s, n)) for p, s, n in zip(patch, sides, shape, strict=True)]
        axes = [(2 * np.arange(b - a) - (s - 1)) / side for (a, b), s in zip(ends, sides, strict=True)]
        axes = [np.zeros(1)] * (3 - len(shape)) + axes
        hidden = np.stack([axis.ravel() for axis in np.meshgrid(*axes, indexing="ij")])
        added = base["turns"][:, :kept].astype(float) @ modulations[:, number]
        for layer in range(4):
            pushed = added[64 * layer : 64 * layer + 64, None] + base[f"bias_{layer}"][:, None]
            hidden = np.sin(base[f"weight_{layer}"].astype(float) @ hidden + pushed)
        said = base["weight_4"].astype(float) @ hidden + base["bias_4"]
        volume[tuple(slice(*end) for end in ends)] = said.reshape([b - a for a, b in ends])
    return volume


def nerv_output(frame: Frame, item: int, block_parameters: int = 2**16) -> Floats:
    """Planes of an item, each made of its number, in float64."""
    shape = frame.header.spatial_shape
    (height, width), depth = shape[-2:], shape[0] if len(shape) == 3 else 1
    fields = Bytes(frame.header.plan)
    blocks, w = fields.u8(), fields.varint()
    assert not fields.rest()
    rows, columns = (-(-n // 2**blocks) for n in (height, width))
    sizes = [(w, 48), (w * rows * columns, w), *[(4 * w, 9 * w)] * blocks, (1, w)]
    shapes: list[tuple[int, ...]] = [shape for out, fan_in in sizes for shape in ((out, fan_in), (out, 1))]
    tensors = read_tensors(frame.find(KIND_PARAMETERS, item, 0), shapes)
    layers = list(zip(tensors[::2], tensors[1::2], strict=True))
    erf = np.vectorize(math.erf)

    def bent(x: Floats) -> Floats:
        return x * (1 + erf(x / math.sqrt(2))) / 2

    planes = []
    for z in range(depth):
        angles = math.pi * 1.25 ** np.arange(24) * (z / (depth - 1) if depth > 1 else 0)
        hidden = np.concatenate([np.sin(angles), np.cos(angles)])[:, None]
        for weight, bias in layers[:2]:
            hidden = bent(weight @ hidden + bias)
        image = hidden.reshape(w, rows, columns)
        for weight, bias in layers[2:-1]:
            padded = np.pad(image, ((0, 0), (1, 1), (1, 1)))
            _, high, wide = image.shape
            kernel = weight.reshape(4 * w, w, 3, 3)
            convolved = np.zeros((4 * w, high, wide)) + bias[:, :, None]
            for i, j in product(range(3), range(3)):
                convolved += np.tensordot(kernel[:, :, i, j], padded[:, i : i + high, j : j + wide], 1)
            image = np.zeros((w, 2 * high, 2 * wide))
            for i, j in product(range(2), range(2)):
                image[:, i::2, j::2] = convolved[2 * i + j :: 4]
            image = bent(image)
        weight, bias = layers[-1]
        planes.append(np.tensordot(weight, image[:, :height, :width], 1)[0] + bias[0])
    return np.stack(planes).reshape(shape)

"""A second decoder of detail segments, written from ``docs/format.md`` alone, slowly and in plain numbers."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
from reference_mixing import Knowledge, Stream
from reference_network import Bytes

Cell = tuple[int, int, int]
Floats = npt.NDArray[np.float64]
Symbols = npt.NDArray[np.int64]

A = (1, 2, 4, 6, 9, 13, 20, 32, 64)
B = (1, 3, 6, 12, 24, 60)
C = (1, 4, 12, 40)
D = (1, 2)
E = (1, 2, 3, 5, 7, 10, 14, 19, 26, 36, 50, 70, 100, 160, 300)


def above(edges: tuple[int, ...], number: int) -> int:
    return sum(edge <= number for edge in edges)


class DetailStream(Stream):
    """Decisions about coefficients."""

    def decide(self, knowledge: Knowledge, kind: int, orientation: int, numbers: tuple[int, ...]) -> int:
        west, north, up, same, parent, beside = numbers
        total = above(E, same + parent + beside)
        a, b = above(A, same), above(B, parent)
        contexts = [
            10 * orientation + a, 80 + 7 * a + b, 150 + 7 * a + above(B, beside),
            220 + 5 * (7 * orientation + b) + above(C, beside), 500 + total,
            516 + above(D, west) + 3 * above(D, north) + 9 * above(D, up), 543,
        ]  # fmt: skip
        row = 3 * kind + (0 if total < 4 else 1 if total < 9 else 2)
        return self.decision(knowledge, [544 * kind + context for context in contexts], row)


class Padded:
    """Magnitudes of a band, at most 255, with zeros all around."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.values = np.zeros([n + 4 for n in shape], np.int64)

    def __getitem__(self, p: tuple[int, ...]) -> int:
        return int(self.values[p[0] + 2, p[1] + 2, p[2] + 2])

    def __setitem__(self, p: tuple[int, ...], magnitude: int) -> None:
        self.values[p[0] + 2, p[1] + 2, p[2] + 2] = min(255, magnitude)

    def cross(self, z: int, y: int, x: int) -> int:
        faces = self[z - 1, y, x] + self[z + 1, y, x] + self[z, y - 1, x] + self[z, y + 1, x]
        return faces + self[z, y, x - 1] + self[z, y, x + 1]

    def used(self, *spans: range) -> int:
        box = tuple(slice(span.start + 2, span.stop + 2) for span in spans)
        return int(np.count_nonzero(self.values[box]))


def per_band(g: int, band: int) -> int:
    return -(-2 * g // band) if band else 0


class Block:
    """Decode one block: its symbols, and the magnitudes that its children see."""

    def __init__(
        self, stream: DetailStream, knowledge: Knowledge, shape: tuple[int, ...], orientations: list[int], parent: Any
    ) -> None:
        self.stream, self.knowledge, self.shape = stream, knowledge, shape
        self.orientations, self.parent = orientations, parent
        self.bands = [Padded(shape) for _ in orientations]
        self.symbols = np.zeros((len(orientations), *shape), np.int64)
        for band in range(len(orientations)):
            for corner in product(*(range(0, n, 4) for n in shape)):
                self.cell(band, [range(c, min(c + 4, n)) for c, n in zip(corner, shape, strict=True)])

    def parent_band(self, band: int) -> Padded | None:
        if self.parent is None or self.orientations[band] not in self.parent[0]:
            return None
        found: Padded = self.parent[0][self.orientations[band]]
        return found

    def parent_place(self, p: tuple[int, ...]) -> tuple[int, int, int]:
        _, begins, factors = self.parent
        z, y, x = (b + i // f for b, i, f in zip(begins, p, factors, strict=True))
        return z, y, x

    def cell(self, band: int, spans: list[range]) -> None:
        own, orientation = self.bands[band], self.orientations[band]
        touching = []
        for axis in (2, 1, 0):
            layer = list(spans)
            layer[axis] = range(spans[axis].start - 1, spans[axis].start)
            touching.append(own.used(*layer))
        covering, q = 0, self.parent_band(band)
        if q is not None:
            covering = 2 * sum(q[place] for place in {self.parent_place(p) for p in product(*spans)})
        beside = per_band(sum(other.used(*spans) for other in self.bands[:band]), band)
        if not self.stream.decide(self.knowledge, 5, orientation, (*touching, sum(touching), covering, beside)):
            return
        for p in product(*spans):
            symbol = self.symbol(band, *p)
            self.symbols[(band, *p)] = symbol
            own[p] = abs(symbol)

    def symbol(self, band: int, z: int, y: int, x: int) -> int:
        s, q = self.bands[band], self.parent_band(band)
        west, north, up = s[z, y, x - 1], s[z, y - 1, x], s[z - 1, y, x]
        edges = s[z, y - 1, x - 1] + s[z, y - 1, x + 1] + s[z - 1, y, x - 1]
        edges += s[z - 1, y, x + 1] + s[z - 1, y - 1, x] + s[z - 1, y + 1, x]
        same = 3 * (west + north + up) + 2 * edges + s[z, y, x - 2] + s[z, y - 2, x] + s[z - 2, y, x]
        covering = 0
        if q is not None:
            place = self.parent_place((z, y, x))
            covering = 4 * q[place] + q.cross(*place)
        beside = per_band(sum(3 * c[z, y, x] + c.cross(z, y, x) for c in self.bands[:band]), band)
        numbers = (west, north, up, same, covering, beside)

        def decide(kind: int) -> int:
            return self.stream.decide(self.knowledge, kind, self.orientations[band], numbers)

        if not decide(0):
            return 0
        magnitude = 1
        if decide(1):
            extra = 0
            while extra < 23 and decide(min(2 + extra, 4)):
                extra += 1
            rest = 1
            for _ in range(extra):
                rest = 2 * rest + self.stream.bit(32768)
            magnitude = rest + 1
        return -magnitude if self.stream.bit(32768) else magnitude


class DetailDecoder:
    """All symbols of a segment by level and block, and the volume they stand for."""

    def __init__(self, payload: bytes, spatial: tuple[int, ...]) -> None:
        fields, shape = Bytes(payload), (1,) * (3 - len(spatial)) + spatial
        self.side = 2 ** fields.u8()
        self.masks = [fields.u8() for _ in range(fields.u8())]
        self.step = float(np.float32(2 ** ((fields.u8() + 256 * fields.u8()) / 256 - 40)))
        self.offsets = fields.u8(), fields.u8()
        mean = fields.varint()
        self.mean = -(mean + 1) // 2 if mean % 2 else mean // 2
        self.shapes = [shape]  # before every level, and after the last
        for mask in self.masks:
            self.shapes.append(tuple(-(-n // 2) if mask >> a & 1 else n for a, n in enumerate(self.shapes[-1])))
        assert self.shapes[-1] == (1, 1, 1)
        grids = [tuple(-(-n // self.side) for n in after) for after in self.shapes[1:]]
        trunk = len(grids)
        while trunk and math.prod(grids[trunk - 1]) == 1:
            trunk -= 1
        cells = [(level, cell) for level in reversed(range(trunk)) for cell in product(*map(range, grids[level]))]
        lengths = [fields.varint() for _ in range(1 + len(cells))]
        streams = [fields.take(length) for length in lengths]
        assert not fields.rest()
        self.symbols: dict[tuple[int, tuple[int, ...]], Symbols] = {}
        self.bands: dict[tuple[int, tuple[int, ...]], dict[int, Padded]] = {}
        after: dict[tuple[int, tuple[int, ...]], Knowledge] = {}
        stream, knowledge = DetailStream(streams[0]), Knowledge(6 * 544, 18, 19660)
        for level in reversed(range(trunk, len(grids))):
            self.block(level, (0, 0, 0), stream, knowledge)
            after[level, (0, 0, 0)] = knowledge
        for (level, cell), data in zip(cells, streams[1:], strict=True):
            knowledge = after[level + 1, self.parent(level, cell)]
            if data:
                knowledge = knowledge.copy()
                self.block(level, cell, DetailStream(data), knowledge)
            else:
                self.keep(level, cell, np.zeros((len(self.orientations(level)), *self.extent(level, cell)), np.int64))
            after[level, cell] = knowledge

    def orientations(self, level: int) -> list[int]:
        """In the order of coding."""
        own = [o for o in range(1, 8) if o & ~self.masks[level] == 0]
        return sorted(own, key=lambda o: (o.bit_count(), o))

    def factors(self, level: int) -> list[int]:
        return [2 if self.masks[level + 1] >> axis & 1 else 1 for axis in range(3)]

    def parent(self, level: int, cell: tuple[int, ...]) -> tuple[int, ...]:
        factors = self.factors(level)
        return tuple(i * self.side // f // self.side for i, f in zip(cell, factors, strict=True))

    def extent(self, level: int, cell: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(min(self.side, n - i * self.side) for i, n in zip(cell, self.shapes[level + 1], strict=True))

    def block(self, level: int, cell: tuple[int, ...], stream: DetailStream, knowledge: Knowledge) -> None:
        seen = None
        if level + 1 < len(self.masks):
            parent, factors = self.parent(level, cell), self.factors(level)
            begins = [i * self.side // f - up * self.side for i, f, up in zip(cell, factors, parent, strict=True)]
            seen = self.bands[level + 1, parent], begins, factors
        block = Block(stream, knowledge, self.extent(level, cell), self.orientations(level), seen)
        self.symbols[level, cell] = block.symbols
        self.bands[level, cell] = dict(zip(block.orientations, block.bands, strict=True))

    def keep(self, level: int, cell: tuple[int, ...], zeros: Symbols) -> None:
        self.symbols[level, cell] = zeros
        self.bands[level, cell] = {o: Padded(zeros.shape[1:]) for o in self.orientations(level)}

    def volume(self) -> Floats:
        low = np.full((1, 1, 1), self.mean * self.step)
        for level in reversed(range(len(self.masks))):
            low = self.join(level, low)
        return low

    def join(self, level: int, low: Floats) -> Floats:
        orientations, split = self.orientations(level), self.shapes[level]
        symbols = np.zeros((len(orientations), *self.shapes[level + 1]), np.int64)
        for (other, cell), part in self.symbols.items():
            if other == level:
                box = [slice(i * self.side, i * self.side + n) for i, n in zip(cell, part.shape[1:], strict=True)]
                symbols[(slice(None), *box)] = part
        sizes = np.abs(symbols)
        shrinkage = np.where(sizes > 1, self.offsets[1], self.offsets[0]) / 256
        values = np.sign(symbols) * (sizes - shrinkage) * self.step
        halves = {0: low}
        for orientation, band in zip(orientations, values, strict=True):
            ends = [n // 2 if orientation >> axis & 1 else None for axis, n in enumerate(split)]
            halves[orientation] = band[tuple(slice(0, end) for end in ends)]
        for axis in (a for a in range(3) if self.masks[level] >> a & 1):
            bit = 1 << axis
            halves = {o: join_axis(half, halves[o | bit], axis) for o, half in halves.items() if not o & bit}
        return halves[0]


def join_axis(low: Floats, high: Floats, axis: int) -> Floats:
    low, high = np.moveaxis(low, axis, 0), np.moveaxis(high, axis, 0)
    samples = np.empty((len(low) + len(high), *low.shape[1:]))
    gain = 1.230174104914001 / math.sqrt(2)
    samples[0::2], samples[1::2] = low * gain, high / gain
    last = len(samples) - 1
    for first, factor in ((0, -0.443506852043971), (1, -0.882911075530934), (0, 0.052980118572961),
                          (1, 1.586134342059924)):  # fmt: skip
        for i in range(first, len(samples), 2):
            left, right = (i - 1 if i > 0 else 1), (i + 1 if i < last else i - 1)
            samples[i] += factor * (samples[left] + samples[right])
    return np.moveaxis(samples, 0, axis)


def detail_output(payload: bytes, spatial: tuple[int, ...]) -> Floats:
    """What a detail segment says at all voxels of its item."""
    return DetailDecoder(payload, spatial).volume().reshape(spatial)

"""A second decoder of directional segments, written from ``docs/format.md`` alone, slowly and in plain numbers."""

from __future__ import annotations

import math
from itertools import product
from math import ceil, floor

import numpy as np
import numpy.typing as npt
from reference_mask import Reader
from reference_mixing import Knowledge, Stream

Place = tuple[int, int, int]
Sides = tuple[int, ...]
A, B = (1, 2, 4, 6, 9, 13, 20, 32, 64), (1, 3, 6, 12, 24, 60)
E = (1, 2, 3, 5, 7, 10, 14, 19, 26, 36, 50, 70, 100, 160, 300)
CONTEXTS = 16 * 2305 + 5 * 1304
# Slopes above 0, in eighths of a voxel, by rules.
SLOPES = {0: (4, 8, 12, 16), 2: (4, 8, 12, 16), 1: (1, 2, 3, 4, 6, 8, 16)}
SLOPES[3] = SLOPES[1]


def quantised(edges: tuple[int, ...], number: int) -> int:
    return sum(edge <= number for edge in edges)


class Leaf:
    """A block that is not split."""

    def __init__(self, level: int, at: Place, sides: Sides) -> None:
        self.level, self.at, self.sides = level, at, sides
        self.mode, self.box = -1, None  # type: tuple[int, tuple[int, ...] | None]
        self.symbols: dict[Place, int] = {}

    @property
    def family(self) -> int:
        return 0 if self.mode < 0 else self.mode + 1 if self.mode < 2 else 3 + (self.mode - 2) // 225

    def size(self, i: int, j: int, k: int) -> int:
        return abs(self.symbols.get((i, j, k), 0))


NONE = Leaf(-1, (0, 0, 0), (1, 1, 1))


class Tile:
    def __init__(self, extent: Sides, codes: Sides, rules: int, stream: bytes, knowledge: Knowledge) -> None:
        self.extent, self.codes, self.rules, self.deepest = extent, codes, rules, max(codes) - 2
        self.padded = tuple(ceil(n / 2**c) * 2**c for n, c in zip(extent, codes, strict=True))
        self.owner: dict[Place, Leaf] = {}
        self.leaves: list[Leaf] = []
        self.stream, self.knowledge = Stream(stream), knowledge
        for root in product(*(range(0, n, 2**c) for n, c in zip(self.padded, codes, strict=True))):
            self.block(0, root)  # type: ignore[arg-type]

    def sides(self, level: int) -> Sides:
        return tuple(2 ** max(0, c - level) for c in self.codes)

    def ask(self, kind: int, *views: int) -> int:
        contexts = [2305 * kind + 384 * i + view for i, view in enumerate(views)]
        return self.stream.decision(self.knowledge, [*contexts, 2305 * kind + 2304], kind)

    def block(self, level: int, at: Place) -> None:
        if any(p >= n for p, n in zip(at, self.extent, strict=True)):
            return
        z, y, x = at
        w, n, u = (self.owner.get(q, NONE) for q in ((z, y, x - 1), (z, y - 1, x), (z - 1, y, x)))
        used = sum(leaf.box is not None for leaf in (w, n, u))
        sides = self.sides(level)
        if level < self.deepest:
            deeper = sum(leaf.level > level for leaf in (w, n, u))
            state = sum(
                3**i * (2 if leaf.level > level else 1 if leaf.level >= 0 else 0) for i, leaf in enumerate((w, n, u))
            )
            views = (4 * level + deeper, 27 * level + state, 6 * level + u.family, 4 * level + used)
            if self.ask(0, *views, 6 * w.family + n.family, level):
                below = self.sides(level + 1)
                for child in product(*(range(p, p + s, b) for p, s, b in zip(at, sides, below, strict=True))):
                    self.block(level + 1, child)  # type: ignore[arg-type]
                return
        leaf = Leaf(level, at, sides)
        leaf.mode = self.mode(level, w, n, u)
        leaf.box = self.box(leaf, w, n, u, used)
        if leaf.box is not None:
            for q in product(*(range(2**e) for e in leaf.box)):
                symbol = self.symbol(leaf, (w, n, u), *q)
                if symbol:
                    leaf.symbols[q] = symbol  # type: ignore[index]
        for q in product(*(range(p, p + s) for p, s in zip(at, sides, strict=True))):
            self.owner[q] = leaf  # type: ignore[index]
        self.leaves.append(leaf)

    def mode(self, level: int, w: Leaf, n: Leaf, u: Leaf) -> int:
        same = (w.mode == n.mode) + 2 * (n.mode == u.mode) + 4 * (u.mode == w.mode)
        alike = sum(leaf.level == level for leaf in (w, n, u))
        refused: set[int] = set()
        for i, leaf in enumerate((u, n, w)):
            if leaf.mode < 0 or leaf.mode in refused:
                continue
            refused.add(leaf.mode)
            straight = leaf.mode >= 2 and (leaf.mode - 2) % 225 == 112
            views = (4 * same + level, 4 * leaf.family + level, 2 * leaf.family + (leaf.box is not None))
            if self.ask(1 + i, *views, 6 * same + leaf.family, 4 * straight + level, 4 * level + alike):
                return leaf.mode
        family = 0
        while family < 4 and not self.ask(4 + family, level, same, u.family, n.family, w.family, 8 * level + same):
            family += 1
        if family < 2:
            return family
        axis, near = family - 2, (15, 15)
        for leaf in (w, n, u):
            if leaf.family == axis + 3:
                near = divmod((leaf.mode - 2) % 225, 15)
        first = self.slope(0, axis, level, same, near[0], near[1])
        second = self.slope(1, axis, level, same, near[1], first)
        return 2 + 225 * axis + 15 * first + second

    def slope(self, number: int, axis: int, level: int, same: int, near: int, other: int) -> int:
        steep = 0
        while steep < len(SLOPES[self.rules]):
            r = 7 * axis + steep
            views = (r, 16 * r + near, 16 * steep + other, 21 * level + r, 16 * near + other, 8 * steep + same)
            if not self.ask(8 + number, *views):
                break
            steep += 1
        if steep == 0:
            return 7
        views = (axis, 16 * axis + near, 16 * axis + other, 3 * level + axis, 16 * near + other, steep)
        return 7 + steep if self.ask(10 + number, *views) else 7 - steep

    def box(self, leaf: Leaf, w: Leaf, n: Leaf, u: Leaf, used: int) -> tuple[int, ...] | None:
        counts = 4 * used + sum(one.level >= 0 for one in (w, n, u))
        which = sum(2**i * (one.box is not None) for i, one in enumerate((w, n, u)))
        family, level = leaf.family, leaf.level
        views = (6 * level + family, counts, 16 * level + counts, 4 * family + used, counts % 4, which)
        if not self.ask(12, *views):
            return None
        found: list[int] = []
        for axis in range(3):
            most = int(math.log2(leaf.sides[axis]))
            expected = [
                max(0, one.box[axis] + most - int(math.log2(one.sides[axis])))
                for one in (w, n, u)
                if one.box is not None
            ]
            near = 7 if not expected else min(6, (2 * sum(expected) + len(expected)) // (2 * len(expected)))
            g, h = (*(e + 1 for e in found), 0, 0)[:2]
            e = 0
            while e < most:
                views = (5 * most + e, 8 * e + near, 49 * (e > 0) + 7 * g + h, 16 * e + min(15, g + h))
                if not self.ask(13 + axis, *views, 16 * near + min(15, g + h), 4 * (6 * e + family) + used):
                    break
                e += 1
            found.append(e)
        return tuple(found)

    def symbol(self, leaf: Leaf, around: tuple[Leaf, Leaf, Leaf], i: int, j: int, k: int) -> int:
        assert leaf.box is not None
        size = leaf.size
        w, n, u = size(i, j, k - 1), size(i, j - 1, k), size(i - 1, j, k)
        same = 3 * (w + n + u) + size(i, j, k - 2) + size(i, j - 2, k) + size(i - 2, j, k)
        same += 2 * (size(i, j - 1, k - 1) + size(i, j - 1, k + 1) + size(i - 1, j, k - 1) + size(i - 1, j, k + 1))
        same += 2 * (size(i - 1, j - 1, k) + size(i - 1, j + 1, k))
        beside = 0
        for other in around:
            if other.box is None:
                continue
            a, b, c = (
                floor(q * theirs / mine) for q, theirs, mine in zip((i, j, k), other.sides, leaf.sides, strict=True)
            )
            beside += 2 * other.size(a, b, c) + other.size(a - 1, b, c) + other.size(a + 1, b, c)
            beside += (
                other.size(a, b - 1, c) + other.size(a, b + 1, c) + other.size(a, b, c - 1) + other.size(a, b, c + 1)
            )
        r = i + j + k
        radius = r if r < 12 else 12 + (r >= 16) + (r >= 24) + (r >= 40)
        fine, coarse, total = quantised(A, same), quantised(B, beside), quantised(E, same + 2 * beside)
        place = 36 * i.bit_length() + 6 * j.bit_length() + k.bit_length()
        late = sum(2 * (q + 1) > 2**e for q, e in zip((i, j, k), leaf.box, strict=True))
        views = [
            place,
            216 + 10 * leaf.level + fine,
            256 + 4 * (7 * fine + coarse) + late,
            536 + 16 * coarse + radius,
            648 + 4 * total + leaf.level,
            712 + 27 * radius + min(w, 2) + 3 * min(n, 2) + 9 * min(u, 2),
            1144 + 10 * radius + fine,
        ]
        ones = 0
        while ones < 15:
            kind = min(ones, 4)
            contexts = [16 * 2305 + 1304 * kind + view for view in views]
            if not self.stream.decision(self.knowledge, contexts, 16 + 3 * kind + (total >= 4) + (total >= 9)):
                break
            ones += 1
        if ones == 0:
            return 0
        magnitude = 1
        if ones > 1:
            for _ in range(ones - 2):
                magnitude = 2 * magnitude + self.stream.bit(32768)
            magnitude += 1
        return -magnitude if self.stream.bit(32768) else magnitude

    def voxels(self, step: float, offsets: bytes) -> npt.NDArray[np.float64]:
        values = np.zeros(self.padded)
        layer = 2 ** self.codes[0]
        started = 0
        for leaf in self.leaves:
            z = leaf.at[0]
            while started <= z:
                if started:
                    values[started : started + layer] = values[started - 1]
                started += layer
            block = self.predicted(values, leaf)
            if leaf.box is not None:
                spectrum = np.zeros(leaf.sides)
                for q, symbol in leaf.symbols.items():
                    size = abs(symbol) - offsets[abs(symbol) > 1] / 256
                    spectrum[q] = math.copysign(size * step, symbol)
                for axis, n in enumerate(leaf.sides):
                    if (self.rules in (1, 3) and leaf.mode) or (
                        self.rules == 2 and (leaf.mode == 1 or leaf.family == 3 + axis)
                    ):
                        waves = np.sin(np.pi * np.outer(np.arange(n) + 1, 2 * np.arange(n) + 1) / (2 * n + 1))
                        waves *= 2 / math.sqrt(2 * n + 1)
                    else:
                        waves = np.cos(np.pi * np.outer(np.arange(n) + 0.5, np.arange(n)) / n) * math.sqrt(2 / n)
                        waves[:, 0] /= math.sqrt(2)
                    spectrum = np.moveaxis(np.tensordot(waves, spectrum, (1, axis)), 0, axis)
                block = block + spectrum
            values[tuple(slice(p, p + s) for p, s in zip(leaf.at, leaf.sides, strict=True))] = block
        return values[tuple(slice(0, n) for n in self.extent)]

    def predicted(self, values: npt.NDArray[np.float64], leaf: Leaf) -> npt.NDArray[np.float64]:
        at, sides, mode = leaf.at, leaf.sides, leaf.mode
        steps = np.meshgrid(*map(np.arange, sides), indexing="ij")
        if mode < 2:
            faces, weights = [], []
            for axis in range(3):
                if at[axis] == 0:
                    continue
                box = [slice(p, p + s) for p, s in zip(at, sides, strict=True)]
                box[axis] = slice(at[axis] - 1, at[axis])
                faces.append(values[tuple(box)])
                weights.append(1 / (steps[axis] + 1))
            if not faces:
                return np.zeros(sides)
            if mode == 0:
                return np.full(sides, np.concatenate([face.ravel() for face in faces]).mean())
            return sum(f * w for f, w in zip(faces, weights, strict=True)) / sum(weights)  # type: ignore[return-value]
        axis, numbers = (mode - 2) // 225, divmod((mode - 2) % 225, 15)
        slopes = [math.copysign((0, *SLOPES[self.rules])[abs(number - 7)], number - 7) for number in numbers]
        others = [a for a in range(3) if a != axis]
        most = [n - 1 for n in self.padded]
        for passed in range(axis):  # nothing behind the block along the axes before
            most[passed] = at[passed] + sides[passed] - 1

        def look(u: npt.NDArray[np.int64], v: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
            place: list[npt.NDArray[np.int64]] = [np.zeros(1, int)] * 3
            place[axis] = np.full(u.shape, max(at[axis] - 1, 0))
            for other, q in zip(others, (u, v), strict=True):
                place[other] = np.clip(q + at[other], 0, most[other])
            return values[tuple(place)]

        def smoothed(u: npt.NDArray[np.int64], v: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
            if max(sides) < 8:
                return look(u, v)
            return look(u, v) / 2 + (look(u - 1, v) + look(u + 1, v) + look(u, v - 1) + look(u, v + 1)) / 8

        def slid(
            u: npt.NDArray[np.int64], v: npt.NDArray[np.int64], d: npt.NDArray[np.int64]
        ) -> npt.NDArray[np.float64]:
            (u, fu), (v, fv) = (
                (np.floor(q - d * slope / 8).astype(int), (q - d * slope / 8) % 1)
                for q, slope in zip((u, v), slopes, strict=True)
            )
            upper = (1 - fv) * smoothed(u, v) + fv * smoothed(u, v + 1)
            return (1 - fu) * upper + fu * ((1 - fv) * smoothed(u + 1, v) + fv * smoothed(u + 1, v + 1))

        distance, places = steps[axis] + 1, [steps[other] for other in others]
        block = slid(*places, distance)
        if self.rules == 3:
            for i, other in enumerate(others):
                if at[other] == 0:
                    continue
                beside = [p + q for p, q in zip(at, steps, strict=True)]
                beside[other] = np.full(sides, at[other] - 1)
                before = list(places)
                before[i] = np.full(sides, -1)
                missed = values[tuple(beside)] - slid(*before, distance)
                block = block + np.where(places[i] < 4, 0.3 * 0.35 ** places[i], 0) * missed
        return block


def directional_output(payload: bytes, spatial: tuple[int, ...]) -> npt.NDArray[np.float64]:
    """All voxels of a directional layer, normalised."""
    reader, shape = Reader(payload), (1,) * (3 - len(spatial)) + spatial
    first, *others = reader.take(3)
    codes, rules = (first % 64, *others), first // 64
    tiles = tuple(reader.varint() * 2**c for c in codes)
    step = float(np.float32(2 ** (int.from_bytes(reader.take(2), "little") / 256 - 40)))
    offsets = reader.take(2)
    cells = list(product(*(range(ceil(n / s)) for n, s in zip(shape, tiles, strict=True))))
    lengths = [reader.varint() for _ in cells]
    streams = [reader.take(length) for length in lengths]
    assert reader.at == len(payload)
    output, learnt = np.zeros(shape), Knowledge(CONTEXTS, 31, 19660)
    for cell, stream in zip(cells, streams, strict=True):
        box = [slice(i * s, min(i * s + s, n)) for i, s, n in zip(cell, tiles, shape, strict=True)]
        if stream:
            knowledge = learnt if not any(cell) else learnt.copy()
            tile = Tile(tuple(b.stop - b.start for b in box), codes, rules, stream, knowledge)
            output[tuple(box)] = tile.voxels(step, offsets)
    return output.reshape(spatial)

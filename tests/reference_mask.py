"""A second decoder of mask segments, written from ``docs/format.md`` alone, slowly and in plain numbers."""

from __future__ import annotations

import struct
from itertools import product
from math import ceil

import numpy as np
import numpy.typing as npt
from reference_mixing import Knowledge, Stream

Place = tuple[int, ...]
FLOATS = {"f2": "<e", "f4": "<f", "f8": "<d"}
ORDER = [(0, 0, -1), (0, -1, 0), (-1, 0, 0), (0, -1, -1), (0, -1, 1), (-1, 0, -1), (-1, 0, 1), (-1, -1, 0), (-1, 1, 0)]


class Reader:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, count: int) -> bytes:
        self.at += count
        return self.data[self.at - count : self.at]

    def varint(self) -> int:
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    def scalar(self, dtype: str) -> float:
        if dtype in FLOATS:
            return float(struct.unpack(FLOATS[dtype], self.take(int(dtype[1])))[0])
        code = self.varint()
        return -(code + 1) // 2 if code % 2 else code // 2


class MaskDecoder:
    """The states of the cells of every octave; ``cells[0]`` are voxels."""

    def __init__(self, payload: bytes, dtype: str, spatial: tuple[int, ...]) -> None:
        reader = Reader(payload)
        self.background = reader.scalar(dtype)
        self.side = 2 ** reader.take(1)[0]
        self.shapes = [(1,) * (3 - len(spatial)) + spatial]
        while max(self.shapes[-1]) > 1:
            self.shapes.append(tuple(ceil(n / 2) for n in self.shapes[-1]))
        octaves = len(self.shapes) - 1
        grids = [tuple(ceil(n / self.side) for n in shape) for shape in self.shapes[1:]]
        trunk = octaves
        while trunk and grids[trunk - 1] == (1, 1, 1):
            trunk -= 1
        blocks = [(k, cell) for k in reversed(range(trunk)) for cell in product(*map(range, grids[k]))]
        lengths = [reader.varint() for _ in range(1 + len(blocks))]
        streams = [reader.take(length) for length in lengths]
        assert reader.at == len(payload)
        self.cells = [np.ones(shape, int) for shape in self.shapes]
        coder, knowledge = Stream(streams[0]), Knowledge(2 * 1996, 16, 19660)
        for k in reversed(range(trunk, octaves)):
            self.block(k, (0, 0, 0), coder, knowledge)
        after: dict[tuple[int, Place], Knowledge] = {}
        for (k, cell), stream in zip(blocks, streams[1:], strict=True):
            parent = tuple(i // f for i, f in zip(cell, self.factors(k + 1), strict=True))
            after[k, cell] = (knowledge if k + 1 >= trunk else after[k + 1, parent]).copy()
            self.block(k, cell, Stream(stream), after[k, cell])

    def factors(self, k: int) -> Place:
        return tuple(2 if n > 1 else 1 for n in self.shapes[k])

    def block(self, k: int, cell: Place, coder: Stream, knowledge: Knowledge) -> None:
        factors, shape, parents = self.factors(k), self.shapes[k], self.cells[k + 1]
        box = [range(i * self.side, min((i + 1) * self.side, n)) for i, n in zip(cell, parents.shape, strict=True)]
        own: dict[Place, int] = {}

        def known(*q: int) -> int:
            if q in own:
                return own[q]
            above = tuple(i // f for i, f in zip(q, factors, strict=True))
            for i, n, r in zip(above, parents.shape, box, strict=True):
                if not (0 <= i < n and r.start - 1 <= i <= r.stop):
                    return 1
            return int(parents[above])

        for parent in product(*box):
            children = product(
                *(range(i * f, min((i + 1) * f, n)) for i, f, n in zip(parent, factors, shape, strict=True))
            )
            if parents[parent] != 1:
                for p in children:
                    self.cells[k][p] = parents[parent]
                continue
            before = 1
            for p in children:
                around = {v: known(*(a + b for a, b in zip(p, v, strict=True))) for v in product((-1, 0, 1), repeat=3)}
                sums = [sum(state for v, state in around.items() if sum(map(abs, v)) == axes) for axes in (1, 2, 3)]
                causal = [around[v] for v in ORDER]
                w, n, u = causal[:3]
                far = [known(p[0], p[1], p[2] - 2), known(p[0], p[1] - 2, p[2]), known(p[0] - 2, p[1], p[2])]
                total = 4 * sums[0] + 2 * sums[1] + sums[2]
                contexts = [
                    sum(2**i for i, state in enumerate(causal) if state == 2),
                    512 + sum(2**i for i, state in enumerate(causal) if state == 0),
                    1024 + 7 * (w + 3 * n + 9 * u) + sums[0] - w - n - u,
                    1213 + before,
                    1469 + total,
                    1582 + 7 * (far[0] + 3 * far[1] + 9 * far[2]) + w + n + u,
                    1771 + 9 * sums[1] + sums[2] // 2,
                ]
                row = sum(face == 2 for face in causal[:3]) + 4 * (1 in causal[:3])
                state = 1 if k and coder.decision(knowledge, contexts, row) else None
                if state is None:
                    state = 2 * coder.decision(knowledge, [c + 1996 for c in contexts], row + 8)
                own[p] = state
                before = 2 * before + state // 2
        for p, state in own.items():
            self.cells[k][p] = state


def inside(payload: bytes, dtype: str, spatial: tuple[int, ...]) -> tuple[npt.NDArray[np.bool_], float]:
    """Which voxels are not the background, and its value."""
    decoder = MaskDecoder(payload, dtype, spatial)
    return (decoder.cells[0] == 2).reshape(spatial), decoder.background

"""A second decoder of predicted voxels and corrections, from ``docs/format.md`` alone, slow and in plain numbers."""

from __future__ import annotations

import struct
import zlib
from itertools import product
from math import ceil

import numpy as np
import numpy.typing as npt
from reference_mask import Reader
from reference_mixing import Knowledge, Stream

W, N, NW, NE, WW, NN, U, UW, UE, UN, US, UNW, UNE, USW, USE, UU = range(16)
NOBODY = None
Cell = tuple[int, int, int] | None


def zigzag(reader: Reader) -> int:
    code = reader.varint()
    return -(code + 1) // 2 if code % 2 else code // 2


def neighbours(z: int, y: int, x: int, shape: tuple[int, ...]) -> list[Cell]:
    _, height, width = shape

    def before(dy: int, dx: int) -> Cell:
        return (z - 1, min(max(y + dy, 0), height - 1), min(max(x + dx, 0), width - 1)) if z else NOBODY

    n = (z, y - 1, x) if y else before(0, 0)
    w = (z, y, x - 1) if x else (n if y or z else NOBODY)
    if not y and not z:
        n = w
    if y:
        nw = (z, y - 1, x - 1) if x else n
        ne = (z, y - 1, x + 1) if x + 1 < width else n
    else:
        nw, ne = (before(0, -1), before(0, 1)) if z else (w, w)
    ww = (z, y, x - 2) if x > 1 else w
    nn = (z, y - 2, x) if y > 1 else n
    around = [(0, 0), (0, -1), (0, 1), (-1, 0), (1, 0), (-1, -1), (-1, 1), (1, -1), (1, 1)]
    uu = (z - 2, y, x) if z > 1 else before(0, 0)
    return [w, n, nw, ne, ww, nn, *(before(*step) for step in around), uu]


def quarters(v: int) -> int:
    return v if v < 4 else 4 * (v.bit_length() - 2) + int(bin(v)[3:5], 2)


class Block:
    def __init__(self, stream: bytes, shape: tuple[int, ...], largest: int, corrections: bool) -> None:
        self.shape, self.largest, self.corrections = shape, largest, corrections
        reader = Reader(stream)
        if not corrections:
            classes = reader.take(1)[0]
            self.thresholds: list[int] = []
            for _ in range(classes - 1):
                self.thresholds.append((self.thresholds or [0])[-1] + reader.varint())
            rows = [6] * classes if shape[0] == 1 else [16] * classes + [6]
            self.weights = [[zigzag(reader) for _ in range(count)] for count in rows]
        self.coder = Stream(stream[reader.at :])
        self.knowledge = Knowledge(34360, 88, 19660)
        self.biases = [[0, 0] for _ in range(2048)]
        self.number: dict[Cell, int] = {NOBODY: 0}
        self.error: dict[Cell, int] = {NOBODY: 0}
        for cell in product(*map(range, shape)):
            self.decode(cell)

    def decode(self, cell: tuple[int, ...]) -> None:
        z, y, x = cell
        near = neighbours(z, y, x, self.shape)
        v, e = [self.number[one] for one in near], [self.error[one] for one in near]
        size = [abs(one) for one in e]
        ahead = size[UE] + size[US] + size[UW] + size[UN]
        energy = 2 * (size[W] + size[N] + size[U]) + size[NW] + size[NE] + size[WW] + size[NN] + ahead
        looked = (W, N, U, NW, NE, UE, US)
        p = q = 0
        if self.corrections:
            sides = sum(2**i for i, k in enumerate(looked) if e[k])
            place = sum(e[k] != 0 for k in (WW, NN, UW, UN, UNW, UNE, USW, USE, UU))
        else:
            p = self.prediction(z, v)
            sides = sum(2**i for i, k in enumerate(looked) if v[k] > p // 16)
            pair = self.biases[16 * sides + min(15, quarters(energy // 32) // 2)]
            q = p + (pair[0] // pair[1] if pair[1] else 0)
            q = min(max(q, 0), 16 * self.largest)
            place = min(15, quarters(q // 16) // 4)
        top = self.largest.bit_length()
        view = {
            "E": min(39, quarters(5 * energy // 64)), "fraction": (q + 8) % 16, "sides": sides, "place": place,
            "W8": min(9, (size[W] // 8).bit_length()), "N8": min(9, (size[N] // 8).bit_length()),
            "U8": min(9, (size[U] // 8).bit_length()), "A8": min(9, (ahead // 32).bit_length()),
            "W": int(e[W] > 0), "N": int(e[N] > 0), "U": int(e[U] > 0),
        }  # fmt: skip
        residual = self.residual(view, min((energy // 256).bit_length(), top), top)
        number = (q + 8) // 16 + residual
        number = min(max(number, -self.largest if self.corrections else 0), self.largest)
        self.number[z, y, x], self.error[z, y, x] = number, 16 * number - q
        if not self.corrections:
            if pair[1] == 255:
                pair[:] = pair[0] // 2, pair[1] // 2
            pair[0] += 16 * number - p
            pair[1] += 1

    def prediction(self, z: int, v: list[int]) -> int:
        w, n, u = v[W], v[N], v[U]
        reference = (w + n + 2 * u + 2) // 4 if z else (w + n + 1) // 2
        activity = abs(w - v[NW]) + abs(n - v[NW]) + abs(n - v[NE]) + abs(w - v[WW]) + abs(n - v[NN])
        if z:
            activity += sum(abs(u - v[k]) for k in (UW, UE, UN, US))
        row = sum(threshold <= activity for threshold in self.thresholds)
        if not z and self.shape[0] > 1:
            row = len(self.weights) - 1
        weighed = zip(self.weights[row], v[: 16 if z else 6], strict=True)
        return 16 * reference + (sum(weight * (one - reference) for weight, one in weighed) + 128) // 256

    def residual(self, view: dict[str, int], expected: int, top: int) -> int:
        m = max(1, expected)
        if self.at_least(view, m, False):
            n = m
            while n < top and self.at_least(view, n + 1, False):
                n += 1
        else:
            n = next((fewer for fewer in range(m - 1, 0, -1) if self.at_least(view, fewer, True)), 0)
        if not n:
            return 0
        few, g = min(n, 8), view
        contexts = [
            16 * few + g["fraction"], 144 + 128 * few + g["sides"],
            1296 + 16 * few + g["W"] + 2 * g["N"] + 4 * g["U"], 1440 + 40 * few + g["E"],
            1800 + 16 * few + g["place"], 1944 + 20 * few + 2 * g["W8"] + g["W"],
            2124 + 20 * few + 2 * g["U8"] + g["U"],
        ]  # fmt: skip
        positive = self.coder.decision(self.knowledge, [25920 + c for c in contexts], 40 + few)
        rest = 1
        for i in range(n - 1):
            if i > 2:
                rest = 2 * rest + self.coder.bit(32768)
                continue
            d = 8 * min(n, 12) + rest
            contexts = [
                20 * d + g["E"] // 2, 2080 + 2 * d + positive, 2288 + 10 * d + g["W8"],
                3328 + 8 * d + (g["fraction"] // 2 if n < 4 else 0), 4160 + d, 4264 + 8 * d + g["place"] // 2,
                5096 + 10 * d + g["U8"],
            ]  # fmt: skip
            contexts = [28224 + c for c in contexts]
            rest = 2 * rest + self.coder.decision(self.knowledge, contexts, 49 + 13 * i + min(n, 12))
        return rest if positive else -rest

    def at_least(self, g: dict[str, int], m: int, down: bool) -> int:
        a = min(m, 19) + 20 * down
        contexts = [
            40 * a + g["E"], 1600 + 100 * a + 10 * g["W8"] + g["N8"], 5600 + 100 * a + 10 * g["U8"] + g["A8"],
            9600 + 160 * a + 8 * (g["E"] // 2) + g["fraction"] // 2, 16000 + 128 * a + g["sides"],
            21120 + 80 * a + 5 * g["place"] + min(4, g["E"] // 8), 24320 + 40 * a + 4 * g["U8"] + min(3, g["A8"] // 2),
        ]  # fmt: skip
        return self.coder.decision(self.knowledge, contexts, a)


def numbers(reader: Reader, spatial: tuple[int, ...], corrections: bool) -> npt.NDArray[np.int64]:
    shape = (1,) * (3 - len(spatial)) + spatial
    largest, sides = reader.varint(), [reader.varint() for _ in range(3)]
    cells = list(product(*(range(ceil(n / side)) for n, side in zip(shape, sides, strict=True))))
    lengths = [reader.varint() for _ in cells]
    out = np.zeros(shape, np.int64)
    for cell, length in zip(cells, lengths, strict=True):
        stream = reader.take(length)
        box = [(i * side, min((i + 1) * side, n)) for i, side, n in zip(cell, sides, shape, strict=True)]
        if stream or not corrections:
            block = Block(stream, tuple(b - a for a, b in box), largest, corrections)
            for place, number in block.number.items():
                if place is not None:
                    out[tuple(a + i for (a, _), i in zip(box, place, strict=True))] = number
    assert reader.at == len(reader.data)
    return out.reshape(spatial)


def predicted(
    payload: bytes, spatial: tuple[int, ...], dtype: str, minimum: float, maximum: float
) -> npt.NDArray[np.generic]:
    reader = Reader(payload)
    code = reader.take(1)[0]
    kind, listed = code % 4, code // 4
    width = struct.unpack("<d", reader.take(8))[0] if kind == 2 else 0.0
    keys: list[int] = []
    first = zigzag(reader) if listed or kind != 2 else 0
    step = reader.varint() if kind != 2 and not listed else 1
    if listed:
        count, length = reader.varint(), reader.varint()
        gaps = Reader(zlib.decompress(reader.take(length), -15))
        keys = [first]
        for _ in range(count - 1):
            keys.append(keys[-1] + gaps.varint())
        assert gaps.at == len(gaps.data)
    decoded = numbers(reader, spatial, False)
    of_number = {int(n): keys[min(n, len(keys) - 1)] if keys else first + int(n) * step for n in np.unique(decoded)}
    whole = np.vectorize(of_number.__getitem__, otypes=[np.int64])(decoded)
    if kind == 1:
        bits = 8 * int(dtype[1])
        unsigned = np.where(whole >= 2 ** (bits - 1), whole - 2 ** (bits - 1), 2**bits - 1 - whole)
        floats = unsigned.astype(f"u{dtype[1]}").view(dtype)
        within = np.where(floats >= minimum, floats, np.dtype(dtype).type(minimum))
        return np.where(within <= maximum, within, np.dtype(dtype).type(maximum))
    values = whole if kind == 0 else minimum + whole * width
    return np.clip(values, minimum, maximum).astype(dtype)


def correction(payload: bytes, spatial: tuple[int, ...], dtype: str) -> npt.NDArray[np.float64]:
    """By how much every voxel is moved."""
    reader = Reader(payload)
    width = struct.unpack("<d", reader.take(8))[0] if dtype[0] == "f" else reader.varint()
    return numbers(reader, spatial, True) * float(width)

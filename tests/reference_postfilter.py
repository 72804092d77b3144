"""A second decoder of post-filter segments, written from ``docs/format.md`` alone, slowly and in plain numbers."""

from __future__ import annotations

import struct
from itertools import product

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
PLACES = list(product((-1, 0, 1), repeat=3))


def postfiltered(payload: bytes, voxels: Floats) -> Floats:
    scale, last_step, last_bias = struct.unpack_from("<3f", payload)
    v = voxels.reshape((1,) * (3 - voxels.ndim) + voxels.shape).astype(np.float64) / scale
    sides = v.shape

    def near(q: tuple[int, ...]) -> float:
        return float(v[tuple(min(max(a, 0), n - 1) for a, n in zip(q, sides, strict=True))])

    total = np.full(sides, float(last_bias))
    for channel in range((len(payload) - 12) // 48):
        at = 12 + 48 * channel
        step, bias = struct.unpack_from("<2f", payload, at)
        nibbles = [n for byte in payload[at + 8 : at + 48] for n in (byte & 15, byte >> 4)]
        weights = [n - 8 for n in nibbles]
        differences = dict(zip([p for p in PLACES if p != (0, 0, 0)], weights[:26], strict=True))
        compressed, last = (dict(zip(PLACES, weights[a : a + 27], strict=True)) for a in (26, 53))
        hidden = {}
        for p in product(*(range(-1, n + 1) for n in sides)):
            value = 0.0
            for q in PLACES:
                x = near((p[0] + q[0], p[1] + q[1], p[2] + q[2]))
                if q in differences:
                    value += differences[q] * (x - near(p))
                value += compressed[q] * x / (1 + abs(x)) ** 0.75
            hidden[p] = max(0.0, bias + step * value)
        for p in product(*map(range, sides)):
            total[p] += last_step * sum(last[q] * hidden[p[0] + q[0], p[1] + q[1], p[2] + q[2]] for q in PLACES)
    return (scale * (v + total)).reshape(voxels.shape)

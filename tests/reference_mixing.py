"""A second decoder of mixed decisions, written from ``docs/format.md`` alone, slowly and in plain numbers."""

from __future__ import annotations

import math
from copy import deepcopy

STRETCH = [max(-2047, min(2047, math.floor(256 * math.log((i + 0.5) / (4095.5 - i)) + 0.5))) for i in range(4096)]
SQUASH = {
    x: max(16, min(65520, math.floor(65536 / (1 + math.exp(-x / 256)) + 0.5))) for x in range(-2047, 2048)
}  # fmt: skip


class Knowledge:
    """Probabilities, counts and weights."""

    def __init__(self, contexts: int, sets: int, weight: int) -> None:
        self.probability, self.count = [32768] * contexts, [0] * contexts
        self.weights = [[weight] * 7 for _ in range(sets)]

    def copy(self) -> Knowledge:
        return deepcopy(self)


class Stream:
    """The binary coder."""

    def __init__(self, data: bytes) -> None:
        self.data, self.position = data, 4
        self.low, self.high = 0, 2**32 - 1
        self.word = int.from_bytes(data[:4] + bytes(4 - len(data[:4])), "big")

    def bit(self, probability: int) -> int:
        width = self.high - self.low
        middle = self.low + width // 2**16 * probability + width % 2**16 * probability // 2**16
        bit = int(self.word <= middle)
        if bit:
            self.high = middle
        else:
            self.low = middle + 1
        while self.low >> 24 == self.high >> 24:
            following = self.data[self.position] if self.position < len(self.data) else 0
            self.position += 1
            self.low = self.low % 2**24 * 256
            self.high = self.high % 2**24 * 256 + 255
            self.word = self.word % 2**24 * 256 + following
        return bit

    def decision(self, knowledge: Knowledge, contexts: list[int], row: int) -> int:
        weights = knowledge.weights[row]
        stretched = [STRETCH[knowledge.probability[context] // 16] for context in contexts]
        mixed = sum(s * w for s, w in zip(stretched, weights, strict=True)) // 2**16
        chance = SQUASH[max(-2047, min(2047, mixed))]
        bit = self.bit(chance)
        error = 14 * (65536 * bit - chance) // 16
        for i, context in enumerate(contexts):
            weights[i] = max(-(2**24), min(2**24, weights[i] + (stretched[i] * error + 2**15) // 2**16))
            known, count = knowledge.probability[context], knowledge.count[context]
            moved = known + (65535 * bit - known) * (327680 // (5 * count + 8)) // 2**16
            knowledge.probability[context] = max(32, min(65503, moved))
            knowledge.count[context] = min(250, count + 1)
        return bit

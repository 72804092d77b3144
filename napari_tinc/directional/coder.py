"""Context-mixing entropy coding of the blocks of a tile: how they are split, predicted, and their coefficients.

:mod:`napari_tinc.mixing` codes the decisions; ``docs/format.md`` gives all of it to the last bit. One kernel reads and
writes, so that both make the same decisions.
"""

from __future__ import annotations

import numpy as np

from napari_tinc.directional.layout import Layout, Tile
from napari_tinc.directional.prediction import DIRECTIONS, LONGEST, SLOPES, STEEPEST, Rules, push_children
from napari_tinc.kernels import compiled, part
from napari_tinc.mixing import (
    EVEN,
    INPUTS,
    Array,
    Statistics,
    beginning,
    ended,
    get,
    learn,
    opened,
    predict,
    put,
)

# Magnitudes are at most this.
LARGEST = 2**14
_MOST_ONES = 15
# Decisions about blocks. Not plain numbers, which would have numba compile what takes a kind once for each.
_SPLIT, _MATCH, _FAMILY, _TILT, _SIDE, _ANY, _EXTENT = (np.int64(k) for k in (0, 1, 4, 8, 10, 12, 13))
_KINDS = 16
# Contexts of each of their first six inputs; the seventh has one.
_WIDTH = 384
_REGION = 6 * _WIDTH + 1
# Decisions about symbols: is it not 0, not 1, is there another bit; contexts of a kind, and where each input's start.
_SYMBOL_KINDS, _SYMBOL_CONTEXTS = 5, 1304
_STARTS = (0, 216, 256, 536, 648, 712, 1144)
_SYMBOLS = _KINDS * _REGION
_SETS = 3
_CONTEXTS = _SYMBOLS + _SYMBOL_KINDS * _SYMBOL_CONTEXTS
_WEIGHT = 19660
# Sums are looked up to this; a sum is kept times this, plus a code of three faces.
_MOST, _TIMES = np.int64(1023), np.int64(32)


def _steps(*edges: int) -> Array:
    """Lookup of a quantiser of sums 0 … 1023: how many edges are not above the sum."""
    return np.searchsorted(np.array(edges), np.arange(1024), side="right").astype(np.uint8)


_FINE = _steps(1, 2, 4, 6, 9, 13, 20, 32, 64)
_COARSE = _steps(1, 3, 6, 12, 24, 60)
_TOTAL = _steps(1, 2, 3, 5, 7, 10, 14, 19, 26, 36, 50, 70, 100, 160, 300)
_RADIUS = np.array([min(r, 12 + (r >= 16) + (r >= 24) + (r >= 40)) for r in range(94)], np.uint8)
# Bits of a number below 32.
_BITS = np.array([n.bit_length() for n in range(32)], np.uint8)


def fresh() -> Statistics:
    """Know nothing of blocks."""
    return Statistics.fresh(_WEIGHT, _CONTEXTS, _KINDS + _SYMBOL_KINDS * _SETS)


def encode_tile(tile: Tile, layout: Layout, extent: tuple[int, ...], rules: Rules, statistics: Statistics) -> bytes:
    """Return the stream of a tile, of which ``extent`` voxels are inside the volume; ``statistics`` learn from it."""
    room = tile.symbols.size // 8 + 1024
    while True:
        buffer, coder, learnt = np.empty(room, np.uint8), beginning(), statistics.copy()
        _code_tile(
            coder, buffer, learnt.model, False, tile.levels, tile.modes, tile.extents, tile.symbols, layout.codes,
            np.array(extent), rules.steepest,
        )  # fmt: skip
        if coder[2] <= room:
            break
        room = int(coder[2])
    statistics.model[...] = learnt.model
    return ended(buffer[: coder[2]].tobytes(), coder)


def decode_tile(
    stream: bytes, layout: Layout, cell: tuple[int, int, int], rules: Rules, statistics: Statistics
) -> Tile:
    """Invert :func:`encode_tile`. Any bytes decode to something, in bounded time."""
    tile, extent = Tile.empty(layout.padded(cell), layout), np.array(layout.extent(cell))
    data = np.frombuffer(stream, np.uint8).copy()
    _code_tile(
        opened(stream), data, statistics.model, True, tile.levels, tile.modes, tile.extents, tile.symbols,
        layout.codes, extent, rules.steepest,
    )  # fmt: skip
    return tile


@part()
def _decide(coder, data, model, reading, bit):  # type: ignore[no-untyped-def]
    """Read a decision or write it, and learn from it."""
    mixed = predict(model)
    if reading:
        bit = get(coder, data, mixed)
    else:
        put(coder, data, bit, mixed)
    learn(model, bit, mixed)
    return bit


@part()
def _plain(coder, data, reading, bit):  # type: ignore[no-untyped-def]
    """Read or write a bit that nothing is known of."""
    if reading:
        return get(coder, data, EVEN)
    put(coder, data, bit, EVEN)
    return bit


@part()
def _ask(model, kind, a, b, c, d, e, f):  # type: ignore[no-untyped-def]
    """Say which contexts a decision about a block has."""
    start = np.uint64(kind * _REGION)
    contexts = model.contexts
    contexts[0] = start + np.uint64(a)
    contexts[1] = start + np.uint64(_WIDTH + b)
    contexts[2] = start + np.uint64(2 * _WIDTH + c)
    contexts[3] = start + np.uint64(3 * _WIDTH + d)
    contexts[4] = start + np.uint64(4 * _WIDTH + e)
    contexts[5] = start + np.uint64(5 * _WIDTH + f)
    contexts[6] = start + np.uint64(6 * _WIDTH)
    model.row = np.uint64(kind)


@part()
def _family(mode):  # type: ignore[no-untyped-def]
    """Class of a mode: 0 for none, 1 the mean, 2 the blend, 3 to 5 the axis."""
    return mode + 1 if mode < DIRECTIONS else 3 + (mode - DIRECTIONS) // SLOPES**2


@part()
def _straight(mode):  # type: ignore[no-untyped-def]
    return np.int64(mode >= DIRECTIONS and (mode - DIRECTIONS) % SLOPES**2 == SLOPES**2 // 2)


@part()
def _code_mode(coder, data, model, reading, level, known, mode, steepest):  # type: ignore[no-untyped-def]
    """Code a mode: is it one of the neighbours', or else its family and its slopes."""
    west, north, up = known[0, 1], known[1, 1], known[2, 1]
    same = np.int64(west == north) + 2 * np.int64(north == up) + 4 * np.int64(up == west)
    alike = np.int64(known[0, 0] == level) + np.int64(known[1, 0] == level) + np.int64(known[2, 0] == level)
    for i in range(3):
        candidate = known[2 - i, 1]
        if candidate < 0 or (i > 0 and candidate == up) or (i > 1 and candidate == north):
            continue
        family = _family(candidate)
        _ask(
            model, _MATCH + i, 4 * same + level, 4 * family + level, 2 * family + np.int64(known[2 - i, 2] >= 0),
            6 * same + family, 4 * _straight(candidate) + level, 4 * level + alike,
        )  # fmt: skip
        if _decide(coder, data, model, reading, np.int64(mode == candidate)):
            return candidate
    family, i = _family(mode) - 1 if mode >= 0 else 0, 0
    while i < 4:
        _ask(model, _FAMILY + i, level, same, _family(up), _family(north), _family(west), 8 * level + same)
        if _decide(coder, data, model, reading, np.int64(family == i)):
            break
        i += 1
    if i < DIRECTIONS:
        return np.int64(i)
    axis, near = i - DIRECTIONS, np.int64(-1)
    for n in range(3):
        if _family(known[n, 1]) == axis + 3:
            near = known[n, 1] - DIRECTIONS - axis * SLOPES**2
    first = _code_slope(
        coder, data, model, reading, level, same, axis, np.int64(0), near // SLOPES if near >= 0 else np.int64(SLOPES),
        near % SLOPES if near >= 0 else np.int64(SLOPES), (mode - DIRECTIONS) % SLOPES**2 // SLOPES, steepest,
    )  # fmt: skip
    second = _code_slope(
        coder, data, model, reading, level, same, axis, np.int64(1), near % SLOPES if near >= 0 else np.int64(SLOPES),
        first, (mode - DIRECTIONS) % SLOPES, steepest,
    )  # fmt: skip
    return DIRECTIONS + axis * SLOPES**2 + first * SLOPES + second


@part()
def _code_slope(  # type: ignore[no-untyped-def]
    coder, data, model, reading, level, same, axis, number, near, other, slope, steepest
):
    """Code a slope: how steep, then to which side."""
    steep = abs(slope - STEEPEST)
    i = 0
    while i < steepest:
        place = STEEPEST * axis + i
        _ask(
            model, _TILT + number, place, 16 * place + near, 16 * i + other, 21 * level + place, 16 * near + other,
            8 * i + same,
        )  # fmt: skip
        if not _decide(coder, data, model, reading, np.int64(steep > i)):
            break
        i += 1
    if i == 0:
        return np.int64(STEEPEST)
    _ask(
        model, _SIDE + number, axis, 16 * axis + near, 16 * axis + other, 3 * level + axis, 16 * near + other, i
    )  # fmt: skip
    return STEEPEST + i if _decide(coder, data, model, reading, np.int64(slope > STEEPEST)) else STEEPEST - i


@part()
def _code_extents(coder, data, model, reading, level, codes, known, family, box):  # type: ignore[no-untyped-def]
    """Code whether a block has symbols that are not 0, and the box that has them all; it replaces ``box``."""
    present, used = np.int64(0), np.int64(0)
    for n in range(3):
        present += known[n, 0] >= 0
        used += known[n, 2] >= 0
    counts = 4 * used + present
    _ask(
        model, _ANY, 6 * level + family, counts, 16 * level + counts, 4 * family + used, present,
        np.int64(known[0, 2] >= 0) + 2 * np.int64(known[1, 2] >= 0) + 4 * np.int64(known[2, 2] >= 0),
    )  # fmt: skip
    if not _decide(coder, data, model, reading, np.int64(box[0] >= 0)):
        box[0] = -1
        return
    first, second = np.int64(0), np.int64(0)
    for axis in range(3):
        most = codes[level, axis]
        expected, seen = np.int64(0), np.int64(0)
        for n in range(3):
            if known[n, 2] >= 0:
                expected += max(np.int64(0), known[n, 2 + axis] + most - codes[known[n, 0], axis])
                seen += 1
        near = min(np.int64(6), (2 * expected + seen) // (2 * seen)) if seen else np.int64(7)
        i, sum_before = np.int64(0), min(np.int64(15), first + second)
        while i < most:
            _ask(
                model, _EXTENT + axis, 5 * most + i, 8 * i + near, 49 * np.int64(i > 0) + 7 * first + second,
                16 * i + sum_before, 16 * near + sum_before, 4 * (6 * i + family) + used,
            )  # fmt: skip
            if not _decide(coder, data, model, reading, np.int64(box[axis] > i)):
                break
            i += 1
        box[axis] = i
        if axis == 0:
            first = i + 1
        else:
            second = i + 1


@part()
def _tell(ahead, spread, size, p, row, plane, origin, i, j, k, code, across, layer):  # type: ignore[no-untyped-def]
    """Add a magnitude to the sums of its block's places to come, and to what other blocks will see beside them."""
    one, two = np.uint64(1), np.uint64(2)
    size = min(size, _MOST)
    face = min(size, np.int64(2))
    ahead[p + one] += _TIMES * 3 * size + face
    ahead[p + row] += _TIMES * 3 * size + 3 * face
    ahead[p + plane] += _TIMES * 3 * size + 9 * face
    for q in (p + two, p + two * row, p + two * plane):
        ahead[q] += _TIMES * size
    for q in (p + row + one, p + row - one, p + plane + one, p + plane - one, p + plane + row, p + plane - row):
        ahead[q] += _TIMES * 2 * size
    q = origin + np.uint64(i) * layer + np.uint64(j) * across + np.uint64(k)
    spread[q] += 2 * size
    if i > 0:
        spread[q - layer] += size
    if j > 0:
        spread[q - across] += size
    if k > 0:
        spread[q - one] += size
    if i + 1 < 1 << code[0]:
        spread[q + layer] += size
    if j + 1 < 1 << code[1]:
        spread[q + across] += size
    if k + 1 < 1 << code[2]:
        spread[q + one] += size


@part()
def _nearest(place, mine, theirs):  # type: ignore[no-untyped-def]
    """Find the frequency of a block of another length that is nearest below."""
    return np.uint64(place << (theirs - mine) if theirs >= mine else place >> (mine - theirs))


@part()
def _code_symbols(  # type: ignore[no-untyped-def]
    coder, data, model, reading, symbols, codes, known, level, z, y, x, box, ahead, spread, theirs
):
    """Code the symbols of a block."""
    code = codes[level]
    depth, height, width = 1 << box[0], 1 << box[1], 1 << box[2]
    row = np.uint64(width + 3)
    plane = np.uint64(height + 3) * row
    ahead[: np.uint64(depth + 2) * plane] = 0
    across = np.uint64(symbols.shape[2])
    layer = np.uint64(symbols.shape[1]) * across
    origin = np.uint64(z) * layer + np.uint64(y) * across + np.uint64(x)
    # Blocks at the faces that have symbols: where theirs begin, and their code.
    seen = 0
    for n in range(3):
        if known[n, 2] >= 0:
            theirs[seen, 0] = (known[n, 5] * symbols.shape[1] + known[n, 6]) * symbols.shape[2] + known[n, 7]
            for axis in range(3):
                theirs[seen, 1 + axis] = codes[known[n, 0], axis]
            seen += 1
    start, contexts = np.uint64(_SYMBOLS), model.contexts
    level_start = np.uint64(_STARTS[1] + 10 * level)
    for i in range(depth):
        for j in range(height):
            place = np.uint64(36) * np.uint64(_BITS[i]) + np.uint64(6) * np.uint64(_BITS[j])
            late_before = np.uint64(2 * (i + 1) > depth) + np.uint64(2 * (j + 1) > height)
            for n in range(seen):
                theirs[n, 4] = (
                    np.uint64(theirs[n, 0]) + _nearest(i, code[0], theirs[n, 1]) * layer
                    + _nearest(j, code[1], theirs[n, 2]) * across
                )  # fmt: skip
            for k in range(width):
                p = np.uint64(i) * plane + np.uint64(j + 1) * row + np.uint64(k + 1)
                beside = np.int64(0)
                for n in range(seen):
                    beside += spread[np.uint64(theirs[n, 4]) + _nearest(k, code[2], theirs[n, 3])]
                known_ahead = np.int64(ahead[p])
                same, faces = known_ahead >> 5, np.uint64(known_ahead & 31)
                radius = np.uint64(_RADIUS[i + j + k])
                fine, coarse = np.uint64(_FINE[min(same, _MOST)]), np.uint64(_COARSE[min(beside, _MOST)])
                total = np.uint64(_TOTAL[min(same + 2 * beside, _MOST)])
                late = late_before + np.uint64(2 * (k + 1) > width)
                contexts[0] = start + place + np.uint64(_BITS[k])
                contexts[1] = start + level_start + fine
                contexts[2] = start + np.uint64(_STARTS[2]) + np.uint64(4) * (np.uint64(7) * fine + coarse) + late
                contexts[3] = start + np.uint64(_STARTS[3]) + np.uint64(16) * coarse + radius
                contexts[4] = start + np.uint64(_STARTS[4] + level) + np.uint64(4) * total
                contexts[5] = start + np.uint64(_STARTS[5]) + np.uint64(27) * radius + faces
                contexts[6] = start + np.uint64(_STARTS[6]) + np.uint64(10) * radius + fine
                model.row = np.uint64(_KINDS) + np.uint64(total >= 4) + np.uint64(total >= 9)
                symbol = _code_symbol(coder, data, model, reading, np.int64(symbols[z + i, y + j, x + k]))
                if symbol:
                    symbols[z + i, y + j, x + k] = symbol
                    _tell(ahead, spread, abs(symbol), p, row, plane, origin, i, j, k, code, across, layer)


@part()
def _code_symbol(coder, data, model, reading, symbol):  # type: ignore[no-untyped-def]
    """Code a symbol: is it 0, is its magnitude 1, an Elias-gamma code of the rest, its sign."""
    magnitude, ones = abs(symbol), 0
    while ones < _MOST_ONES:
        bit = np.int64(magnitude > ones if ones < 2 else (magnitude - 1) >> (ones - 1) > 0)
        if not _decide(coder, data, model, reading, bit):
            break
        ones += 1
        if ones < _SYMBOL_KINDS:
            for n in range(INPUTS):
                model.contexts[n] += np.uint64(_SYMBOL_CONTEXTS)
            model.row += np.uint64(_SETS)
    if ones == 0:
        return np.int64(0)
    decoded = np.int64(1)
    if ones > 1:
        for position in range(ones - 3, -1, -1):
            decoded = 2 * decoded + _plain(coder, data, reading, ((magnitude - 1) >> position) & 1)
        decoded += 1
    return -decoded if _plain(coder, data, reading, np.int64(symbol < 0)) else decoded


@part()
def _know(known, levels, modes, extents, codes, z, y, x):  # type: ignore[no-untyped-def]
    """Gather level, mode, extents and origin of the blocks at the low end of x, y and z; -1 where there is none."""
    smallest = codes[len(codes) - 1]
    for n in range(3):
        a, b, c = z - np.int64(n == 2), y - np.int64(n == 1), x - np.int64(n == 0)
        known[n] = -1
        if a < 0 or b < 0 or c < 0:
            continue
        place = a >> smallest[0], b >> smallest[1], c >> smallest[2]
        level = np.int64(levels[place])
        known[n, 0], known[n, 1] = level, modes[place]
        known[n, 2], known[n, 3], known[n, 4] = extents[place][0], extents[place][1], extents[place][2]
        known[n, 5] = a >> codes[level, 0] << codes[level, 0]
        known[n, 6] = b >> codes[level, 1] << codes[level, 1]
        known[n, 7] = c >> codes[level, 2] << codes[level, 2]


@part()
def _code_split(coder, data, model, reading, level, known, split):  # type: ignore[no-untyped-def]
    deeper, used, state = np.int64(0), np.int64(0), np.int64(0)
    for n in range(2, -1, -1):
        deeper += known[n, 0] > level
        used += known[n, 2] >= 0
        state = 3 * state + (2 if known[n, 0] > level else 1 if known[n, 0] >= 0 else 0)
    west, north, up = _family(known[0, 1]), _family(known[1, 1]), _family(known[2, 1])
    _ask(
        model, _SPLIT, 4 * level + deeper, 27 * level + state, 6 * level + up, 4 * level + used, 6 * west + north, level
    )  # fmt: skip
    return _decide(coder, data, model, reading, split)


@compiled
def _code_tile(  # type: ignore[no-untyped-def]
    coder, data, models, reading, levels, modes, extents, symbols, codes, inside, steepest
):
    """Read all blocks of a tile, or write them."""
    model = models[0]
    deepest, smallest = len(codes) - 1, codes[len(codes) - 1]
    known, box = np.empty((3, 8), np.int64), np.empty(3, np.int64)
    # Sums of magnitudes: before a symbol in its block, as 32 times the sum plus a code of three faces; and by place of
    # the tile, around the same frequency of another block.
    ahead, spread = np.zeros((LONGEST + 3) ** 3, np.int32), np.zeros(symbols.size, np.int16)
    theirs = np.empty((3, 5), np.int64)
    stack = np.empty((8 * len(codes) + 1, 4), np.int64)
    for root_z in range(0, symbols.shape[0], 1 << codes[0, 0]):
        for root_y in range(0, symbols.shape[1], 1 << codes[0, 1]):
            for root_x in range(0, symbols.shape[2], 1 << codes[0, 2]):
                stack[0] = 0, root_z, root_y, root_x
                waiting = 1
                while waiting:
                    waiting -= 1
                    level, z, y, x = stack[waiting]
                    if z >= inside[0] or y >= inside[1] or x >= inside[2]:
                        continue
                    a, b, c = z >> smallest[0], y >> smallest[1], x >> smallest[2]
                    _know(known, levels, modes, extents, codes, z, y, x)
                    if level < deepest:
                        split = np.int64(levels[a, b, c] > level)
                        if _code_split(coder, data, model, reading, level, known, split):
                            waiting = push_children(stack, waiting, codes, level, z, y, x)
                            continue
                    mode = _code_mode(coder, data, model, reading, level, known, np.int64(modes[a, b, c]), steepest)
                    for n in range(3):
                        box[n] = extents[a, b, c, n]
                    _code_extents(coder, data, model, reading, level, codes, known, _family(mode), box)
                    if box[0] >= 0:
                        _code_symbols(
                            coder, data, model, reading, symbols, codes, known, level, z, y, x, box, ahead, spread,
                            theirs,
                        )  # fmt: skip
                    if reading:
                        for i in range(a, a + (1 << (codes[level, 0] - smallest[0]))):
                            for j in range(b, b + (1 << (codes[level, 1] - smallest[1]))):
                                for k in range(c, c + (1 << (codes[level, 2] - smallest[2]))):
                                    levels[i, j, k], modes[i, j, k] = level, mode
                                    for n in range(3):
                                        extents[i, j, k, n] = box[n]


__all__ = ["LARGEST", "decode_tile", "encode_tile", "fresh"]

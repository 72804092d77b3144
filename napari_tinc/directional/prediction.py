"""What a block is expected to be from its neighbours that are already decoded, and how the transform corrects it.

A block sees three **faces**: the voxels beside it at its low end along z, y and x. It is predicted by the mean of its
faces, by a smooth blend of them, or by one face that is continued through it along a direction: an edge, a sheet or a
tube goes on as it came. Intra prediction of video coding (Lainema et al., *Intra Coding of the HEVC Standard*, 2012)
with a direction in space: along z it does what displaced blocks of the plane before do there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from napari_tinc.directional.layout import Layout, Tile
from napari_tinc.kernels import compiled, part
from napari_tinc.mixing import Array

# Modes: the mean, the blend, and by axis and its two slopes, numbered from the most negative up, the directions.
MEAN, SMOOTH, DIRECTIONS = 0, 1, 2
STEEPEST = 7
SLOPES = 2 * STEEPEST + 1
MODES = DIRECTIONS + 3 * SLOPES**2
# Faces of blocks at least this long are smoothed: what noise they have would become stripes.
SMOOTHED = 8
LONGEST = 32
# How far beyond a block a direction may look back, and the neighbours that smoothing needs.
_MOST_MARGIN = 2 * LONGEST + 2
FACE = LONGEST + 2 * _MOST_MARGIN
# Of what a direction misses beside a block: the share that is added to the first voxel inside, the factor from one
# voxel to the next, and how many get some.
_CARRIED, _LESS, _REACH = np.float32(0.3), np.float32(0.35), 4


@dataclass(frozen=True, eq=False)
class Rules:
    """How blocks are predicted and corrected: files keep the rules of their time.

    Parameters
    ----------
    code : int
        Stands for them in a file.
    slopes : ndarray of int64, shape (SLOPES,)
        By number, in eighths of a voxel a step.
    carries : bool
        Whether what a direction misses beside a block is made up for within it, see :func:`carry`.
    kinds : ndarray of int64, shape (5, 3)
        Of a block's bases, by its family and the axis: 0 cosines, 1 sines. Families are the mean, the blend, and the
        directions along the three axes.
    """

    code: int
    slopes: Array
    carries: bool
    kinds: Array

    @property
    def steepest(self) -> int:
        """How many slopes there are on either side of none."""
        return int(np.count_nonzero(self.slopes)) // 2


def _slopes(*above: int) -> Array:
    """Place slopes around none; numbers that stand for no slope get 0."""
    table = np.zeros(SLOPES, np.int64)
    for number, slope in enumerate(above, 1):
        table[STEEPEST + number], table[STEEPEST - number] = slope, -slope
    return table


# Sines where the error of a prediction grows with the distance from a face (Yeo et al., *Mode-Dependent Transforms for
# Coding Directional Intra Prediction Residuals*, IEEE Trans. Circuits and Systems for Video Technology 22, 2012).
_NOWHERE, _BLENDED = np.zeros(3, np.int64), np.ones(3, np.int64)
_OLDEST = Rules(0, _slopes(4, 8, 12, 16), False, np.zeros((5, 3), np.int64))
_SECOND = Rules(2, _OLDEST.slopes, False, np.stack([_NOWHERE, _BLENDED, *np.eye(3, dtype=np.int64)]))
_PLAIN = Rules(1, _slopes(1, 2, 3, 4, 6, 8, 16), False, np.stack([_NOWHERE, *[_BLENDED] * 4]))
_CARRYING = replace(_PLAIN, code=3, carries=True)
RULES = {rules.code: rules for rules in (_OLDEST, _PLAIN, _SECOND, _CARRYING)}
# What an encoder chooses from.
LATEST = (_CARRYING, _PLAIN)


def _bases() -> tuple[Array, Array]:
    """Orthonormal cosines, and sines that start at 0 one place before the first.

    By logarithm of their number, frequency and place: DCT-II and DST-VII.
    """
    cosines, sines = np.zeros((2, 6, LONGEST, LONGEST), np.float32)
    for code in range(6):
        n = 2**code
        for k in range(n):
            gain = math.sqrt((1 if k == 0 else 2) / n)
            cosines[code, k, :n] = [gain * math.cos(math.pi * (i + 0.5) * k / n) for i in range(n)]
            gain, turns = 2 / math.sqrt(2 * n + 1), (2 * k + 1) / (2 * n + 1)
            sines[code, k, :n] = [gain * math.sin(math.pi * (i + 1) * turns) for i in range(n)]
    return cosines, sines


BASES = np.stack(_bases())
TURNED_BASES = np.ascontiguousarray(BASES.swapaxes(2, 3))


def rebuild(
    tile: Tile, layout: Layout, extent: tuple[int, ...], rules: Rules, step: float, first: float, others: float
) -> Array:
    """Decode a tile.

    Parameters
    ----------
    tile : Tile
    layout : Layout
    extent : tuple of int
        Voxels of the tile that are inside the volume.
    rules : Rules
    step, first, others : float
        What symbols stand for: ``first`` for magnitude 1, ``step`` times the magnitude less ``others`` beyond.

    Returns
    -------
    ndarray of float32, shape of ``extent``
    """
    values = np.zeros(tile.symbols.shape, np.float32)
    _rebuild(
        values, tile.levels, tile.modes, tile.extents, tile.symbols, layout.codes, np.array(extent),
        rules.slopes, rules.carries, rules.kinds, BASES, np.float32(step), np.float32(first), np.float32(others),
    )  # fmt: skip
    return values[tuple(slice(0, n) for n in extent)]


@part()
def fill_layer(values, z, depth):  # type: ignore[no-untyped-def]
    """Let the root blocks of a layer start as the plane before it: what faces see of blocks still to come."""
    if z > 0:
        for i in range(z, z + depth):
            for j in range(values.shape[1]):
                for k in range(values.shape[2]):
                    values[i, j, k] = values[z - 1, j, k]


@part()
def look(values, axis, z, y, x, depth, height, width, margin, reach, face):  # type: ignore[no-untyped-def]
    """Copy a face and what is around it; no further than the tile, nor behind the block along axes not yet passed."""
    last_z = values.shape[0] - 1 if axis == 0 else z + depth - 1
    last_y = y + height - 1 if axis == 2 else values.shape[1] - 1
    low_u, high_u, low_v, high_v = reach
    if axis == 2:
        for u in range(low_u, high_u):
            row, i = face[u + margin], max(0, min(z + u, last_z))
            for v in range(low_v, high_v):
                row[v + margin] = values[i, max(0, min(y + v, last_y)), max(x - 1, 0)]
        return
    # Within the tile whole rows are copied, beyond it their ends.
    left, right = min(high_v, max(low_v, -x)), max(low_v, min(high_v, values.shape[2] - x))
    for u in range(low_u, high_u):
        row = face[u + margin]
        if axis == 0:
            line = values[max(z - 1, 0), max(0, min(y + u, last_y))]
        else:
            line = values[max(0, min(z + u, last_z)), max(y - 1, 0)]
        row[low_v + margin : left + margin] = line[0]
        for v in range(left, right):
            row[v + margin] = line[x + v]
        row[right + margin : high_v + margin] = line[values.shape[2] - 1]


@part()
def smooth(face, margin, reach, smoothed):  # type: ignore[no-untyped-def]
    """Average a face with what is around it; ``smoothed`` has all but its edge."""
    low_u, high_u, low_v, high_v = reach
    for u in range(low_u + margin + 1, high_u + margin - 1):
        above, line, below, out = face[u - 1], face[u], face[u + 1], smoothed[u]
        for v in range(low_v + margin + 1, high_v + margin - 1):
            out[v] = np.float32(0.5) * line[v] + np.float32(0.125) * (above[v] + below[v] + line[v - 1] + line[v + 1])


@part()
def slide(face, margin, first, second, before, rows, columns, plane):  # type: ignore[no-untyped-def]
    """Move a face, by eighths of a voxel: what is straight beside the block, and ``before`` more at the low ends."""
    u0, v0 = margin - before + (first >> 3), margin - before + (second >> 3)
    below, right = np.float32(first & 7) / np.float32(8), np.float32(second & 7) / np.float32(8)
    above, left = np.float32(1) - below, np.float32(1) - right
    rows, columns = rows + before, columns + before
    if below == 0 and right == 0:
        for u in range(rows):
            for v in range(columns):
                plane[u, v] = face[u0 + u, v0 + v]
    elif below == 0:
        for u in range(rows):
            for v in range(columns):
                plane[u, v] = left * face[u0 + u, v0 + v] + right * face[u0 + u, v0 + v + 1]
    elif right == 0:
        for u in range(rows):
            for v in range(columns):
                plane[u, v] = above * face[u0 + u, v0 + v] + below * face[u0 + u + 1, v0 + v]
    else:
        for u in range(rows):
            for v in range(columns):
                upper = left * face[u0 + u, v0 + v] + right * face[u0 + u, v0 + v + 1]
                lower = left * face[u0 + u + 1, v0 + v] + right * face[u0 + u + 1, v0 + v + 1]
                plane[u, v] = above * upper + below * lower


@part()
def carry(values, axis, d, z, y, x, rows, columns, plane):  # type: ignore[no-untyped-def]
    """Make up for what a direction misses beside a block, at its other two faces: fully seen, and the same nearby.

    Position-dependent combination of predictions (Pfaff et al., *Intra Prediction and Mode Coding in VVC*, IEEE Trans.
    Circuits and Systems for Video Technology 31, 2021). ``plane`` has one row and one column before the block.
    """
    if (y if axis == 0 else z) > 0:
        for v in range(columns):
            if axis == 0:
                seen = values[z + d, y - 1, x + v]
            elif axis == 1:
                seen = values[z - 1, y + d, x + v]
            else:
                seen = values[z - 1, y + v, x + d]
            missed = _CARRIED * (seen - plane[0, v + 1])
            for u in range(min(rows, _REACH)):
                plane[u + 1, v + 1] += missed
                missed *= _LESS
    if (y if axis == 2 else x) > 0:
        for u in range(rows):
            if axis == 0:
                seen = values[z + d, y + u, x - 1]
            elif axis == 1:
                seen = values[z + u, y + d, x - 1]
            else:
                seen = values[z + u, y - 1, x + d]
            missed = _CARRIED * (seen - plane[u + 1, 0])
            for v in range(min(columns, _REACH)):
                plane[u + 1, v + 1] += missed
                missed *= _LESS


@part()
def extend(  # type: ignore[no-untyped-def]
    values, z, y, x, code, mode, slopes, carries, face, smoothed, plane, out
):
    """Predict a block along a direction: every plane is the face, shifted by its slopes more than the one before."""
    axis, number = (mode - DIRECTIONS) // SLOPES**2, (mode - DIRECTIONS) % SLOPES**2
    first, second = slopes[number // SLOPES], slopes[number % SLOPES]
    thickness, rows, columns, margin = _sides(code, axis)
    low_u, high_u = _reach(first, thickness, rows)
    low_v, high_v = _reach(second, thickness, columns)
    seen = _seen(values, z, y, x, code, axis, margin, (low_u, high_u, low_v, high_v), face, smoothed)
    for d in range(thickness):
        slide(seen, margin, -(d + 1) * first, -(d + 1) * second, 1, rows, columns, plane)
        if carries:
            carry(values, axis, d, z, y, x, rows, columns, plane)
        for u in range(rows):
            for v in range(columns):
                if axis == 0:
                    out[d, u, v] = plane[u + 1, v + 1]
                elif axis == 1:
                    out[u, d, v] = plane[u + 1, v + 1]
                else:
                    out[u, v, d] = plane[u + 1, v + 1]


@part()
def _sides(code, axis):  # type: ignore[no-untyped-def]
    """Thickness of a block along an axis, the sides of its face, and the margin around this."""
    thickness = 1 << code[axis]
    return thickness, 1 << code[1 if axis == 0 else 0], 1 << code[1 if axis == 2 else 2], 2 * thickness + 2


@part()
def _reach(slope, thickness, side):  # type: ignore[no-untyped-def]
    """Where a direction reaches along a side of a face, and one more on either side to smooth it."""
    near, far = -slope >> 3, -thickness * slope >> 3
    return min(near, far) - 2, side + max(near, far) + 2


@part()
def _seen(values, z, y, x, code, axis, margin, reach, face, smoothed):  # type: ignore[no-untyped-def]
    """Look at the face along an axis, as far as needed; blocks that are long see it smoothed."""
    depth, height, width = 1 << code[0], 1 << code[1], 1 << code[2]
    look(values, axis, z, y, x, depth, height, width, margin, reach, face)
    if max(depth, max(height, width)) < SMOOTHED:
        return face
    smooth(face, margin, reach, smoothed)
    return smoothed


@part()
def face_of(values, z, y, x, code, axis, face, smoothed):  # type: ignore[no-untyped-def]
    """Look at a face for every direction along an axis: thickness of the block, sides of the face, margin, the face."""
    thickness, rows, columns, margin = _sides(code, axis)
    reach = -margin, rows + margin, -margin, columns + margin
    return thickness, rows, columns, margin, _seen(values, z, y, x, code, axis, margin, reach, face, smoothed)


@part()
def blend(values, mode, z, y, x, depth, height, width, out):  # type: ignore[no-untyped-def]
    """Predict a block by the mean of its faces, or by all three, each the more the nearer it is; 0 without any."""
    if mode == MEAN:
        total, count = np.float32(0), 0
        if z > 0:
            count += height * width
            for j in range(height):
                for k in range(width):
                    total += values[z - 1, y + j, x + k]
        if y > 0:
            count += depth * width
            for i in range(depth):
                for k in range(width):
                    total += values[z + i, y - 1, x + k]
        if x > 0:
            count += depth * height
            for i in range(depth):
                for j in range(height):
                    total += values[z + i, y + j, x - 1]
        mean = total / np.float32(max(count, 1))
        for i in range(depth):
            for j in range(height):
                for k in range(width):
                    out[i, j, k] = mean
        return
    one = np.float32(1)
    for i in range(depth):
        for j in range(height):
            for k in range(width):
                total, weight = np.float32(0), np.float32(0)
                if z > 0:
                    total += values[z - 1, y + j, x + k] / np.float32(i + 1)
                    weight += one / np.float32(i + 1)
                if y > 0:
                    total += values[z + i, y - 1, x + k] / np.float32(j + 1)
                    weight += one / np.float32(j + 1)
                if x > 0:
                    total += values[z + i, y + j, x - 1] / np.float32(k + 1)
                    weight += one / np.float32(k + 1)
                out[i, j, k] = total / weight if weight > 0 else np.float32(0)


@part()
def turn(basis, source, out, axis, depth, height, width, size):  # type: ignore[no-untyped-def]
    """Multiply along an axis: ``size`` samples from as many as ``source`` has there, which has this shape."""
    if axis == 0:
        for n in range(size):
            for j in range(height):
                for k in range(width):
                    out[n, j, k] = 0
            for t in range(depth):
                weight = basis[t, n]
                for j in range(height):
                    for k in range(width):
                        out[n, j, k] += weight * source[t, j, k]
    elif axis == 1:
        for i in range(depth):
            for n in range(size):
                for k in range(width):
                    out[i, n, k] = 0
                for t in range(height):
                    weight = basis[t, n]
                    for k in range(width):
                        out[i, n, k] += weight * source[i, t, k]
    else:
        for i in range(depth):
            for j in range(height):
                for n in range(size):
                    out[i, j, n] = 0
                for t in range(width):
                    weight = source[i, j, t]
                    for n in range(size):
                        out[i, j, n] += weight * basis[t, n]


@part()
def family_of(mode):  # type: ignore[no-untyped-def]
    """Number of what a mode does: 0 the mean, 1 the blend, 2 to 4 the axis of a direction."""
    return mode if mode < DIRECTIONS else DIRECTIONS + (mode - DIRECTIONS) // SLOPES**2


@part()
def synthesise(bases, kinds, codes, box, values, spare):  # type: ignore[no-untyped-def]
    """Turn a block of coefficients, 0 outside of a box, into voxels, in place."""
    depth, height, width = 1 << codes[0], 1 << codes[1], 1 << codes[2]
    a, b, c = 1 << box[0], 1 << box[1], 1 << box[2]
    turn(bases[kinds[2], codes[2]], values, spare, 2, a, b, c, width)
    turn(bases[kinds[1], codes[1]], spare, values, 1, a, b, width, height)
    turn(bases[kinds[0], codes[0]], values, spare, 0, a, height, width, depth)
    for i in range(depth):
        for j in range(height):
            for k in range(width):
                values[i, j, k] = spare[i, j, k]


@compiled
def _rebuild(  # type: ignore[no-untyped-def]
    values, levels, modes, extents, symbols, codes, inside, slopes, carries, kinds, bases, step, first, others
):
    face, plane = np.empty((FACE, FACE), np.float32), np.empty((LONGEST + 1, LONGEST + 1), np.float32)
    smoothed = np.zeros_like(face)
    predicted = np.empty((LONGEST, LONGEST, LONGEST), np.float32)
    block, spare = np.empty_like(predicted), np.empty_like(predicted)
    smallest, deepest = codes[len(codes) - 1], len(codes) - 1
    stack = np.empty((8 * len(codes) + 1, 4), np.int64)
    for root_z in range(0, values.shape[0], 1 << codes[0, 0]):
        fill_layer(values, root_z, 1 << codes[0, 0])
        for root_y in range(0, values.shape[1], 1 << codes[0, 1]):
            for root_x in range(0, values.shape[2], 1 << codes[0, 2]):
                stack[0] = 0, root_z, root_y, root_x
                height_of_stack = 1
                while height_of_stack:
                    height_of_stack -= 1
                    level, z, y, x = stack[height_of_stack]
                    if z >= inside[0] or y >= inside[1] or x >= inside[2]:
                        continue
                    place = z >> smallest[0], y >> smallest[1], x >> smallest[2]
                    if level < deepest and levels[place] > level:
                        height_of_stack = push_children(stack, height_of_stack, codes, level, z, y, x)
                        continue
                    depth, height, width = 1 << codes[level, 0], 1 << codes[level, 1], 1 << codes[level, 2]
                    mode = np.int64(modes[place])
                    if mode < DIRECTIONS:
                        blend(values, mode, z, y, x, depth, height, width, predicted)
                    else:
                        extend(
                            values, z, y, x, codes[level], mode, slopes, carries, face, smoothed, plane, predicted
                        )  # fmt: skip
                    box = extents[place]
                    if box[0] >= 0:
                        for i in range(1 << box[0]):
                            for j in range(1 << box[1]):
                                for k in range(1 << box[2]):
                                    symbol = np.int64(symbols[z + i, y + j, x + k])
                                    size = np.float32(0)
                                    if symbol:
                                        size = first if abs(symbol) == 1 else abs(symbol) * step - others
                                    block[i, j, k] = size if symbol > 0 else -size
                        synthesise(bases, kinds[family_of(mode)], codes[level], box, block, spare)
                    for i in range(depth):
                        for j in range(height):
                            for k in range(width):
                                moved = block[i, j, k] if box[0] >= 0 else np.float32(0)
                                values[z + i, y + j, x + k] = predicted[i, j, k] + moved


@part()
def push_children(stack, count, codes, level, z, y, x):  # type: ignore[no-untyped-def]
    """Put the children of a block on a stack, the last one first, so that they come off in their order."""
    below = codes[level + 1]
    for i in range((1 << (codes[level, 0] - below[0])) - 1, -1, -1):
        for j in range((1 << (codes[level, 1] - below[1])) - 1, -1, -1):
            for k in range((1 << (codes[level, 2] - below[2])) - 1, -1, -1):
                stack[count, 0] = level + 1
                stack[count, 1], stack[count, 2] = z + (i << below[0]), y + (j << below[1])
                stack[count, 3] = x + (k << below[2])
                count += 1
    return count


__all__ = [
    "BASES", "DIRECTIONS", "FACE", "LATEST", "LONGEST", "MEAN", "MODES", "RULES", "SLOPES", "SMOOTH", "STEEPEST",
    "TURNED_BASES", "Rules", "blend", "extend", "face_of", "family_of", "fill_layer", "push_children", "rebuild",
    "slide", "synthesise", "turn",
]  # fmt: skip

"""What a block is expected to be from its neighbours that are already decoded, and how the transform corrects it.

A block sees three **faces**: the voxels beside it at its low end along z, y and x. It is predicted by the mean of its
faces, by a smooth blend of them, or by one face that is continued through it along a direction: an edge, a sheet or a
tube goes on as it came. Intra prediction of video coding (Lainema et al., *Intra Coding of the HEVC Standard*, 2012)
with a direction in space: along z it does what displaced blocks of the plane before do there.
"""

from __future__ import annotations

import math

import numpy as np

from napari_tinc.directional.layout import Layout, Tile
from napari_tinc.kernels import compiled, part
from napari_tinc.mixing import Array

# Modes: the mean, the blend, and by axis and its two slopes, in half voxels a step, the directions.
MEAN, SMOOTH, DIRECTIONS = 0, 1, 2
STEEPEST = 4
SLOPES = 2 * STEEPEST + 1
MODES = DIRECTIONS + 3 * SLOPES**2
# Faces of blocks at least this long are smoothed: what noise they have would become stripes.
SMOOTHED = 8
LONGEST = 32
# How far beyond a block a direction may look back, and the neighbours that smoothing needs.
MOST_MARGIN = STEEPEST // 2 * LONGEST + 1
_FACE = LONGEST + 2 * MOST_MARGIN


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


_COSINES, _SINES = _bases()
# Of what a prediction leaves over where it says the less the farther from a face, see `basis_of`, and of the rest.
# Older files know nothing but cosines.
BASES, OLDER_BASES = np.stack([_COSINES, _SINES]), np.stack([_COSINES, _COSINES])
TURNED_BASES = np.ascontiguousarray(BASES.swapaxes(2, 3))


def rebuild(
    tile: Tile, layout: Layout, extent: tuple[int, ...], sines: bool, step: float, first: float, others: float
) -> Array:
    """Decode a tile.

    Parameters
    ----------
    tile : Tile
    layout : Layout
    extent : tuple of int
        Voxels of the tile that are inside the volume.
    sines : bool
        Whether blocks are corrected by sines, too.
    step, first, others : float
        What symbols stand for: ``first`` for magnitude 1, ``step`` times the magnitude less ``others`` beyond.

    Returns
    -------
    ndarray of float32, shape of ``extent``
    """
    values = np.zeros(tile.symbols.shape, np.float32)
    _rebuild(
        values, tile.levels, tile.modes, tile.extents, tile.symbols, layout.codes, np.array(extent),
        BASES if sines else OLDER_BASES, np.float32(step), np.float32(first), np.float32(others),
    )  # fmt: skip
    return values[tuple(slice(0, n) for n in extent)]


@part()
def fill_layer(values, z, depth):  # type: ignore[no-untyped-def]
    """Let the root blocks of a layer start as the plane before it: what faces see of blocks still to come."""
    if z > 0:
        for i in range(z, z + depth):
            values[i] = values[z - 1]


@part()
def look(values, axis, z, y, x, depth, height, width, margin, face):  # type: ignore[no-untyped-def]
    """Copy a face and what is around it; no further than the tile, nor behind the block along axes not yet passed."""
    last_z = values.shape[0] - 1 if axis == 0 else z + depth - 1
    last_y = y + height - 1 if axis == 2 else values.shape[1] - 1
    last_x = values.shape[2] - 1
    rows, columns = height if axis == 0 else depth, height if axis == 2 else width
    for u in range(-margin, rows + margin):
        for v in range(-margin, columns + margin):
            if axis == 0:
                value = values[max(z - 1, 0), max(0, min(y + u, last_y)), max(0, min(x + v, last_x))]
            elif axis == 1:
                value = values[max(0, min(z + u, last_z)), max(y - 1, 0), max(0, min(x + v, last_x))]
            else:
                value = values[max(0, min(z + u, last_z)), max(0, min(y + v, last_y)), max(x - 1, 0)]
            face[u + margin, v + margin] = value


@part()
def halve(face, rows, columns, smoothed, halves):  # type: ignore[no-untyped-def]
    """Smooth a face where it shall be, and interpolate it half-way along columns, rows, and both."""
    for u in range(rows):
        for v in range(columns):
            if smoothed and 0 < u < rows - 1 and 0 < v < columns - 1:
                halves[0, u, v] = np.float32(0.5) * face[u, v] + np.float32(0.125) * (
                    face[u - 1, v] + face[u + 1, v] + face[u, v - 1] + face[u, v + 1]
                )
            else:
                halves[0, u, v] = face[u, v]
    half = np.float32(0.5)
    for u in range(rows):
        for v in range(columns - 1):
            halves[1, u, v] = half * (halves[0, u, v] + halves[0, u, v + 1])
    for u in range(rows - 1):
        for v in range(columns):
            halves[2, u, v] = half * (halves[0, u, v] + halves[0, u + 1, v])
        for v in range(columns - 1):
            halves[3, u, v] = half * (halves[1, u, v] + halves[1, u + 1, v])


@part()
def extend(halves, margin, axis, first, second, thickness, rows, columns, out):  # type: ignore[no-untyped-def]
    """Continue a face through a block: every plane shifted by its slopes more than the one before."""
    for d in range(thickness):
        du, dv = (d + 1) * first, (d + 1) * second
        half = 2 * (du & 1) + (dv & 1)
        du, dv = margin - (du >> 1) - (du & 1), margin - (dv >> 1) - (dv & 1)
        for u in range(rows):
            for v in range(columns):
                value = halves[half, u + du, v + dv]
                if axis == 0:
                    out[d, u, v] = value
                elif axis == 1:
                    out[u, d, v] = value
                else:
                    out[u, v, d] = value


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
def basis_of(mode, axis):  # type: ignore[no-untyped-def]
    """Kind of an axis's basis: sines along the one of a direction, and along all of a blend; else cosines.

    The error of such a prediction grows from the face on, as sines do (Yeo et al., *Mode-Dependent Transforms for
    Coding Directional Intra Prediction Residuals*, IEEE Trans. Circuits and Systems for Video Technology 22, 2012).
    """
    return np.int64(mode == SMOOTH or (mode >= DIRECTIONS and (mode - DIRECTIONS) // SLOPES**2 == axis))


@part()
def synthesise(bases, mode, codes, box, values, spare):  # type: ignore[no-untyped-def]
    """Turn a block of coefficients, 0 outside of a box, into voxels, in place."""
    depth, height, width = 1 << codes[0], 1 << codes[1], 1 << codes[2]
    a, b, c = 1 << box[0], 1 << box[1], 1 << box[2]
    turn(bases[basis_of(mode, 2), codes[2]], values, spare, 2, a, b, c, width)
    turn(bases[basis_of(mode, 1), codes[1]], spare, values, 1, a, b, width, height)
    turn(bases[basis_of(mode, 0), codes[0]], values, spare, 0, a, height, width, depth)
    for i in range(depth):
        for j in range(height):
            for k in range(width):
                values[i, j, k] = spare[i, j, k]


@part()
def margin_of(thickness):  # type: ignore[no-untyped-def]
    """Return how far beyond a block its face is looked at."""
    return STEEPEST // 2 * thickness + 1


@compiled
def _rebuild(values, levels, modes, extents, symbols, codes, inside, bases, step, first, others):  # type: ignore[no-untyped-def]
    face, halves = np.empty((_FACE, _FACE), np.float32), np.empty((4, _FACE, _FACE), np.float32)
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
                        axis = (mode - DIRECTIONS) // SLOPES**2
                        slopes = (mode - DIRECTIONS) % SLOPES**2
                        thickness = 1 << codes[level, axis]
                        rows, columns = height if axis == 0 else depth, height if axis == 2 else width
                        margin = margin_of(thickness)
                        look(values, axis, z, y, x, depth, height, width, margin, face)
                        smoothed = max(depth, max(height, width)) >= SMOOTHED
                        halve(face, rows + 2 * margin, columns + 2 * margin, smoothed, halves)
                        extend(
                            halves, margin, axis, slopes // SLOPES - STEEPEST, slopes % SLOPES - STEEPEST,
                            thickness, rows, columns, predicted,
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
                        synthesise(bases, mode, codes[level], box, block, spare)
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
    "BASES", "DIRECTIONS", "LONGEST", "MEAN", "MODES", "SLOPES", "SMOOTH", "SMOOTHED", "STEEPEST", "TURNED_BASES",
    "basis_of", "blend", "extend", "fill_layer", "halve", "look", "margin_of", "push_children", "rebuild", "synthesise",
    "turn",
]  # fmt: skip

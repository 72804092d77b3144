"""Outlines for the encoder: simpler ones where exact ones cost more than they save, and what to put outside of them."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from napari_tinc.arrays.scratch import slabs, spans, zeros
from napari_tinc.kernels import compiled
from napari_tinc.limits import LIMITS
from napari_tinc.system.threads import block_threads

Inside = npt.NDArray[np.bool_]
Floats32 = npt.NDArray[np.float32]

# Passes over the voxels: of simplification, and of smoothing what is outside at every octave.
_PASSES, _SWEEPS = 4, 6
# Bits of an outline per pair of neighbours on different sides: 0.4 to 1, by how smooth it is. Jumps of fewer steps are
# not worth an outline.
_BITS_PER_PAIR, _SMALL_JUMP = 0.6, 1 / 8
# Voxels whose neighbours are asked.
_ASKED, _ASKED_AT_ONCE = 2**22, 2**18
_LARGE = 1e100
# Weights of neighbours by how many axes they differ along: the length of the outline hardly depends on its direction.
_FACE, _EDGE, _CORNER = 1.0, 2**-0.5, 3**-0.5


def discontinuity(differences: Floats32, step: float) -> tuple[float, float]:
    """Estimate the bits that coefficients spend on the border of the background, and those that its mask takes.

    Parameters
    ----------
    differences : ndarray of float32, shape (z, y, x)
        From the background.
    step : float
        Of the quantiser.

    Returns
    -------
    spent, taken : float
        A jump costs as many bits as it has in steps. A mask costs per pair of neighbours on different sides, but those
        hardly differ that a simpler outline leaves out.
    """
    stride = -(-differences.size // _ASKED)
    given = differences, stride, np.float32(step), np.float32(_SMALL_JUMP * step)
    planes = spans(0, len(differences), max(1, _ASKED_AT_ONCE * stride * len(differences) // differences.size))
    found = [*block_threads().map(lambda start, stop: _look_across(*given, start, stop), *zip(*planes, strict=True))]
    spent, pairs = sum(bits for bits, _ in found), sum(number for _, number in found)
    return stride * float(spent), stride * _BITS_PER_PAIR * int(pairs)


def simplified(inside: Inside, differences: Floats32, price: float) -> Inside:
    """Change the voxels at the outline whose error is worth less than what the outline gets shorter by.

    Iterated conditional modes (Besag, *On the Statistical Analysis of Dirty Pictures*, 1986) of the squared error plus
    the bits of every pair of neighbours on different sides.

    Parameters
    ----------
    inside : ndarray of bool, shape (z, y, x)
    differences : ndarray of float32, shape (z, y, x)
        From the background: what voxels outside lose. What those of the background lose inside is guessed: as much as
        their neighbours would outside.
    price : float
        Squared error that a bit is worth.

    Returns
    -------
    ndarray of bool, shape (z, y, x)
    """
    labels = zeros(inside.shape, np.bool_)
    for slab in slabs(inside.shape, LIMITS.voxels):
        labels[slab] = inside[slab]
    for _ in range(_PASSES):
        if not _simplify(labels, differences, np.float32(_BITS_PER_PAIR * price)):
            break
    return labels


def extend(values: Floats32, inside: Inside) -> None:
    """Replace what is outside of a mask by a smooth continuation of what is inside, in place.

    The mean of what is known, from coarse to fine (pull-push: Gortler et al., *The Lumigraph*, 1996), smoothed at every
    octave towards the mean of its neighbours.

    Parameters
    ----------
    values : ndarray of float32, shape (z, y, x)
    inside : ndarray of bool, shape (z, y, x)
    """
    known = zeros(inside.shape, np.float32)
    for slab in slabs(inside.shape, LIMITS.voxels):
        known[slab] = inside[slab]
    _extend(values, known)


def _extend(values: Floats32, known: Floats32) -> None:
    """Fill in the values whose share that is known is 0."""
    if max(values.shape) == 1:
        return
    factors = np.array([1 if side == 1 else 2 for side in values.shape])
    halves = tuple(-(-side // factor) for side, factor in zip(values.shape, factors.tolist(), strict=True))
    coarse, share = zeros(halves, np.float32), zeros(halves, np.float32)
    _pull(values, known, factors, coarse, share)
    _extend(coarse, share)
    _push(values, known, factors, coarse)
    for _ in range(_SWEEPS):
        _relax(values, known)


@compiled
def _look_across(differences, stride, step, least, start, stop):  # type: ignore[no-untyped-def]
    """Bits of jumps between the background and others, and how many pairs jump by at least so much.

    Of every so many rows, counted along the first two axes, of some planes.
    """
    depth, height, width = differences.shape
    bits, pairs, product = 0.0, 0, 1.0
    for z in range(start, stop):
        for y in range(z % stride, height, stride):
            for x in range(width):
                own = differences[z, y, x]
                for axis in range(3):
                    az, ay, ax = z + (axis == 0), y + (axis == 1), x + (axis == 2)
                    if az < depth and ay < height and ax < width:
                        other = differences[az, ay, ax]
                        if (own == 0) != (other == 0):
                            jump = abs(own - other)
                            # The sum of logarithms, by one of their product as long as there is no overflow.
                            product *= 1 + (jump / step) * (jump / step)
                            if product > _LARGE:
                                bits, product = bits + math.log2(product) / 2, 1.0
                            pairs += jump >= least
    return bits + math.log2(product) / 2, pairs


@compiled
def _simplify(labels, differences, price):  # type: ignore[no-untyped-def]
    """Go over all voxels once; return how many changed."""
    depth, height, width = labels.shape
    changed = 0
    for z in range(depth):
        up, down = max(z - 1, 0), min(z + 1, depth - 1)
        for y in range(height):
            north, south = max(y - 1, 0), min(y + 1, height - 1)
            for x in range(width):
                own, west, east = labels[z, y, x], max(x - 1, 0), min(x + 1, width - 1)
                if (
                    labels[z, y, west] == own and labels[z, y, east] == own
                    and labels[z, north, x] == own and labels[z, south, x] == own
                    and labels[up, y, x] == own and labels[down, y, x] == own
                ):  # fmt: skip
                    continue
                shorter, around, count = 0.0, 0.0, 0
                for dz in range(-1, 2):
                    for dy in range(-1, 2):
                        for dx in range(-1, 2):
                            axes = abs(dz) + abs(dy) + abs(dx)
                            oz, oy, ox = z + dz, y + dy, x + dx
                            if axes == 0 or not (0 <= oz < depth and 0 <= oy < height and 0 <= ox < width):
                                continue
                            weight = _FACE if axes == 1 else _EDGE if axes == 2 else _CORNER
                            shorter += weight if labels[oz, oy, ox] != own else -weight
                            if labels[oz, oy, ox]:
                                around += differences[oz, oy, ox] * differences[oz, oy, ox]
                                count += 1
                difference = differences[z, y, x]
                # What the voxel loses outside; inside, one of the background loses something, and others nothing.
                error = difference * difference if difference != 0 else -around / max(count, 1)
                if price * shorter > (error if own else -error):
                    labels[z, y, x] = not own
                    changed += 1
    return changed


@compiled
def _pull(values, known, factors, coarse, share):  # type: ignore[no-untyped-def]
    """Mean of what is known of every cell one octave coarser, and how much of it that is."""
    depth, height, width = values.shape
    for z in range(coarse.shape[0]):
        for y in range(coarse.shape[1]):
            for x in range(coarse.shape[2]):
                total, weight, count = 0.0, 0.0, 0
                for fz in range(z * factors[0], min((z + 1) * factors[0], depth)):
                    for fy in range(y * factors[1], min((y + 1) * factors[1], height)):
                        for fx in range(x * factors[2], min((x + 1) * factors[2], width)):
                            if known[fz, fy, fx] > 0:
                                total += known[fz, fy, fx] * values[fz, fy, fx]
                                weight += known[fz, fy, fx]
                            count += 1
                share[z, y, x] = weight / count
                coarse[z, y, x] = total / weight if weight > 0 else 0.0


@compiled
def _push(values, known, factors, coarse):  # type: ignore[no-untyped-def]
    """Fill in what is not known, linearly between the cells one octave coarser."""
    depth, height, width = values.shape
    top, bottom, end = coarse.shape[0] - 1, coarse.shape[1] - 1, coarse.shape[2] - 1
    for z in range(depth):
        cz, sz = z // factors[0], 2 * (z % 2) - 1 if factors[0] == 2 else 0
        for y in range(height):
            cy, sy = y // factors[1], 2 * (y % 2) - 1 if factors[1] == 2 else 0
            for x in range(width):
                if known[z, y, x] > 0:
                    continue
                cx, sx = x // factors[2], 2 * (x % 2) - 1 if factors[2] == 2 else 0
                value = 0.0
                for i in range(8):
                    oz, oy, ox = i >> 2, (i >> 1) & 1, i & 1
                    weight = (0.25 if oz else 0.75) * (0.25 if oy else 0.75) * (0.25 if ox else 0.75)
                    pz, py, px = cz + sz * oz, cy + sy * oy, cx + sx * ox
                    pz, py, px = min(max(pz, 0), top), min(max(py, 0), bottom), min(max(px, 0), end)
                    value += weight * coarse[pz, py, px]
                values[z, y, x] = value


@compiled
def _relax(values, known):  # type: ignore[no-untyped-def]
    """Move what is not known to the mean of its neighbours, one after the other."""
    depth, height, width = values.shape
    for z in range(depth):
        up, down = max(z - 1, 0), min(z + 1, depth - 1)
        for y in range(height):
            north, south = max(y - 1, 0), min(y + 1, height - 1)
            for x in range(width):
                if known[z, y, x] == 0:
                    total = values[up, y, x] + values[down, y, x] + values[z, north, x] + values[z, south, x]
                    total += values[z, y, max(x - 1, 0)] + values[z, y, min(x + 1, width - 1)]
                    values[z, y, x] = total / np.float32(6)


__all__ = ["Inside", "discontinuity", "extend", "simplified"]

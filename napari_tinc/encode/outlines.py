"""Outlines for the encoder: simpler ones where exact ones cost more than they save, and what to put outside of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from napari_tinc.arrays.scratch import slabs, zeros
from napari_tinc.kernels import compiled, part
from napari_tinc.limits import LIMITS

Array = npt.NDArray[Any]
Inside = npt.NDArray[np.bool_]

# Passes over the voxels: of simplification, and of smoothing what is outside, from coarse to fine.
_PASSES, _SWEEPS = 6, 6
# Weights of neighbours by how many axes they differ along: the length of the outline hardly depends on its direction.
_FACE, _EDGE, _CORNER = 1.0, 2**-0.5, 3**-0.5


def simplified(inside: Inside, voxels: Array, background: float, price: float) -> Inside:
    """Change the voxels at the outline whose error is worth less than what the outline gets shorter by.

    Iterated conditional modes (Besag, *On the Statistical Analysis of Dirty Pictures*, 1986) of the squared error plus
    ``price`` for every pair of neighbours on different sides.

    Parameters
    ----------
    inside : ndarray of bool, shape (z, y, x)
    voxels : ndarray, shape (z, y, x)
        Those outside lose their difference from the background. What voxels of the background lose inside is guessed:
        as much as their neighbours.
    background : float
    price : float
        Squared intensity.

    Returns
    -------
    ndarray of bool, shape (z, y, x)
    """
    labels = zeros(inside.shape, np.bool_)
    for slab in slabs(inside.shape, LIMITS.voxels):
        labels[slab] = inside[slab]
    for _ in range(_PASSES):
        if not _simplify(labels, voxels, float(background), float(price)):
            break
    return labels


def extended(inside: Inside, voxels: Array) -> Array:
    """Replace what is outside of a mask by a smooth continuation of what is inside.

    The mean of what is known, from coarse to fine (pull-push: Gortler et al., *The Lumigraph*, 1996), smoothed at every
    octave towards the mean of its neighbours.

    Parameters
    ----------
    inside : ndarray of bool, shape (z, y, x)
    voxels : ndarray, shape (z, y, x)

    Returns
    -------
    ndarray of float32, shape (z, y, x)
    """
    values, known = zeros(inside.shape, np.float32), zeros(inside.shape, np.float32)
    for slab in slabs(inside.shape, LIMITS.voxels):
        known[slab] = inside[slab]
        values[slab] = np.where(inside[slab], voxels[slab], 0)
    _extend(values, known)
    return values


def _extend(values: Array, known: Array) -> None:
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


@part()
def _at(values, z, y, x):  # type: ignore[no-untyped-def]
    """Value at a place, the last one before it beyond the end."""
    depth, height, width = values.shape
    return values[min(max(z, 0), depth - 1), min(max(y, 0), height - 1), min(max(x, 0), width - 1)]


@compiled
def _simplify(labels, voxels, background, price):  # type: ignore[no-untyped-def]
    """Go over all voxels once; return how many changed."""
    depth, height, width = labels.shape
    changed = 0
    for z in range(depth):
        for y in range(height):
            for x in range(width):
                own = labels[z, y, x]
                if (
                    _at(labels, z - 1, y, x) == own and _at(labels, z + 1, y, x) == own
                    and _at(labels, z, y - 1, x) == own and _at(labels, z, y + 1, x) == own
                    and _at(labels, z, y, x - 1) == own and _at(labels, z, y, x + 1) == own
                ):  # fmt: skip
                    continue
                shorter, around, count = 0.0, 0.0, 0
                for dz in range(-1, 2):
                    for dy in range(-1, 2):
                        for dx in range(-1, 2):
                            axes = abs(dz) + abs(dy) + abs(dx)
                            if axes == 0:
                                continue
                            weight = _FACE if axes == 1 else _EDGE if axes == 2 else _CORNER
                            other = _at(labels, z + dz, y + dy, x + dx)
                            shorter += weight if other != own else -weight
                            if other:
                                difference = _at(voxels, z + dz, y + dy, x + dx) - background
                                around += difference * difference
                                count += 1
                difference = voxels[z, y, x] - background
                # What the voxel loses outside; inside, one of the background loses something, and others nothing.
                error = difference * difference if difference != 0.0 else -around / max(count, 1)
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
                            total += known[fz, fy, fx] * values[fz, fy, fx]
                            weight += known[fz, fy, fx]
                            count += 1
                share[z, y, x] = weight / count
                coarse[z, y, x] = total / weight if weight > 0 else 0.0


@compiled
def _push(values, known, factors, coarse):  # type: ignore[no-untyped-def]
    """Fill in what is not known, linearly between the cells one octave coarser."""
    depth, height, width = values.shape
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
                    value += weight * _at(coarse, cz + sz * oz, cy + sy * oy, cx + sx * ox)
                values[z, y, x] = value


@compiled
def _relax(values, known):  # type: ignore[no-untyped-def]
    """Move what is not known to the mean of its neighbours, one after the other."""
    depth, height, width = values.shape
    for z in range(depth):
        for y in range(height):
            for x in range(width):
                if known[z, y, x] == 0:
                    total = _at(values, z - 1, y, x) + _at(values, z + 1, y, x) + _at(values, z, y - 1, x)
                    total += _at(values, z, y + 1, x) + _at(values, z, y, x - 1) + _at(values, z, y, x + 1)
                    values[z, y, x] = total / 6


__all__ = ["Inside", "extended", "simplified"]

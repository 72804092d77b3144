"""A small convolutional network that corrects what was decoded: trained for one item, and stored with it.

Two layers: C channels of what 3 x 3 x 3 neighbours say, rectified, and one sum of these, again over 3 x 3 x 3
neighbours. In video coding the like is a neural-network post-filter (ITU-T H.274). It needs no torch to be applied.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from napari_tinc.arrays.scratch import Bounds, boxes
from napari_tinc.errors import FormatError
from napari_tinc.format.cursor import integer
from napari_tinc.kernels import compiled, part
from napari_tinc.system.threads import block_threads

Floats32 = npt.NDArray[np.float32]
Symbols = npt.NDArray[np.int8]

# Voxels on every side that an output depends on: one a layer.
REACH = 2
TAPS, CENTRE = 27, 13
MAX_CHANNELS = 32
# Weights are multiples of a step, in half a byte.
LARGEST_WEIGHT = 7
_HEAD, _CHANNEL = 12, 48
_PART_VOXELS = 2**17


@dataclass(frozen=True, eq=False)
class PostFilter:
    """A post-filter of one item.

    Parameters
    ----------
    scale : float
        Of what goes in and comes out: about the root mean squared error that it was trained to lower.
    steps, biases : ndarray of float32, shape (C,)
        Of the weights of the first layer's channels.
    first : ndarray of int8, shape (C, 2, 27)
        -7 … 7: weights of the first layer, of values and of compressed values, by place in the order of z, y and x.
        Those of values in the centre follow from the others: the channel sees differences.
    last_step, last_bias : float
    last : ndarray of int8, shape (C, 27)
        Weights of the second layer.
    """

    scale: float
    steps: Floats32
    biases: Floats32
    first: Symbols
    last_step: float
    last_bias: float
    last: Symbols

    def apply(self, values: Floats32) -> Floats32:
        """Filter the inner part of a volume.

        Parameters
        ----------
        values : ndarray of float32, shape (z + 4, y + 4, x + 4)
            As for :meth:`napari_tinc.restoration.Restoration.apply`.

        Returns
        -------
        ndarray of float32, shape (z, y, x)
        """
        (weights, last), last_bias = self.kernels(), np.array([self.last_bias], np.float32)
        out = np.empty([side - 2 * REACH for side in values.shape], np.float32)

        def filtered(box: Bounds) -> None:
            around = values[tuple(slice(start, stop + 2 * REACH) for start, stop in box)]
            inner = tuple(slice(start, stop) for start, stop in box)
            _filter(around, np.float32(self.scale), weights, self.biases, last, last_bias, out[inner])
            if not np.isfinite(out[inner].sum()):  # only what a hostile file says
                np.nan_to_num(out[inner], copy=False)

        for _ in block_threads().map(filtered, list(boxes(tuple((0, side) for side in out.shape), _PART_VOXELS))):
            pass
        return out

    def kernels(self) -> tuple[Floats32, Floats32]:
        """Weights of both layers, shapes (C, 2, 3, 3, 3) and (1, C, 3, 3, 3)."""
        first = self.first.astype(np.int32)
        first[:, 0, CENTRE] -= first[:, 0].sum(1)
        with np.errstate(over="ignore"):  # only what a hostile file says
            weights = first.astype(np.float32) * self.steps[:, None, None]
            last = self.last.astype(np.float32) * np.float32(self.last_step)
        return weights.reshape(-1, 2, 3, 3, 3), last.reshape(1, -1, 3, 3, 3)


@part()
def compress(value):  # type: ignore[no-untyped-def]
    """Compress large values: x / (1 + |x|)^(3/4), by operations that are rounded alike everywhere."""
    root = np.sqrt(abs(value) + np.float32(1))
    return value / (np.sqrt(root) * root)


@compiled
def _filter(values, scale, weights, biases, last, last_bias, out):  # type: ignore[no-untyped-def]
    """Filter a part of a volume: all of it while it is in the processor's cache."""
    depth, height, width = values.shape
    seen = np.empty((2, depth, height, width), np.float32)
    for z in range(depth):
        for y in range(height):
            for x in range(width):
                seen[0, z, y, x] = values[z, y, x] / scale
                seen[1, z, y, x] = compress(seen[0, z, y, x])
    # The last two voxels of their rows say nothing.
    hidden = np.empty((len(weights), depth - 2, height - 2, width), np.float32)
    for first in range(0, len(weights) - 1, 2):
        _convolve_two(seen, weights, biases, hidden, first)
    if len(weights) % 2:
        _convolve(seen, weights, biases, hidden, len(weights) - 1)
    rectified = hidden.reshape(-1)
    for i in range(rectified.size):
        rectified[i] = max(rectified[i], np.float32(0))
    moved = np.empty((1, depth - 4, height - 4, width), np.float32)
    _convolve(hidden, last, last_bias, moved, 0)
    for z in range(depth - 4):
        for y in range(height - 4):
            for x in range(width - 4):
                out[z, y, x] = moved[0, z, y, x] * scale + values[z + 2, y + 2, x + 2]


@part()
def _convolve(values, weights, biases, out, channel):  # type: ignore[no-untyped-def]
    """Convolve a plane at a time, its rows as one long one: rows of a small box are too short for vectors."""
    width = out.shape[3]
    many = out.shape[2] * width - 2
    for z in range(out.shape[1]):
        row = out[channel, z].reshape(-1)[:many]
        row[:] = biases[channel]
        for source in range(values.shape[0]):
            for dz in range(3):
                taps, plane = weights[channel, source, dz], values[source, z + dz].reshape(-1)
                above, line, below = plane, plane[width:], plane[2 * width :]
                a0, a1, a2 = taps[0, 0], taps[0, 1], taps[0, 2]
                b0, b1, b2 = taps[1, 0], taps[1, 1], taps[1, 2]
                c0, c1, c2 = taps[2, 0], taps[2, 1], taps[2, 2]
                for x in range(many):
                    row[x] += (
                        (a0 * above[x] + a1 * above[x + 1] + a2 * above[x + 2])
                        + (b0 * line[x] + b1 * line[x + 1] + b2 * line[x + 2])
                        + (c0 * below[x] + c1 * below[x + 1] + c2 * below[x + 2])
                    )


@part()
def _convolve_two(values, weights, biases, out, channel):  # type: ignore[no-untyped-def]
    """Do what `_convolve` does for a channel and the next one, with the same values once in registers."""
    width = out.shape[3]
    many = out.shape[2] * width - 2
    for z in range(out.shape[1]):
        row, other = out[channel, z].reshape(-1)[:many], out[channel + 1, z].reshape(-1)[:many]
        row[:], other[:] = biases[channel], biases[channel + 1]
        for source in range(values.shape[0]):
            for dz in range(3):
                taps, plane = weights[channel : channel + 2, source, dz], values[source, z + dz].reshape(-1)
                above, line, below = plane, plane[width:], plane[2 * width :]
                a0, a1, a2 = taps[0, 0, 0], taps[0, 0, 1], taps[0, 0, 2]
                b0, b1, b2 = taps[0, 1, 0], taps[0, 1, 1], taps[0, 1, 2]
                c0, c1, c2 = taps[0, 2, 0], taps[0, 2, 1], taps[0, 2, 2]
                d0, d1, d2 = taps[1, 0, 0], taps[1, 0, 1], taps[1, 0, 2]
                e0, e1, e2 = taps[1, 1, 0], taps[1, 1, 1], taps[1, 1, 2]
                f0, f1, f2 = taps[1, 2, 0], taps[1, 2, 1], taps[1, 2, 2]
                for x in range(many):
                    row[x] += (
                        (a0 * above[x] + a1 * above[x + 1] + a2 * above[x + 2])
                        + (b0 * line[x] + b1 * line[x + 1] + b2 * line[x + 2])
                        + (c0 * below[x] + c1 * below[x + 1] + c2 * below[x + 2])
                    )
                    other[x] += (
                        (d0 * above[x] + d1 * above[x + 1] + d2 * above[x + 2])
                        + (e0 * line[x] + e1 * line[x + 1] + e2 * line[x + 2])
                        + (f0 * below[x] + f1 * below[x + 1] + f2 * below[x + 2])
                    )


def postfilter_size(channels: int) -> int:
    """Bytes of a post-filter segment."""
    return _HEAD + channels * _CHANNEL


def pack_postfilter(filtering: PostFilter) -> bytes:
    """Store a post-filter: scale, step and bias of the last layer; step, bias and weights of every channel."""
    parts = [np.array([filtering.scale, filtering.last_step, filtering.last_bias], "<f4").tobytes()]
    for step, bias, first, last in zip(filtering.steps, filtering.biases, filtering.first, filtering.last, strict=True):
        stored = np.concatenate([np.delete(first[0], CENTRE), first[1], last]) + 8
        parts += [np.array([step, bias], "<f4").tobytes(), (stored[::2] + 16 * stored[1::2]).astype(np.uint8).tobytes()]
    return b"".join(parts)


def parse_postfilter(payload: bytes) -> PostFilter:
    """Invert :func:`pack_postfilter`.

    Raises
    ------
    FormatError
        If the payload is not a post-filter.
    """
    channels = (len(payload) - _HEAD) // _CHANNEL
    integer("channels of a post-filter", channels, 1, MAX_CHANNELS)
    if len(payload) != postfilter_size(channels):
        raise FormatError(
            f"expected {postfilter_size(channels)} bytes of {channels} channels, got {len(payload)}: damaged file"
        )
    head = np.frombuffer(payload, "<f4", 3).astype(np.float32)
    body = np.frombuffer(payload, np.uint8, offset=_HEAD).reshape(channels, _CHANNEL)
    floats = np.ascontiguousarray(body[:, :8]).view("<f4").astype(np.float32)
    if not (np.isfinite(head).all() and np.isfinite(floats).all() and head[0] > 0):
        raise FormatError("expected finite numbers and a scale above 0 in a post-filter: damaged file")
    stored = (
        np.stack([body[:, 8:] & 15, body[:, 8:] >> 4], -1).reshape(channels, 2 * (_CHANNEL - 8)).astype(np.int8) - 8
    )
    if (stored < -LARGEST_WEIGHT).any():
        raise FormatError("expected weights of -7 to 7 in a post-filter, got -8: damaged file")
    first = np.zeros((channels, 2, TAPS), np.int8)
    first[:, 0] = np.insert(stored[:, : TAPS - 1], CENTRE, 0, axis=1)
    first[:, 1] = stored[:, TAPS - 1 : 2 * TAPS - 1]
    last = np.ascontiguousarray(stored[:, 2 * TAPS - 1 :])
    scale, last_step, last_bias = map(float, head)
    return PostFilter(scale, floats[:, 0].copy(), floats[:, 1].copy(), first, last_step, last_bias, last)


def channels_of(filtering: PostFilter) -> int:
    """Channels of a post-filter."""
    return len(filtering.first)


__all__ = [
    "CENTRE",
    "LARGEST_WEIGHT",
    "REACH",
    "TAPS",
    "PostFilter",
    "channels_of",
    "compress",
    "pack_postfilter",
    "parse_postfilter",
    "postfilter_size",
]

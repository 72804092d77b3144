"""What the kernels for the CPU do, by torch: one operation after the other in their order, and so rounded alike.

Only the sums of a post-filter are added up as the device likes, within the rounding of float32.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812  its usual name

from napari_tinc.arrays.scratch import Bounds
from napari_tinc.postfilter import REACH, PostFilter
from napari_tinc.restoration import RADIUS, Restoration
from napari_tinc.wavelets.transform import GAINS, UNDOING, Axes

Tensor = torch.Tensor
Grids = list[npt.NDArray[np.float64]]


def inverse(bands: dict[int, Tensor], axes: Axes) -> Tensor:
    """Invert :func:`napari_tinc.wavelets.transform.forward`."""
    for axis in reversed(axes):
        bit = 1 << axis
        bands = {o: _joined(band, bands[o | bit], axis) for o, band in bands.items() if not o & bit}
    return bands[0]


def _joined(low: Tensor, high: Tensor, axis: int) -> Tensor:
    """Invert the split of one axis."""
    halves = [low * float(GAINS[0]), high * float(GAINS[1])]
    for number, factor in enumerate(UNDOING):
        own, other = halves[number % 2], halves[1 - number % 2]
        ends = (other.narrow(axis, 0, 1), other.narrow(axis, -1, 1))
        near = torch.cat([*ends[: 1 - number % 2], other, ends[1]], axis)  # mirrored
        side = own.shape[axis]
        own += (near.narrow(axis, 0, side) + near.narrow(axis, 1, side)) * float(factor)
    out = low.new_empty([a + b if i == axis else a for i, (a, b) in enumerate(zip(low.shape, high.shape, strict=True))])
    for first, half in enumerate(halves):
        out[(slice(None),) * axis + (slice(first, None, 2),)] = half
    return out


def interpolated(values: Tensor, bounds: Bounds, grids: Grids) -> Tensor:
    """See :func:`napari_tinc.geometry.sampling.interpolate`."""
    for axis, (grid, (start, stop)) in enumerate(zip(grids, bounds, strict=True)):
        low = np.floor(grid).astype(np.int64)
        share = (grid - low).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(len(bounds))])
        if low.size and not share.any() and (np.diff(low) == 1).all():
            values = values.narrow(axis, int(low[0]) - start, low.size)
            continue
        first, second = (
            values.index_select(axis, torch.from_numpy(places - start).to(values.device))
            for places in (low, np.minimum(low + 1, stop - 1))
        )
        values = first + torch.from_numpy(share).to(values.device) * (second - first)
    return values


def padded(values: Tensor, beyond: list[tuple[int, int]]) -> Tensor:
    """Repeat the last voxels beyond the volume."""
    ends = [number for pair in reversed(beyond) for number in pair]
    return F.pad(values[None, None], ends, "replicate")[0, 0] if any(ends) else values


def restored(values: Tensor, restoration: Restoration) -> Tensor:
    """See :meth:`napari_tinc.restoration.Restoration.apply`."""
    thresholds, weights = (torch.from_numpy(table).to(values.device) for table in restoration.tables())
    centre = values[(slice(RADIUS, -RADIUS),) * 3]
    activity, total = torch.zeros_like(centre), torch.zeros_like(centre)
    for low, high in _differences(values, centre):
        activity += low.abs() + high.abs()
        total += (low + high) * 0.5
    rows = 2 * torch.bucketize(activity, thresholds, out_int32=True, right=True) + (total > 0)
    del activity, total
    moved = centre.clone()
    for i, (low, high) in enumerate(_differences(values, centre)):
        chosen = weights[:, :, i].reshape(-1).index_select(0, rows.reshape(-1)).reshape(rows.shape)
        moved += chosen * ((low + high) * 0.5)
    return moved


def _differences(values: Tensor, centre: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    for axis in range(3):
        for distance in range(1, RADIUS + 1):
            both = []
            for step in (-distance, distance):
                starts = [RADIUS + step if a == axis else RADIUS for a in range(3)]
                place = tuple(slice(s, s + side) for s, side in zip(starts, centre.shape, strict=True))
                both.append(values[place] - centre)
            yield both[0], both[1]


def postfiltered(values: Tensor, postfilter: PostFilter) -> Tensor:
    """See :meth:`napari_tinc.postfilter.PostFilter.apply`."""
    first, last, biases = (torch.from_numpy(a).to(values.device) for a in (*postfilter.kernels(), postfilter.biases))
    seen = values / float(np.float32(postfilter.scale))
    size = seen.abs() + 1
    root = size.sqrt()
    inputs = torch.stack([seen, seen / (root.sqrt() * root)])
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        hidden = F.conv3d(inputs, first, biases).clamp_(min=0)
        moved = F.conv3d(hidden, last)[0] + float(np.float32(postfilter.last_bias))
    moved *= float(np.float32(postfilter.scale))
    moved += values[(slice(REACH, -REACH),) * 3]
    return moved.nan_to_num_()


__all__ = ["interpolated", "inverse", "padded", "postfiltered", "restored"]

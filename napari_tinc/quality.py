"""How well every octant of an item is kept: what its segment in a frame says, specified in ``docs/format.md``."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from napari_tinc.errors import FormatError

Decibels = npt.NDArray[np.float64]

_DECIBEL_STEP = 0.5
_EXACT = 255
_THRESHOLD_STEPS = 65535


@dataclass(frozen=True, eq=False)
class Quality:
    """How well the leaves of an item are kept.

    Parameters
    ----------
    threshold_code : int
        Where the foreground begins, see :func:`threshold_value`.
    psnr, peak : ndarray, shape (leaves,)
        PSNR, and the largest error as ``-20 log10(error / range)``, in dB; infinite where exact.
    dice : ndarray, shape (leaves,)
        Dice of the leaf's foreground, 1 where neither the original nor the decoded has any.
    """

    threshold_code: int
    psnr: Decibels
    peak: Decibels
    dice: Decibels


def threshold_code(threshold: float, minimum: float, maximum: float) -> int:
    """Round a threshold to the codes of an item's value range; 0 for an item of one value."""
    span = float(maximum) - float(minimum)
    share = (threshold - minimum) / span if span else 0.0
    return min(max(round(_THRESHOLD_STEPS * share), 0), _THRESHOLD_STEPS)


def threshold_value(code: int, minimum: float, maximum: float) -> float:
    """Lowest value of the foreground of an item with this value range."""
    return minimum + code / _THRESHOLD_STEPS * (float(maximum) - float(minimum))


def quality_size(leaves: int) -> int:
    """Bytes of a quality segment."""
    return 2 + 3 * leaves


def pack_quality(quality: Quality) -> bytes:
    """Store the quality of an item's leaves in three bytes each.

    PSNR is rounded to half a decibel; the peak downwards, so that no error is larger than what is stored; Dice
    downwards to 255ths, so that 1 means agreement in every voxel.
    """
    decibels = [np.rint(quality.psnr / _DECIBEL_STEP), np.floor(quality.peak / _DECIBEL_STEP)]
    coded = [np.where(np.isinf(c), _EXACT, np.clip(np.nan_to_num(c), 0, _EXACT - 1)) for c in decibels]
    coded.append(np.floor(quality.dice * 255))
    return quality.threshold_code.to_bytes(2, "little") + b"".join(c.astype(np.uint8).tobytes() for c in coded)


def parse_quality(payload: bytes, leaves: int) -> Quality:
    """Invert :func:`pack_quality`.

    Raises
    ------
    FormatError
        If the payload is not one of that many leaves.
    """
    if len(payload) != quality_size(leaves):
        raise FormatError(f"expected {quality_size(leaves)} bytes of octant quality, got {len(payload)}: damaged file")
    coded = np.frombuffer(payload, dtype=np.uint8, offset=2).reshape(3, leaves)
    decibels = np.where(coded[:2] == _EXACT, np.inf, coded[:2] * _DECIBEL_STEP)
    return Quality(int.from_bytes(payload[:2], "little"), decibels[0], decibels[1], coded[2] / 255)

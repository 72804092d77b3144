"""What a user would pick instead: classical codecs, each at its best setting whose file fits a byte budget.

Every codec here codes one spatial volume whose values are scaled to 0–1, and steers size by one number of its own,
which :func:`fit` searches. What surrounds the codec's bytes in a file is in :mod:`napari_tinc.compare.container`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from napari_tinc.compare import container, video
from napari_tinc.errors import BudgetError, InputError
from napari_tinc.measures import metrics

Array = NDArray[Any]

_STEPS = 24  # of a search over real numbers
_NEAR = 0.995  # part of the budget at which a search is content
_CLOSE = 1e-3  # relative difference between settings at which another step tells nothing new
_AROUND = tuple(np.geomspace(0.5, 2, 96))  # of a setting, where files do not shrink evenly with it
_WHITE = 65535


@dataclass(frozen=True)
class Peer:
    """One codec and the number that steers the size of its files.

    Parameters
    ----------
    name : str
        As users write it.
    encode : callable
        From a float32 volume (z, y, x) in 0–1 and a setting to bytes.
    decode : callable
        From bytes and the volume's shape back to about the volume.
    setting : str
        What the number means.
    fine, coarse : float
        The setting of the largest and of the smallest file.
    spacing : str
        ``"linear"``, ``"log"``, or ``"whole"`` for whole numbers only.
    missing : callable
        Why the codec cannot be used here, or None.
    jagged : bool
        Whether sizes jump up and down from one setting to the next, so that bisection alone finds no good one.
    """

    name: str
    encode: Callable[[Array, float], bytes]
    decode: Callable[[bytes, tuple[int, ...]], Array]
    setting: str
    fine: float
    coarse: float
    spacing: str
    missing: Callable[[], str | None]
    jagged: bool = False


@dataclass(frozen=True)
class Fitted:
    """The best file of a codec within a budget: its bytes, the setting, and seconds of this one run."""

    data: bytes
    setting: float
    encode_seconds: float
    decode_seconds: float


def named(name: str) -> Peer:
    """Find a codec by its name.

    Raises
    ------
    InputError
        If there is none of that name.
    """
    if name not in PEERS:
        raise InputError(f"expected a codec among {', '.join(PEERS)}, got {name!r}; choose one of them")
    return PEERS[name]


def fit(peer: Peer, array: Array, axes: str, budget: int) -> Fitted:
    """Search the best file of a codec within a budget.

    Bisection between the finest and the coarsest setting; of a jagged codec also many settings around what it finds.
    The best of all files that fit is kept.

    Parameters
    ----------
    peer : Peer
    array : ndarray
        The volume, axes as in ``axes``.
    axes : str
        Letters of ``tczyx``, one per axis.
    budget : int
        Bytes that the whole file may take.

    Raises
    ------
    BudgetError
        If not even the coarsest setting's file fits.
    """
    whole = peer.spacing == "whole"
    fine, coarse = peer.fine - whole, peer.coarse
    best: tuple[float, Fitted] | None = None
    setting = peer.coarse
    for _ in range(_STEPS):
        tried, error = _try(peer, setting, array, axes, budget)
        if len(tried.data) > budget:
            fine = setting
            if best is None:
                raise BudgetError(
                    f"expected {peer.name} to reach {budget} bytes, got {len(tried.data)} at its coarsest setting "
                    f"({peer.setting} {peer.coarse:g}): lower the ratio"
                )
        else:
            coarse = setting
            best = min(best, (error, tried), key=lambda pair: pair[0]) if best else (error, tried)
            if len(tried.data) >= _NEAR * budget:
                break
        setting = _middle(fine, coarse, peer.spacing)
        if setting in (fine, coarse) if whole else abs(fine - coarse) <= _CLOSE * coarse:
            break
    assert best is not None
    around = best[1].setting
    for factor in _AROUND if peer.jagged else ():
        tried, error = _try(peer, around * factor, array, axes, budget)
        best = min(best, (error, tried), key=lambda pair: pair[0])
    return best[1]


def _try(peer: Peer, setting: float, array: Array, axes: str, budget: int) -> tuple[Fitted, float]:
    """Make a file; measure its error if it fits."""
    started = time.perf_counter()
    data = container.pack(array, axes, peer.name, lambda item: peer.encode(item, setting))
    encoded = time.perf_counter()
    error = np.inf
    if len(data) <= budget:
        error = metrics.mse(array, unpack(data))
    return Fitted(data, setting, encoded - started, time.perf_counter() - encoded), error


def unpack(data: bytes) -> Array:
    """Decode a peer's file, whichever codec it is of."""
    return container.unpack(data, lambda name: PEERS[name].decode)


def _middle(fine: float, coarse: float, spacing: str) -> float:
    if spacing == "log":
        return float(np.sqrt(fine * coarse))
    return (fine + coarse) // 2 if spacing == "whole" else (fine + coarse) / 2


def _sperr(item: Array, bits_per_voxel: float) -> bytes:
    return bytes(imagecodecs.sperr_encode(item.squeeze(), level=bits_per_voxel, mode="bpp"))


def _from_sperr(data: bytes, shape: tuple[int, ...]) -> Array:
    decoded: Array = imagecodecs.sperr_decode(data, shape=_squeezed(shape), dtype=np.float32)
    return decoded.reshape(shape)


def _sz3(item: Array, error: float) -> bytes:
    return bytes(imagecodecs.sz3_encode(item.squeeze(), mode="abs", abs=error))


def _from_sz3(data: bytes, shape: tuple[int, ...]) -> Array:
    decoded: Array = imagecodecs.sz3_decode(data, shape=_squeezed(shape), dtype=np.float32)
    return decoded.reshape(shape)


def _zfp(item: Array, gain: float) -> bytes:
    # ZFP rounds its tolerance down to a power of two; a gain of the values moves in steps as small as one likes.
    scaled = ((item - 0.5) * gain).astype(np.float32).squeeze()
    return np.float32(gain).tobytes() + bytes(imagecodecs.zfp_encode(scaled, mode="a", level=1))


def _from_zfp(data: bytes, shape: tuple[int, ...]) -> Array:
    gain = float(np.frombuffer(data[:4], "<f4")[0])
    decoded: Array = imagecodecs.zfp_decode(data[4:])
    return decoded.reshape(shape) / gain + 0.5


def _mosaic(item: Array) -> NDArray[np.uint16]:
    """Lay the planes of a volume below one another: one picture has one header."""
    mosaic: NDArray[np.uint16] = np.rint(item.reshape(-1, item.shape[-1]) * _WHITE).astype(np.uint16)
    return mosaic


def _jpeg2000(item: Array, psnr: float) -> bytes:
    level: Any = psnr  # its type stub knows whole decibels only
    return bytes(imagecodecs.jpeg2k_encode(_mosaic(item), level=level, reversible=False, codecformat="j2k"))


def _jpegxl(item: Array, distance: float) -> bytes:
    return bytes(imagecodecs.jpegxl_encode(_mosaic(item), distance=distance))


def _from_pictures(decode: Callable[[bytes], Array], data: bytes, shape: tuple[int, ...]) -> Array:
    return decode(data).reshape(shape) / _WHITE


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(side for side in shape if side > 1)


def _not_built(name: str) -> str | None:
    if getattr(imagecodecs, name).available:
        return None
    return f"this build of imagecodecs has no {name}: install imagecodecs from PyPI or conda-forge"


def _from_imagecodecs() -> list[Peer]:
    jpeg2000 = partial(_from_pictures, lambda data: imagecodecs.jpeg2k_decode(data))
    jpegxl = partial(_from_pictures, lambda data: imagecodecs.jpegxl_decode(data))
    return [
        Peer("sperr", _sperr, _from_sperr, "bits per voxel", 16, 1e-4, "log", partial(_not_built, "SPERR")),
        Peer("sz3", _sz3, _from_sz3, "largest error over range", 1e-5, 0.9, "log", partial(_not_built, "SZ3"), True),
        Peer("zfp", _zfp, _from_zfp, "range over tolerance", 1e5, 1e-3, "log", partial(_not_built, "ZFP")),
        Peer("jpeg2000", _jpeg2000, jpeg2000, "PSNR, dB", 100, 1, "linear", partial(_not_built, "JPEG2K")),
        Peer("jpegxl", _jpegxl, jpegxl, "Butteraugli distance", 0.01, 25, "log", partial(_not_built, "JPEGXL")),
    ]


def _from_ffmpeg() -> list[Peer]:
    ranges = {
        "hevc": ("constant rate factor", 0.0, 51.0, "linear"),
        "av1": ("constant rate factor", 0.0, 63.0, "whole"),
    }
    return [
        Peer(
            f"{codec}-{bits}",
            partial(video.encode, codec, bits),
            partial(video.decode, codec, bits),
            *ranges[codec],
            partial(video.missing, codec),
        )
        for codec in video.CODECS
        for bits in (12, 10)
    ]


PEERS = {peer.name: peer for peer in (*_from_imagecodecs(), *_from_ffmpeg())}

"""What a user would pick instead: classical codecs, each at its best setting whose file fits a byte budget.

Every codec here codes one spatial volume whose values are scaled to 0–1, and steers size by one number of its own,
which :func:`fit` searches. Each is tuned for the mean squared error, by which it is judged here. What surrounds the
codec's bytes in a file is in :mod:`napari_tinc.compare.container`.
"""

from __future__ import annotations

import math
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
Encode = Callable[[Array, float], bytes]

_STEPS = 24  # of a search
_NEAR = 0.99  # part of the budget at which a search is content
_AIM = 0.998  # part of the budget that it aims at
_CLOSE = 5e-4  # part of the range between two settings at which another step tells nothing new
_STRIDE = 1 / 8  # of the range, the first step from its middle
_NEXT_STRIDE = 1 / 64  # of the range, from the setting that another way of the same codec took
_AROUND = tuple(np.geomspace(0.5, 2, 96))  # of a setting, where files do not shrink evenly with it
_WHITE = 65535


@dataclass(frozen=True)
class Peer:
    """One codec and the number that steers the size of its files.

    Parameters
    ----------
    name : str
        As users write it.
    ways : tuple of callable
        Ways to code, of which the best counts. Each is from a float32 volume (z, y, x) in 0–1 and a setting to bytes.
    decode : callable
        From bytes and the volume's shape back to about the volume.
    setting : str
        What the number means.
    fine, coarse : float
        The setting of the largest and of the smallest file.
    spacing : str
        ``"linear"`` or ``"log"``.
    missing : callable
        Why the codec cannot be used here, or None.
    jagged : bool
        Whether sizes jump up and down from one setting to the next, so that bisection alone finds no good one.
    """

    name: str
    ways: tuple[Encode, ...]
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

    Of every way to code, a search for the setting that fills the budget; of a jagged codec also many settings around
    what it finds. The best of all files that fit is kept.

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
    search = _Search(peer, array, axes, budget)
    for encode in peer.ways:
        search.close_in(encode)
        if peer.jagged and search.best is not None:
            around = search.best.setting
            for factor in _AROUND:
                search.make(encode, around * factor)
    if search.best is None:
        raise BudgetError(
            f"expected {peer.name} to reach {budget} bytes, got {search.smallest} at its coarsest setting "
            f"({peer.setting} {peer.coarse:g}): lower the ratio"
        )
    return search.best


class _Search:
    """Files of one codec, of which the best within the budget is kept.

    Settings are walked through as positions, from 0, the finest one, to 1, the coarsest.
    """

    def __init__(self, peer: Peer, array: Array, axes: str, budget: int) -> None:
        self._peer, self._array, self._axes, self._budget = peer, array, axes, budget
        self.best: Fitted | None = None
        self._error = math.inf  # of the best
        self.smallest = 0  # bytes at the coarsest setting, if that was tried

    def make(self, encode: Encode, setting: float) -> tuple[int, float]:
        """Make a file and keep it if it is the best; return its bytes and mean squared error."""
        started = time.perf_counter()
        data = container.pack(self._array, self._axes, self._peer.name, lambda item: encode(item, setting))
        encoded = time.perf_counter()
        error = metrics.mse(self._array, unpack(data))
        if len(data) <= self._budget and error < self._error:
            self.best = Fitted(data, setting, encoded - started, time.perf_counter() - encoded)
            self._error = error
        return len(data), error

    def close_in(self, encode: Encode) -> None:
        """Walk in growing strides until the budget lies between two settings, then close in on it.

        Between two settings the logarithm of the size is nearly a straight line, so that the method of false position
        (its Illinois variant: Dowell and Jarratt, 1971) needs a few files only. A file that is too large and yet worse
        than the best of another way ends the search: this way cannot win.
        """
        known = self.best
        position, stride = (0.5, _STRIDE) if known is None else (self._position(known.setting), _NEXT_STRIDE)
        rival = self._error
        ends: dict[bool, tuple[float, float]] = {}  # by over the budget or not: position, and log of size over aim
        last: bool | None = None
        for _ in range(_STEPS):
            size, error = self.make(encode, self._setting(position))
            over = size > self._budget
            if over and (position == 1 or error >= rival):
                self.smallest = size
                return
            if not over and (size >= _NEAR * self._budget or position == 0):
                return
            if over == last and (not over) in ends:
                stuck, excess = ends[not over]
                ends[not over] = stuck, excess / 2
            ends[over], last = (position, math.log(size / (_AIM * self._budget))), over
            if len(ends) == 1:
                position = min(position + stride, 1.0) if over else max(position - stride, 0.0)
                stride *= 2
                continue
            (fine, above), (coarse, below) = ends[True], ends[False]
            if coarse - fine <= _CLOSE:
                return
            position = fine + (coarse - fine) * above / (above - below)

    def _position(self, setting: float) -> float:
        fine, coarse = self._peer.fine, self._peer.coarse
        if self._peer.spacing == "log":
            return math.log(setting / fine) / math.log(coarse / fine)
        return (setting - fine) / (coarse - fine)

    def _setting(self, position: float) -> float:
        fine, coarse = self._peer.fine, self._peer.coarse
        if self._peer.spacing == "log":
            return float(fine * (coarse / fine) ** position)
        return fine + (coarse - fine) * position


def unpack(data: bytes) -> Array:
    """Decode a peer's file, whichever codec it is of."""
    return container.unpack(data, lambda name: PEERS[name].decode)


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
        Peer("sperr", (_sperr,), _from_sperr, "bits per voxel", 16, 1e-4, "log", partial(_not_built, "SPERR")),
        Peer("sz3", (_sz3,), _from_sz3, "largest error over range", 1e-5, 0.9, "log", partial(_not_built, "SZ3"), True),
        Peer("zfp", (_zfp,), _from_zfp, "range over tolerance", 1e5, 1e-3, "log", partial(_not_built, "ZFP")),
        Peer("jpeg2000", (_jpeg2000,), jpeg2000, "PSNR, dB", 100, 1, "linear", partial(_not_built, "JPEG2K")),
        Peer("jpegxl", (_jpegxl,), jpegxl, "Butteraugli distance", 0.01, 25, "log", partial(_not_built, "JPEGXL")),
    ]


def _from_ffmpeg() -> list[Peer]:
    return [
        Peer(
            codec,
            tuple(partial(video.encode, codec, bits) for bits in video.DEPTHS[codec]),
            partial(video.decode, codec),
            "quantiser",
            *video.QUANTISERS[codec],
            "linear",
            partial(video.missing, codec),
        )
        for codec in video.CODECS
    ]


PEERS = {peer.name: peer for peer in (*_from_imagecodecs(), *_from_ffmpeg())}

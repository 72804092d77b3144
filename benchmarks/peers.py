"""What a user would pick instead: SPERR, SZ3 and HEVC, each at its best setting whose file fits a byte budget."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import imagecodecs
import imageio_ffmpeg
import numpy as np

from napari_tinc.core import metrics


@dataclass(frozen=True)
class Point:
    """One file of one codec."""

    codec: str
    nbytes: int
    psnr: float
    encode_seconds: float
    decode_seconds: float


Codec = Callable[[np.ndarray, float], tuple[bytes, Callable[[], np.ndarray]]]


def sperr(volume: np.ndarray, psnr: float) -> tuple[bytes, Callable[[], np.ndarray]]:
    """SPERR in PSNR mode on float32."""
    data = np.ascontiguousarray(volume, dtype=np.float32)
    coded = imagecodecs.sperr_encode(data, level=psnr, mode="psnr")
    return coded, lambda: restore(imagecodecs.sperr_decode(coded, shape=data.shape, dtype=np.float32), volume)


def sz3(volume: np.ndarray, relative_error: float) -> tuple[bytes, Callable[[], np.ndarray]]:
    """SZ3 with an error bound relative to the range."""
    data = np.ascontiguousarray(volume, dtype=np.float32)
    coded = imagecodecs.sz3_encode(data, mode="rel", rel=relative_error)
    return coded, lambda: restore(imagecodecs.sz3_decode(coded, shape=data.shape, dtype=np.float32), volume)


def hevc(volume: np.ndarray, quantiser: float) -> tuple[bytes, Callable[[], np.ndarray]]:
    """x265, 12 bits, z as time, constant quantiser, preset slow."""
    low, high = float(volume.min()), float(volume.max())
    frames = np.rint((volume.astype(np.float64) - low) / (high - low) * 4095).astype("<u2")
    depth, height, width = frames.shape
    padded = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2)), mode="edge")
    size = f"{padded.shape[2]}x{padded.shape[1]}"
    ffmpeg = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y"]
    raw = ["-f", "rawvideo", "-pix_fmt", "gray12le", "-s", size, "-r", "25"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "v.hevc"
        options = ["-c:v", "libx265", "-preset", "slow", "-pix_fmt", "gray12le"]
        x265 = ["-x265-params", f"qp={int(quantiser)}:log-level=none", "-f", "hevc", str(path)]
        subprocess.run([*ffmpeg, *raw, "-i", "-", *options, *x265], input=padded.tobytes(), check=True)
        coded = path.read_bytes()

    def decode() -> np.ndarray:
        pipe = [*ffmpeg, "-f", "hevc", "-i", "-", "-f", "rawvideo", "-pix_fmt", "gray12le", "-"]
        flat = np.frombuffer(subprocess.run(pipe, input=coded, capture_output=True, check=True).stdout, "<u2")
        planes = flat.reshape(depth, *padded.shape[1:])[:, :height, :width]
        return restore(planes / 4095 * (high - low) + low, volume)

    return coded, decode


def restore(decoded: np.ndarray, volume: np.ndarray) -> np.ndarray:
    """Round and clip to the original's dtype."""
    if volume.dtype.kind == "f":
        return decoded.astype(volume.dtype)
    limits = np.iinfo(volume.dtype)
    return np.clip(np.rint(decoded), limits.min, limits.max).astype(volume.dtype)


# Setting from best quality to smallest file: codec, from, to, whole numbers only.
SEARCHES: dict[str, tuple[Codec, float, float, bool]] = {
    "sperr": (sperr, 100.0, 1.0, False),
    "sz3": (sz3, 1e-5, 0.9, False),
    "hevc": (hevc, 0, 51, True),
}


def best_within(name: str, volume: np.ndarray, budget: int) -> Point | None:
    """Bisect a codec's quality setting for the largest file within the budget; ``None`` if none fits."""
    codec, fine, coarse, whole = SEARCHES[name]
    geometric = name == "sz3"
    best: Point | None = None
    for _ in range(7 if whole else 16):
        middle = (fine * coarse) ** 0.5 if geometric else (fine + coarse) / 2
        middle = round(middle) if whole else middle
        started = time.perf_counter()
        coded, decode = codec(volume, middle)
        seconds = time.perf_counter() - started
        if len(coded) <= budget:
            started = time.perf_counter()
            psnr = metrics.psnr(volume, decode())
            point = Point(name, len(coded), psnr, seconds, time.perf_counter() - started)
            best = point if best is None or point.psnr > best.psnr else best
            coarse = middle
        else:
            fine = middle
    return best

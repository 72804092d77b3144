"""Volumes as films: HEVC and AV1 through ffmpeg, z as time, grey values of 12 or 10 bits."""

from __future__ import annotations

import subprocess
import threading
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_tinc.compare import memory
from napari_tinc.errors import TincError

CODECS = ("hevc", "av1")

_ENCODERS = {"hevc": "libx265", "av1": "libaom-av1"}
_FORMATS = {"hevc": "hevc", "av1": "obu"}
_LEAST_SIDE = 64  # encoders refuse smaller frames


@cache
def missing(codec: str) -> str | None:
    """Say why a codec cannot be used here, or None."""
    try:
        import imageio_ffmpeg
    except ImportError:
        return "imageio-ffmpeg is not installed: pip install 'napari-tinc[peers]'"
    try:
        listed = subprocess.run(
            [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-encoders"], capture_output=True, text=True, check=True
        ).stdout
    except (OSError, RuntimeError, subprocess.CalledProcessError) as error:
        return f"ffmpeg does not run ({error}): reinstall imageio-ffmpeg"
    if _ENCODERS[codec] not in listed:
        return f"this ffmpeg has no {_ENCODERS[codec]}: install the imageio-ffmpeg of PyPI"
    return None


def encode(codec: str, bits: int, item: NDArray[np.float32], rate_factor: float) -> bytes:
    """Code a volume (z, y, x) of 0–1 as a film."""
    frames = np.rint(item * (2**bits - 1)).astype("<u2")
    _, height, width = _frame_shape(item.shape)
    frames = np.pad(frames, ((0, 0), (0, height - item.shape[1]), (0, width - item.shape[2])), mode="edge")
    grey = f"gray{bits}le"
    source = ["-f", "rawvideo", "-pix_fmt", grey, "-s", f"{width}x{height}", "-r", "25", "-i", "-"]
    chosen = ["-c:v", _ENCODERS[codec], "-pix_fmt", grey, *_options(codec, rate_factor), "-f", _FORMATS[codec], "-"]
    return _ffmpeg([*source, *chosen], frames.tobytes())


def decode(codec: str, bits: int, data: bytes, shape: tuple[int, ...]) -> NDArray[Any]:
    """Read a volume of ``shape`` back from a film."""
    flat = _ffmpeg(["-f", _FORMATS[codec], "-i", "-", "-f", "rawvideo", "-pix_fmt", f"gray{bits}le", "-"], data)
    frames = np.frombuffer(flat, "<u2").reshape(_frame_shape(shape))
    decoded: NDArray[Any] = frames[:, : shape[1], : shape[2]] / (2**bits - 1)
    return decoded


def _options(codec: str, rate_factor: float) -> list[str]:
    if codec == "av1":
        return ["-crf", str(int(rate_factor)), "-b:v", "0", "-cpu-used", "4"]
    # Without aq-mode and cutree the rate factor is a constant quantiser in fractional steps, which is what PSNR wants.
    # info=0 leaves out a text of 2 kB about the encoder that no decoder needs.
    return ["-preset", "slow", "-x265-params", f"crf={rate_factor}:aq-mode=0:cutree=0:info=0:keyint=-1:log-level=none"]


def _frame_shape(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Shape of the film of a volume: frames have even sides that encoders accept."""
    return shape[0], max(_LEAST_SIDE, shape[1] + shape[1] % 2), max(_LEAST_SIDE, shape[2] + shape[2] % 2)


def _ffmpeg(arguments: list[str], data: bytes) -> bytes:
    import imageio_ffmpeg

    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-v", "error", *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        watch = threading.Thread(target=memory.watch_child, args=(process,), daemon=True)
        watch.start()
        out, said = process.communicate(data)
        watch.join()
    if process.returncode:
        reason = " ".join(said.decode(errors="replace").split())[-300:]
        raise TincError(f"expected ffmpeg to code the volume, got: {reason}; leave this codec out")
    return out

"""Volumes as films: HEVC, AV1 and VVC through ffmpeg, z as time, grey values of 12 or 10 bits.

Quantisers of encoders come in steps. A gain on the values makes all sizes between them: a smaller signal is a coarser
quantiser. Bits and gain stand in front of the film.
"""

from __future__ import annotations

import struct
import subprocess
import threading
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_tinc.compare import memory
from napari_tinc.errors import TincError

CODECS = ("hevc", "av1", "vvc")
# Bits: ten are the better ones at most sizes, twelve where quality is very high; vvenc has no more than ten.
DEPTHS = {"hevc": (10, 12), "av1": (10, 12), "vvc": (10,)}
# The finest and the coarsest. Below zero x265 fails and quantiser 0 of libaom is lossless; coarser ones than an
# encoder has are made by the gain alone.
QUANTISERS = {"hevc": (0.0, 60.0), "av1": (1.0, 83.0), "vvc": (0.0, 83.0)}

_ENCODERS = {"hevc": "libx265", "av1": "libaom-av1", "vvc": "libvvenc"}
_FORMATS = {"hevc": "hevc", "av1": "obu", "vvc": "vvc"}
_LEAST_SIDE = 64  # encoders refuse smaller frames
# Frames of a film get quantisers around the one that is asked for. Where they reach x265's coarsest, 51, its decisions
# no longer match them, and volumes full of detail lose decibels: the gain takes over before.
_COARSEST = {"hevc": 36, "av1": 63, "vvc": 50}
_HEAD = struct.Struct("<Be")  # bits, gain


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


def encode(codec: str, bits: int, item: NDArray[np.float32], quantiser: float) -> bytes:
    """Code a volume (z, y, x) of 0–1 as a film."""
    whole, gain = _steps(codec, quantiser)
    frames = np.rint(((item - 0.5) * gain + 0.5) * (2**bits - 1)).astype("<u2")
    _, height, width = _frame_shape(item.shape)
    frames = np.pad(frames, ((0, 0), (0, height - item.shape[1]), (0, width - item.shape[2])), mode="edge")
    if codec == "vvc":
        frames = _with_colour(frames)
    pixels = _pixels(codec, bits)
    source = ["-f", "rawvideo", "-pix_fmt", pixels, "-s", f"{width}x{height}", "-r", "25", "-i", "-"]
    chosen = ["-c:v", _ENCODERS[codec], "-pix_fmt", pixels, *_options(codec, bits, whole), "-f", _FORMATS[codec], "-"]
    return _HEAD.pack(bits, gain) + _ffmpeg([*source, *chosen], frames.tobytes())


def decode(codec: str, data: bytes, shape: tuple[int, ...]) -> NDArray[Any]:
    """Read a volume of ``shape`` back from a film."""
    bits, gain = _HEAD.unpack_from(data)
    frame = _frame_shape(shape)
    said = ["-f", _FORMATS[codec], "-i", "-", "-f", "rawvideo", "-pix_fmt", _pixels(codec, bits), "-"]
    values = np.frombuffer(_ffmpeg(said, data[_HEAD.size :]), "<u2").reshape(frame[0], -1)
    frames = values[:, : frame[1] * frame[2]].reshape(frame)
    decoded: NDArray[Any] = (frames[:, : shape[1], : shape[2]] / (2**bits - 1) - 0.5) / gain + 0.5
    return decoded


def _steps(codec: str, quantiser: float) -> tuple[int, float]:
    """Split a quantiser into the encoder's next finer one and the gain that makes up for the rest.

    A step of HEVC and VVC is a sixth of an octave. One of libaom is that of a table, as wide as half an octave at the
    finest: the gain is at least as wide, so that no sizes are left out.
    """
    whole = min(int(quantiser), _COARSEST[codec])
    step = 1.15 + 0.8 / (whole + 1) if codec == "av1" else 2 ** (1 / 6)
    return whole, float(np.float16(step ** (whole - quantiser)))


def _options(codec: str, bits: int, quantiser: int) -> list[str]:
    if codec == "av1":
        return ["-crf", str(quantiser), "-b:v", "0", "-cpu-used", "4"]
    if codec == "vvc":  # without what it does for the eye, and without frames that begin anew
        return ["-preset", "medium", "-qp", str(quantiser), "-qpa", "0", "-period", "100000"]
    # What x265 does by default for the eye costs decibels: psycho-visual choices, quantisers that differ from block to
    # block. A temporal filter gains them where films are small, but caps quality near 53 dB: twelve bits go without.
    # info=0 leaves out a text of 2 kB about the encoder that no decoder needs.
    tuned = "psy-rd=0:psy-rdoq=0:aq-mode=0:cutree=0:ipratio=1:rd=6:tu-intra-depth=4:tu-inter-depth=4:b-intra=1"
    rest = f"mcstf={int(bits == 10)}:frame-threads=1:keyint=-1:info=0:log-level=none"
    return ["-preset", "slow", "-x265-params", f"qp={quantiser}:{tuned}:{rest}"]


def _pixels(codec: str, bits: int) -> str:
    """Name of the pixels' format: vvenc takes no grey ones."""
    return "yuv420p10le" if codec == "vvc" else f"gray{bits}le"


def _with_colour(frames: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Lay half as many values, of no colour, behind every frame."""
    values = frames.reshape(len(frames), -1)
    colours = np.full((len(frames), values.shape[1] // 2), 2**9, values.dtype)
    return np.concatenate([values, colours], 1)


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

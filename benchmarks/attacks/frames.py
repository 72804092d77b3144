"""Hostile frames with checksums that hold, through everything that reads them."""

from __future__ import annotations

import math
import os
import random
import struct
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import google_crc32c
from mutators import edited, flipped, varint
from typer.testing import CliRunner

from napari_tinc import format as frames
from napari_tinc.arrays.metadata import Metadata
from napari_tinc.cli.app import app
from napari_tinc.errors import FormatError
from napari_tinc.format import Frame, Header, ItemRange, Segment
from napari_tinc.lazy import lazy_levels
from napari_tinc.plugin.layers.results import layer_data
from napari_tinc.volume import CompressedVolume

GOLDEN = sorted((Path(__file__).parents[2] / "tests" / "golden").glob("*.tinc"))
BASES = [path.read_bytes() for path in GOLDEN]
KINDS = [
    frames.KIND_QUALITY,
    frames.KIND_PARAMETERS,
    frames.KIND_WAVELETS,
    frames.KIND_RESTORATION,
    frames.KIND_EXACT,
    frames.KIND_MASK,
    frames.KIND_DIRECTIONAL,
    frames.KIND_PREDICTED,
    frames.KIND_CORRECTIONS,
]
TEXTS = ["", "\0", "\x1b[31m", "9**9**9", "((((", "µm", "micrometer", "x" * 5000, "\u202e", "<b>", "../../etc"]
NUMBERS = [0, 1, 2, 3, 127, 128, 255, 256, 2**14, 2**16, 2**24, 2**31 - 1, 2**31, 2**48, 2**62]
EXTREMES: dict[str, list[float]] = {
    "f2": [0.0, -0.0, 65504.0, -65504.0, 6e-8],
    "f4": [0.0, 1e-45, 3.4028234663852886e38, -3.4028234663852886e38, 1.0],
    "f8": [0.0, 5e-324, 1.7976931348623157e308, -1.0, 1e-300],
}
# Share of the files that also go through the command line and become layers, which takes longer.
_SOME = 0.004
Edit = Callable[[Frame, random.Random], bytes]


def prepare() -> None:
    """Load or compile all that decodes, which is nobody's fault."""
    for data in BASES:
        CompressedVolume(data, "cpu").decode()


def attack(seed: int, number: int) -> str:
    """Make one frame and put it through all that reads frames."""
    source = random.Random(f"{seed} {number}")
    data = hostile(source)
    consume(data, source)
    return "read"


def hostile(source: random.Random) -> bytes:
    """Damage a golden frame in some of many ways; the checksums hold unless they are what is damaged."""
    data = source.choice(BASES)
    for _ in range(source.choice((1, 1, 1, 2, 3))):
        edit = source.choice(EDITS)
        try:
            data = edit(frames.parse(data), source)
        except (ValueError, struct.error, OverflowError, IndexError):
            continue  # nothing is left to edit, or no file holds this: `pack` refuses it
    return data


def _damaged(frame: Frame, source: random.Random) -> bytes:
    data = frames.pack(frame)
    return (
        flipped(data, source.randrange(8 * len(data))) if source.random() < 0.5 else data[: source.randrange(len(data))]
    )


def _header_bytes(frame: Frame, source: random.Random) -> bytes:
    """Edit the header's bytes, and put a checksum on them that holds."""
    data = frames.pack(frame)
    payloads = sum(len(segment.payload) for segment in frame.segments)
    rest = data[len(data) - payloads :]
    start = 9
    while data[start] & 0x80:
        start += 1
    header = data[start + 1 : len(data) - payloads - 4]
    header = edited(header, source)
    if source.random() < 0.3:
        position = source.randrange(len(header))
        header = header[:position] + varint(source.choice(NUMBERS)) + header[position + 1 :]
    head = data[:9] + varint(len(header)) + header
    return head + struct.pack("<I", google_crc32c.value(head)) + rest


def _payload(frame: Frame, source: random.Random) -> bytes:
    index = source.randrange(max(1, len(frame.segments)))
    old = frame.segments[index].payload
    ways = [
        lambda: edited(old, source),
        lambda: flipped(old, source.randrange(8 * min(len(old), 40))),
        lambda: old[: source.randint(0, 30)] + source.randbytes(source.randint(0, 200)),
        lambda: source.randbytes(source.randint(0, 60)),
        lambda: bytes(source.randint(0, 3000)),
        lambda: source.choice(frames.parse(source.choice(BASES)).segments or frame.segments).payload,
        lambda: _with_varint(old, source),
    ]
    parts = list(frame.segments)
    parts[index] = replace(parts[index], payload=source.choice(ways)())
    return frames.pack(replace(frame, segments=tuple(parts)))


def _with_varint(content: bytes, source: random.Random) -> bytes:
    position = source.randrange(len(content))
    return content[:position] + varint(source.choice(NUMBERS)) + content[position + 1 :]


def _plan(frame: Frame, source: random.Random) -> bytes:
    plan = frame.header.plan
    plan = source.randbytes(source.randint(0, 20)) if not plan or source.random() < 0.3 else edited(plan, source)
    return frames.pack(replace(frame, header=replace(frame.header, plan=plan)))


def _shape(frame: Frame, source: random.Random) -> bytes:
    header = frame.header
    shape = [source.choice((n, n, n + 1, max(1, n - 1), 2 * n, source.choice(NUMBERS[1:12]))) for n in header.shape]
    items = math.prod(side for side, axis in zip(shape, header.metadata.axes, strict=True) if axis in "tc")
    if items > 4096:
        return frames.pack(frame)
    limits = (header.items * items)[:items]
    names = header.metadata.channel_names if items == len(header.items) else ()
    metadata = replace(header.metadata, channel_names=names)
    return frames.pack(replace(frame, header=replace(header, shape=tuple(shape), items=limits, metadata=metadata)))


def _ranges(frame: Frame, source: random.Random) -> bytes:
    dtype = source.choice([*frames.DTYPES, frame.header.dtype])
    bits, signed = 8 * int(dtype[1]), dtype[0] == "i"
    low = -(2 ** (bits - 1)) if signed else 0
    ends_of_dtype = [max(low, -frames.MAX_WHOLE), min(low + 2**bits - 1, frames.MAX_WHOLE)]
    values: list[Any] = EXTREMES.get(dtype) or [*ends_of_dtype, 0, 1]
    limits = []
    for _ in frame.header.items:
        ends = sorted(source.choices(values, k=2))
        limits.append(ItemRange(ends[0], ends[1], source.randrange(2**16), source.randrange(256)))
    return frames.pack(replace(frame, header=replace(frame.header, dtype=dtype, items=tuple(limits))))


def _splits(frame: Frame, source: random.Random) -> bytes:
    axes = len(frame.header.spatial_axes)
    levels = source.randint(0, source.choice((2, 5, 16)))
    splits = tuple(tuple(source.random() < 0.7 for _ in range(axes)) for _ in range(levels))
    return frames.pack(replace(frame, header=replace(frame.header, splits=splits)))


def _texts(frame: Frame, source: random.Random) -> bytes:
    header = frame.header
    units = tuple(source.choice(TEXTS) for _ in header.shape)
    names = tuple(source.choice(TEXTS) for _ in header.metadata.channel_names)
    size = tuple(source.choice((1.0, 5e-324, 1e308, 0.5)) for _ in header.shape)
    said: dict[str, Any] = {source.choice(["psnr", "version", *TEXTS]): source.choice([*TEXTS, 1, 1.5, True, -1e308])}
    metadata = Metadata(header.metadata.axes, size, units, names, source.choice(TEXTS))
    codes = {"between": source.randrange(16), "within": source.randrange(16)}
    return frames.pack(replace(frame, header=replace(header, metadata=metadata, provenance=said, **codes)))


def _segments(frame: Frame, source: random.Random) -> bytes:
    parts = list(frame.segments)
    if len(parts) > 1 and source.random() < 0.5:
        parts.remove(source.choice(parts))
    else:
        payload = source.choice([b"", source.randbytes(20), *(part.payload for part in parts)])
        added = Segment(source.choice(KINDS), source.randrange(len(frame.header.items)), source.randrange(3), payload)
        parts = [part for part in parts if part.order != added.order] + [added]
    model = source.choice((frame.header.model, source.choice([*frames.MODELS])))
    ordered = tuple(sorted(parts, key=lambda part: part.order))
    return frames.pack(Frame(replace(frame.header, model=model), ordered))


def _constant(frame: Frame, source: random.Random) -> bytes:
    shape = tuple(source.choice(NUMBERS[1:12]) for _ in range(source.choice((2, 3))))
    value = source.randrange(256)
    limits = (ItemRange(value, value, 0, 0),)
    splits = tuple((True,) * len(shape) for _ in range(source.randint(0, 5)))
    header = Header(shape, "u1", Metadata.default(len(shape)), limits, splits, frames.MODEL_CONSTANT, b"", 0, 0, {})
    return frames.pack(Frame(header, ()))


EDITS: list[Edit] = [
    *(_damaged, _header_bytes, _header_bytes, _payload, _payload, _payload, _payload),
    *(_plan, _shape, _ranges, _splits, _texts, _segments, _constant),
]


def consume(data: bytes, source: random.Random) -> None:
    """Do all that is done with a file; only `FormatError` may come out."""
    try:
        frames.check(data)
        volume = CompressedVolume(data, "cpu")
    finally:
        if source.random() < _SOME:
            _command_line(data)
    errors = []
    looks = [_decode, _octants, *[_levels] * (source.random() < 0.2), *[_layers] * (source.random() < _SOME)]
    for look in looks:
        try:  # one refusal must not hide what the next would do
            look(volume, source)
        except FormatError as error:
            errors.append(error)
    if errors:
        raise errors[0]


def _decode(volume: CompressedVolume, source: random.Random) -> None:
    region = []
    for side in volume.shape:
        length = min(side, 6)
        start = source.randint(0, side - length)
        region.append(slice(start, start + length))
    voxels = volume.decode(tuple(region))
    low = min(limits[0] for limits in volume.value_ranges)
    high = max(limits[1] for limits in volume.value_ranges)
    assert voxels.dtype == volume.dtype
    if volume.header.model != frames.MODEL_EXACT:  # whose ranges are not those of its infinities
        assert low <= voxels.min() <= voxels.max() <= high, "voxels beyond the range of the original"
    if source.random() < 0.2:
        coarse = volume.scaled_shape(0.25)
        volume.decode(tuple(slice(0, min(side, 5)) for side in coarse), 0.25)
    if math.prod(volume.shape) <= 2**16 and source.random() < 0.1:
        assert volume.decode().shape == volume.shape


def _octants(volume: CompressedVolume, source: random.Random) -> None:
    assert len(volume.octants) == volume.tree.leaves * len(volume.value_ranges)
    assert volume.octant_map(0).size == volume.tree.leaves
    assert math.isfinite(volume.threshold())


def _levels(volume: CompressedVolume, source: random.Random) -> None:
    """Read a pixel of the finest and of the coarsest level; the lists of chunks of huge volumes take a second."""
    if math.prod(volume.shape) > 2**26 and source.random() > 0.01:
        return
    channel = 0 if "c" in volume.metadata.axes else None
    levels = lazy_levels(volume, channel)
    for level in {id(level): level for level in (levels[0], levels[-1])}.values():
        pixel = tuple(slice(i, i + 1) for i in (source.randrange(side) for side in level.shape))
        assert level[pixel].compute(scheduler="synchronous").shape == (1,) * level.ndim


def _layers(volume: CompressedVolume, source: random.Random) -> None:
    _, options, kind = layer_data(volume)
    assert kind == "image"
    assert options["contrast_limits"][0] < options["contrast_limits"][1]


def _command_line(data: bytes) -> None:
    """Run ``info``, ``check`` and ``decompress`` of the file."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "a.tinc")
        Path(path).write_bytes(data)
        commands = [["info", path], ["info", path, "--json"], ["check", path]]
        try:
            small = math.prod(frames.parse(data).header.shape) <= 2**20
        except FormatError:
            small = True
        commands += [["decompress", path, os.path.join(folder, "a.tif")]] if small else []
        for command in commands:
            result = CliRunner().invoke(app, command)
            if result.exit_code not in (0, 1) or not isinstance(result.exception, SystemExit | None):
                raise AssertionError(f"{command[0]} ended with {result.exit_code}: {result.exception!r}")
            assert all(line.isprintable() for line in result.stdout.splitlines()), "a control character was printed"


__all__ = ["attack", "consume", "hostile"]

"""A frame comes back as it was written, byte for byte as specified, and damage is named."""

from __future__ import annotations

import errno
import io
import math
import os
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from napari_tinc.arrays.metadata import Display, Metadata
from napari_tinc.choices import FAMILIES
from napari_tinc.errors import FormatError, InputError
from napari_tinc.format import (
    DTYPES,
    EXACT_DTYPES,
    KIND_DIRECTIONAL,
    KIND_EXACT,
    KIND_MASK,
    KIND_PARAMETERS,
    KIND_QUALITY,
    KIND_RESTORATION,
    KIND_WAVELETS,
    MAX_EXACT_BYTES,
    MODEL_CONSTANT,
    MODEL_EXACT,
    MODEL_WAVELETS,
    Frame,
    Header,
    ItemRange,
    Segment,
    check,
    pack,
    parse,
    write_atomic,
)
from napari_tinc.format.fields import _display_of
from napari_tinc.system import output

SMALL = Frame(
    Header(
        shape=(2, 5, 300, 9),
        dtype="i2",
        metadata=Metadata.default(4),
        items=(ItemRange(-3, 1000, 0x1234, 7), ItemRange(0, 0, 0, 0)),
        splits=((False, True, True), (True, True, False)),
        model=FAMILIES["tinc"].code,
        plan=b"plan",
        between=2,
        within=11,
        provenance={},
    ),
    (
        Segment(KIND_QUALITY, 1, 0, b"quality"),
        Segment(KIND_PARAMETERS, 0, 0, b""),
        Segment(KIND_PARAMETERS, 1, 0, b"root of item 1"),
        Segment(KIND_PARAMETERS, 0, 2, bytes(range(256))),
    ),
)


def crc32c(data: bytes) -> int:
    """CRC-32C by its definition, one bit at a time (reflected polynomial 0x82F63B78)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def with_header(**changes: Any) -> Frame:
    return replace(SMALL, header=replace(SMALL.header, **changes))


def with_display(**values: Any) -> Frame:
    return with_metadata(display=Display(**values))


def exact_frame(**changes: Any) -> Frame:
    return Frame(replace(SMALL.header, **{"model": MODEL_EXACT, "plan": b"", "splits": ()} | changes), ())


def with_metadata(**changes: Any) -> Frame:
    return with_header(metadata=replace(SMALL.header.metadata, **changes))


def test_the_bytes_are_those_of_the_specification() -> None:
    header = b"".join(
        [
            b"\x04",  # i2
            b"\x04czyx",
            b"\x02\x05\xac\x02\x09",  # 300 = 0b10_0101100
            b"\x05\xd0\x0f\x34\x12\x07",  # zigzag(-3) = 5, zigzag(1000) = 2000, offset and scale codes
            b"\x00\x00\x00\x00\x00",
            b"\x02\x06\x03",  # two levels: y and x, then z and y
            b"\x01",  # tinc
            b"\x04plan",
            b"\x2b",  # strategies 2 and 11
            b"\x00",  # metadata: all default
            b"\x04",
            b"\x00\x01\x00\x07" + crc32c(b"quality").to_bytes(4, "little"),
            b"\x01\x00\x00\x00" + bytes(4),
            b"\x01\x01\x00\x0e" + crc32c(b"root of item 1").to_bytes(4, "little"),
            b"\x01\x00\x02\x80\x02" + crc32c(bytes(range(256))).to_bytes(4, "little"),
        ]
    )
    head = b"\x89TNC\r\n\x1a\n\x01" + bytes([len(header)]) + header
    whole = head + crc32c(head).to_bytes(4, "little") + b"quality" + b"root of item 1" + bytes(range(256))
    assert pack(SMALL) == whole
    assert parse(whole) == SMALL


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_float_ranges_keep_every_bit(dtype: str) -> None:
    limits = np.finfo(np.dtype(dtype))
    item = ItemRange(float(limits.min), float(limits.smallest_subnormal), 1, 2)
    frame = Frame(replace(SMALL.header, dtype=dtype, items=(item, item)), ())
    data = pack(frame)
    assert np.array([limits.min, limits.smallest_subnormal], np.dtype("<" + dtype)).tobytes() in data
    assert parse(data) == frame


def whole_range(dtype: str) -> tuple[int, int]:
    """What a value range may hold of a dtype: of 64 bits, what a varint does."""
    if dtype == "b1":
        return 0, 1
    return max(int(np.iinfo(dtype).min), -(2**61)), min(int(np.iinfo(dtype).max), 2**61)


@pytest.mark.parametrize("dtype", [dtype for dtype in DTYPES if dtype[0] != "f"])
def test_integer_ranges_reach_the_limits_of_the_dtype_and_no_further(dtype: str) -> None:
    low, high = whole_range(dtype)
    header = replace(SMALL.header, dtype=dtype, items=(ItemRange(low, high, 65535, 255),) * 2)
    if dtype in EXACT_DTYPES:
        header = replace(header, model=MODEL_EXACT, plan=b"", splits=())
    frame = Frame(header, ())
    assert parse(pack(frame)) == frame
    for item in (ItemRange(low - 1, high, 0, 0), ItemRange(low, high + 1, 0, 0)):
        with pytest.raises(FormatError, match="value range"):
            pack(replace(frame, header=replace(frame.header, items=(item, item))))


def test_shapes_and_sizes_follow_the_axes_of_the_array() -> None:
    header = with_header(shape=(3, 2, 5, 7, 9), metadata=Metadata("zcyxt", (1.0,) * 5, ("",) * 5)).header
    assert header.spatial_axes == "zyx"
    assert header.spatial_shape == (3, 5, 7)
    assert header.leading_shape == (2, 9)
    assert header.raw_nbytes == np.zeros(header.shape, header.dtype).nbytes


def test_a_bare_volume_costs_few_bytes() -> None:
    header = Header((64, 256, 256), "u2", Metadata.default(3), (ItemRange(0, 65535, 0, 0),), (), 1, b"", 0, 0, {})
    assert len(pack(Frame(header, ()))) <= 40


# --- round trips -----------------------------------------------------------------------------------------------------

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@st.composite
def frames(draw: st.DrawFn) -> Frame:
    leading = draw(st.sets(st.sampled_from("tcz")))
    axes = "".join(draw(st.permutations(sorted(leading | {"y", "x"}))))
    shape = tuple(draw(st.integers(1, 3 if axis in "tc" else 2000)) for axis in axes)
    dtype = draw(st.sampled_from(DTYPES))
    models = [MODEL_CONSTANT, MODEL_EXACT]
    models += [] if dtype in EXACT_DTYPES else [FAMILIES["tinc"].code, MODEL_WAVELETS]
    model = draw(st.sampled_from(models))
    spatial = [size for axis, size in zip(axes, shape, strict=True) if axis in "zyx"]
    items = math.prod(shape) // math.prod(spatial)
    left = [size.bit_length() - 1 for size in spatial]
    splits = []
    for _ in range(0 if model == MODEL_EXACT else draw(st.integers(0, 3))):
        level = tuple(bool(n) and draw(st.booleans()) for n in left)
        if any(level):
            splits.append(level)
            left = [n - flag for n, flag in zip(left, level, strict=True)]
    assume(model != MODEL_EXACT or math.prod(spatial) * int(dtype[1]) <= MAX_EXACT_BYTES)
    ranges = tuple(draw(item_ranges(dtype, constant=model == MODEL_CONSTANT)) for _ in range(items))
    ndim = len(axes)
    channels = dict(zip(axes, shape, strict=True)).get("c", 1)
    metadata = Metadata(
        axes,
        tuple(draw(st.lists(st.floats(1e-300, 1e300), min_size=ndim, max_size=ndim))),
        tuple(draw(st.lists(TEXT, min_size=ndim, max_size=ndim))),
        tuple(draw(st.one_of(st.just([]), st.lists(TEXT, min_size=channels, max_size=channels)))),
        draw(TEXT),
    )
    values = st.one_of(TEXT, st.integers(), st.booleans(), st.floats(allow_nan=False, allow_infinity=False))
    provenance = draw(st.dictionaries(TEXT, values, max_size=4))
    between, within = draw(st.tuples(st.integers(0, 15), st.integers(0, 15)))
    plan = b"" if model in (MODEL_WAVELETS, MODEL_EXACT) else draw(st.binary(max_size=300))
    header = Header(shape, dtype, metadata, ranges, tuple(splits), model, plan, between, within, provenance)
    keys = [(KIND_EXACT if model == MODEL_EXACT else KIND_QUALITY, 0, item) for item in range(items)]
    if model == FAMILIES["tinc"].code:
        keys += [(KIND_PARAMETERS, level, item) for level in range(len(splits) + 1) for item in range(items)]
    if model not in (MODEL_CONSTANT, MODEL_EXACT):
        keys += [(kind, 0, i) for kind in (KIND_WAVELETS, KIND_RESTORATION, KIND_MASK) for i in range(items)]
    if model == MODEL_WAVELETS:
        keys += [(KIND_DIRECTIONAL, 0, i) for i in range(items)]
    chosen = sorted(draw(st.sets(st.sampled_from(keys))))
    return Frame(header, tuple(Segment(k, item, level, draw(st.binary(max_size=40))) for k, level, item in chosen))


@st.composite
def item_ranges(draw: st.DrawFn, dtype: str, constant: bool) -> ItemRange:
    if dtype[0] == "f":
        values = st.floats(width=8 * int(dtype[1]), allow_nan=False, allow_infinity=False)  # type: ignore[arg-type]
    else:
        values = st.integers(*whole_range(dtype))
    low, high = sorted([draw(values), draw(values)])
    assume(math.isfinite(float(high) - float(low)))
    codes = draw(st.tuples(st.integers(0, 65535), st.integers(0, 255)))
    return ItemRange(low, low if constant else high, *codes)


@given(frames())
@settings(max_examples=150, deadline=None)
def test_every_frame_comes_back_as_it_was_and_packs_to_the_same_bytes(frame: Frame) -> None:
    data = pack(frame)
    again = parse(memoryview(data))
    assert again == frame
    assert pack(again) == data
    assert all(report.ok for report in check(data))
    assert sum(report.length for report in check(data)) == len(data)


def test_the_order_of_provenance_does_not_show_in_the_bytes() -> None:
    forward = with_header(provenance={"seed": 1, "version": "0.1"})
    backward = with_header(provenance={"version": "0.1", "seed": 1})
    assert pack(forward) == pack(backward)


def test_types_of_provenance_survive() -> None:
    provenance = {"a": True, "b": 1, "c": 1.0, "d": "1"}
    again = parse(pack(with_header(provenance=provenance))).header.provenance
    assert {key: type(value) for key, value in again.items()} == {"a": bool, "b": int, "c": float, "d": str}


def test_whole_voxel_sizes_come_back_as_floats() -> None:
    assert all(type(v) is float for v in parse(pack(with_metadata(voxel_size=(1, 2, 1, 1)))).header.metadata.voxel_size)


def test_find_returns_each_payload_and_refuses_what_is_not_there() -> None:
    for segment in SMALL.segments:
        assert SMALL.find(segment.kind, segment.item, segment.level) == segment.payload
    for missing in [(KIND_QUALITY, 0, 0), (KIND_PARAMETERS, 0, 1), (KIND_PARAMETERS, 1, 2)]:
        with pytest.raises(FormatError, match="got none"):
            SMALL.find(*missing)


# --- what pack refuses -----------------------------------------------------------------------------------------------

WRONG_FRAMES: dict[str, tuple[Callable[[], Frame], str]] = {
    "unknown dtype": (lambda: with_header(dtype="c8"), "dtype"),
    "labels of 64 bits as a network": (lambda: with_header(dtype="i8"), "dtype i8: expected model 4"),
    "labels of 64 bits as wavelets": (
        lambda: with_header(dtype="i8", model=MODEL_WAVELETS, plan=b""),
        "dtype i8: expected model 4",
    ),
    "booleans beyond 1": (lambda: exact_frame(dtype="b1", items=(ItemRange(0, 2, 0, 0),) * 2), "value range of b1"),
    "exact with a plan": (lambda: exact_frame(plan=b"plan"), "expected no plan"),
    "exact with levels": (lambda: exact_frame(splits=SMALL.header.splits), "levels of an exact volume"),
    "exact items of more than 1 GiB": (lambda: exact_frame(shape=(2, 2, 2**14, 2**14 + 1)), "bytes of an exact item"),
    "exact with quality": (
        lambda: replace(exact_frame(), segments=(Segment(KIND_QUALITY, 0, 0, b""),)),
        "expected no octant quality",
    ),
    "exact voxels of wavelets": (
        lambda: replace(with_header(model=MODEL_WAVELETS, plan=b""), segments=(Segment(KIND_EXACT, 0, 0, b""),)),
        "expected no exact voxels",
    ),
    "exact voxels below the root": (
        lambda: replace(exact_frame(), segments=(Segment(KIND_EXACT, 0, 1, b""),)),
        "level of a segment",
    ),
    "one axis": (lambda: with_header(shape=(2,), metadata=Metadata("x", (1.0,), ("",))), "number of axes"),
    "axes without y": (lambda: with_metadata(axes="tczx"), "axes"),
    "axis twice": (lambda: with_metadata(axes="yzyx"), "axes"),
    "unknown axis": (lambda: with_metadata(axes="qzyx"), "axes"),
    "shape too short": (lambda: with_header(shape=(2, 5, 300)), "shape: expected 4 sizes"),
    "empty axis": (lambda: with_header(shape=(2, 5, 0, 9)), "shape"),
    "size of another type": (lambda: with_header(shape=(2, 5, 300.0, 9)), "expected an int, got float"),
    "axis too long": (lambda: with_header(shape=(2, 5, 2**31, 9)), "shape"),
    "too many voxels": (lambda: with_header(shape=(2, 2**20, 2**20, 2**8)), "number of voxels"),
    "too many items": (lambda: with_header(shape=(2**16 + 1, 1, 1, 1)), "number of items"),
    "too few ranges": (lambda: with_header(items=SMALL.header.items[:1]), "expected 2, one per item"),
    "range upside down": (lambda: with_header(items=(ItemRange(2, 1, 0, 0),) * 2), "minimum <= maximum"),
    "float range of integers": (lambda: with_header(items=(ItemRange(1.0, 2.0, 0, 0),) * 2), "expected an int"),
    "int range of floats": (lambda: with_header(dtype="f4", items=(ItemRange(1, 2, 0, 0),) * 2), "finite floats"),
    "NaN range": (lambda: with_header(dtype="f4", items=(ItemRange(math.nan, 2.0, 0, 0),) * 2), "finite floats"),
    "inexact range": (lambda: with_header(dtype="f4", items=(ItemRange(0.1, 2.0, 0, 0),) * 2), "holds exactly"),
    "range beyond float16": (lambda: with_header(dtype="f2", items=(ItemRange(0.0, 1e6, 0, 0),) * 2), "holds exactly"),
    "range beyond float64": (
        lambda: with_header(dtype="f8", items=(ItemRange(-1.7e308, 1.7e308, 0, 0),) * 2),
        "finite maximum - minimum",
    ),
    "offset code too large": (lambda: with_header(items=(ItemRange(0, 1, 65536, 0),) * 2), "offset code"),
    "scale code negative": (lambda: with_header(items=(ItemRange(0, 1, 0, -1),) * 2), "scale code"),
    "too many levels": (lambda: with_header(splits=((False, True, False),) * 17), "levels below the root"),
    "level that splits nothing": (lambda: with_header(splits=((False, False, False),)), "at least one set"),
    "flags of another dimension": (lambda: with_header(splits=((True, True),)), "a flag for each"),
    "more parts than voxels": (lambda: with_header(splits=((True, False, False),) * 3), "at most 5 parts along z"),
    "too many leaves": (
        lambda: with_header(shape=(2, 2**8, 2**8, 2**8), splits=((True, True, True),) * 8),
        "number of leaves",
    ),
    "unknown model": (lambda: with_header(model=200), "update napari-tinc"),
    "constant with a range": (lambda: with_header(model=MODEL_CONSTANT), "minimum = maximum"),
    "constant with parameters": (
        lambda: with_header(model=MODEL_CONSTANT, items=(ItemRange(1, 1, 0, 0),) * 2),
        "expected no parameters",
    ),
    "constant with wavelet": (
        lambda: replace(
            with_header(model=MODEL_CONSTANT, items=(ItemRange(1, 1, 0, 0),) * 2),
            segments=(Segment(KIND_WAVELETS, 0, 0, b""),),
        ),
        "expected no wavelet",
    ),
    "detail with a plan": (lambda: with_header(model=MODEL_WAVELETS), "expected no plan, got 4 bytes"),
    "detail with parameters": (lambda: with_header(model=MODEL_WAVELETS, plan=b""), "expected no parameters"),
    "detail below the root": (
        lambda: replace(SMALL, segments=(Segment(KIND_WAVELETS, 0, 1, b""),)),
        "level of a segment",
    ),
    "strategy beyond 4 bits": (lambda: with_header(within=16), "within-level strategy"),
    "negative strategy": (lambda: with_header(between=-1), "between-levels strategy"),
    "header too large": (lambda: with_header(plan=bytes(2**24)), "use a smaller plan"),
    "voxel sizes of another dimension": (lambda: with_metadata(voxel_size=(1.0,) * 3), "voxel_size"),
    "zero voxel size": (lambda: with_metadata(voxel_size=(1.0, 0.0, 1.0, 1.0)), "voxel_size of z"),
    "infinite voxel size": (lambda: with_metadata(voxel_size=(1.0, 1.0, math.inf, 1.0)), "voxel_size of y"),
    "units of another dimension": (lambda: with_metadata(units=("um",)), "units"),
    "unit that is no text": (lambda: with_metadata(units=("um", "um", "um", None)), "expected text"),
    "place of another dimension": (lambda: with_display(translate=(1.0,) * 3), "display translate"),
    "infinite place": (lambda: with_display(translate=(1.0, 1.0, math.inf, 1.0)), "finite numbers"),
    "rotation of another dimension": (lambda: with_display(linear=((1.0,) * 4,) * 3), "display linear"),
    "rotation with a short row": (lambda: with_display(linear=((1.0,) * 4,) * 3 + ((1.0,),)), "display linear"),
    "limits of another number of channels": (
        lambda: with_display(contrast_limits=((0.0, 1.0),) * 3),
        "display contrast_limits",
    ),
    "limits that are no pair": (lambda: with_display(contrast_limits=((0.0, 1.0, 2.0),)), "display contrast_limits"),
    "limit that is no number": (lambda: with_display(contrast_limits=((0.0, "1"),)), "finite numbers"),
    "colours of another number of channels": (lambda: with_display(colors=("red",) * 3), "display colors"),
    "colour that is no text": (lambda: with_display(colors=(7,)), "expected text"),
    "channel name missing": (lambda: with_metadata(channel_names=("DAPI",)), "expected none or 2"),
    "half a surrogate pair": (lambda: with_metadata(name="\ud800"), "Unicode"),
    "metadata too long": (lambda: with_metadata(name="n" * 65536), "shorten"),
    "provenance with a list": (lambda: with_header(provenance={"a": [1]}), "got list"),
    "provenance with NaN": (lambda: with_header(provenance={"a": math.nan}), "finite number"),
    "provenance with a vast int": (lambda: with_header(provenance={"a": 10**5000}), "finite number"),
    "unknown kind": (lambda: replace(SMALL, segments=(Segment(10, 0, 0, b""),)), "kind of a segment"),
    "item out of range": (lambda: replace(SMALL, segments=(Segment(1, 2, 0, b""),)), "item of a segment"),
    "level out of range": (lambda: replace(SMALL, segments=(Segment(1, 0, 3, b""),)), "level of a segment"),
    "quality below the root": (lambda: replace(SMALL, segments=(Segment(0, 0, 1, b""),)), "level of a segment"),
    "segments out of order": (lambda: replace(SMALL, segments=SMALL.segments[::-1]), "segment table"),
    "segment twice": (lambda: replace(SMALL, segments=SMALL.segments[:1] * 2), "segment table"),
}


@pytest.mark.parametrize("name", WRONG_FRAMES)
def test_a_frame_that_no_reader_would_accept_is_not_written(name: str) -> None:
    make, text = WRONG_FRAMES[name]
    with pytest.raises(FormatError, match=text) as caught:
        pack(make())
    assert "\n" not in str(caught.value)
    assert "expected" in str(caught.value)


# --- what a damaged file says ----------------------------------------------------------------------------------------

DATA = pack(SMALL)


@pytest.mark.parametrize(
    "damaged",
    [
        DATA.replace(b"\r\n", b"\n"),
        DATA.replace(b"\n", b"\r\n"),
        DATA.replace(b"\r", b"\n"),
        bytes(byte & 0x7F for byte in DATA),
        DATA.decode("latin-1").encode("utf-8"),
        DATA.decode("utf-8", "replace").encode("utf-8"),
    ],
    ids=["CRLF to LF", "LF to CRLF", "CR to LF", "7 bits", "Latin-1 to UTF-8", "replacement characters"],
)
def test_a_file_that_went_through_text_mode_says_so(damaged: bytes) -> None:
    with pytest.raises(FormatError, match="as text; fetch it again in binary mode"):
        parse(damaged)


def test_another_kind_of_file_is_not_called_damaged() -> None:
    with pytest.raises(FormatError, match=r"not a \.tinc file"):
        parse(b"\x89PNG\r\n\x1a\n" + bytes(100))


def test_a_later_version_asks_for_an_update() -> None:
    with pytest.raises(FormatError, match="expected format version 1, got version 2; update napari-tinc"):
        parse(DATA[:8] + b"\x02" + DATA[9:])


def test_a_damaged_header_is_named() -> None:
    position = DATA.index(b"plan")
    with pytest.raises(FormatError, match="damaged header"):
        parse(DATA[:position] + b"X" + DATA[position + 1 :])


def test_a_truncated_file_says_how_much_is_missing() -> None:
    with pytest.raises(FormatError, match=r"truncated: .* 10 are missing"):
        parse(DATA[:-10])


def test_trailing_bytes_are_refused_and_reported() -> None:
    with pytest.raises(FormatError, match=r"trailing bytes: .* got 3 more"):
        parse(DATA + b"abc")
    last = check(DATA + b"abc")[-1]
    assert (last.name, last.offset, last.length, last.ok) == ("trailing bytes", len(DATA), 3, False)


def test_a_damaged_segment_is_named_and_the_others_pass() -> None:
    position = DATA.index(b"root of item 1")
    damaged = DATA[:position] + b"R" + DATA[position + 1 :]
    with pytest.raises(FormatError, match=rf"parameters, item 1, level 0, offset {position}"):
        parse(damaged)
    reports = check(damaged)
    assert [report.name for report in reports] == [
        "header",
        "octant quality, item 1",
        "parameters, item 0, level 0",
        "parameters, item 1, level 0",
        "parameters, item 0, level 2",
    ]
    assert [report.ok for report in reports] == [True, True, True, False, True]
    assert [report.offset for report in reports] == [0, position - 7, position, position, position + 14]


def test_check_raises_for_a_damaged_header() -> None:
    with pytest.raises(FormatError, match="damaged header"):
        check(DATA[:20] + bytes([DATA[20] ^ 1]) + DATA[21:])


def test_a_frame_keeps_no_hold_on_the_buffer_it_came_from() -> None:
    buffer = bytearray(DATA)
    frame = parse(memoryview(buffer))
    buffer.clear()  # raises BufferError while a view is alive
    assert frame == SMALL


# --- writing files ---------------------------------------------------------------------------------------------------


def only_file(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


def test_a_file_is_written_whole_and_readable_by_others_as_any_new_file(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a.tinc", DATA, overwrite=False)
    plain = tmp_path / "plain"
    plain.write_bytes(b"")
    assert (tmp_path / "a.tinc").read_bytes() == DATA
    assert stat.S_IMODE((tmp_path / "a.tinc").stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tinc", "plain"]


def test_an_existing_file_is_kept_unless_overwriting_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "a.tinc"
    path.write_bytes(b"old")
    with pytest.raises(InputError, match=r"exists; .* --overwrite .*overwrite=True"):
        write_atomic(path, DATA, overwrite=False)
    assert only_file(tmp_path).read_bytes() == b"old"
    write_atomic(path, DATA, overwrite=True)
    assert only_file(tmp_path).read_bytes() == DATA


@pytest.mark.parametrize("links", [True, False], ids=["hard links", "no hard links"])
def test_a_file_that_appears_meanwhile_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    path, link = tmp_path / "a.tinc", os.link

    def late(source: str, target: str) -> None:
        path.write_bytes(b"somebody else's")
        if not links:
            raise OSError(errno.EPERM, "Operation not permitted")
        link(source, target)

    monkeypatch.setattr(os, "link", late)
    with pytest.raises(InputError, match="exists"):
        write_atomic(path, DATA, overwrite=False)
    assert only_file(tmp_path).read_bytes() == b"somebody else's"


def no_links(source: str, target: str) -> None:
    raise OSError(errno.EPERM, "Operation not permitted")


def test_a_disk_without_hard_links_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", no_links)
    write_atomic(tmp_path / "a.tinc", DATA, overwrite=False)
    assert only_file(tmp_path).read_bytes() == DATA


def test_a_link_to_a_file_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "a.tinc").symlink_to(tmp_path / "real" / "b.tinc")
    for content, overwrite in [(b"one", False), (b"two", True)]:
        write_atomic(tmp_path / "a.tinc", content, overwrite)
        assert (tmp_path / "a.tinc").is_symlink()
        assert only_file(tmp_path / "real").read_bytes() == content


@pytest.mark.parametrize("stop", [OSError(errno.EIO, "Input/output error"), KeyboardInterrupt()], ids=repr)
def test_a_crash_before_the_rename_leaves_the_old_file_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: BaseException
) -> None:
    path = tmp_path / "a.tinc"
    path.write_bytes(b"old")

    def crash(source: str, target: str) -> None:
        assert Path(source).read_bytes() == DATA  # everything was written by now
        raise stop

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(InputError if isinstance(stop, OSError) else KeyboardInterrupt):
        write_atomic(path, DATA, overwrite=True)
    assert only_file(tmp_path).read_bytes() == b"old"


def test_a_crash_before_the_rename_leaves_no_empty_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(source: str, target: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "link", no_links)
    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(tmp_path / "a.tinc", DATA, overwrite=False)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_the_old_file_and_no_temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.tinc"
    path.write_bytes(b"old")

    class FullDisk(io.FileIO):
        def write(self, data: Any) -> int:
            super().write(data[:10])
            raise OSError(errno.ENOSPC, "No space left on device")

    # A name in the module hides the built-in there alone; pytest goes on using the real one.
    monkeypatch.setattr(output, "open", FullDisk, raising=False)
    with pytest.raises(InputError, match="No space left on device; free some space"):
        write_atomic(path, DATA, overwrite=True)
    assert only_file(tmp_path).read_bytes() == b"old"


def test_the_bytes_reach_the_disk_before_the_name_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    rename = os.replace

    def sync(descriptor: int) -> None:
        calls.append("sync folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "sync file")

    def replace_after(source: str, target: str) -> None:
        calls.append("rename")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", replace_after)
    write_atomic(tmp_path / "a.tinc", DATA, overwrite=True)
    assert calls == ["sync file", "rename", "sync folder"]


@pytest.mark.parametrize("name", ["missing/a.tinc", "file/a.tinc", "folder"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, name: str, overwrite: bool) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=name):
        write_atomic(tmp_path / name, DATA, overwrite)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder"]


def test_place_and_looks_survive_and_older_readers_would_pass_them_over():
    display = Display((1.5, 0.0, -2.0, 7.0), ((0.0, 1.0, 0.0, 0.0),) * 4, ((0.0, 9.5), (1.0, 2.0)), ("gray", "#00ff00"))
    frame = with_metadata(display=display)
    assert parse(pack(frame)).header.metadata.display == display
    assert parse(pack(with_metadata())).header.metadata.display == Display()
    assert len(pack(with_metadata(display=Display()))) == len(pack(SMALL)), "what is not known takes no bytes"


@pytest.mark.parametrize("value", [7, [1], {"translate": 3}, {"linear": [1, 2]}])
def test_a_display_of_another_shape_is_refused(value):
    with pytest.raises(FormatError, match="metadata display"):
        _display_of(value)

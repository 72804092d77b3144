"""Whatever the bytes, reading them ends soon, in little memory, with a frame or a FormatError."""

from __future__ import annotations

import json
import math
import random
import struct
import tracemalloc
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import google_crc32c
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_tinc.errors import FormatError
from napari_tinc.format import Frame, check, pack, parse

MAGIC = b"\x89TNC\r\n\x1a\n"
PAYLOADS = (b"quality of octants", b"root", b"leaves of the tree")


def varint(value: int) -> bytes:
    groups = [value >> shift & 0x7F for shift in range(0, max(value.bit_length(), 1), 7)]
    return bytes([group | 0x80 for group in groups[:-1]] + groups[-1:])


def crc(data: bytes) -> bytes:
    return struct.pack("<I", google_crc32c.value(data))


def row(kind: int, item: int, level: int, length: int, checksum: bytes = bytes(4)) -> bytes:
    return bytes([kind]) + varint(item) + varint(level) + varint(length) + checksum


def table(rows: Iterable[bytes]) -> bytes:
    rows = list(rows)
    return varint(len(rows)) + b"".join(rows)


def block(content: bytes) -> bytes:
    return varint(len(content)) + content


def deflated(content: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(content) + packer.flush()


def metadata(fields: object) -> bytes:
    return block(deflated(json.dumps(fields).encode()))


# The header by its specification, written without the code under test.
FIELDS = {
    "dtype": b"\x03",
    "ndim": b"\x03",
    "axes": b"zyx",
    "shape": b"\x05\x10\x10",
    "items": b"\x06\xe8\x07\x00\x80\x10",
    "levels": b"\x02",
    "splits": b"\x06\x07",
    "model": b"\x01",
    "plan": block(b"a plan"),
    "strategy": b"\x12",
    "metadata": metadata({"name": "cells", "voxel_size": [2, 0.5, 0.5]}),
    "table": table(
        row(kind, 0, level, len(payload), crc(payload))
        for kind, level, payload in zip((0, 1, 1), (0, 0, 2), PAYLOADS, strict=True)
    ),
}


def sealed(header: bytes, rest: bytes = b"") -> bytes:
    """Put a checksum that holds on any header."""
    head = MAGIC + b"\x01" + varint(len(header)) + header
    return head + crc(head) + rest


def crafted(rest: bytes = b"", **changes: bytes) -> bytes:
    return sealed(b"".join((FIELDS | changes).values()), rest)


HEADER = b"".join(FIELDS.values())
DATA = sealed(HEADER, b"".join(PAYLOADS))
START = len(DATA) - len(b"".join(PAYLOADS))


@contextmanager
def little_memory(megabytes: float = 2) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < megabytes * 2**20


def outcome(data: bytes) -> Frame | None:
    """Parse, and let nothing but FormatError pass for a refusal."""
    try:
        return parse(data)
    except FormatError as error:
        text = str(error)
    assert "\n" not in text
    assert len(text) < 500
    return None


def test_the_undamaged_file_is_read() -> None:
    frame = parse(DATA)
    assert frame.header.shape == (5, 16, 16)
    assert frame.header.splits == ((False, True, True), (True, True, True))
    assert frame.header.metadata.voxel_size == (2.0, 0.5, 0.5)
    assert tuple(segment.payload for segment in frame.segments) == PAYLOADS


def test_a_file_cut_at_any_length_is_called_truncated() -> None:
    for length in range(len(DATA)):
        with pytest.raises(FormatError, match="truncated"):
            parse(DATA[:length])


def test_a_file_cut_at_any_length_reports_the_segments_that_are_left() -> None:
    ends = [START + sum(map(len, PAYLOADS[: n + 1])) for n in range(len(PAYLOADS))]
    for length in range(len(DATA)):
        if length < START:
            with pytest.raises(FormatError, match="truncated"):
                check(DATA[:length])
        else:
            assert [report.ok for report in check(DATA[:length])] == [True, *(end <= length for end in ends)]


def test_every_flipped_bit_of_the_header_is_noticed() -> None:
    for position in range(START):
        for bit in range(8):
            damaged = DATA[:position] + bytes([DATA[position] ^ 1 << bit]) + DATA[position + 1 :]
            assert outcome(damaged) is None


def test_every_flipped_bit_of_a_segment_is_noticed_and_placed() -> None:
    for position in range(START, len(DATA)):
        damaged = DATA[:position] + bytes([DATA[position] ^ 1 << position % 8]) + DATA[position + 1 :]
        with pytest.raises(FormatError, match="damaged segment"):
            parse(damaged)
        (bad,) = [report for report in check(damaged) if not report.ok]
        assert bad.offset <= position < bad.offset + bad.length


def test_random_damage_to_segments_is_noticed() -> None:
    source = random.Random(0)
    for _ in range(300):
        damaged = bytearray(DATA)
        for _ in range(source.randint(1, 20)):
            damaged[source.randrange(START, len(DATA))] = source.randrange(256)
        assert (outcome(bytes(damaged)) is None) == (damaged != DATA)


BOMB = deflated(bytes(50 * 2**20))
ONE_ITEM = FIELDS["items"]

HOSTILE: dict[str, tuple[bytes, str]] = {
    "dtype 0": (crafted(dtype=b"\x00"), "dtype code"),
    "dtype 13": (crafted(dtype=b"\x0d"), "dtype code"),
    "integers of 64 bits as a network": (crafted(dtype=b"\x0c"), "dtype u8: expected model 4"),
    "exact with levels": (crafted(model=b"\x04", plan=b"\x00"), "levels of an exact volume"),
    "exact with a plan": (crafted(model=b"\x04", levels=b"\x00", splits=b""), "expected no plan"),
    "exact with parameters": (
        crafted(model=b"\x04", levels=b"\x00", splits=b"", plan=b"\x00", table=table([row(1, 0, 0, 0)])),
        "expected no parameters",
    ),
    "exact item of more than 1 GiB": (
        crafted(model=b"\x04", levels=b"\x00", splits=b"", plan=b"\x00", shape=varint(2**10) * 3),
        "bytes of an exact item",
    ),
    "one axis": (crafted(ndim=b"\x01", axes=b"x"), "number of axes"),
    "six axes": (crafted(ndim=b"\x06", axes=b"tczyxq"), "number of axes"),
    "axes that are not letters": (crafted(axes=b"\xff\n\x00"), "axes"),
    "axis twice": (crafted(axes=b"yyx"), "axes"),
    "axes without x": (crafted(axes=b"czy"), "axes"),
    "empty axis": (crafted(shape=b"\x00\x10\x10"), "shape"),
    "size of 2**31": (crafted(shape=varint(2**31) + b"\x01\x01"), "shape"),
    "huge shape": (crafted(shape=varint(2**31 - 1) * 3), "number of voxels"),
    "item bomb": (crafted(axes=b"cyx", shape=varint(2**31 - 1) + b"\x01\x01"), "number of items"),
    "items that are not there": (crafted(axes=b"cyx", shape=varint(2**16) + b"\x01\x01"), "the header ends inside"),
    "non-minimal varint": (crafted(shape=b"\x85\x00\x10\x10"), "the shortest varint, got 2 bytes"),
    "varint without end": (crafted(shape=b"\xff" * 30), "at most 9 bytes"),
    "varint of 10 bytes": (crafted(shape=b"\xff" * 9 + b"\x01"), "at most 9 bytes"),
    "minimum beyond the dtype": (crafted(items=varint(1) + b"\x02\x00\x00\x00"), "value range of u2"),
    "maximum beyond the dtype": (crafted(items=b"\x00" + varint(2**17) + b"\x00\x00\x00"), "value range of u2"),
    "range upside down": (crafted(items=b"\x04\x02\x00\x00\x00"), "minimum <= maximum"),
    "NaN minimum": (crafted(dtype=b"\x08", items=struct.pack("<ffHB", math.nan, 1, 0, 0)), "finite"),
    "NaN maximum": (crafted(dtype=b"\x09", items=struct.pack("<ddHB", 1, math.nan, 0, 0)), "finite"),
    "infinite maximum": (crafted(dtype=b"\x07", items=struct.pack("<eeHB", 1, math.inf, 0, 0)), "finite"),
    "17 levels": (crafted(levels=b"\x11", splits=b"\x01" * 17), "levels below the root"),
    "level that splits nothing": (crafted(splits=b"\x06\x00"), "split axes"),
    "split of a fourth axis": (crafted(splits=b"\x06\x08"), "split axes"),
    "split of z in a plane": (crafted(ndim=b"\x02", axes=b"yx", shape=b"\x10\x10", splits=b"\x03\x04"), "split axes"),
    "more parts than voxels": (crafted(levels=b"\x03", splits=b"\x01" * 3), "at most 5 parts along z"),
    "leaf bomb": (crafted(shape=varint(2**16) * 3, levels=b"\x10", splits=b"\x07" * 16), "number of leaves"),
    "unknown model": (crafted(model=b"\xc8"), "update napari-tinc"),
    "constant with a range": (crafted(model=b"\x00"), "minimum = maximum"),
    "constant with parameters": (crafted(model=b"\x00", items=b"\x06\x06\x00\x00\x00"), "expected no parameters"),
    "plan longer than the header": (crafted(plan=varint(2**62)), "the header ends inside the plan"),
    "metadata longer than the header": (crafted(metadata=varint(2**62)), "the header ends inside the metadata"),
    "deflate bomb": (crafted(metadata=block(BOMB)), "at most 65536 bytes of JSON"),
    "deflate that does not end": (crafted(metadata=block(deflated(b"{}" * 99)[:-2])), "one that does not end"),
    "bytes after deflate": (crafted(metadata=block(deflated(b"{}") + b"x")), "nothing after the deflate stream"),
    "no deflate": (crafted(metadata=block(b"\xff" * 9)), "deflated UTF-8 JSON"),
    "no UTF-8": (crafted(metadata=block(deflated(b'{"name":"\xff"}'))), "deflated UTF-8 JSON"),
    "no JSON": (crafted(metadata=block(deflated(b"{name}"))), "deflated UTF-8 JSON"),
    "nested JSON": (crafted(metadata=block(deflated(b"[" * 60000))), "deflated UTF-8 JSON"),
    "endless integer": (crafted(metadata=block(deflated(b'{"name":' + b"9" * 60000 + b"}"))), "deflated UTF-8 JSON"),
    "JSON list": (crafted(metadata=metadata([])), "a JSON object, got list"),
    "voxel size NaN": (crafted(metadata=metadata({"voxel_size": [1, math.nan, 1]})), "voxel_size of y"),
    "voxel size 1e999": (crafted(metadata=block(deflated(b'{"voxel_size":[1,1e999,1]}'))), "voxel_size of y"),
    "voxel size beyond floats": (crafted(metadata=metadata({"voxel_size": [1, 1, 10**400]})), "voxel_size of x"),
    "voxel size true": (crafted(metadata=metadata({"voxel_size": [True, 1, 1]})), "voxel_size of z"),
    "voxel size text": (crafted(metadata=metadata({"voxel_size": ["1", 1, 1]})), "voxel_size of z"),
    "voxel size negative": (crafted(metadata=metadata({"voxel_size": [-1, 1, 1]})), "voxel_size of z"),
    "voxel sizes of 2 axes": (crafted(metadata=metadata({"voxel_size": [1, 1]})), "expected 3 numbers, got 2"),
    "voxel size no list": (crafted(metadata=metadata({"voxel_size": 1})), "expected a list"),
    "units no text": (crafted(metadata=metadata({"units": [1, 1, 1]})), "expected text"),
    "one unit": (crafted(metadata=metadata({"units": ["um"]})), "units: expected 3"),
    "channel names of a dict": (crafted(metadata=metadata({"channel_names": {"a": 1}})), "expected a list"),
    "more names than channels": (crafted(metadata=metadata({"channel_names": ["a", "b"]})), "expected none or 1"),
    "name null": (crafted(metadata=metadata({"name": None})), "expected text"),
    "name with half a surrogate pair": (crafted(metadata=metadata({"name": "\ud800" * 999})), "Unicode"),
    "provenance list": (crafted(metadata=metadata({"provenance": [1]})), "expected an object"),
    "provenance nested": (crafted(metadata=metadata({"provenance": {"a" * 999: {}}})), "got dict"),
    "provenance infinite": (crafted(metadata=metadata({"provenance": {"a": math.inf}})), "finite number"),
    "segment count bomb": (crafted(table=varint(2**62)), "number of segments"),
    "segments that are not there": (crafted(table=varint(2**20)), "the header ends inside"),
    "unknown kind": (crafted(table=table([row(10, 0, 0, 0)])), "kind of a segment: .* update"),
    "item out of range": (crafted(table=table([row(1, 1, 0, 0)])), "item of a segment"),
    "level out of range": (crafted(table=table([row(1, 0, 3, 0)])), "level of a segment"),
    "quality below the root": (crafted(table=table([row(0, 0, 1, 0)])), "level of a segment"),
    "segment twice": (crafted(table=table([row(1, 0, 0, 0)] * 2)), "each once"),
    "parameters before quality": (crafted(table=table([row(1, 0, 0, 0), row(0, 0, 0, 0)])), "each once"),
    "leaves before the root": (crafted(table=table([row(1, 0, 1, 0), row(1, 0, 0, 0)])), "each once"),
    "items out of order": (
        crafted(
            axes=b"cyx",
            shape=b"\x02\x10\x10",
            items=ONE_ITEM * 2,
            splits=b"\x01\x03",
            table=table([row(1, 1, 0, 0), row(1, 0, 0, 0)]),
        ),
        "each once",
    ),
    "huge segment": (crafted(table=table([row(1, 0, 0, 2**62)])), "are missing"),
    "lengths that overflow 64 bits": (
        crafted(table=table([row(1, 0, level, 2**63 - 1) for level in (0, 1, 2)])),
        f"{3 * (2**63 - 1)} are missing",
    ),
    "bytes after the table": (crafted(table=FIELDS["table"] + b"\x00"), "got 1 more bytes"),
    "empty header": (sealed(b""), "the header ends inside the dtype"),
    "header of 2**62 bytes": (MAGIC + b"\x01" + varint(2**62), "header length"),
    "header of 16 MiB that is not there": (MAGIC + b"\x01" + varint(2**24), "are missing"),
    "header length without end": (MAGIC + b"\x01" + b"\x80" * 20, "at most 9 bytes"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_header_with_a_valid_checksum_is_refused(name: str) -> None:
    data, text = HOSTILE[name]
    with little_memory(), pytest.raises(FormatError, match=text) as caught:
        parse(data)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_check_of_hostile_lengths_takes_no_memory_either() -> None:
    data = crafted(table=table([row(1, 0, level, 2**63 - 1) for level in (0, 1, 2)]), rest=b"something")
    with little_memory():
        reports = check(data)
    assert [report.ok for report in reports] == [True, False, False, False]


def test_memory_stays_a_small_multiple_of_a_file_full_of_segments() -> None:
    shape = varint(2**14) + b"\x01\x01"
    rows = table(row(1, item, 0, 0) for item in range(2**14))
    data = crafted(axes=b"cyx", shape=shape, items=ONE_ITEM * 2**14, levels=b"\x00", splits=b"", table=rows)
    with little_memory(50 * len(data) / 2**20):
        assert len(parse(data).segments) == 2**14


def test_keys_of_later_versions_are_passed_over() -> None:
    frame = parse(crafted(metadata=metadata({"colour": "red", "name": "cells"}), rest=b"".join(PAYLOADS)))
    assert frame.header.metadata.name == "cells"


@given(st.binary(max_size=200), st.binary(max_size=20))
@settings(max_examples=300, deadline=None)
def test_random_headers_with_a_valid_checksum_are_refused_or_read(header: bytes, rest: bytes) -> None:
    outcome(sealed(header, rest))


@given(st.binary(max_size=100))
@settings(max_examples=200, deadline=None)
def test_random_bytes_after_the_magic_are_refused(rest: bytes) -> None:
    assert outcome(MAGIC + rest) is None


@given(st.randoms(use_true_random=False))
@settings(max_examples=500, deadline=None)
def test_a_damaged_header_with_a_valid_checksum_is_refused_or_a_frame_of_its_own(source: random.Random) -> None:
    header = bytearray(HEADER)
    for _ in range(source.randint(1, 3)):
        position = source.randrange(len(header))
        edit = source.choice(["change", "insert", "delete"])
        if edit == "change":
            header[position] = source.randrange(256)
        elif edit == "insert":
            header.insert(position, source.randrange(256))
        else:
            del header[position]
    frame = outcome(sealed(bytes(header), b"".join(PAYLOADS)))
    if frame is not None:
        assert parse(pack(frame)) == frame


@given(st.binary(max_size=400))
@settings(max_examples=300, deadline=None)
def test_random_metadata_is_refused_or_read(raw: bytes) -> None:
    outcome(crafted(metadata=block(raw), rest=b"".join(PAYLOADS)))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
KEYS = ["voxel_size", "units", "channel_names", "name", "provenance"]


@given(st.dictionaries(st.sampled_from(KEYS), JSON, max_size=5))
@settings(max_examples=300, deadline=None)
def test_metadata_of_any_type_is_refused_or_comes_back_again(fields: dict[str, object]) -> None:
    frame = outcome(crafted(metadata=metadata(fields), rest=b"".join(PAYLOADS)))
    if frame is not None:
        assert parse(pack(frame)) == frame

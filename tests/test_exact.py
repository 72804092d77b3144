"""Exact frames give back every bit, whatever the voxels are; damaged ones are refused, or are other voxels."""

from __future__ import annotations

import random
import tracemalloc
import zlib
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from mutators import edited, flipped, with_payload
from reference_exact import exact_output
from typer.testing import CliRunner

from napari_tinc.arrays.metadata import Metadata
from napari_tinc.cli.app import app
from napari_tinc.encode import framing
from napari_tinc.errors import FormatError
from napari_tinc.exact import pack_exact, parse_exact
from napari_tinc.format import (
    DTYPES,
    KIND_EXACT,
    MODEL_CONSTANT,
    MODEL_EXACT,
    Frame,
    Header,
    ItemRange,
    Segment,
    pack,
    parse,
)
from napari_tinc.lazy import lazy_levels
from napari_tinc.volume import CompressedVolume

Array = npt.NDArray[Any]
SHAPE = (5, 6, 7)


def metadata(axes: str) -> Metadata:
    return Metadata(axes, (1.0,) * len(axes), ("",) * len(axes))


def exact(array: Array, axes: str = "zyx") -> CompressedVolume:
    return CompressedVolume(framing.exact(array, metadata(axes)), "cpu")


def deflated(content: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(content) + packer.flush()


def voxels_of(dtype: str, shape: tuple[int, ...] = SHAPE) -> Array:
    """Random bits: of floats, they are NaNs and infinities, too."""
    draw = np.random.default_rng(0)
    if dtype == "b1":
        return draw.random(shape) < 0.3
    return np.frombuffer(draw.bytes(np.zeros(shape, dtype).nbytes), dtype).reshape(shape)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_bit_of_every_dtype_comes_back_and_the_page_alone_suffices_to_read_it(dtype: str) -> None:
    voxels = voxels_of(dtype)
    volume = exact(voxels)
    assert volume.dtype == voxels.dtype
    assert volume.decode().tobytes() == voxels.tobytes()
    payload = parse(volume.to_bytes()).find(KIND_EXACT, 0, 0)
    assert exact_output(payload, SHAPE, dtype).tobytes() == voxels.tobytes()


@given(
    st.sampled_from(DTYPES).flatmap(
        lambda dtype: arrays.arrays(np.dtype(dtype), arrays.array_shapes(min_dims=2, max_dims=3, max_side=6))
    )
)
@settings(max_examples=150, deadline=None)
def test_any_item_comes_back_bit_by_bit(item: Array) -> None:
    assert parse_exact(pack_exact(item), item.dtype, item.shape).tobytes() == item.tobytes()


@pytest.mark.parametrize("axes", ["yx", "tyx", "zcyx", "ctzyx", "yzx", "xcy"])
def test_axes_of_any_order_come_back(axes: str) -> None:
    voxels = voxels_of("f4", (2, 3, 4, 5, 6)[-len(axes) :])
    assert exact(voxels, axes).decode().tobytes() == voxels.tobytes()


def test_a_view_of_an_array_comes_back() -> None:
    voxels = voxels_of("u2", (6, 12, 14))[::-1, ::2, ::2].transpose(1, 0, 2)
    np.testing.assert_array_equal(exact(voxels).decode(), voxels)


@pytest.mark.parametrize(
    ("voxels", "expected"),
    [
        (np.array([[np.nan, 1.5, np.inf], [-np.inf, -2.0, 0.0]]), (-2.0, 1.5)),
        (np.full((2, 2), np.nan, "f4"), (0.0, 0.0)),
        (np.array([[-1.7e308, 1.7e308]]), (0.0, 0.0)),
        (np.array([[-(2**61), 2**61]]), (-(2**61), 2**61)),
        (np.array([[-(2**61) - 1, 3]]), (0, 0)),
        (np.array([[2**64 - 1]], "u8"), (0, 0)),
        (np.array([[False, True]]), (0, 1)),
    ],
)
def test_the_value_range_is_that_of_finite_voxels_where_a_header_can_say_it(
    voxels: Array, expected: tuple[float, float]
) -> None:
    volume = exact(voxels, "yx")
    assert volume.value_ranges == (expected,)
    assert volume.decode().tobytes() == voxels.tobytes()


def test_all_that_a_viewer_asks_of_a_file_has_an_answer() -> None:
    voxels = voxels_of("f4", (2, 8, 9, 10))
    volume = exact(voxels, "czyx")
    assert [(octant.item, octant.psnr, octant.max_error, octant.dice) for octant in volume.octants] == [
        (item, np.inf, 0, 1) for item in range(2)
    ]
    payloads = sum(len(segment.payload) for segment in parse(volume.to_bytes()).segments)
    assert sum(octant.nbytes for octant in volume.octants) == payloads == volume.region_bytes()
    assert volume.octant_map(1).tolist() == [[[np.inf]]]
    assert volume.threshold() == volume.value_ranges[0][0]
    assert dict(volume.provenance) == {}
    np.testing.assert_array_equal(volume.decode((1, slice(2, 5), 3)), voxels[1, 2:5, 3])
    np.testing.assert_array_equal(volume.decode_item(1, (slice(3, 4),)), voxels[1, 3:4])
    assert volume.decode(scale=0.5).shape == (2, 4, 5, 5)
    assert np.isin(volume.decode(scale=0.5).view("u4"), voxels.view("u4")).all()
    assert volume.decode(scale=2.0).shape == (2, 16, 18, 20)
    finest = lazy_levels(volume, 1)[0]
    assert finest.compute(scheduler="synchronous").tobytes() == voxels[1].tobytes()


@pytest.mark.parametrize("dtype", ["b1", "i8", "f4"])
def test_the_command_line_tells_checks_and_decompresses_an_exact_file(dtype: str, tmp_path: Any) -> None:
    voxels = voxels_of(dtype)
    exact(voxels).save(tmp_path / "a.tinc")
    said = CliRunner().invoke(app, ["info", str(tmp_path / "a.tinc")])
    assert said.exit_code == 0, said.output
    assert "exact" in said.output
    assert CliRunner().invoke(app, ["check", str(tmp_path / "a.tinc")]).exit_code == 0
    said = CliRunner().invoke(app, ["decompress", str(tmp_path / "a.tinc"), str(tmp_path / "a.npy")])
    assert said.exit_code == 0, said.output
    assert np.load(tmp_path / "a.npy").tobytes() == voxels.tobytes()


def test_a_dtype_that_the_output_cannot_hold_is_refused_in_one_line(tmp_path: Any) -> None:
    exact(voxels_of("i8")).save(tmp_path / "a.tinc")
    said = CliRunner().invoke(app, ["decompress", str(tmp_path / "a.tinc"), str(tmp_path / "a.ome.tif")])
    assert said.exit_code == 1
    assert "expected a dtype that OME-TIFF holds, got int64" in " ".join(said.output.split())


# --- damage and malice -----------------------------------------------------------------------------------------------


def outcome(data: bytes) -> Array | None:
    """Do all that a viewer does; let nothing but FormatError pass for a refusal."""
    try:
        volume = CompressedVolume(data, "cpu")
        assert len(volume.octants) == volume.octant_map(0).size == 1
        return volume.decode()
    except FormatError as error:
        text = str(error)
    assert "\n" not in text
    assert len(text) < 500
    return None


@pytest.mark.parametrize("dtype", ["b1", "u1", "f4", "i8"])
def test_mutated_bytes_are_refused_or_other_voxels(dtype: str) -> None:
    source = random.Random(dtype)
    voxels = voxels_of(dtype)
    frame = parse(exact(voxels).to_bytes())
    payload, read = frame.segments[0].payload, 0
    mutated = [edited(payload, source) for _ in range(150)]
    mutated += [flipped(payload, source.randrange(8 * len(payload))) for _ in range(150)]
    mutated += [source.randbytes(source.randint(0, 60)) for _ in range(100)]
    mutated += [payload + b"\0", payload[:-1], b"", deflated(b""), deflated(source.randbytes(voxels.nbytes))]
    for other in mutated:
        found = outcome(with_payload(frame, 0, other))
        if found is not None:
            assert (found.shape, found.dtype) == (voxels.shape, voxels.dtype)
            assert dtype != "b1" or found.view("u1").max() <= 1
            read += 1
    assert read  # or nothing but refusals were tested
    whole = exact(voxels).to_bytes()
    for _ in range(200):
        assert outcome(flipped(whole, source.randrange(8 * len(whole)))) is None


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (deflated(bytes(4 * 210 - 1)), "expected 840 bytes and then the end, got 839"),
        (deflated(bytes(4 * 210 + 1)), "expected 840 bytes and then the end, got 841 or more"),
        (deflated(bytes(840))[:-1], "expected 840 bytes and then the end"),
        (deflated(bytes(840)) + b"x", "expected 840 bytes and then the end"),
        (b"\xff" * 20, "expected a deflate stream"),
    ],
)
def test_what_is_not_a_stream_of_exactly_the_voxels_is_refused(content: bytes, text: str) -> None:
    frame = parse(exact(voxels_of("f4")).to_bytes())
    with pytest.raises(FormatError, match=text):
        CompressedVolume(with_payload(frame, 0, content)).decode()


def test_a_boolean_that_is_neither_true_nor_false_is_refused() -> None:
    frame = parse(exact(voxels_of("b1")).to_bytes())
    with pytest.raises(FormatError, match="expected 0 and 1 for booleans"):
        CompressedVolume(with_payload(frame, 0, deflated(bytes([1] * 210)))).decode()


def test_a_segment_that_is_not_there_is_named() -> None:
    frame = replace(parse(exact(voxels_of("f4")).to_bytes()), segments=())
    for ask in (lambda v: v.decode(), lambda v: v.octants):
        with pytest.raises(FormatError, match=f"expected a segment of kind {KIND_EXACT}, item 0, level 0"):
            ask(CompressedVolume(pack(frame)))


def test_few_bytes_that_promise_a_gigabyte_take_little_memory() -> None:
    shape = (2**10, 2**10, 2**10)
    header = Header(shape, "u1", metadata("zyx"), (ItemRange(0, 9, 0, 0),), (), MODEL_EXACT, b"", 0, 0, {})
    for content in (b"", deflated(bytes(1000)), b"\xff" * 100):
        data = pack(Frame(header, (Segment(KIND_EXACT, 0, 0, content),)))
        tracemalloc.start()
        try:
            with pytest.raises(FormatError):
                CompressedVolume(data, "cpu").decode((slice(0, 4),) * 3)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 2**20


def test_a_stream_that_inflates_to_much_more_is_not_inflated() -> None:
    frame = parse(exact(voxels_of("u1")).to_bytes())
    data = with_payload(frame, 0, deflated(bytes(50 * 2**20)))
    tracemalloc.start()
    try:
        with pytest.raises(FormatError, match="expected 210 bytes"):
            CompressedVolume(data, "cpu").decode()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2**20


@pytest.mark.parametrize("dtype", ["b1", "i8", "u8"])
def test_dtypes_of_exact_frames_may_be_constant(dtype: str) -> None:
    header = Header(SHAPE, dtype, metadata("zyx"), (ItemRange(1, 1, 0, 0),), (), MODEL_CONSTANT, b"", 0, 0, {})
    decoded = CompressedVolume(pack(Frame(header, ()))).decode()
    assert decoded.dtype == np.dtype(dtype)
    assert (decoded == 1).all()

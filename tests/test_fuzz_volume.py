"""Whatever happens to a real file, decoding it ends soon, in little memory, with voxels or a FormatError."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
import tracemalloc
import zlib
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from mutators import edited, flipped, varint, with_payload, with_plan

from napari_tinc.arrays.metadata import Metadata
from napari_tinc.choices import FAMILIES
from napari_tinc.directional import layout as tilings
from napari_tinc.directional.payload import pack_directions
from napari_tinc.directional.prediction import LATEST
from napari_tinc.directional.search import Prices, fit_step
from napari_tinc.encode.compression import compress
from napari_tinc.errors import FormatError
from napari_tinc.format import (
    KIND_DIRECTIONAL,
    KIND_MASK,
    KIND_PARAMETERS,
    KIND_QUALITY,
    KIND_RESTORATION,
    KIND_WAVELETS,
    MODEL_CONSTANT,
    MODEL_WAVELETS,
    Frame,
    Header,
    ItemRange,
    Segment,
    pack,
    parse,
)
from napari_tinc.geometry.octree import Octree, choose_splits
from napari_tinc.masks import mask as masks
from napari_tinc.masks.mask import encode_mask, pyramid_of
from napari_tinc.masks.payload import pack_mask
from napari_tinc.networks.families.tinc import FAMILY, TincNetwork
from napari_tinc.networks.plans import allowed_parameters
from napari_tinc.networks.quantization import Layout
from napari_tinc.quantiser import code_of
from napari_tinc.system.steps import complete
from napari_tinc.target import Target
from napari_tinc.volume import CompressedVolume

SECONDS = 5
MEGABYTES = 32
CORNER = (slice(4, 8), slice(5, 9), slice(0, 3))  # reaches into every leaf but those of the last plane


def spot() -> npt.NDArray[np.uint8]:
    """A bright spot and noise, 12³ voxels."""
    grid = np.mgrid[:12, :12, :12]
    spot = 200 * np.exp(-((grid - np.array([4, 6, 8])[:, None, None, None]) ** 2).sum(0) / 20)
    noise = np.random.default_rng(0).normal(20, 3, spot.shape)
    return np.clip(spot + noise, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def data() -> bytes:
    """A real file: two levels, the leaves of different widths, so that its plan has a width map."""
    return compress(
        spot(), Target.size(900), preset="fast", time_limit=1, levels=2, within="importance", device="cpu", model="tinc"
    ).to_bytes()


@pytest.fixture(scope="module")
def frame(data: bytes) -> Frame:
    return parse(data)


def outcome(data: bytes) -> npt.NDArray[np.generic] | None:
    """Do all that a viewer does; let nothing but FormatError pass for a refusal."""
    started = time.process_time()
    try:
        volume = CompressedVolume(data, device="cpu")
        octants, grid = volume.octants, volume.octant_map(0)
        voxels = volume.decode(CORNER)
    except FormatError as error:
        text = str(error)
        assert "\n" not in text
        assert len(text) < 500
        return None
    finally:
        assert time.process_time() - started < SECONDS
    assert len(octants) == grid.size == 8
    assert voxels.shape == (4, 4, 3)
    (limits,) = volume.value_ranges
    assert limits[0] <= voxels.min() <= voxels.max() <= limits[1]
    return voxels


def test_the_undamaged_file_is_read_and_has_all_that_can_be_damaged(data: bytes, frame: Frame) -> None:
    assert outcome(data) is not None
    assert frame.header.plan[1] == 1  # one width at the root
    assert len(frame.header.plan) > 12  # and a map of widths for the leaves
    assert [(s.kind, s.level) for s in frame.segments] == [
        (KIND_QUALITY, 0),
        (KIND_PARAMETERS, 0),
        (KIND_PARAMETERS, 1),
    ]


# --- damage, which the checksums notice ------------------------------------------------------------------------------


def test_a_file_cut_at_any_length_is_called_truncated(data: bytes) -> None:
    for length in range(len(data)):
        with pytest.raises(FormatError, match="truncated"):
            CompressedVolume(data[:length])


def test_every_flipped_bit_of_the_header_is_noticed(data: bytes, frame: Frame) -> None:
    header = len(data) - sum(len(segment.payload) for segment in frame.segments)
    for bit in range(8 * header):
        with pytest.raises(FormatError):
            CompressedVolume(flipped(data, bit))


@pytest.mark.parametrize("index", [0, 1, 2])
def test_random_damage_to_a_segment_is_noticed(data: bytes, frame: Frame, index: int) -> None:
    source = random.Random(index)
    sizes = [len(segment.payload) for segment in frame.segments]
    start = len(data) - sum(sizes[index:])
    for _ in range(200):
        damaged = data
        for _ in range(source.randint(1, 8)):
            damaged = flipped(damaged, 8 * start + source.randrange(8 * sizes[index]))
        if damaged != data:
            with pytest.raises(FormatError, match="damaged segment"):
                CompressedVolume(damaged)


# --- malice, which the checksums vouch for ---------------------------------------------------------------------------


def test_every_flipped_bit_of_a_plan_with_a_valid_checksum_is_survived(frame: Frame) -> None:
    for bit in range(8 * len(frame.header.plan)):
        outcome(with_plan(frame, flipped(frame.header.plan, bit)))


def test_random_plans_with_a_valid_checksum_are_survived(frame: Frame) -> None:
    source = random.Random(1)
    for _ in range(300):
        outcome(with_plan(frame, edited(frame.header.plan, source)))
        outcome(with_plan(frame, source.randbytes(source.randint(0, 12))))


def test_quality_with_a_valid_checksum_is_read_or_refused_by_its_length(frame: Frame) -> None:
    source = random.Random(2)
    for _ in range(100):
        payload = edited(frame.segments[0].payload, source)
        assert (outcome(with_payload(frame, 0, payload)) is None) == (len(payload) != 2 + 3 * 8)


@pytest.mark.parametrize("index", [1, 2])
def test_every_flipped_bit_of_a_parameter_head_with_a_valid_checksum_is_survived(frame: Frame, index: int) -> None:
    payload = frame.segments[index].payload
    for bit in range(8 * 24):
        outcome(with_payload(frame, index, flipped(payload, bit)))


@pytest.mark.parametrize("index", [1, 2])
def test_random_parameters_with_a_valid_checksum_are_survived(frame: Frame, index: int) -> None:
    source = random.Random(index)
    for _ in range(150):
        outcome(with_payload(frame, index, edited(frame.segments[index].payload, source)))
    for _ in range(50):
        outcome(with_payload(frame, index, source.randbytes(source.randint(0, 60))))


def test_a_segment_that_is_not_there_is_named(frame: Frame) -> None:
    for missing in frame.segments:
        kept = tuple(segment for segment in frame.segments if segment is not missing)
        volume = CompressedVolume(pack(replace(frame, segments=kept)), device="cpu")
        with pytest.raises(FormatError, match=f"expected a segment of kind {missing.kind}, item 0, level"):
            _ = volume.octants
        if missing.kind == KIND_PARAMETERS:
            with pytest.raises(FormatError, match=f"expected a segment of kind {missing.kind}, item 0, level"):
                volume.decode(CORNER)


def with_network(frame: Frame, layers: list[int], widths: list[list[int]], head: bytes, symbol: int) -> bytes:
    """Replace the network by another one, all of whose parameters are one symbol, deflated."""
    tree = Octree(frame.header.spatial_shape, frame.header.splits)
    network = TincNetwork.on_tree(tree, layers, [np.array(w) for w in widths])
    changed = with_plan(frame, FAMILY.pack(network))
    for index, count in enumerate(layers):
        tensors = 2 * (count + index)  # weights and biases; the leaves have an output layer
        parameters = network.node_parameters(index).reshape(Layout(network).blocks(0, index), -1).sum(1)
        streams = [zlib.compress(np.full(count, symbol, dtype="<i2").tobytes(), 9) for count in parameters]
        lengths = b"".join(varint(len(stream)) for stream in streams[:-1])
        payload = b"\x02" + head * tensors + lengths + b"".join(streams)
        changed = with_payload(parse(changed), 1 + index, payload)
    return changed


def test_networks_of_any_shape_and_extreme_weights_are_decoded_within_the_range_of_the_original(frame: Frame) -> None:
    source = random.Random(3)
    for _ in range(60):
        layers = [source.randint(1, 8), source.randint(1, 8)]
        classes = sorted(source.sample(range(1, 30), source.randint(1, 8)))
        widths = [[source.randint(1, 30)], [*source.choices(classes, k=8)]]
        step = source.choice([0, 100, 255])
        head = bytes([step, source.choice([0, 128])]) + varint(16383)
        assert outcome(with_network(frame, layers, widths, head, source.choice([-16383, 0, 16383]))) is not None


def test_bytes_after_the_symbols_are_refused(frame: Frame) -> None:
    for index in (1, 2):
        data = with_payload(frame, index, frame.segments[index].payload + bytes(8))
        with pytest.raises(FormatError, match="to end after its symbols"):
            CompressedVolume(data, device="cpu").decode(CORNER)


# --- malice in detail segments ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["wavelet", "tinc+wavelet"])
def detailed(request: pytest.FixtureRequest) -> Frame:
    """Real files with a detail layer, of the same volume; the detail segment is the last."""
    volume = compress(
        spot(), Target.size(900), preset="fast", time_limit=1, levels=2, device="cpu", model=request.param
    )
    frame = parse(volume.to_bytes())
    frame = replace(frame, segments=tuple(s for s in frame.segments if s.kind != KIND_RESTORATION))
    assert frame.segments[-1].kind == KIND_WAVELETS
    assert outcome(pack(frame)) is not None
    return frame


def test_every_flipped_bit_of_a_detail_head_with_a_valid_checksum_is_survived(detailed: Frame) -> None:
    payload = detailed.segments[-1].payload
    for bit in range(8 * 24):
        outcome(with_payload(detailed, -1, flipped(payload, bit)))


def test_random_details_with_a_valid_checksum_are_survived(detailed: Frame) -> None:
    source = random.Random(5)
    payload = detailed.segments[-1].payload
    decoded = 0
    for _ in range(150):
        decoded += outcome(with_payload(detailed, -1, edited(payload, source))) is not None
    for _ in range(50):
        # Behind a valid head anything is a stream: only the lengths can be wrong.
        head = payload[: source.randint(0, 30)]
        outcome(with_payload(detailed, -1, head + source.randbytes(source.randint(0, 60))))
    assert decoded > 20


LIMITS = {
    "u1": (0, 255), "i4": (-(2**31), 2**31 - 1), "f2": (-6e4, 6e4), "f4": (-2.0**127, 2.0**127),
    "f4 in float32": (0.0, 2.0**99), "f8": (0.0, 1.7e308), "f8 tiny": (0.0, 5e-324),
}  # fmt: skip


@pytest.mark.parametrize("name", LIMITS)
def test_the_largest_symbols_stay_within_the_range_of_any_dtype(name: str) -> None:
    limits, dtype = ItemRange(*LIMITS[name], 0, 0), name[:2]
    header = Header((8, 8, 8), dtype, Metadata.default(3), (limits,), (), MODEL_WAVELETS, b"", 0, 0, {})
    head = bytes([3, 3, 7, 7, 7]) + (2**14 - 1).to_bytes(2, "little") + b"\0\0" + varint(2**25)
    for stream in (b"\0" * 9, b"\xff" * 9, random.Random(6).randbytes(300)):
        payload = head + varint(len(stream)) + stream
        segments = (Segment(KIND_QUALITY, 0, 0, bytes(5)), Segment(KIND_WAVELETS, 0, 0, payload))
        voxels = CompressedVolume(pack(Frame(header, segments)), device="cpu").decode()
        assert limits.minimum <= voxels.min() <= voxels.max() <= limits.maximum


def test_a_detail_segment_that_is_not_there_is_named(detailed: Frame) -> None:
    if detailed.header.model != MODEL_WAVELETS:
        pytest.skip("a network may do without")
    volume = CompressedVolume(pack(replace(detailed, segments=detailed.segments[:-1])), device="cpu")
    with pytest.raises(FormatError, match="expected a wavelet or a directional segment for item 0, got none"):
        volume.decode(CORNER)
    with pytest.raises(FormatError, match="expected a wavelet or a directional segment for item 0, got none"):
        _ = volume.octants


INTERPRETED = """
import random, sys, warnings
import numpy as np
from napari_tinc.wavelets import coefficients
from napari_tinc.errors import FormatError
from napari_tinc.volume import CompressedVolume

warnings.simplefilter("error")
assert not hasattr(coefficients._decode_block, "py_func"), "compiled"
for name in sys.stdin.read().split():
    try:
        voxels = CompressedVolume(bytes.fromhex(name), device="cpu").decode()
    except FormatError:
        print("refused")
    else:
        print(voxels.tobytes().hex())
"""


def with_filter(frame: Frame, payload: bytes) -> bytes:
    return pack(replace(frame, segments=(*frame.segments, Segment(KIND_RESTORATION, 0, 0, payload))))


def test_any_filter_with_a_valid_checksum_is_survived(detailed: Frame) -> None:
    source = random.Random(8)
    for bins in (1, 2, 5, 16):
        edges = bytes(sorted(source.sample(range(1, 256), bins - 1)))
        for weights in (source.randbytes(12 * bins), bytes([127]) * 12 * bins, bytes([128]) * 12 * bins):
            assert outcome(with_filter(detailed, edges + weights)) is not None
    for payload in (b"", bytes(11), bytes(13), bytes(24), bytes([7, 7]) + bytes(36), bytes(13 * 17 - 1)):
        with pytest.raises(FormatError):
            CompressedVolume(with_filter(detailed, payload), device="cpu").decode(CORNER)


def with_mask(frame: Frame, payload: bytes) -> bytes:
    return pack(replace(frame, segments=(*frame.segments, Segment(KIND_MASK, 0, 0, payload))))


@pytest.fixture(scope="module")
def mask() -> bytes:
    """A mask of the spot, in several blocks of several octaves."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(masks, "_ROW_VOXELS", 0)
        patch.setattr(masks, "_FEW_CELLS", 2**6)
        coded = encode_mask(spot() > 40, int(spot().min()))
    assert len(coded.streams) > 8
    return pack_mask(coded, "u1")


def test_every_flipped_bit_of_a_mask_with_a_valid_checksum_is_survived(detailed: Frame, mask: bytes) -> None:
    assert outcome(with_mask(detailed, mask)) is not None
    for bit in range(8 * len(mask)):
        outcome(with_mask(detailed, flipped(mask, bit)))


def test_random_masks_with_a_valid_checksum_are_survived(detailed: Frame, mask: bytes) -> None:
    source = random.Random(9)
    decoded = 0
    for _ in range(150):
        decoded += outcome(with_mask(detailed, edited(mask, source))) is not None
    for _ in range(50):
        outcome(with_mask(detailed, mask[: source.randint(0, 30)] + source.randbytes(source.randint(0, 60))))
    assert decoded > 10


def test_a_mask_that_promises_much_is_refused_or_costs_what_is_asked_for() -> None:
    """A few hundred bytes for 2**30 voxels: a corner is decoded within the memory of some blocks."""
    shape, limits = (2**10,) * 3, ItemRange(0, 9, 0, 0)
    head = bytes([3, 10]) + bytes([7]) * 10 + (8000).to_bytes(2, "little") + b"\0\0\0"
    blocks = sum((2**10 // 2**k) ** 3 for k in range(4, 10))  # of wavelets, at sides of 8
    details = head + varint(0) + bytes(blocks)
    header = Header(shape, "u1", Metadata.default(3), (limits,), (), MODEL_WAVELETS, b"", 0, 0, {})
    coded = pyramid_of(shape, 64)
    for stream in (b"", b"\xff" * 9, random.Random(10).randbytes(50)):
        payload = b"\0\x06" + (varint(len(stream)) + varint(len(stream)) * coded.blocks) + stream * (1 + coded.blocks)
        segments = [Segment(KIND_QUALITY, 0, 0, bytes(5)), Segment(KIND_WAVELETS, 0, 0, details)]
        data = pack(Frame(header, (*segments, Segment(KIND_MASK, 0, 0, payload))))
        volume = CompressedVolume(data, device="cpu")
        within_memory(80, lambda volume=volume: volume.decode((slice(480, 500),) * 3))
        started = time.process_time()
        volume.decode((slice(0, 2),) * 3)
        volume.decode((slice(0, 4),) * 3, scale=1 / 64)
        assert time.process_time() - started < SECONDS


def with_blocks(payload: bytes) -> bytes:
    """A frame of directions."""
    limits = (ItemRange(0, 255, 0, 0),)
    splits = choose_splits((12,) * 3, 1)
    header = Header((12,) * 3, "u1", Metadata.default(3), limits, splits, MODEL_WAVELETS, b"", 0, 0, {})
    return pack(Frame(header, (Segment(KIND_QUALITY, 0, 0, bytes(26)), Segment(KIND_DIRECTIONAL, 0, 0, payload))))


@pytest.fixture(scope="module")
def blocks() -> bytes:
    """Directions of the spot, in several tiles of several root blocks."""
    values = spot().astype(np.float32) / 40
    values = values.reshape((1,) * (3 - values.ndim) + values.shape)
    depth, height, width = values.shape
    layout = tilings.Layout((depth, height, width), (2, 3, 3), (1, 1, 2))

    def read(box: tuple[tuple[int, int], ...]) -> npt.NDArray[np.float32]:
        return values[tuple(slice(a, b) for a, b in box)]

    fitted = complete(fit_step(read, None, layout, LATEST[0], code_of(0.5), Prices.guessed()))
    assert sum(len(stream) > 0 for stream in fitted.coded.streams) > 2
    return pack_directions(fitted.coded)


def test_every_flipped_bit_of_directions_with_a_valid_checksum_is_survived(blocks: bytes) -> None:
    assert outcome(with_blocks(blocks)) is not None
    for bit in range(8 * len(blocks)):
        outcome(with_blocks(flipped(blocks, bit)))


def test_random_directions_with_a_valid_checksum_are_survived(blocks: bytes) -> None:
    source = random.Random(11)
    decoded = 0
    for _ in range(150):
        decoded += outcome(with_blocks(edited(blocks, source))) is not None
    for _ in range(50):
        outcome(with_blocks(blocks[: source.randint(0, 30)] + source.randbytes(source.randint(0, 60))))
    assert decoded > 10


def test_directions_that_promise_much_cost_what_is_asked_for() -> None:
    """Some bytes for 2**26 voxels: a corner is decoded within the memory and the time of some tiles."""
    shape, limits = (256, 512, 512), ItemRange(0, 9, 0, 0)
    header = Header(shape, "u1", Metadata.default(3), (limits,), (), MODEL_WAVELETS, b"", 0, 0, {})
    for stream in (b"", b"\xff" * 9, random.Random(12).randbytes(50)):
        head = bytes([5, 5, 5, 4, 4, 8]) + (8000).to_bytes(2, "little") + b"\0\0"
        payload = head + varint(len(stream)) * 16 + stream * 16
        segments = (Segment(KIND_QUALITY, 0, 0, bytes(5)), Segment(KIND_DIRECTIONAL, 0, 0, payload))
        volume = CompressedVolume(pack(Frame(header, segments)), device="cpu")
        volume.decode((slice(0, 2),) * 3)  # compiles
        started = time.process_time()
        within_memory(160, lambda volume=volume: volume.decode((slice(140, 160),) * 3))
        assert time.process_time() - started < SECONDS


def test_interpreted_kernels_index_nothing_outside_and_overflow_nowhere(
    detailed: Frame, mask: bytes, blocks: bytes
) -> None:
    """Compiled code checks neither; Python and numpy do, and must see the same voxels."""
    source, payload = random.Random(7), detailed.segments[-1].payload
    files = [pack(detailed)]
    files += [with_payload(detailed, -1, edited(payload, source)) for _ in range(8)]
    files += [with_payload(detailed, -1, payload[:24] + source.randbytes(len(payload) - 24)) for _ in range(2)]
    files.append(with_filter(detailed, bytes([127, 128, 131]) + source.randbytes(4 * 12)))
    if detailed.header.model == MODEL_WAVELETS:  # once is enough for what has no network
        files += [with_mask(detailed, changed) for changed in (mask, *(edited(mask, source) for _ in range(3)))]
        files += [with_blocks(changed) for changed in (blocks, *(edited(blocks, source) for _ in range(3)))]
    run = subprocess.run(
        [sys.executable, "-c", INTERPRETED], input=" ".join(file.hex() for file in files), capture_output=True,
        text=True, timeout=200, env=os.environ | {"NUMBA_DISABLE_JIT": "1"},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    said = run.stdout.split()
    assert len(said) == len(files)
    assert sum(voxels != "refused" for voxels in said) > 3
    for file, voxels in zip(files, said, strict=True):
        if voxels == "refused":
            with pytest.raises(FormatError):
                CompressedVolume(file, device="cpu").decode()
        else:
            compiled = CompressedVolume(file, device="cpu").decode()
            interpreted = np.frombuffer(bytes.fromhex(voxels), compiled.dtype).reshape(compiled.shape)
            np.testing.assert_allclose(interpreted.astype(int), compiled.astype(int), atol=1)


# --- bombs -----------------------------------------------------------------------------------------------------------

LARGE = 2**8
EIGHT_LEVELS = ((True, True, True),) * 8


def level(layers: int, *widths: int, index: bytes | None = None) -> bytes:
    packed = b"" if index is None else zlib.compress(index, 9)
    return (
        bytes([layers, len(widths)]) + b"".join(map(varint, widths)) + (varint(len(packed)) + packed if packed else b"")
    )


PLANS: dict[str, tuple[bytes, str]] = {
    "width 2**62": (level(2, 2**62) + level(2, 4), "ascending widths from 1 to 4096"),
    "the widest network": (level(8, 4096) + level(8, 4096), "at most 1048576 parameters"),
    "wide leaves": (level(1, 1) + level(8, 4096), "at most 1048576 parameters"),
    "no layers": (level(0, 4) + level(2, 4), "1 to 8 layers"),
    "255 layers": (level(255, 4) + level(2, 4), "1 to 8 layers"),
    "no width": (level(2) + level(2, 4), "1 to 8 widths"),
    "many widths": (level(2, 4) + level(2, *range(1, 256)), "1 to 8 widths"),
    "width 0": (level(2, 0) + level(2, 4), "ascending widths"),
    "width twice": (level(2, 4) + level(2, 4, 4, index=bytes(8)), "ascending widths"),
    "widths downwards": (level(2, 4) + level(2, 5, 4, index=bytes(8)), "ascending widths"),
    "map of 50 MiB": (level(2, 4) + level(2, 4, 5, index=bytes(50 * 2**20)), "a width class for each of 8 nodes"),
    "map too short": (level(2, 4) + level(2, 4, 5, index=bytes(7)), "a width class for each of 8 nodes"),
    "map out of range": (level(2, 4) + level(2, 4, 5, index=bytes(7) + b"\x02"), "a width class for each of 8 nodes"),
    "map with something behind": (
        level(2, 4)
        + b"\x02\x02\x04\x05"
        + varint(len(zlib.compress(bytes(8))) + 1)
        + zlib.compress(bytes(8))
        + b"\x00",
        "a width class for each of 8 nodes",
    ),
    "map of nothing": (level(2, 4) + b"\x02\x02\x04\x05\x00", "a width class for each of 8 nodes"),
    "map that is not there": (level(2, 4) + b"\x02\x02\x04\x05" + varint(2**62), "the plan ends inside width map"),
    "nothing": (b"", "the plan ends inside layers"),
    "a level too few": (level(2, 4), "the plan ends inside layers"),
    "a level too many": (level(2, 4) * 3, "to end after its last level"),
}


def within_memory(megabytes: float, work: Callable[[], object]) -> None:
    tracemalloc.start()
    try:
        work()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < megabytes * 2**20


@pytest.mark.parametrize("name", PLANS)
def test_a_hostile_plan_is_refused_before_anything_is_allocated_for_it(frame: Frame, name: str) -> None:
    plan, text = PLANS[name]
    with pytest.raises(FormatError, match=text) as caught:
        within_memory(2, lambda: CompressedVolume(with_plan(frame, plan), device="cpu").decode(CORNER))
    assert "\n" not in str(caught.value)


def promise(model: int, plan: bytes = b"", segments: tuple[Segment, ...] = ()) -> bytes:
    """A few bytes that promise 16 million octants."""
    shape, default = (LARGE,) * 3, Metadata.default(3)
    limits = ItemRange(0, 0 if model == MODEL_CONSTANT else 9, 0, 0)
    return pack(Frame(Header(shape, "u1", default, (limits,), EIGHT_LEVELS, model, plan, 0, 0, {}), segments))


def test_millions_of_octants_in_a_few_bytes_are_refused_before_anything_is_allocated_for_them() -> None:
    everywhere = tuple(Segment(KIND_PARAMETERS, 0, level, b"") for level in range(9))
    data = promise(FAMILIES["tinc"].code, level(1, 1) * 9, everywhere)
    for ask in (lambda v: v.octants, lambda v: v.octant_map(0), lambda v: v.decode((slice(2),) * 3)):
        with pytest.raises(FormatError):
            within_memory(MEGABYTES, lambda ask=ask: ask(CompressedVolume(data, device="cpu")))
    with pytest.raises(FormatError, match="number of leaves"):
        promise(MODEL_CONSTANT)


def test_the_largest_network_that_few_bytes_may_claim_takes_little_memory() -> None:
    tree = Octree((64,) * 3, ((True, True, False), *((True,) * 3,) * 5))  # 2**17 leaves of four parameters
    plan = level(1, 1) * 7
    within_memory(MEGABYTES, lambda: FAMILY.parse(plan, tree, 1, allowed_parameters(0)))


@pytest.mark.parametrize("stream", [zlib.compress(bytes(50 * 2**20), 9), zlib.compress(b""), b"\x78", b""])
def test_a_deflated_segment_is_refused_unless_it_holds_the_symbols(frame: Frame, stream: bytes) -> None:
    payload = b"\x02" + b"\x80\x40\x01" * 4 + stream
    with pytest.raises(FormatError, match="defla"):
        within_memory(4, lambda: CompressedVolume(with_payload(frame, 1, payload), device="cpu").decode(CORNER))


def test_the_widest_symbol_tables_take_little_time_and_memory(frame: Frame) -> None:
    head = b"".join(bytes([128, code, 0xFF, 0x7F]) for code in (116, 117, 118, 119))  # bound 16383 for four tensors
    within_memory(MEGABYTES, lambda: outcome(with_payload(frame, 1, b"\x01" + head + bytes(64))))


def test_the_plan_of_any_network_the_writer_makes_is_read() -> None:
    tree = Octree((40, 40), ((True, True), (True, False)))
    widths = [np.array([7, 9]), np.array([3, 4, 5, 6, 3, 4, 5, 6]), np.arange(16) % 5 + 1]
    network = TincNetwork.on_tree(tree, (4, 1, 2), widths)
    again = FAMILY.parse(FAMILY.pack(network), tree, 2, allowed_parameters(0))
    assert again.layers == (4, 1, 2)
    for before, after in zip(widths, again.widths, strict=True):
        np.testing.assert_array_equal(before, after)

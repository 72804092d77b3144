"""Masks: every shape comes back, regions are what they are in the whole, and files have them where they pay."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_mask import MaskDecoder, inside
from scipy import ndimage

from napari_tinc import CompressedVolume, FormatError, Metadata, Target, compress
from napari_tinc.arrays.scratch import memory_limit
from napari_tinc.encode import masking
from napari_tinc.encode.outlines import extend, simplified
from napari_tinc.format import KIND_MASK, KIND_WAVELETS, Frame, ItemRange, Segment, pack, parse
from napari_tinc.geometry.octree import Octree, choose_splits
from napari_tinc.geometry.pyramid import BlockCache
from napari_tinc.limits import LIMITS
from napari_tinc.masks import mask as masks
from napari_tinc.masks.coder import INSIDE, MIXED, OUTSIDE
from napari_tinc.masks.mask import CodedMask, Mask, encode_mask
from napari_tinc.masks.payload import pack_mask, packed_mask_size, parse_mask

Inside = npt.NDArray[np.bool_]
RANGE = ItemRange(-3, 900, 0, 0)


def shape_of(sides: tuple[int, ...], seed: int = 0, sigma: float = 2) -> Inside:
    """Some blobs."""
    made: Inside = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=sides), sigma) > 0
    made.flat[0], made.flat[-1] = True, False
    return made


def whole(sides: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    return tuple((0, side) for side in sides)


def reader(coded: CodedMask, limit: int = 2**27, nbytes: int = 0) -> Mask:
    return Mask(coded, BlockCache(limit), nbytes)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that small volumes have several blocks at several octaves."""
    monkeypatch.setattr(masks, "_FEW_CELLS", 2**9)
    monkeypatch.setattr(masks, "_ROW_VOXELS", 0)


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(st.integers(1, 12), st.integers(1, 30), st.integers(1, 30)), st.integers(0, 10**6), st.floats(0, 1),
    st.sampled_from([2**3, 2**6, 2**18]),
)  # fmt: skip
def test_every_mask_comes_back(sides: tuple[int, int, int], seed: int, share: float, cells: int) -> None:
    random = np.random.default_rng(seed)
    marked = random.random(sides) < share
    if random.random() < 0.5:
        marked = ndimage.maximum_filter(marked, 3)
    if marked.all() or not marked.any():
        if marked.size == 1:
            return
        marked.flat[random.integers(marked.size)] ^= True
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(masks, "_FEW_CELLS", cells)
        patch.setattr(masks, "_ROW_VOXELS", 0)
        coded = parse_mask(pack_mask(encode_mask(marked, 7), "u2"), sides, RANGE, "u2")
    states = reader(coded).states(whole(sides), 1.0)
    np.testing.assert_array_equal(states, np.where(marked, INSIDE, OUTSIDE))


@pytest.mark.parametrize("full", [False, True])
def test_a_mask_of_one_side_only_is_coded_and_nearly_free(full: bool) -> None:
    marked = np.full((40, 41, 42), full)
    coded = encode_mask(marked, 0)
    assert packed_mask_size(coded, "u2") < 40
    assert (reader(coded).states(whole(marked.shape), 1.0) == (INSIDE if full else OUTSIDE)).all()


@pytest.mark.parametrize("sides", [(13, 11, 9), (1, 21, 23), (1, 1, 5), (17, 2, 16), (2, 1, 1)])
@pytest.mark.parametrize("dtype", ["u1", "i2", "f4"])
@pytest.mark.usefixtures("small_blocks")
def test_the_second_decoder_sees_the_same_states(sides: tuple[int, ...], dtype: str) -> None:
    marked = shape_of(sides, sigma=1)
    coded = encode_mask(marked, 5 if dtype == "u1" else -3)
    second = MaskDecoder(pack_mask(coded, dtype), dtype, sides)
    assert second.background == coded.background
    np.testing.assert_array_equal(second.cells[0] == 2, marked)
    ours = reader(coded)
    for octave, states in enumerate(second.cells):
        np.testing.assert_array_equal(ours._region(octave, whole(states.shape))[0], states)


def test_any_stream_decodes_to_the_same_in_both_decoders() -> None:
    random = np.random.default_rng(0)
    coded = encode_mask(shape_of((9, 10, 11)), 0)
    for size in (0, 1, 40, 400):
        changed = CodedMask(coded.pyramid, 0, random.bytes(size), coded.streams)
        second = MaskDecoder(pack_mask(changed, "u1"), "u1", (9, 10, 11))
        np.testing.assert_array_equal(reader(changed).states(whole((9, 10, 11)), 1.0), second.cells[0])


@pytest.mark.parametrize("limit", [0, 2**27])
@pytest.mark.usefixtures("small_blocks")
def test_a_region_of_a_mask_is_what_it_is_in_the_whole(limit: int) -> None:
    sides = (37, 20, 45)
    coded, random = encode_mask(shape_of(sides), 0), np.random.default_rng(1)
    assert coded.pyramid.trunk >= 2
    assert len(coded.streams) > 50
    for scale in (0.2, 0.25, 0.5, 0.7, 1.0, 3.0):
        scaled = tuple(max(1, math.ceil(side * scale - 1e-9)) for side in sides)
        states = reader(coded, limit).states(whole(scaled), scale)
        assert set(np.unique(states)) <= ({OUTSIDE, INSIDE} if scale > 0.5 else {OUTSIDE, MIXED, INSIDE})
        for _ in range(8):
            ends = [sorted(random.choice(side + 1, 2, replace=False).tolist()) for side in scaled]
            region = tuple((a, b) for a, b in ends)
            np.testing.assert_array_equal(
                reader(coded, limit).states(region, scale), states[tuple(slice(a, b) for a, b in region)]
            )


def test_coarse_samples_say_what_all_voxels_of_their_cell_are() -> None:
    marked = shape_of((24, 40, 32))
    states = reader(encode_mask(marked, 0)).states(whole((6, 10, 8)), 0.25)
    share = marked.reshape(6, 4, 10, 4, 8, 4).mean((1, 3, 5))
    np.testing.assert_array_equal(states, np.where(share == 1, INSIDE, np.where(share == 0, OUTSIDE, MIXED)))


def test_fine_samples_are_what_the_voxel_is_that_they_are_in() -> None:
    marked = shape_of((7, 8, 9))
    states = reader(encode_mask(marked, 0)).states(whole((21, 24, 27)), 3.0)
    expected = marked.repeat(3, 0).repeat(3, 1).repeat(3, 2)
    np.testing.assert_array_equal(states == INSIDE, expected)


@pytest.mark.usefixtures("small_blocks")
def test_the_bytes_of_a_mask_are_all_shared_out_and_a_region_needs_few_of_them() -> None:
    sides = (64, 64, 64)
    coded = encode_mask(shape_of(sides), 0)
    nbytes = packed_mask_size(coded, "u2")
    ours = reader(coded, nbytes=nbytes)
    tree = Octree(sides, choose_splits(sides, 2))
    assert ours.leaf_bytes(tree).sum() == pytest.approx(nbytes)
    assert ours.region_bytes(whole(sides), 1.0) == nbytes
    corner = ((0, 4),) * 3
    needed = ours.region_bytes(corner, 1.0)
    assert needed < 0.6 * nbytes
    assert ours.region_bytes(((0, 1),) * 3, 0.25) < needed
    # Those streams and no others: a region decodes alike when all the rest are lost.
    expected, kept = reader(coded).states(corner, 1.0), set[int]()
    around: tuple[tuple[int, int], ...] = corner
    for octave in range(coded.pyramid.trunk):
        inner, around = ours._above(octave, around)
        kept |= {coded.pyramid.number(octave, cell) for cell in coded.pyramid.meeting(inner)}
    assert needed == nbytes - sum(len(s) for i, s in enumerate(coded.streams) if i not in kept)
    damaged = tuple(s if i in kept else b"\xff" * 9 for i, s in enumerate(coded.streams))
    again = reader(CodedMask(coded.pyramid, 0, coded.trunk, damaged)).states(corner, 1.0)
    np.testing.assert_array_equal(again, expected)


def test_a_damaged_head_is_refused() -> None:
    good = pack_mask(encode_mask(shape_of((20, 21, 22)), 5), "u2")
    assert parse_mask(good, (20, 21, 22), RANGE, "u2").background == 5
    bad = [b"", good[:1], good[:-1], good + b"\0", b"\x0b" + good[1:], good[:1] + b"\0" + good[2:]]
    bad += [good[:1] + b"\x0a" + good[2:], good[:2] + b"\xff" * 9 + good[3:]]
    bad += [b"\x8e\x0e" + good[1:]]  # 903, above the maximum
    for payload in bad:
        with pytest.raises(FormatError):
            parse_mask(payload, (20, 21, 22), RANGE, "u2")
    for sides in ((1, 1, 1), (1, 1)):
        with pytest.raises(FormatError, match="octaves"):
            parse_mask(b"\x0a\x03\x01\x00", sides, RANGE, "u2")
    nothing = np.array(np.nan, "<f4").tobytes() + good[1:]
    with pytest.raises(FormatError, match="background"):
        parse_mask(nothing, (20, 21, 22), ItemRange(0.0, 1.0, 0, 0), "f4")
    with pytest.raises(FormatError, match="cells of a block"):
        parse_mask(b"\x0a\x09\x00" + bytes(9), (600, 600, 600), RANGE, "u2")
    with pytest.raises(FormatError, match="lengths of"):
        parse_mask(b"\x0a\x01\x00" + bytes(99), (2**20, 2**20, 64), RANGE, "u2")


# --- what the encoder makes of a volume -------------------------------------------------------------------------------


def brain(sides: tuple[int, ...] = (40, 64, 56), seed: int = 0) -> npt.NDArray[np.uint16]:
    """Something with texture, cut out of a background of exactly 0 by a sharp edge."""
    random = np.random.default_rng(seed)
    ends = [1.0 if side > 8 else 0.2 for side in sides]
    grid = np.stack(np.meshgrid(*(np.linspace(-e, e, n) for e, n in zip(ends, sides, strict=True)), indexing="ij"))
    wobble = ndimage.gaussian_filter(random.normal(size=sides), 6)
    marked = np.sqrt(np.square(grid).sum(0)) + 6 * wobble < 0.8
    texture = ndimage.gaussian_filter(random.normal(size=sides), 2) * 1500 + random.normal(size=sides) * 10
    return np.where(marked, np.clip(1000 + texture, 1, 3000), 0).astype(np.uint16)


def mask_of(volume: CompressedVolume, item: int = 0) -> bytes | None:
    return parse(volume.to_bytes()).get(KIND_MASK, item, 0)


def without_masks(monkeypatch: pytest.MonkeyPatch, *args: Any, **settings: Any) -> CompressedVolume:
    with monkeypatch.context() as patch:
        patch.setattr(masking, "_LEAST_SHARE", 2.0)
        volume = compress(*args, preset="fast", **settings)
    assert not [s for s in parse(volume.to_bytes()).segments if s.kind == KIND_MASK]
    return volume


def psnr(original: npt.NDArray[Any], decoded: npt.NDArray[Any]) -> float:
    error = np.square(original.astype(float) - decoded).mean()
    return float(10 * np.log10((float(original.max()) - float(original.min())) ** 2 / error))


@pytest.fixture(scope="module")
def masked() -> CompressedVolume:
    volume = compress(brain(), Target.ratio(48), preset="fast")
    assert mask_of(volume) is not None, "or nothing below is put to the test"
    return volume


def test_a_background_cut_out_is_exact_and_the_rest_is_better(
    masked: CompressedVolume, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, decoded = brain(), masked.decode()
    plain = without_masks(monkeypatch, original, Target.ratio(48))
    assert masked.nbytes <= original.nbytes / 48
    assert psnr(original, decoded) > psnr(original, plain.decode()) + 0.5
    assert np.mean(decoded[original == 0] == 0) > 0.99
    assert np.mean(decoded[original != 0] != 0) > 0.99
    assert masked.provenance["psnr"] == pytest.approx(psnr(original, decoded), abs=0.02)
    # What octants say was measured with the mask: those that are all background are exact.
    empty = [octant for octant in masked.octants if not original[octant.box].any()]
    assert all(octant.max_error == 0 or decoded[octant.box].any() for octant in empty)


def test_the_second_decoder_sees_the_same_mask(masked: CompressedVolume) -> None:
    payload = mask_of(masked)
    assert payload is not None
    marked, background = inside(payload, "u2", masked.shape)
    decoded = masked.decode()
    assert background == 0
    assert (decoded[~marked] == 0).all()
    assert (decoded[marked] != 0).mean() > 0.99


@pytest.mark.parametrize("scale", [0.3, 0.5, 1.0, 2.0])
def test_a_region_is_what_it_is_in_the_whole(masked: CompressedVolume, scale: float) -> None:
    everything = masked.decode(scale=scale).astype(int)
    z, y, x = everything.shape
    for region in ((z // 2,), (slice(None), y - 1), (slice(1, 4), slice(y // 3, y // 2), slice(3, x)), (0, 0, 0)):
        assert np.abs(masked.decode(region, scale).astype(int) - everything[region]).max() <= 1


def test_coarse_voxels_on_the_outline_are_half_background(masked: CompressedVolume) -> None:
    frame = parse(masked.to_bytes())
    bare = CompressedVolume(pack(Frame(frame.header, tuple(s for s in frame.segments if s.kind != KIND_MASK))))
    states = masked._decoders[0].mask.states(whole((20, 32, 28)), 0.5)  # type: ignore[union-attr]
    values, coarse = bare.decode(scale=0.5).astype(float), masked.decode(scale=0.5)
    expected = np.where(states == INSIDE, values, np.where(states == MIXED, values / 2, 0))
    assert (states == MIXED).sum() > 100
    assert np.abs(coarse - expected).max() <= 1


def test_octants_and_regions_count_the_bytes_of_the_mask(masked: CompressedVolume) -> None:
    segments = parse(masked.to_bytes()).segments
    spent = sum(len(s.payload) for s in segments if s.kind >= KIND_WAVELETS)
    assert sum(octant.nbytes for octant in masked.octants) == pytest.approx(spent)
    layers = sum(len(s.payload) for s in segments if s.kind in (KIND_WAVELETS, KIND_MASK))
    assert masked.region_bytes() == layers
    assert masked.region_bytes((slice(0, 2),)) <= layers


def test_an_image_and_a_thin_stack_have_masks_too() -> None:
    for sides in ((300, 280), (3, 200, 180)):
        original = brain(sides)
        volume = compress(original, Target.ratio(24), preset="fast")
        assert mask_of(volume) is not None
        assert np.mean(volume.decode()[original == 0] == 0) > 0.98


def test_every_item_has_its_own_mask_or_none() -> None:
    first, second = brain(seed=1), np.random.default_rng(0).normal(500, 100, (40, 64, 56)).astype(np.uint16)
    third = brain(seed=2)[::-1]
    metadata = Metadata("czyx", (1.0,) * 4, ("",) * 4)
    volume = compress(np.stack([first, second, third]), Target.ratio(32), metadata=metadata, preset="fast")
    assert [mask_of(volume, item) is not None for item in range(3)] == [True, False, True]
    decoded = volume.decode()
    for item, original in ((0, first), (2, third)):
        assert np.mean(decoded[item][original == 0] == 0) > 0.99
    assert np.abs(volume.decode_item(2).astype(int) - decoded[2]).max() <= 1


@pytest.mark.parametrize("dtype", ["u1", "i2", "f4", "i4"])
def test_any_background_of_any_dtype(dtype: str) -> None:
    scale, offset = (0.05, 3) if dtype == "u1" else (1, -700)
    original = (brain().astype(float) * scale + offset).astype(dtype)
    background = original.flat[0]
    volume = compress(original, Target.ratio(48), preset="fast")
    assert mask_of(volume) is not None
    assert np.mean(volume.decode()[original == background] == background) > 0.99


def test_a_psnr_is_reached_in_fewer_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    original = brain()
    plain = without_masks(monkeypatch, original, Target.psnr(34))
    volume = compress(original, Target.psnr(34), preset="fast")
    assert mask_of(volume) is not None
    assert volume.nbytes < 0.9 * plain.nbytes
    assert 34 <= psnr(original, volume.decode()) < 34.5


def speckled() -> npt.NDArray[np.uint8]:
    random = np.random.default_rng(0)
    smooth = ndimage.gaussian_filter(random.normal(size=(32, 48, 48)), 3) * 300 + 20
    return np.clip(smooth + random.normal(0, 12, smooth.shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("make", [speckled, lambda: np.random.default_rng(0).integers(0, 3, (24, 40, 40), "u1")])
def test_where_a_mask_does_not_pay_the_file_is_what_it_was(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    original = make()
    assert (original == 0).mean() > 0.1
    for ratio in (20, 100):
        volume = compress(original, Target.ratio(ratio), preset="fast")
        assert volume.to_bytes() == without_masks(monkeypatch, original, Target.ratio(ratio)).to_bytes()


def test_working_files_and_small_boxes_do_not_matter(masked: CompressedVolume, monkeypatch: pytest.MonkeyPatch) -> None:
    with memory_limit(2**12):
        assert compress(brain(), Target.ratio(48), preset="fast").to_bytes() == masked.to_bytes()
    monkeypatch.setattr(LIMITS, "voxels", 5000)
    boxed = CompressedVolume(masked.to_bytes()).decode()
    assert np.abs(boxed.astype(int) - masked.decode()).max() <= 1
    again = compress(brain(), Target.ratio(48), preset="fast")
    assert mask_of(again) == mask_of(masked)


@pytest.mark.parametrize("budget", [300, 500, 900, 2000])
def test_small_files_are_never_worse_nor_too_large(budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    original = brain((20, 32, 28))
    volume = compress(original, Target.size(budget), preset="fast")
    plain = without_masks(monkeypatch, original, Target.size(budget))
    assert volume.nbytes <= budget
    assert psnr(original, volume.decode()) >= psnr(original, plain.decode())


def test_weights_count_inside_and_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    original = brain()
    weights = np.where(np.arange(56) < 28, 4.0, 0.25) * np.ones((40, 64, 1))
    volume = compress(original, Target.ratio(64), preset="fast", weights=weights)
    assert mask_of(volume) is not None
    errors = np.square(original.astype(float) - volume.decode())[original != 0]
    left = np.broadcast_to(np.arange(56) < 28, original.shape)[original != 0]
    assert errors[left].mean() < 0.7 * errors[~left].mean()
    plain = without_masks(monkeypatch, original, Target.ratio(64), weights=weights)
    weighted = [(weights * np.square(original.astype(float) - v.decode())).sum() for v in (volume, plain)]
    assert weighted[0] < weighted[1]


def test_any_model_may_have_a_mask(any_model: CompressedVolume, original: npt.NDArray[Any]) -> None:
    frame = parse(any_model.to_bytes())
    marked = shape_of(original.shape)
    value = frame.header.items[0].minimum
    segment = Segment(KIND_MASK, 0, 0, pack_mask(encode_mask(marked, value), frame.header.dtype))
    cut = CompressedVolume(pack(Frame(frame.header, (*frame.segments, segment))), device="cpu")
    plain, decoded = any_model.decode(), cut.decode()
    assert (decoded[~marked] == value).all()
    np.testing.assert_allclose(decoded[marked].astype(float), plain[marked].astype(float), atol=1)
    assert cut.has_wide_planes


# --- outlines ---------------------------------------------------------------------------------------------------------


def test_a_continuation_keeps_what_is_inside_and_is_smooth_outside() -> None:
    values = np.add.outer(np.add.outer(np.arange(20.0), np.arange(24.0)), np.arange(28.0))
    marked = np.zeros(values.shape, bool)
    marked[4:15, 5:20, 6:22] = True
    smooth = np.where(marked, values, -1e6).astype(np.float32)
    extend(smooth, marked)
    np.testing.assert_array_equal(smooth[marked], values[marked].astype(np.float32))
    assert values[marked].min() - 1 <= smooth.min() <= smooth.max() <= values[marked].max() + 1
    steps = [np.abs(np.diff(smooth, axis=axis)).max() for axis in range(3)]
    assert max(steps) < 8


@pytest.mark.parametrize("sides", [(1, 1, 9), (1, 30, 1), (2, 3, 5)])
def test_a_continuation_of_one_voxel_is_that_value(sides: tuple[int, ...]) -> None:
    marked = np.zeros(sides, bool)
    marked.flat[1] = True
    values = np.where(marked, 42, np.nan).astype(np.float32)
    extend(values, marked)
    np.testing.assert_allclose(values, 42, rtol=1e-5)


def test_an_outline_is_simplified_where_the_error_is_worth_it() -> None:
    voxels = np.zeros((30, 30, 30))
    voxels[5:20, 5:20, 5:20] = 100
    voxels[25, 25, 25], voxels[10, 10, 20] = 3, 3  # a speck, and a bump on a face
    voxels[10, 10, 10] = 0  # a hole
    marked = voxels != 0
    differences = voxels.astype(np.float32)
    free = simplified(marked, differences, 0.0)
    np.testing.assert_array_equal(free, marked)
    cheap = simplified(marked, differences, 3.0)
    assert not cheap[25, 25, 25]
    assert not cheap[10, 10, 20]
    assert not cheap[10, 10, 10], "what would be lost there is too much"
    assert cheap[5:20, 5:20, 5:20].sum() == 15**3 - 1
    dear = simplified(marked, differences, 2000.0)
    assert dear[10, 10, 10]
    assert marked[10, 10, 20], "the original is left alone"

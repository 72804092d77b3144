"""A largest error holds for every voxel, and 0 loses nothing; by the page on the format alone, voxels are the same."""

from __future__ import annotations

import contextlib
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import zarr
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from mutators import edited, flipped, with_payload
from reference_predictive import correction, predicted
from reference_wavelets import detail_output
from synthetic import blobs
from typer.testing import CliRunner

from napari_tinc import BudgetError, CompressedVolume, FormatError, InputError, Metadata, Target, TincCodec, compress
from napari_tinc.chunks.array import Options, compress_array
from napari_tinc.chunks.image import of_array
from napari_tinc.chunks.manifest import read_manifest
from napari_tinc.cli.app import app
from napari_tinc.encode import bounding
from napari_tinc.format import KIND_CORRECTIONS, KIND_PREDICTED, KIND_WAVELETS, MODEL_PREDICTIVE, MODEL_WAVELETS, parse
from napari_tinc.predictive import blocks
from napari_tinc.predictive.blocks import BlockGrid
from napari_tinc.predictive.coder import Predictor, decode_block, encode_block
from napari_tinc.predictive.payload import parse_corrections, parse_predicted
from napari_tinc.samples import load, neuron_phantom
from napari_tinc.system.steps import complete

Array = npt.NDArray[Any]
DTYPES = ("u1", "i1", "u2", "i2", "u4", "i4", "f2", "f4")


def largest_error(original: Array, decoded: Array) -> float:
    assert (decoded.dtype, decoded.shape) == (original.dtype, original.shape)
    return float(np.abs(original.astype(np.longdouble) - decoded.astype(np.longdouble)).max())


def bounded(array: Array, error: float, **settings: Any) -> CompressedVolume:
    made = compress(array, Target.max_error(error), **settings)
    return CompressedVolume(made.to_bytes())


# --- the promise ------------------------------------------------------------------------------------------------------


@given(
    st.sampled_from(DTYPES).flatmap(
        lambda dtype: arrays.arrays(
            np.dtype(dtype),
            arrays.array_shapes(min_dims=2, max_dims=3, max_side=9),
            elements={"allow_nan": False, "allow_infinity": False} if dtype[0] == "f" else None,
        )
    ),
    st.sampled_from([0.0, 0.5, 1.0, 2.0, 7.0, 300.0, 1e6]),
)
@example(np.array([[0, np.finfo("f4").max]], "f4"), 0.5)
@settings(max_examples=60, deadline=None)
def test_any_array_keeps_to_any_error(array: Array, error: float) -> None:
    decoded = bounded(array, error).decode()
    if error == 0:
        assert decoded.tobytes() == array.tobytes() or (decoded == array).all()  # of a constant, -0 is 0
    else:
        assert largest_error(array, decoded) <= error


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("share", [0.0, 0.002, 0.02, 0.2])
def test_images_of_all_dtypes_keep_to_errors_of_all_sizes(dtype: str, share: float) -> None:
    span = {"u1": 255, "i1": 120, "f2": 300.0}.get(dtype, 4000)
    image = (
        (neuron_phantom((12, 40, 44)).noisy.astype(float) / 22000).clip(0, 1) * span - (dtype[0] != "u") * span / 3
    ).astype(dtype)
    error = share * span if dtype[0] == "f" else float(int(share * span))
    volume = bounded(image, error)
    decoded = volume.decode()
    assert largest_error(image, decoded) <= error
    if not error:
        assert decoded.tobytes() == image.tobytes()
    assert volume.provenance["max_error"] == min(error, float(image.max()) - float(image.min()))
    assert volume.nbytes < image.nbytes


def test_both_ways_are_taken_where_they_are_smaller() -> None:
    image = neuron_phantom((24, 64, 64)).noisy
    models = [bounded(image, error).header.model for error in (0, 2, 400)]
    assert models == [MODEL_PREDICTIVE, MODEL_PREDICTIVE, MODEL_WAVELETS]


def test_the_promise_holds_for_other_decoders() -> None:
    """Voxels that are off by as much as decoders may be, before they are rounded, are corrected well enough."""
    image = neuron_phantom((16, 64, 64)).noisy
    volume = bounded(image, 150)
    assert volume.header.model == MODEL_WAVELETS
    frame = parse(volume.to_bytes())
    payload = frame.find(KIND_CORRECTIONS, 0, 0)
    moved = correction(payload, image.shape, "u2")
    limits = volume.header.items[0]
    exact = np.empty(image.shape)  # not rounded
    volume._decoders[0].inner.decode(tuple((0, n) for n in image.shape), 1.0, exact)  # type: ignore[attr-defined]
    apart = bounding.DECODERS_APART * limits.span + 2 * np.spacing(np.float32(limits.maximum))
    for shift in (-apart, apart, np.random.default_rng(0).choice([-apart, apart], image.shape)):
        base = np.clip(np.rint(exact + shift), limits.minimum, limits.maximum)
        other = np.clip(base + moved, limits.minimum, limits.maximum)
        assert np.abs(other - image).max() <= 150


@pytest.mark.parametrize("step", [2.0, 60.0, 800.0])
def test_decoders_are_not_as_far_apart_as_the_page_allows(step: float) -> None:
    """Ours computes in float32, the second decoder in float64."""
    image = neuron_phantom((9, 30, 37)).noisy
    volume = compress(image, Target.step(step))
    limits, frame = volume.header.items[0], parse(volume.to_bytes())
    other = limits.offset + limits.scale * detail_output(frame.find(KIND_WAVELETS, 0, 0), image.shape)
    layer = volume._decoders[0].unrestored(tuple((0, n) for n in image.shape), 1.0)  # type: ignore[attr-defined]
    ours = layer * np.float32(limits.scale) + np.float32(limits.offset)
    assert ours.dtype == np.float32
    assert (
        np.abs(other - ours).max()
        < (bounding.DECODERS_APART * limits.span + 2 * np.spacing(np.float32(limits.maximum))) / 4
    )


def test_integers_may_have_errors_that_are_no_whole_numbers() -> None:
    image = blobs((8, 20, 20))
    assert largest_error(image, bounded(image, 2.9).decode()) <= 2
    assert bounded(image, 0.9).decode().tobytes() == image.tobytes()


def test_values_that_are_few_are_listed() -> None:
    levels = np.array([0, 17, 1000, 1001, 40000], "u2")
    image = levels[np.random.default_rng(0).integers(0, 5, (8, 30, 30)).cumsum(axis=2) // 7 % 5]
    exact = bounded(image, 0)
    np.testing.assert_array_equal(exact.decode(), image)
    assert exact.nbytes < image.nbytes / 6
    near = bounded(image, 10)
    assert largest_error(image, near.decode()) <= 10
    assert near.nbytes <= exact.nbytes + 8


def test_channels_and_times_are_kept_by_themselves() -> None:
    image = np.stack([blobs((6, 30, 32)), blobs((6, 30, 32)) // 3 + 7, np.full((6, 30, 32), 5, "u2")])
    for error in (0, 3, 60):
        volume = bounded(image, error, metadata=Metadata("czyx", (1.0,) * 4, ("",) * 4))
        assert largest_error(image, volume.decode()) <= error
        np.testing.assert_array_equal(volume.decode((1, slice(2, 4), 3)), volume.decode()[1, 2:4, 3])


@pytest.mark.parametrize("error", [1e9, 1e18, 1e300])
def test_an_error_beyond_the_range_leaves_next_to_nothing(error: float) -> None:
    image = blobs((8, 20, 20))
    for array in (image, image.astype("f4") / 7):
        volume = bounded(array, error)
        assert volume.nbytes < 400
        assert volume.decode().min() >= array.min()


# --- what cannot be asked for -----------------------------------------------------------------------------------------


def test_what_makes_no_sense_is_refused() -> None:
    image = blobs((8, 20, 20))
    with pytest.raises(InputError, match="positive target"):
        Target.max_error(-1)
    with pytest.raises(InputError, match="positive target"):
        Target.max_error(float("nan"))
    with pytest.raises(InputError, match="positive target"):
        Target.ratio(0)
    with pytest.raises(InputError, match="for a largest error"):
        compress(image, Target.max_error(1), preset="balanced")
    with pytest.raises(InputError, match="no weights"):
        compress(image, Target.max_error(1), weights=np.ones(image.shape))
    with pytest.raises(InputError, match="32 bits"):
        compress(image.astype("f8"), Target.max_error(1))
    with pytest.raises(BudgetError):
        Target.max_error(1).budget(100, 50)


# --- regions, scales, octants -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def brain() -> Array:
    return load("brain")[0][:24, :48, :40]


@pytest.fixture(scope="module", params=[0, 500], ids=["bins", "corrections"])
def cut(request: pytest.FixtureRequest, brain: Array) -> CompressedVolume:
    """A file of many blocks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "_THIN", 5)
        patch.setattr(blocks, "_SIDE", 17)
        patch.setattr(blocks, "_VOXELS", 1)
        volume = bounded(brain, request.param)
    frame = parse(volume.to_bytes())
    kind, parser = (KIND_PREDICTED, parse_predicted) if not request.param else (KIND_CORRECTIONS, parse_corrections)
    coded = parser(frame.find(kind, 0, 0), brain.shape, np.dtype("u2"))
    assert coded.numbers.grid.counts == (5, 3, 3)
    return volume


def test_regions_are_parts_of_the_whole(cut: CompressedVolume) -> None:
    whole, source = cut.decode(), random.Random(0)
    for _ in range(20):
        starts = [source.randrange(n) for n in whole.shape]
        region = tuple(slice(a, source.randint(a + 1, n)) for a, n in zip(starts, whole.shape, strict=True))
        np.testing.assert_array_equal(CompressedVolume(cut.to_bytes()).decode(region), whole[region])
        assert 0 < cut.region_bytes(region) <= cut.region_bytes()
    assert cut.region_bytes((0, 0, 0)) < cut.region_bytes() / 2


def test_other_scales_show_the_same_image(cut: CompressedVolume, brain: Array) -> None:
    half = cut.decode(scale=0.5)
    assert half.shape == tuple(n // 2 for n in brain.shape)
    means = brain.reshape(12, 2, 24, 2, 20, 2).mean((1, 3, 5))
    assert np.corrcoef(half.ravel(), means.ravel())[0, 1] > 0.5
    part = cut.decode((slice(2, 9), slice(3, 20)), 0.5)
    np.testing.assert_array_equal(part, half[2:9, 3:20])
    assert cut.decode(scale=2.0).shape == tuple(2 * n for n in brain.shape)


def test_octants_say_what_they_lost_and_took(cut: CompressedVolume, brain: Array) -> None:
    whole = cut.decode()
    assert sum(octant.nbytes for octant in cut.octants) <= cut.nbytes
    for octant in cut.octants:
        assert octant.max_error >= np.abs(whole[octant.box].astype(int) - brain[octant.box]).max()
        assert octant.nbytes > 0


# --- the page on the format -------------------------------------------------------------------------------------------


def second(volume: CompressedVolume) -> Array:
    frame, limits = parse(volume.to_bytes()), volume.header.items[0]
    payload = frame.find(KIND_PREDICTED, 0, 0)
    return predicted(payload, volume.shape, volume.header.dtype, limits.minimum, limits.maximum)


@pytest.mark.parametrize(
    ("array", "error"),
    [
        (blobs((5, 11, 13)), 0),
        (blobs((5, 11, 13)), 6),
        (blobs((21, 19)), 0),
        (blobs((21, 19)).astype("f4") / 7 - 3, 0),
        (blobs((4, 9, 11)).astype("f4") / 7 - 3, 0.01),
        (blobs((4, 9, 11)).astype("f2") / 7 - 3, 0),
        (blobs((4, 9, 11)) // 300 * 999, 0),
        (np.random.default_rng(0).integers(-(2**31), 2**31, (2, 5, 6)).astype("i4"), 0),
        (np.random.default_rng(0).integers(0, 2, (3, 9, 9)).astype("u4") * np.uint32(2**32 - 1), 1),
    ],
)
def test_the_page_alone_suffices_to_read_predicted_voxels(array: Array, error: float) -> None:
    volume = bounded(array, error)
    assert volume.header.model == MODEL_PREDICTIVE
    assert second(volume).tobytes() == volume.decode().tobytes()


def test_the_page_alone_suffices_to_read_blocks_and_corrections(brain: Array) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "_THIN", 5)
        patch.setattr(blocks, "_SIDE", 17)
        patch.setattr(blocks, "_VOXELS", 1)
        part = brain[:9, :20, :25]
        volume, moved = bounded(part, 0), bounded(brain, 1500)
    assert second(volume).tobytes() == part.tobytes()
    payload = parse(moved.to_bytes()).find(KIND_CORRECTIONS, 0, 0)
    base = np.empty_like(brain)
    moved._decoders[0].inner.decode(tuple((0, n) for n in brain.shape), 1.0, base)  # type: ignore[attr-defined]
    limits = moved.header.items[0]
    expected = np.clip(base + correction(payload, brain.shape, "u2"), limits.minimum, limits.maximum)
    np.testing.assert_array_equal(moved.decode(), expected)
    assert (moved.decode() != base).any()


@given(st.binary(max_size=40), st.integers(1, 2**33 - 1), st.booleans())
@settings(max_examples=60, deadline=None)
def test_any_bytes_decode_to_numbers_in_their_bounds(stream: bytes, largest: int, corrections: bool) -> None:
    weights = np.random.default_rng(0).integers(-(2**15), 2**15, (3, 16))
    predictor = None if corrections else Predictor(np.array([5, 500]), weights)
    numbers = decode_block(stream, (2, 3, 4), predictor, largest)
    assert numbers.max() <= largest
    assert numbers.min() >= (-largest if corrections else 0)


@given(st.integers(1, 2**33 - 1), st.booleans(), st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_any_numbers_come_back_with_any_predictor(largest: int, corrections: bool, source: random.Random) -> None:
    low = -largest if corrections else 0
    numbers = np.array([source.choice((low, largest, source.randint(low, largest))) for _ in range(60)]).reshape(
        3, 4, 5
    )
    weights = np.array([[source.randint(-(2**15), 2**15) for _ in range(16)] for _ in range(3)])
    predictor = None if corrections else Predictor(np.array([7, 2**30]), weights)
    stream = encode_block(numbers, predictor, largest)
    np.testing.assert_array_equal(decode_block(stream, numbers.shape, predictor, largest), numbers)


def test_blocks_cover_a_volume_and_are_small() -> None:
    source = random.Random(0)
    for _ in range(200):
        z, y, x = (source.choice((1, source.randint(1, 40), source.randint(1, 5000))) for _ in range(3))
        grid = BlockGrid.of((z, y, x))
        assert np.prod(grid.sides) <= blocks.MAX_BLOCK
        assert all(
            (count - 1) * side < n <= count * side
            for count, side, n in zip(grid.counts, grid.sides, (z, y, x), strict=True)
        )


# --- hostile files ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [0, 6, 300])
def test_every_flipped_bit_with_a_valid_checksum_is_survived(error: int) -> None:
    image = blobs((6, 13, 17)) if error < 300 else neuron_phantom((6, 20, 24)).noisy
    frame = parse(bounded(image, error).to_bytes())
    kind = KIND_PREDICTED if error < 300 else KIND_CORRECTIONS
    payload = frame.find(kind, 0, 0)
    place = [segment.kind for segment in frame.segments].index(kind)
    bits = (
        range(8 * len(payload)) if len(payload) < 200 else sorted(random.Random(0).sample(range(8 * len(payload)), 800))
    )
    decoded = 0
    for bit in bits:
        try:
            CompressedVolume(with_payload(frame, place, flipped(payload, bit))).decode()
            decoded += 1
        except FormatError:
            pass
    assert decoded > 0
    source = random.Random(1)
    for _ in range(150):
        with contextlib.suppress(FormatError):
            CompressedVolume(with_payload(frame, place, edited(payload, source))).decode()


# --- the doors --------------------------------------------------------------------------------------------------------


def test_the_command_line(tmp_path: Path) -> None:
    image = blobs((8, 20, 20))
    np.save(tmp_path / "a.npy", image)
    out = tmp_path / "a.tinc"
    done = CliRunner().invoke(app, ["compress", str(tmp_path / "a.npy"), str(out), "--max-error", "0", "--json"])
    assert done.exit_code == 0, done.output
    np.testing.assert_array_equal(CompressedVolume.open(out).decode(), image)
    assert json.loads(CliRunner().invoke(app, ["info", str(out), "--json"]).stdout)["model"] == "predictive"
    both = CliRunner().invoke(app, ["compress", str(tmp_path / "a.npy"), str(out), "--max-error", "0", "--ratio", "4"])
    assert "--max-error" in both.output


def test_zarr_arrays(tmp_path: Path) -> None:
    image = neuron_phantom((20, 40, 50)).noisy
    for error in (0, 5):
        codec = TincCodec(max_error=error)
        made = zarr.create_array(
            tmp_path / f"{error}.zarr", data=image, chunks=(16, 32, 32), serializer=codec, compressors=None
        )
        assert largest_error(image, zarr.open_array(tmp_path / f"{error}.zarr")[...]) <= error
        assert made.nbytes_stored() < image.nbytes
    floats = image.astype("f4") / 3
    lossless = zarr.create_array(
        {}, data=floats, chunks=(20, 40, 50), serializer=TincCodec(max_error=0), compressors=None
    )
    assert lossless[...].tobytes() == floats.tobytes()


@pytest.mark.parametrize("dtype", ["f8", "i8", "b1"])
def test_chunks_that_only_exact_frames_hold_are_exact(dtype: str) -> None:
    image = (neuron_phantom((20, 40, 50)).noisy // 7).astype(dtype)
    made = zarr.create_array({}, data=image, chunks=(20, 40, 50), serializer=TincCodec(max_error=5), compressors=None)
    assert made[...].tobytes() == image.tobytes()


def test_ome_zarr(tmp_path: Path) -> None:
    image = neuron_phantom((20, 70, 80)).noisy
    path = tmp_path / "a.zarr"
    complete(compress_array(of_array(image, Metadata.default(3)), path, Options(Target.max_error(4), chunk=32)))
    group, manifest = zarr.open_group(path), read_manifest(path)
    assert manifest is not None
    assert largest_error(image, group["0"][...]) <= 4
    assert manifest.facts["max_error"] == 4
    assert 0 < manifest.facts["largest_error"] <= 4
    assert group["0"].metadata.codecs[0].max_error == 4

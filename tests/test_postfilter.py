from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from reference_postfilter import postfiltered
from scipy import ndimage
from torch.nn import functional

import napari_tinc.postfilter
from napari_tinc import CompressedVolume, FormatError, Metadata, Target
from napari_tinc.encode import framing, postfiltering
from napari_tinc.encode.attempts import with_wavelets_alone
from napari_tinc.encode.original import Original
from napari_tinc.format import KIND_POSTFILTER, Segment, pack, parse
from napari_tinc.networks.filter_training import Piece, train_filter
from napari_tinc.postfilter import (
    CENTRE,
    REACH,
    PostFilter,
    compress,
    pack_postfilter,
    parse_postfilter,
    postfilter_size,
)
from napari_tinc.settings import Settings
from napari_tinc.system.steps import complete, relay

Floats = npt.NDArray[np.float32]
GOLDEN = sorted((Path(__file__).parent / "golden").glob("v1-postfiltered-*.tinc"))


def noise(*shape: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def padded(values: Floats) -> Floats:
    return np.pad(values, REACH, mode="edge")


def any_filter(channels: int) -> PostFilter:
    rng = np.random.default_rng(channels)
    first = rng.integers(-7, 8, (channels, 2, 27)).astype(np.int8)
    first[:, 0, CENTRE] = 0
    steps, biases = rng.uniform(0.01, 0.05, (2, channels)).astype(np.float32)
    last = rng.integers(-7, 8, (channels, 27)).astype(np.int8)
    return PostFilter(float(np.float32(0.3)), steps, biases, first, float(np.float32(0.02)), 0.125, last)


def tubes(*shape: int) -> npt.NDArray[np.uint16]:
    """Clean things with edges, as rounded coefficients blur them."""
    inside = ndimage.gaussian_filter(noise(*shape), 3) > 0.03
    return (1000 + 3000 * ndimage.gaussian_filter(inside.astype(float), 0.7)).astype(np.uint16)


@pytest.mark.parametrize("shape", [(4, 5, 6), (1, 6, 5), (1, 1, 9)])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_filter_is_the_one_of_the_page(shape: tuple[int, ...], channels: int) -> None:
    values, chosen = noise(*shape), any_filter(channels)
    expected = postfiltered(pack_postfilter(chosen), values)
    assert np.abs(expected - values).max() > 0.01
    np.testing.assert_allclose(chosen.apply(padded(values)), expected, rtol=0, atol=2e-5)


def test_the_filter_is_what_torch_computes() -> None:
    values, chosen = noise(9, 12, 11), any_filter(8)
    first = chosen.first.astype(np.float32) * chosen.steps[:, None, None]
    first[:, 0, CENTRE] = -first[:, 0].sum(1)
    x = torch.from_numpy(padded(values) / np.float32(chosen.scale))
    seen = torch.stack([x, x / (1 + x.abs()) ** 0.75])[None]
    hidden = functional.conv3d(seen, torch.from_numpy(first.reshape(8, 2, 3, 3, 3)), torch.from_numpy(chosen.biases))
    last = torch.from_numpy(chosen.last.reshape(1, 8, 3, 3, 3) * np.float32(chosen.last_step))
    moved = functional.conv3d(hidden.relu(), last)[0, 0] + chosen.last_bias
    np.testing.assert_allclose(chosen.apply(padded(values)), values + chosen.scale * moved.numpy(), rtol=0, atol=1e-5)


def test_parts_and_threads_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    values, chosen = noise(9, 10, 11), any_filter(4)
    whole = chosen.apply(padded(values))
    monkeypatch.setattr(napari_tinc.postfilter, "_PART_VOXELS", 50)
    np.testing.assert_array_equal(chosen.apply(padded(values)), whole)


def test_compressed_values_are_what_the_page_says() -> None:
    values = np.array([0, 1, -1, 1e-3, -1e5, 3e38], np.float32)
    np.testing.assert_allclose(
        compress.py_func(values), values / (1 + np.abs(values.astype(np.float64))) ** 0.75, rtol=1e-6
    )


def test_weights_of_a_hostile_file_give_finite_voxels() -> None:
    huge = replace(any_filter(3), steps=np.full(3, 3e38, np.float32))
    assert np.isfinite(huge.apply(padded(noise(5, 6, 7)))).all()


@pytest.mark.parametrize("channels", [1, 8, 32])
def test_a_filter_survives_its_segment(channels: int) -> None:
    chosen = any_filter(channels)
    payload = pack_postfilter(chosen)
    assert len(payload) == postfilter_size(channels)
    values = noise(5, 6, 7)
    np.testing.assert_array_equal(parse_postfilter(payload).apply(padded(values)), chosen.apply(padded(values)))
    assert pack_postfilter(parse_postfilter(payload)) == payload


def set_float(payload: bytes, at: int, value: float) -> bytes:
    return payload[:at] + np.array(value, "<f4").tobytes() + payload[at + 4 :]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda payload: payload[:-1],
        lambda payload: payload[:12],
        lambda payload: b"",
        lambda payload: payload + bytes(48 * 31),
        lambda payload: set_float(payload, 0, 0),
        lambda payload: set_float(payload, 0, -1),
        lambda payload: set_float(payload, 4, np.inf),
        lambda payload: set_float(payload, 12, np.nan),
        lambda payload: payload[:-1] + b"\x0f",
    ],
)
def test_what_is_no_filter_is_refused(spoil: Callable[[bytes], bytes]) -> None:
    with pytest.raises(FormatError):
        parse_postfilter(spoil(pack_postfilter(any_filter(2))))


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_any_filter_with_a_valid_checksum_is_survived(path: Path) -> None:
    frame, source, sound = parse(path.read_bytes()), random.Random(8), 0
    limits = frame.header.items[0]
    for _ in range(60):
        channels = source.choice((1, 2, 5))
        numbers = [source.uniform(0, 10) ** source.choice((1, 9)) for _ in range(3 + 2 * channels)]
        floats = np.array(numbers, "<f4").tobytes()
        weights = bytes(source.randrange(256) | 17 for _ in range(40 * channels))
        payload = floats[:12] + b"".join(
            floats[12 + 8 * i : 20 + 8 * i] + weights[40 * i : 40 * i + 40] for i in range(channels)
        )
        payload = source.choice((payload, payload, source.randbytes(len(payload))))
        kept = tuple(s for s in frame.segments if s.kind != KIND_POSTFILTER)
        try:
            voxels = CompressedVolume(
                pack(replace(frame, segments=(*kept, Segment(KIND_POSTFILTER, 0, 0, payload))))
            ).decode_item(0)
        except FormatError:
            continue
        sound += 1
        assert limits.minimum <= voxels.min() <= voxels.max() <= limits.maximum
    assert 0 < sound < 60


def test_what_is_not_a_number_becomes_one() -> None:
    chosen = replace(any_filter(2), scale=1e-38, last_step=3e38, last_bias=3e38)
    assert np.isfinite(chosen.apply(padded(100 * noise(4, 5, 6)))).all()


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_regions_and_scales_are_those_of_the_whole(path: Path) -> None:
    volume = CompressedVolume.open(path)
    assert KIND_POSTFILTER in volume.kinds
    whole = volume.decode().astype(np.float64)
    tolerance = 1e-5 * (whole.max() - whole.min()) + (whole.dtype.kind != "f")
    for region in [
        (slice(0, 1), slice(5, 17), slice(3, 4)),
        (1, slice(None), slice(20, 33)),
        (slice(1, 2), 0, slice(7)),
    ]:
        np.testing.assert_allclose(volume.decode(region), whole[region], rtol=0, atol=tolerance)
    twice = volume.decode(scale=2.0).astype(np.float64)
    assert np.abs(twice.mean() - whole.mean()) < 0.02 * (whole.max() - whole.min())


def pieces_of(sharp: Floats, soft: Floats) -> list[Piece]:
    return [Piece(padded(soft), sharp, np.ones(sharp.shape, np.float32))]


def trained(pieces: list[Piece], steps: int = 300) -> PostFilter | None:
    return complete(train_filter(pieces, 8, steps, 0, "cpu", lambda: 0.0))


def blurred() -> tuple[Floats, Floats]:
    sharp = (ndimage.gaussian_filter(noise(40, 41, 42), 2) > 0).astype(np.float32)
    return sharp, ndimage.gaussian_filter(sharp, 1)


def test_training_undoes_a_blur_better_than_any_linear_filter_on_what_it_has_not_seen() -> None:
    sharp, soft = blurred()
    chosen = trained(pieces_of(sharp[:20], soft[:20]), 350)
    assert chosen is not None
    # The best linear filter of 3³ neighbours, fitted to what it is judged by.
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(soft, 1, mode="edge"), (3, 3, 3))[20:].reshape(-1, 27)
    wanted = sharp[20:].ravel()
    linear = windows @ np.linalg.lstsq(windows, wanted, rcond=None)[0]
    after = chosen.apply(padded(soft))[20:]
    assert np.square(after.ravel() - wanted).mean() < 0.95 * np.square(linear - wanted).mean()


def test_training_gives_up_soon_on_noise_and_is_the_same_twice() -> None:
    soft = ndimage.gaussian_filter(noise(64, 64, 64), 1)
    told: list[float] = []
    training = train_filter(pieces_of(soft + noise(64, 64, 64, seed=1), soft), 4, 1000, 0, "cpu", lambda: 0.0)
    assert complete(relay(training, told.append)) is None
    assert 200 < len(told) < 300
    sharp, soft = blurred()
    first, second = trained(pieces_of(sharp, soft), 40), trained(pieces_of(sharp, soft), 40)
    assert first is not None
    assert second is not None
    assert pack_postfilter(first) == pack_postfilter(second)


def test_training_stops_when_its_time_is_over() -> None:
    sharp, soft = blurred()
    assert complete(train_filter(pieces_of(sharp, soft), 4, 10**9, 0, "cpu", lambda: 1.0)) is None


@pytest.fixture(scope="module")
def clean() -> Original:
    return Original.prepare(tubes(40, 64, 64), Metadata.default(3), None)


def test_a_clean_volume_gains_and_the_budget_holds(clean: Original) -> None:
    settings = Settings(preset="balanced", device="cpu")
    budget = Target.ratio(40).budget(clean.items.nbytes, clean.items.size)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(postfiltering, "_SHARE", 0.2)
        patch.setattr(postfiltering, "_STEPS", {"balanced": 300})
        best = complete(with_wavelets_alone(clean, settings, budget))
        made = complete(postfiltering.with_postfilters(settings, budget, best))
    assert made.content.postfilters
    assert made.error < 0.97 * best.error
    assert made.nbytes + framing.PROVENANCE_SLACK <= budget


def test_a_small_file_goes_without(clean: Original) -> None:
    settings = Settings(preset="balanced", device="cpu")
    best = complete(with_wavelets_alone(clean, settings, 2000))
    assert complete(postfiltering.with_postfilters(settings, 2000, best)) is best

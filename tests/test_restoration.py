from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from reference_restoration import restored
from scipy import ndimage

import napari_tinc.restoration
from napari_tinc import CompressedVolume, FormatError, Metadata, Target, compress, lanes, layers
from napari_tinc.encode import filters
from napari_tinc.encode import plan as planning
from napari_tinc.encode.framing import Content
from napari_tinc.encode.original import Original
from napari_tinc.format import KIND_RESTORATION, KIND_WAVELETS, Frame, Segment, pack, parse
from napari_tinc.restoration import (
    MAX_BINS,
    RADIUS,
    Mapping,
    Moments,
    Restoration,
    Surrounded,
    around,
    pack_restoration,
    parse_restoration,
    restoration_size,
)
from napari_tinc.settings import Settings
from napari_tinc.wavelets.payload import parse_wavelets

Floats = npt.NDArray[np.float32]
ONE = np.ones((1, 1, 1), np.float32)


def noise(*shape: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def cells(shape: tuple[int, ...]) -> npt.NDArray[np.uint16]:
    """Bright things with edges, as a microscope shows them."""
    inside = ndimage.gaussian_filter(noise(*shape), 3) > 0
    return (1000 + 3000 * ndimage.gaussian_filter(inside.astype(float), 0.6) + 20 * noise(*shape)).astype(np.uint16)


def alone(values: Floats) -> Surrounded:
    bounds = tuple((0, n) for n in values.shape)
    return Surrounded.of(values, bounds, bounds)


def any_filter(bins: int) -> Restoration:
    rng = np.random.default_rng(bins)
    edges = sorted(int(e) for e in rng.choice(np.arange(120, 150), bins - 1, replace=False))
    return Restoration(tuple(edges), rng.integers(-20, 20, (bins, 2, 6)).astype(np.int8))


@pytest.mark.parametrize("shape", [(5, 6, 7), (1, 9, 8), (1, 1, 30), (3, 3, 3)])
@pytest.mark.parametrize("bins", [1, 3, 16])
def test_the_filter_is_the_one_of_the_page(shape: tuple[int, ...], bins: int) -> None:
    values, chosen = noise(*shape), any_filter(bins)
    expected = restored(pack_restoration(chosen), values.astype(np.float64))
    np.testing.assert_allclose(chosen.apply(alone(values)), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("integers", [True, False])
def test_what_is_filtered_is_mapped(integers: bool) -> None:
    values, chosen = noise(4, 5, 6), any_filter(3)
    mapping = Mapping(np.float32(10), np.float32(3), np.float32(-5), np.float32(12), integers)
    expected = chosen.apply(alone(values)) * np.float32(10) + np.float32(3)
    expected = np.clip(np.rint(expected) if integers else expected, -5, 12)
    assert {-5, 12} <= set(expected.ravel().tolist()), "or nothing is clipped"
    np.testing.assert_array_equal(chosen.apply(alone(values), mapping), expected)


@pytest.mark.parametrize("bins", [1, 5, 16])
@pytest.mark.parametrize("width", [3, 8, 13, 24])
def test_eight_voxels_at_once_are_filtered_like_one(bins: int, width: int) -> None:
    """Like those of interpreted code to the last bit; where there are many bins, every lane takes its own weights."""
    chosen, mapping = any_filter(bins), Mapping(*map(np.float32, (10, 3, -5, 12)), integers=False)
    values, thresholds = alone(noise(2, 3, width)), chosen.tables()[0]
    weights = np.zeros((2 * bins, lanes.LANES), np.float32)
    weights[:, :6] = chosen.tables()[1].reshape(-1, 6)
    memory, steps, *_ = values
    expected = np.empty((2, 3, max(width, lanes.LANES)), np.float32)
    for z, y in np.ndindex(2, 3):
        line = np.pad(memory[z * steps[0] + y * steps[1] :][:width], RADIUS, mode="edge")
        line = np.pad(line, (0, expected.shape[2] - width), mode="edge")
        near = [(z + d, y) for d in (-1, 1, -2, 2)] + [(z, y + d) for d in (-1, 1, -2, 2)]
        places = [np.clip(a, 0, 1) * steps[0] + np.clip(b, 0, 2) * steps[1] for a, b in near]
        for x in range(0, expected.shape[2], lanes.LANES):
            first = min(x, expected.shape[2] - lanes.LANES)
            lanes._restore_interpreted(line, memory, places, first, thresholds, weights, *mapping, expected[z, y])
    np.testing.assert_array_equal(chosen.apply(values, mapping), expected[:, :, :width])


def test_any_part_of_any_region_is_filtered_alike() -> None:
    values, chosen = noise(9, 10, 11), any_filter(4)
    whole = chosen.apply(alone(values))
    for order in ("C", "F"):
        inside = np.asarray(np.pad(values, 3), order=order)[3:-3, 3:-3, 3:-3]
        for bounds in [((0, 9), (0, 10), (0, 11)), ((3, 5), (0, 2), (9, 11)), ((8, 9), (4, 5), (1, 9))]:
            grown = around(bounds, values.shape)[0]
            part = Surrounded.of(inside[tuple(slice(*g) for g in grown)], bounds, grown)
            np.testing.assert_array_equal(chosen.apply(part), whole[tuple(slice(*b) for b in bounds)])


def test_threads_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    values, wanted, chosen = noise(9, 10, 11), noise(9, 10, 11, seed=1), any_filter(4)
    whole, moments = chosen.apply(alone(values)), Moments()
    moments.add(alone(values), wanted, ONE)
    expected = moments.best(4, 0.0)[0]
    monkeypatch.setattr(napari_tinc.restoration, "_PART_VOXELS", 50)
    np.testing.assert_array_equal(chosen.apply(alone(values)), whole)
    moments = Moments()
    moments.add(alone(values), wanted, ONE)
    found = moments.best(4, 0.0)[0]
    assert expected is not None
    assert found is not None
    assert found.edges == expected.edges
    np.testing.assert_array_equal(found.weights, expected.weights)


def blurred(sigma: float = 0.7) -> tuple[Floats, Floats]:
    """A volume with edges and grain, and what a blur leaves of it."""
    sharp = ndimage.gaussian_filter(noise(24, 25, 26), 1)
    sharp[:, :12] += (ndimage.gaussian_filter(noise(24, 12, 26), 2) > 0).astype(np.float32)
    return sharp, ndimage.gaussian_filter(sharp, sigma)


@pytest.mark.parametrize("bins", [1, 2, 5, 16])
def test_what_the_moments_promise_is_what_the_filter_saves(bins: int) -> None:
    sharp, soft = blurred()
    moments = Moments()
    half = slice(0, 12), slice(12, 24)
    for part in half:  # in two boxes, as a large volume
        moments.add(alone(soft).planes(part.start, part.stop), np.ascontiguousarray(sharp[part]), ONE)
    found, saved = moments.best(bins, 0.0)
    assert found is not None
    assert len(found.edges) + 1 <= bins
    before, after = (float(np.square(sharp - v, dtype=np.float64).sum()) for v in (soft, found.apply(alone(soft))))
    assert saved == pytest.approx(before - after, rel=1e-4)
    assert after < 0.6 * before


def test_one_bin_is_least_squares() -> None:
    sharp, soft = blurred(0.5)
    moments = Moments()
    moments.add(alone(soft), sharp, ONE)
    found, _ = moments.best(1, 0.0)
    features = []
    for axis, r in product(range(3), (1, 2)):
        sides = [
            np.take(np.pad(soft, RADIUS, mode="edge"), range(RADIUS + s, RADIUS + s + soft.shape[axis]), axis)
            for s in (-r, r)
        ]
        inner = tuple(slice(None) if a == axis else slice(RADIUS, -RADIUS) for a in range(3))
        features.append(sum(side[inner].astype(np.float64) for side in sides) / 2 - soft)
    looked = np.stack(features).reshape(6, -1)
    assert found is not None
    for sign, chosen in enumerate((looked.sum(0) <= 0, looked.sum(0) > 0)):
        best = np.linalg.lstsq(looked[:, chosen].T, (sharp - soft).ravel()[chosen], rcond=None)[0]
        np.testing.assert_allclose(found.weights[0, sign] / 64, best, atol=0.02)


def test_more_bins_are_better_and_none_is_kept_that_does_not_pay() -> None:
    sharp, soft = blurred()
    moments = Moments()
    moments.add(alone(soft), sharp, ONE)
    saved = [moments.best(bins, 0.0)[1] for bins in range(1, MAX_BINS + 1)]
    assert (np.diff(saved) >= 0).all()
    price = (saved[2] - saved[1]) * 1.5
    few, _ = moments.best(MAX_BINS, price)
    assert few is not None
    assert 1 <= len(few.edges) + 1 <= 3
    assert moments.best(MAX_BINS, saved[-1] * 2) == (None, 0.0)
    assert moments.best(0, 0.0) == (None, 0.0)
    assert Moments().best(4, 0.0) == (None, 0.0)


def test_weights_steer_the_filter() -> None:
    sharp, soft = blurred()
    saved = []
    for importance in (ONE, np.where(np.arange(26) < 5, 50.0, 0.01).astype(np.float32) * np.ones((24, 25, 1), "f4")):
        moments = Moments()
        moments.add(alone(soft), sharp, np.ascontiguousarray(importance))
        found, _ = moments.best(1, 0.0)
        assert found is not None
        saved.append(float(np.square((sharp - found.apply(alone(soft)))[..., :5]).sum()))
    assert saved[1] < saved[0]


def test_the_surroundings_of_a_region_end_where_the_volume_does() -> None:
    assert around(((0, 5), (3, 4)), (6, 9)) == (((0, 6), (1, 6)), [(2, 1), (0, 0)])


def volume_with_filter(shape: tuple[int, ...] = (24, 40, 36), **settings: Any) -> CompressedVolume:
    volume = compress(cells(shape), Target.size(1800), preset="fast", model="wavelet", device="cpu", **settings)
    assert volume._decoders[0].restoration is not None, "or nothing below is put to the test"
    return volume


@pytest.fixture(scope="module")
def filtered() -> CompressedVolume:
    return volume_with_filter()


def without_filter(volume: CompressedVolume) -> CompressedVolume:
    frame = parse(volume.to_bytes())
    return CompressedVolume(pack(Frame(frame.header, tuple(s for s in frame.segments if s.kind != KIND_RESTORATION))))


def test_it_is_nearer_to_the_original(filtered: CompressedVolume) -> None:
    original = cells((24, 40, 36)).astype(float)
    errors = [np.square(original - volume.decode()).sum() for volume in (filtered, without_filter(filtered))]
    assert errors[0] < errors[1]


@pytest.mark.parametrize(
    "region", [(7,), (0,), (slice(None), 39), (slice(3, 9), slice(11, 12), slice(30, 36)), (slice(0, 1), slice(0, 2))]
)
def test_a_region_is_what_it_is_in_the_whole(filtered: CompressedVolume, region: tuple[Any, ...]) -> None:
    whole = filtered.decode().astype(int)
    assert np.abs(filtered.decode(region).astype(int) - whole[region]).max() <= 1


def test_an_image_has_a_filter_of_its_own_plane() -> None:
    original = cells((150, 140))
    volume = compress(original, Target.size(1600), model="wavelet", device="cpu")
    assert volume._decoders[0].restoration is not None
    whole = volume.decode().astype(int)
    assert np.abs(volume.decode((slice(20, 50), 77)).astype(int) - whole[20:50, 77]).max() <= 1
    assert np.abs(whole - original).mean() < np.abs(without_filter(volume).decode().astype(int) - original).mean()


def test_every_channel_has_its_own() -> None:
    pair = np.stack([cells((12, 40, 36)), 5000 - cells((12, 40, 36))])
    volume = compress(pair, Target.size(4000), model="wavelet", device="cpu")
    first, second = volume._decoders[0].restoration, volume._decoders[1].restoration
    assert first is not None
    assert second is not None
    assert first.edges != second.edges or (first.weights != second.weights).any()


def test_finer_samples_meet_the_voxels_and_coarser_ones_are_not_filtered(filtered: CompressedVolume) -> None:
    voxels = filtered.decode().astype(int)
    fine = filtered.decode(scale=3.0).astype(int)
    assert np.abs(fine[1::3, 1::3, 1::3] - voxels).max() <= 1
    np.testing.assert_array_equal(filtered.decode(scale=0.5), without_filter(filtered).decode(scale=0.5))


def test_networks_are_filtered_together_with_what_is_added_to_them() -> None:
    original = cells((14, 20, 16))
    volume = compress(original, Target.size(900), preset="fast", model="tinc+wavelet", time_limit=0.5, device="cpu")
    frame, chosen = parse(without_filter(volume).to_bytes()), any_filter(3)
    segment = Segment(KIND_RESTORATION, 0, 0, pack_restoration(chosen))
    changed = CompressedVolume(pack(Frame(frame.header, (*frame.segments, segment))))
    whole = tuple((0, side) for side in original.shape)
    expected = restored(segment.payload, changed._decoders[0].unrestored(whole, 1.0).astype(np.float64))
    limits = frame.header.items[0]
    voxels = np.clip(np.rint(limits.offset + limits.scale * expected), limits.minimum, limits.maximum)
    assert np.abs(changed.decode() - voxels).max() <= 1
    assert np.abs(voxels - without_filter(volume).decode()).max() > 100


def test_plain_tinc_stays_plain() -> None:
    volume = compress(cells((24, 40, 36)), Target.size(2500), preset="fast", model="tinc", time_limit=1, device="cpu")
    assert volume._decoders[0].restoration is None


def test_no_filter_grows_beyond_its_limit() -> None:
    """The second search gives all other bytes away: a filter that came up new would be one too many."""
    pair = np.stack([cells((12, 40, 36)), 5000 - cells((12, 40, 36))])
    source = Original.prepare(pair, Metadata.default(4), None)
    volume = compress(pair, Target.size(4000), model="wavelet", device="cpu")
    details = [parse_wavelets(volume._frame.find(KIND_WAVELETS, item, 0), (12, 40, 36)) for item in (0, 1)]
    draft = planning.plan_wavelets(source, Settings(device="cpu", model="wavelet"), 4000)

    def found(bins: tuple[int, int]) -> list[int]:
        steps = filters.restore(draft, Content(wavelets=details), bins, 1e-3)
        try:
            while True:
                next(steps)
        except StopIteration as stop:
            return [0 if one is None else len(one.edges) + 1 for one in stop.value[0].restorations]

    free = found((4, 4))
    assert min(free) > 1
    assert found((1, 0)) == [1, 0]


@pytest.mark.parametrize("budget", [600, 1000, 3000, 10_000])
@pytest.mark.parametrize("items", [1, 3])
def test_what_is_set_aside_is_enough_and_little(budget: int, items: int) -> None:
    bins = filters.affordable(budget, items)
    assert bins <= MAX_BINS
    aside = filters.reserve(bins, items)
    assert aside <= 0.03 * budget
    if bins:
        frame = parse(volume_with_filter().to_bytes())
        payload = pack_restoration(any_filter(bins))
        details = [s for s in frame.segments if s.kind != KIND_RESTORATION]
        bare = len(pack(Frame(frame.header, tuple(details))))
        larger = Frame(frame.header, (*details, Segment(KIND_RESTORATION, 0, 0, payload)))
        assert len(pack(larger)) - bare <= aside / items


def test_a_damaged_filter_is_refused() -> None:
    good = pack_restoration(any_filter(3))
    assert len(good) == restoration_size(3) == 38
    again = parse_restoration(good)
    assert again.edges == any_filter(3).edges
    np.testing.assert_array_equal(again.weights, any_filter(3).weights)
    for bad in (b"", good[:-1], good + b"\0", bytes([9, 9]) + good[2:], bytes([0, 9]) + good[2:], bytes(13 * 17 - 1)):
        with pytest.raises(FormatError):
            parse_restoration(bad)


def test_octants_share_the_bytes_of_the_filter(filtered: CompressedVolume) -> None:
    segments_of = parse(filtered.to_bytes()).segments
    spent = sum(len(s.payload) for s in segments_of if s.kind in (KIND_WAVELETS, KIND_RESTORATION))
    assert sum(octant.nbytes for octant in filtered.octants) == pytest.approx(spent)


@pytest.mark.parametrize("region", [(), (slice(3, 9), slice(0, 20), slice(5, None))])
def test_a_few_planes_at_a_time_are_filtered_like_all_of_them(
    region: tuple[slice, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = compress(cells((20, 30, 28)), Target.ratio(20), preset="fast").to_bytes()
    assert KIND_RESTORATION in CompressedVolume(data).kinds
    expected = CompressedVolume(data).decode(region)
    monkeypatch.setattr(layers, "_CACHED_VOXELS", 2 * 30 * 28)
    np.testing.assert_array_equal(CompressedVolume(data).decode(region), expected)

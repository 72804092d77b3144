"""The directional layer: blocks that are continued from their neighbours."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
import pytest
from numba import njit
from reference_directions import directional_output

from napari_tinc import CompressedVolume, FormatError, Metadata, Target, compress
from napari_tinc.directional import search
from napari_tinc.directional.layer import CodedDirections, DirectionalLayer
from napari_tinc.directional.layout import MAX_TILE, Layout
from napari_tinc.directional.payload import pack_directions, parse_directions
from napari_tinc.directional.prediction import LATEST, RULES
from napari_tinc.directional.search import Fit, Prices
from napari_tinc.encode import directing, trial
from napari_tinc.format import KIND_DIRECTIONAL, KIND_WAVELETS, Frame, Segment, pack, parse
from napari_tinc.geometry.octree import Octree, choose_splits
from napari_tinc.geometry.pyramid import BlockCache
from napari_tinc.layers import Decoders
from napari_tinc.quantiser import code_of

Floats = npt.NDArray[np.float32]


def tubes(*shape: int) -> Floats:
    """Slanted tubes and a sheet with sharp borders, in -1 … 2: what directions are for."""
    grid = np.meshgrid(*(np.arange(n, dtype=np.float32) for n in (1,) * (3 - len(shape)) + shape), indexing="ij")
    z, y, x = grid
    first = np.hypot(y - 0.4 * z - 6, x - 0.5 * z - 4) < 4
    second = np.hypot(z - 5, x + 0.5 * y - 16) < 3
    sheet = np.abs(x - y + 0.5 * z - 3) < 2
    return (2.0 * first + 1.2 * second - sheet).astype(np.float32).reshape(shape)


def noisy_tubes(*shape: int) -> Floats:
    """Some that no file of a few bytes holds without loss."""
    return tubes(*shape) + np.random.default_rng(0).normal(0, 0.003, shape).astype(np.float32)


def fitted(
    values: Floats,
    codes: tuple[int, int, int],
    roots: tuple[int, int, int],
    step: float = 0.4,
    rules: int = 3,
    prices: Prices | None = None,
    lagrangian: float = search.LAMBDA,
) -> Fit:
    shape = (1,) * (3 - values.ndim) + values.shape
    volume = values.reshape(shape)
    steps: Generator[None, None, Fit] = search.fit_step(
        lambda box: volume[tuple(slice(a, b) for a, b in box)],
        None,
        Layout(shape, codes, roots),  # type: ignore[arg-type]
        RULES[rules],
        code_of(step),
        prices or Prices.guessed(),
        lagrangian,
    )
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            result: Fit = stop.value
            return result


def layer_of(coded: CodedDirections, spatial: tuple[int, ...]) -> DirectionalLayer:
    payload = pack_directions(coded)
    return DirectionalLayer(parse_directions(payload, spatial), BlockCache(), len(payload))


def whole(shape: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    return tuple((0, n) for n in shape)


@pytest.mark.parametrize(
    ("shape", "codes", "roots"),
    [
        ((13, 22, 19), (3, 3, 3), (2, 3, 3)),
        ((13, 22, 19), (4, 4, 4), (1, 1, 1)),
        ((9, 35, 18), (1, 3, 4), (2, 2, 1)),
        ((37, 41), (0, 5, 5), (1, 1, 1)),
        ((3, 2, 5), (2, 1, 2), (1, 1, 2)),
    ],
)
@pytest.mark.parametrize("rules", [one.code for one in LATEST])
def test_a_decoder_written_from_the_page_alone_sees_the_same_directions(
    shape: tuple[int, ...], codes: tuple[int, int, int], roots: tuple[int, int, int], rules: int
) -> None:
    fit = fitted(tubes(*shape), codes, roots, rules=rules)
    voxels = layer_of(fit.coded, shape).values(whole(shape), 1.0)
    np.testing.assert_allclose(voxels, directional_output(pack_directions(fit.coded), shape), rtol=0, atol=1e-4)


def test_the_closed_loop_of_the_encoder_is_what_the_decoder_sees() -> None:
    values = tubes(24, 30, 28)
    fit = fitted(values, (3, 3, 3), (2, 2, 4))
    voxels = layer_of(fit.coded, values.shape).values(whole(values.shape), 1.0)
    assert float(np.square(voxels - values).sum()) == pytest.approx(fit.error, rel=1e-4)
    assert np.sqrt(np.square(voxels - values).mean()) < 0.2


def test_the_box_of_a_block_is_the_best_of_all() -> None:
    rng = np.random.default_rng(3)
    for sides in ((5, 5, 5), (0, 3, 4), (2, 0, 5)):
        excess = np.zeros((6, 6, 6))
        inside = tuple(slice(side + 1) for side in sides)
        excess[inside] = rng.normal(size=excess[inside].shape)
        costs = {box: excess[tuple(slice(code + 1) for code in box)].sum() for box in np.ndindex(*np.add(sides, 1))}
        box = np.empty(3, np.int64)
        least = search._best_box.py_func(excess.copy(), *sides, box)
        assert least == pytest.approx(min(costs.values()))
        assert costs[tuple(box)] == pytest.approx(least)


def test_a_block_costs_what_its_symbols_say_and_no_more_than_nothing() -> None:
    """Symbols outside of the box are 0, and the cost is the squared error and the bits of what is left."""
    rng, prices, price = np.random.default_rng(4), Prices.guessed(), 0.085

    @njit
    def quantised(values: Any, used: Any, unused: Any, offsets: Any, symbols: Any, box: Any, missed: Any) -> Any:
        excess = np.empty((6, 6, 6))
        return search._quantise(values, 8, 8, 8, used, unused, offsets, 0.085, symbols, box, missed, excess)

    offsets, missed = np.array([30.0, 9.0]) / 256, np.empty((2, 2))
    far = np.add.outer(np.add.outer(np.arange(8), np.arange(8)), np.arange(8))
    for strength in (0.3, 3.0, 30.0, 3000.0):
        wanted = (strength * rng.normal(size=far.shape) / (1 + far) ** 1.5).astype(np.float32)
        wanted[7, 0, 0] = 0.9  # on its own it is worth its bits, but not a box that is longer for it
        decoded, symbols, box = wanted.copy(), np.zeros(far.shape, np.int16), np.empty(3, np.int64)
        cost = quantised(decoded, prices.used, prices.unused, offsets, symbols, box, missed)
        assert cost <= np.square(wanted).sum() + 0.5 * price + 1e-6
        if box[0] < 0:
            assert not symbols.any()
            assert cost == pytest.approx(np.square(wanted).sum() + 0.5 * price, rel=1e-5)
            continue
        inside = tuple(slice(1 << code) for code in box)
        magnitudes = np.abs(symbols).astype(float)
        assert np.count_nonzero(symbols) == np.count_nonzero(symbols[inside])
        levels = np.where(magnitudes > 0, magnitudes - np.where(magnitudes == 1, *offsets), 0)
        bits = 6.5
        for i, j, k in np.ndindex(*magnitudes[inside].shape):
            before = [(i, j, k - 1), (i, j - 1, k), (i - 1, j, k)]
            near = min(2, sum(min(place) >= 0 and symbols[place] != 0 for place in before))
            number = 216 * near + 36 * i.bit_length() + 6 * j.bit_length() + k.bit_length()
            size = magnitudes[i, j, k]
            bits += prices.used[number] + 2 * np.log2(size) if size else prices.unused[number]
        assert cost == pytest.approx(np.square(np.abs(wanted) - levels).sum() + price * bits, rel=1e-4)
        if (box == 3).all():
            kinds = [magnitudes == 1, magnitudes > 1]
            smaller = [[kind.sum(), (magnitudes - np.abs(wanted))[kind].sum()] for kind in kinds]
            np.testing.assert_allclose(missed, smaller, rtol=1e-3, atol=1e-3)
    assert (box == 3).all()


def test_reconstruction_offsets_are_learnt_where_enough_symbols_were_seen() -> None:
    counts = np.ones((2, 3 * 216))
    assert Prices.counted(counts, np.zeros((2, 2))).offsets == Prices.guessed().offsets
    assert Prices.counted(counts, np.array([[1e6, 0.25e6], [1e6, 0.125e6]])).offsets == (64, 32)
    assert Prices.counted(counts, np.array([[1e6, 0.9e6], [1e6, -0.1e6]])).offsets == (127, 0)
    array = tubes(24, 40, 36) + np.random.default_rng(0).normal(0, 0.3, (24, 40, 36)).astype(np.float32)
    cut = (4, 4, 4), (2, 3, 3)
    guessed = fitted(array, *cut)
    learnt = fitted(array, *cut, prices=guessed.prices)
    assert learnt.coded.offsets == guessed.prices.offsets != guessed.coded.offsets
    # The same symbols' prices with offsets that are far off leave more error.
    off = replace(guessed.prices, offsets=(90, 60))
    assert fitted(array, *cut, prices=off).error > 1.02 * learnt.error


def test_a_smaller_step_costs_more_bytes_and_leaves_less_error() -> None:
    values = tubes(24, 30, 28)
    coarse, fine = (fitted(values, (3, 3, 3), (3, 4, 4), step) for step in (1.0, 0.1))
    assert coarse.nbytes < fine.nbytes
    assert coarse.error > fine.error


def test_dearer_bits_are_fewer_at_the_same_step() -> None:
    array = noisy_tubes(24, 40, 36)
    cheap, dear = (fitted(array, (4, 4, 4), (2, 3, 3), lagrangian=factor * search.LAMBDA) for factor in (1, 2))
    assert cheap.coded.step_code == dear.coded.step_code
    assert dear.nbytes < 0.95 * cheap.nbytes
    assert dear.error > cheap.error


def test_a_region_is_what_the_whole_has_there_and_needs_its_own_tiles_only() -> None:
    values = tubes(30, 33, 29)
    fit = fitted(values, (3, 3, 3), (2, 2, 2))
    all_of_it = layer_of(fit.coded, values.shape).values(whole(values.shape), 1.0)
    bounds = ((17, 28), (3, 31), (18, 27))
    layer = layer_of(fit.coded, values.shape)
    np.testing.assert_allclose(
        layer.values(bounds, 1.0), all_of_it[tuple(slice(a, b) for a, b in bounds)], rtol=0, atol=1e-6
    )
    streams = fit.coded.streams
    assert layer.region_bytes(whole(values.shape), 1.0) == fit.nbytes
    # Tiles of 16: the second along z, both along y, the second along x; and the first, which teaches the others.
    needed = [streams[0], streams[5], streams[7], streams[9], streams[11]]
    assert layer.region_bytes(((17, 28), (3, 31), (18, 27)), 1.0) == fit.nbytes - sum(map(len, streams)) + sum(
        len(streams[i]) for i in {0, *_cells_of(fit.coded.layout, bounds)}
    )
    assert len(needed) == 5


def _cells_of(layout: Layout, bounds: tuple[tuple[int, int], ...]) -> list[int]:
    return [layout.number(cell) for cell in layout.meeting(bounds)]


def test_coarse_samples_are_means_of_voxels() -> None:
    values = tubes(16, 24, 32)
    layer = layer_of(fitted(values, (3, 3, 3), (1, 2, 4)).coded, values.shape)
    voxels = layer.values(whole(values.shape), 1.0)
    means = voxels.reshape(8, 2, 12, 2, 16, 2).mean((1, 3, 5))
    np.testing.assert_allclose(layer.values(((0, 8), (0, 12), (0, 16)), 0.5), means, rtol=0, atol=1e-5)
    np.testing.assert_allclose(layer.values(((3, 5), (2, 9), (4, 16)), 0.5), means[3:5, 2:9, 4:16], rtol=0, atol=1e-5)
    few = layer.values(((0, 2), (0, 3), (0, 4)), 0.125)
    np.testing.assert_allclose(few, voxels.reshape(2, 8, 3, 8, 4, 8).mean((1, 3, 5)), rtol=0, atol=1e-5)


def test_coarse_samples_need_no_more_memory_than_a_box(monkeypatch: pytest.MonkeyPatch) -> None:
    from napari_tinc.limits import LIMITS

    values = tubes(20, 21, 33)
    layer = layer_of(fitted(values, (2, 2, 2), (2, 2, 2)).coded, values.shape)
    expected = layer.values(((0, 5), (0, 6), (0, 9)), 0.25)
    monkeypatch.setattr(LIMITS, "voxels", 300)
    np.testing.assert_array_equal(layer.values(((0, 5), (0, 6), (0, 9)), 0.25), expected)


def test_finer_samples_lie_between_the_voxels() -> None:
    values = tubes(8, 12, 16)
    layer = layer_of(fitted(values, (3, 3, 3), (1, 2, 2)).coded, values.shape)
    voxels = layer.values(whole(values.shape), 1.0)
    doubled = layer.values(((0, 16), (0, 24), (0, 32)), 2.0)
    assert doubled.min() >= voxels.min()
    assert doubled.max() <= voxels.max()
    np.testing.assert_allclose(doubled[1:-1:2, 1:-1:2, 1:-1:2].mean(), voxels.mean(), atol=0.1)


def test_the_bytes_of_all_leaves_are_those_of_the_segment() -> None:
    values = tubes(30, 33, 29)
    fit = fitted(values, (3, 3, 3), (2, 2, 2))
    tree = Octree(values.shape, choose_splits(values.shape, 2))
    spent = layer_of(fit.coded, values.shape).leaf_bytes(tree)
    assert spent.sum() == pytest.approx(fit.nbytes)
    assert (spent > 0).all()


def test_tiles_without_symbols_have_no_bytes_and_are_zero() -> None:
    values = tubes(16, 16, 32)
    values[..., 16:] = 0
    fit = fitted(values, (3, 3, 3), (2, 2, 2))
    assert [len(stream) > 0 for stream in fit.coded.streams] == [True, False]
    assert not layer_of(fit.coded, values.shape).values(((0, 16), (0, 16), (16, 32)), 1.0).any()


def test_later_tiles_decode_where_the_first_is_empty() -> None:
    values = tubes(16, 16, 32)
    values[..., :16] = 0
    fit = fitted(values, (3, 3, 3), (2, 2, 2))
    assert not fit.coded.streams[0]
    voxels = layer_of(fit.coded, values.shape).values(whole(values.shape), 1.0)
    np.testing.assert_allclose(voxels, directional_output(pack_directions(fit.coded), values.shape), atol=1e-4)


HEAD = bytes([3, 3, 3, 2, 3, 3, 0, 40, 26, 13])


@pytest.mark.parametrize(
    ("head", "text"),
    [
        (bytes([6]) + HEAD[1:], "side code of a root block"),
        (bytes([1, 1, 1]) + HEAD[3:], "longest side code of a root block"),
        (HEAD[:3] + bytes([0]) + HEAD[4:], "root blocks of a tile"),
        (HEAD[:3] + bytes([3]) + HEAD[4:], "root blocks of a tile"),
        (HEAD[:6] + bytes([0, 64]) + HEAD[8:], "step code"),
        (HEAD[:8], "truncated"),
    ],
)
def test_what_breaks_a_rule_of_the_page_is_refused(head: bytes, text: str) -> None:
    assert parse_directions(HEAD + b"\1" + b"x", (16, 24, 20)).streams == (b"x",)
    with pytest.raises(FormatError, match=text):
        parse_directions(head + b"\1" + b"x", (16, 24, 20))


def test_a_payload_that_promises_much_is_refused_before_anything_is_made_for_it() -> None:
    with pytest.raises(FormatError, match="voxels of a tile"):
        parse_directions(bytes([5, 5, 5, 16, 16, 8, 0, 40, 0, 0, 1, 65]), (512, 512, 256))
    with pytest.raises(FormatError, match="voxels of an item"):
        parse_directions(bytes([2, 2, 2, 1, 1, 1, 0, 40, 0, 0, 1, 65]), (2**20, 2**20, 2**20))
    with pytest.raises(FormatError, match="lengths of"):
        parse_directions(bytes([2, 2, 2, 1, 1, 1, 0, 40, 0, 0, 1, 65]), (400, 400, 400))
    with pytest.raises(FormatError, match="more"):
        parse_directions(HEAD + b"\1xy", (16, 24, 20))


def test_any_bytes_decode_to_something() -> None:
    draw = np.random.default_rng(0)
    layout = Layout((13, 22, 19), (3, 3, 3), (2, 2, 3))
    for _ in range(30):
        streams = tuple(draw.integers(0, 256, draw.integers(0, 40), np.uint8).tobytes() for _ in range(layout.tiles))
        coded = CodedDirections(layout, RULES[int(draw.choice(list(RULES)))], code_of(0.1), (26, 13), streams)
        assert np.isfinite(DirectionalLayer(coded, BlockCache()).values(whole(layout.shape), 1.0)).all()


def made(array: npt.NDArray[Any], budget: int, **settings: Any) -> CompressedVolume:
    """What `balanced` makes without trying networks."""
    with mock.patch.object(trial, "promised_gain", nothing_promised):
        return compress(array, Target.size(budget), preset="balanced", device="cpu", **settings)


def nothing_promised(*_: object) -> Generator[Any, None, float]:
    yield from ()
    return 0.0


def kinds(volume: CompressedVolume) -> set[int]:
    return {segment.kind for segment in parse(volume.to_bytes()).segments}


def test_balanced_takes_directions_where_they_are_better_and_says_how_good_it_is() -> None:
    array = np.rint(1000 * noisy_tubes(48, 50, 44) + 1500).astype("u2")
    fast = compress(array, Target.size(2500), preset="fast")
    volume = made(array, 2500)
    assert KIND_DIRECTIONAL in kinds(volume)
    assert KIND_WAVELETS not in kinds(volume)
    errors = [float(np.square(v.decode().astype(float) - array).mean()) for v in (fast, volume)]
    assert errors[1] < errors[0] / 1.5
    assert volume.nbytes <= 2500
    psnr = 10 * np.log10(float(np.ptp(array)) ** 2 / errors[1])
    assert float(volume.provenance["psnr"]) == pytest.approx(psnr, abs=0.02)
    corner = (slice(5, 30), slice(0, 11), slice(20, 44))
    np.testing.assert_allclose(volume.decode(corner).astype(int), volume.decode()[corner].astype(int), atol=1)


def test_wavelets_stay_where_they_are_better() -> None:
    draw = np.random.default_rng(1)
    array = draw.normal(1000, 100, (20, 24, 28)).astype("f4")
    fast, volume = compress(array, Target.size(1500), preset="fast"), made(array, 1500)
    # What the file says of its making is a little longer.
    assert np.square(volume.decode() - array).sum() <= 1.02 * np.square(fast.decode() - array).sum()


def test_every_item_has_its_directions_and_one_of_a_single_value_has_none() -> None:
    one = noisy_tubes(24, 40, 36)
    array = np.stack([one, np.full_like(one, 0.25), -one])
    volume = made(array, 3000, metadata=Metadata.default(4))
    segments = [s.item for s in parse(volume.to_bytes()).segments if s.kind == KIND_DIRECTIONAL]
    assert segments == [0, 2]
    assert (volume.decode()[1] == 0.25).all()
    assert np.sqrt(np.square(volume.decode() - array).mean()) < 0.3


def test_an_item_has_wavelets_or_directions_and_not_both_nor_none() -> None:
    array = np.rint(1000 * noisy_tubes(48, 50, 44) + 1500).astype("u2")
    frame = parse(made(array, 2500).to_bytes())
    details = parse(compress(array, Target.size(2500), preset="fast").to_bytes()).find(KIND_WAVELETS, 0, 0)
    kept = [s for s in frame.segments if s.kind != KIND_DIRECTIONAL]
    tree = Octree(array.shape, frame.header.splits)
    with pytest.raises(FormatError, match="a wavelet or a directional segment"):
        Decoders(Frame(frame.header, tuple(kept)), tree, "cpu")[0]
    both = sorted([*frame.segments, Segment(KIND_WAVELETS, 0, 0, details)], key=lambda s: s.order)
    with pytest.raises(FormatError, match="got both"):
        CompressedVolume(pack(Frame(frame.header, tuple(both)))).decode()


def test_tiles_of_a_large_volume_are_no_larger_than_a_reader_takes() -> None:
    for shape in ((100, 3000, 3000), (1, 9000, 9000), (500, 500, 500), (3, 5, 7)):
        for codes in ((4, 4, 4), (2, 5, 5)):
            layout = directing._cut(shape, directing._fitting(shape, codes))
            assert np.prod(layout.tile_sides) <= MAX_TILE
            assert all(
                1 <= n <= -(-side >> code) for n, side, code in zip(layout.roots, shape, layout.root_codes, strict=True)
            )

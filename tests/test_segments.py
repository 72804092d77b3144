"""The payloads inside a frame: round trips, bounds, and what hostile plans may cost."""

from __future__ import annotations

import tracemalloc
import zlib

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from older_writers import pack_parameters as pack_older

from napari_tinc import quality
from napari_tinc.errors import FormatError
from napari_tinc.geometry.octree import Octree
from napari_tinc.networks import payload, quantization
from napari_tinc.networks.entropy import MIXING_CODER
from napari_tinc.networks.families.tinc import FAMILY, TincNetwork
from napari_tinc.networks.older_coders import DEFLATE, RANGE_CODER
from napari_tinc.networks.plans import MAX_PARAMETERS_PER_BYTE, allowed_parameters
from napari_tinc.networks.quantization import Layout

CODERS = [MIXING_CODER, RANGE_CODER, DEFLATE]
TREE = Octree((9, 10, 11), ((True, True, True), (False, True, True)))


def packed_by(
    coder: int, layout: Layout, parameters: list[torch.Tensor], codes: npt.NDArray[np.int64]
) -> dict[tuple[int, int], bytes]:
    if coder == MIXING_CODER:
        return payload.pack_parameters(layout, parameters, codes)
    return pack_older(layout, parameters, codes, coder)


def network_of(seed: int, items: int, classes: int) -> TincNetwork:
    draw = np.random.default_rng(seed)
    widths = []
    for level in range(TREE.depth + 1):
        known = np.sort(draw.choice(np.arange(1, 40), classes, replace=False))
        widths.append(draw.choice(known, items * TREE.nodes(level)))
    return TincNetwork.on_tree(TREE, draw.integers(1, 4, TREE.depth + 1).tolist(), widths)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 3), st.integers(1, 5))
def test_a_plan_survives_the_trip(seed: int, items: int, classes: int) -> None:
    network = network_of(seed, items, classes)
    parsed = FAMILY.parse(FAMILY.pack(network), TREE, items, allowed_parameters(network.parameters))
    assert parsed.layers == network.layers
    for before, after in zip(network.widths, parsed.widths, strict=True):
        np.testing.assert_array_equal(before, after)
    assert [a.shape for a in parsed.arrays] == [a.shape for a in network.arrays]


def test_a_plan_cut_short_or_continued_is_refused() -> None:
    plan = FAMILY.pack(network_of(1, 2, 3))
    for length in range(len(plan)):
        with pytest.raises(FormatError):
            FAMILY.parse(plan[:length], TREE, 2, 10**6)
    with pytest.raises(FormatError, match="expected the plan to end"):
        FAMILY.parse(plan + b"\0", TREE, 2, 10**6)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_damaged_plan_is_refused_or_makes_a_bounded_network(data: st.DataObject) -> None:
    plan = bytearray(FAMILY.pack(network_of(1, 1, 3)))
    for _ in range(data.draw(st.integers(1, 3))):
        plan[data.draw(st.integers(0, len(plan) - 1))] = data.draw(st.integers(0, 255))
    try:
        network = FAMILY.parse(bytes(plan), TREE, 1, allowed_parameters(2000))
    except FormatError:
        return
    assert network.parameters <= max(2**20, MAX_PARAMETERS_PER_BYTE * 2000)


def test_a_plan_of_a_giant_network_is_refused_before_it_is_built() -> None:
    giant = Octree((2**14, 2**14), ((True, True),) * 12)
    plan = b"".join(bytes([8, 1]) + b"\x80\x20" for _ in range(giant.depth + 1))  # varint of 4096
    tracemalloc.start()
    with pytest.raises(FormatError, match="parameters"):
        FAMILY.parse(plan, giant, 1, allowed_parameters(1000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


@pytest.mark.parametrize("coder", CODERS, ids=["mixing", "range coder", "deflate"])
@pytest.mark.parametrize("items", [1, 3])
@pytest.mark.parametrize("most", [quantization.BLOCK_PARAMETERS, 60])
def test_parameters_survive_the_trip_as_their_symbols(
    monkeypatch: pytest.MonkeyPatch, most: int, items: int, coder: int
) -> None:
    monkeypatch.setattr(quantization, "BLOCK_PARAMETERS", most)
    network = network_of(4, items, 3)
    layout = Layout(network)
    parameters = network.initial(torch.Generator().manual_seed(0))
    codes = np.random.default_rng(0).integers(60, 110, (items, len(layout.tensors)))
    payloads = packed_by(coder, layout, parameters, codes)
    expected = quantization.quantise(layout, parameters, codes)
    assert sorted(payloads) == [(i, level) for i in range(items) for level in range(TREE.depth + 1)]
    seen = set()
    for (item, level), packed in payloads.items():
        coded = payload.parse_parameters(layout, item, level, packed)
        assert len(coded.streams) == layout.blocks(item, level)
        for block in reversed(range(len(coded.streams))):  # no block needs those before it
            for kind, code, symbols in coded.decode(block):
                assert layout.tensors[kind][0] == level
                assert code == codes[item, kind]
                expected_part = layout.cut(item, kind, expected[item][kind], len(coded.streams))[block]
                np.testing.assert_array_equal(symbols, expected_part)
                seen.add((item, kind))
    assert len(seen) == items * len(layout.tensors)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_damaged_parameters_are_refused_or_bounded(data: st.DataObject) -> None:
    network = network_of(4, 1, 2)
    layout = Layout(network)
    parameters = network.initial(torch.Generator().manual_seed(0))
    codes = np.full((1, len(layout.tensors)), 100)
    coder = data.draw(st.sampled_from(CODERS))
    packed = bytearray(packed_by(coder, layout, parameters, codes)[0, 0])
    position = st.integers(0, min(len(packed) - 1, 40))
    for _ in range(data.draw(st.integers(1, 3))):
        packed[data.draw(position)] = data.draw(st.integers(0, 255))
    try:
        parsed = payload.parse_parameters(layout, 0, 0, bytes(packed)).decode(0)
    except FormatError:
        return
    for kind, code, symbols in parsed:
        assert symbols.size == layout.size(0, kind)
        assert 0 <= code <= quantization.MAX_STEP_CODE
        assert np.abs(symbols).max() < 2**14


@pytest.mark.parametrize("coder", [0, 5, 255])
def test_an_unknown_coder_is_named(coder: int) -> None:
    layout = Layout(network_of(4, 1, 2))
    with pytest.raises(FormatError, match=f"got {coder}: the file is damaged or from a newer version"):
        payload.parse_parameters(layout, 0, 0, bytes([coder]) + bytes(100))


def test_quality_is_stored_to_half_a_decibel_and_never_flatters_the_peak() -> None:
    draw = np.random.default_rng(0)
    psnr, peak = draw.uniform(0, 120, 500), draw.uniform(0, 120, 500)
    stored = quality.parse_quality(quality.pack_quality(quality.Quality(0, psnr, peak, np.ones(500))), 500)
    assert np.abs(stored.psnr - psnr).max() <= 0.25
    assert (stored.peak <= peak).all()
    assert (peak - stored.peak).max() <= 0.5


def test_quality_of_an_exact_leaf_is_infinite_and_extremes_are_clipped() -> None:
    psnr, peak = np.array([np.inf, -20.0, 500.0]), np.array([np.inf, -1.0, 500.0])
    stored = quality.parse_quality(quality.pack_quality(quality.Quality(0, psnr, peak, np.ones(3))), 3)
    np.testing.assert_array_equal(stored.psnr, [np.inf, 0, 127])
    np.testing.assert_array_equal(stored.peak, [np.inf, 0, 127])


def test_dice_is_stored_to_a_255th_and_1_only_means_1() -> None:
    dice = np.concatenate([[0.0, 1.0, 1 - 1e-9, 0.5], np.random.default_rng(0).uniform(0, 1, 500)])
    decibels = np.full(len(dice), 30.0)
    stored = quality.parse_quality(quality.pack_quality(quality.Quality(7, decibels, decibels, dice)), len(dice)).dice
    assert (stored <= dice).all()
    assert (dice - stored).max() <= 1 / 255
    assert stored[0] == 0
    np.testing.assert_array_equal(stored == 1, dice == 1)


@pytest.mark.parametrize(
    ("threshold", "minimum", "maximum"), [(812.5, 3, 60000), (-0.25, -1.0, 1.0), (9, 9, 9), (-3, 0, 5), (8, 0, 5)]
)
def test_a_threshold_is_stored_to_half_a_65535th_of_the_range(threshold: float, minimum: float, maximum: float) -> None:
    code = quality.threshold_code(threshold, minimum, maximum)
    ones = np.ones(1)
    parsed = quality.parse_quality(quality.pack_quality(quality.Quality(code, ones, ones, ones)), 1)
    inside = min(max(threshold, minimum), maximum)
    stored = quality.threshold_value(parsed.threshold_code, minimum, maximum)
    assert stored == pytest.approx(inside, abs=(maximum - minimum) / 65535 * 0.51)


def test_quality_of_another_length_is_refused() -> None:
    with pytest.raises(FormatError, match="expected 11 bytes"):
        quality.parse_quality(bytes(10), 3)


def test_a_width_map_bomb_is_refused() -> None:
    packed = zlib.compress(bytes(2**24), 9)
    length = len(packed)
    plan = bytes([1, 2, 1, 2]) + bytes([length & 127 | 128, length >> 7 & 127 | 128, length >> 14]) + packed
    with pytest.raises(FormatError):
        FAMILY.parse(plan, Octree((8, 8)), 1, 10**6)

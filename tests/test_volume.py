"""Decoding regions, scales and items; octants; threads; what a region costs."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from synthetic import blobs

from napari_tinc import format as frames
from napari_tinc.encode.compression import compress
from napari_tinc.errors import FormatError, InputError
from napari_tinc.geometry.sampling import Floats32, Ints
from napari_tinc.layers import to_intensities
from napari_tinc.networks import payload, quantization
from napari_tinc.networks.families.tinc import TincNetwork
from napari_tinc.networks.layer import open_network
from napari_tinc.networks.quantization import Layout, dequantise
from napari_tinc.target import Target
from napari_tinc.volume import CompressedVolume, Region
from napari_tinc.wavelets import coefficients
from napari_tinc.wavelets.blocks import WaveletLayer

Array = npt.NDArray[np.generic]
ARRANGEMENTS = ("yx", "zyx", "tyx", "czyx", "zcyx", "tczyx", "ctzyx")
ARRANGEMENTS += ("yx wavelet", "czyx wavelet", "tczyx wavelet", "zcyx tinc+wavelet")
with_fixtures = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@st.composite
def regions(draw: st.DrawFn, shape: tuple[int, ...]) -> tuple[slice | int, ...]:
    """Any region numpy would take, with steps of 1, and not necessarily all axes."""
    entries: list[slice | int] = []
    for side in shape[: draw(st.integers(0, len(shape)))]:
        if draw(st.booleans()):
            entries.append(draw(st.integers(-side, side - 1)))
            continue
        bound = st.none() | st.integers(-side - 3, side + 3)
        entries.append(slice(draw(bound), draw(bound)))
    return tuple(entries)


@pytest.mark.parametrize("axes", ARRANGEMENTS)
@with_fixtures
@given(data=st.data())
def test_a_region_equals_the_same_slice_of_everything(
    arrangements: dict[str, CompressedVolume], axes: str, data: st.DataObject
) -> None:
    volume = arrangements[axes]
    region = data.draw(regions(volume.shape))
    expected = volume.decode()[region]
    decoded = volume.decode(region)
    assert decoded.shape == expected.shape
    # Tiles of another size sum in another order: the last rounding may differ by one grey level.
    np.testing.assert_allclose(decoded.astype(int), expected.astype(int), atol=1)
    assert np.count_nonzero(decoded != expected) <= max(2, 0.02 * decoded.size)


def recursion(volume: CompressedVolume, item: int) -> npt.NDArray[np.float64]:
    """Every voxel by its own chain of segments, in float64, from the frame's payloads."""
    tree, limits = volume.tree, volume.header.items[item]
    network = open_network(volume._frame, "tinc", tree)
    assert isinstance(network, TincNetwork)
    layout = Layout(network)
    symbols = [[np.zeros(0, np.int32)] * len(layout.tensors) for _ in range(layout.items)]
    codes = np.zeros((layout.items, len(layout.tensors)), dtype=np.int64)
    for i in range(layout.items):
        for level in range(tree.depth + 1):
            packed = volume._frame.find(frames.KIND_PARAMETERS, i, level)
            for kind, code, values in payload.parse_parameters(layout, i, level, packed).decode(0):
                symbols[i][kind], codes[i, kind] = values, code
    chain: dict[tuple[int, int, int], npt.NDArray[np.float64]] = {}
    for array, tensor in zip(layout.network.arrays, dequantise(layout, symbols, codes), strict=True):
        for row, node in enumerate(array.nodes.tolist()):
            chain[array.level, node, array.position] = tensor[row].double().numpy()
    out = np.empty(tree.shape)
    for leaf, box in enumerate(tree.boxes(tree.depth)):
        grid = np.meshgrid(
            *(np.linspace(-1, 1, full)[: s.stop - s.start] for full, s in zip(tree.leaf_shape, box, strict=True)),
            indexing="ij",
        )
        hidden = np.stack(grid).reshape(len(grid), -1)
        for level in range(tree.depth + 1):
            node = item * tree.nodes(level) + leaf // (tree.leaves // tree.nodes(level))
            for layer in range(network.layers[level] + (level == tree.depth)):
                hidden = chain[level, node, 2 * layer] @ hidden + chain[level, node, 2 * layer + 1]
                hidden = hidden if layer == network.layers[level] else np.sin(hidden)
        out[box] = hidden[0].reshape([s.stop - s.start for s in box])
    span = limits.maximum - limits.minimum
    value = limits.minimum + limits.offset_code / 65535 * span + span * 2 ** (-limits.scale_code / 16) * out
    return np.clip(value, limits.minimum, limits.maximum)


@pytest.mark.parametrize("axes", ["zyx", "yx", "tczyx"])
def test_the_file_alone_decodes_to_what_the_formula_says(arrangements: dict[str, CompressedVolume], axes: str) -> None:
    """The authors' decoder reads the original file again; ours has nothing but these bytes."""
    volume = CompressedVolume(arrangements[axes].to_bytes())
    for item in range(len(volume.header.items)):
        decoded = volume.decode_item(item).astype(float)
        assert np.abs(decoded - recursion(volume, item)).max() <= 0.51


def test_a_three_level_tree_decodes_to_what_the_formula_says(compressed: CompressedVolume) -> None:
    assert np.abs(compressed.decode().astype(float) - recursion(compressed, 0)).max() <= 0.51


@pytest.mark.parametrize("axes", ARRANGEMENTS)
def test_axes_come_back_in_the_order_of_the_original(arrangements: dict[str, CompressedVolume], axes: str) -> None:
    volume = arrangements[axes]
    original = blobs(volume.shape).astype(float)
    decoded = volume.decode()
    assert decoded.shape == original.shape
    error = np.square(decoded - original).mean()
    for axis in range(original.ndim):
        assert error < 0.95 * np.square(np.flip(decoded, axis) - original).mean(), axis


@pytest.mark.parametrize("axes", ["czyx", "zcyx", "tczyx", "tczyx wavelet", "zcyx tinc+wavelet"])
def test_an_item_is_that_channel_and_time_point(arrangements: dict[str, CompressedVolume], axes: str) -> None:
    volume = arrangements[axes]
    leading = [i for i, a in enumerate(volume.metadata.axes) if a in "tc"]
    full = np.moveaxis(volume.decode(), leading, range(len(leading)))
    for item, expected in enumerate(full.reshape(-1, *volume.tree.shape)):
        np.testing.assert_array_equal(volume.decode_item(item), expected)


@pytest.mark.parametrize("item", [-1, 2, 99])
def test_an_item_that_does_not_exist_is_refused(arrangements: dict[str, CompressedVolume], item: int) -> None:
    with pytest.raises(InputError, match="item"):
        arrangements["czyx"].decode_item(item)


def without_item(volume: CompressedVolume, item: int) -> CompressedVolume:
    """The same file with one item's parameters and details turned to rubbish, checksums in order."""
    broken = [
        replace(s, payload=b"\xff" * len(s.payload)) if s.kind != frames.KIND_QUALITY and s.item == item else s
        for s in volume._frame.segments
    ]
    return CompressedVolume(frames.pack(frames.Frame(volume.header, tuple(broken))))


@pytest.mark.parametrize("axes", ["czyx", "tczyx", "czyx wavelet", "zcyx tinc+wavelet"])
def test_one_channel_decodes_without_the_segments_of_the_others(
    arrangements: dict[str, CompressedVolume], axes: str
) -> None:
    volume = arrangements[axes]
    broken = without_item(volume, 1)
    np.testing.assert_array_equal(broken.decode_item(0), volume.decode_item(0))
    with pytest.raises(FormatError):
        broken.decode_item(1)
    np.testing.assert_array_equal(broken.decode_item(0), volume.decode_item(0))


class Counter:
    """Counts the points that go through the network."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.points, self.batches = 0, 0
        plain = TincNetwork._evaluate_leaves

        def counting(network: TincNetwork, parameters: Any, item: int, leaves: Ints, points: Floats32) -> Iterator[Any]:
            self.batches += 1
            self.points += len(leaves) * points.shape[1]
            yield from plain(network, parameters, item, leaves, points)

        monkeypatch.setattr(TincNetwork, "_evaluate_leaves", counting)


@pytest.mark.parametrize(
    "region", [(), (5,), (slice(None), 3), (slice(2, 3), slice(2, 4), slice(9, 12)), (slice(4, 4),)], ids=str
)
@pytest.mark.parametrize("scale", [1.0, 0.5, 2.0])
def test_a_region_costs_its_own_samples(
    compressed: CompressedVolume, monkeypatch: pytest.MonkeyPatch, region: tuple[slice | int, ...], scale: float
) -> None:
    counter = Counter(monkeypatch)
    assert compressed.decode(region, scale).size == counter.points


def test_a_plane_of_one_channel_touches_nothing_else(
    arrangements: dict[str, CompressedVolume], monkeypatch: pytest.MonkeyPatch
) -> None:
    counter = Counter(monkeypatch)
    arrangements["tczyx"].decode((1, 2, 3))
    assert counter.points == 12 * 11


def test_regions_that_are_none_of_the_volume_are_refused(compressed: CompressedVolume) -> None:
    outside: list[Region] = [(13,), (-14,), (slice(0, 9, 2),), (slice(None, None, -1),), (0, 0, 0, 0)]
    for bad in outside:
        with pytest.raises(InputError, match="expected"):
            compressed.decode(bad)


@pytest.mark.parametrize("bad", [0, -1.0, float("nan"), float("inf"), 1e9])
def test_scales_that_make_no_sense_are_refused(compressed: CompressedVolume, bad: float) -> None:
    with pytest.raises(InputError, match="scale"):
        compressed.decode(scale=bad)


def test_scale_one_is_the_default(any_model: CompressedVolume) -> None:
    np.testing.assert_array_equal(any_model.decode(scale=1), any_model.decode())


@pytest.mark.parametrize(
    ("scale", "shape"),
    [(0.5, (7, 11, 9)), (0.25, (4, 6, 5)), (2, (26, 44, 36)), (0.01, (1, 1, 1)), (1.5, (20, 33, 27))],
)
def test_a_scaled_volume_has_the_samples_that_cover_it(
    any_model: CompressedVolume, scale: float, shape: tuple[int, ...]
) -> None:
    assert any_model.scaled_shape(scale) == shape
    decoded = any_model.decode(scale=scale)
    assert decoded.shape == shape
    assert decoded.dtype == any_model.dtype


def test_channels_and_time_points_keep_their_number_at_any_scale(arrangements: dict[str, CompressedVolume]) -> None:
    assert arrangements["tczyx"].decode(scale=0.5).shape == (2, 3, 3, 6, 6)
    assert arrangements["zcyx"].decode(scale=2).shape == (16, 2, 24, 22)


def test_super_resolution_passes_through_the_voxels(any_model: CompressedVolume) -> None:
    """At three samples a voxel the middle one sits on the voxel's own centre."""
    fine = any_model.decode(scale=3)[1::3, 1::3, 1::3]
    np.testing.assert_allclose(fine.astype(int), any_model.decode().astype(int), atol=1)


def test_a_coarser_grid_samples_the_centres_of_its_own_voxels(compressed: CompressedVolume) -> None:
    """At a third every sample falls on a voxel's centre: 1, 4, 7 …"""
    coarse = compressed.decode((slice(0, 4), slice(0, 7), slice(0, 6)), scale=1 / 3)
    np.testing.assert_allclose(coarse.astype(int), compressed.decode()[1:12:3, 1:21:3, 1:18:3].astype(int), atol=1)


@pytest.mark.parametrize("scale", [0.4, 2.0])
def test_a_region_of_a_scaled_volume_equals_the_slice(any_model: CompressedVolume, scale: float) -> None:
    full = any_model.decode(scale=scale)
    region = (slice(1, 4), 2, slice(3, None))
    np.testing.assert_allclose(any_model.decode(region, scale).astype(int), full[region].astype(int), atol=1)


@pytest.mark.parametrize(
    ("dtype", "low", "high", "given", "expected"),
    [
        ("u1", 0, 255, [-9.0, 0.4, 0.6, 254.6, 300.0], [0, 0, 1, 255, 255]),
        ("u1", 10, 200, [-1e9, 1e9, 10.49, 10.51], [10, 200, 10, 11]),
        ("i2", -32768, 32767, [-40000.0, -0.6, 40000.0], [-32768, -1, 32767]),
        ("u4", 0, 2**32 - 1, [-5.0, 5e9, 4.6], [0, 2**32 - 1, 5]),
        ("f4", -1.5, 1.5, [-2.0, 0.25, 2.0], [-1.5, 0.25, 1.5]),
    ],
)
def test_values_are_rounded_and_clipped_never_truncated_or_wrapped(
    dtype: str, low: float, high: float, given: list[float], expected: list[float]
) -> None:
    """The authors' cast truncates: half a grey level of bias, and wrapping beyond the range."""
    wide = np.dtype("f8" if dtype in ("u4", "f8") else "f4")
    span, values = float(high) - float(low), np.array(given, dtype=np.float64)
    limits = frames.ItemRange(low, high, 0, 0)  # offset: the minimum; scale: the range
    normalised = ((values - low) / span).astype(wide)
    got = to_intensities(normalised, limits, wide, np.dtype(dtype))
    assert got.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(got, np.array(expected, dtype))


@pytest.mark.parametrize("axes", ["tczyx", "tczyx wavelet"])
def test_threads_decode_what_one_thread_decodes(arrangements: dict[str, CompressedVolume], axes: str) -> None:
    volume = CompressedVolume(arrangements[axes].to_bytes())
    draw = np.random.default_rng(0)
    regions = []
    for _ in range(64):
        starts = [int(draw.integers(0, side)) for side in volume.shape]
        regions.append(tuple(slice(a, int(draw.integers(a, n)) + 1) for a, n in zip(starts, volume.shape, strict=True)))
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(volume.decode, regions))
    alone = CompressedVolume(volume.to_bytes())
    for region, decoded in zip(regions, together, strict=True):
        np.testing.assert_array_equal(decoded, alone.decode(region))


def test_octants_tell_the_quality_that_decoding_shows(any_model: CompressedVolume, original: Array) -> None:
    decoded = any_model.decode().astype(float)
    span = float(original.max()) - float(original.min())
    assert [octant.box for octant in any_model.octants] == any_model.tree.boxes(any_model.tree.depth)
    for octant in any_model.octants:
        error = decoded[octant.box] - original[octant.box]
        assert octant.psnr == pytest.approx(20 * np.log10(span) - 10 * np.log10((error**2).mean()), abs=0.26)
        assert np.abs(error).max() <= octant.max_error * (1 + 1e-9)
        assert octant.max_error <= 1.07 * np.abs(error).max()
        assert octant.level == any_model.tree.depth


@pytest.mark.parametrize("axes", ["tczyx", "tczyx wavelet", "zcyx tinc+wavelet", "yx wavelet"])
def test_octants_share_the_bytes_of_all_segments_but_quality(
    arrangements: dict[str, CompressedVolume], axes: str
) -> None:
    volume = arrangements[axes]
    spent = sum(len(s.payload) for s in volume._frame.segments if s.kind != frames.KIND_QUALITY)
    assert sum(octant.nbytes for octant in volume.octants) == pytest.approx(spent)
    assert [octant.item for octant in volume.octants] == sorted(octant.item for octant in volume.octants)


def test_the_octant_map_puts_every_octant_where_it_lies(any_model: CompressedVolume) -> None:
    grid = any_model.octant_map()
    edges = any_model.tree.edges(any_model.tree.depth)
    for octant in any_model.octants:
        cell = tuple(int(np.searchsorted(e, s.start)) for e, s in zip(edges, octant.box, strict=True))
        assert grid[cell] == octant.psnr


def test_a_saved_file_opens_to_the_same_volume(any_model: CompressedVolume, tmp_path: Path) -> None:
    path = tmp_path / "volume.tinc"
    any_model.save(path)
    opened = CompressedVolume.open(path)
    assert path.read_bytes() == any_model.to_bytes() == opened.to_bytes()
    np.testing.assert_array_equal(opened.decode(), any_model.decode())
    assert (opened.shape, opened.dtype) == (any_model.shape, any_model.dtype)
    assert opened.octants == any_model.octants
    with pytest.raises(InputError):
        any_model.save(path)
    any_model.save(path, overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["volume.tinc"]


def test_a_missing_file_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"readable \.tinc file"):
        CompressedVolume.open(tmp_path / "missing.tinc")


def test_copies_decode_the_same(any_model: CompressedVolume) -> None:
    for other in (copy.deepcopy(any_model), pickle.loads(pickle.dumps(any_model))):
        np.testing.assert_array_equal(other.decode((3,)), any_model.decode((3,)))


def test_the_result_is_the_callers_own(any_model: CompressedVolume) -> None:
    first = any_model.decode()
    assert first.flags.writeable
    first[:] = 0
    assert any_model.decode().max() > 0


def test_decoding_goes_on_in_smaller_batches_when_memory_runs_out(
    compressed: CompressedVolume, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, exact = compressed.decode(), TincNetwork.evaluate
    refused = []

    def evaluate(self: TincNetwork, parameters: Any, coordinates: Any) -> Any:
        if coordinates.shape[1] > 100:
            refused.append(coordinates.shape[1])
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return exact(self, parameters, coordinates)

    monkeypatch.setattr(TincNetwork, "evaluate", evaluate)
    again = compressed.decode()
    assert refused
    assert np.abs(again.astype(int) - expected.astype(int)).max() <= 1


def test_a_region_decodes_the_blocks_of_parameters_that_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantization, "BLOCK_PARAMETERS", 100)
    noise = np.random.default_rng(0).integers(0, 4000, (32, 32, 32), dtype=np.uint16)
    volume = compress(noise, Target.ratio(3), preset="fast", time_limit=0.3, levels=3, device="cpu", model="tinc")
    tree, read = volume.tree, []
    decode = payload.CodedLevel.decode
    monkeypatch.setattr(payload.CodedLevel, "decode", lambda level, block: (read.append(1), decode(level, block))[1])
    corner = volume.decode((slice(0, 3),) * 3)
    assert len(read) == tree.depth + 1, "a leaf and its ancestors, one block each"
    whole = volume.decode()
    layout = Layout(open_network(volume._frame, "tinc", tree))
    assert len(read) == sum(layout.blocks(0, level) for level in range(tree.depth + 1)) > 50, "each once"
    np.testing.assert_allclose(corner.astype(int), whole[:3, :3, :3].astype(int), atol=1)


@pytest.mark.parametrize("scale", [1.0, 0.5, 2.0])
@pytest.mark.parametrize("axes", ["tczyx", "czyx wavelet", "zcyx tinc+wavelet"])
def test_a_region_reads_the_bytes_that_it_says_it_needs(
    arrangements: dict[str, CompressedVolume], axes: str, scale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted: the streams that decoders are given. Heads of segments are read in any case."""
    volume = CompressedVolume(arrangements[axes].to_bytes(), "cpu")
    region = tuple(slice(0, max(1, n // 2)) for n in volume.scaled_shape(scale))
    read: list[int] = []
    take, level = coefficients.Decoder.__init__, payload.CodedLevel.decode

    def taking(decoder: coefficients.Decoder, stream: bytes) -> None:
        read.append(len(stream))
        take(decoder, stream)

    def decoding(coded: payload.CodedLevel, block: int) -> object:
        read.append(len(coded.streams[block]))
        return level(coded, block)

    monkeypatch.setattr(coefficients.Decoder, "__init__", taking)
    monkeypatch.setattr(payload.CodedLevel, "decode", decoding)
    volume.decode(region, scale)
    heads = 0
    for item in range(len(volume.header.items)):
        if item in volume._decoders._made:
            for layer in volume._decoders[item].layers:
                if isinstance(layer, WaveletLayer):
                    heads += layer._nbytes - len(layer._coded.trunk) - sum(layer._coded.lengths)
                else:
                    heads += sum(s.nbytes - sum(map(len, s.streams)) for s in layer._segments)  # type: ignore[attr-defined]
    assert volume.region_bytes(region, scale) == sum(read) + heads

"""A second decoder, written from ``docs/format.md`` alone, slowly and in plain numbers: it must see the same voxels."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import older_writers
import pytest
from reference_directions import directional_output
from reference_exact import exact_output
from reference_mask import inside
from reference_network import (
    Tree,
    coinpp_output,
    grid_output,
    mixed_decode,
    nerv_output,
    network_output,
    neurcomp_output,
    range_decode,
    sci_output,
    siren_output,
    tucker_output,
    volumes_decode,
)
from reference_postfilter import postfiltered
from reference_predictive import correction, predicted
from reference_restoration import restored
from reference_wavelets import DetailDecoder, detail_output

from napari_tinc.arrays.metadata import Metadata
from napari_tinc.choices import FAMILIES
from napari_tinc.encode.compression import compress
from napari_tinc.encode.trial import TRAINING_STEPS
from napari_tinc.format import (
    KIND_CORRECTIONS,
    KIND_DIRECTIONAL,
    KIND_EXACT,
    KIND_MASK,
    KIND_PARAMETERS,
    KIND_POSTFILTER,
    KIND_PREDICTED,
    KIND_QUALITY,
    KIND_RESTORATION,
    KIND_WAVELETS,
    MODEL_EXACT,
    Frame,
    parse,
)
from napari_tinc.geometry.pyramid import BlockCache
from napari_tinc.networks import quantization
from napari_tinc.networks.entropy import MAX_SYMBOL, bucket_code, encode_symbols
from napari_tinc.networks.families import sci
from napari_tinc.networks.latents import LARGEST, decode_latents, encode_latents
from napari_tinc.networks.layer import open_network
from napari_tinc.networks.older_coders import RANGE_CODER, SymbolModel
from napari_tinc.target import Target
from napari_tinc.volume import CompressedVolume
from napari_tinc.wavelets.blocks import WaveletLayer
from napari_tinc.wavelets.payload import parse_wavelets

Array = npt.NDArray[np.generic]
NETWORKS = {
    1: network_output,
    3: neurcomp_output,
    5: grid_output,
    6: tucker_output,
    7: siren_output,
    8: sci_output,
    9: nerv_output,
    10: coinpp_output,
}
GOLDEN = sorted((Path(__file__).parent / "golden").glob("v1-*.tinc"))


def decode(frame: Frame, block_parameters: int = 2**16) -> Array:
    """All voxels of a frame, not rounded."""
    header = frame.header
    items = []
    for item, limits in enumerate(header.items):
        if header.model == MODEL_EXACT:
            items.append(exact_output(frame.find(KIND_EXACT, item, 0), header.spatial_shape, header.dtype))
            continue
        payload = frame.get(KIND_PREDICTED, item, 0)
        if payload is not None:
            items.append(predicted(payload, header.spatial_shape, header.dtype, limits.minimum, limits.maximum))
            continue
        output = np.zeros(header.spatial_shape)
        if header.model in NETWORKS:
            output += NETWORKS[header.model](frame, item, block_parameters)
        payload = frame.get(KIND_WAVELETS, item, 0)
        if payload is not None:
            output += detail_output(payload, header.spatial_shape)
        payload = frame.get(KIND_DIRECTIONAL, item, 0)
        if payload is not None:
            output += directional_output(payload, header.spatial_shape)
        payload = frame.get(KIND_RESTORATION, item, 0)
        if payload is not None:
            output = restored(payload, output)
        payload = frame.get(KIND_POSTFILTER, item, 0)
        if payload is not None:
            output = postfiltered(payload, output)
        span = limits.maximum - limits.minimum
        offset, scale = limits.minimum + limits.offset_code / 65535 * span, span * 2 ** (-limits.scale_code / 16)
        voxels = np.clip(offset + scale * output, limits.minimum, limits.maximum)
        payload = frame.get(KIND_MASK, item, 0)
        if payload is not None:
            marked, background = inside(payload, header.dtype, header.spatial_shape)
            voxels = np.where(marked, voxels, background)
        payload = frame.get(KIND_CORRECTIONS, item, 0)
        if payload is not None:
            base = voxels if header.dtype[0] == "f" else np.rint(voxels)
            moved = base + correction(payload, header.spatial_shape, header.dtype)
            voxels = np.clip(moved, limits.minimum, limits.maximum)
        items.append(voxels)
    spatial = [i for i, axis in enumerate(header.metadata.axes) if axis in "zyx"]
    leading = [i for i in range(len(header.shape)) if i not in spatial]
    stacked = np.stack(items).reshape([header.shape[i] for i in leading + spatial])
    return stacked.transpose(np.argsort(leading + spatial))


def blobs(*shape: int) -> Array:
    """Something to learn for items and leaves to differ in."""
    draw = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, side) for side in shape), indexing="ij"))
    centre = np.linspace(0.3, 0.7, len(shape)).reshape(-1, *[1] * len(shape))
    return np.rint(900 * np.exp(-6 * np.square(grid - centre).sum(0)) + draw.normal(100, 2, shape)).astype("u2")


@pytest.mark.parametrize(
    ("shape", "budget", "levels", "within", "block"),
    [
        ((13, 11, 9), 900, 2, "importance", 2**16),
        ((13, 11, 9), 900, 2, "equal", 2**16),
        ((2, 5, 21, 23), 3000, 3, "importance", 2**16),
        ((2, 5, 21, 23), 3000, 3, "importance", 100),
        ((13, 11, 9), 1200, 2, "equal", 300),
        ((17, 30), 400, 1, "equal", 2**16),
    ],
)
def test_a_decoder_written_from_the_page_alone_sees_the_same_voxels(
    monkeypatch: pytest.MonkeyPatch,
    shape: tuple[int, ...],
    budget: int,
    levels: int,
    within: str,
    block: int,
) -> None:
    monkeypatch.setattr(quantization, "BLOCK_PARAMETERS", block)  # so that a small file has several
    target = Target.size(budget)
    settings: dict[str, Any] = {"levels": levels, "within": within, "device": "cpu", "model": "tinc"}
    volume = compress(blobs(*shape), target, preset="fast", time_limit=0.5, **settings)
    frame = parse(volume.to_bytes())
    assert {s.payload[0] for s in frame.segments if s.kind == KIND_PARAMETERS} == {3}
    voxels = volume.decode()
    # Ours is in float32 and rounded to integers.
    np.testing.assert_allclose(voxels, decode(frame, block), rtol=0, atol=0.51)


@pytest.mark.parametrize("suffix", ["", "+wavelet"])
@pytest.mark.parametrize("family", sorted(FAMILIES.keys() - {"tinc"}))
def test_the_second_decoder_sees_the_same_voxels_of_other_families(family: str, suffix: str) -> None:
    shape, model = ((2, 31, 33) if suffix else (13, 11, 9)), family + suffix
    metadata = Metadata("cyx", (1.0,) * 3, ("",) * 3) if len(shape) == 3 and shape[0] == 2 else None
    volume = compress(
        blobs(*shape),
        Target.size(3000 if suffix else 1200),
        metadata=metadata,
        model=model,
        time_limit=0.3,
        device="cpu",
    )
    np.testing.assert_allclose(volume.decode(), decode(parse(volume.to_bytes())), rtol=0, atol=0.51)


@pytest.mark.parametrize("block", [2**16, 300])
def test_the_second_decoder_sees_the_same_voxels_of_blocks_of_every_kind(
    monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    """Flat ones, larger and smaller ones than octants, of several widths, and segments of several streams."""
    monkeypatch.setattr(quantization, "BLOCK_PARAMETERS", block)
    monkeypatch.setattr(sci, "_PARAMETERS_PER_BLOCK", 90)
    draw = np.random.default_rng(2)
    volume = np.zeros((24, 30, 28))
    volume[:12, :15, :14] = draw.normal(0, 1, (12, 15, 14))
    volume[14:] = np.sin(np.arange(28) / 3) + np.arange(30)[:, None] / 20
    volume = np.rint(1000 + 300 * volume).astype("u2")
    file = compress(volume, Target.size(4000), model="sci", time_limit=0.5, device="cpu")
    network = open_network(parse(file.to_bytes()), "sci", file.tree)
    assert isinstance(network, sci.SciNetwork)
    assert {group.width == 0 for group in network.groups} == {True, False}
    assert len({group.level for group in network.groups}) > 1
    decoded = file.decode()
    np.testing.assert_allclose(decoded, decode(parse(file.to_bytes()), block), rtol=0, atol=0.51)
    part = (slice(3, 20), slice(9, 11), slice(5, 27))
    again = CompressedVolume(file.to_bytes(), "cpu")
    np.testing.assert_array_equal(again.decode(part), decoded[part])
    assert again.region_bytes((0, 0, 0)) < again.region_bytes() or block > 300


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_the_second_decoder_reads_golden_files(path: Path) -> None:
    frame = parse(path.read_bytes())
    with np.load(path.with_suffix(".npz")) as expected:
        if frame.header.model == MODEL_EXACT:
            assert decode(frame).tobytes() == expected["decoded"].tobytes()
            return
        span = max(item.span for item in frame.header.items)
        tolerance = 1e-4 * span if frame.header.dtype[0] == "f" else 0.51
        if any(segment.kind == KIND_CORRECTIONS for segment in frame.segments):
            tolerance = max(tolerance, 1)  # one that is rounded before it is corrected
        np.testing.assert_allclose(expected["decoded"], decode(frame), rtol=0, atol=tolerance)


@pytest.mark.parametrize("path", [p for p in GOLDEN if "detail" in p.name or "hybrid" in p.name], ids=lambda p: p.stem)
def test_the_second_decoder_sees_the_same_symbols(path: Path) -> None:
    frame = parse(path.read_bytes())
    payload = frame.find(KIND_WAVELETS, 0, 0)
    second = DetailDecoder(payload, frame.header.spatial_shape)
    ours = WaveletLayer(parse_wavelets(payload, frame.header.spatial_shape), BlockCache())
    seen = 0
    for (level, cell), symbols in second.symbols.items():
        decoded = ours._blocks(level, [cell])[0][0]
        np.testing.assert_array_equal(symbols, np.zeros_like(symbols) if decoded is None else decoded)
        seen += np.count_nonzero(symbols)
    assert seen > 100


def test_the_quality_that_octants_show_is_the_one_in_the_bytes_and_true(monkeypatch: pytest.MonkeyPatch) -> None:
    original = blobs(13, 11, 9)
    monkeypatch.setitem(TRAINING_STEPS, "fast", 100)  # a number of steps and no time limit: the same file at every run
    volume = compress(original, Target.size(900), preset="fast", levels=2, device="cpu", model="tinc")
    voxels = volume.decode()
    payload = parse(volume.to_bytes()).find(KIND_QUALITY, 0, 0)
    span = float(original.max()) - float(original.min())
    tree = Tree(original.shape, volume.header.splits)
    leaves = len(volume.octants)
    assert len(payload) == 2 + 3 * leaves
    psnr, peak, dice = (payload[2 + i * leaves : 2 + (i + 1) * leaves] for i in range(3))
    threshold = float(original.min()) + int.from_bytes(payload[:2], "little") / 65535 * span
    assert volume.threshold() == threshold
    for leaf, (octant, box) in enumerate(zip(volume.octants, tree.boxes, strict=True)):
        inside = tuple(slice(*ends) for ends in box)
        assert octant.box == inside
        error = original[inside].astype(float) - voxels[inside]
        assert psnr[leaf] / 2 == octant.psnr
        assert octant.psnr == pytest.approx(10 * math.log10(span**2 / np.square(error).mean()), abs=0.26)
        assert octant.max_error == pytest.approx(span * 10 ** (-peak[leaf] / 40))
        assert np.abs(error).max() <= octant.max_error <= 1.06 * np.abs(error).max() + 1e-9
        marked, found = original[inside].astype(float) >= threshold, voxels[inside].astype(float) >= threshold
        either = int(marked.sum()) + int(found.sum())
        exact = 2 * int((marked & found).sum()) / either if either else 1.0
        assert dice[leaf] / 255 == octant.dice
        assert octant.dice <= exact <= octant.dice + 1 / 255
        assert (octant.dice == 1) == (exact == 1)
    # Both kinds of octants are there, or the page would not have been put to the test.
    assert {octant.dice == 1 for octant in volume.octants} == {True, False}


@pytest.mark.parametrize(("family", "scale_code", "bound"), [(0, 30, 40), (1, 21, 300), (0, 119, 16383), (1, 0, 2000)])
def test_the_range_decoder_of_the_page_reads_symbols_of_any_table(family: int, scale_code: int, bound: int) -> None:
    symbols = np.random.default_rng(bound).integers(-bound, bound + 1, 300).astype(np.int32)
    stream = older_writers.encode([symbols], [SymbolModel(family, scale_code, bound)], RANGE_CODER)
    assert range_decode(stream, [(family, scale_code, bound)], [300]) == [symbols.tolist()]


@pytest.mark.parametrize("spread", [0.02, 0.4, 20, 700, 9000])
def test_the_mixing_decoder_of_the_page_reads_symbols_of_any_spread(spread: float) -> None:
    random = np.random.default_rng(0)
    matrices = [[(12, 7), (5, 3)], [(17, 1)], [(2, 40)], [(3, 3)]]
    sizes = [sum(rows * columns for rows, columns in own) for own in matrices]
    tensors = [np.rint(random.standard_t(2, size) * spread).astype(np.int32) for size in sizes]
    tensors[2][:] = 0
    tensors = [np.clip(tensor, -MAX_SYMBOL, MAX_SYMBOL) for tensor in tensors]
    tensors[0][[0, 50]] = MAX_SYMBOL, -MAX_SYMBOL
    codes = [bucket_code(tensor) for tensor in tensors]
    stream = encode_symbols(tensors, matrices, codes)
    assert mixed_decode(stream, codes, matrices) == [tensor.tolist() for tensor in tensors]


@pytest.mark.parametrize("spread", [0.02, 0.4, 20, 9000])
def test_the_decoder_of_the_page_reads_symbols_that_lie_in_space(spread: float) -> None:
    random = np.random.default_rng(0)
    shapes: list[tuple[int, ...]] = [(12, 7), (2, 1, 3, 2), (2, 3, 4, 5), (1, 5, 6, 7), (1, 9, 11, 4), (3, 1)]
    tensors = [np.rint(random.standard_t(2, int(np.prod(s))) * spread).astype(np.int32) for s in shapes]
    tensors[1][:], tensors[0][0], tensors[3][[0, 40]] = 0, LARGEST, (LARGEST, -LARGEST)
    codes = [bucket_code(tensor) for tensor in tensors]
    stream = encode_latents(tensors, [[shape] for shape in shapes], codes)
    assert volumes_decode(stream, codes, shapes) == [tensor.tolist() for tensor in tensors]
    again = decode_latents(stream, [[shape] for shape in shapes], codes)
    assert [tensor.tolist() for tensor in again] == [tensor.tolist() for tensor in tensors]

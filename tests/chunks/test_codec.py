"""A Zarr array with our codec is read and written like any other, and its chunks are ``.tinc`` files."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import pickle
import random
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import zarr
from mutators import edited, with_payload
from synthetic import blobs
from zarr.codecs import TransposeCodec
from zarr.core.buffer import cpu
from zarr.storage import MemoryStore
from zarrs import Array, boxes, create, files, rmse, stored

from napari_tinc import CompressedVolume, FormatError, InputError, Metadata, Target, TincCodec, compress, samples
from napari_tinc.chunks import codec as codec_module
from napari_tinc.chunks import frames as chunk_frames
from napari_tinc.chunks.frames import _opened, decode_chunk
from napari_tinc.encode import framing
from napari_tinc.format import MAGIC, MODEL_EXACT, MODEL_WAVELETS, check, parse
from napari_tinc.settings import Settings
from napari_tinc.wavelets.blocks import WaveletLayer

CHUNKS = (24, 40, 64)  # of 64³ voxels: most at the array's end are smaller


@pytest.fixture(scope="module")
def brain() -> Array:
    return samples.load("brain")[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, brain: Array) -> Path:
    """An array in a folder, for whoever only reads it."""
    path = tmp_path_factory.mktemp("array") / "a.zarr"
    create(path, brain, (32, 32, 32), TincCodec(step=200))
    return path


# --- what a target promises ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [20, 200, 1000])
def test_a_step_keeps_all_chunks_to_the_same_error(tmp_path: Path, brain: Array, step: float) -> None:
    made = create(tmp_path / "a.zarr", brain, CHUNKS, TincCodec(step=step))
    decoded = made[:]
    for _, box in boxes(made):
        assert rmse(brain[box], decoded[box]) < 0.35 * step
    assert rmse(brain, decoded) > 0.15 * step


def test_a_psnr_is_reached_in_every_chunk_over_its_own_range(brain: Array) -> None:
    made = create(MemoryStore(), brain, CHUNKS, TincCodec(psnr=42))
    decoded = made[:]
    for _, box in boxes(made):
        span = int(brain[box].max()) - int(brain[box].min())
        assert 42 <= 20 * math.log10(span / rmse(brain[box], decoded[box])) < 43


@pytest.mark.parametrize("ratio", [8, 64])
def test_a_ratio_holds_for_every_chunk(tmp_path: Path, brain: Array, ratio: float) -> None:
    made = create(tmp_path / "a.zarr", brain, CHUNKS, TincCodec(ratio=ratio))
    for path, box in files(tmp_path / "a.zarr", made):
        assert 0.8 * brain[box].nbytes / ratio < path.stat().st_size <= brain[box].nbytes / ratio
    assert rmse(brain, made[:]) < 0.05 * np.ptp(brain)


@pytest.mark.parametrize("target", [{"step": 150.0}, {"psnr": 40.0}, {"ratio": 32.0}])
def test_every_chunk_on_disk_is_a_file_of_the_same_voxels(tmp_path: Path, brain: Array, target: dict[str, Any]) -> None:
    made = create(tmp_path / "a.zarr", brain, CHUNKS, TincCodec(**target))
    decoded, sizes = made[:], []
    for path, box in files(tmp_path / "a.zarr", made):
        volume = CompressedVolume.open(path)
        assert all(report.ok for report in check(path.read_bytes()))
        assert (volume.shape, volume.metadata.axes) == (brain[box].shape, "zyx")
        np.testing.assert_array_equal(volume.decode(), decoded[box])
        sizes.append(path.stat().st_size)
    assert len(sizes) == 6
    assert made.nbytes_stored() == sum(sizes) + (tmp_path / "a.zarr" / "zarr.json").stat().st_size


def test_a_frame_that_is_put_at_a_chunks_key_is_read(tmp_path: Path, brain: Array) -> None:
    made = create(tmp_path / "a.zarr", brain, (64, 64, 64), TincCodec(step=200))
    volume = compress(brain, Target.ratio(100), model="wavelet")
    volume.save(tmp_path / "a.zarr" / made.metadata.encode_chunk_key((0, 0, 0)), overwrite=True)
    np.testing.assert_array_equal(made[:], volume.decode())


def test_a_chunk_of_32_voxels_a_side_has_a_head_of_60_bytes(brain: Array) -> None:
    store = MemoryStore()
    made = create(store, brain, (32, 32, 32), TincCodec(ratio=64))
    for (frame, _), (key, _) in zip(stored(store, made), boxes(made), strict=True):
        nbytes = len(store._store_dict[key].to_bytes())
        head = nbytes - sum(len(segment.payload) for segment in frame.segments)
        print(f"{key}: {head} of {nbytes} bytes are head")
        assert head <= 64
        assert dict(frame.header.provenance) == {}
        assert nbytes <= 1024


# --- other programs --------------------------------------------------------------------------------------------------

READS_WITH_ZARR_ALONE = """
import sys, zarr
made = zarr.open_array(sys.argv[1], mode="r")
print(int(made[5, 6, 7]), int(made[:].sum()), type(made.serializer).__name__)
print("napari_tinc.encode.compression" in sys.modules)
made = zarr.open_group(sys.argv[2])["a"]
made[:3] = made[3:6]
print(int(made[:3].max()), "torch" in sys.modules, "napari" in sys.modules, "qtpy" in sys.modules)
"""


def test_a_program_that_imports_zarr_only_reads_and_writes(tmp_path: Path, folder: Path, brain: Array) -> None:
    group = zarr.create_group(tmp_path / "b.zarr")
    group.create_array(
        "a", shape=(8, 9, 10), chunks=(4, 9, 10), dtype="u2", serializer=TincCodec(step=3), compressors=None
    )[:] = 7
    command = [sys.executable, "-c", READS_WITH_ZARR_ALONE, str(folder), str(tmp_path / "b.zarr")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    decoded = zarr.open_array(folder)[:]
    assert done.stdout.split("\n")[0] == f"{decoded[5, 6, 7]} {decoded.sum()} TincCodec"
    assert done.stdout.split("\n")[1:3] == ["False", "7 False False False"]


def test_the_metadata_are_what_the_page_says(folder: Path) -> None:
    (codec,) = json.loads((folder / "zarr.json").read_text())["codecs"]
    assert codec == {"name": "napari-tinc.frame", "configuration": {"version": 1, "step": 200.0}}


def test_frames_lie_in_shards_and_are_read_from_there_one_by_one(tmp_path: Path, brain: Array) -> None:
    chunks = (16, 32, 16)
    made = create(tmp_path / "a.zarr", brain, chunks, TincCodec(step=150), shards=(32, 64, 48))
    plain = create(MemoryStore(), brain, chunks, TincCodec(step=150))
    np.testing.assert_array_equal(made[:], plain[:])
    np.testing.assert_array_equal(made[20, 10:40:3, 5], plain[20, 10:40:3, 5])
    np.testing.assert_array_equal(made.oindex[[3, 40], :, [1, 60]], plain.oindex[[3, 40], :, [1, 60]])
    shards = [path.read_bytes() for path in (tmp_path / "a.zarr" / "c").rglob("*") if path.is_file()]
    assert len(shards) == 4
    assert sum(shard.count(MAGIC) for shard in shards) == 4 * 2 * 4
    made[3:5, :, 20] = 900
    assert rmse(made[3:5, :, 20], np.full((2, 64), 900)) < 0.4 * 150  # quantised a second time


def test_dask_reads_and_writes(tmp_path: Path, brain: Array, folder: Path) -> None:
    lazy = da.from_zarr(str(folder))
    assert lazy.chunksize == (32, 32, 32)
    decoded = zarr.open_array(folder)[:]
    np.testing.assert_array_equal(lazy.compute(scheduler="threads", num_workers=4), decoded)
    np.testing.assert_array_equal(lazy[7, ::2, 3:40].compute(scheduler="synchronous"), decoded[7, ::2, 3:40])
    target = zarr.create_array(
        tmp_path / "b.zarr", shape=brain.shape, chunks=(32, 32, 32), dtype="u2", serializer=TincCodec(step=200),
        compressors=None,
    )  # fmt: skip
    da.from_array(brain, chunks=(32, 32, 32)).to_zarr(target)
    np.testing.assert_array_equal(target[:], decoded)


def test_the_codec_and_its_arrays_go_to_other_processes(brain: Array, folder: Path) -> None:
    for codec in (TincCodec(step=3), TincCodec(psnr=40, axes="yx"), TincCodec(ratio=np.float32(8))):
        again = pickle.loads(pickle.dumps(codec))
        assert again == codec
        assert again.to_dict() == codec.to_dict()
        assert hash(again) == hash(codec)
        assert TincCodec.from_dict(json.loads(json.dumps(codec.to_dict()))) == codec
    made = zarr.open_array(folder)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(made))[:8], made[:8])
    largest = da.from_zarr(made).max(axis=(1, 2)).compute(scheduler="processes", num_workers=2)
    np.testing.assert_array_equal(largest, made[:].max(axis=(1, 2)))


def test_many_threads_read_and_write_at_once(brain: Array) -> None:
    made = create(MemoryStore(), np.zeros_like(brain), (16, 64, 64), TincCodec(step=150))
    places = [slice(start, start + 16) for start in range(0, 64, 16)]

    def write(place: slice) -> None:
        made[place] = brain[place]

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, places))
        whole = made[:]
        planes = list(pool.map(lambda z: made[z % 64], range(192)))
    assert rmse(brain, whole) < 60
    for z, plane in enumerate(planes):
        np.testing.assert_array_equal(plane, whole[z % 64])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system cannot fork")
def test_a_forked_process_reads_and_writes_after_its_parent_did(tmp_path: Path, brain: Array) -> None:
    made = create(tmp_path / "a.zarr", brain, (32, 64, 64), TincCodec(step=150))
    expected = made[:]
    labels = create(tmp_path / "b.zarr", brain.astype("i8"), (32, 64, 64), TincCodec(step=150))

    def work() -> None:
        np.testing.assert_array_equal(made[:], expected)
        np.testing.assert_array_equal(labels[:], brain)
        made[:32] = brain[:32]
        np.testing.assert_array_equal(made[:], expected)

    holding, over = threading.Event(), threading.Event()

    def hold() -> None:
        with _opened._lock:
            holding.set()
            over.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    holding.wait()
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    over.set()
    thread.join()
    process.join(60)
    hangs = process.is_alive()
    process.kill()
    process.join()
    assert not hangs
    assert process.exitcode == 0


# --- only what is asked for ------------------------------------------------------------------------------------------


def test_only_the_boxes_that_are_asked_for_are_decoded(brain: Array, monkeypatch: pytest.MonkeyPatch) -> None:
    made = create(MemoryStore(), brain, (32, 64, 64), TincCodec(step=100))
    whole, regions = made[:], []

    def spied(data: bytes, shape: Any, dtype: Any, axes: Any, fill: Any, region: Any) -> Array:
        regions.append(tuple((r.start, r.stop) for r in region))
        return decode_chunk(data, shape, dtype, axes, fill, region)

    monkeypatch.setattr(codec_module, "decode_chunk", spied)
    mask = np.zeros(brain.shape, bool)
    mask[2, 3, [8, 9]] = mask[40, 5, 6] = True
    looks: list[tuple[Any, Any, list[Any]]] = [
        (made[5], whole[5], [((5, 6), (0, 64), (0, 64))]),
        (made[30:34, 7, 8:10], whole[30:34, 7, 8:10], [((30, 32), (7, 8), (8, 10)), ((0, 2), (7, 8), (8, 10))]),
        (made[0, 10:50:7, 3], whole[0, 10:50:7, 3], [((0, 1), (10, 46), (3, 4))]),
        (made.oindex[[1, 4], 20:22, [60, 9]], whole[np.ix_([1, 4], [20, 21], [60, 9])], [((1, 5), (20, 22), (9, 61))]),
        (
            made.vindex[[1, 40], [2, 3], [4, 5]],
            whole[[1, 40], [2, 3], [4, 5]],
            [((1, 2), (2, 3), (4, 5)), ((8, 9), (3, 4), (5, 6))],
        ),
        (made.vindex[mask], whole[mask], [((2, 3), (3, 4), (8, 10)), ((8, 9), (5, 6), (6, 7))]),
        (made.blocks[1], whole[32:], [((0, 32), (0, 64), (0, 64))]),
    ]  # fmt: skip
    asked = [box for _, _, boxes_of_look in looks for box in boxes_of_look]
    for found, expected, _ in looks:
        np.testing.assert_array_equal(found, expected)
    assert sorted(regions) == sorted(asked)


def test_a_corner_of_a_large_chunk_decodes_a_part_of_its_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    array, decoded = blobs((32, 128, 128)), []
    made = create(MemoryStore(), array, array.shape, TincCodec(step=60))
    decode = WaveletLayer._decode

    def spied(layer: WaveletLayer, octave: int, cell: Any, *others: Any) -> Any:
        decoded.append((octave, cell))
        return decode(layer, octave, cell, *others)

    monkeypatch.setattr(WaveletLayer, "_decode", spied)
    corner = made[:8, :8, :8]
    few = len(decoded)
    np.testing.assert_array_equal(made[:][:8, :8, :8], corner)
    assert 0 < few <= len(decoded) / 4
    assert len(set(decoded)) == len(decoded)  # the corner's are remembered


# --- chunks of all kinds ---------------------------------------------------------------------------------------------


def test_what_lies_beyond_the_end_of_the_array_costs_nothing(brain: Array) -> None:
    for fill in (0, 777):
        store = MemoryStore()
        made = create(store, brain[:33, :64, :40], (32, 64, 32), TincCodec(step=100), fill_value=fill)
        shapes = [frame.header.shape for frame, _ in stored(store, made)]
        assert shapes == [(32, 64, 32), (32, 64, 8), (1, 64, 32), (1, 64, 8)]
        decoded = made[:]
        for _, box in boxes(made):
            assert rmse(brain[box], decoded[box]) < 50
        made.resize((64, 64, 64))
        assert (made[33:, :, :] == fill).all()


def test_the_end_of_an_array_whose_fill_value_is_not_a_number_is_lossy_too() -> None:
    array, store = blobs((20, 24, 24), dtype="f4"), MemoryStore()
    made = create(store, array, (16, 16, 16), TincCodec(ratio=4), fill_value=np.nan)
    frames = [frame.header for frame, _ in stored(store, made)]
    assert [header.model for header in frames] == [MODEL_WAVELETS] * 8
    assert frames[-1].shape == (4, 8, 8)
    assert np.isfinite(made[:]).all()
    made.resize((22, 24, 24))
    assert np.isnan(made[20:]).all()


def test_a_zero_keeps_its_sign_in_an_exact_chunk() -> None:
    array = np.full((4, 5, 6), -0.0)
    array[0, 0, 0] = np.nan
    for fill in (0.0, -0.0):
        made = create(
            MemoryStore(), array, (3, 5, 6), TincCodec(step=1), fill_value=fill, config={"write_empty_chunks": True}
        )
        assert made[:].tobytes() == array.tobytes()


@pytest.mark.parametrize("dtype", ["?", "i8", "u8"])
def test_labels_and_masks_are_exact(dtype: str) -> None:
    array = (blobs((20, 21, 22)).astype("u8") // 700 << 61).astype(dtype)
    store = MemoryStore()
    made = create(store, array, (16, 16, 16), TincCodec(ratio=100))
    np.testing.assert_array_equal(made[:], array)
    assert {frame.header.model for frame, _ in stored(store, made)} == {MODEL_EXACT}
    assert made.nbytes_stored() < array.nbytes


def test_a_chunk_with_a_hole_is_exact_and_its_neighbours_are_lossy(brain: Array) -> None:
    array, store = brain.astype("f4"), MemoryStore()
    array[3, 4, 5] = np.nan
    made = create(store, array, (32, 64, 64), TincCodec(psnr=40))
    assert [frame.header.model for frame, _ in stored(store, made)] == [MODEL_EXACT, MODEL_WAVELETS]
    assert made[:32].tobytes() == array[:32].tobytes()


@pytest.mark.parametrize(
    ("target", "array"),
    [
        ({"ratio": 1e6}, blobs((8, 9, 10))),
        ({"psnr": 400.0}, blobs((8, 9, 10), dtype="f4")),
        ({"step": 1e-12}, blobs((8, 9, 10), dtype="f8")),
        ({"ratio": 0.5}, blobs((8, 9, 10))),
        ({"ratio": 4.0}, blobs((1, 3, 5))),
        ({"step": 1.0}, np.array([[-1.7e308, 1.7e308], [1.0, 2.0]])),
    ],
    ids=["ratio", "psnr", "step", "no compression", "few voxels", "range"],
)
def test_a_target_out_of_reach_leaves_a_chunk_exact(target: dict[str, float], array: Array) -> None:
    store = MemoryStore()
    made = create(store, array, array.shape, TincCodec(**target))
    ((frame, _),) = stored(store, made)
    assert frame.header.model == MODEL_EXACT
    assert made[:].tobytes() == array.tobytes()


def test_settings_that_make_no_sense_are_refused_and_not_made_up_for_with_exact_chunks() -> None:
    with pytest.raises(InputError, match="for a step"):
        chunk_frames.encode_chunk(blobs((8, 9, 10)), None, Target.step(3), settings=Settings(model="tinc"))


@pytest.mark.parametrize("dtype", [">u2", ">f4", ">i8", "<u2", "<f8"])
def test_byte_order_does_not_matter(dtype: str) -> None:
    array = blobs((9, 16, 17)).astype(dtype)
    made = create(MemoryStore(), array, (8, 16, 16), TincCodec(step=2))
    assert rmse(array, made[:]) < 1
    assert made[:].dtype == np.dtype(dtype)


@pytest.mark.parametrize("order", ["C", "F"])
def test_memory_order_does_not_matter(brain: Array, order: Any) -> None:
    made = create(
        MemoryStore(),
        np.asarray(brain, order=order)[::-1, ::2],
        (32, 32, 64),
        TincCodec(step=100),
        config={"order": order},
    )
    expected = create(MemoryStore(), np.ascontiguousarray(brain[::-1, ::2]), (32, 32, 64), TincCodec(step=100))
    np.testing.assert_array_equal(made[:], expected[:])


def test_axes_say_what_is_a_channel() -> None:
    array = np.stack([blobs((12, 16, 17)), 60000 - blobs((12, 16, 17))], axis=1)
    store = MemoryStore()
    made = create(store, array, (12, 2, 16, 17), TincCodec(step=20, axes="zcyx"))
    ((frame, _),) = stored(store, made)
    assert (frame.header.metadata.axes, frame.header.leading_shape) == ("zcyx", (2,))
    assert rmse(array, made[:]) < 10
    np.testing.assert_array_equal(made[3:5, 1], made[:][3:5, 1])


@pytest.mark.parametrize(
    ("shape", "chunks", "frame_shape", "axes"),
    [
        ((), (), (1, 1), "yx"),
        ((700,), (700,), (1, 700), "yx"),
        ((40, 41), (40, 41), (40, 41), "yx"),
        ((2, 9, 20, 21), (2, 9, 20, 21), (2, 9, 20, 21), "czyx"),
        ((2, 2, 5, 20, 21), (1, 2, 5, 20, 21), (1, 2, 5, 20, 21), "tczyx"),
        ((2, 2, 2, 5, 20, 21), (2, 2, 2, 5, 20, 21), (800, 21), "yx"),
        ((70000, 1, 2, 2), (70000, 1, 2, 2), (140000, 2), "yx"),
    ],
)  # fmt: skip
def test_arrays_of_all_ranks_have_the_frames_that_the_page_says(
    shape: tuple[int, ...], chunks: tuple[int, ...], frame_shape: tuple[int, ...], axes: str
) -> None:
    array = np.asarray(blobs(shape, dtype="f4") if shape else np.float32(5))
    store = MemoryStore()
    made = create(store, array, chunks, TincCodec(step=20))
    frame, _ = next(stored(store, made))
    assert (frame.header.shape, frame.header.metadata.axes) == (frame_shape, axes)
    assert rmse(array, made[...]) <= 10
    np.testing.assert_array_equal(made[tuple(slice(0, 1) for _ in shape)], made[...][tuple(slice(0, 1) for _ in shape)])


def test_empty_selections_and_empty_arrays_are_no_error(folder: Path) -> None:
    made = zarr.open_array(folder)
    assert made[3:3].shape == (0, 64, 64)
    assert made.oindex[np.array([], int), :, :].shape == (0, 64, 64)
    assert create(MemoryStore(), np.zeros((0, 5), "f4"), (1, 5), TincCodec(step=1))[:].shape == (0, 5)


def test_a_filter_before_the_codec_may_turn_the_axes(brain: Array) -> None:
    made = create(MemoryStore(), brain, (16, 32, 64), TincCodec(step=100), filters=[TransposeCodec(order=(2, 0, 1))])
    assert rmse(brain, made[:]) < 40
    np.testing.assert_array_equal(made[3:20, 5], made[:][3:20, 5])


# --- what does not belong there --------------------------------------------------------------------------------------


def exact(array: Array, axes: str) -> bytes:
    return framing.exact(array, Metadata(axes, (1.0,) * len(axes), ("",) * len(axes)))


@pytest.fixture
def spoilt(tmp_path: Path, brain: Array) -> tuple[zarr.Array, Path]:
    made = create(tmp_path / "a.zarr", brain, (32, 64, 64), TincCodec(step=100))
    return made, tmp_path / "a.zarr" / made.metadata.encode_chunk_key((1, 0, 0))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda _: b"", "truncated"),
        (lambda _: b"something else entirely", "not a .tinc file"),
        (lambda _: b"\x28\xb5\x2f\xfd" + bytes(100), "not a .tinc file"),
        (lambda data: data[:-1], "truncated"),
        (lambda data: data + b"\0", "trailing bytes"),
        (lambda data: data[:30] + bytes([data[30] ^ 4]) + data[31:], "damaged header"),
        (lambda data: data[:-9] + bytes([data[-9] ^ 4]) + data[-8:], "damaged segment"),
        (lambda _: exact(np.zeros((32, 64, 64), "i2"), "zyx"), "expected a chunk of uint16 voxels .* another array"),
        (lambda _: exact(np.zeros((33, 64, 64), "u2"), "zyx"), "expected a chunk of .* belongs to another array"),
        (lambda _: exact(np.zeros((32, 64, 64), "u2"), "cyx"), "and axes 'cyx': it belongs to another array"),
        (lambda _: exact(np.zeros((32, 64), "u2"), "yx"), "it belongs to another array"),
    ],
)  # fmt: skip
def test_a_chunk_that_is_damaged_or_of_another_array_is_refused(
    spoilt: tuple[zarr.Array, Path], change: Any, text: str
) -> None:
    made, path = spoilt
    path.write_bytes(change(path.read_bytes()))
    assert made[:32].any()
    for look in (
        lambda: made[:],
        lambda: made[40, 3],
        lambda: made.vindex[[50], [1], [2]],
        lambda: made.__setitem__(40, 0),
    ):
        with pytest.raises(FormatError, match=text) as caught:
            look()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", ["u2", "i8"])
def test_hostile_chunks_are_refused_or_other_voxels(dtype: str) -> None:
    source, store, array = random.Random(dtype), MemoryStore(), blobs((9, 16, 17), dtype=dtype)
    made = create(store, array, (16, 16, 32), TincCodec(step=20))
    ((key, _),) = boxes(made)
    data, read = store._store_dict[key].to_bytes(), 0
    frame = parse(data)
    for number in range(300):
        index = number % len(frame.segments)
        payload = edited(frame.segments[index].payload, source)
        hostile = with_payload(frame, index, payload) if number % 3 else edited(data, source)
        store._store_dict[key] = cpu.Buffer.from_bytes(hostile)
        try:
            found, part = made[:], made[3, 2:9, ::5]
        except FormatError:
            continue
        assert (found.shape, found.dtype) == (array.shape, array.dtype)
        np.testing.assert_array_equal(part, found[3, 2:9, ::5])
        read += 1
    assert 0 < read < 290


def opened_with(folder: Path, configuration: dict[str, Any]) -> zarr.Array:
    """Open an array whose metadata somebody has changed."""
    said = json.loads((folder / "zarr.json").read_text())
    said["codecs"] = [{"name": "napari-tinc.frame", "configuration": configuration}]
    (folder / "zarr.json").write_text(json.dumps(said))
    return zarr.open_array(folder, mode="r")


@pytest.mark.parametrize(
    ("configuration", "text"),
    [
        ({}, "expected one of step, psnr, ratio, max_error for codec napari-tinc.frame, got none"),
        ({"version": 1}, "got none"),
        ({"version": 1, "step": 3, "ratio": 4}, "got step and ratio"),
        ({"version": 2, "step": 3}, "expected version 1 of codec napari-tinc.frame, got 2; update napari-tinc"),
        ({"version": "1", "step": 3}, "expected version 1"),
        ({"version": None, "step": 3}, "expected version 1"),
        ({"version": 1, "step": 3, "quality": 4, "blur": 1}, "got blur, quality"),
        ({"version": 1, "step": "3"}, "expected a positive target, got step = '3'"),
        ({"version": 1, "step": 0}, "expected a positive target"),
        ({"version": 1, "ratio": -4}, "expected a positive target"),
        ({"version": 1, "psnr": True}, "expected a positive target"),
        ({"version": 1, "psnr": 10**400}, "expected a positive target"),
        ({"version": 1, "psnr": [40]}, "expected a positive target"),
        ({"version": 1, "step": 3, "axes": "zy"}, "expected letters of 'tczyx'"),
        ({"version": 1, "step": 3, "axes": "yx"}, "expected an axis letter for each of 3 dimensions, got 'yx'"),
        ({"version": 1, "step": 3, "axes": "qyx"}, "expected letters of 'tczyx'"),
        ({"version": 1, "step": 3, "axes": ["z", "y", "x"]}, "expected axes such as 'zyx'"),
        ({"version": 1, "step": 3, "axes": ""}, "expected 2 to 5 axes"),
    ],
    ids=str,
)  # fmt: skip
def test_a_configuration_that_makes_no_sense_is_refused_when_the_array_is_opened(
    tmp_path: Path, configuration: dict[str, Any], text: str
) -> None:
    create(tmp_path / "a.zarr", blobs((8, 8, 8)), (8, 8, 8), TincCodec(step=3))
    with pytest.raises(InputError) as caught:
        opened_with(tmp_path / "a.zarr", configuration)
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("given", [{}, {"step": 1, "psnr": 2}, {"step": 1, "psnr": 2, "ratio": 3}, {"axes": "yx"}])
def test_a_codec_has_exactly_one_target(given: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="expected one of step, psnr, ratio"):
        TincCodec(**given)


@pytest.mark.parametrize("shards", [None, (16, 16, 16)])
@pytest.mark.parametrize("dtype", ["c8", "c16", "M8[s]", "S4", [("a", "u2")]], ids=str)
@pytest.mark.filterwarnings("ignore::zarr.errors.UnstableSpecificationWarning")
def test_voxels_that_are_no_real_numbers_are_refused_when_the_array_is_made(dtype: Any, shards: Any) -> None:
    options: dict[str, Any] = {"chunks": (8, 8, 8), "serializer": TincCodec(step=1), "compressors": None}
    with pytest.raises(InputError, match="expected booleans, integers or floats of up to 64 bits") as caught:
        zarr.create_array(MemoryStore(), shape=(16,) * 3, dtype=dtype, shards=shards, **options)
    assert "\n" not in str(caught.value)


def test_chunks_of_more_than_a_gigabyte_are_refused() -> None:
    options: dict[str, Any] = {"dtype": "u2", "serializer": TincCodec(step=1), "compressors": None}
    with pytest.raises(InputError, match=r"at most 1073741824 bytes .* got chunks of shape \(1024, 1024, 1024\)"):
        zarr.create_array(MemoryStore(), shape=(2048,) * 3, chunks=(1024,) * 3, **options)
    spread = np.broadcast_to(np.uint16(3), (1024,) * 3)  # takes no memory
    with pytest.raises(InputError, match="at most 1073741824 bytes"):
        codec_module._check_size(spread.shape, spread.dtype)


def test_chunks_read_last_stay_open_and_others_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = chunk_frames._OpenVolumes()
    monkeypatch.setattr(chunk_frames, "_OPEN_BYTES", 5000)
    data = [exact(np.full((10, 100), number, "u2"), "yx") for number in range(4)]
    volumes = [opened(one) for one in data[:3]]
    assert opened(bytes(bytearray(data[1]))) is volumes[1]
    assert opened(data[0]) is not volumes[0]  # two fit; it was read before the others
    opened(data[3])
    assert list(opened._volumes) == [data[0], data[3]]
    large = exact(np.zeros((60, 100), "u2"), "yx")
    assert opened(large) is opened(large)
    assert list(opened._volumes) == [large]


def test_a_chunk_promises_no_more_voxels_than_it_may_have() -> None:
    frame = exact(np.zeros((1, 2, 2), "u2"), "zyx")
    region = (slice(0, 2), slice(0, 3), slice(0, 4))
    decoded = decode_chunk(frame, (2, 3, 4), np.dtype("u2"), None, 9, region)
    assert decoded.tolist() == np.pad(np.zeros((1, 2, 2), int), [(0, 1), (0, 1), (0, 2)], constant_values=9).tolist()
    assert parse(frame).header.shape == (1, 2, 2)

"""OME-Zarrs of ours in a real window: opened, looked at, compared, and made from layers larger than memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import zarr

from napari_tinc import InputError, Metadata, Target
from napari_tinc.chunks.array import Options, compress_array
from napari_tinc.chunks.image import of_array
from napari_tinc.chunks.manifest import UNFINISHED
from napari_tinc.chunks.view import CompressedArray
from napari_tinc.files.zarr import described
from napari_tinc.plugin.compress import losses, lost, widget
from napari_tinc.plugin.compress.model import full_resolution
from napari_tinc.plugin.layers.octants import OctantModel
from napari_tinc.plugin.menus import arrays, commands, reader
from napari_tinc.plugin.window.preferences import Preferences, remember
from napari_tinc.samples import neuron_phantom
from napari_tinc.settings import Settings
from napari_tinc.system.steps import complete

SHAPE = (2, 20, 270, 50)
PLACE = Metadata("czyx", (1.0, 2.0, 0.5, 0.5), ("", *["micrometer"] * 3), ("a", "b"), "cells")


@pytest.fixture(scope="module")
def voxels() -> np.ndarray:
    return np.stack([neuron_phantom(SHAPE[1:]).noisy, neuron_phantom(SHAPE[1:]).noisy[::-1] // 2])


@pytest.fixture(scope="module")
def array(tmp_path_factory: pytest.TempPathFactory, voxels: np.ndarray) -> Path:
    path = tmp_path_factory.mktemp("arrays") / "cells.zarr"
    complete(compress_array(of_array(voxels, PLACE), path, Options(Target.step(20.0), chunk=32)))
    return path


def test_it_opens_as_a_result_and_shows_its_voxels(tinc_viewer: Callable[..., Any], array: Path, qtbot: Any) -> None:
    viewer = tinc_viewer()
    (layer,) = viewer.open(str(array), plugin="napari-tinc")
    assert full_resolution(layer).shape == SHAPE
    np.testing.assert_allclose(layer.scale, (1.0, 2.0, 0.5, 0.5))
    decoded = zarr.open_group(array)["0"][...]
    np.testing.assert_array_equal(np.asarray(full_resolution(layer)[1, 7]), decoded[1, 7])
    viewer.dims.set_current_step(1, 3)
    qtbot.waitUntil(lambda: np.array_equal(np.asarray(full_resolution(layer)[0, 3]), decoded[0, 3]), timeout=10_000)


def test_coarser_scales_are_read_from_coarser_levels(array: Path) -> None:
    compressed = CompressedArray.open(array)
    assert compressed is not None
    levels = described(array)[0]
    assert levels[1].shape == (2, 20, 135, 50)
    whole = compressed.decode()
    np.testing.assert_array_equal(whole, levels[0][...])
    half = compressed.decode(scale=0.5)
    assert half.shape == compressed.scaled_shape(0.5) == (2, 10, 135, 25)
    mean = whole.reshape(2, 10, 2, 135, 2, 25, 2).mean((2, 4, 6))
    assert np.corrcoef(half.ravel(), mean.ravel())[0, 1] > 0.8
    np.testing.assert_array_equal(compressed.decode((1, slice(3, 5), slice(100, 200), 7)), whole[1, 3:5, 100:200, 7])


def test_chunks_are_octants_with_the_errors_that_they_have(
    tinc_viewer: Callable[..., Any], array: Path, voxels: np.ndarray
) -> None:
    viewer = tinc_viewer()
    (layer,) = viewer.open(str(array), plugin="napari-tinc")
    compressed = layer.metadata["tinc"]
    whole = compressed.decode()
    assert len(compressed.octants) == 2 * 1 * 9 * 2
    for octant in compressed.octants:
        error = voxels[octant.item][octant.box].astype(float) - whole[octant.item][octant.box]
        span = float(voxels[octant.item].max()) - float(voxels[octant.item].min())
        assert octant.psnr == pytest.approx(20 * np.log10(span) - 10 * np.log10((error**2).mean()))
        assert octant.max_error == np.abs(error).max()
    model = OctantModel(layer)
    size, grid = model.cell_size(), model.grid("psnr")
    # Every cell of the overlay lies in the chunk whose number it shows, and the overlay ends with the volume.
    np.testing.assert_array_equal(np.array(grid.shape) * size, SHAPE)
    for number, (start, stop) in enumerate(zip(model.starts, model.stops, strict=True)):
        cells = np.argwhere(model.numbers == number + 1)
        assert np.all(cells.min(axis=0) * size >= start)
        assert np.all((cells.max(axis=0) + 1) * size < stop + size)
    commands.show_quality(viewer)
    commands.show_octant_table(viewer)
    assert len(viewer.layers) == 4


def test_the_difference_to_the_original(tinc_viewer: Callable[..., Any], array: Path, voxels: np.ndarray) -> None:
    viewer = tinc_viewer()
    (layer,) = viewer.open(str(array), plugin="napari-tinc")
    original = viewer.add_image(da.from_array(voxels), name="raw", scale=layer.scale)
    viewer.layers.selection = {layer, original}
    commands.show_difference(viewer)
    difference = viewer.layers[-1]
    expected = voxels.astype(np.float32) - layer.metadata["tinc"].decode()
    np.testing.assert_array_equal(np.asarray(full_resolution(difference)[1, 4]), expected[1, 4])


def test_an_unfinished_array_says_so(array: Path, tmp_path: Path) -> None:
    unfinished = tmp_path / f"cells.zarr{UNFINISHED}"
    zarr.open_group(unfinished, mode="w")
    with pytest.raises(InputError, match="unfinished"):
        reader.open_zarrs(str(unfinished))


def test_a_layer_becomes_an_array_in_the_background(
    tinc_viewer: Callable[..., Any], voxels: np.ndarray, tmp_path: Path, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    viewer = tinc_viewer()
    read: list[tuple[int, ...]] = []

    def block(voxels: np.ndarray) -> np.ndarray:
        read.append(voxels.shape)
        return voxels

    lazy = da.from_array(voxels, chunks=(1, 20, 64, 50)).map_blocks(block, dtype=voxels.dtype)
    layer = viewer.add_image(lazy, name="cells", axis_labels=("c", "z", "y", "x"), scale=(1, 2, 0.5, 0.5))
    viewer.layers.selection.active = layer
    remember("fast", "auto", Target.ratio(20))
    monkeypatch.setattr(arrays, "ask_path", lambda *args: tmp_path / "out.zarr")
    commands.compress_into_zarr(viewer)
    qtbot.waitUntil(lambda: not arrays._running, timeout=120_000)
    assert (tmp_path / "out.zarr").is_dir()
    result = viewer.layers[-1]
    assert isinstance(result.metadata["tinc"], CompressedArray)
    np.testing.assert_allclose(result.scale, layer.scale)
    error = np.asarray(full_resolution(result)[0, 10]).astype(float) - voxels[0, 10]
    assert np.sqrt((error**2).mean()) < 60
    assert max(map(np.prod, read)) <= 20 * 64 * 50
    dock = viewer.window.dock_widgets[lost.DOCK_NAME]
    qtbot.waitUntil(lambda: bool(dock.worst.buttons), timeout=30_000)
    assert "Dice" in dock.kept.text()


def test_what_an_array_has_lost(tinc_viewer: Callable[..., Any], array: Path, voxels: np.ndarray, qtbot: Any) -> None:
    viewer = tinc_viewer()
    (layer,) = viewer.open(str(array), plugin="napari-tinc")
    original = viewer.add_image(da.from_array(voxels, chunks=(1, 20, 32, 32)), name="raw", scale=layer.scale)
    viewer.layers.selection = {layer, original}
    commands.show_lost(viewer)
    dock = viewer.window.dock_widgets[lost.DOCK_NAME]
    qtbot.waitUntil(lambda: bool(dock.worst.buttons), timeout=30_000)
    compressed = layer.metadata["tinc"]
    expected = losses.kept_structure(voxels, compressed)
    assert expected is not None
    assert dock.kept.text() == expected.sentence()
    # The first picture is of the chunk with the lowest PSNR, and shows the plane of it with the largest error.
    worst = min(compressed.octants, key=lambda octant: octant.psnr)
    error = (voxels[worst.item][worst.box] - compressed.decode()[worst.item][worst.box].astype(float)) ** 2
    plane = worst.box[0].start + int(error.sum((1, 2)).argmax())
    dock.worst.buttons[0].click()
    assert viewer.dims.current_step[:2] == (worst.item, plane)
    viewer.layers.remove(layer)
    assert not dock.worst.buttons
    small = viewer.add_image(voxels[:, :10], name="another")
    with pytest.raises(InputError, match="shape"):
        lost.show_lost(viewer, small, viewer.open(str(array), plugin="napari-tinc")[0])


def test_the_workers_of_a_cluster_can_make_it(
    tinc_viewer: Callable[..., Any], voxels: np.ndarray, tmp_path: Path, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    distributed = pytest.importorskip("distributed")
    source = zarr.create_array(tmp_path / "in.zarr", data=voxels, chunks=(1, 20, 64, 50))
    viewer = tinc_viewer()
    lazy = viewer.add_image(da.from_zarr(source) // 2, name="cells", axis_labels=("c", "z", "y", "x"))
    told: list[str] = []
    monkeypatch.setattr(arrays, "show_error", told.append)
    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0", processes=False) as local:
        monkeypatch.setattr(arrays, "read", lambda: Preferences(scheduler=local.scheduler_address))
        arrays.ArrayCompression(viewer, lazy, tmp_path / "out.zarr", Target.step(20.0), Settings())
        qtbot.waitUntil(lambda: not arrays._running, timeout=120_000)
        in_memory = viewer.add_image(np.tile(voxels, (2, 1, 1, 1)), name="large", axis_labels=("t", "z", "y", "x"))
        arrays.ArrayCompression(viewer, in_memory, tmp_path / "large.zarr", Target.step(20.0), Settings())
        qtbot.waitUntil(lambda: not arrays._running, timeout=120_000)
    (refusal,) = told
    assert "in napari's memory" in refusal
    monkeypatch.setattr(arrays, "read", Preferences)
    arrays.ArrayCompression(viewer, lazy, tmp_path / "threads.zarr", Target.step(20.0), Settings())
    qtbot.waitUntil(lambda: not arrays._running, timeout=120_000)
    opened = [zarr.open_group(tmp_path / f"{name}.zarr")["0"][...] for name in ("out", "threads")]
    np.testing.assert_array_equal(*opened)
    assert np.abs(opened[0].astype(float) - voxels // 2).max() < 200


def test_a_cluster_that_does_not_answer_is_named(
    tinc_viewer: Callable[..., Any], voxels: np.ndarray, tmp_path: Path, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("distributed")
    told: list[str] = []
    monkeypatch.setattr(arrays, "show_error", told.append)
    monkeypatch.setattr(arrays, "read", lambda: Preferences(scheduler="tcp://localhost"))
    viewer = tinc_viewer()
    source = zarr.create_array(tmp_path / "in.zarr", data=voxels, chunks=(1, 20, 64, 50))
    layer = viewer.add_image(da.from_zarr(source), name="cells", axis_labels=("c", "z", "y", "x"))
    arrays.ArrayCompression(viewer, layer, tmp_path / "out.zarr", Target.step(20.0), Settings())
    qtbot.waitUntil(lambda: not arrays._running, timeout=60_000)
    (refusal,) = told
    assert "Cluster for OME-Zarrs" in refusal
    assert not list(tmp_path.glob("out*"))


def test_cancelled_it_can_go_on(
    tinc_viewer: Callable[..., Any], voxels: np.ndarray, tmp_path: Path, qtbot: Any
) -> None:
    viewer = tinc_viewer()
    layer = viewer.add_image(voxels, name="cells", axis_labels=("c", "z", "y", "x"))
    running = arrays.ArrayCompression(viewer, layer, tmp_path / "out.zarr", Target.ratio(20), Settings())
    qtbot.waitUntil(lambda: (tmp_path / f"out.zarr{UNFINISHED}").exists(), timeout=60_000)
    running._worker.quit()
    qtbot.waitUntil(lambda: not arrays._running, timeout=60_000)
    assert not (tmp_path / "out.zarr").exists()
    arrays.ArrayCompression(viewer, layer, tmp_path / "out.zarr", Target.ratio(20), Settings())
    qtbot.waitUntil(lambda: not arrays._running, timeout=120_000)
    assert CompressedArray.open(tmp_path / "out.zarr") is not None


def test_the_widget_offers_an_array_for_its_output(
    tinc_viewer: Callable[..., Any], voxels: np.ndarray, tmp_path: Path, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    viewer = tinc_viewer()
    layer = viewer.add_image(voxels, name="cells", axis_labels=("c", "z", "y", "x"), scale=(1, 2, 0.5, 0.5))
    _, compress_widget = viewer.window.add_plugin_dock_widget("napari-tinc", "Compress")
    shapes = viewer.add_shapes(
        [[0, 0, 10, 0], [0, 0, 10, 20], [0, 0, 60, 20], [0, 0, 60, 0]], name="region", scale=(1, 2, 0.5, 0.5)
    )
    compress_widget.form.refresh_layers()
    compress_widget.form.write(source=layer, region=shapes, target_kind="ratio", target_value=4, output="zarr")
    monkeypatch.setattr(widget, "ask_path", lambda *args: tmp_path / "out.zarr")
    compress_widget.start()
    qtbot.waitUntil(lambda: not arrays._running, timeout=120_000)
    result = viewer.layers[-1]
    assert isinstance(result.metadata["tinc"], CompressedArray)
    assert full_resolution(result).shape[:2] == SHAPE[:2]
    assert full_resolution(result).shape[2] < SHAPE[2]
    np.testing.assert_allclose(result.extent.world[0][2], layer.data_to_world((0, 0, 10, 0))[2], atol=1)

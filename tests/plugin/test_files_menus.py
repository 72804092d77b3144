from __future__ import annotations

import base64
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.array as da
import npe2
import numpy as np
import pytest
import yaml
import zarr
from hostile import gigavoxel
from napari.components import ViewerModel
from qtpy.QtCore import Qt, QTimer
from range_server import serving
from superqt.utils import WorkerBase

from napari_tinc.arrays.metadata import Display, Metadata
from napari_tinc.errors import FormatError, InputError
from napari_tinc.plugin.compress import worker
from napari_tinc.plugin.layers.octant_table import OctantTable
from napari_tinc.plugin.layers.results import add_result
from napari_tinc.plugin.menus import commands, reader, sample_data, writer
from napari_tinc.plugin.window.preferences import Preferences, read, remember
from napari_tinc.target import Target
from napari_tinc.wavelets.blocks import WaveletLayer

ROOT = Path(__file__).parents[2]
MANIFEST = yaml.safe_load((ROOT / "napari.yaml").read_text())["contributions"]


@pytest.fixture
def file(tmp_path: Path, stack: Any) -> Path:
    stack.save(tmp_path / "waves.tinc")
    return tmp_path / "waves.tinc"


@pytest.fixture
def pair(tinc_viewer: Callable[..., Any], stack: Any) -> tuple[Any, Any, Any]:
    """A viewer with an original and its result."""
    viewer = tinc_viewer()
    source = viewer.add_image(stack.decode() + np.uint16(3), name="raw", scale=(2, 0.5, 0.5), units=("um",) * 3)
    result = add_result(viewer, stack, source)
    viewer.layers.selection.active = result
    return viewer, source, result


def test_a_file_on_a_server_is_opened_by_its_address_and_read_where_it_is_shown(file: Path, stack: Any) -> None:
    with serving({"waves.tinc": file.read_bytes()}) as server:
        address = f"{server.url}/waves.tinc"
        assert reader.get_reader(address) is reader.open_files
        [(_, options, kind)] = reader.open_files(address)
        assert (options["name"].split(",")[0].split(" ")[0], kind) == ("waves", "image")
        volume = options["metadata"]["tinc"]
        np.testing.assert_array_equal(volume.decode((0,)), stack.decode((0,)))


def test_the_manifest_is_valid_and_every_python_name_can_be_imported() -> None:
    manifest = npe2.PluginManifest.from_file(ROOT / "napari.yaml")
    assert manifest.name == "napari-tinc"
    manifest.validate_imports()


def test_the_packaged_manifest_is_the_one_at_the_top() -> None:
    link = ROOT / "napari_tinc" / "napari.yaml"
    assert link.is_symlink()
    assert link.resolve() == (ROOT / "napari.yaml").resolve()


def test_only_files_named_tinc_are_read() -> None:
    assert reader.get_reader("a.tinc") is not None
    assert reader.get_reader(["a.tinc", "B.TINC"]) is not None
    assert reader.get_reader("a.tif") is None
    assert reader.get_reader(["a.tinc", "b.tif"]) is None
    assert reader.get_reader([]) is None


def test_opening_a_file_decodes_nothing(file: Path, decoded_voxels: list[int]) -> None:
    ((data, options, kind),) = reader.open_files(str(file))
    assert (data.shape, kind) == ((18, 33, 30), "image")
    assert options["name"].startswith("waves, ")
    assert decoded_voxels == []


def test_opening_a_damaged_file_says_so(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(FormatError):
        reader.open_files(str(file))
    with pytest.raises(InputError, match=r"expected a readable \.tinc file"):
        reader.open_files(str(file.with_name("gone.tinc")))


def test_several_files_dropped_on_the_viewer_are_several_layers(
    tinc_viewer: Callable[..., Any], file: Path, movie: Any, tmp_path: Path
) -> None:
    movie.save(tmp_path / "movie.tinc")
    viewer = tinc_viewer()
    layers = viewer.open([str(file), str(tmp_path / "movie.tinc")], plugin="napari-tinc")
    made = [(v.metadata.name, v) for v in (layer.metadata["tinc"] for layer in layers)]
    assert [name for name, _ in made] == ["waves", "movie"]
    assert [layer.name for layer in layers] == [
        f"{name}, {v.ratio:.1f}×, {v.provenance['psnr']:.1f} dB" for name, v in made
    ]


def test_a_plane_of_a_gigavoxel_file_costs_what_lies_in_it(
    tmp_path: Path, decoded_voxels: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks: list[tuple[int, tuple[int, int, int]]] = []
    decode = WaveletLayer._decode

    def counting(self: WaveletLayer, level: int, cell: tuple[int, int, int], *rest: Any) -> Any:
        if rest[-1]:  # it has a stream of its own
            blocks.append((level, cell))
        return decode(self, level, cell, *rest)

    monkeypatch.setattr(WaveletLayer, "_decode", counting)
    (tmp_path / "large.tinc").write_bytes(gigavoxel())
    ((levels, options, _),) = reader.open_files(str(tmp_path / "large.tinc"))
    assert [level.shape for level in levels] == [(1024,) * 3, (512,) * 3, (256,) * 3, (128,) * 3]
    assert decoded_voxels == []
    ViewerModel().add_image(levels, **options)
    assert set(decoded_voxels) == {128 * 128}, "planes of the coarsest level"
    assert len(decoded_voxels) <= 2
    assert {level for level, _ in blocks} <= {3}, "the blocks of finer levels are not touched"
    decoded_voxels.clear()
    plane = np.asarray(levels[0][512])
    assert plane.std() > 100
    assert sum(decoded_voxels) == 1024 * 1024
    assert len(blocks) == len(set(blocks)) > 10
    for level, (z, _, _) in blocks:
        assert 32 * z - 4 <= 512 / 2 ** (level + 1) <= 32 * z + 36, "it holds the plane, or filters reach from it"


def test_an_ome_zarr_is_a_source_like_any_other_and_results_are_exported_as_one_and_as_a_page(
    tinc_viewer: Callable[..., Any], qtbot: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_tinc.files import read_volume, write_volume

    stack = np.rint(900 + 800 * np.sin(np.indices((2, 10, 24, 20)).sum(0) / 5)).astype("u2")
    display = Display((0, 5, 6.5, -7), (), ((0, 1500), (100, 1600)), ("#ff00ff", "#00ff00"))
    units = ("", *("micrometer",) * 3)
    metadata = Metadata("czyx", (1, 2, 0.5, 0.5), units, ("DAPI", "GFP"), "cells", display)
    write_volume(tmp_path / "in.ome.zarr", stack, metadata)
    assert read_volume(tmp_path / "in.ome.zarr").metadata == metadata
    viewer = tinc_viewer()
    (source,) = viewer.open(str(tmp_path / "in.ome.zarr"), plugin="napari-tinc")
    assert isinstance(source.data, da.Array)
    np.testing.assert_allclose(source.data_to_world((0, 0, 0, 0)), (0, 5, 6.5, -7))
    assert (tuple(source.axis_labels), str(source.units[1])) == (tuple("czyx"), "micrometer")
    assert tuple(source.contrast_limits) == (0, 1600)
    _, widget = viewer.window.add_plugin_dock_widget("napari-tinc", "Compress")
    widget.form.write(target_value=8)
    widget.compress_button.click()
    qtbot.waitUntil(lambda: widget.card.isVisibleTo(widget), timeout=60_000)
    target = tmp_path / "out.zarr"
    monkeypatch.setattr("qtpy.QtWidgets.QFileDialog.getSaveFileName", lambda *args: (str(target), ""))
    widget.card.buttons["zarr"].click()
    qtbot.waitUntil(lambda: target.exists(), timeout=60_000)
    exported = read_volume(target)
    result = viewer.layers[-1].metadata["tinc"]
    np.testing.assert_array_equal(exported.data, result.decode())
    assert exported.metadata.voxel_size == (1, 2, 0.5, 0.5)
    assert exported.metadata.display.translate == (0, 5, 6.5, -7)
    page = tmp_path / "cells.html"
    monkeypatch.setattr("qtpy.QtWidgets.QFileDialog.getSaveFileName", lambda *args: (str(page), ""))
    widget.card.buttons["share"].click()
    qtbot.waitUntil(lambda: page.exists(), timeout=60_000)
    assert base64.b64encode(result.to_bytes()) in page.read_bytes()
    WorkerBase.await_workers(10_000)


def test_a_zarr_of_several_resolutions_is_a_lazy_pyramid(tinc_viewer: Callable[..., Any], tmp_path: Path) -> None:
    full = np.arange(8 * 32 * 24, dtype="u2").reshape(8, 32, 24)
    scales = [{"type": "scale", "scale": [2.0, 1.0, 1.0]}], [{"type": "scale", "scale": [4.0, 2.0, 2.0]}]
    axes = [{"name": letter, "type": "space", "unit": "micrometer"} for letter in "zyx"]
    levels = [{"path": str(i), "coordinateTransformations": scale} for i, scale in enumerate(scales)]
    ome = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": levels}]}
    group = zarr.open_group(tmp_path / "pyramid.zarr", mode="w", zarr_format=3, attributes={"ome": ome})
    for number, data in enumerate((full, full[::2, ::2, ::2])):
        group.create_array(str(number), data=data, chunks=(4, 8, 8))
    (layer,) = tinc_viewer().open(str(tmp_path / "pyramid.zarr"), plugin="napari-tinc")
    assert layer.multiscale
    assert [level.shape for level in layer.data] == [(8, 32, 24), (4, 16, 12)]
    assert tuple(layer.scale) == (2, 1, 1)
    np.testing.assert_array_equal(layer.data[0], full)
    assert reader.get_zarr_reader(str(tmp_path)) is None


def test_what_is_written_as_an_ome_zarr_opens_as_a_pyramid_in_its_place(
    tinc_viewer: Callable[..., Any], tmp_path: Path
) -> None:
    from napari_tinc.files import write_volume

    volume = np.random.default_rng(0).integers(0, 999, (3, 601, 40)).astype("u2")
    metadata = Metadata("zyx", (2, 0.5, 0.5), ("micrometer",) * 3, name="cells", display=Display((5, 6.5, -7)))
    write_volume(tmp_path / "a.zarr", volume, metadata)
    viewer = tinc_viewer()
    (layer,) = viewer.open(str(tmp_path / "a.zarr"), plugin="napari-tinc")
    assert layer.multiscale
    assert [level.shape for level in layer.data] == [(3, 601, 40), (3, 301, 40), (3, 151, 40)]
    np.testing.assert_allclose(layer.data_to_world((0, 0, 0)), (5, 6.5, -7))
    assert tuple(layer.scale) == (2, 0.5, 0.5)
    layer.locked_data_level = 2
    viewer.dims.set_current_step(0, 2)
    np.testing.assert_array_equal(layer._slice.image.raw, layer.data[2][2], "thin stacks keep their planes")


def test_a_result_is_saved_as_the_bytes_it_has(pair: tuple[Any, Any, Any], tmp_path: Path, stack: Any) -> None:
    viewer, _, result = pair
    path = str(tmp_path / "again.tinc")
    assert viewer.layers.save(path, selected=True, plugin="napari-tinc") == [path]
    assert Path(path).read_bytes() == stack.to_bytes()
    assert result in viewer.layers


def test_an_image_is_saved_compressed_with_the_last_settings(tinc_viewer: Callable[..., Any], tmp_path: Path) -> None:
    from napari_tinc.volume import CompressedVolume

    viewer = tinc_viewer()
    remember("fast", "cpu", Target.ratio(9))
    ramp = np.add.outer(np.add.outer(np.arange(12), np.arange(16)), np.arange(20)).astype(np.uint16) * 50
    viewer.add_image(ramp, name="ramp", scale=(2, 1, 1), units=("um",) * 3)
    path = str(tmp_path / "ramp.tinc")
    viewer.layers.save(path, plugin="napari-tinc")
    volume = CompressedVolume.open(path)
    assert volume.ratio >= 9
    assert volume.provenance["preset"] == "fast"
    assert volume.metadata.voxel_size == (2.0, 1.0, 1.0)
    assert volume.metadata.units == ("micrometer",) * 3
    assert volume.metadata.name == "ramp"


def test_saving_an_image_says_what_was_done_keeps_its_looks_and_can_be_cancelled(
    tinc_viewer: Callable[..., Any], qtbot: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_tinc.volume import CompressedVolume

    told: list[str] = []
    monkeypatch.setattr(writer, "show_info", told.append)
    monkeypatch.setattr(writer, "show_warning", told.append)
    viewer = tinc_viewer()
    remember("fast", "cpu", Target.ratio(9))
    ramp = np.add.outer(np.add.outer(np.arange(12), np.arange(16)), np.arange(20)).astype(np.uint16) * 50
    viewer.add_image(ramp, name="ramp", translate=(7, 8, 9), colormap="magenta", contrast_limits=(5, 1000))
    path = tmp_path / "ramp.tinc"
    alive: list[bool] = []
    QTimer.singleShot(0, lambda: alive.append(not path.exists()))
    viewer.layers.save(str(path), plugin="napari-tinc")
    assert alive == [True], "the window lives while the layer is compressed"
    assert "times smaller" in told[0]
    assert "compress widget" in told[0]
    display = CompressedVolume.open(path).metadata.display
    assert display == Display((7, 8, 9), (), ((5, 1000),), ("magenta",))
    before = path.read_bytes()
    monkeypatch.setattr(worker, "start", cancelling(worker.start))
    with pytest.warns(UserWarning, match="did not return any written paths"):  # napari's word for it
        viewer.layers.save(str(path), plugin="napari-tinc")
    assert "cancelled" in told[1]
    assert path.read_bytes() == before


def cancelling(start: Callable[..., Any]) -> Callable[..., Any]:
    def started(job: Any, control: Any, *slots: Any) -> Any:
        control.discard()
        return start(job, control, *slots)

    return started


def test_preferences_are_the_manifests_until_the_user_changes_them(tinc_viewer: Callable[..., Any]) -> None:
    from napari.settings import get_plugin_settings

    tinc_viewer()
    assert read() == Preferences()
    page = get_plugin_settings("napari-tinc")
    page.compression.preset = "best"
    page.memory.cache_megabytes = 100
    assert (read().preset, read().cache_megabytes) == ("best", 100)
    remember("fast", "cpu", Target.psnr(40))
    assert read().target == Target.psnr(40)
    assert (read().preset, read().device) == ("fast", "cpu")


def test_the_cache_size_is_napari_caches_size(tinc_viewer: Callable[..., Any], stack: Any) -> None:
    from napari.settings import get_plugin_settings
    from napari.utils import resize_dask_cache

    before = resize_dask_cache().cache.available_bytes
    viewer = tinc_viewer()
    get_plugin_settings("napari-tinc").memory.cache_megabytes = 7
    add_result(viewer, stack)
    assert resize_dask_cache().cache.available_bytes == 7_000_000
    resize_dask_cache(before)


def test_menu_items_appear_where_users_look(tinc_viewer: Callable[..., Any]) -> None:
    from app_model.types import SubmenuItem
    from napari._app_model import get_app_model

    tinc_viewer()
    menus = get_app_model().menus
    for menu, items in MANIFEST["menus"].items():
        shown = {item.command.id for item in menus.get_menu(menu) if not isinstance(item, SubmenuItem)}
        assert {item["command"] for item in items} <= shown, menu
    registered = set(get_app_model().registered_actions)
    samples = {sample["command"] for sample in MANIFEST["sample_data"]}
    widgets = {widget["command"] for widget in MANIFEST["widgets"]}
    palette = {command["id"] for command in MANIFEST["commands"]} - samples - widgets
    assert palette <= registered


def test_commands_need_an_image(tinc_viewer: Callable[..., Any]) -> None:
    from napari._app_model import get_app_model

    tinc_viewer()
    rules = {c["id"]: c["enablement"] for c in MANIFEST["commands"] if "image" in c.get("enablement", "")}
    assert set(rules) >= {f"napari-tinc.{name}" for name in ("show_quality", "show_difference", "save_result")}
    for command in rules:
        enabled = get_app_model().registered_actions[command].enablement
        assert enabled.eval({"num_selected_image_layers": 1})
        assert not enabled.eval({"num_selected_image_layers": 0})


def test_readers_and_writers_which_need_a_file_are_grey_in_the_command_palette(tinc_viewer: Callable[..., Any]) -> None:
    from napari._app_model import get_app_model

    tinc_viewer()
    for command in ("get_reader", "write_image"):
        enabled = get_app_model().registered_actions[f"napari-tinc.{command}"].enablement
        assert not any(enabled.eval({"num_layers": count}) for count in (0, 1, 5))


def test_no_menu_entry_says_tinc_twice(tinc_viewer: Callable[..., Any]) -> None:
    from napari._app_model import get_app_model

    tinc_viewer()
    actions = get_app_model().registered_actions
    ours = [action.title for name, action in actions.items() if name.startswith("napari-tinc")]
    assert len(ours) > 10
    assert not [title for title in ours if title.count("TINC") > 1]
    widgets = [widget["display_name"] for widget in MANIFEST["widgets"]]
    assert widgets == ["Compress", "Compare codecs", "Octant table"]


def run(command: str) -> None:
    from napari._app_model import get_app_model

    get_app_model().commands.execute_command(f"napari-tinc.{command}").result()


@pytest.mark.parametrize(
    ("command", "layers"),
    [("show_quality", 3), ("show_bytes", 3), ("show_largest_error", 3), ("show_dice", 3), ("show_difference", 1)],
)
def test_commands_add_their_layers_and_asked_again_remove_them(
    pair: tuple[Any, Any, Any], command: str, layers: int
) -> None:
    viewer, *_ = pair
    for count in (layers, 0, layers):
        run(command)
        assert len(viewer.layers) == 2 + count


def test_one_command_removes_everything_but_originals_and_results(pair: tuple[Any, Any, Any]) -> None:
    viewer, source, result = pair
    for command in ("show_quality", "show_difference", "show_octant_table", "flicker"):
        run(command)
    run("remove_extras")
    assert list(viewer.layers) == [source, result]
    assert not any(isinstance(widget, OctantTable) for widget in viewer.window.dock_widgets.values())
    assert "tinc_flicker" not in result.metadata


def test_a_command_on_an_overlay_is_one_on_its_result(pair: tuple[Any, Any, Any], stack: Any) -> None:
    viewer, _, result = pair
    other = add_result(viewer, stack)
    viewer.layers.selection.active = result
    run("show_quality")
    assert viewer.layers.selection.active not in (result, other)
    assert commands.selected_result(viewer) is result


def test_swap_and_flicker_show_one_of_the_two(pair: tuple[Any, Any, Any], qtbot: Any) -> None:
    _, source, result = pair
    run("swap_original")
    assert (source.visible, result.visible) == (False, True)
    run("flicker")
    qtbot.waitUntil(lambda: source.visible and not result.visible, timeout=3000)
    qtbot.waitUntil(lambda: result.visible and not source.visible, timeout=3000)
    run("flicker")
    assert result.visible
    assert "tinc_view" not in result.metadata


def test_flicker_ends_when_the_result_goes(pair: tuple[Any, Any, Any], qtbot: Any) -> None:
    viewer, source, result = pair
    run("flicker")
    flicker = result.metadata["tinc_view"]
    viewer.layers.remove(result)
    assert not flicker._timer.isActive()
    visible = source.visible
    qtbot.wait(700)
    assert source.visible == visible


def test_commands_tell_what_is_missing(tinc_viewer: Callable[..., Any], stack: Any) -> None:
    viewer = tinc_viewer()
    with pytest.raises(InputError, match="expected a compressed volume, got none"):
        commands.selected_result(viewer)
    first = add_result(viewer, stack)
    add_result(viewer, stack)
    viewer.layers.selection.clear()
    with pytest.raises(InputError, match="got 2: select one"):
        commands.selected_result(viewer)
    viewer.layers.selection.active = first
    assert commands.selected_result(viewer) is first
    with pytest.raises(InputError, match="got 0 layers of its shape"):
        commands.original_of(viewer, first)


def test_refusals_are_notifications(tinc_viewer: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(commands, "show_error", told.append)
    tinc_viewer()
    run("show_quality")
    assert len(told) == 1
    assert told[0].startswith("expected a compressed volume")


def test_the_save_command_writes_the_result(
    pair: tuple[Any, Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stack: Any
) -> None:
    chosen = str(tmp_path / "name")
    monkeypatch.setattr("qtpy.QtWidgets.QFileDialog.getSaveFileName", lambda *args: (chosen, ""))
    run("save_result")
    assert (tmp_path / "name.tinc").read_bytes() == stack.to_bytes()


def test_the_octant_table_lists_the_worst_first_and_moves_the_view(
    pair: tuple[Any, Any, Any], qtbot: Any, stack: Any
) -> None:
    viewer, *_ = pair
    run("show_octant_table")
    table = viewer.window.dock_widgets["Octant table"]
    rows = table.table.model()
    assert rows.rowCount() == len(stack.octants)
    shown = [float(rows.data(rows.index(i, 0))) for i in range(rows.rowCount())]
    assert shown == sorted(round(octant.psnr, 1) for octant in stack.octants)
    for row in (0, rows.rowCount() - 1):
        table.table.selectRow(row)
        box = stack.octants[rows.octant(row)].box
        assert box[0].start <= viewer.dims.current_step[0] < box[0].stop
    spans = ", ".join(f"{span.start}-{span.stop - 1}" for span in box)
    titles = [rows.headerData(i, Qt.Orientation.Horizontal) for i in range(rows.columnCount())]
    assert rows.data(rows.index(row, titles.index("voxels (zyx)"))) == spans
    dice = rows.data(rows.index(row, titles.index("Dice")))
    assert float(dice) == pytest.approx(stack.octants[rows.octant(row)].dice, abs=0.0006)


def test_the_octant_table_follows_the_active_result(tinc_viewer: Callable[..., Any], stack: Any, movie: Any) -> None:
    viewer = tinc_viewer()
    _, table = viewer.window.add_plugin_dock_widget("napari-tinc", "Octant table")
    assert isinstance(table, OctantTable)
    assert table.table.model() is None
    result = add_result(viewer, stack)
    viewer.layers.selection.active = result
    assert table.table.model().rowCount() == len(stack.octants)
    add_result(viewer, movie)
    assert table.table.model().rowCount() == 6 * movie.tree.leaves
    viewer.layers.clear()
    assert table.table.model() is None


@pytest.mark.parametrize("sample", ["neuron", "vessel", "brain", "compressed_brain"])
def test_samples_open(tinc_viewer: Callable[..., Any], sample: str) -> None:
    viewer = tinc_viewer()
    (layer,) = viewer.open_sample("napari-tinc", sample)
    assert layer.ndim == 3
    assert np.asarray(layer._slice.image.raw).std() > 0


def test_the_shipped_sample_is_the_brain_within_its_psnr() -> None:
    """If this fails after a change of the format, run scripts/make_sample_tinc.py."""
    from napari_tinc.samples import load

    ((level, options, _),) = sample_data.compressed_brain()
    original = load("brain")[0].astype(float)
    volume = options["metadata"]["tinc"]
    psnr = 20 * np.log10(np.ptp(original)) - 10 * np.log10(np.mean((np.asarray(level) - original) ** 2))
    assert psnr == pytest.approx(volume.provenance["psnr"], abs=0.02)
    assert volume.ratio > 30


def test_nothing_heavy_is_imported_before_it_is_needed() -> None:
    code = (
        "import sys, napari_tinc, napari_tinc.plugin, napari_tinc.plugin.menus.commands, "
        "napari_tinc.plugin.menus.reader, napari_tinc.plugin.menus.writer, napari_tinc.plugin.menus.sample_data, "
        "napari_tinc.plugin.layers.octant_table;"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT).returncode == 0
    light = "import sys, napari_tinc; sys.exit(bool({'torch', 'napari', 'qtpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", light], check=False, cwd=ROOT).returncode == 0

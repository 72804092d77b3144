"""The compare widget in a real window: run, stop, run again, sort, look, export, and what may go wrong meanwhile."""

from __future__ import annotations

import csv
import subprocess
import sys
import threading
from base64 import b64decode
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import imagecodecs
import numpy as np
import pandas as pd
import psutil
import pytest
from napari.components import ViewerModel
from napari.utils.notifications import notification_manager
from qtpy.QtCore import QEvent, QPointF, Qt
from qtpy.QtGui import QMouseEvent
from qtpy.QtWidgets import QApplication, QFileDialog
from superqt.utils import WorkerBase
from synthetic import blobs

from napari_tinc.arrays.metadata import Metadata
from napari_tinc.compare import candidates, engine, peers, process
from napari_tinc.compare.results import Result
from napari_tinc.encode import speeds
from napari_tinc.measures import metrics
from napari_tinc.plugin.compare import model as compare_model
from napari_tinc.plugin.compare import worker as compare_worker
from napari_tinc.plugin.compare.export import titled, with_legend
from napari_tinc.plugin.compare.form import TOOLTIPS
from napari_tinc.plugin.compare.model import CompareModel, State
from napari_tinc.plugin.compare.parts import BUTTONS
from napari_tinc.plugin.compare.plot import NARROWEST, draw_plot
from napari_tinc.plugin.compare.views import CandidateViews
from napari_tinc.plugin.compare.widget import CompareWidget
from napari_tinc.plugin.compare.worker import content_of
from napari_tinc.plugin.compress.result import COMPARE_WIDGET
from napari_tinc.plugin.layers.split import Halves
from napari_tinc.plugin.window.preferences import PLUGIN

SECONDS = 120_000  # what anything may take at most on a busy machine, in ms
VOLUME = blobs((24, 36, 40))
QUICK = ("wavelet", "sperr", "sz3")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all: what one test has run, the others find."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def opened(
    tinc_viewer: Callable[..., Any], qtbot: Any, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., tuple[Any, CompareWidget]]]:
    """Open viewers with an image and the widget; at the end nothing may be left running."""
    monkeypatch.setattr(engine, "default_folder", lambda: cache)

    def make(show: bool = False, data: Any = VOLUME, ratios: str = "16, 40") -> tuple[Any, CompareWidget]:
        viewer = tinc_viewer(show=show)
        viewer.add_image(data, name="cells", scale=(2, 1, 1), units=("um",) * 3, contrast_limits=(0, 4000))
        _, widget = viewer.window.add_plugin_dock_widget(PLUGIN, COMPARE_WIDGET)  # as the menu does
        widget.form.tick(QUICK)
        widget.form.fields["ratios"].value = ratios
        return viewer, widget

    yield make
    WorkerBase.await_workers(10_000)


@pytest.fixture
def notices(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    seen: list[str] = []
    monkeypatch.setattr(notification_manager, "dispatch", lambda notification: seen.append(notification.message))
    return seen


def press(widget: CompareWidget, key: str) -> None:
    widget.controls.buttons[key].click()


def run(qtbot: Any, widget: CompareWidget) -> None:
    press(widget, "compare")
    qtbot.waitUntil(lambda: not widget.model.active, timeout=SECONDS)
    settle(qtbot, widget)


def settle(qtbot: Any, widget: CompareWidget) -> None:
    """Wait for what is decoded, drawn or written beside the comparison."""
    qtbot.waitUntil(lambda: widget.ready, timeout=SECONDS)


def choose(widget: CompareWidget, *rows: tuple[str, float]) -> None:
    """Select rows in the table, as with the control key."""
    widget.table.clearSelection()
    flags = widget.table.selectionModel().SelectionFlag
    for name, ratio in rows:
        index = widget.table._rows.index(widget.model.index(name, ratio), 0)
        shown = widget.table._sorted.mapFromSource(index)
        widget.table.selectionModel().select(shown, flags.Select | flags.Rows)


def column(widget: CompareWidget, number: int) -> list[str]:
    model = widget.table.model()
    return [model.index(row, number).data() for row in range(model.rowCount())]


def cells(viewer: Any) -> list[list[str]]:
    shown = viewer.canvas.grid.iter_viewboxes(viewer.layers)
    return [[viewer.layers[i].name for i in inside if viewer.layers[i].visible] for _, inside in shown]


def voxels(layer: Any) -> np.ndarray[Any, Any]:
    return np.asarray(layer.data[0] if layer.multiscale else layer.data)


def test_the_lists_are_the_librarys_and_everything_explains_itself(opened, qtbot):
    viewer, widget = opened()
    assert {name: field.tooltip for name, field in widget.form.fields.items()} == TOOLTIPS
    assert all(box.toolTip() for box in widget.form.boxes.values())
    assert all(widget.controls.buttons[key].toolTip() for key in BUTTONS)
    widget.form.folded.expand(animate=False)
    assert widget.minimumSizeHint().width() <= 350
    widget.form.folded.expand(animate=False)
    bar = widget.area.verticalScrollBar().sizeHint().width()
    assert widget.area.widget().minimumSizeHint().width() + bar <= 350, (
        "no horizontal scroll bar beside the vertical one"
    )
    inner = widget.area.widget()
    assert inner.minimumSizeHint().width() <= 340 - widget.area.verticalScrollBar().sizeHint().width()
    assert CompareWidget(viewer).form.read().strategies == candidates.STRATEGIES


def test_the_form_says_what_the_files_may_take_and_what_is_wrong(opened):
    viewer, widget = opened()
    size = widget.form.fields["size"]
    assert "→ 4.32 kB, 1.73 kB" in size.value  # 24 · 36 · 40 · 2 bytes / 16 and / 40
    wrong = {
        "": "at least one ratio", "many": "'64, 256'", "0.5": "smaller than the volume", "16, 5000": "got 13",
        "1e6": "smallest file", "1e300": "smallest file",
    }  # fmt: skip
    for ratios, said in wrong.items():
        widget.form.fields["ratios"].value = ratios
        assert said in size.value
        assert "color" in size.native.styleSheet(), "in red"
        assert not widget.controls.buttons["compare"].isEnabled()
    widget.form.fields["ratios"].value = "1500"  # 46 bytes: a codec's file may be so small, ours is not
    assert widget.controls.buttons["compare"].isEnabled()
    widget.form.tick(["wavelet"])
    assert not widget.controls.buttons["compare"].isEnabled()
    widget.form.tick(QUICK)
    widget.form.fields["ratios"].value = "16"
    widget.form.tick([])
    assert "tick some" in size.value
    widget.form.tick(QUICK)
    assert widget.controls.buttons["compare"].isEnabled()
    viewer.layers.clear()
    assert "open an image" in size.value


def test_codecs_that_are_not_installed_are_greyed_with_the_reason(opened, qtbot, monkeypatch):
    lacking = replace(peers.PEERS["zfp"], missing=lambda: "no zfp in this build")
    monkeypatch.setitem(peers.PEERS, "zfp", lacking)
    _, widget = opened()
    widget._look_for_peers()
    settle(qtbot, widget)
    assert not widget.form.boxes["zfp"].isEnabled()
    assert "no zfp in this build" in widget.form.boxes["zfp"].toolTip()
    assert widget.form.boxes["sperr"].isEnabled()


def test_results_stream_in_and_the_next_time_they_come_from_the_cache(opened, qtbot, monkeypatch):
    _, widget = opened()
    seen, counts = [], []
    widget.model.state_changed.connect(lambda state: seen.append(state))
    widget.model.row_changed.connect(lambda _: counts.append(widget.model.finished))
    run(qtbot, widget)
    assert seen == [State.PREPARING, State.RUNNING, State.DONE]
    assert sorted(set(counts) - {0}) == [1, 2, 3, 4, 5, 6], "one after the other"
    names = {"wavelet fast", "sperr", "sz3"}
    assert {(row.name, row.ratio) for row in widget.model.rows} == {(n, r) for n in names for r in (16.0, 40.0)}
    for row in widget.model.rows:
        assert row.ok
        assert row.values["bytes"] <= VOLUME.nbytes / row.ratio
        assert row.values["psnr"] == pytest.approx(metrics.psnr(VOLUME, row.result.decode()))
    findings = widget.findings
    first, *_ = findings.answer.text().split("</p><p>")
    *_, last = findings.words.text().split("</p><p>")
    assert findings.answer.y() < findings.plot.y() < findings.words.y()
    best = max((row for row in widget.model.rows if row.ratio == 16), key=lambda row: row.values["psnr"])
    assert first.startswith("<p><b>At 16 times smaller use "), "the answer comes first"
    assert f"{best.values['psnr']:.2f} dB" in first
    assert last.removeprefix("<p>").startswith("To use a network"), "and what holds for networks alone last"
    assert "Done: 6 of 6" in widget.controls.status.text()
    monkeypatch.setattr(process, "run", lambda *_, **__: pytest.fail("it was run again"))
    run(qtbot, widget)
    assert widget.model.state is State.DONE
    assert all(row.result.stored for row in widget.model.rows)


def test_the_table_sorts_by_any_column_and_the_bar_is_counted_again(opened, qtbot):
    _, widget = opened()
    run(qtbot, widget)
    psnr = [float(text) for text in column(widget, 2)]
    assert psnr == sorted(psnr, reverse=True)
    widget.model.rows.append(compare_model.Row("late", 16.0))
    widget.model.reset.emit()
    assert column(widget, 0)[-1] == "late", "what has no number yet comes last"
    widget.model.rows.pop()
    widget.model.reset.emit()
    widget.table.sortByColumn(0, Qt.SortOrder.AscendingOrder)
    assert column(widget, 0) == sorted(column(widget, 0))
    widget.table.sortByColumn(7, Qt.SortOrder.AscendingOrder)
    sizes = [int(text.replace(",", "")) for text in column(widget, 7)]
    assert sizes == sorted(sizes)
    widget.form.fields["bar"].value = 200
    assert set(column(widget, 6)) == {"100%"}
    widget.form.fields["bar"].value = 0
    assert set(column(widget, 6)) == {"0%"}


def test_in_a_narrow_dock_names_are_cut_and_numbers_are_not(opened, qtbot):
    viewer, widget = opened(show=True)
    viewer.window.resize(900, 700)
    widget.form.tick(["even/importance", *QUICK])
    widget.model.open(
        engine.Comparison(VOLUME, candidates=[candidates.Candidate.tinc("shallow/importance", "fast")], ratios=(16,))
    )
    (row,) = widget.model.rows
    row.result = Result(candidates.Candidate.tinc("shallow/importance", "fast"), 16, 4000)
    row.values = {"psnr": 101.25, "ssim": 0.9912, "dice": 0.987}
    widget.model.row_changed.emit(0)
    qtbot.wait(50)
    table = widget.table
    assert table.width() < 350
    assert not widget.area.horizontalScrollBar().isVisible()
    for number in range(2, 5):
        assert table.columnViewportPosition(number) + table.columnWidth(number) <= table.viewport().width()
        assert table.columnWidth(number) >= table.sizeHintForColumn(number), "all digits"
    assert table.verticalScrollBar().sizeHint().width() < table.viewport().width() - (
        table.columnViewportPosition(4) + table.columnWidth(4)
    ), "nor will they be when there are more rows"
    assert "shallow/importance fast" in table.model().index(0, 0).data(Qt.ItemDataRole.ToolTipRole)


def test_a_double_click_shows_a_candidate_in_the_sources_place_once(opened, qtbot):
    viewer, widget = opened()
    run(qtbot, widget)
    for name in ("sperr", "wavelet fast"):
        index = widget.model.index(name, 16.0)
        for _ in range(2):
            widget.table.doubleClicked.emit(widget.table._sorted.mapFromSource(widget.table._rows.index(index, 0)))
            settle(qtbot, widget)
        layer, row = viewer.layers[-1], widget.model.rows[index]
        assert layer.name == f"{name}, 16x: {row.values['psnr']:.2f} dB"
        np.testing.assert_array_equal(voxels(layer), row.result.decode())
        np.testing.assert_allclose(layer.scale, (2, 1, 1))
        assert tuple(layer.contrast_limits) == (0, 4000)
    assert len(viewer.layers) == 3
    assert [layer for layer in widget.form.fields["source"].choices if layer is not None] == [viewer.layers["cells"]]


def test_the_cells_of_the_grid_show_what_their_titles_say(opened, qtbot):
    viewer, widget = opened(show=True)
    run(qtbot, widget)
    chosen = [("sperr", 16.0), ("wavelet fast", 16.0), ("sz3", 16.0)]
    choose(widget, *chosen)
    press(widget, "grid")
    settle(qtbot, widget)
    shown = cells(viewer)
    assert shown[0] == ["cells"]
    rows = widget.candidates.selected_rows()
    assert shown[1:] == [[row.title()] for row in rows]
    for (name,) in shown[1:]:
        layer = viewer.layers[name]
        assert layer.name_overlay.visible
        said = float(name.split(": ")[1].split()[0])
        assert metrics.psnr(VOLUME, voxels(layer)) == pytest.approx(said, abs=0.006)
    viewer.layers["cells"].contrast_limits = (300, 2000)
    assert all(tuple(viewer.layers[name].contrast_limits) == (300, 2000) for (name,) in shown[1:])
    assert widget.form.source is viewer.layers["cells"], "the original stays the source"
    qtbot.wait(200)
    plain = viewer.screenshot(flash=False)[..., :3].astype(int)
    height, width = plain.shape[0] // 2, plain.shape[1] // 2
    for top in (0, height):
        for left in (0, width):
            assert np.ptp(plain[top : top + height, left : left + width]) > 100, "an empty cell"
    assert np.ptp(plain, axis=2).max() == 0, "grey"
    widget.controls.octants.setChecked(True)
    assert [len(names) for names in cells(viewer)] == [2, 2, 2, 2]
    qtbot.wait(200)
    assert np.ptp(viewer.screenshot(flash=False)[..., :3].astype(int), axis=2).max() > 50, "coloured"
    assert not any(layer.colorbar.visible for layer in viewer.layers if hasattr(layer, "colorbar"))
    low, high = viewer.layers[-1].contrast_limits
    assert f"{low:.1f} to {high:.1f} dB" in widget.controls.legend.text()
    assert widget.controls.legend.text().count("best in") == len(np.unique(viewer.layers["best codec per octant"].data))
    picture, titles = widget.candidates.views.picture()
    drawing = ElementTree.fromstring(
        titled(imagecodecs.png_encode(np.ascontiguousarray(picture)), picture.shape[:2], picture.shape[0], titles)
    )
    texts = [(one.text, float(one.get("x")), float(one.get("y"))) for one in drawing.iter() if one.tag.endswith("text")]
    assert [text for text, _, _ in texts] == [names[0] for names in shown]
    middle = np.array(picture.shape[1::-1]) / 2
    assert sorted((x > middle[0], y > middle[1]) for _, x, y in texts) == [(False, False), (False, True), (True, False),
                                                                           (True, True)]  # fmt: skip
    embedded = next(one for one in drawing.iter() if one.tag.endswith("image")).get("href").split(",")[1]
    np.testing.assert_array_equal(imagecodecs.png_decode(b64decode(embedded)), picture)
    assert all(layer.name_overlay.visible for layer in viewer.layers if layer.name in [text for text, _, _ in texts])
    assert widget.controls.explained
    widget.controls.octants.setChecked(False)
    assert not widget.controls.explained, "nothing is coloured, so there is nothing to explain"
    widget.controls.octants.setChecked(True)
    press(widget, "single")
    assert not widget.controls.explained
    assert widget.controls.legend.isHidden()
    assert not viewer.canvas.grid.enabled
    assert len(viewer.layers) == 4
    assert all(layer.visible for layer in viewer.layers)


def test_what_a_comparison_will_take_is_known_once_the_candidates_have_run(opened, qtbot, tmp_path, monkeypatch):
    monkeypatch.setattr(speeds, "store", lambda kind="speeds": tmp_path / f"{kind}.json")
    _, widget = opened(ratios="16")
    monkeypatch.setattr(engine, "default_folder", lambda: tmp_path / "cache")
    said = widget.controls.expected
    assert "unknown until the first run" in said.text()
    press(widget, "compare")
    assert said.isHidden()
    qtbot.waitUntil(lambda: not widget.model.active, timeout=SECONDS)
    settle(qtbot, widget)
    known = speeds.remembered(speeds.COMPARING)
    assert {run.model for run in known} == (names := {"wavelet fast", "sperr", "sz3"})
    assert not names & {run.model for run in speeds.remembered()}, "not mixed up with compressions"
    spent = {row.name: row.result.costs["encode_seconds"] for row in widget.model.rows}
    assert all(run.seconds >= spent[run.model] for run in known), "from the start of its process"
    expected, unknown = speeds.estimate_comparison(VOLUME.size, "u2", ["wavelet fast", "sperr", "sz3", "zfp"])
    assert unknown == ("zfp",)
    assert expected.low < sum(run.seconds for run in known) < expected.high
    assert expected.text() in said.text()
    widget.form.fields["ratios"].value = "16, 40"
    twice, _ = speeds.estimate_comparison(VOLUME.size, "u2", ["wavelet fast", "sperr", "sz3"] * 2)
    assert twice.low == pytest.approx(2 * expected.low)
    assert twice.text() in said.text()
    widget.form.tick([*QUICK, "zfp"])
    assert "at least" in said.text()
    assert "1 of 4 were never measured" in said.text()


def test_the_three_best_of_the_grid_differ(opened, qtbot):
    viewer, widget = opened(ratios="16")
    widget.form.tick(["default", *QUICK])  # default and detail are the same file in two places
    run(qtbot, widget)
    paths = {row.name: row.result.path for row in widget.model.rows}
    assert paths["default fast"] != paths["wavelet fast"]
    assert paths["default fast"].read_bytes() == paths["wavelet fast"].read_bytes()
    press(widget, "grid")
    settle(qtbot, widget)
    names = [name.partition(",")[0].split()[0] for (name,) in cells(viewer)]
    assert names[0] == "cells"
    assert sorted(names[1:]) in (["default", "sperr", "sz3"], ["wavelet", "sperr", "sz3"])


@pytest.mark.parametrize("measure", ["psnr", "ssim", "dice"])
@pytest.mark.parametrize(
    "values", [(40.0, 41.0), (40.0, 40.0), (0.0, 0.0), (np.inf, 1.0), (np.inf, np.inf), (np.nan, np.nan)]
)
@pytest.mark.parametrize("ratios", [(64.0,), (64.0, 256.0)])
def test_the_plot_is_drawn_without_a_warning(ratios, values, measure):
    """Warnings are errors here, and notifications in napari."""
    names = ("shallow/importance balanced", "sperr")
    rows = [
        dict.fromkeys(("psnr", "ssim", "dice"), value)
        | {"candidate": name, "target_ratio": ratio, "ratio": ratio, "problem": "", "codec": "tinc"}
        for ratio in ratios
        for name, value in zip(names, values, strict=True)
    ]
    for height in (180, 420):
        drawn = draw_plot(pd.DataFrame(rows), names, measure, (NARROWEST, height), 1.0, "#ffffff")
        assert drawn.pixels.shape == (height, NARROWEST, 4)


def test_the_exported_grid_explains_its_colours_below_the_image():
    canvas = np.random.default_rng(0).integers(0, 255, (90, 301, 4), np.uint8)
    legend = [((), "64 times smaller"), (("#e69f00",), "sperr"), (("#ff0000", "#0000ff"), "28.0 to 35.0 dB")]
    shown = with_legend(canvas, legend)
    np.testing.assert_array_equal(shown[:90], canvas)
    assert shown.shape == (90 + 3 * 22, 301, 4)
    lines = [shown[90 + 22 * i : 112 + 22 * i, :, :3] for i in range(3)]
    colours = [{tuple(colour) for colour in line.reshape(-1, 3)} for line in lines]
    assert (230, 159, 0) in colours[1]
    assert {(255, 0, 0), (0, 0, 255)} <= colours[2]
    assert all(line.max() == 255 and line.min() == 0 for line in lines), "white words on black"
    assert with_legend(canvas, []).shape == canvas.shape
    (title,) = [
        one
        for one in ElementTree.fromstring(titled(b"", shown.shape[:2], 90, [(0.0, 0.5, "cells")])).iter()
        if one.tag.endswith("text")
    ]
    assert 45 < float(title.get("y")) < 90, "in the canvas, not in the picture with its legend"


def test_flicker_swaps_two_candidates_or_one_and_the_original(opened, qtbot):
    viewer, widget = opened()
    run(qtbot, widget)
    choose(widget, ("sperr", 16.0))
    press(widget, "flicker")
    settle(qtbot, widget)
    seen = set()
    qtbot.waitUntil(
        lambda: seen.add(tuple(one.name[:5] for one in viewer.layers if one.visible)) or len(seen) == 2, timeout=5000
    )
    assert seen == {("cells",), ("sperr",)}
    choose(widget, ("sperr", 16.0), ("sz3", 16.0))
    press(widget, "flicker")
    settle(qtbot, widget)
    seen.clear()
    qtbot.waitUntil(
        lambda: seen.add(tuple(one.name[:3] for one in viewer.layers if one.visible)) or len(seen) == 2, timeout=5000
    )
    assert seen == {("spe",), ("sz3",)}
    press(widget, "single")
    assert all(layer.visible for layer in viewer.layers)


def test_the_split_view_has_the_original_left_and_the_candidate_right(opened, qtbot):
    viewer, widget = opened()
    run(qtbot, widget)
    choose(widget, ("sz3", 40.0))
    press(widget, "split")
    settle(qtbot, widget)
    decoded = widget.model.rows[widget.model.index("sz3", 40.0)].result.decode()
    viewer.dims.set_current_step(0, 7)
    for share in (0.5, 0.2, 0.0, 1.0):
        widget.controls.slider.setValue(round(1000 * share))
        cut = round(share * VOLUME.shape[2])
        image = viewer.layers["original | " + widget.candidates.selected_rows()[0].title()]
        plane = np.asarray(image._slice.image.raw)
        np.testing.assert_array_equal(plane[:, :cut], VOLUME[7][:, :cut])
        np.testing.assert_array_equal(plane[:, cut:], decoded[7][:, cut:])
    viewer.dims.ndisplay = 3
    assert [layer.name[:5] for layer in viewer.layers] == ["cells", "sz3, "], "it is for slices"
    assert all(layer.visible for layer in viewer.layers)


def test_moving_the_cut_reads_nothing_again():
    reads = []

    class Counting:
        shape, dtype, ndim = (4, 5, 6), np.dtype("u1"), 3

        def __getitem__(self, index: Any) -> Any:
            reads.append(index)
            return np.ones((4, 5, 6), "u1")[index]

    halves = Halves(np.zeros((4, 5, 6), "u1"), Counting(), 0.5)
    for share in (0.5, 0.1, 0.9):
        halves.share = share
        assert halves[2, :, :].sum() == 5 * (6 - round(6 * share))
    assert len(reads) == 1


def test_the_map_of_the_best_says_who_is_best_in_every_octant(opened, qtbot):
    viewer, widget = opened()
    run(qtbot, widget)
    rows = [("wavelet fast", 40.0), ("sperr", 40.0), ("sz3", 40.0)]
    choose(widget, *rows)
    press(widget, "best")
    chosen = widget.candidates.selected_rows()
    labels = viewer.layers["best codec per octant"]
    comparison = widget.model.comparison
    edges = comparison.truth.octants.edges(comparison.truth.octants.depth)
    for cell in np.ndindex(labels.data.shape):
        box = tuple(slice(edges[a][i], edges[a][i + 1]) for a, i in enumerate(cell))
        errors = [np.square(VOLUME[box] - row.result.decode()[box].astype(float)).mean() for row in chosen]
        assert labels.data[cell] == 1 + int(np.argmin(errors))
    for layer in (labels, viewer.layers["cells"]):  # outer faces, not the outermost voxels' centres
        low, high = layer.extent.world
        np.testing.assert_allclose(
            [low - layer.scale / 2, high + layer.scale / 2], [(-1, -0.5, -0.5), (47, 35.5, 39.5)]
        )
    assert "40 times smaller" in widget.controls.legend.text()
    choose(widget, ("sperr", 40.0), ("sperr", 16.0))
    press(widget, "best")
    assert labels in viewer.layers, "candidates of two ratios cannot be compared; the map stays as it was"


def test_what_is_best_where_can_be_asked_in_3d_before_the_mouse_was_on_the_canvas(opened, qtbot):
    viewer, widget = opened(show=True, ratios="16")
    run(qtbot, widget)
    viewer.dims.ndisplay = 3
    viewer.layers.selection.active = viewer.layers["cells"]
    for _ in range(2):
        press(widget, "best")
        assert viewer.layers["best codec per octant"].visible
    assert viewer.layers.selection.active is viewer.layers["cells"]
    widget.controls.octants.setChecked(True)
    press(widget, "grid")
    settle(qtbot, widget)
    assert [len(names) for names in cells(viewer)] == [2, 2, 2, 2]
    press(widget, "single")
    assert not viewer.canvas.grid.enabled


def test_a_click_on_a_point_selects_its_row_and_its_layer(opened, qtbot):
    viewer, widget = opened(show=True)
    run(qtbot, widget)
    choose(widget, ("sperr", 40.0))
    press(widget, "show")
    settle(qtbot, widget)
    layer = viewer.layers[-1]
    viewer.layers.selection.active = viewer.layers["cells"]
    widget.table.clearSelection()
    for measure in range(3):
        widget.findings.measures.setCurrentIndex(measure)
        settle(qtbot, widget)
        plot = widget.findings.plot
        assert {(point.name, point.ratio) for point in plot.points} == {(r.name, r.ratio) for r in widget.model.rows}
        assert all(0 < point.x < plot.width() and 0 < point.y < plot.height() for point in plot.points)
    widget.findings.measures.setCurrentIndex(0)
    settle(qtbot, widget)
    assert set(plot._drawn.colours) == {row.name for row in widget.model.rows}
    first = widget.table.model().index(0, 0)
    assert first.data(Qt.ItemDataRole.DecorationRole).name() == plot._drawn.colours[first.data()]
    (point,) = [point for point in widget.findings.plot.points if (point.name, point.ratio) == ("sperr", 40.0)]
    click(widget.findings.plot, point)
    assert [(row.name, row.ratio) for row in widget.candidates.selected_rows()] == [("sperr", 40.0)]
    assert viewer.layers.selection.active is layer


def click(plot: Any, point: Any) -> None:
    place = QPointF(point.x, point.y)
    button, none = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
    QApplication.sendEvent(plot, QMouseEvent(QEvent.Type.MouseButtonPress, place, place, button, button, none))


def test_everything_can_be_exported_and_nothing_is_replaced_unasked(opened, qtbot, tmp_path, monkeypatch, notices):
    _, widget = opened(show=True)
    run(qtbot, widget)
    out = tmp_path / "out"
    out.mkdir()
    files = {}
    for action in widget.controls.export.menu().actions():
        key = action.data()
        monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_, key=key: (str(out / key), ""))
        action.trigger()
        settle(qtbot, widget)
        (files[key],) = (file for file in out.iterdir() if file.stem == key)
    rows = list(csv.DictReader(files["csv"].read_text().splitlines()))
    assert [float(row["psnr"]) for row in rows] == [row.values["psnr"] for row in widget.model.rows]
    for key in ("plot_png", "canvas"):
        assert np.ptp(imagecodecs.png_decode(files[key].read_bytes())[..., :3]) > 40, key
    for key in ("plot_svg", "canvas_svg"):
        assert ElementTree.fromstring(files[key].read_text()).tag.endswith("svg")
    page = files["report"].read_text()
    assert page.startswith("<!DOCTYPE html>")
    assert "sperr" in page
    assert f"Saved {files['report']}" in notices
    before = files["csv"].read_bytes()
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(out / "csv"), ""))
    widget.candidates.export("csv")
    assert "exists" in notices[-1]
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: ("", ""))
    widget.candidates.export("csv")
    settle(qtbot, widget)
    assert files["csv"].read_bytes() == before
    assert len(list(out.iterdir())) == 6


def test_stop_keeps_what_has_finished_and_compare_goes_on_from_there(opened, qtbot, tmp_path, monkeypatch):
    _, widget = opened(ratios="16")
    monkeypatch.setattr(engine, "default_folder", lambda: tmp_path)
    widget.form.tick(["sperr", "siren"])
    widget.form.fields["preset"].value = "best"
    press(widget, "compare")
    qtbot.waitUntil(lambda: any(row.status.startswith("training") for row in widget.model.rows), timeout=SECONDS)
    press(widget, "stop")
    assert widget.model.state is State.STOPPING
    assert not widget.controls.buttons["compare"].isEnabled()
    press(widget, "stop")
    qtbot.waitUntil(lambda: widget.model.state is State.STOPPED, timeout=SECONDS)
    assert "not run" in column(widget, 2)
    widget.form.tick(["sperr"])
    run(qtbot, widget)
    assert widget.model.state is State.DONE


@pytest.mark.parametrize("loss", ["source", "dock", "viewer"])
def test_losing_the_source_the_dock_or_the_viewer_meanwhile_does_no_harm(opened, qtbot, loss, tmp_path, monkeypatch):
    viewer, widget = opened(ratios="16")
    monkeypatch.setattr(engine, "default_folder", lambda: tmp_path)
    press(widget, "compare")
    qtbot.waitUntil(lambda: widget.model.state is State.RUNNING, timeout=SECONDS)
    if loss == "source":
        viewer.layers.clear()
        qtbot.waitUntil(lambda: not widget.model.active, timeout=SECONDS)
        assert widget.model.state is State.DONE
        settle(qtbot, widget)
        choose(widget, ("sperr", 16.0))
        for key in ("show", "grid", "flicker", "split", "best", "single"):
            assert not widget.controls.buttons[key].isEnabled(), key
        assert widget.controls.export.isEnabled()
        widget.candidates.show_row(0)
        settle(qtbot, widget)
        assert not len(viewer.layers)
    elif loss == "dock":
        viewer.window.remove_dock_widget(widget)
        qtbot.waitUntil(lambda: not widget.model.active, timeout=SECONDS)
        assert widget.model.state is State.STOPPED
        widget.deleteLater()
    else:
        viewer.close()
        WorkerBase.await_workers(10_000)  # as napari does when it ends: the processes are gone with the threads
        assert not [one for one in psutil.Process().children() if "compare.worker" in " ".join(one.cmdline())]


def test_a_volume_that_cannot_be_compared_is_an_error_in_words(opened, qtbot, notices):
    _, widget = opened(data=np.full((8, 9, 10), 7, "u2"))
    run(qtbot, widget)
    assert widget.model.state is State.FAILED
    assert "nothing to lose" in widget.controls.status.text()
    assert "nothing to lose" in notices[-1]
    assert widget.controls.buttons["compare"].isEnabled()


@pytest.mark.parametrize("codec", [candidates.Candidate("sz3"), candidates.Candidate.tinc("wavelet")])
@pytest.mark.parametrize("axes", ["tczyx", "zcyx"])
def test_channels_and_time_of_a_candidate_follow_the_sliders_of_the_original(cache, movie, axes, codec):
    array = movie.decode() if axes == "tczyx" else np.moveaxis(movie.decode()[0], 0, 1)
    metadata = Metadata(axes, (1.0,) * array.ndim, ("",) * array.ndim)
    comparison = engine.Comparison(array, metadata=metadata, candidates=[codec], ratios=(8,), cache=cache)
    model = CompareModel()
    model.open(comparison)
    for event in comparison.run():
        model.advance(event)
    viewer = ViewerModel()
    turned = {"scale": (2.0, 1.0, 1.0), "rotate": 30.0, "translate": (7.0, 8.0, 9.0)}
    place = {name: value if name == "rotate" else (1.0,) * (array.ndim - 3) + value for name, value in turned.items()}
    source = viewer.add_image(array, name="movie", colormap="green", **(place if axes == "tczyx" else {}))
    views = CandidateViews(viewer, source, axes, array.shape)
    (row,) = model.rows
    views.add([row], [content_of(row.result)])
    layer, decoded = views.show(row), row.result.decode()
    np.testing.assert_array_equal(voxels(layer), decoded)
    centre = tuple(side // 2 for side in array.shape)
    at = source.data_to_world(centre)
    viewer.dims.set_point(range(array.ndim), at)
    assert source.get_value(at, world=True) == array[centre]
    assert layer.get_value(at, world=True) == decoded[centre]
    octants = views.show_best([row]) and viewer.layers["best codec per octant"]
    assert octants.data.shape[axes.index("c")] == 2, "an octant grid for every channel"
    for end in (0, 1):  # outer faces, not the outermost voxels' centres
        faces = [end * np.array(layer.data.shape) - 0.5 for layer in (octants, source)]
        np.testing.assert_allclose(octants.data_to_world(faces[0]), source.data_to_world(faces[1]), atol=1e-9)
    views.show_grid([row], overlays=True)
    heat = viewer.layers[f"PSNR (dB): {row.title()}"]
    assert heat.data.shape == octants.data.shape
    views.stop()
    views.show_split(row, 0.5)
    plane, cut = np.asarray(views.split.image._slice.image.raw), array.shape[-1] // 2
    index = centre[:-2]
    np.testing.assert_array_equal(plane[:, :cut], array[index][:, :cut])
    np.testing.assert_array_equal(plane[:, cut:], decoded[index][:, cut:])
    here = [*index, (array.shape[-2] - 1) / 2, cut - 0.5]
    line = views.split.line.world_to_data(source.data_to_world(here))
    np.testing.assert_allclose(line[-2:], 0, atol=1e-6, err_msg="the line is in the middle of the picture, on the cut")
    views.stop()
    assert len(viewer.layers) == 3


def test_nothing_that_is_looked_at_or_deleted_ends_napari(cache):
    script = Path(__file__).with_name("compare_journey.py")
    done = subprocess.run([sys.executable, "-W", "ignore", script, cache], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["survived"], done.stderr[-3000:]


def test_comparing_and_decoding_are_left_to_another_thread_than_the_windows(
    opened, qtbot, tmp_path, monkeypatch, drivers
):
    """How long the window stands still all the same: ``benchmarks/compare_views.py``."""
    steps, threads, decode = drivers(compare_worker, "compare_events"), [], Result.decode
    monkeypatch.setattr(Result, "decode", lambda self: (threads.append(threading.current_thread()), decode(self))[1])
    _, widget = opened(ratios="16")
    monkeypatch.setattr(engine, "default_folder", lambda: tmp_path)
    run(qtbot, widget)
    press(widget, "grid")
    settle(qtbot, widget)
    assert len(steps) > 6
    assert len(threads) >= 2, "two peers were decoded to be shown"
    assert threading.main_thread() not in (*steps, *threads)

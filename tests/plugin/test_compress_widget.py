"""The compress widget in a real window: every button, every state, and everything that may go wrong meanwhile."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from napari.utils.notifications import notification_manager
from napari.utils.progress import progress
from qtpy.QtCore import QPoint
from qtpy.QtWidgets import QFileDialog, QWidget
from superqt.utils import WorkerBase

from napari_tinc import samples
from napari_tinc.choices import FAMILIES
from napari_tinc.encode import compression as story
from napari_tinc.encode.trial import TRAINING_STEPS
from napari_tinc.errors import TrainingError
from napari_tinc.plugin.compare.widget import CompareWidget
from napari_tinc.plugin.compress import engine, worker
from napari_tinc.plugin.compress.form import TOOLTIPS
from napari_tinc.plugin.compress.losses import Loss
from napari_tinc.plugin.compress.model import State
from napari_tinc.plugin.compress.preview import PREVIEW, Preview
from napari_tinc.plugin.compress.report import Report
from napari_tinc.plugin.compress.widget import CompressWidget
from napari_tinc.plugin.window import preferences
from napari_tinc.volume import CompressedVolume

# The package offers a function of the same name, which hides the module.


SECONDS = 60_000  # what anything may take at most on a busy machine, in ms


def waves(shape: tuple[int, ...] = (12, 24, 20)) -> np.ndarray[Any, Any]:
    grid = np.stack(np.meshgrid(*(np.linspace(0, 3, n) for n in shape), indexing="ij"))
    return np.rint(2000 + 1500 * np.sin(grid.sum(0))).astype("u2")


@pytest.fixture
def opened(tinc_viewer: Callable[..., Any], qtbot: Any) -> Iterator[Callable[..., tuple[Any, CompressWidget]]]:
    """Open viewers with an image and the widget; at the end no compression may be left running."""

    def make(show: bool = False, data: Any = None) -> tuple[Any, CompressWidget]:
        viewer = tinc_viewer(show=show)
        image = waves() if data is None else data
        viewer.add_image(image, name="waves", scale=(2, 1, 1), units=("um",) * 3, contrast_limits=(0, 4000))
        _, widget = viewer.window.add_plugin_dock_widget("napari-tinc", "Compress")
        widget.form.write(model="tinc", preset="fast", device="cpu", target_value=8)
        return viewer, widget

    yield make
    WorkerBase.await_workers(10_000)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the preset ``fast`` a matter of a second; what is tested then does not depend on the quality."""
    monkeypatch.setitem(TRAINING_STEPS, "fast", 40)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train for ever, if nobody says stop."""
    monkeypatch.setitem(TRAINING_STEPS, "fast", 10**7)


def states_of(widget: CompressWidget) -> list[State]:
    seen: list[State] = []
    widget.model.state_changed.connect(seen.append)
    widget.seen = seen  # psygnal keeps no strong reference to what a list's method belongs to
    return seen


def wait_for(qtbot: Any, widget: CompressWidget, *states: State) -> None:
    qtbot.waitUntil(lambda: widget.model.state in states, timeout=SECONDS)


def train(qtbot: Any, widget: CompressWidget) -> None:
    widget.compress_button.click()
    wait_for(qtbot, widget, State.TRAINING)


@pytest.fixture
def notices(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    seen: list[str] = []
    monkeypatch.setattr(notification_manager, "dispatch", lambda notification: seen.append(notification.message))
    return seen


def test_every_field_has_a_tooltip_and_the_dock_can_be_narrow(opened):
    _, widget = opened()
    assert {name: field.tooltip for name, field in widget.form.fields.items()} == TOOLTIPS
    assert widget.minimumSizeHint().width() <= 350
    inner = widget.area.widget()
    widget.form.folded.expand(animate=False)
    widget.card.show_report(
        Report(
            8e6,
            1e5,
            40.0,
            0.9,
            "z 28:35",
            1e4,
            30.0,
            "[128:192, 128:192, 128:192] of item 3",
            "Bright structure: 97.8% of its voxels (Dice) and 97.5% of its course are as in the original.",
            tuple(Loss(i, 30.0, np.eye(40), np.ones((40, 40)), (1, 100, 100, 1000, 1000)) for i in range(3)),
        ),
        "",
    )
    widget.card.show()
    assert inner.minimumSizeHint().width() <= 340 - widget.area.verticalScrollBar().sizeHint().width()
    assert widget.area.minimumWidth() == 340, "or napari makes the dock narrower than that"
    assert all(button.toolTip() for button in (widget.compress_button, widget.stop_button, widget.save_button))


def test_the_size_follows_the_form_at_once_and_an_error_locks_the_button(opened):
    _, widget = opened()
    size = widget.form.fields["size"]
    widget.form.write(target_value=16)
    assert "→ 720 B" in size.value  # 12 · 24 · 20 · 2 bytes / 16
    widget.form.write(target_kind="bits_per_voxel", target_value=1)
    assert "→ 720 B" in size.value
    widget.form.write(target_kind="bytes", target_value=100)
    assert "smaller than the volume" in size.value
    assert not widget.compress_button.isEnabled()
    widget.form.write(target_kind="psnr", target_value=30)
    assert "30 dB" in size.value
    assert widget.compress_button.isEnabled()


def test_layers_are_offered_as_they_come_and_go(opened):
    viewer, widget = opened()
    other = viewer.add_image(waves(), name="other")
    viewer.add_image(np.zeros((4, 5, 3), "u1"), rgb=True, name="photo")
    labels = viewer.add_labels(np.ones((12, 24, 20), int), name="cells")
    assert [layer.name for layer in widget.form.fields["source"].choices if layer is not None] == ["waves", "other"]
    assert labels in widget.form.fields["mask"].choices
    widget.form.write(source=other)
    viewer.layers.remove(other)
    assert widget.form.source.name == "waves"
    viewer.layers.remove("waves")
    assert "Split RGB" in widget.form.fields["size"].value
    viewer.layers.remove("photo")
    assert "got labels" in widget.form.fields["size"].value
    viewer.layers.clear()
    assert not widget.compress_button.isEnabled()
    assert "open an image" in widget.form.fields["size"].value


@pytest.mark.usefixtures("quick")
def test_compress_shows_every_state_a_preview_and_a_result_in_the_sources_place(opened, qtbot):
    viewer, widget = opened()
    seen = states_of(widget)
    widget.compress_button.click()
    assert not widget.compress_button.isEnabled()
    assert widget.stop_button.isEnabled()
    assert not widget.form.isEnabled()
    wait_for(qtbot, widget, State.DONE)
    assert seen == [State.PREPARING, State.TRAINING, State.DONE]
    result = viewer.layers[-1]
    assert isinstance(result.metadata["tinc"], CompressedVolume)
    np.testing.assert_allclose(result.scale, (2, 1, 1))
    assert result.metadata["tinc"].nbytes <= 12 * 24 * 20 * 2 / 8
    assert widget.status.text() == "Done"
    assert widget.card.isVisibleTo(widget)
    assert widget.save_button.isEnabled()
    qtbot.waitUntil(lambda: not any(PREVIEW in layer.metadata for layer in viewer.layers))
    assert not progress._all_instances


def test_a_file_that_loses_nothing(opened, qtbot, monkeypatch):
    monkeypatch.setattr(preferences, "remember", lambda *_: None)
    viewer, widget = opened()
    widget.form.write(target_kind="max_error", target_value=0, model="auto")
    assert "loses nothing" in widget.form.fields["size"].value
    widget.compress_button.click()
    wait_for(qtbot, widget, State.DONE)
    result = viewer.layers[-1]
    np.testing.assert_array_equal(result.metadata["tinc"].decode(), viewer.layers[0].data)
    assert result.name.endswith("exact")
    shown = dict(widget.model.report.rows())
    assert (shown["PSNR"], shown["Largest error"]) == ("exact", "at most 0, guaranteed")
    assert "Worst octant" not in shown


@pytest.mark.usefixtures("quick")
def test_every_button_of_the_card_does_its_work(opened, qtbot, tmp_path, monkeypatch):
    viewer, widget = opened()
    widget.compress_button.click()
    wait_for(qtbot, widget, State.DONE)
    path = tmp_path / "waves.tinc"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_, **__: (str(path), ""))
    widget.card.buttons["save"].click()
    assert path.read_bytes() == widget.results.result.volume.to_bytes()
    result = widget.results.result.layer
    before = len(viewer.layers)
    widget.card.measured.emit("psnr")
    assert len(viewer.layers) == before + 3
    assert widget.card.overlay.currentData() == "psnr"
    widget.card.measured.emit("")
    widget.card.buttons["difference"].click()
    assert len(viewer.layers) == before + 1
    widget.card.buttons["difference"].click()
    assert len(viewer.layers) == before
    assert "Dice" in widget.card.kept.text()
    worst = widget.model.report.losses[0]
    assert worst.psnr == min(octant.psnr for octant in result.metadata["tinc"].octants)
    np.testing.assert_array_equal(worst.original, np.asarray(viewer.layers["waves"].data)[worst.voxel[0]][
        result.metadata["tinc"].octants[worst.octant].box[1:]])  # fmt: skip
    widget.card.worst.buttons[0].click()
    assert viewer.dims.current_step[0] == worst.voxel[0]
    widget.card.buttons["compare"].click()
    assert viewer.canvas.grid.enabled
    assert [layer.name for layer in viewer.layers if layer.visible] == ["waves", result.name]
    widget.card.buttons["compare"].click()
    assert not viewer.canvas.grid.enabled
    docks = len(viewer.window.dock_widgets)
    widget.card.buttons["table"].click()
    assert len(viewer.window.dock_widgets) == docks + 1
    widget.card.buttons["table"].click()
    assert len(viewer.window.dock_widgets) == docks
    widget.card.buttons["codecs"].click()
    (dock,) = [one for one in viewer.window.dock_widgets.values() if isinstance(one, CompareWidget)]
    assert dock.form.source is viewer.layers["waves"]
    assert dock.form.read().ratio_values() == (8,)


@pytest.mark.usefixtures("quick")
def test_save_completes_the_name_and_never_overwrites_unasked(opened, qtbot, tmp_path, monkeypatch, notices):
    _, widget = opened()
    folder = tmp_path / "out"
    folder.mkdir()
    widget.compress_button.click()
    wait_for(qtbot, widget, State.DONE)
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_, **__: (str(folder / "a"), ""))
    widget.save_button.click()
    assert CompressedVolume.open(folder / "a.tinc").shape == (12, 24, 20)
    (folder / "a.tinc").write_bytes(b"precious")
    widget.save_button.click()
    assert (folder / "a.tinc").read_bytes() == b"precious"
    assert "exists" in notices[-1]
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_, **__: ("", ""))
    widget.save_button.click()
    assert [file.name for file in folder.iterdir()] == ["a.tinc"]


@pytest.mark.usefixtures("slow")
def test_stop_keeps_what_was_learnt(opened, qtbot):
    viewer, widget = opened()
    seen = states_of(widget)
    train(qtbot, widget)
    widget.stop_button.click()
    wait_for(qtbot, widget, State.DONE)
    assert seen == [State.PREPARING, State.TRAINING, State.STOPPING, State.DONE]
    assert "tinc" in viewer.layers[-1].metadata


@pytest.mark.usefixtures("slow")
def test_stop_drops_it_at_the_next_step_if_wished(opened, qtbot, drivers, monkeypatch):
    monkeypatch.setattr("napari_tinc.networks.training._YIELD_SECONDS", 0.0)
    steps = drivers(story, "compress_steps")
    viewer, widget = opened()
    widget.form.write(keep=False)
    train(qtbot, widget)
    qtbot.waitUntil(lambda: len(steps) > 50, timeout=SECONDS)
    widget.stop_button.click()
    pressed = len(steps)
    wait_for(qtbot, widget, State.IDLE)
    assert len(steps) <= pressed + 1
    qtbot.waitUntil(lambda: [layer.name for layer in viewer.layers] == ["waves"], timeout=SECONDS)
    assert "nothing was kept" in widget.status.text()


@pytest.mark.usefixtures("slow")
def test_stop_before_the_first_step_and_stop_twice(opened, qtbot):
    viewer, widget = opened()
    widget.compress_button.click()
    widget.stop_button.click()
    assert widget.model.state is State.STOPPING
    assert widget.stop_button.text() == "Drop"
    widget.stop_button.click()
    wait_for(qtbot, widget, State.IDLE)
    train(qtbot, widget)
    widget.stop_button.click()
    widget.stop_button.click()
    wait_for(qtbot, widget, State.IDLE, State.DONE)
    assert not any(PREVIEW in layer.metadata for layer in viewer.layers)


@pytest.mark.usefixtures("slow")
def test_start_while_running_is_refused_and_harms_nothing(opened, qtbot, notices):
    _, widget = opened()
    train(qtbot, widget)
    running = widget._session
    widget.start()
    assert "stop it first" in notices[-1]
    assert widget._session is running
    widget.stop()
    wait_for(qtbot, widget, State.DONE)


@pytest.mark.usefixtures("quick")
def test_the_next_compression_may_begin_the_moment_the_last_one_ends(opened, qtbot):
    viewer, widget = opened()
    seen = states_of(widget)

    def again(state: State) -> None:
        if state is State.DONE and seen.count(State.DONE) == 1:
            widget.start()

    widget.again = again
    widget.model.state_changed.connect(again)
    widget.compress_button.click()
    qtbot.waitUntil(lambda: seen.count(State.DONE) == 2 or State.IDLE in seen, timeout=SECONDS)
    assert State.IDLE not in seen
    # The end is shown before the preview goes.
    qtbot.waitUntil(lambda: len(viewer.layers) == 3, timeout=SECONDS)
    assert all(layer.name.startswith("waves") for layer in viewer.layers)


@pytest.mark.usefixtures("slow")
def test_the_source_may_be_deleted_while_it_is_compressed(opened, qtbot):
    viewer, widget = opened()
    train(qtbot, widget)
    viewer.layers.remove("waves")
    qtbot.wait(200)
    widget.stop_button.click()
    wait_for(qtbot, widget, State.DONE)
    assert viewer.layers[-1].metadata["tinc"].shape == (12, 24, 20)
    assert not widget.card.buttons["difference"].isEnabled()
    assert not widget.card.buttons["compare"].isEnabled()
    assert widget.card.overlay.isEnabled()
    viewer.layers.remove(widget.results.result.layer)
    assert not widget.card.overlay.isEnabled()
    assert widget.card.buttons["save"].isEnabled(), "the volume is still there"


@pytest.mark.usefixtures("slow")
def test_the_card_says_if_the_sources_data_changed_meanwhile(opened, qtbot):
    viewer, widget = opened()
    train(qtbot, widget)
    viewer.layers["waves"].data = np.zeros((12, 24, 20), "u2")
    widget.stop_button.click()
    wait_for(qtbot, widget, State.DONE)
    assert "was changed" in widget.card._note.text()
    assert viewer.layers[-1].metadata["tinc"].value_ranges == ((float(waves().min()), float(waves().max())),)


@pytest.mark.usefixtures("slow")
def test_closing_the_dock_ends_the_compression(opened, qtbot):
    viewer, widget = opened()
    train(qtbot, widget)
    viewer.window.remove_dock_widget(widget)
    qtbot.waitUntil(lambda: not WorkerBase._worker_set, timeout=SECONDS)
    assert widget.model.state is State.IDLE
    qtbot.waitUntil(lambda: [layer.name for layer in viewer.layers] == ["waves"], timeout=SECONDS)
    viewer.add_image(waves())  # a widget that is gone does not listen any more
    widget.deleteLater()


@pytest.mark.usefixtures("slow")
def test_closing_the_viewer_ends_the_compression(opened, qtbot):
    viewer, widget = opened()
    train(qtbot, widget)
    viewer.close()
    qtbot.waitUntil(lambda: not WorkerBase._worker_set, timeout=SECONDS)


@pytest.mark.usefixtures("quick")
def test_two_viewers_compress_at_once_each_its_own(opened, qtbot):
    (first, left), (second, right) = opened(), opened(data=waves((10, 16, 18)))
    for widget in (left, right):
        widget.compress_button.click()
    for widget in (left, right):
        wait_for(qtbot, widget, State.DONE)
    assert first.layers[-1].metadata["tinc"].shape == (12, 24, 20)
    assert second.layers[-1].metadata["tinc"].shape == (10, 16, 18)
    qtbot.waitUntil(lambda: len(first.layers) == len(second.layers) == 2)


@pytest.mark.parametrize(
    "error", [RuntimeError("CUDA out of memory. Tried to allocate 9 GiB"), TrainingError("training collapsed")]
)
def test_a_failure_is_shown_and_one_can_start_again(opened, qtbot, monkeypatch, notices, error):
    _, widget = opened()

    def fail(*_: Any, **__: Any) -> Any:
        raise error
        yield

    with monkeypatch.context() as patch:
        patch.setattr(story, "compress_steps", fail)
        widget.compress_button.click()
        wait_for(qtbot, widget, State.FAILED)
    assert str(error)[:20] in widget.status.text()
    assert str(error)[:20] in notices[-1]
    assert not progress._all_instances
    monkeypatch.setitem(TRAINING_STEPS, "fast", 40)
    widget.compress_button.click()
    wait_for(qtbot, widget, State.DONE)


@pytest.mark.usefixtures("slow")
def test_every_family_says_before_it_trains_that_a_budget_is_too_small_for_it(opened, qtbot, notices):
    _, widget = opened()
    for name in FAMILIES:
        states = states_of(widget)
        widget.form.write(model=name, target_value=72)  # more than any file of the volume takes, but no network
        assert widget.compress_button.isEnabled(), widget.form.fields["size"].value
        widget.compress_button.click()
        wait_for(qtbot, widget, State.FAILED)
        assert State.TRAINING not in states
        assert re.search(r"expected a budget of at least \d+ bytes for this volume, got 160$", notices[-1])
        assert "expected a budget of at least" in widget.status.text()


@pytest.mark.usefixtures("slow")
def test_the_activity_dock_shows_it_too_and_can_cancel(opened, qtbot):
    _, widget = opened()
    train(qtbot, widget)
    (bar,) = progress._all_instances
    assert "waves" in bar.desc
    bar.cancel()
    wait_for(qtbot, widget, State.IDLE)
    assert not progress._all_instances


@pytest.mark.usefixtures("slow")
def test_the_preview_learns_where_the_user_looks_and_goes_when_done(opened, qtbot):
    viewer, widget = opened()
    viewer.dims.set_point(0, 2 * 7)
    train(qtbot, widget)
    qtbot.waitUntil(lambda: len(viewer.layers) == 2, timeout=SECONDS)
    preview = viewer.layers[-1]
    truth = waves()
    np.testing.assert_allclose(preview.extent.world, viewer.layers["waves"].extent.world)

    def shows(plane: int) -> bool:
        return bool(np.abs(preview.data[0].astype(float) - truth[plane]).mean() < 100)

    qtbot.waitUntil(lambda: shows(7), timeout=SECONDS)
    viewer.dims.set_point(0, 2 * 2)
    qtbot.waitUntil(lambda: shows(2), timeout=SECONDS)
    viewer.dims.ndisplay = 3
    qtbot.waitUntil(lambda: np.ptp(preview.data, axis=0).any(), timeout=SECONDS)
    widget.stop_button.click()
    wait_for(qtbot, widget, State.DONE)
    qtbot.waitUntil(lambda: preview not in viewer.layers, timeout=SECONDS)


@pytest.mark.usefixtures("slow")
def test_without_live_preview_there_is_none(opened, qtbot):
    viewer, widget = opened()
    widget.form.write(live=False)
    train(qtbot, widget)
    qtbot.wait(1500)
    assert len(viewer.layers) == 1
    widget.stop_button.click()
    wait_for(qtbot, widget, State.DONE)


@pytest.mark.usefixtures("slow")
def test_training_and_previews_are_left_to_another_thread_than_the_windows(opened, qtbot, drivers, monkeypatch):
    """How long the window stands still all the same: ``benchmarks/plugin_latency.py window``."""
    steps, show, shown = drivers(worker, "compress_events"), Preview.show, []
    monkeypatch.setattr(Preview, "show", lambda *args: (show(*args), shown.append(args[-1].region[0])))
    viewer, widget = opened(show=True, data=samples.load("brain")[0])
    train(qtbot, widget)
    for plane in (10, 20, 30):
        viewer.dims.set_point(0, 2 * plane)
        qtbot.waitUntil(lambda plane=plane: plane in shown, timeout=SECONDS)
    widget.model.keep = False
    widget.stop_button.click()
    wait_for(qtbot, widget, State.IDLE)
    assert steps
    assert threading.main_thread() not in steps


@pytest.fixture
def unprepared() -> Iterator[None]:
    """Forget what an earlier test has loaded and compiled, and what this one pretends to."""
    engine.prepared.cache_clear()
    yield
    engine.prepared.cache_clear()


def test_the_engine_is_prepared_in_a_thread_once_the_widget_has_been_open_for_a_moment(
    opened, qtbot, monkeypatch, unprepared
):
    done: list[tuple[str, threading.Thread]] = []
    for name in ("load", "warm_up"):
        monkeypatch.setattr(engine, name, lambda name=name: done.append((name, threading.current_thread())))
    opened()
    assert not done
    qtbot.waitUntil(lambda: len(done) == 2, timeout=SECONDS)
    assert [name for name, _ in done] == ["load", "warm_up"]
    assert all(thread is not threading.main_thread() for _, thread in done)
    opened()
    qtbot.wait(800)
    assert len(done) == 2, "once"


def test_who_is_too_early_is_told_that_the_coder_is_compiled(opened, qtbot, monkeypatch, unprepared):
    compiled = threading.Event()
    monkeypatch.setattr(engine, "warm_up", lambda: compiled.wait(60))
    monkeypatch.setattr(worker, "_COMPILING_SECONDS", 0.0)
    _, widget = opened()
    widget.compress_button.click()
    qtbot.waitUntil(lambda: "compiled once" in widget.status.text(), timeout=SECONDS)
    assert widget.model.state is State.PREPARING
    widget.stop_button.click()  # nothing has to be waited for
    wait_for(qtbot, widget, State.IDLE)
    widget.compress_button.click()
    qtbot.waitUntil(lambda: "compiled once" in widget.status.text(), timeout=SECONDS)
    compiled.set()
    wait_for(qtbot, widget, State.TRAINING, State.DONE)
    assert "compiled" not in widget.status.text()
    widget.stop_button.click()
    widget.stop_button.click()
    qtbot.waitUntil(lambda: not widget.model.running, timeout=SECONDS)


def test_an_engine_that_does_not_load_is_an_error_in_words(opened, qtbot, monkeypatch, unprepared):
    def broken() -> None:
        raise ImportError("libtorch is gone")

    monkeypatch.setattr(engine, "load", broken)
    _, widget = opened()
    widget.compress_button.click()
    wait_for(qtbot, widget, State.FAILED)
    assert "libtorch is gone" in widget.status.text()


@pytest.mark.slow
def test_preparing_compiles_all_that_a_compression_needs(tmp_path):
    script = (
        "import glob, os; from napari_tinc.plugin.compress import engine; engine.load(); engine.warm_up();"
        "count = lambda: len(glob.glob(os.environ['NUMBA_CACHE_DIR'] + '/**/*.nbc', recursive=True));"
        "compiled = count();"
        "from napari_tinc import Target, compress, samples; volume, _ = samples.load('vessel');"
        "compress(volume.astype('f4'), Target.ratio(64), preset='fast').decode((5,), 0.5); print(compiled, count())"
    )
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    compiled, after = map(int, done.stdout.split())
    assert 0 < compiled == after


def colours(widget: QWidget) -> int:
    """Count the colours of what a widget shows."""
    picture = widget.grab().toImage()
    return len({picture.pixel(QPoint(x, y)) for x in range(picture.width()) for y in range(picture.height())})


def test_the_whole_journey_open_compress_overlay_save_reopen(tinc_viewer, qtbot, tmp_path, monkeypatch):
    viewer = tinc_viewer(show=True)
    viewer.window.resize(1300, 850)
    brain, _ = samples.load("brain")
    viewer.add_image(brain[8:40, 8:56, 8:56], name="brain")
    _, widget = viewer.window.add_plugin_dock_widget("napari-tinc", "Compress")
    widget.form.write(preset="fast", target_value=32, time_limit=6, device="cpu")
    widget.compress_button.click()
    wait_for(qtbot, widget, State.DONE)
    assert widget.model.report.psnr > 20
    assert widget.model.report.raw_bytes / widget.model.report.file_bytes >= 32
    assert colours(widget.curve) > 5
    canvas = viewer.screenshot(flash=False)
    assert np.ptp(canvas[..., :3].astype(int)) > 100
    widget.card.measured.emit("psnr")
    with_overlay = viewer.screenshot(flash=False)
    assert (with_overlay != canvas).mean() > 0.05
    path = tmp_path / "brain.tinc"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_, **__: (str(path), ""))
    widget.card.buttons["save"].click()
    assert path.stat().st_size == widget.model.report.file_bytes
    viewer.layers.clear()
    (reopened, *_) = viewer.open(str(path), plugin="napari-tinc")
    decoded = np.asarray(reopened.data[0] if reopened.multiscale else reopened.data)
    error = np.mean((decoded.astype(float) - brain[8:40, 8:56, 8:56]) ** 2)
    span = float(np.ptp(brain[8:40, 8:56, 8:56]))
    assert 10 * np.log10(span**2 / error) == pytest.approx(widget.model.report.psnr, abs=0.01)
    WorkerBase.await_workers(10_000)

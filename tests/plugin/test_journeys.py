"""One journey per kind of data, through the menu: the same voxel at the same place, in the result and in its file."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
from qtpy.QtWidgets import QLabel
from superqt.utils import WorkerBase

from napari_tinc.plugin.compress.model import State
from napari_tinc.target import Target

SECONDS = 60_000


def block(*shape: int) -> np.ndarray[Any, Any]:
    """Smooth in the last three axes, of another level at every position before them."""
    before, last = shape[:-3], shape[-3:]
    grid = np.meshgrid(*(np.linspace(0, 3, n) for n in last), indexing="ij")
    smooth = 500 * np.sin(sum(grid)) + 600
    levels = 1000 * (1 + np.arange(int(np.prod(before, dtype=int)))).reshape(*before, *(1,) * len(last))
    return np.rint(smooth + levels).astype("u2")


def moved(array: np.ndarray[Any, Any], first: int, second: int) -> np.ndarray[Any, Any]:
    return np.ascontiguousarray(np.moveaxis(array, first, second))


@dataclass(frozen=True)
class Kind:
    """Data as a user opens it, and what the form has to find out."""

    data: Callable[[], Any]
    axes: str
    options: dict[str, Any] = field(default_factory=dict)
    chosen: str = ""  # where the form has to ask


ROTATED = {"scale": (2, 1, 1), "translate": (5, -3, 8), "rotate": 30}
SHEARED = {"scale": (2, 1, 1), "shear": (0, 0, 0.4), "affine": np.diag([1, 1.5, 0.5, 1])}
KINDS = {
    "plain": Kind(lambda: block(10, 24, 20), "zyx"),
    "z c y x": Kind(lambda: moved(block(3, 10, 24, 20), 0, 1), "zcyx"),
    "c z y x": Kind(lambda: block(2, 10, 24, 20), "czyx"),
    "t c z y x": Kind(lambda: block(2, 2, 8, 24, 20), "tczyx", {"axis_labels": tuple("tczyx")}),
    "t z y x, unlabelled": Kind(lambda: block(6, 8, 24, 20), "tzyx", chosen="tzyx"),
    "rotated": Kind(lambda: block(10, 24, 20), "zyx", ROTATED),
    "sheared, with an affine": Kind(lambda: block(10, 24, 20), "zyx", SHEARED),
    "cropped, with an offset": Kind(
        lambda: block(10, 24, 20), "zyx", {"translate": (100, 40.5, -7), "scale": (3, 1, 1)}
    ),
    "2-D": Kind(lambda: block(1, 40, 50)[0], "yx"),
    "dask": Kind(lambda: da.from_array(block(10, 24, 20), chunks=(4, 10, 10)), "zyx"),
    "multiscale": Kind(lambda: [block(16, 32, 24), block(16, 32, 24)[::2, ::2, ::2]], "zyx", {"multiscale": True}),
}


@pytest.fixture
def compressing(tinc_viewer: Callable[..., Any], qtbot: Any) -> Iterator[Callable[..., Any]]:
    """Open a viewer with an image, and the widget as the menu does: it then gets a proxy of the viewer."""

    def make(kind: Kind, **values: Any) -> tuple[Any, Any]:
        viewer = tinc_viewer()
        viewer.add_image(kind.data(), name="source", **kind.options)
        _, widget = viewer.window.add_plugin_dock_widget("napari-tinc", "Compress")
        widget.form.write(**{"preset": "fast", "target_value": 8, **values})
        return viewer, widget

    yield make
    WorkerBase.await_workers(10_000)


def compress(widget: Any, qtbot: Any) -> None:
    assert widget.compress_button.isEnabled(), widget.model.error()
    widget.compress_button.click()
    qtbot.waitUntil(lambda: widget.model.state in (State.DONE, State.FAILED), timeout=SECONDS)
    assert widget.model.state is State.DONE, widget.model.message


def finest(layer: Any) -> Any:
    return layer.data[0] if layer.multiscale else layer.data


def value_at(layer: Any, world: Any) -> float:
    """The voxel of a layer at a position in the world, as its own transform finds it."""
    index = tuple(np.round(layer.world_to_data(world)).astype(int))
    return float(np.asarray(finest(layer)[index]))


def same_voxels(source: Any, other: Any, tolerance: float) -> None:
    """At random voxels of the source, the other layer has about the same value at the same place in the world."""
    rng = np.random.default_rng(0)
    for _ in range(25):
        voxel = [int(rng.integers(side)) for side in finest(source).shape]
        world = source.data_to_world(voxel)
        assert value_at(other, world) == pytest.approx(float(np.asarray(finest(source)[tuple(voxel)])), abs=tolerance)


@pytest.mark.parametrize("name", KINDS)
def test_source_result_and_file_show_the_same_voxel_at_the_same_place(name, compressing, qtbot, tmp_path):
    kind = KINDS[name]
    viewer, widget = compressing(kind)
    source = viewer.layers["source"]
    if kind.chosen:
        assert not widget.compress_button.isEnabled()
        assert "choose" in widget.form.fields["size"].value
        widget.form.fields["axes"].value = kind.chosen
    assert widget.form.fields["axes"].value == kind.axes
    compress(widget, qtbot)
    (result,) = [layer for layer in viewer.layers if "tinc" in layer.metadata]
    volume = result.metadata["tinc"]
    assert volume.metadata.axes == kind.axes
    error = max(octant.max_error for octant in volume.octants)
    assert error < 400, "less than from one channel or time to the next"
    assert result.ndim == source.ndim
    same_voxels(source, result, error + 1)
    widget.card.measured.emit("psnr")
    (heat,) = [layer for layer in viewer.layers if layer.name.startswith("PSNR")]
    for octant in volume.octants:
        item, spatial = iter(np.unravel_index(octant.item, volume.header.leading_shape)), iter(octant.box)
        spans = [next(item) if axis in "tc" else next(spatial) for axis in kind.axes]
        middle = [(s.start + s.stop - 1) / 2 if isinstance(s, slice) else float(s) for s in spans]
        assert value_at(heat, source.data_to_world(middle)) == pytest.approx(octant.psnr)
    if not source.multiscale:
        widget.card.buttons["difference"].click()
        (difference,) = [layer for layer in viewer.layers if "minus" in layer.name]
        world = source.data_to_world([side // 2 for side in finest(source).shape])
        assert value_at(difference, world) == value_at(source, world) - value_at(result, world)
    path = tmp_path / "saved.tinc"
    volume.save(path)
    (again,) = viewer.open(str(path), plugin="napari-tinc")
    same_voxels(source, again, error + 1)
    assert again.contrast_limits == pytest.approx(source.contrast_limits)


def test_the_picture_follows_the_same_slider_in_source_and_result(compressing, qtbot):
    kind = KINDS["z c y x"]
    viewer, widget = compressing(kind)
    assert widget.form.fields["size"].value.startswith("z c y x: 3 channels of 10 planes")
    compress(widget, qtbot)
    source, result = viewer.layers["source"], next(layer for layer in viewer.layers if "tinc" in layer.metadata)
    for z, channel in ((0, 0), (4, 2), (9, 1)):
        viewer.dims.set_current_step((0, 1), (z, channel))
        shown = [np.asarray(layer._slice.image.raw) for layer in (source, result)]
        assert shown[0].mean() == pytest.approx(kind.data()[z, channel].mean())
        assert abs(shown[0].mean() - shown[1].mean()) < 50


def test_a_rectangle_of_a_shapes_layer_is_compressed_alone_and_lies_in_its_place(compressing, qtbot, tmp_path):
    viewer, widget = compressing(Kind(lambda: block(10, 48, 40), "zyx", ROTATED))
    source = viewer.layers["source"]
    corners = [source.data_to_world((4, y, x)) for y, x in ((8, 5), (8, 30), (39, 30), (39, 5))]
    viewer.add_shapes([np.array(corners)], shape_type="polygon", name="box")
    widget.form.fields["region"].value = viewer.layers["box"]
    compress(widget, qtbot)
    (result,) = [layer for layer in viewer.layers if "tinc" in layer.metadata]
    volume = result.metadata["tinc"]
    assert volume.shape == (10, 32, 26)
    error = max(octant.max_error for octant in volume.octants)
    for voxel in ((0, 8, 5), (9, 39, 30), (5, 20, 11)):
        world = source.data_to_world(voxel)
        assert value_at(result, world) == pytest.approx(float(source.data[voxel]), abs=error + 1)
    widget.card.buttons["difference"].click()
    (difference,) = [layer for layer in viewer.layers if "minus" in layer.name]
    world = source.data_to_world((5, 20, 11))
    assert value_at(difference, world) == value_at(source, world) - value_at(result, world)
    volume.save(tmp_path / "part.tinc")
    (again,) = viewer.open(str(tmp_path / "part.tinc"), plugin="napari-tinc")
    np.testing.assert_allclose(again.data_to_world((0, 0, 0)), source.data_to_world((0, 8, 5)), atol=1e-6)


def test_a_suggested_ratio_is_taken_over_by_one_click(compressing, qtbot):
    viewer, widget = compressing(Kind(lambda: moved(block(3, 24, 48, 40), 0, 1), "zcyx"))
    viewer.dims.set_current_step((0, 1), (12, 2))
    widget.suggest_button.click()
    qtbot.waitUntil(lambda: not widget.suggestions.running, timeout=SECONDS)
    tried = [one.ratio for one in widget.suggestions.tried]
    assert len(tried) >= 4
    widget.suggestions.buttons[1].click()
    assert widget.form.read().target() == Target.ratio(tried[1])
    compress(widget, qtbot)
    made = next(layer for layer in viewer.layers if "tinc" in layer.metadata).metadata["tinc"]
    assert made.provenance["advice"] == widget.suggestions.advice.note
    assert widget.suggestions.advice.note in [label.text() for label in widget.card.findChildren(QLabel)]


@pytest.mark.parametrize("agree", [False, True])
def test_what_looks_like_labels_is_compressed_only_if_the_user_says_so(compressing, qtbot, monkeypatch, agree):
    asked = []

    def answer(*_):
        asked.append(True)
        return agree

    monkeypatch.setattr("napari_tinc.plugin.compress.widget.ask_whether", answer)
    z, y, x = np.indices((24, 48, 48)) // 12
    viewer, widget = compressing(Kind(lambda: (37 * (1 + z * 16 + y * 4 + x) % 97).astype("u2"), "zyx"))
    widget.compress_button.click()
    qtbot.waitUntil(lambda: bool(asked) and not widget.model.running, timeout=SECONDS)
    assert [layer.name for layer in viewer.layers if "tinc" in layer.metadata] == agree * [viewer.layers[-1].name]


def test_stop_is_heard_while_a_layer_is_read_from_a_disk_that_does_not_answer(compressing, qtbot):
    shown, asked, answer = threading.Event(), threading.Event(), threading.Event()

    def slow(chunk):
        if shown.is_set():
            asked.set()
            assert answer.wait(60)
        return chunk

    lazy = da.zeros((8, 24, 20), chunks=(4, 24, 20), dtype="u1").map_blocks(slow, dtype="u1", meta=np.empty(0, "u1"))
    _, widget = compressing(Kind(lambda: lazy, "zyx", {"contrast_limits": (0, 9)}))
    shown.set()
    widget.compress_button.click()
    qtbot.waitUntil(asked.is_set, timeout=SECONDS)
    widget.stop_button.click()
    qtbot.waitUntil(lambda: widget.model.state is State.IDLE, timeout=SECONDS // 2)
    assert not answer.is_set(), "nothing was waited for"
    answer.set()


def in_a_process(script: str, folder: Path, *arguments: str) -> str:
    """Run a script that may crash, with napari's settings in a folder of its own; return what it has said."""
    settings = {"NAPARI_CONFIG": str(folder / "settings.yaml")}
    command = [sys.executable, "-c", script, *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=250, env={**os.environ, **settings})
    return ended.stdout + ended.stderr[-2000:]


CRASHES = """
import sys
import numpy as np, napari
from qtpy.QtWidgets import QApplication
viewer = napari.Viewer(show=True)
app = QApplication.instance()
def draw():
    for _ in range(4):
        app.processEvents()
rng = np.random.default_rng(0)
make = lambda: rng.integers(0, 999, (8, 40, 40)).astype("u2")
bottom = viewer.add_image(make()); draw()
top = viewer.add_image(make()); draw()
if "plugin" in sys.argv:
    viewer.window.add_plugin_dock_widget("napari-tinc", "Compress"); draw()
for turn in range(5):
    viewer.layers.remove(bottom); draw()
    top.data = make(); draw()
    viewer.dims.set_current_step(0, turn); draw()
    bottom, top = top, viewer.add_image(make()); draw()
lines = viewer.add_vectors(np.array([[[0, 0, 0], [0, 30, 30]]])); draw()
viewer.layers.remove(bottom); viewer.layers.remove(lines); draw()
top.visible = False; draw()
top.visible = True; draw()
print("alive", flush=True)
viewer.close()
"""


def test_removing_layers_does_not_end_napari_where_the_plugin_is_open(tmp_path):
    """Bare napari 0.9 crashes here under Mesa: it frees what a layer has drawn in another OpenGL context."""
    assert "alive" in in_a_process(CRASHES, tmp_path, "plugin")


JOURNEY = """
import numpy as np, napari
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication
from napari_tinc.plugin.compress.model import State
from napari_tinc.target import Target
from napari_tinc.encode.trial import TRAINING_STEPS
TRAINING_STEPS["fast"] = 10**7
viewer = napari.Viewer(show=True)
app = QApplication.instance()
grid = np.indices((12, 48, 40)).sum(0)
source = viewer.add_image((500 * np.sin(grid / 9) + 600).astype("u2"), name="source")
other = viewer.add_image((500 * np.cos(grid / 9) + 600).astype("u2"), name="other")
_, widget = viewer.window.add_plugin_dock_widget("napari-tinc", "Compress")
widget.form.write(source=source, model="tinc", preset="fast", device="cpu", target_value=8)
widget.compress_button.click()
def until(condition):
    while not condition():
        app.processEvents()
until(lambda: any("learning" in layer.name for layer in viewer.layers))
viewer.layers.remove("source")
for plane in range(12):
    viewer.dims.set_current_step(0, plane)
    seen = []
    QTimer.singleShot(150, lambda: seen.append(1))
    until(lambda: seen)
viewer.layers.remove("other")
widget.stop_button.click()
until(lambda: widget.model.state is State.DONE)
for _ in range(20):
    app.processEvents()
print("alive", flush=True)
viewer.close()
"""


def test_the_source_may_be_deleted_while_its_preview_is_shown(tmp_path):
    assert "alive" in in_a_process(JOURNEY, tmp_path)

"""Make the pictures of the plugin's guide: ``xvfb-run -a -s '-screen 0 1500x1000x24' python docs/make_screenshots.py``.

Look at every picture before you commit it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import napari
import numpy as np
from napari.qt import get_qapp
from qtpy.QtCore import QEventLoop, QTimer
from qtpy.QtWidgets import QAbstractItemView

from napari_tinc import samples
from napari_tinc.plugin.compare.widget import CompareWidget
from napari_tinc.plugin.window.preferences import PLUGIN

IMAGES = Path(__file__).parent / "images"
SECONDS = float(sys.argv[1]) if len(sys.argv) > 1 else 30.0  # of training for each sample
SIZE = (1360, 860)
# Sample, plane to show, view in 3-D (Euler angles in degrees, zoom).
COMPARED = ("default", "siren", "sperr", "sz3", "jpeg2000")
SCENES = (("neuron", 32, (-8.0, 28.0, 128.0), 6.2), ("vessel", 70, (-8.0, 32.0, 128.0), 2.4))


def wait(seconds: float, until: Any = None) -> None:
    """Let the window live for a while, or until something has happened."""
    loop, look = QEventLoop(), QTimer()
    look.timeout.connect(lambda: until is not None and until() and loop.quit())
    look.start(50)
    QTimer.singleShot(int(1000 * seconds), loop.quit)
    loop.exec()
    look.stop()


def shoot(viewer: napari.Viewer, name: str) -> None:
    """Save a picture of the whole window."""
    wait(1)
    viewer.screenshot(str(IMAGES / f"{name}.png"), canvas_only=False, flash=False)
    print("made", name)


def open_sample(name: str, title: str = "Compress") -> tuple[napari.Viewer, Any]:
    """Open a viewer with a sample, and a widget as the menu does."""
    viewer = napari.Viewer(show=True)
    viewer.window.resize(*SIZE)
    volume, metadata = samples.load(name)
    limits = tuple(np.percentile(volume, (1, 99.7)).tolist())  # the soma may glare, the dendrites must be seen
    place = {"scale": metadata.voxel_size, "units": metadata.units, "axis_labels": tuple(metadata.axes)}
    viewer.add_image(volume, name=name, contrast_limits=limits, **place)
    dock, widget = viewer.window.add_plugin_dock_widget(PLUGIN, title)
    dock.setFixedWidth(360)
    viewer.canvas.overlays.scale_bar.visible = True
    return viewer, widget


def picture(name: str, plane: int, angles: tuple[float, float, float], zoom: float) -> None:
    """Compress a sample and take its pictures on the way."""
    viewer, widget = open_sample(name)
    viewer.dims.set_point(0, plane * viewer.layers[0].scale[0])
    wait(1)  # docks find their places first
    viewer.reset_view()
    widget.suggest_button.click()
    wait(100, lambda: not widget.suggestions.running)
    shoot(viewer, f"{name}_suggest")
    widget.suggestions.taken.emit(64.0)
    widget.form.write(preset="best", model="tinc+wavelet", time_limit=SECONDS)
    wait(1)
    widget.compress_button.click()
    wait(600, lambda: widget.model.done > 0.35)
    shoot(viewer, f"{name}_training")
    widget.form.fields["keep"].value = False
    widget.stop_button.click()
    wait(600, lambda: not widget.model.running)
    widget.form.write(preset="fast", model="auto", time_limit=0)  # what a user gets who changes nothing
    widget.compress_button.click()
    wait(600, lambda: not widget.model.running)
    wait(1)
    widget.area.verticalScrollBar().setValue(widget.area.verticalScrollBar().maximum())
    result = next(layer for layer in viewer.layers if "tinc" in layer.metadata)
    shoot(viewer, f"{name}_result")
    widget.card.buttons["compare"].click()
    shoot(viewer, f"{name}_compare")
    widget.card.buttons["compare"].click()
    widget.card.measured.emit("psnr")
    viewer.scene.camera.zoom *= 0.75  # room for the colour bar
    shoot(viewer, f"{name}_quality_2d")
    viewer.dims.ndisplay = 3
    for layer in (viewer.layers[name], result):
        layer.rendering = "mip"
    viewer.layers[name].visible = False
    viewer.reset_view()
    viewer.scene.camera.angles, viewer.scene.camera.zoom = angles, zoom
    viewer.layers.selection.active = result
    shoot(viewer, f"{name}_quality_3d")
    viewer.close()


def compared(name: str) -> None:
    """Compare codecs on a sample and take pictures of what can be seen of it."""
    viewer, widget = open_sample(name, "Compare codecs")
    wait(3)  # it looks which codecs there are
    wait(20, lambda: widget.ready)
    widget.form.folded.expand(animate=False)
    shoot(viewer, "compare_form")
    widget.form.folded.collapse(animate=False)
    widget.form.tick(COMPARED)
    widget.form.fields["ratios"].value = "64, 256"
    press(widget, "compare")
    wait(600, lambda: not widget.model.active)
    widget.controls.octants.setChecked(True)
    press(widget, "grid")
    shoot(viewer, "compare_grid")
    press(widget, "single")
    widget.table.choose(widget.model.index("jpeg2000", 64.0))
    press(widget, "split")
    shoot(viewer, "compare_split")
    press(widget, "single")
    widget.table.setSelectionMode(QAbstractItemView.SelectionMode.MultiSelection)
    widget.table.clearSelection()
    for codec in ("siren fast", "sperr"):
        widget.table.choose(widget.model.index(codec, 64.0))
    press(widget, "best")
    first = (viewer.layers["best codec per octant"].data == 1).sum(axis=(1, 2))
    viewer.dims.set_point(0, (np.argmax(first) + 0.5) * viewer.layers[name].data.shape[0] / len(first))
    widget.area.verticalScrollBar().setValue(widget.area.verticalScrollBar().maximum())
    shoot(viewer, "compare_best")
    viewer.close()


def press(widget: CompareWidget, key: str) -> None:
    """Press a button, and wait for what it decodes."""
    widget.controls.buttons[key].click()
    wait(60, lambda: widget.ready)


def main() -> None:
    """Make them all."""
    get_qapp()
    IMAGES.mkdir(exist_ok=True)
    for scene in SCENES:
        picture(*scene)
    compared("brain")


if __name__ == "__main__":
    main()

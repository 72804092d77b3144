"""A user compares, looks at candidates in every way and deletes layers meanwhile: for a process of its own.

Run as ``python compare_journey.py CACHE``; prints ``survived`` if it gets to the end.
"""

from __future__ import annotations

import faulthandler
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import napari
from qtpy.QtWidgets import QApplication

sys.path.insert(0, str(Path(__file__).parents[1]))

from synthetic import blobs

from napari_tinc.compare import engine
from napari_tinc.plugin.compress.result import COMPARE_WIDGET
from napari_tinc.plugin.window.preferences import PLUGIN


def live(until: Callable[[], bool] = lambda: False, seconds: float = 0.1) -> None:
    """Run the event loop for a while, or until something has happened."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not until():
        QApplication.processEvents()
        time.sleep(0.01)


def press(widget: Any, key: str) -> None:
    widget.controls.buttons[key].click()
    live(lambda: widget.ready, 60)
    live()


def look(widget: Any) -> None:
    """Every view, one after the other."""
    for key in ("split", "single", "flicker", "grid", "split", "flicker", "single"):
        press(widget, key)
        for share in (100, 900) * (key == "split"):
            widget.controls.slider.setValue(share)
            live()
        live(seconds=0.6 * (key == "flicker"))


def main(cache: Path) -> None:
    faulthandler.enable()
    engine.default_folder = lambda: cache
    viewer = napari.Viewer(show=True)
    viewer.add_image(blobs((24, 36, 40)), name="cells", scale=(2, 1, 1))
    _, widget = viewer.window.add_plugin_dock_widget(PLUGIN, COMPARE_WIDGET)
    widget.form.tick(["sperr", "sz3"])
    widget.form.fields["ratios"].value = "16"
    live(lambda: widget.ready, 60)
    press(widget, "compare")
    live(lambda: not widget.model.active and widget.ready, 120)
    widget.table.selectRow(0)
    look(widget)
    for key in ("split", "flicker", "grid"):  # the user deletes what is looked at, and an ordinary layer with it
        press(widget, "show")
        press(widget, key)
        viewer.add_image(blobs((8, 9, 10)), name="another")
        live()
        viewer.layers.selection = {layer for layer in viewer.layers if layer.name != "cells"}
        viewer.layers.remove_selected()
        live(seconds=0.6)
    press(widget, "flicker")
    del viewer.layers["cells"]
    viewer.layers[0].data = blobs((24, 36, 40))
    live(seconds=0.6)
    for layer in viewer.layers:
        layer.visible = True
    live()
    viewer.window.remove_dock_widget(widget)
    live()
    viewer.close()
    print("survived")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

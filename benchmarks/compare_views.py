"""How long the buttons of the compare widget block the window, on a volume of 0.6 million voxels.

    xvfb-run -a -s '-screen 0 1400x900x24' python benchmarks/compare_views.py

Prints the longest time in which the event loop did not come round, while candidates are compared and for several
presses of each button: milliseconds of the window's thread, so that other work on the machine counts little, with
software rendering. The candidates are run first, and kept in a folder of the benchmark's own.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import napari
import numpy as np
from npe2 import PluginManager
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication

from napari_tinc import samples
from napari_tinc.compare import engine
from napari_tinc.plugin.compress.result import COMPARE_WIDGET
from napari_tinc.plugin.window.preferences import PLUGIN

SHAPE = (64, 96, 100)
CANDIDATES = ("wavelet", "sperr", "sz3", "jpeg2000", "zfp")


def longest_block(press: Callable[[], None], settled: Callable[[], bool], seconds: float = 1.0) -> float:
    """Milliseconds of this thread between two beats of a timer, at most, from a press until all has been done."""
    beats, heart = [time.thread_time()], QTimer()
    heart.timeout.connect(lambda: beats.append(time.thread_time()))
    heart.start(5)
    QTimer.singleShot(0, press)
    QApplication.processEvents()
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline or not settled():
        QApplication.processEvents()
    heart.stop()
    return float(1000 * np.diff([*beats, time.thread_time()]).max())


def opened(chosen: tuple[str, ...]) -> tuple[Any, Any]:
    viewer = napari.Viewer(show=True)
    viewer.window.resize(1300, 850)
    viewer.add_image(np.asarray(samples.vessel_tree(SHAPE).noisy), name="volume")
    _, widget = viewer.window.add_plugin_dock_widget(PLUGIN, COMPARE_WIDGET)
    widget.form.tick(chosen)
    longest_block(lambda: None, lambda: widget.ready)
    block = longest_block(widget.start, lambda: not widget.model.active and widget.ready)
    print(f"while {len(chosen)} candidates are compared: {block:.0f} ms", flush=True)
    return viewer, widget


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", nargs="+", default=CANDIDATES)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    PluginManager.instance().discover()
    with tempfile.TemporaryDirectory() as folder:
        engine.default_folder = lambda: Path(folder)
        viewer, widget = opened(tuple(args.candidates))
        presses = {
            "show": lambda: widget.candidates.show_row(0),
            "grid": widget.controls.buttons["grid"].click,
            "single, from grid": widget.controls.buttons["single"].click,
            "grid again": widget.controls.buttons["grid"].click,
            "octants on": lambda: widget.controls.octants.setChecked(True),
            "octants off": lambda: widget.controls.octants.setChecked(False),
            "single, from grid with octants": widget.controls.buttons["single"].click,
            "split": widget.controls.buttons["split"].click,
            "single, from split": widget.controls.buttons["single"].click,
            "flicker": widget.controls.buttons["flicker"].click,
            "single, from flicker": widget.controls.buttons["single"].click,
        }
        times: dict[str, list[float]] = {name: [] for name in presses}
        for _ in range(args.rounds):
            for name, press in presses.items():
                widget.table.clearSelection() if "grid" in name else widget.table.selectRow(0)
                times[name].append(longest_block(press, lambda: widget.ready))
        for name, found in times.items():
            print(f"{name}: first {found[0]:.0f} ms, median {statistics.median(found):.0f} ms", flush=True)
        viewer.close()


if __name__ == "__main__":
    main()

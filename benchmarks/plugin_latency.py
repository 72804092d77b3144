"""What a user of the plugin waits for: blocks of the window, stopping, stepping through planes, start-up, opening.

    xvfb-run -a -s '-screen 0 1400x900x24' python benchmarks/plugin_latency.py

Times are those of this machine and of software rendering. Networks of the large volumes hold random parameters: speed
does not depend on their values.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import napari
import numpy as np
import torch
from npe2 import PluginManager
from qtpy.QtCore import QEventLoop, QTimer
from qtpy.QtWidgets import QApplication
from speed import filled, synthetic

from napari_tinc import CompressedVolume, Metadata, samples
from napari_tinc import compression as story
from napari_tinc.format import ItemRange
from napari_tinc.plugin.compress_model import State
from napari_tinc.plugin.compress_widget import CompressWidget
from napari_tinc.plugin.layers import add_result
from napari_tinc.settings import Settings
from napari_tinc.source import Source


def live(seconds: float, until: Callable[[], bool] = lambda: False) -> None:
    """Run the event loop for a while, or until something has happened."""
    loop, look = QEventLoop(), QTimer()
    look.timeout.connect(lambda: until() and loop.quit())
    look.start(2)
    QTimer.singleShot(int(1000 * seconds), loop.quit)
    loop.exec()
    look.stop()


def milliseconds(function: Callable[[], object]) -> float:
    started = time.perf_counter()
    function()
    return 1000 * (time.perf_counter() - started)


def report(what: str, times: list[float]) -> None:
    print(f"{what}: median {statistics.median(times):.0f} ms, largest {max(times):.0f} ms of {len(times)}", flush=True)


def widget_on(volume: Any) -> tuple[Any, CompressWidget]:
    viewer = napari.Viewer(show=True)
    viewer.window.resize(1300, 850)
    viewer.add_image(volume, name="volume")
    widget = CompressWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Compress (TINC)")
    widget.form.write(preset="best", device="cpu", target_value=64)
    return viewer, widget


def blocks_and_stop(seconds: float, stops: int) -> None:
    """Longest pause of a 5 ms timer while training and while ten planes a second go by; then stop."""
    viewer, widget = widget_on(samples.load("brain")[0])
    for keep in (False, True):
        widget.form.write(keep=keep)
        latencies = []
        for number in range(stops):
            widget.compress_button.click()
            live(120, lambda: widget.model.state is State.TRAINING)
            live(2)  # the first preview sets the scene up
            if not keep and number == 0:
                report("longest blocks of the event loop, training and scrolling, by second", blocks(viewer, seconds))
            widget.stop_button.click()
            latencies.append(milliseconds(lambda: live(120, lambda: not widget.model.running)))
        report(f"stop until {'the result is there' if keep else 'idle, nothing kept'}", latencies)
    viewer.close()


def blocks(viewer: Any, seconds: float) -> list[float]:
    """Longest block in ms of every second."""
    beats = [time.perf_counter()]
    heart, hand = QTimer(), QTimer()
    heart.timeout.connect(lambda: beats.append(time.perf_counter()))
    hand.timeout.connect(lambda: viewer.dims.set_current_step(0, (viewer.dims.current_step[0] + 1) % 64))
    heart.start(5)
    hand.start(100)
    live(seconds)
    heart.stop()
    hand.stop()
    gaps, ends = 1000 * np.diff(beats), np.array(beats[1:]) - beats[0]
    return [float(gaps[(ends >= s) & (ends < s + 1)].max(initial=0)) for s in range(int(seconds))]


class Counter:
    """Count the voxels that are decoded."""

    def __init__(self) -> None:
        self.voxels, self._decode = 0, CompressedVolume.decode

    def __call__(self, volume: Any, region: Any = None, scale: float = 1.0) -> Any:
        decoded = self._decode(volume, region, scale)
        self.voxels += int(np.size(decoded))
        return decoded


def stepping(shape: tuple[int, ...], ratio: float, steps: int) -> None:
    """Step through undecoded planes, then back through the same."""
    volume, counter = synthetic(shape, ratio), Counter()
    with mock.patch.object(CompressedVolume, "decode", lambda *args, **kwargs: counter(*args, **kwargs)):
        viewer = napari.Viewer(show=True)
        viewer.window.resize(1300, 850)
        (layer,) = add_result(viewer, volume)
        live(1)
        print(f"a volume of {shape} at ratio {ratio:g}, {len(layer.data) if layer.multiscale else 1} levels, "
              f"shown at level {layer.data_level}")  # fmt: skip
        for what, planes in (("undecoded", range(10, 10 + steps)), ("cached", range(10, 10 + steps))):
            sliced, drawn, counts = [], [], []
            for plane in planes:
                counter.voxels = 0
                sliced.append(milliseconds(lambda p=plane: viewer.dims.set_current_step(0, p)))
                drawn.append(sliced[-1] + milliseconds(QApplication.processEvents))
                counts.append(counter.voxels)
            report(f"  z step into {what} data, until the layer has it", sliced)
            report(f"  z step into {what} data, until it is drawn", drawn)
            print(f"  decoded voxels per step: {max(counts)}, {max(counts) / (shape[1] * shape[2]):.2f} planes")
        viewer.close()


START = """
import sys, time
from importlib import metadata
if sys.argv[1] == "without":
    found = metadata.distributions
    metadata.distributions = lambda **k: (d for d in found(**k) if d.metadata["Name"] != "napari-tinc")
begun = time.perf_counter()
import napari
viewer = napari.Viewer(show=True)
napari.qt.get_qapp().processEvents()
print(time.perf_counter() - begun)
from npe2 import PluginManager
assert ("napari-tinc" in {m.name for m in PluginManager.instance().iter_manifests()}) == (sys.argv[1] == "with")
assert "torch" not in sys.modules
viewer.close()
"""

MANIFEST_ONLY = """
import sys, time
from npe2 import PluginManager, PluginManifest
import napari
manager = PluginManager()
begun = time.perf_counter()
manifest = PluginManifest.from_distribution("napari-tinc")
manager.register(manifest)
manager.activate("napari-tinc")
print(time.perf_counter() - begun)
assert "torch" not in sys.modules and "napari_tinc" not in sys.modules
"""


def start_up(repeats: int) -> None:
    """Start napari with and without the plugin in turn; then the plugin's own part by itself."""

    def seconds(script: str, *args: str) -> float:
        command = [sys.executable, "-W", "ignore", "-c", script, *args]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return float(output.split()[-1])

    times: dict[str, list[float]] = {"with": [], "without": []}
    for _ in range(repeats):
        for which, values in times.items():
            values.append(seconds(START, which))
    medians = {which: 1000 * statistics.median(values) for which, values in times.items()}
    spread = 1000 * max(max(values) - min(values) for values in times.values())
    print(f"napari until its window is there, of {repeats}: with the plugin {medians['with']:.0f} ms, without "
          f"{medians['without']:.0f} ms, difference {medians['with'] - medians['without']:.0f} ms, spread of equal "
          f"starts {spread:.0f} ms; torch not imported")  # fmt: skip
    own = [1000 * seconds(MANIFEST_ONLY) for _ in range(repeats)]
    report("finding, registering and activating the plugin", own)


@dataclass(frozen=True)
class Unseen(Source):
    """A volume that nobody looks at: only its shape and range count."""

    consistency = 0.9  # type: ignore[assignment]


def opening(side: int, ratio: float) -> None:
    """Open a file of ``side``³ voxels in a fresh viewer, until the first plane is drawn."""
    items = np.broadcast_to(np.uint16(0), (1, side, side, side))
    source = Unseen(items, items.shape[1:], Metadata.default(3), None, (ItemRange(0, 65535, 32768, 32),))
    volume = filled(story.plan(source, Settings(device="cpu"), int(items.size * 2 / ratio)))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "large.tinc"
        volume.save(path)
        read, shown = [], []
        for _ in range(3):
            read.append(milliseconds(lambda: CompressedVolume.open(path).shape))
            viewer = napari.Viewer(show=True)
            live(1)
            opened = milliseconds(lambda v=viewer: v.open(str(path), plugin="napari-tinc"))
            shown.append(opened + milliseconds(QApplication.processEvents))
            viewer.close()
    print(f"a file of {side}³ voxels at ratio {ratio:g}, {volume.nbytes / 1e6:.2f} MB")
    report("  header read", read)
    report("  opened until the first plane is drawn", shown)


PARTS = {
    "window": lambda: blocks_and_stop(20, 4),
    "step": lambda: stepping((256, 512, 512), 128, 40),
    "start": lambda: start_up(5),
    "open": lambda: [opening(1024, ratio) for ratio in (128, 1024, 8192)],
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=list(PARTS), help=f"among {', '.join(PARTS)}; by default all")
    chosen = parser.parse_args().parts
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, napari {napari.__version__}", flush=True)
    PluginManager.instance().discover()
    for part in chosen:
        PARTS[part]()

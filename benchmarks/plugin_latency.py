"""What a user of the plugin waits for: blocks of the window, stopping, stepping through planes, start-up, opening.

    xvfb-run -a -s '-screen 0 1400x900x24' python benchmarks/plugin_latency.py

Times are those of this machine and of software rendering. What napari needs without us is measured in the same run:
scrolling while nothing trains, adding and removing an ordinary layer, stepping through a numpy array, opening a file
whose voxels cost nothing. The ratios are what carries over. Networks of the large volumes hold random parameters: speed
does not depend on their values. Detail layers are real, or repeat real blocks; see ``detail_files.py``.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import napari
import numpy as np
import torch
from detail_files import Unseen, repeated, vessels
from npe2 import PluginManager
from qtpy.QtCore import QEventLoop, QTimer
from qtpy.QtWidgets import QApplication
from speed import filled, synthetic

from napari_tinc import CompressedVolume, samples
from napari_tinc.choices import FAMILIES
from napari_tinc.encode.training import plan_network
from napari_tinc.plugin.compress.model import State
from napari_tinc.plugin.compress.preview import PREVIEW
from napari_tinc.plugin.compress.widget import CompressWidget
from napari_tinc.plugin.layers import scrolling as scrolling_module
from napari_tinc.plugin.layers.results import add_result
from napari_tinc.plugin.layers.sharpening import ShownArray
from napari_tinc.plugin.window.preferences import PLUGIN
from napari_tinc.settings import Settings


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


def in_a_process(script: str, *args: str) -> float:
    """Run a script and return the number that it printed last."""
    command = [sys.executable, "-W", "ignore", "-c", script, *args]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return float(output.split()[-1])


def widget_on(volume: Any) -> tuple[Any, CompressWidget]:
    viewer = napari.Viewer(show=True)
    viewer.window.resize(1300, 850)
    viewer.add_image(volume, name="volume")
    _, widget = viewer.window.add_plugin_dock_widget(PLUGIN, "Compress")
    widget.form.write(preset="best", device="cpu", target_value=64)
    return viewer, widget


def blocks_and_stop(seconds: float, stops: int) -> None:
    """Longest pause of a 5 ms timer while ten planes a second go by, with and without training; then stop."""
    viewer, widget = widget_on(samples.load("brain")[0])
    live(2)
    added, removed = [], []
    for _ in range(stops):
        added.append(milliseconds(lambda: add_plain(viewer)))
        live(0.5)
        removed.append(milliseconds(viewer.layers.pop))
        live(0.5)
    report("an ordinary layer added", added)
    report("an ordinary layer removed", removed)
    for keep in (False, True):
        widget.form.write(keep=keep)
        latencies, ends = [], []
        for _ in range(stops):
            if not keep:
                report("longest blocks of the event loop, scrolling alone, by second", blocks(viewer, seconds / stops))
            widget.compress_button.click()
            live(120, lambda: widget.model.state is State.TRAINING)
            live(2)  # the first preview sets the scene up
            if not keep:
                report("  training and scrolling", blocks(viewer, seconds / stops))
            widget.stop_button.click()
            latencies.append(milliseconds(lambda: live(120, lambda: not widget.model.running)))
            ends.append(latencies[-1] + milliseconds(lambda: live(120, lambda: not learning(viewer))))
        report(f"stop until {'the result is there' if keep else 'idle, nothing kept'}", latencies)
        report("  and until the preview layer is gone", ends)
    viewer.close()


def saving(shape: tuple[int, ...]) -> None:
    """How long File > Save Selected Layers takes for a layer that is no result, and the longest block of the loop."""
    viewer, _ = widget_on(np.asarray(samples.load("neuron")[0])[: shape[0], : shape[1], : shape[2]])
    live(8)
    beats, heart = [time.perf_counter()], QTimer()
    heart.timeout.connect(lambda: beats.append(time.perf_counter()))
    heart.start(5)
    viewer.layers.selection.active = viewer.layers["volume"]
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "saved.tinc")
        took = milliseconds(lambda: viewer.layers.save(path, selected=True, plugin="napari-tinc"))
    heart.stop()
    report(f"saving a layer of {shape}", [took])
    report("  longest blocks of the event loop meanwhile", [1000 * float(np.diff(beats).max())])
    viewer.close()


def learning(viewer: Any) -> bool:
    """Whether a live preview is shown."""
    return any(PREVIEW in layer.metadata for layer in viewer.layers)


def add_plain(viewer: Any) -> None:
    viewer.add_image(np.zeros((64, 64, 64), np.uint16), contrast_limits=(0, 1))
    QApplication.processEvents()


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


FIRST_TORCH = """
import gc, sys, time
from concurrent.futures import Future
from contextlib import nullcontext
from unittest import mock
import napari
from npe2 import PluginManager
from qtpy.QtCore import QEventLoop, QTimer
from napari_tinc.plugin.compress import engine
from napari_tinc.plugin.compress.widget import CompressWidget
def live(seconds):
    loop = QEventLoop()
    QTimer.singleShot(int(1000 * seconds), loop.quit)
    loop.exec()
if sys.argv[1] == "import alone loads the libraries":
    engine._load_libraries = lambda: None
if sys.argv[1] == "garbage is collected meanwhile":
    engine._uncollected = nullcontext
if sys.argv[1] == "what is new is looked at afterwards":
    engine.gc = mock.Mock(wraps=gc, freeze=lambda: None, unfreeze=lambda: None)
PluginManager.instance().discover()
viewer = napari.Viewer(show=True)
with mock.patch.object(engine, "prepared", lambda never=Future(): never):  # or it begins before the heart beats
    widget = CompressWidget(viewer)
    viewer.window.add_dock_widget(widget)
    live(0.5)
assert "torch" not in sys.modules
beats, heart = [time.perf_counter()], QTimer()
heart.timeout.connect(lambda: beats.append(time.perf_counter()))
heart.start(5)
while not engine.prepared().done():
    live(0.5)
live(2)  # the first collections of garbage after it
heart.stop()
print(max(b - a for a, b in zip(beats, beats[1:])))
viewer.close()
"""
TRICKS = (
    "as it is",
    "import alone loads the libraries",
    "garbage is collected meanwhile",
    "what is new is looked at afterwards",
)


def first_torch(repeats: int) -> None:
    """How long the window stands still while a thread prepares what compresses; and would, without each trick."""
    times: dict[str, list[float]] = {trick: [] for trick in TRICKS}
    for _ in range(repeats):
        for trick, values in times.items():
            values.append(1000 * in_a_process(FIRST_TORCH, trick))
    for trick, values in times.items():
        report(f"longest block while torch is imported and the coder warmed up, {trick}", values)


class Counter:
    """Count the voxels that are decoded."""

    def __init__(self) -> None:
        self.voxels, self._decode = 0, CompressedVolume.decode

    def __call__(self, volume: Any, region: Any = None, scale: float = 1.0) -> Any:
        decoded = self._decode(volume, region, scale)
        self.voxels += int(np.size(decoded))
        return decoded


# Planes between two that are looked at: so many that nothing is read ahead.
JUMP = 5


def stepping(volumes: Sequence[CompressedVolume], steps: int) -> None:
    """Step through a numpy array; then go to undecoded planes of volumes, and to the same again."""
    shape = volumes[0].shape
    viewer = napari.Viewer(show=True)
    viewer.window.resize(1300, 850)
    viewer.add_image(np.random.default_rng(0).integers(0, 65536, shape, np.uint16), contrast_limits=(0, 65535))
    live(1)
    plain = steps_through(viewer, range(10, 10 + JUMP * steps, JUMP))
    report("  z step through a numpy array, until the layer has it", plain[0])
    report("  z step through a numpy array, until it is drawn", plain[1])
    viewer.close()
    for volume in volumes:
        steps_in(volume, steps, plain)


def steps_in(volume: CompressedVolume, steps: int, plain: tuple[list[float], ...]) -> None:
    """Go to undecoded planes and to the same again; compare with a numpy array."""
    counter, shape = Counter(), volume.shape
    with mock.patch.object(CompressedVolume, "decode", lambda *args, **kwargs: counter(*args, **kwargs)):
        viewer = napari.Viewer(show=True)
        viewer.window.resize(1300, 850)
        layer = add_result(viewer, volume)
        live(10, lambda: is_sharp(viewer))
        print(f"{kind_of(volume)} of {shape} at ratio {volume.ratio:.0f}, {len(layer.data) if layer.multiscale else 1} "
              f"levels, shown at level {layer.data_level}")  # fmt: skip
        for what in ("undecoded", "cached"):
            counter.voxels = 0
            times = steps_through(viewer, range(10, 10 + JUMP * steps, JUMP))
            for until, ours, numpys in zip(
                ("the layer has it", "it is drawn", "it is sharp"), times, plain, strict=True
            ):
                report(f"  z step into {what} data, until {until}", ours)
                print(f"    {statistics.median(ours) / statistics.median(numpys):.1f} times a numpy array's")
            print(f"  decoded planes per step: {counter.voxels / steps / (shape[1] * shape[2]):.2f}")
        viewer.close()


def scrolling(volume: CompressedVolume, steps: int) -> None:
    """Scroll through planes that are not decoded yet, at several speeds: first planes alone, then as it is."""
    print(f"{kind_of(volume)} of {volume.shape} at ratio {volume.ratio:.0f}")
    for rate in (8, 20):
        for ahead in (0, scrolling_module._FIRST_AHEAD):
            with mock.patch.object(scrolling_module, "_FIRST_AHEAD", ahead):
                viewer = napari.Viewer(show=True)
                viewer.window.resize(1300, 850)
                add_result(viewer, CompressedVolume(volume.to_bytes()))
                live(10, lambda viewer=viewer: is_sharp(viewer))
                viewer.dims.set_current_step(0, 10)
                live(10, lambda viewer=viewer: is_sharp(viewer))
                scroll(viewer, rate, steps, "read ahead" if ahead else "nothing read ahead")
                viewer.close()


def scroll(viewer: Any, rate: float, steps: int, what: str) -> None:
    """Step at equal times, or as fast as it goes; report how long the window is busy, and which planes were coarse."""
    busy, coarse = [], 0
    begun = time.perf_counter()
    for step in range(steps):
        busy.append(milliseconds(lambda plane=11 + step: viewer.dims.set_current_step(0, plane)))
        coarse += not is_sharp(viewer)
        live(max(0.002, begun + (step + 1) / rate - time.perf_counter()))
    seen = steps / (time.perf_counter() - begun)
    report(f"  scrolling at {rate} planes a second ({seen:.1f} seen), {what}, window busy for", busy)
    print(f"    {coarse} of {steps} planes coarse at first")


def kind_of(volume: CompressedVolume) -> str:
    """What a file holds."""
    return "networks" if volume.header.model == FAMILIES["tinc"].code else "a detail layer"


def steps_through(viewer: Any, planes: range) -> tuple[list[float], list[float], list[float]]:
    """Time until the layers have every plane, until it is drawn, and until it is no longer coarse."""
    sliced, drawn, sharp = [], [], []
    for plane in planes:
        sliced.append(milliseconds(lambda p=plane: viewer.dims.set_current_step(0, p)))
        drawn.append(sliced[-1] + milliseconds(QApplication.processEvents))
        sharp.append(drawn[-1] + (0 if is_sharp(viewer) else milliseconds(lambda: live(20, lambda: is_sharp(viewer)))))
        QApplication.processEvents()
    return sliced, drawn, sharp


def is_sharp(viewer: Any) -> bool:
    """Whether no layer waits for finer voxels."""
    levels = [level for layer in viewer.layers if layer.multiscale for level in layer.data]
    return all(level.sharpener.sharp for level in levels if isinstance(level, ShownArray))


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
    times: dict[str, list[float]] = {"with": [], "without": []}
    for _ in range(repeats):
        for which, values in times.items():
            values.append(in_a_process(START, which))
    medians = {which: 1000 * statistics.median(values) for which, values in times.items()}
    spread = 1000 * max(max(values) - min(values) for values in times.values())
    print(f"napari until its window is there, of {repeats}: with the plugin {medians['with']:.0f} ms, without "
          f"{medians['without']:.0f} ms, difference {medians['with'] - medians['without']:.0f} ms, spread of equal "
          f"starts {spread:.0f} ms; torch not imported")  # fmt: skip
    own = [1000 * in_a_process(MANIFEST_ONLY) for _ in range(repeats)]
    report("finding, registering and activating the plugin", own)


def networks(side: int, ratio: float) -> CompressedVolume:
    """Make a file of ``side``³ voxels with networks of random parameters."""
    source = Unseen.cube(side)
    return filled(plan_network(source, Settings(device="cpu"), "tinc", int(source.items.nbytes / ratio)))


def opening(volume: CompressedVolume) -> None:
    """Open a file in a fresh viewer, until the first plane is drawn."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "large.tinc"
        volume.save(path)
        read, shown, free, sharp = [], [], [], []
        for _ in range(5):
            read.append(milliseconds(lambda: CompressedVolume.open(path).shape))
            with mock.patch.object(CompressedVolume, "decode", nothing):
                free.append(open_in_a_viewer(path)[0])
            for times, took in zip((shown, sharp), open_in_a_viewer(path), strict=True):
                times.append(took)
    print(f"{kind_of(volume)} of {volume.shape} at ratio {volume.ratio:.0f}, {volume.nbytes / 1e6:.2f} MB")
    report("  header read", read)
    report("  opened until the first plane is drawn, voxels cost nothing", free)
    report("  opened until the first plane is drawn", shown)
    report("  opened until it is sharp", sharp)
    own = [ours - theirs for ours, theirs in zip(shown, free, strict=True)]
    print(f"    decoding: median {statistics.median(own):.0f} ms")


def nothing(volume: CompressedVolume, region: Any = None, scale: float = 1.0) -> Any:
    """Decode in no time."""
    return np.zeros([part.stop - part.start for part in region if isinstance(part, slice)], volume.dtype)


def open_in_a_viewer(path: Path) -> tuple[float, float]:
    """Time until the first plane is drawn, and until it is no longer coarse."""
    viewer = napari.Viewer(show=True)
    viewer.window.resize(1300, 850)
    live(1)
    opened = milliseconds(lambda: viewer.open(str(path), plugin="napari-tinc"))
    opened += milliseconds(QApplication.processEvents)
    sharp = opened + milliseconds(lambda: live(20, lambda: is_sharp(viewer)))
    viewer.close()
    return opened, sharp


FIRST_TINC = """
import sys, time
import napari
viewer = napari.Viewer(show=True)
napari.qt.get_qapp().processEvents()
begun = time.perf_counter()
import napari_tinc.plugin.menus.reader
napari_tinc.plugin.menus.reader.engine.load()
print(time.perf_counter() - begun)
viewer.close()
"""


def first_tinc(repeats: int) -> None:
    """What the first file of a session costs besides: torch."""
    report("imports before the first file of a session", [1000 * in_a_process(FIRST_TINC) for _ in range(repeats)])


def compressed_stack(shape: tuple[int, int, int]) -> list[CompressedVolume]:
    return [synthetic(shape, 128), vessels(shape, 128)]


LARGE = ((networks, (128, 1024, 8192)), (repeated, (128, 1024)))
PARTS = {
    "window": lambda: blocks_and_stop(20, 4),
    "save": lambda: saving((64, 256, 256)),
    "step": lambda: stepping(compressed_stack((256, 512, 512)), 40),
    "scroll": lambda: [scrolling(vessels(shape, 128), 100) for shape in ((256, 512, 512), (128, 1024, 1024))],
    "start": lambda: start_up(5),
    "torch": lambda: [first_torch(5), first_tinc(3)],
    "open": lambda: [opening(make(1024, ratio)) for make, ratios in LARGE for ratio in ratios],
}
# The same code in seconds, to see that it works: the numbers mean nothing.
SMALL = {
    "window": lambda: blocks_and_stop(2, 1),
    "save": lambda: saving((16, 64, 64)),
    "step": lambda: stepping(compressed_stack((32, 64, 64)), 3),
    "scroll": lambda: scrolling(vessels((64, 512, 512), 128), 20),
    "start": lambda: start_up(1),
    "torch": lambda: [first_torch(1), first_tinc(1)],
    "open": lambda: [opening(make(256, 128)) for make, _ in LARGE],
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=list(PARTS), help=f"among {', '.join(PARTS)}; by default all")
    parser.add_argument("--small", action="store_true", help="a few seconds of each, to see that it works")
    args = parser.parse_args()
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, napari {napari.__version__}", flush=True)
    PluginManager.instance().discover()
    for part in args.parts:
        (SMALL if args.small else PARTS)[part]()

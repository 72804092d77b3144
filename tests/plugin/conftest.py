"""Fixtures of the plugin's tests: a small compressed volume, the plugin in a viewer, and no leaks."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from napari_tinc.arrays.metadata import Metadata
from napari_tinc.settings import Settings

_STEPS = 150
MANIFEST = Path(__file__).parents[2] / "napari.yaml"
# Pools that live as long as the process: dask's, our coder's, and those of the libraries that read images; and what
# compiles our coder, once.
_POOLS = (
    "Dask-Offload",
    "ThreadPoolExecutor",
    "asyncio",
    "pytest_timeout",
    "QThread",
    "Dummy",
    "zarr_io",
    "tinc-blocks",
    "tinc-boxes",
    "tinc-engine",
    "fsspecIO",  # one for all remote files, as long as the process lives
)


@pytest.fixture(autouse=True)
def _little_to_collect() -> None:
    """Leave what earlier tests have imported out of garbage collections.

    Every viewer that closes makes several, which would take half a second each.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def compressed_bytes() -> dict[str, bytes]:
    """Frames of volumes that were trained for a moment: a stack, and one with time and channels."""
    grid = np.stack(np.meshgrid(*(np.linspace(0, 4, n) for n in (18, 33, 30)), indexing="ij"))
    stack = (2000 + 1500 * np.sin(grid[0] * 2) * np.cos(grid[1] + grid[2])).astype(np.uint16)
    series = np.stack([[stack + 1000 * t + 300 * c for c in range(2)] for t in range(3)])[..., :20, :20]
    metadata = Metadata("zyx", (2.0, 0.5, 0.5), ("micrometer",) * 3, name="waves")
    many = Metadata("tczyx", (1, 1, 2.0, 0.5, 0.5), ("second", "", *("micrometer",) * 3), ("DAPI", "GFP"), "movie")
    return {
        "stack": _train_briefly(stack, metadata, levels=3),
        "movie": _train_briefly(series, many, levels=2),
    }


def _train_briefly(array: Any, metadata: Metadata, levels: int) -> bytes:
    """Compress 8-fold with a fixed number of steps, so that the same bytes come out however busy the machine is."""
    from napari_tinc.encode.compression import compress_steps
    from napari_tinc.target import Target

    steps_done = count()
    settings = Settings(preset="fast", levels=levels, device="cpu")
    steps = compress_steps(
        array, Target.ratio(8), settings, metadata=metadata, should_stop=lambda: next(steps_done) >= _STEPS
    )
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            return bytes(stop.value.to_bytes())


@pytest.fixture
def stack(compressed_bytes: dict[str, bytes]) -> Any:
    from napari_tinc.volume import CompressedVolume

    return CompressedVolume(compressed_bytes["stack"])


@pytest.fixture
def movie(compressed_bytes: dict[str, bytes]) -> Any:
    from napari_tinc.volume import CompressedVolume

    return CompressedVolume(compressed_bytes["movie"])


@pytest.fixture
def decoded_voxels(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Voxels of every call of the decoder since the list was cleared."""
    from napari_tinc.volume import CompressedVolume

    decode, counts = CompressedVolume.decode, []

    def counting(self: Any, region: Any = None, scale: float = 1.0) -> Any:
        decoded = decode(self, region, scale)
        counts.append(int(np.size(decoded)))
        return decoded

    monkeypatch.setattr(CompressedVolume, "decode", counting)
    return counts


Watch = Callable[[Any, str], list[threading.Thread]]


@pytest.fixture
def drivers(monkeypatch: pytest.MonkeyPatch) -> Watch:
    """Note in which threads generators are driven: a thread per step, from when a function is watched."""

    def watch(owner: Any, name: str) -> list[threading.Thread]:
        make, seen = getattr(owner, name), []

        def made(*args: Any, **settings: Any) -> Iterator[Any]:
            with closing(make(*args, **settings)) as steps:
                while True:
                    seen.append(threading.current_thread())
                    try:
                        step = next(steps)
                    except StopIteration as end:
                        return end.value
                    yield step

        monkeypatch.setattr(owner, name, made)
        return seen

    return watch


@pytest.fixture
def tinc_viewer(
    plugin_settings: None, npe2pm: Any, make_napari_viewer: Callable[..., Any]
) -> Iterator[Callable[..., Any]]:
    """Make viewers in which the plugin is installed."""
    with npe2pm.tmp_plugin(manifest=str(MANIFEST)):
        yield make_napari_viewer


@pytest.fixture(autouse=True)
def no_leaks() -> Iterator[None]:
    """Fail a test that leaves a widget, a thread or an open file behind."""
    before = _widgets(), _threads(), _files()
    yield
    deadline = time.monotonic() + 3
    while (left := _left(before)) and time.monotonic() < deadline:
        _process_events()
        gc.collect()
        time.sleep(0.05)
    assert not left, f"left behind: {left}"


def _left(before: tuple[set[Any], ...]) -> list[Any]:
    return [thing for old, new in zip(before, (_widgets(), _threads(), _files()), strict=True) for thing in new - old]


def _widgets() -> set[str]:
    from qtpy.QtWidgets import QApplication

    if QApplication.instance() is None:
        return set()
    return {f"{type(w).__name__} {w.objectName()} {id(w)}" for w in QApplication.topLevelWidgets()}


def _threads() -> set[str]:
    return {f"{t.name} {t.ident}" for t in threading.enumerate() if not t.name.startswith(_POOLS)}


def _files() -> set[str]:
    return {
        file.path for file in psutil.Process().open_files() if file.path.endswith((".tinc", ".tif", ".tiff", ".npy"))
    }


def _process_events() -> None:
    from qtpy.QtCore import QEvent
    from qtpy.QtWidgets import QApplication

    if QApplication.instance() is not None:
        QApplication.processEvents()
        QApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)

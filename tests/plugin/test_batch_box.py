"""Several compressions in a row from the widget: selected layers, and the files of a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import tifffile
from qtpy.QtWidgets import QFileDialog
from superqt.utils import WorkerBase

from napari_tinc.volume import CompressedVolume

SECONDS = 60_000


def waves(step: float) -> np.ndarray[Any, Any]:
    return np.rint(900 + 800 * np.sin(np.indices((10, 24, 20)).sum(0) * step)).astype("u2")


@pytest.fixture
def opened(tinc_viewer: Callable[..., Any], qtbot: Any) -> Iterator[tuple[Any, Any]]:
    viewer = tinc_viewer()
    _, widget = viewer.window.add_plugin_dock_widget("napari-tinc", "Compress")
    widget.form.write(target_value=8)
    yield viewer, widget
    WorkerBase.await_workers(10_000)


def test_selected_layers_are_compressed_in_a_row_and_one_that_fails_stops_none(opened, qtbot):
    viewer, widget = opened
    for name, data in {"a": waves(0.1), "bad": np.full((10, 24, 20), np.nan, "f4"), "b": waves(0.3)}.items():
        viewer.add_image(data, name=name, contrast_limits=(0, 2000))
    viewer.add_image(waves(0.2), name="not selected")
    viewer.layers.selection = {viewer.layers[name] for name in ("a", "bad", "b")}
    widget.batch.selected.click()
    qtbot.waitUntil(lambda: "compressed" in widget.batch.text.text(), timeout=SECONDS)
    said = widget.batch.text.text().splitlines()
    assert said[0] == "2 of 3 compressed"
    assert said[1].startswith("bad: expected finite voxels")
    results = [layer.metadata["tinc"] for layer in viewer.layers if "tinc" in layer.metadata]
    assert [volume.metadata.name for volume in results] == ["a", "b"]


def test_the_volumes_of_a_folder_become_files_in_another(opened, qtbot, tmp_path, monkeypatch):
    _, widget = opened
    source, target = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    target.mkdir()
    for name in ("a", "b"):
        tifffile.imwrite(source / f"{name}.tif", waves(0.2))
    (source / "broken.tif").write_bytes(b"II*\0 and no more")
    folders = iter([str(source), str(target)])
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: next(folders))
    widget.batch.folder.click()
    assert not widget.compress_button.isEnabled()
    qtbot.waitUntil(lambda: not widget.batch.busy, timeout=SECONDS)
    said = widget.batch.text.text().splitlines()
    assert said[0] == "2 of 3 compressed"
    assert said[1].startswith("broken.tif: ")
    assert sorted(path.name for path in target.iterdir()) == ["a.tinc", "b.tinc"]
    assert CompressedVolume.open(target / "a.tinc").ratio >= 8

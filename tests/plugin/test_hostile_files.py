"""What a file says is shown, and neither believed nor obeyed."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile import constant_frame
from napari.components import ViewerModel
from qtpy.QtCore import Qt
from qtpy.QtGui import QTextDocument
from qtpy.QtWidgets import QLabel

from napari_tinc.arrays.metadata import Display
from napari_tinc.files.units import SYMBOLS
from napari_tinc.lazy import lazy_levels
from napari_tinc.plugin.layers.channels import toggle_channels
from napari_tinc.plugin.layers.results import add_result, layer_data
from napari_tinc.plugin.window.plain import plain_tip

SHAPES = [
    (2**31 - 1, 300, 300),
    (2**16, 2**16, 2**16),
    (2**31 - 1, 2**17),
    (2**31 - 1, 1),
    (1, 1, 2**31 - 1),
    (2**16, 9, 9),
    (2**16, 2**11, 2**10, 2**11),
]


def opened(data: bytes) -> Any:
    from napari_tinc.volume import CompressedVolume

    return CompressedVolume(data, "cpu")


@pytest.mark.parametrize("shape", SHAPES)
def test_a_huge_shape_costs_little_before_anything_is_shown(shape: tuple[int, ...]) -> None:
    volume = opened(constant_frame(shape, axes="tzyx" if len(shape) == 4 else ""))
    started = time.process_time()
    levels = lazy_levels(volume)
    planes = [level[tuple(side // 2 for side in level.shape[:-2])] for level in levels]
    assert time.process_time() - started < 10
    assert levels[0].shape == shape
    assert all(array.npartitions <= max(2**13, 2**16 * (len(shape) > 3)) for array in (*levels, *planes))
    corner = levels[0][(slice(-2, None),) * len(shape)]
    assert np.asarray(corner).tolist() == np.full(corner.shape, 7).tolist()


def test_a_small_file_of_a_huge_volume_opens_in_the_viewer(make_napari_viewer: Any, tmp_path: Path) -> None:
    path = tmp_path / "huge.tinc"
    path.write_bytes(constant_frame((2**16, 2**16, 2**16)))
    assert path.stat().st_size < 50
    viewer = make_napari_viewer()
    started = time.process_time()
    (layer,) = viewer.open(path, plugin="napari-tinc")
    viewer.dims.set_point(0, 2**15)
    assert time.process_time() - started < 30
    assert layer.get_status((2**15, 2**15, 2**15))["value"]
    assert layer.data[0].shape == (2**16,) * 3


HOSTILE_UNITS = ["9**9**9**9", "1/0", "((((", "10 um", "\0", "micrometer**2", "__import__('os')", "µm", "x" * 10**4]


@pytest.mark.parametrize("unit", HOSTILE_UNITS)
def test_a_unit_is_never_computed(unit: str, caplog: pytest.LogCaptureFixture) -> None:
    volume = opened(constant_frame((2, 3, 4), units=("micrometer", unit, "")))
    with caplog.at_level(logging.WARNING):
        _, options, _ = layer_data(volume)
    assert options["units"] == ("micrometer", "pixel", "pixel")
    assert "is not known" in caplog.text
    assert len(caplog.text) < 300


@pytest.mark.parametrize("unit", list(SYMBOLS))
def test_every_unit_that_files_hold_is_shown_by_napari(unit: str) -> None:
    from napari.layers import Image

    data, options, _ = layer_data(opened(constant_frame((2, 3, 4), units=(unit,) * 3)))
    assert [str(shown) for shown in Image(data, **options).units] == [unit] * 3


def test_control_characters_of_a_name_are_spelt_out() -> None:
    frame = constant_frame((2, 3, 4, 5), axes="czyx", name="a\x1b[31m\nb", channel_names=("\a", "red"))
    viewer = ViewerModel()
    result = add_result(viewer, opened(frame))
    assert result.name.startswith(r"a\x1b[31m\nb, ")
    toggle_channels(viewer, result)
    assert [layer.name for layer in viewer.layers if layer is not result] == [
        rf"\x07: {result.name}", f"red: {result.name}"]  # fmt: skip


@pytest.mark.parametrize(
    "display",
    [
        Display(translate=(1e308, -1e308, 1e300)),
        Display(linear=((0.0,) * 3,) * 3),
        Display(linear=((1e308,) * 3,) * 3),
        Display(linear=((1.0, 0.0, 0.0), (1.0, 1e-30, 0.0), (0.0, 0.0, 1.0))),
        Display(contrast_limits=((1e308, -1e308),)),
        Display(contrast_limits=((5.0, 5.0),), colors=("__import__('os')",)),
        Display(colors=("#zzzzzz",)),
    ],
)
def test_a_hostile_place_or_colour_is_shown_as_if_there_were_none(display: Display) -> None:
    viewer = ViewerModel()
    layer = add_result(viewer, opened(constant_frame((2, 3, 4), display=display)))
    assert np.isfinite(layer.extent.world).all()
    low, high = layer.contrast_limits
    assert low < high
    viewer.dims.set_current_step(0, 1)
    viewer.dims.ndisplay = 3


def test_a_name_is_not_taken_for_html(make_napari_viewer: Any, stack: Any) -> None:
    from napari_tinc.plugin.layers.octant_table import OctantTable

    name = "<h1>big</h1><img src='file:///etc/passwd'>"
    viewer = make_napari_viewer()
    layer = add_result(viewer, stack)
    layer.name = name
    table = OctantTable(viewer, layer)
    viewer.window.add_dock_widget(table)
    assert name in table.title.text()
    assert table.title.textFormat() == Qt.TextFormat.PlainText
    shown = QTextDocument()
    shown.setHtml(plain_tip(name))
    assert shown.toPlainText() == name


def test_every_label_that_shows_what_a_user_or_file_says_is_plain(make_napari_viewer: Any) -> None:
    viewer = make_napari_viewer()
    viewer.add_image(np.zeros((8, 8, 8)), name="<b>bold</b>")
    for title in ("Compress", "Compare codecs"):
        _, widget = viewer.window.add_plugin_dock_widget("napari-tinc", title)
        for label in widget.findChildren(QLabel):
            if "bold" in label.text():
                assert label.textFormat() == Qt.TextFormat.PlainText or "&lt;b&gt;" in label.text()
        assert widget.findChildren(QLabel)


@pytest.mark.parametrize(
    ("dtype", "value"), [("f4", 1e30), ("f4", -3e38), ("f8", 1.7e308), ("f8", 2.0**60), ("i4", -(2**31))]
)
def test_a_constant_of_any_size_can_be_shown(dtype: str, value: float) -> None:
    from napari.layers import Image

    value = value if dtype[0] == "i" else float(np.dtype(dtype).type(value))
    data, options, _ = layer_data(opened(constant_frame((2, 3, 4), dtype, value)))
    layer = Image(data, **options)
    low, high = layer.contrast_limits
    assert low < high
    assert low <= value <= high

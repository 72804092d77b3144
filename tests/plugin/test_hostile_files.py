"""What a file says is shown, and neither believed nor obeyed."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile import constant_frame
from napari.components import ViewerModel
from qtpy.QtCore import Qt
from qtpy.QtGui import QTextDocument
from qtpy.QtWidgets import QLabel

from napari_tinc import lazy
from napari_tinc.arrays.metadata import Display
from napari_tinc.files.units import SYMBOLS
from napari_tinc.lazy import lazy_levels
from napari_tinc.plugin.compress.report import Report
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
    (2**10, 2**11, 2**10, 2**11),
]


def opened(data: bytes) -> Any:
    from napari_tinc.volume import CompressedVolume

    return CompressedVolume(data, "cpu")


@pytest.mark.parametrize("shape", SHAPES)
def test_levels_and_planes_of_a_huge_shape_have_few_chunks(
    shape: tuple[int, ...], decoded_voxels: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert lazy._MAX_CHUNKS <= 2**13
    monkeypatch.setattr(lazy, "_MAX_CHUNKS", 2**8)  # which takes less time to list
    volume = opened(constant_frame(shape, axes="tzyx" if len(shape) == 4 else ""))
    levels = lazy_levels(volume)
    planes = [level[tuple(side // 2 for side in level.shape[:-2])] for level in levels]
    assert levels[0].shape == shape
    times = shape[0] if len(shape) == 4 else 1
    assert all(array.npartitions <= max(2**8, times) for array in (*levels, *planes))
    assert decoded_voxels == []
    corner = levels[0][(slice(-2, None),) * len(shape)]
    assert np.asarray(corner).tolist() == np.full(corner.shape, 7).tolist()


def test_a_small_file_of_a_huge_volume_opens_in_the_viewer(
    make_napari_viewer: Any, tmp_path: Path, decoded_voxels: list[int]
) -> None:
    path = tmp_path / "huge.tinc"
    path.write_bytes(constant_frame((2**16, 2**16, 2**16)))
    assert path.stat().st_size < 50
    viewer = make_napari_viewer()
    (layer,) = viewer.open(path, plugin="napari-tinc")
    viewer.dims.set_point(0, 2**15)
    assert 0 < sum(decoded_voxels) < 2**21, "a few planes of the coarsest level"
    assert layer.get_status((2**15, 2**15, 2**15))["value"]
    assert layer.data[0].shape == (2**16,) * 3


BOLD = "<b>bold</b>"
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


def test_labels_that_show_what_a_user_or_file_says_are_plain(make_napari_viewer: Any, tmp_path: Path) -> None:
    viewer = make_napari_viewer()
    layer = viewer.add_image(np.random.default_rng(0).integers(0, 99, (24, 32, 32)).astype("u2"), name="cells")
    _, compress = viewer.window.add_plugin_dock_widget("napari-tinc", "Compress")
    compress.batch.say(f"{BOLD}: expected finite voxels")
    compress.form.write(within="map", mask=layer)
    _, compare = viewer.window.add_plugin_dock_widget("napari-tinc", "Compare codecs")
    for widget in (compress, compare):
        widget.model.begin()
        widget.model.fail(f"expected a volume, got {BOLD}")
    compress.card.show_report(Report(8e6, 1e5, 40.0, 0.9, "", 1.0, 30.0, "", BOLD), f"{BOLD} was changed")
    for widget, count in ((compress, 4), (compare, 1)):
        shown = [label for label in widget.findChildren(QLabel) if "bold" in label.text()]
        assert len(shown) == count
        for label in shown:
            assert label.textFormat() == Qt.TextFormat.PlainText or "&lt;b&gt;" in label.text(), label.text()


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

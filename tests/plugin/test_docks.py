"""What both forms have in common: their place in the window, their fields, and the layers that they offer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from qtpy.QtCore import QPoint, QPointF, Qt
from qtpy.QtGui import QWheelEvent
from qtpy.QtWidgets import QApplication, QLabel

from napari_tinc.plugin.layers.octant_table import TABLE_NAME
from napari_tinc.plugin.window.preferences import PLUGIN

COMPRESS, COMPARE = "Compress", "Compare codecs"


@pytest.fixture
def opened(tinc_viewer: Callable[..., Any], qtbot: Any) -> Callable[[str], tuple[Any, Any]]:
    """Open a window with two images and a widget, as the menu does."""

    def make(name: str) -> tuple[Any, Any]:
        viewer = tinc_viewer(show=True)
        rng = np.random.default_rng(0)
        for title in ("first", "second"):
            viewer.add_image(rng.integers(0, 900, (8, 20, 30)).astype("u2"), name=title)
        _, widget = viewer.window.add_plugin_dock_widget(PLUGIN, name)
        qtbot.wait(50)
        return viewer, widget

    return make


def scroll_over(field: Any) -> bool:
    """Turn the wheel by a notch; tell whether the field kept that for itself."""
    place, none = QPointF(field.rect().center()), Qt.MouseButton.NoButton
    event = QWheelEvent(
        place, QPointF(field.mapToGlobal(place.toPoint())), QPoint(), QPoint(0, -120), none,
        Qt.KeyboardModifier.NoModifier, Qt.ScrollPhase.NoScrollPhase, False,
    )  # fmt: skip
    QApplication.sendEvent(field, event)
    return event.isAccepted()


@pytest.mark.parametrize(
    ("name", "fields"), [(COMPRESS, ("target_value", "preset", "seed")), (COMPARE, ("bar", "preset", "source"))]
)
def test_the_wheel_scrolls_the_dock_and_changes_only_the_field_that_has_the_focus(opened, qtbot, name, fields):
    _, widget = opened(name)
    widget.form.folded.expand(animate=False)
    for key in fields:
        field = widget.form.fields[key]
        before = field.value
        assert not scroll_over(field.native), "left to what scrolls"
        assert field.value == before
        assert not field.native.focusPolicy() & Qt.FocusPolicy.WheelFocus & ~Qt.FocusPolicy.StrongFocus
    number = widget.form.fields[fields[0]]
    before = number.value
    widget.window().activateWindow()
    number.native.setFocus()
    qtbot.waitUntil(number.native.hasFocus)
    scroll_over(number.native)
    assert number.value == before - 1


@pytest.mark.parametrize("name", [COMPRESS, COMPARE])
def test_the_source_is_the_active_layer_until_another_one_is_chosen(opened, name):
    viewer, widget = opened(name)
    first, second = viewer.layers
    choice = widget.form.fields["source"]
    assert widget.form.source is second
    viewer.layers.selection.active = first
    assert widget.form.source is first
    assert "first" in choice.current_choice
    viewer.layers.selection.active = None
    assert widget.form.source is first
    labels = viewer.add_labels(np.zeros((8, 20, 30), int))
    assert viewer.layers.selection.active is labels
    assert widget.form.source is first, "labels are no image"
    index = choice.native.findText("second")
    choice.native.setCurrentIndex(index)
    choice.native.activated.emit(index)  # as a click does
    viewer.layers.selection.active = first
    assert widget.form.source is second, "what the user has chosen stays"
    viewer.layers.remove(second)
    assert widget.form.source is first
    third = viewer.add_image(np.ones((4, 5, 6)), name="third")
    assert widget.form.source is third


@pytest.mark.parametrize("name", [COMPRESS, COMPARE])
def test_a_renamed_layer_keeps_its_place_under_its_new_name(opened, name):
    viewer, widget = opened(name)
    first, second = viewer.layers
    heard = []
    widget.form.fields["mask"].value = first
    widget.form.fields["source"].changed.connect(heard.append)
    first.name, second.name = "a mask", "my cells"
    assert widget.form.source is second
    assert widget.form.mask is first
    assert widget.form.fields["source"].current_choice == "my cells"
    assert widget.form.fields["mask"].current_choice == "a mask"
    assert not heard, "nothing else was chosen meanwhile"


def test_docks_share_a_place_instead_of_the_height_of_the_window(opened, qtbot):
    viewer, widget = opened(COMPRESS)
    window, dock = widget.window(), widget.parent()
    other = viewer.window.add_dock_widget(QLabel("of another plugin"), name="another", area="bottom")
    qtbot.wait(50)
    height = widget.height()
    _, compare = viewer.window.add_plugin_dock_widget(PLUGIN, COMPARE)
    _, table = viewer.window.add_plugin_dock_widget(PLUGIN, TABLE_NAME)
    qtbot.wait(50)
    assert set(window.tabifiedDockWidgets(dock)) == {compare.parent(), table.parent()}
    assert not window.tabifiedDockWidgets(other)
    assert table.isVisible(), "what was opened last is in front"
    assert not table.visibleRegion().isEmpty()
    compare.parent().raise_()
    qtbot.wait(50)
    assert compare.height() > height - 60
    viewer.window.remove_dock_widget(compare)
    compare.deleteLater()
    qtbot.wait(50)
    _, again = viewer.window.add_plugin_dock_widget(PLUGIN, COMPARE)
    qtbot.wait(50)
    assert again.parent() in window.tabifiedDockWidgets(dock)

"""What the forms of the widgets share: labelled fields, and the choice of a layer and a mask of the viewer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from magicgui.widgets import CheckBox
from napari.layers import Image, Labels
from psygnal import Signal
from qtpy.QtWidgets import QComboBox, QFormLayout, QLabel, QSizePolicy, QVBoxLayout, QWidget
from superqt import QCollapsible


class LayerForm(QWidget):
    """All that the user can enter; reads the viewer's layers, changes nothing but itself.

    A form has at least the fields ``source``, ``mask`` and ``size``, the last of which answers.

    Parameters
    ----------
    viewer : napari.Viewer
    """

    labels: ClassVar[Mapping[str, str]]
    tooltips: ClassVar[Mapping[str, str]]
    changed = Signal()

    def __init__(self, viewer: Any) -> None:
        super().__init__()
        self.viewer = viewer
        self.fields: dict[str, Any] = {}
        self._source_chosen = False  # by the user

    def _field(self, name: str, kind: Any, **options: Any) -> Any:
        field = kind(name=name, label=self.labels[name], tooltip=self.tooltips[name], **options)
        if isinstance(field.native, QComboBox):  # long layer names must not widen the dock
            field.native.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
            field.native.setMinimumContentsLength(8)
        self.fields[name] = field
        return field

    def _lay_out(self, rows: QWidget, folded: QCollapsible) -> None:
        """Put the fields above what is folded away, and report their changes."""
        size = self.fields["size"].native  # wraps rather than widening the dock
        size.setWordWrap(True)
        size.setMinimumWidth(1)
        size.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Preferred)
        # A dock that is too low scrolls; it does not squeeze the fields.
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Minimum)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(rows)
        layout.addWidget(folded)
        self.fields["source"].native.activated.connect(self._choose_source)
        for name, field in self.fields.items():
            if name != "size":
                field.changed.connect(self._tell)

    def _tell(self) -> None:
        self.changed.emit()

    def _images(self, _: Any = None) -> list[tuple[str, Any]]:
        return [(layer.name, layer) for layer in self.viewer.layers if isinstance(layer, Image) and is_original(layer)]

    def _masks(self, _: Any = None) -> list[tuple[str, Any]]:
        kinds = (Image, Labels)
        return [(layer.name, layer) for layer in self.viewer.layers if isinstance(layer, kinds) and is_original(layer)]

    def refresh_layers(self) -> None:
        """Offer the layers that the viewer has now; a choice that is still there stays.

        The source is the active layer until the user chooses another one.
        """
        for name in ("source", "mask"):
            self._refresh(name)
        images, active = [layer for _, layer in self._images()], self.viewer.layers.selection.active
        self._source_chosen = self._source_chosen and self.source is not None
        if active in images and self.isEnabled() and not self._source_chosen:
            self.fields["source"].value = active
        elif self.source is None and images:
            self.fields["source"].value = images[-1]

    def _refresh(self, name: str) -> None:
        """Ask again for a field's choices. It knows them by name only: what was chosen and renamed is chosen again."""
        field = self.fields[name]
        kept = field.value
        with field.changed.blocked():
            field.reset_choices()
            if kept in field.choices:
                field.value = kept
        if field.value is not kept:
            field.changed.emit(field.value)

    def _choose_source(self) -> None:
        self._source_chosen = True

    def why_none(self) -> str:
        """Say why there is nothing to choose as source; empty if there is, or no layer at all."""
        layers = list(self.viewer.layers)
        if not layers or self._images():
            return ""
        if any(isinstance(layer, Image) and layer.rgb for layer in layers):
            return "expected intensities, got an RGB layer; split it into channels (its context menu: Split RGB)"
        if any(isinstance(layer, Labels) for layer in layers):
            return "expected intensities, got labels, and compression would change their numbers; open an image"
        return ""

    @property
    def source(self) -> Any:
        """The chosen layer, or None."""
        return self.fields["source"].value

    @property
    def mask(self) -> Any:
        """The chosen mask or importance layer, or None."""
        return self.fields["mask"].value

    def show_size(self, text: str, is_error: bool) -> None:
        """Show what size a file will have, or why there will be none."""
        self.fields["size"].value = text
        self.fields["size"].native.setStyleSheet("color: #e8795a" if is_error else "")


def rows_of(*fields: Any) -> QWidget:
    """Lay fields out below one another, their labels in a column; a check box has its label beside it."""
    widget = QWidget()
    rows = QFormLayout(widget)
    rows.setContentsMargins(0, 0, 0, 0)
    rows.setVerticalSpacing(4)
    rows.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
    for field in fields:
        if isinstance(field, CheckBox):
            rows.addRow(field.native)
        else:
            label = QLabel(field.label)
            label.setToolTip(field.tooltip)
            rows.addRow(label, field.native)
    return widget


def is_original(layer: Any) -> bool:
    """Tell the user's own layers from results, overlays and previews of this plugin."""
    return not any(str(key).startswith("tinc") for key in layer.metadata) and not getattr(layer, "rgb", False)

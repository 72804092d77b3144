"""The form of the compress widget: fields, their tooltips, and the folded advanced settings."""

from __future__ import annotations

from typing import Any

from magicgui.widgets import CheckBox, ComboBox, FloatSpinBox, Label, LineEdit, SpinBox
from napari.layers import Image, Labels
from psygnal import Signal
from qtpy.QtWidgets import QComboBox, QFormLayout, QLabel, QSizePolicy, QVBoxLayout, QWidget
from superqt import QCollapsible

from napari_tinc.plugin.compress_model import BETWEEN, DEVICES, MODELS, PRESETS, TARGETS, WITHIN, Form

TOOLTIPS = {
    "source": "The image to compress. Multiscale layers are compressed at full resolution; RGB layers are not offered.",
    "target_kind": "What to aim at: how many times smaller, a file size, bits for every voxel, or a quality (PSNR).",
    "target_value": "The number to aim at. The file never exceeds a size; a PSNR takes several rounds of training.",
    "size": "Size of the volume and of the file it will become.",
    "preset": "How long to train: balanced takes 4 times as long as fast, best 20 times. The file gets better, not "
    "larger. With the model auto, fast trains no network: it takes seconds.",
    "model": "What the file consists of. detail: wavelet coefficients, in seconds. hybrid: an octree of networks, and "
    "coefficients of what it leaves over. tinc: networks alone. auto: the best of these.",
    "between": "How the network's bytes are spread over the octree's levels. auto measures how alike the octants are; "
    "shallow favours what they share, deep favours each on its own.",
    "within": "How a level's bytes are spread over its octants: all the same, more where signal rises above the noise "
    "(importance), more where intensities vary, or more where the importance layer says so (map).",
    "mask": "Labels, or an image: voxels that are not 0 count more. Choose 'map' above to give them more bytes, too.",
    "device": "Where to train. auto takes CUDA, then MPS, then the CPU.",
    "mask_weight": "How many times as much as the others the marked voxels count.",
    "axes": "One letter per axis, from t c z y x in the layer's order. Channels and time points share one file.",
    "levels": "Levels of the octree, root included. automatic: as many as the budget feeds.",
    "seed": "Same seed, same device, same threads: the same file, byte for byte.",
    "time_limit": "Training ends after this time; its schedule is shortened to fit.",
    "live": "While it trains, show the plane you look at as the network knows it so far. Costs at most a tenth of "
    "the time.",
    "keep": "What Stop does: end training at once and keep what was learnt, or drop it. Stop pressed twice drops it.",
}
_LABELS = {
    "source": "Source",
    "target_kind": "Target",
    "target_value": "Value",
    "size": "Size",
    "preset": "Preset",
    "model": "Model",
    "between": "Between levels",
    "within": "Within levels",
    "mask": "Importance",
    "device": "Device",
    "mask_weight": "Mark counts",
    "axes": "Axes",
    "levels": "Levels",
    "seed": "Seed",
    "time_limit": "Time limit",
    "live": "Live preview",
    "keep": "Stop keeps what was learnt",
}
_TARGET_LABELS = {
    "ratio": "times smaller",
    "bytes": "file size",
    "bits_per_voxel": "bits per voxel",
    "psnr": "quality (PSNR)",
}
_TARGET_SUFFIX = {"ratio": "", "bytes": " kB", "bits_per_voxel": " bits", "psnr": " dB"}
_MAX_LEVELS = 7


class CompressForm(QWidget):
    """All that the user can enter; reads the viewer's layers, changes nothing but itself.

    Parameters
    ----------
    viewer : napari.Viewer
    """

    changed = Signal()

    def __init__(self, viewer: Any) -> None:
        super().__init__()
        self.viewer = viewer
        self.fields: dict[str, Any] = {}
        basic = rows_of(
            self._field("source", ComboBox, choices=self._images, nullable=True),
            self._field("target_kind", ComboBox, choices=[(text, kind) for kind, text in _TARGET_LABELS.items()]),
            self._field("target_value", FloatSpinBox, min=0.001, max=1e9, value=TARGETS["ratio"], step=1),
            self._field("size", Label, value=""),
            self._field("preset", ComboBox, choices=PRESETS, value="balanced"),
            self._field("model", ComboBox, choices=MODELS),
            self._field("between", ComboBox, choices=BETWEEN),
            self._field("within", ComboBox, choices=WITHIN),
            self._field("mask", ComboBox, choices=self._masks, nullable=True),
            self._field("device", ComboBox, choices=DEVICES),
        )
        levels = [("automatic", None), *((str(n), n) for n in range(1, _MAX_LEVELS + 1))]
        advanced = rows_of(
            self._field("mask_weight", FloatSpinBox, min=1, max=1000, value=10, step=1),
            self._field("axes", LineEdit),
            self._field("levels", ComboBox, choices=levels),
            self._field("seed", SpinBox, min=0, max=2**31 - 1),
            self._field("time_limit", FloatSpinBox, min=0, max=1e6, value=0, step=10),
            self._field("live", CheckBox, value=True),
            self._field("keep", CheckBox, value=True),
        )
        self.fields["time_limit"].native.setSpecialValueText("none")
        self.fields["time_limit"].native.setSuffix(" s")
        self.fields["mask_weight"].native.setSuffix(" times")
        size = self.fields["size"].native  # wraps rather than widening the dock
        size.setWordWrap(True)
        size.setMinimumWidth(1)
        size.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Preferred)
        self.folded = QCollapsible("Advanced")
        self.folded.addWidget(advanced)
        # A dock that is too low scrolls; it does not squeeze the fields.
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Minimum)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(basic)
        layout.addWidget(self.folded)
        self._suit_target(self.fields["target_kind"].value)
        self.fields["target_kind"].changed.connect(self._suit_target)
        for name, field in self.fields.items():
            if name != "size":  # it answers
                field.changed.connect(self._tell)

    def _field(self, name: str, kind: Any, **options: Any) -> Any:
        field = kind(name=name, label=_LABELS[name], tooltip=TOOLTIPS[name], **options)
        if isinstance(field.native, QComboBox):  # long layer names must not widen the dock
            field.native.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
            field.native.setMinimumContentsLength(8)
        self.fields[name] = field
        return field

    def _tell(self) -> None:
        self.changed.emit()

    def _suit_target(self, kind: str) -> None:
        """Give the number field the unit of the target, and the number it had there last time."""
        field = self.fields["target_value"]
        field.native.setSuffix(_TARGET_SUFFIX[kind])
        field.native.setDecimals(3 if kind == "bits_per_voxel" else 1)
        field.step = 0.05 if kind == "bits_per_voxel" else 1
        field.value = TARGETS[kind]

    def _images(self, _: Any = None) -> list[tuple[str, Any]]:
        return [(layer.name, layer) for layer in self.viewer.layers if isinstance(layer, Image) and is_original(layer)]

    def _masks(self, _: Any = None) -> list[tuple[str, Any]]:
        kinds = (Image, Labels)
        return [(layer.name, layer) for layer in self.viewer.layers if isinstance(layer, kinds) and is_original(layer)]

    def refresh_layers(self) -> None:
        """Offer the layers that the viewer has now; a choice that is still there stays."""
        for name in ("source", "mask"):
            self.fields[name].reset_choices()
        if self.source is None and (choices := self._images()):
            self.fields["source"].value = choices[-1][1]

    @property
    def source(self) -> Any:
        """The chosen layer, or None."""
        return self.fields["source"].value

    @property
    def mask(self) -> Any:
        """The chosen importance layer, or None."""
        return self.fields["mask"].value

    def show_size(self, text: str, is_error: bool) -> None:
        """Show what size the file will have, or why there will be none."""
        self.fields["size"].value = text
        self.fields["size"].native.setStyleSheet("color: #e8795a" if is_error else "")

    def read(self) -> Form:
        """Return what the user has entered."""
        values = {name: field.value for name, field in self.fields.items()}
        return Form(
            target_kind=values["target_kind"], target_value=values["target_value"], preset=values["preset"],
            model=values["model"], between=values["between"], within=values["within"], device=values["device"],
            mask_weight=values["mask_weight"], axes=values["axes"].strip().lower(), levels=values["levels"],
            seed=values["seed"], time_limit=values["time_limit"] or None,
        )  # fmt: skip

    def write(self, **values: Any) -> None:
        """Fill in fields by name."""
        for name, value in values.items():
            self.fields[name].value = value


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

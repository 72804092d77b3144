"""The form of the compress widget: fields, their tooltips, and the folded advanced settings."""

from __future__ import annotations

from typing import Any

from magicgui.widgets import CheckBox, ComboBox, FloatSpinBox, Label, LineEdit, SpinBox
from superqt import QCollapsible

from napari_tinc.plugin.compress_model import BETWEEN, DEVICES, MODELS, PRESETS, TARGETS, WITHIN, Form
from napari_tinc.plugin.layer_form import LayerForm, rows_of

TOOLTIPS = {
    "source": "The image to compress. Multiscale layers are compressed at full resolution; RGB layers are not offered.",
    "target_kind": "What to aim at: how many times smaller, a file size, bits for every voxel, or a quality (PSNR).",
    "target_value": "The number to aim at. The file never exceeds a size; a PSNR takes several rounds of training.",
    "size": "Size of the volume and of the file it will become.",
    "preset": "fast takes seconds and suits most images. balanced and best take minutes where a short trial says that "
    "networks may make the file better (not larger), and end with the file of fast where not.",
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


class CompressForm(LayerForm):
    """The form of the compress widget."""

    labels = _LABELS
    tooltips = TOOLTIPS

    def __init__(self, viewer: Any) -> None:
        super().__init__(viewer)
        basic = rows_of(
            self._field("source", ComboBox, choices=self._images, nullable=True),
            self._field("target_kind", ComboBox, choices=[(text, kind) for kind, text in _TARGET_LABELS.items()]),
            self._field("target_value", FloatSpinBox, min=0.001, max=1e9, value=TARGETS["ratio"], step=1),
            self._field("size", Label, value=""),
            self._field("preset", ComboBox, choices=PRESETS, value="fast"),
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
        self.folded = QCollapsible("Advanced")
        self.folded.addWidget(advanced)
        self._suit_target(self.fields["target_kind"].value)
        self.fields["target_kind"].changed.connect(self._suit_target)
        self._lay_out(basic, self.folded)

    def _suit_target(self, kind: str) -> None:
        """Give the number field the unit of the target, and the number it had there last time."""
        field = self.fields["target_value"]
        field.native.setSuffix(_TARGET_SUFFIX[kind])
        field.native.setDecimals(3 if kind == "bits_per_voxel" else 1)
        field.step = 0.05 if kind == "bits_per_voxel" else 1
        field.value = TARGETS[kind]

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

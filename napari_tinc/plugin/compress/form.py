"""The form of the compress widget: fields, their tooltips, and the folded advanced settings."""

from __future__ import annotations

from typing import Any

from magicgui.widgets import CheckBox, ComboBox, FloatSpinBox, Label, SpinBox
from napari.layers import Shapes
from superqt import QCollapsible

from napari_tinc.choices import BETWEEN, DEVICES, FAMILIES, MODELS, PRESETS, WITHIN
from napari_tinc.plugin.compress.model import (
    TARGETS,
    Form,
    axes_of,
    full_resolution,
)
from napari_tinc.plugin.layers.place import region_of
from napari_tinc.plugin.window.axes import axes_text, possible_axes
from napari_tinc.plugin.window.layer_form import LayerForm, rows_of

TOOLTIPS = {
    "source": "The image to compress. Multiscale layers are compressed at full resolution; RGB layers are not offered.",
    "target_kind": "What to aim at: how many times smaller, a file size, bits for every voxel, a quality (PSNR "
    "or SSIM), or the largest error of any voxel.",
    "target_value": "The number to aim at. The file never exceeds a size; a PSNR takes several rounds of training. "
    "A largest error is in intensity units; 0 loses nothing.",
    "size": "Size of the volume and of the file it will become.",
    "output": "One file, or an OME-Zarr of many small files, for volumes larger than memory: made chunk by chunk, in "
    "the background. If it was not finished, compress into the same name again to go on.",
    "preset": "fast takes seconds and suits most images. balanced and best also try directions and a post-filter, "
    "for about a minute. If a short trial finds that networks may improve the quality, they train for minutes.",
    "model": "What the file consists of. wavelet: wavelet coefficients, in seconds. "
    + "".join(f"{family.name}: {family.summary}. " for family in FAMILIES.values())
    + "With +wavelet: also wavelet coefficients of what it leaves over. auto: the best of wavelets and tinc.",
    "between": "How the network's bytes are spread over the octree's levels. auto measures how alike the octants are; "
    "shallow favours what they share, deep what each has alone.",
    "within": "How a level's bytes are spread over its octants: all the same, more where signal rises above the noise "
    "(importance), more where intensities vary, or more where the importance layer is not 0 (map).",
    "mask": "Labels, or an image: voxels that are not 0 count more. Choose 'map' above to also give them more bytes.",
    "device": "Where to train. auto takes CUDA, then MPS, then the CPU.",
    "mask_weight": "How much more the marked voxels count than the others; 10 means ten times.",
    "axes": "What each axis of the layer is: t time, c channel, z y x space. Taken from the layer's axis labels, "
    "or from its shape where that is clear. Your choice is written to the layer's axis labels.",
    "region": "Compress only the part inside the selected rectangle of a Shapes layer (else its last rectangle). "
    "Other axes are taken whole.",
    "levels": "Levels of the octree, root included. automatic: as many as the file size allows.",
    "seed": "The same seed, device and number of threads give the same file, byte for byte.",
    "time_limit": "Training ends after this time; its schedule is shortened to fit.",
    "live": "During training, show the current plane as the network has learnt it so far. Takes at most a tenth of "
    "the time.",
    "keep": "Stop ends training at once. Ticked: what was learnt becomes the result. Press Stop twice to drop it.",
}
_LABELS = {
    "source": "Source",
    "target_kind": "Target",
    "target_value": "Value",
    "size": "Size",
    "output": "Output",
    "preset": "Preset",
    "model": "Model",
    "between": "Between levels",
    "within": "Within levels",
    "mask": "Importance",
    "device": "Device",
    "mask_weight": "Mark counts",
    "axes": "Axes",
    "region": "Region",
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
    "ssim": "similarity (SSIM)",
    "max_error": "largest error",
}
_TARGET_SUFFIX = {"ratio": "", "bytes": " kB", "bits_per_voxel": " bits", "psnr": " dB", "ssim": "", "max_error": ""}
OUTPUTS = {"file": "one file (.tinc)", "zarr": "OME-Zarr, for large volumes"}
_MAX_LEVELS = 7


class CompressForm(LayerForm):
    """The form of the compress widget."""

    labels = _LABELS
    tooltips = TOOLTIPS

    def __init__(self, viewer: Any) -> None:
        super().__init__(viewer)
        self._suiting = False
        basic = rows_of(
            self._field("source", ComboBox, choices=self._images, nullable=True),
            self._field("axes", ComboBox, choices=self._axes_choices),
            self._field("region", ComboBox, choices=self._shapes, nullable=True),
            self._field("target_kind", ComboBox, choices=[(text, kind) for kind, text in _TARGET_LABELS.items()]),
            self._field("target_value", FloatSpinBox, min=0, max=1e9, value=TARGETS["ratio"], step=1),
            self._field("size", Label, value=""),
            self._field("output", ComboBox, choices=[(text, kind) for kind, text in OUTPUTS.items()]),
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
        self.fields["source"].changed.connect(self._suit_source)
        self.fields["axes"].changed.connect(self._label_axes)
        self._lay_out(basic, self.folded)

    def _axes_choices(self, _: Any = None) -> list[tuple[str, str]]:
        layer = self.source
        if layer is None or layer.rgb:
            return [("", "")]
        shape = full_resolution(layer).shape
        known = axes_of(layer)
        choices = list(dict.fromkeys([*[known] * bool(known), *possible_axes(shape)]))
        asked = [("which axes are these? choose", "")] * (not known)
        return asked + [(axes_text(axes, shape), axes) for axes in choices]

    def _shapes(self, _: Any = None) -> list[tuple[str, Any]]:
        return [(layer.name, layer) for layer in self.viewer.layers if isinstance(layer, Shapes)]

    def refresh_layers(self) -> None:
        """Offer the layers that the viewer has now; a choice that is still there stays."""
        super().refresh_layers()
        self._refresh("region")

    def _suit_source(self) -> None:
        """Offer the axes that the source may have, and take those that are known."""
        self._suiting = True
        try:
            self.fields["axes"].reset_choices()
            self.fields["axes"].value = self.fields["axes"].choices[0]
        finally:
            self._suiting = False

    def _label_axes(self, axes: str) -> None:
        """Write what the user has chosen to the layer, where everything else finds it."""
        if axes and not self._suiting and self.source is not None:
            self.source.axis_labels = tuple(axes)

    def region(self) -> tuple[slice, ...] | None:
        """Return the voxels of the source that are to be compressed, or None for all.

        Raises
        ------
        InputError
            If the chosen Shapes layer holds no rectangle, or one beside the source.
        """
        shapes = self.fields["region"].value
        return None if shapes is None or self.source is None else region_of(self.source, shapes)

    def _suit_target(self, kind: str) -> None:
        """Give the number field the unit of the target, and the number it had there last time."""
        field = self.fields["target_value"]
        field.native.setSuffix(_TARGET_SUFFIX[kind])
        field.native.setDecimals(3 if kind in ("bits_per_voxel", "ssim", "max_error") else 1)
        field.step = {"bits_per_voxel": 0.05, "ssim": 0.01}.get(kind, 1)
        field.value = TARGETS[kind]

    def read(self) -> Form:
        """Return what the user has entered."""
        values = {name: field.value for name, field in self.fields.items()}
        return Form(
            target_kind=values["target_kind"], target_value=values["target_value"], preset=values["preset"],
            model=values["model"], between=values["between"], within=values["within"], device=values["device"],
            mask_weight=values["mask_weight"], axes=values["axes"] or "", levels=values["levels"],
            seed=values["seed"], time_limit=values["time_limit"] or None,
        )  # fmt: skip

    def write(self, **values: Any) -> None:
        """Fill in fields by name."""
        for name, value in values.items():
            self.fields[name].value = value

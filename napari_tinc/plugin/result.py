"""What the last compression left in the viewer, and what can be done with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari.utils.notifications import show_info
from qtpy.QtWidgets import QWidget

from napari_tinc.errors import InputError
from napari_tinc.plugin.dialogs import ask_path
from napari_tinc.plugin.preferences import PLUGIN

if TYPE_CHECKING:
    from napari_tinc.volume import CompressedVolume


COMPARE_WIDGET = "Compare codecs (TINC)"  # as the manifest calls it


@dataclass(frozen=True, eq=False)
class Result:
    """A compressed volume and its layers.

    Parameters
    ----------
    viewer : napari.Viewer
    volume : CompressedVolume
    layers : list of Image
        One per channel; the user may have deleted some.
    source : Image or None
        The layer that was compressed, if it was still there at the end.
    """

    viewer: Any
    volume: CompressedVolume
    layers: list[Any]
    source: Any

    @classmethod
    def add(cls, viewer: Any, volume: CompressedVolume, source: Any) -> Result:
        """Add the layers of a volume to a viewer, in the place of its source."""
        from napari_tinc.plugin.layers import add_result

        present = source if source in viewer.layers else None
        return cls(viewer, volume, add_result(viewer, volume, present), present)

    def press(self, key: str, parent: QWidget) -> None:
        """Do what a button of the result card says; see :data:`napari_tinc.plugin.result_card.BUTTONS`.

        Raises
        ------
        TincError
            If the file cannot be written, or a layer that is needed was deleted.
        """
        actions = {
            "save": self._save,
            "quality": self._quality,
            "difference": self._difference,
            "compare": self._compare,
            "table": self._table,
            "codecs": self._codecs,
        }
        actions[key](parent)

    def _save(self, parent: QWidget) -> None:
        name = self.volume.metadata.name or "volume"
        target = ask_path(parent, "Save compressed volume", name, ".tinc", "TINC")
        if target is None:
            return
        self.volume.save(target, overwrite=True)
        show_info(f"Saved {target}")

    def _layer(self) -> Any:
        """Return the channel that is active, or the first that is left."""
        left = [layer for layer in self.layers if layer in self.viewer.layers]
        if not left:
            raise InputError("expected the result layer in the viewer, got none; it was deleted: save and reopen it")
        active = self.viewer.layers.selection.active
        return active if active in left else left[0]

    def _quality(self, _: QWidget) -> None:
        from napari_tinc.plugin.overlays import add_quality

        add_quality(self.viewer, self._layer())

    def _difference(self, _: QWidget) -> None:
        from napari_tinc.plugin.difference import add_difference

        add_difference(self.viewer, self._original(), self._layer())

    def _compare(self, _: QWidget) -> None:
        from napari_tinc.plugin.compare import toggle_comparison

        toggle_comparison(self.viewer, self._original(), self._layer())

    def _codecs(self, _: QWidget) -> None:
        original = self._original()
        _, widget = self.viewer.window.add_plugin_dock_widget(PLUGIN, COMPARE_WIDGET)
        widget.form.fields["source"].value = original
        widget.form.fields["ratios"].value = f"{self.volume.ratio:.0f}"

    def _original(self) -> Any:
        if self.source not in self.viewer.layers:
            raise InputError("expected the source layer in the viewer, got none; it was deleted: open it again")
        return self.source

    def _table(self, _: QWidget) -> None:
        from napari_tinc.plugin.octant_table import OctantTable

        self.viewer.window.add_dock_widget(OctantTable(self.viewer, self._layer()), name="Octants", area="bottom")

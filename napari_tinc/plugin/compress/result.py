"""What the last compression left in the viewer, and what can be done with it."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.utils.notifications import show_error, show_info
from napari.utils.progress import progress
from qtpy.QtCore import QObject
from qtpy.QtWidgets import QWidget

from napari_tinc.errors import InputError
from napari_tinc.plugin.compress import worker
from napari_tinc.plugin.window.dialogs import ask_path
from napari_tinc.plugin.window.preferences import PLUGIN

if TYPE_CHECKING:
    from napari_tinc.volume import CompressedVolume


COMPARE_WIDGET = "Compare codecs"  # as the manifest calls it


@dataclass(frozen=True, eq=False)
class Result:
    """A compressed volume and its layer.

    Parameters
    ----------
    viewer : napari.Viewer
    volume : CompressedVolume
    layer : Image
        The user may have deleted it.
    source : Image or None
        The layer that was compressed, if it was still there at the end.
    """

    viewer: Any
    volume: CompressedVolume
    layer: Any
    source: Any

    @classmethod
    def add(cls, viewer: Any, volume: CompressedVolume, source: Any, region: Any = None) -> Result:
        """Add the layer of a volume to a viewer, in the place of its source, or of the region of it that was taken."""
        from napari_tinc.plugin.layers.results import add_result

        present = source if source in viewer.layers else None
        return cls(viewer, volume, add_result(viewer, volume, present, region), present)

    @property
    def shown(self) -> bool:
        """Whether the layer is still in the viewer."""
        return self.layer in self.viewer.layers

    @property
    def comparable(self) -> bool:
        """Whether the original is, too."""
        return self.shown and self.source is not None and self.source in self.viewer.layers

    def press(self, key: str, parent: QWidget) -> None:
        """Do what a button of the result card says; see :data:`napari_tinc.plugin.compress.result_card.BUTTONS`.

        Raises
        ------
        TincError
            If the file cannot be written, or a layer that is needed was deleted.
        """
        actions = {
            "save": self._save,
            "difference": self._difference,
            "compare": self._compare,
            "table": self._table,
            "codecs": self._codecs,
            "zarr": self._export,
            "share": self._share,
        }
        actions[key](parent)

    def show_measure(self, measure: str) -> None:
        """Lay a measure of the octants over the result, or nothing if it is empty."""
        from napari_tinc.plugin.layers.overlays import hide_quality, show_quality

        if measure:
            show_quality(self.viewer, self._layer(), measure)
        elif self.shown:
            hide_quality(self.viewer, self.layer)

    def _save(self, parent: QWidget) -> None:
        target = ask_path(parent, "Save compressed volume", self._name, ".tinc", "TINC")
        if target is None:
            return
        self.volume.save(target, overwrite=True)
        show_info(f"Saved {target}")

    def _export(self, parent: QWidget) -> None:
        target = ask_path(parent, "Export decoded volume", self._name, ".zarr", "OME-Zarr")
        if target is not None:
            Export(parent, target, _export_steps(self.volume, target))

    def _share(self, parent: QWidget) -> None:
        target = ask_path(parent, "Share as web page", self._name, ".html", "web page")
        if target is not None:
            Export(parent, target, _share_steps(self.volume, self._name, target))

    @property
    def _name(self) -> str:
        return self.volume.metadata.name or "volume"

    def _layer(self) -> Any:
        if not self.shown:
            raise InputError("expected the result layer in the viewer, got none; it was deleted: save and reopen it")
        return self.layer

    def _difference(self, _: QWidget) -> None:
        from napari_tinc.plugin.layers.difference import toggle_difference

        toggle_difference(self.viewer, self._original(), self._layer())

    def _compare(self, _: QWidget) -> None:
        from napari_tinc.plugin.layers.side_by_side import toggle_comparison

        toggle_comparison(self.viewer, self._original(), self._layer())

    def _codecs(self, _: QWidget) -> None:
        original = self._original()
        _, widget = self.viewer.window.add_plugin_dock_widget(PLUGIN, COMPARE_WIDGET, tabify=True)
        widget.form.fields["source"].value = original
        widget.form.fields["ratios"].value = f"{self.volume.ratio:.0f}"

    def _original(self) -> Any:
        if not self.comparable:
            raise InputError("expected the source layer in the viewer, got none; it was deleted: open it again")
        return self.source

    def _table(self, _: QWidget) -> None:
        from napari_tinc.plugin.layers.octant_table import toggle_table

        toggle_table(self.viewer, self._layer())


class Export(QObject):
    """Write a volume in another form in a thread, with a bar in napari's activity dock.

    Parameters
    ----------
    parent : QWidget
        Keeps the export.
    target : Path
        What is written.
    steps : generator
        Writes it.
    """

    def __init__(self, parent: QWidget, target: Path, steps: Generator[None, None, None]) -> None:
        super().__init__(parent)
        self._target = target
        self._bar = progress(total=0, desc=f"Export {target.name}")
        worker.follow(worker.guarded, (steps,), self._on_step, self._on_end, self._on_finished)

    def _on_step(self, _: Any) -> None:
        self._bar.refresh()

    def _on_end(self, outcome: Any) -> None:
        if isinstance(outcome, worker.Failed):
            show_error(f"Exporting failed: {outcome.message}")
        else:
            show_info(f"Exported {self._target}")

    def _on_finished(self) -> None:
        self._bar.close()
        self.deleteLater()


def _export_steps(volume: CompressedVolume, target: Path) -> Generator[None, None, None]:
    from napari_tinc.files import write_volume

    yield None
    decoded = volume.decode()
    yield None
    write_volume(target, decoded, volume.metadata)


def _share_steps(volume: CompressedVolume, name: str, target: Path) -> Generator[None, None, None]:
    from napari_tinc.share import Shareable, write_page

    yield None
    file = Shareable.of(f"{name}.tinc", volume.to_bytes())
    if not file.decoded:
        raise InputError(
            "expected a result of wavelets or without loss, got one with a network, which web pages cannot decode; "
            "compress again with model wavelet"
        )
    write_page(target, [file], overwrite=True)

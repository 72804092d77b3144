"""What a result has lost, in a dock: its worst octants as pictures, and how much of the structure is kept."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from napari.utils.notifications import show_error
from qtpy.QtWidgets import QVBoxLayout

from napari_tinc.errors import InputError
from napari_tinc.lazy import Compressed
from napari_tinc.plugin.compress import worker
from napari_tinc.plugin.compress.losses import Kept, Loss, kept_structure, worst_octants
from napari_tinc.plugin.compress.result_card import LossPictures
from napari_tinc.plugin.layers.octants import OctantModel, go_to_octant
from napari_tinc.plugin.layers.results import original_array, result_volume
from napari_tinc.plugin.window.docked import TabbedWidget, to_front
from napari_tinc.plugin.window.plain import plain_label

DOCK_NAME = "What was lost"
_MEASURING = "Comparing with the original…"
_NO_STRUCTURE = "There is hardly any structure to compare in the middle."


class LostDock(TabbedWidget):
    """What the result that it was last asked about has lost; measured in a thread.

    Parameters
    ----------
    viewer : napari.Viewer
    """

    def __init__(self, viewer: Any) -> None:
        super().__init__()
        self.viewer = viewer
        self._result: Any = None
        self._asked = 0
        self.title, self.kept = plain_label("", wrapped=True), plain_label("", wrapped=True)
        self.worst = LossPictures()
        self.worst.visited.connect(self._visit)
        layout = QVBoxLayout(self)
        for widget in (self.title, self.kept, self.worst):
            layout.addWidget(widget)
        layout.addStretch()
        viewer.layers.events.removed.connect(self._forget)

    def measure(self, data: Any, result_layer: Any) -> None:
        """Compare a result with its original, of the same shape and axes; what was shown before is replaced."""
        self._asked += 1
        self._result = result_layer
        self.title.setText(result_layer.name)
        self.kept.setText(_MEASURING)
        self.worst.show_losses(())
        steps = _steps(self._asked, data, result_volume(result_layer))
        worker.follow(worker.guarded, (steps,), self._on_step, self._on_end, self._on_finished)

    def _on_step(self, _: Any) -> None:
        """Nothing is to be shown before the end."""

    def _on_finished(self) -> None:
        """Nothing is to be cleaned up."""

    def _on_end(self, outcome: Any) -> None:
        if isinstance(outcome, worker.Failed):
            self.kept.setText("")
            show_error(outcome.message)
            return
        asked, losses, kept = outcome
        if asked == self._asked and self._result is not None:
            self.kept.setText(_NO_STRUCTURE if kept is None else kept.sentence())
            self.worst.show_losses(losses)

    def _forget(self) -> None:
        if self._result is not None and self._result not in self.viewer.layers:
            self._result = None
            self.title.setText("")
            self.kept.setText("")
            self.worst.show_losses(())

    def _visit(self, loss: Loss) -> None:
        if self._result is not None:
            go_to_octant(self.viewer, OctantModel(self._result), loss.octant, loss.voxel)


def _steps(
    asked: int, data: Any, volume: Compressed
) -> Generator[None, None, tuple[int, tuple[Loss, ...], Kept | None]]:
    losses = tuple(worst_octants(data, volume))
    yield None
    return asked, losses, kept_structure(data, volume)


def show_lost(viewer: Any, source_layer: Any, result_layer: Any) -> None:
    """Show what a result has lost of a source layer.

    Parameters
    ----------
    viewer : napari.Viewer
    source_layer : Image
        The original.
    result_layer : Image

    Raises
    ------
    InputError
        If they are of different shapes.
    """
    show_lost_of(viewer, original_array(source_layer, result_layer), result_layer)


def show_lost_of(viewer: Any, data: Any, result_layer: Any) -> None:
    """Show what a result has lost of an array; errors as in :func:`show_lost`."""
    shape = tuple(result_volume(result_layer).shape)
    if tuple(data.shape) != shape:
        raise InputError(f"expected an original of shape {shape}, got {tuple(data.shape)}: select the right layer")
    docks = viewer.window.dock_widgets.values()
    dock = next((dock for dock in docks if isinstance(dock, LostDock)), None)
    if dock is None:
        dock = LostDock(viewer)
        viewer.window.add_dock_widget(dock, name=DOCK_NAME, area="right", tabify=True)
    dock.measure(data, result_layer)
    to_front(dock)


__all__ = ["DOCK_NAME", "LostDock", "show_lost", "show_lost_of"]

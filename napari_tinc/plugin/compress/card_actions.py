"""What the buttons of a result card do to the result that it shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari.utils.notifications import show_error
from qtpy.QtWidgets import QWidget

from napari_tinc.errors import TincError
from napari_tinc.plugin.compress.losses import Loss
from napari_tinc.plugin.compress.result import Result
from napari_tinc.plugin.compress.result_card import ResultCard
from napari_tinc.plugin.layers.octants import OctantModel, go_to_octant
from napari_tinc.plugin.layers.overlays import shown_measure

if TYPE_CHECKING:
    from napari_tinc.volume import CompressedVolume


class CardActions:
    """The last result of a widget, and its card.

    Parameters
    ----------
    viewer : napari.Viewer
    card : ResultCard
    parent : QWidget
        Of dialogs.
    """

    def __init__(self, viewer: Any, card: ResultCard, parent: QWidget) -> None:
        self._viewer, self._card, self._parent = viewer, card, parent
        self.result: Result | None = None
        card.pressed.connect(self.press)
        card.measured.connect(self._choose_overlay)
        card.visited.connect(self._visit)

    def add(self, volume: CompressedVolume, source: Any, region: tuple[slice, ...] | None) -> None:
        """Show another result in the viewer."""
        self.result = Result.add(self._viewer, volume, source, region)
        self.refresh()

    def refresh(self) -> None:
        """Offer what can be done with the layers that are left, and say which overlay is shown."""
        if self.result is not None:
            self._card.enable(self.result.shown, self.result.comparable)
            self._card.show_measure(shown_measure(self._viewer, self.result.layer))

    def press(self, key: str) -> None:
        """Do what a button says; what goes wrong is a notification."""
        try:
            if self.result is not None:
                self.result.press(key, self._parent)
        except TincError as error:
            show_error(str(error))

    def _choose_overlay(self, measure: str) -> None:
        if self.result is not None:
            self.result.show_measure(measure)

    def _visit(self, loss: Loss) -> None:
        """Go to an octant, and to the plane of it where the error is largest."""
        if self.result is not None:
            go_to_octant(self._viewer, OctantModel(self.result.layer), loss.octant, loss.voxel)


__all__ = ["CardActions"]

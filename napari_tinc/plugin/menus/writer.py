"""Save layers as ``.tinc`` files."""

from __future__ import annotations

from typing import Any

from napari import current_viewer
from napari.layers import Image
from napari.utils.notifications import show_info, show_warning
from qtpy.QtCore import QEventLoop, QObject, Qt
from qtpy.QtWidgets import QProgressDialog

from napari_tinc.errors import InputError
from napari_tinc.plugin.compress import worker
from napari_tinc.plugin.compress.model import full_resolution, source_of
from napari_tinc.plugin.compress.report import size_text
from napari_tinc.plugin.layers.place import place_of
from napari_tinc.plugin.layers.results import display_of, is_result, result_volume
from napari_tinc.plugin.window.dialogs import ask_whether
from napari_tinc.plugin.window.preferences import read
from napari_tinc.settings import Settings
from napari_tinc.system.text import decibels_text

_WHERE = "Choose another size in the compress widget, or under Preferences"
_SCALE = 100


def write_image(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """Save an image layer: a result as the bytes it has, any other image compressed with the last settings.

    Parameters
    ----------
    path : str
        An existing file is replaced: napari has asked.
    data, attributes
        Data and keyword arguments of the layer.

    Returns
    -------
    list of str
        The file; empty if the user has cancelled.

    Raises
    ------
    TincError
        If the image cannot be compressed, or the file cannot be written.
    """
    layer = Image(data, **attributes)
    volume = result_volume(layer) if is_result(layer) else Compression(layer).run()
    if volume is None:
        return []
    volume.save(path, overwrite=True)
    if not is_result(layer):
        show_info(
            f"{layer.name} was compressed to {size_text(volume.nbytes)}, {volume.ratio:.1f} times smaller, "
            f"{decibels_text(float(volume.provenance['psnr']), 1)}. {_WHERE}."
        )
    return [path]


class Compression(QObject):
    """Compress a layer as it was done last, in a thread, while a dialog shows how far it is and lets one cancel.

    napari waits for a writer, so that the window is locked meanwhile; it is drawn, though.

    Parameters
    ----------
    layer : Image
    """

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self._layer, self._outcome = layer, None
        self._control = worker.Control()
        self._loop = QEventLoop()
        viewer = current_viewer()
        window = None if viewer is None else viewer.window._qt_window
        self._dialog = QProgressDialog(f"Compressing {layer.name}…", "Cancel", 0, _SCALE, window)
        self._dialog.setWindowModality(Qt.WindowModality.ApplicationModal)
        self._dialog.setMinimumDuration(300)
        self._dialog.canceled.connect(self._control.discard)

    def run(self, labels_too: bool = False) -> Any:
        """Return the volume; None if the user has cancelled.

        Raises
        ------
        InputError
            If it failed; the text says why.
        """
        preferences, source = read(), source_of(self._layer)
        settings = Settings(preferences.preset, device=preferences.device)
        display = display_of(place_of(self._layer), self._layer)
        job = worker.Job(
            full_resolution(self._layer),
            preferences.target,
            source.metadata.displayed(display),
            settings,
            labels_too=labels_too,
        )
        worker.start(job, self._control, self._on_event, self._on_outcome, self._loop.quit)
        self._loop.exec()
        self._dialog.reset()
        match self._outcome:
            case worker.Finished(volume, _):
                return volume
            case worker.Failed(message):
                raise InputError(message)
            case worker.LooksLikeLabels():
                text = f"{self._layer.name} looks like a label image: compression would mix up its object numbers."
                return self.run(labels_too=True) if ask_whether(None, "Label image?", text, "Compress anyway") else None
        show_warning(f"{self._layer.name} was not saved: its compression was cancelled")
        return None

    def _on_event(self, event: Any) -> None:
        if hasattr(event, "step"):
            self._dialog.setValue(min(_SCALE - 1, int(_SCALE * event.step / event.steps)))

    def _on_outcome(self, outcome: Any) -> None:
        self._outcome = outcome


__all__ = ["write_image"]

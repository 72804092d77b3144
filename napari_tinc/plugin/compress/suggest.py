"""Which ratio? A few are tried where one looks: pictures, figures, and up to which one the loss looks like noise."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from psygnal import Signal
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QGridLayout, QLabel, QPushButton, QScrollArea, QVBoxLayout, QWidget

from napari_tinc.arrays.metadata import Metadata
from napari_tinc.plugin.compress.report import size_text
from napari_tinc.plugin.compress.thumbnails import error_colours, gray, pixmap
from napari_tinc.plugin.compress.worker import Control, Failed, follow, guarded, prepare
from napari_tinc.system.steps import relay

# Not imported before it is needed: it needs torch.
if TYPE_CHECKING:
    from napari_tinc.advice.suggest import Suggestion

Array = np.ndarray[Any, Any]

_TITLES = ("Original", "Decoded", "Error")
_PICTURE = 96  # pixels of a picture's longer side
_PERCENTILES = (0.5, 99.5)
_ADVISED = "\N{CHECK MARK} up to here the loss looks like noise"


@dataclass(frozen=True)
class _Job:
    """What is to be tried, and who may stop it."""

    array: Any
    region: tuple[slice, ...] | None
    metadata: Metadata
    ratios: Sequence[float] | None
    control: Control


@dataclass(frozen=True)
class _Event:
    """What a job has to say; a job that was replaced is not listened to."""

    job: _Job
    step: Any


class SuggestPanel(QWidget):
    """A row for every ratio that was tried: original, decoded and error, figures, verdict, and a button to take it.

    ``taken`` carries the ratio whose button was pressed, ``ended`` says that nothing runs any more.
    """

    taken = Signal(float)
    ended = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.suggestions: list[Suggestion] = []
        self.buttons: list[QPushButton] = []
        self._job: _Job | None = None
        self.status = QLabel()
        self.status.setWordWrap(True)
        self._rows = QWidget()
        self._grid = QGridLayout(self._rows)
        self._grid.setContentsMargins(0, 0, 0, 0)
        area = QScrollArea()
        area.setWidgetResizable(True)
        area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        area.setWidget(self._rows)
        # Three pictures side by side, whatever else is in the dock.
        bar = area.verticalScrollBar()
        assert bar is not None
        area.setMinimumWidth(len(_TITLES) * (_PICTURE + self._grid.horizontalSpacing()) + bar.sizeHint().width())
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.status)
        layout.addWidget(area)

    @property
    def running(self) -> bool:
        """Whether ratios are being tried."""
        return self._job is not None

    def start(
        self,
        array: Any,
        region: tuple[slice, ...] | None,
        metadata: Metadata | None = None,
        ratios: Sequence[float] | None = None,
    ) -> None:
        """Try ratios in a thread; what runs already is stopped.

        Parameters
        ----------
        array : ndarray, dask array, zarr array or the like
            The whole volume; blocks of it are read.
        region : tuple of slice or None
            Where to look, one slice per axis; None is the middle. See :func:`napari_tinc.advice.suggest.suggest_steps`.
        metadata : Metadata, optional
            Axes; by default those of a bare array.
        ratios : sequence of float, optional
        """
        self.stop()
        self.suggestions = []
        self._draw()
        job = _Job(array, region, metadata or Metadata.default(len(array.shape)), ratios, Control())
        self._job = job
        self.destroyed.connect(job.control.discard)
        self._say("Preparing…")
        follow(_events, (job,), self._on_event, self._on_outcome, self._on_finished)

    def stop(self) -> None:
        """Stop; rows that are done stay."""
        if self._job is not None:
            self._job.control.discard()
            self._end("Stopped." if self.suggestions else "")

    def _on_event(self, event: _Event) -> None:
        if event.job is not self._job or event.step is None:
            return
        if isinstance(event.step, str):
            self._say(event.step)
        else:
            self.suggestions.append(event.step)
            self._draw()

    def _on_outcome(self, event: _Event) -> None:
        if event.job is self._job:
            self._end(event.step.message if isinstance(event.step, Failed) else self._advice())

    def _on_finished(self) -> None:
        """Clean up after a worker that napari told to quit: it has no outcome."""
        if self._job is not None and self._job.control.discarded:
            self._end("")

    def _end(self, text: str) -> None:
        if self._job is not None:
            self.destroyed.disconnect(self._job.control.discard)
        self._job = None
        self._say(text)
        self.ended.emit()

    def _say(self, text: str) -> None:
        self.status.setText(text)

    def _advice(self) -> str:
        """Say in one line what the rows came to."""
        from napari_tinc.advice.suggest import advised

        if not self.suggestions:
            return ""
        best, first = advised(self.suggestions), self.suggestions[0]
        if best is not None:
            return f"Up to {best.ratio:g} times smaller the loss looks like noise."
        if first.noise.is_none:
            return "No noise was found, so everything lost is structure: judge by the pictures."
        return f"Structure is lost even at {first.ratio:g} times smaller: try a smaller ratio."

    def _draw(self) -> None:
        """Show all rows anew: pictures share one contrast, and one scale of errors."""
        while (item := self._grid.takeAt(0)) is not None:
            if (widget := item.widget()) is not None:
                widget.hide()
                widget.deleteLater()
        self.buttons = []
        if not self.suggestions:
            return
        from napari_tinc.advice.suggest import advised

        best = advised(self.suggestions)
        for column, title in enumerate(_TITLES):
            self._grid.addWidget(QLabel(title), 0, column)
        for number, (one, pictures) in enumerate(zip(self.suggestions, pictures_of(self.suggestions), strict=True)):
            for column, pixels in enumerate(pictures):
                picture = QLabel()
                picture.setPixmap(pixmap(pixels, _PICTURE))
                self._grid.addWidget(picture, 2 * number + 1, column)
            text = QLabel(text_of(one) + (f"\n{_ADVISED}" if one is best else ""))
            text.setWordWrap(True)
            text.setToolTip(_details(one))
            text.setObjectName("advised" if one is best else "tried")
            if one is best:
                text.setStyleSheet("font-weight: bold; border-bottom: 2px solid #4a9;")
            self._grid.addWidget(text, 2 * number + 2, 0, 1, len(_TITLES) - 1)
            self._grid.addWidget(self._button(one), 2 * number + 2, len(_TITLES) - 1)
        self._grid.setRowStretch(2 * len(self.suggestions) + 1, 1)

    def _button(self, one: Suggestion) -> QPushButton:
        button = QPushButton("Use this")
        button.setToolTip(f"Set the target to {one.ratio:g} times smaller")
        button.setProperty("ratio", one.ratio)
        button.clicked.connect(self._take)
        self.buttons.append(button)
        return button

    def _take(self) -> None:
        sender = self.sender()
        assert sender is not None
        self.taken.emit(float(sender.property("ratio")))


def text_of(one: Suggestion) -> str:
    """Figures and verdict of a row."""
    return f"{one.ratio:g} times smaller: {size_text(one.nbytes)}, PSNR about {one.psnr:.1f} dB; {one.text}"


def _details(one: Suggestion) -> str:
    if one.here is None or one.everywhere is None:
        return "No noise was found in the image."
    return (
        "Estimated squared distance from the image without noise; that of the original itself is 1.\n"
        f"Here: {one.here.value:.2f}, at most {one.here.limit:.2f}. "
        f"In blocks from the whole volume: {one.everywhere.value:.2f}, at most {one.everywhere.limit:.2f}."
    )


def pictures_of(suggestions: Sequence[Suggestion]) -> list[tuple[Array, Array, Array]]:
    """Draw the middle plane of every row: original and decoded in one contrast, errors on one scale.

    Returns
    -------
    list of three ndarrays of uint8, shape (rows, columns, 3)
        Errors from blue (too bright) to orange (too dark).
    """
    planes = [one.planes for one in suggestions]
    low, high = np.percentile(planes[0][0], _PERCENTILES)
    limit = float(np.percentile([np.abs(error) for _, _, error in planes], _PERCENTILES[1])) or 1.0

    return [
        (gray(original, low, high), gray(decoded, low, high), error_colours(error, limit))
        for original, decoded, error in planes
    ]


def _events(job: _Job) -> Generator[_Event, None, _Event]:
    outcome = yield from relay(guarded(_try(job)), lambda step: _Event(job, step))
    return _Event(job, outcome)


def _try(job: _Job) -> Generator[Any, None, None]:
    """Yield words for the status, suggestions, and None to be stopped at."""
    yield from relay(prepare(job.control), lambda _: None)
    if job.control.discarded:
        return
    from napari_tinc.advice.suggest import Suggestion, suggest_steps

    steps = suggest_steps(job.array, region=job.region, ratios=job.ratios, metadata=job.metadata)
    told = ""
    for step in steps:
        if job.control.discarded:
            steps.close()
            return
        if isinstance(step, Suggestion):
            yield step
            continue
        reading = step.phase == "preparing"
        said = "Reading…" if reading else f"Trying ratio {step.step + 1} of {step.steps}…"
        yield said if said != told else None
        told = said


__all__ = ["SuggestPanel", "pictures_of", "text_of"]

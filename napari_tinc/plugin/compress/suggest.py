"""Which ratio? A few are tried where one looks: pictures, figures, and the highest one that is safe."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.utils.notifications import show_error, show_info
from psygnal import Signal
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QGridLayout, QLabel, QPushButton, QScrollArea, QVBoxLayout, QWidget

from napari_tinc.arrays.metadata import Metadata
from napari_tinc.errors import TincError
from napari_tinc.pixels import rows_of
from napari_tinc.plugin.compress.report import size_text
from napari_tinc.plugin.compress.thumbnails import pixmap
from napari_tinc.plugin.compress.worker import Control, Failed, follow, guarded, prepare
from napari_tinc.plugin.window.dialogs import ask_path
from napari_tinc.system.output import write_atomic
from napari_tinc.system.steps import relay

# Not imported before it is needed: it needs torch.
if TYPE_CHECKING:
    from napari_tinc.advice.advise import Advice
    from napari_tinc.advice.trials import Tried

Array = np.ndarray[Any, Any]

_TITLES = ("Original", "Decoded", "Error")
_PICTURE = 96  # pixels of a picture's longer side
_WHERE = {"here": "here", "everywhere": "in blocks from the whole volume", "structure": "where there is structure"}
_ADVISED = "\N{CHECK MARK} advised: the highest ratio that is safe"


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
        self.tried: list[Tried] = []
        self.advice: Advice | None = None
        self.buttons: list[QPushButton] = []
        self._job: _Job | None = None
        self._name = ""
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
        beside = bar.sizeHint().width() + 2 * area.frameWidth()
        area.setMinimumWidth(len(_TITLES) * (_PICTURE + self._grid.horizontalSpacing()) + beside)
        self.save_button = QPushButton("Save report…")
        self.save_button.setToolTip("Write curves, figures and pictures into one HTML file")
        self.save_button.setEnabled(False)
        self.save_button.clicked.connect(self._save)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.status)
        layout.addWidget(area)
        layout.addWidget(self.save_button)

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
            Where to look, one slice per axis; None is the middle. See :func:`napari_tinc.advice.advise.advise_steps`.
        metadata : Metadata, optional
            Axes; by default those of a bare array.
        ratios : sequence of float, optional
        """
        self.stop()
        self.tried, self.advice = [], None
        self.save_button.setEnabled(False)
        self._draw()
        job = _Job(array, region, metadata or Metadata.default(len(array.shape)), ratios, Control())
        self._job, self._name = job, job.metadata.name
        self.destroyed.connect(job.control.discard)
        self._say("Preparing…")
        follow(_events, (job,), self._on_event, self._on_outcome, self._on_finished)

    def stop(self) -> None:
        """Stop; rows that are done stay."""
        if self._job is not None:
            self._job.control.discard()
            self._end("Stopped." if self.tried else "")

    def _on_event(self, event: _Event) -> None:
        if event.job is not self._job or event.step is None:
            return
        if isinstance(event.step, str):
            self._say(event.step)
        else:
            self.tried = sorted([*self.tried, event.step], key=lambda one: one.ratio)
            self._draw()

    def _on_outcome(self, event: _Event) -> None:
        if event.job is not self._job:
            return
        if isinstance(event.step, Failed):
            self._end(event.step.message)
        elif event.step is not None:
            self.advice = event.step
            self.save_button.setEnabled(True)
            self._draw()
            self._end(event.step.text)

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

    def _save(self) -> None:
        """Ask for a name, and write the report."""
        from napari_tinc.advice.report import html_report

        assert self.advice is not None
        name = self._name or "volume"
        try:
            target = ask_path(self, "Save what was tried", f"{name} advice", ".html", "HTML")
            if target is not None:
                write_atomic(target, html_report(self.advice, name).encode(), overwrite=True)
                show_info(f"Saved {target}")
        except TincError as error:
            show_error(str(error))

    def _draw(self) -> None:
        """Show all rows anew: pictures share one contrast, and one scale of errors."""
        while (item := self._grid.takeAt(0)) is not None:
            if (widget := item.widget()) is not None:
                widget.hide()
                widget.deleteLater()
        self.buttons = []
        if not self.tried:
            return
        best = None if self.advice is None else self.advice.advised
        for column, title in enumerate(_TITLES):
            self._grid.addWidget(QLabel(title), 0, column)
        for number, (one, pictures) in enumerate(
            zip(self.tried, rows_of([one.planes for one in self.tried]), strict=True)
        ):
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
        self._grid.setRowStretch(2 * len(self.tried) + 1, 1)

    def _button(self, one: Tried) -> QPushButton:
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


def text_of(one: Tried) -> str:
    """Figures and verdict of a row."""
    return f"{one.ratio:g} times smaller: {size_text(one.nbytes)}, PSNR about {one.psnr:.1f} dB; {one.text}"


def _details(one: Tried) -> str:
    """What was measured, a line each."""
    lines = [measured.text for measured in one.measured]
    if one.distances:
        lines.append("Squared distance from the image without noise, estimated; that of the original itself is 1:")
        lines += [
            f"{_WHERE[where]} {found.value:.2f}, at most {found.limit:.2f}" for where, found in one.distances.items()
        ]
    else:
        lines.append("No noise was found in the image.")
    return "\n".join(lines)


def _events(job: _Job) -> Generator[_Event, None, _Event]:
    outcome = yield from relay(guarded(_try(job)), lambda step: _Event(job, step))
    return _Event(job, outcome)


def _try(job: _Job) -> Generator[Any, None, Advice | None]:
    """Yield words for the status, ratios that were tried, and None to be stopped at."""
    yield from relay(prepare(job.control), lambda _: None)
    if job.control.discarded:
        return None
    from napari_tinc.advice import advise
    from napari_tinc.advice.trials import Tried

    told = ""

    def tell(step: Any) -> Any:
        nonlocal told
        if isinstance(step, Tried):
            return step
        said = "Reading…" if step.phase == "preparing" else f"Trying ratio {step.step + 1} of {step.steps}…"
        new = said != told
        told = said
        return said if new else None

    steps = advise.advise_steps(job.array, region=job.region, ratios=job.ratios, metadata=job.metadata)
    with closing(relay(steps, tell)) as told_steps:
        while not job.control.discarded:
            try:
                yield next(told_steps)
            except StopIteration as stop:
                advice: Advice = stop.value
                return advice
    return None


__all__ = ["SuggestPanel", "text_of"]

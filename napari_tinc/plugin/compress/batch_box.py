"""Several compressions in a row, with the settings of the form: the selected layers, or the files of a folder."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psygnal import Signal
from qtpy.QtWidgets import QFileDialog, QHBoxLayout, QProgressBar, QPushButton, QVBoxLayout, QWidget

from napari_tinc.plugin.compress import worker
from napari_tinc.plugin.window.plain import plain_label

if TYPE_CHECKING:
    from napari_tinc.encode.batch import Done, Options

_SELECTED_TIP = "Compress every selected image layer, one after the other; if one fails, the others go on"
_FOLDER_TIP = "Compress all TIFF, NPY and Zarr volumes of a folder into .tinc files in another; nothing is overwritten"
_SCALE = 1000


class BatchBox(QWidget):
    """Buttons that start a batch, and how far that of a folder is.

    ``selected_pressed`` and ``folder_pressed`` are emitted by the buttons; ``busy_changed`` while files are compressed.
    """

    selected_pressed = Signal()
    folder_pressed = Signal()
    busy_changed = Signal(bool)

    def __init__(self) -> None:
        super().__init__()
        self._control: worker.Control | None = None
        self._worker: Any = None
        self.selected = self._button("Selected layers", _SELECTED_TIP, self._on_selected)
        self.folder = self._button("Folder…", _FOLDER_TIP, self._on_folder)
        self.stop_button = self._button("Stop", "Stop; files already written stay", self.stop)
        self.text, self.bar = plain_label(wrapped=True), QProgressBar()
        self.bar.setTextVisible(False)
        row = QHBoxLayout()
        for button in (self.selected, self.folder, self.stop_button):
            row.addWidget(button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(row)
        layout.addWidget(self.text)
        layout.addWidget(self.bar)
        self._show_busy()

    @property
    def busy(self) -> bool:
        """Whether files are being compressed."""
        return self._control is not None

    def enable(self, idle: bool) -> None:
        """Offer to start something if nothing else runs."""
        for button in (self.selected, self.folder):
            button.setEnabled(idle and not self.busy)

    def say(self, text: str) -> None:
        """Show what became of a batch."""
        self.text.setText(text)
        self.text.setVisible(bool(text))

    def ask_folders(self) -> tuple[Path, Path] | None:
        """Ask for the folder of the volumes and that of the files; None if the user changed their mind."""
        chosen = []
        for title in ("Volumes to compress", "Where the .tinc files go"):
            path = QFileDialog.getExistingDirectory(self, title)
            if not path:
                return None
            chosen.append(Path(path))
        return chosen[0], chosen[1]

    def compress_folder(self, source: Path, target: Path, options: Options) -> None:
        """Compress the volumes of a folder in a thread."""
        self._control = worker.Control()
        self._show_busy()
        steps = batch_steps(source, target, options, self._control)
        self._worker = worker.follow(worker.guarded, (steps,), self._on_step, self._on_end, self._on_finished)

    def stop(self) -> None:
        """End as soon as possible; files that are complete stay."""
        if self._control is not None:
            self._control.discard()
            self.say("Stopping…")

    def _on_step(self, step: Any) -> None:
        if not hasattr(step, "job") or self._control is None or self._control.discarded:
            return
        part = 0.0 if step.progress is None else step.progress.step / max(1, step.progress.steps)
        self.bar.setValue(int(_SCALE * (step.number - 1 + part) / step.total))
        self.say(f"{step.number} of {step.total}: {step.job.source.name}")

    def _on_end(self, outcome: Any) -> None:
        stopped = self._control is not None and self._control.discarded
        self._control = None
        if isinstance(outcome, worker.Failed):
            self.say(outcome.message)
        else:
            self.say(summary([one.job.source.name for one in outcome], [one.problem for one in outcome], stopped))
        self._show_busy()

    def _on_finished(self) -> None:
        """Clean up after a worker that napari told to quit: it returns nothing."""
        if self._control is not None and self._worker.abort_requested:
            self._control = None
            self._show_busy()

    def _show_busy(self) -> None:
        self.bar.setRange(0, _SCALE)
        self.bar.setVisible(self.busy)
        self.stop_button.setVisible(self.busy)
        self.text.setVisible(bool(self.text.text()))
        self.busy_changed.emit(self.busy)

    def _button(self, text: str, tip: str, action: Any) -> QPushButton:
        button = QPushButton(text)
        button.setToolTip(tip)
        button.clicked.connect(action)
        return button

    def _on_selected(self) -> None:
        self.selected_pressed.emit()

    def _on_folder(self) -> None:
        self.folder_pressed.emit()


class LayerQueue:
    """Layers that are compressed one after the other, and what became of each."""

    def __init__(self) -> None:
        self._left: list[Any] = []
        self._outcomes: list[tuple[str, str]] = []  # name, and what went wrong

    @property
    def running(self) -> bool:
        """Whether the compression under way, or one that just ended, belongs to a batch."""
        return bool(self._outcomes)

    def fill(self, layers: Sequence[Any]) -> None:
        """Begin a batch."""
        self._left, self._outcomes = list(layers), []

    def clear(self) -> None:
        """Compress no more than what is under way."""
        self._left = []

    def take(self, viewer: Any) -> Any:
        """Return the next layer that is still in the viewer, or None."""
        while self._left:
            layer = self._left.pop(0)
            if layer in viewer.layers:
                self._outcomes.append((layer.name, ""))
                return layer
        return None

    def note(self, problem: str) -> None:
        """Keep what went wrong with the layer that was taken last."""
        self._outcomes[-1] = (self._outcomes[-1][0], problem)

    def text(self) -> str:
        """Say how many are to come."""
        return f"{len(self._left)} more to do"

    def end(self) -> str:
        """Say what became of all, and forget it."""
        outcomes, self._outcomes = self._outcomes, []
        return summary([name for name, _ in outcomes], [problem for _, problem in outcomes])


def batch_steps(
    source: Path, target: Path, options: Options, control: worker.Control
) -> Generator[Any, None, list[Done]]:
    """Compress the volumes of a folder; return what became of each, of those before a stop."""
    yield from worker.prepare(control)
    from napari_tinc.encode.batch import compress_files, find_jobs

    results = []
    with closing(compress_files(find_jobs([source], target), options)) as steps:
        for step in steps:
            if step.done is not None:
                results.append(step.done)
            yield step
            if control.discarded:
                break
    return results


def summary(names: Sequence[str], problems: Sequence[str], stopped: bool = False) -> str:
    """Say what became of several compressions: how many there are, and why others are not.

    Parameters
    ----------
    names, problems : sequences of str
        Of each; no problem is an empty text.
    stopped : bool
        Whether there would have been more.
    """
    done = sum(not problem for problem in problems)
    lines = [f"{done} of {len(names)} compressed" + ", then stopped" * stopped]
    lines += [f"{name}: {problem}" for name, problem in zip(names, problems, strict=True) if problem]
    return "\n".join(lines)


__all__ = ["BatchBox", "LayerQueue", "batch_steps", "summary"]

"""The compare widget: shows the model, forwards what the user does."""

from __future__ import annotations

from functools import partial
from typing import Any

from napari.utils.notifications import show_error
from qtpy.QtCore import QTimer

from napari_tinc.errors import TincError
from napari_tinc.plugin.compare import worker as compare_worker
from napari_tinc.plugin.compare.actions import CandidateActions, attempt
from napari_tinc.plugin.compare.form import CompareForm
from napari_tinc.plugin.compare.model import CompareModel, State
from napari_tinc.plugin.compare.parts import Controls, Findings
from napari_tinc.plugin.compare.table import CandidateTable
from napari_tinc.plugin.compare.views import CandidateViews
from napari_tinc.plugin.compress import engine, worker
from napari_tinc.plugin.compress.model import full_resolution, source_of
from napari_tinc.plugin.window import preferences
from napari_tinc.plugin.window.docked import DockedWidget

_IDLE_MILLISECONDS = 500  # after which the window has surely been drawn


class CompareWidget(DockedWidget):
    """Compare strategies and codecs on a layer at equal bytes.

    Parameters
    ----------
    napari_viewer : napari.Viewer
    """

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__(napari_viewer)
        self.model = CompareModel()
        self.form = CompareForm(self.viewer)
        self._control: worker.Control | None = None
        self._worker: Any = None
        self._aside = compare_worker.Aside(self)
        self._aside.changed.connect(self._show_task)
        self._build()
        self.model.state_changed.connect(self._show_state)
        self.model.row_changed.connect(self._on_row)
        self.form.changed.connect(self._read_form)
        self._follow_viewer()
        self.form.refresh_layers()
        self._read_form()
        preferences.read()  # the first time takes 0.3 s: not when Compare is pressed
        self._show_state()
        QTimer.singleShot(_IDLE_MILLISECONDS, self._look_for_peers)

    # The window

    def _build(self) -> None:
        self.controls, self.table = Controls(), CandidateTable(self.model)
        self.findings = Findings()
        self.controls.pressed.connect(self._pressed)
        self.candidates = CandidateActions(self.model, self.table, self.controls, self.findings, self._aside)
        self.controls.exported.connect(self.candidates.export)
        self.controls.split_moved.connect(self.candidates.move_split)
        self.controls.octants_toggled.connect(self.candidates.toggle_octants)
        self.findings.measure_changed.connect(self._draw)
        self.findings.plot.clicked.connect(self._point_clicked)
        self.findings.plot.drawn.connect(self.table.show_colours)
        self.table.chosen.connect(self.candidates.show_row)
        self.table.selected.connect(self._on_selection)
        self._stack(self.form, self.controls.top, self.table, self.controls.bottom, self.findings)

    @property
    def ready(self) -> bool:
        """Whether nothing is being decoded, drawn or written beside the comparison."""
        return not self._aside.busy and self.findings.plot.idle

    def _leave(self) -> None:
        super()._leave()
        self.stop()
        self._aside.clear()
        self.findings.plot.clear()

    def _look_for_peers(self) -> None:
        """Ask which codecs there are; this imports the engine, while the user still looks at the form."""
        self._aside.run("looking for codecs", compare_worker.missing_peers, self.form.show_missing)
        engine.prepared()

    # The form

    def _read_form(self) -> None:
        """Bring the model up to date with the form, and show what comes of it."""
        model, layer = self.model, self.form.source
        bar_changed = model.choice.bar != (choice := self.form.read()).bar
        model.choice, model.source, model.problem = choice, None, self.form.why_none()
        if layer is not None:
            try:
                model.source = source_of(layer)
            except TincError as error:
                model.problem = str(error)
        if bar_changed:
            model.measure_again()
        self.form.show_size(model.size_preview(), bool(model.error()))
        self.controls.show_expected(model.expected_time())
        self._enable()

    def _enable(self) -> None:
        rows, ok = self.candidates.selected_rows(), any(row.ok for row in self.model.rows)
        views = self.candidates.views
        self.controls.enable(
            ready=not self.model.active and not self.model.error(), active=self.model.active, ok=ok,
            present=views is not None and views.present, chosen=len(rows),
        )  # fmt: skip
        self.form.setEnabled(not self.model.active)

    # A comparison

    def start(self) -> None:
        """Compare on the chosen layer; what is stored comes at once."""
        self._read_form()
        self.model.begin()
        source, layer, mask = self.model.source, self.form.source, self.form.mask
        assert source is not None
        self.candidates.views = CandidateViews(self.viewer, layer, source.metadata.axes, source.shape)
        self._control = worker.Control()
        job = compare_worker.Job(
            full_resolution(layer), source.metadata, self.model.choice, preferences.read().device,
            None if mask is None else full_resolution(mask),
        )  # fmt: skip
        self.destroyed.connect(self._control.discard)
        self._worker = worker.follow(
            compare_worker.compare_events, (job, self._control), self._on_event, self._on_outcome, self._on_finished
        )

    def stop(self) -> None:
        """Stop; what has finished stays, and is found again by the next comparison."""
        if self._control is not None:
            self._control.discard()
            self.model.stop()

    def _on_event(self, event: Any) -> None:
        match event:
            case None:
                return
            case compare_worker.Opened(comparison):
                self.model.open(comparison)
            case compare_worker.Advised(text):
                self.model.advice = text
                self._show_words()
            case _ if hasattr(event, "kind"):
                self.model.advance(event)
            case _:
                self.model.take([event])
        self._show_progress()

    def _on_outcome(self, outcome: Any) -> None:
        self._control = None
        if isinstance(outcome, worker.Failed):
            self.model.fail(outcome.message)
            show_error(f"The comparison failed: {outcome.message}")
        else:
            self.model.finish(outcome.verdict, outcome.complete)

    def _on_finished(self) -> None:
        """Clean up after a worker that napari told to quit: it returns nothing."""
        if self._control is not None and self._worker.abort_requested:
            self._control = None
            self.model.finish("", complete=False)

    # What the user does

    def _pressed(self, key: str) -> None:
        if key == "stop":
            self.stop()
        else:
            attempt(self.start if key == "compare" else partial(self.candidates.press, key))

    def _on_selection(self) -> None:
        self.findings.plot.select({(row.name, row.ratio) for row in self.candidates.selected_rows()})
        self._enable()

    def _point_clicked(self, name: str, ratio: float) -> None:
        index = self.model.index(name, ratio)
        self.table.choose(index)
        self.candidates.reveal(self.model.rows[index])

    # What the model says

    def _show_state(self, _: State | None = None) -> None:
        if self.model.state is State.PREPARING:
            self.controls.explain(())
        self.controls.show_expected(self.model.expected_time())
        self._show_progress()
        self._show_words()
        self._enable()
        if not self.model.active:
            self._draw()

    def _show_progress(self) -> None:
        model = self.model
        self.controls.show_progress(
            model.status(), model.finished, len(model.rows), active=model.active, failed=model.state is State.FAILED
        )

    def _show_task(self, saying: str) -> None:
        self.controls.show_task(saying)

    def _show_words(self) -> None:
        self.findings.show_words(self.model.answer(), self.model.verdict, self.model.advice)

    def _on_row(self, index: int) -> None:
        if self.model.rows[index].ok:
            self._draw()
            self._show_words()
            self._enable()

    def _draw(self, _: Any = None) -> None:
        comparison = self.model.comparison
        if comparison is not None and any(row.ok for row in self.model.rows):
            names = [candidate.name for candidate in comparison.candidates]
            self.findings.plot.show_table(self.model.table(), names, self.findings.measure)
        self.findings.setVisible(bool(self.model.rows))

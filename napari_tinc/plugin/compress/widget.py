"""The compress widget: shows the model, forwards what the user does."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari.utils.notifications import show_error
from napari.utils.progress import cancelable_progress
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QDockWidget, QHBoxLayout, QProgressBar, QPushButton
from superqt import QCollapsible

from napari_tinc.encode.batch import Options
from napari_tinc.errors import InputError, TincError
from napari_tinc.plugin.compress import engine, worker
from napari_tinc.plugin.compress.batch_box import BatchBox, LayerQueue
from napari_tinc.plugin.compress.card_actions import CardActions
from napari_tinc.plugin.compress.curve import PsnrCurve
from napari_tinc.plugin.compress.form import CompressForm
from napari_tinc.plugin.compress.model import CompressModel, Form, State, full_resolution, source_of
from napari_tinc.plugin.compress.preview import Placement, Preview, View, around_view
from napari_tinc.plugin.compress.result_card import ResultCard
from napari_tinc.plugin.compress.suggest import SuggestPanel
from napari_tinc.plugin.layers.results import display_of
from napari_tinc.plugin.menus.arrays import ArrayCompression
from napari_tinc.plugin.window import preferences
from napari_tinc.plugin.window.axes import axes_text
from napari_tinc.plugin.window.dialogs import ask_path, ask_whether
from napari_tinc.plugin.window.docked import DockedWidget, to_front
from napari_tinc.plugin.window.plain import plain_label
from napari_tinc.settings import Settings

if TYPE_CHECKING:
    from napari_tinc.plugin.compress.report import Report
    from napari_tinc.volume import CompressedVolume

_SUGGEST_NAME = "Suggest a ratio"
_SUGGEST_TIP = (
    "Try some ratios around the plane on the screen, or in the region: shows pictures, what is measured before and "
    "after, and the highest ratio that is safe"
)
_LABELS = (
    "{} looks like a label image: object numbers in long constant runs. Compression is lossy, and would change them "
    "to the numbers of other objects. Keep labels in a lossless format."
)
_BAR = 1000  # resolution of the progress bar
_REDRAW_SECONDS = 0.25
_IDLE_MILLISECONDS = 500  # after which the window has surely been drawn


@dataclass
class _Session:
    """One compression under way."""

    source: Any
    control: worker.Control
    placement: Placement
    preview: Preview
    region: tuple[slice, ...] | None = None
    activity: Any = None
    worker: Any = None
    source_changed: bool = False
    drawn: float = 0.0  # when the progress was last shown


class CompressWidget(DockedWidget):
    """Compress a layer: choose, press, watch, keep.

    Parameters
    ----------
    napari_viewer : napari.Viewer
    """

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__(napari_viewer)
        self.model = CompressModel()
        self.form = CompressForm(self.viewer)
        self._session: _Session | None = None
        self._queue = LayerQueue()
        self._build()
        self.model.state_changed.connect(self._show_state)
        self.model.progressed.connect(self._show_progress)
        self.form.changed.connect(self._read_form)
        self._follow_viewer()
        self.form.refresh_layers()
        self._recall()
        self._read_form()
        self._show_state()
        QTimer.singleShot(_IDLE_MILLISECONDS, self._load_engine)

    def _load_engine(self) -> None:
        """Import, and compile, what compressing needs while the user still looks at the form."""
        engine.prepared()

    # The window

    def _build(self) -> None:
        self.compress_button = self._button("Compress", "Compress the source on this computer", self.start)
        self.stop_button = self._button(
            "Stop", "Stop now. Advanced > Stop keeps what was learnt decides if there is a result", self.stop
        )
        self.save_button = self._button("Save…", "Write the last result to a .tinc file", self.save)
        self.status = plain_label(wrapped=True)
        self.bar = QProgressBar()
        self.bar.setRange(0, _BAR)
        self.curve = PsnrCurve()
        self.expected = plain_label()
        self.card = ResultCard()
        self.results = CardActions(self.viewer, self.card, self)
        buttons = QHBoxLayout()
        for button in (self.compress_button, self.stop_button, self.save_button):
            buttons.addWidget(button)
        self.suggest_button = self._button("Suggest a ratio…", _SUGGEST_TIP, self.suggest)
        self.suggestions = SuggestPanel(self)
        self._tried_layer: Any = None
        self.suggestions.hide()  # until it is put into a dock
        self.suggestions.taken.connect(self._take_ratio)
        self.batch = BatchBox()
        self.batch.selected_pressed.connect(self.compress_selected)
        self.batch.folder_pressed.connect(self.compress_folder)
        self.batch.busy_changed.connect(self._enable)
        several = QCollapsible("Several at once")
        several.addWidget(self.batch)
        self._stack(
            self.form,
            self.suggest_button,
            several,
            buttons,
            self.expected,
            self.status,
            self.bar,
            self.curve,
            self.card,
        )

    def _button(self, text: str, tip: str, action: Any) -> QPushButton:
        button = QPushButton(text)
        button.setToolTip(tip)
        button.clicked.connect(action)
        return button

    def _viewer_events(self) -> list[tuple[Any, Any]]:
        dims = self.viewer.dims.events
        looks = [(emitter, self._look) for emitter in (dims.current_step, dims.order, dims.ndisplay)]
        return super()._viewer_events() + looks

    def _leave(self) -> None:
        super()._leave()
        self._queue.clear()
        self.batch.stop()
        self.suggestions.stop()
        if self.suggestions.parent() is None:  # its dock was closed: it must not outlive the widget
            self.suggestions.setParent(self)
        if self._session is not None:
            self._session.control.discard()

    # The form

    def _recall(self) -> None:
        """Start with what the user prefers, or has used last."""
        preferred = preferences.read()
        target = preferred.target
        self.form.write(preset=preferred.preset, device=preferred.device, target_kind=target.kind)
        self.form.write(target_value=Form.of_target(target).target_value)

    def _read_form(self) -> None:
        """Bring the model up to date with the form, and show what comes of it."""
        model, layer = self.model, self.form.source
        model.form, model.has_mask = self.form.read(), self.form.mask is not None
        model.keep = self.form.fields["keep"].value
        model.source, model.problem = None, self.form.why_none()
        if layer is not None:
            try:
                model.source = source_of(layer, model.form.axes, self.form.region())
            except TincError as error:
                model.problem = str(error)
        said = model.size_preview()
        if model.source is not None and len(model.source.shape) > 3:  # the field cuts what it has to say of so many
            said = f"{axes_text(model.source.metadata.axes, model.source.shape)}\n{said}"
        self.form.show_size(said, bool(model.error()))
        self._enable()

    def _enable(self, _: bool = False) -> None:
        running = self.model.running or self.batch.busy
        self.compress_button.setEnabled(not running and not self.model.error())
        self.batch.enable(not running)
        self.suggest_button.setEnabled(self.model.source is not None)
        self.expected.setText(self.model.expected_time())
        self.expected.setVisible(bool(self.expected.text()))
        self.stop_button.setEnabled(self.model.running)
        self.stop_button.setText("Drop" if self.model.state is State.STOPPING else "Stop")
        self.save_button.setEnabled(self.results.result is not None)
        self.form.setEnabled(not running)

    # A compression

    def start(self) -> None:
        """Compress the chosen layer, into a file or an OME-Zarr."""
        if self.form.fields["output"].value == "zarr":
            self._start_array()
        else:
            self._start()

    def _start_array(self) -> None:
        """Ask for a name, and compress in the background; the widget is free for other work."""
        self._read_form()
        layer, form = self.form.source, self.model.form
        try:
            if (problem := self.model.error()) or layer is None:
                raise InputError(problem or "expected a layer to compress, got none: choose one")
            path = ask_path(self, "Compress into an OME-Zarr", layer.name, ".zarr", "OME-Zarr")
            if path is not None:
                ArrayCompression(
                    self.viewer, layer, path, form.target(), form.settings(), form.axes, self.form.region()
                )
        except TincError as error:
            show_error(str(error))

    def _start(self, labels_too: bool = False) -> None:
        self._read_form()
        try:
            self.model.begin()
        except TincError as error:
            show_error(str(error))
            return
        source, form = self.model.source, self.model.form
        assert source is not None
        layer, mask = self.form.source, self.form.mask
        region = self.form.region()
        placement = Placement.of(layer, source.metadata.axes, source.shape, region)
        session = _Session(layer, worker.Control(), placement, Preview(self.viewer, placement), region)
        self._session = session
        self._look()
        session.activity = cancelable_progress(total=100, desc=f"Compress {layer.name}")
        data, weights = (None if one is None else full_resolution(one) for one in (layer, mask))
        display = display_of(placement.place, layer)
        job = worker.Job(
            data, form.target(), source.metadata.displayed(display), self._advised(form.settings(), layer), weights,
            form.mask_weight, region, labels_too,
        )  # fmt: skip
        layer.events.data.connect(self._source_changed)
        self.destroyed.connect(session.control.discard)
        preferences.remember(form.preset, form.device, form.target())
        session.worker = worker.start(job, session.control, self._on_event, self._on_outcome, self._on_finished)

    def suggest(self) -> None:
        """Try some ratios around what is on the screen, or in the chosen region, in a dock of their own."""
        self._read_form()
        source, layer = self.model.source, self.form.source
        if source is None:
            return
        if not isinstance(self.suggestions.parent(), QDockWidget):
            self.viewer.window.add_dock_widget(self.suggestions, name=_SUGGEST_NAME, area="right", tabify=True)
        to_front(self.suggestions)
        data = full_resolution(layer)
        placement = Placement.of(layer, source.metadata.axes, tuple(data.shape))
        region = self.form.region() or around_view(self.viewer.dims, placement)
        self._tried_layer = layer
        self.suggestions.start(data, region, source.metadata)

    def _advised(self, settings: Settings, layer: Any) -> Settings:
        """Have a file say what was advised, if the layer was tried."""
        advice = self.suggestions.advice
        return settings if advice is None or layer != self._tried_layer else settings.noted("advice", advice.note)

    def _take_ratio(self, ratio: float) -> None:
        self.form.write(target_kind="ratio", target_value=ratio)
        to_front(self)

    def compress_selected(self) -> None:
        """Compress the selected layers one after the other; one that fails does not stop the others."""
        offered = [layer for layer in self.viewer.layers if layer in self.form.fields["source"].choices]
        self._queue.fill([layer for layer in offered if layer in self.viewer.layers.selection])
        if not self._next():
            self.batch.say("expected selected image layers, got none: select some in the layer list")

    def compress_folder(self) -> None:
        """Ask for a folder of volumes and compress them into files."""
        try:
            options = Options(self.form.read().target(), self.form.read().settings())
        except TincError as error:
            show_error(str(error))
            return
        if (folders := self.batch.ask_folders()) is not None:
            self.batch.compress_folder(*folders, options)

    def _next(self) -> bool:
        """Go on with a batch of layers; return whether there is one."""
        while not self.model.running and (layer := self._queue.take(self.viewer)) is not None:
            self.form.fields["source"].value = layer
            if problem := self.model.error():
                self._queue.note(problem)
            else:
                self._start()
        if self._queue.running:
            self.batch.say(self._queue.text() if self.model.running else self._queue.end())
            return True
        return False

    def _note_outcome(self, problem: str = "") -> None:
        """Keep what became of a layer of a batch, and go on when the window has shown it."""
        if self._queue.running:
            self._queue.note(problem)
            QTimer.singleShot(0, self._next)

    def stop(self) -> None:
        """Stop; the model decides whether what was learnt is kept."""
        self._queue.clear()
        if self._session is None:
            return
        if self.model.stop():
            self._session.control.finish()
        else:
            self._session.control.discard()

    def _look(self) -> None:
        """Tell the worker which plane is on the screen."""
        if self._session is not None:
            live = self.form.fields["live"].value
            view = View.of(self.viewer.dims, self._session.placement) if live else None
            self._session.control.view = view

    def _source_changed(self) -> None:
        if self._session is not None:
            self._session.source_changed = True

    def _on_event(self, event: Any) -> None:
        if self._session is None or event is None:
            return
        if isinstance(event, worker.Previewed):
            if not self._session.control.discarded:
                self._session.preview.show(event.image, event.view)
        elif isinstance(event, worker.Preparing):
            self.model.prepare(event.text)
        else:
            self.model.advance(event)

    def _on_outcome(self, outcome: worker.Outcome) -> None:
        session = self._end_session()
        if session is None:
            return
        match outcome:
            case worker.Finished(volume, report):
                self._show_result(session, volume, report)
                self._note_outcome()
            case worker.Failed(message):
                self.model.fail(message)
                show_error(f"Compressing {session.placement.name} failed: {message}")
                self._note_outcome(message)
            case worker.LooksLikeLabels():
                self.model.discard()
                if self._queue.running:
                    self._note_outcome("looks like a label image; if it is not, compress it alone")
                elif ask_whether(self, "Label image?", _LABELS.format(session.placement.name), "Compress anyway"):
                    self._start(labels_too=True)
            case _:
                self.model.discard()
                self._note_outcome("stopped")

    def _on_finished(self) -> None:
        """Clean up after a worker that napari told to quit: it returns nothing.

        A worker that did return comes here, too, perhaps when the next compression has already begun.
        """
        worker = None if self._session is None else self._session.worker
        if worker is not None and worker.abort_requested:
            self._end_session()
            self.model.discard()

    def _end_session(self) -> _Session | None:
        session, self._session = self._session, None
        if session is not None:
            # When the end is on the screen: napari collects all garbage whenever a layer is removed, which takes tenths
            # of a second. A bound method would be forgotten with the session.
            QTimer.singleShot(0, lambda: session.preview.remove())
            session.activity.close()
            session.source.events.data.disconnect(self._source_changed)
            self.destroyed.disconnect(session.control.discard)
        return session

    # The result

    def _show_result(self, session: _Session, volume: CompressedVolume, report: Report) -> None:
        try:
            self.results.add(volume, session.source, session.region)
        except Exception as error:
            self.model.fail(f"the result cannot be shown: {error}")
            raise
        self.model.finish(report)
        note = (
            "The source was changed after the start; the result shows the source as it was then."
            * session.source_changed
        )
        self.card.show_report(report, note)
        QTimer.singleShot(0, self._reveal_card)  # not before the layout knows its height

    def _reveal_card(self) -> None:
        self.area.ensureWidgetVisible(self.card)

    def _layers_changed(self) -> None:
        super()._layers_changed()
        self.results.refresh()

    def save(self) -> None:
        """Ask for a file name and write the result."""
        self.results.press("save")

    # What the model says

    def _show_state(self, _: State | None = None) -> None:
        state = self.model.state
        self.status.setText(self.model.status())
        self.status.setStyleSheet("color: #e8795a" if state is State.FAILED else "")
        self.curve.set_points(self.model.curve)
        busy = state in (State.PREPARING, State.STOPPING)
        self.bar.setRange(0, 0 if busy else _BAR)
        self.bar.setVisible(self.model.running)
        self.bar.setTextVisible(not busy)
        self.curve.setVisible(bool(self.model.curve) or self.model.running)
        self.card.setVisible(state is State.DONE)
        self._enable()

    def _show_progress(self, _: Any) -> None:
        session, now = self._session, time.monotonic()
        if session is None or now < session.drawn + _REDRAW_SECONDS:
            return
        session.drawn = now
        self.status.setText(self.model.status())
        self.curve.set_points(self.model.curve)
        self.bar.setValue(int(_BAR * self.model.done))
        if session.activity.is_canceled and not session.control.discarded:
            session.control.discard()
            self.model.stop()
        # Last: napari's bar runs the event loop, and what comes in there may end the session.
        percent = int(100 * self.model.done)
        if percent > session.activity.n:
            session.activity.update(percent - session.activity.n)

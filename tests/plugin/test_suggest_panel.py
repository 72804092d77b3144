"""Suggest in a real window: rows come one by one, the window lives on, and everything can be stopped."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import dask.array as da
import numpy as np
import pytest
from qtpy.QtWidgets import QLabel, QScrollArea
from scipy.ndimage import gaussian_filter
from superqt.utils import WorkerBase

from napari_tinc.advice import advise
from napari_tinc.advice.trials import Tried
from napari_tinc.pixels import rows_of
from napari_tinc.plugin.compress import suggest
from napari_tinc.plugin.compress.suggest import SuggestPanel

SECONDS = 60_000  # what anything may take at most on a busy machine, in ms
SHAPE = (16, 60, 64)
REGION = (slice(4, 12), slice(10, 50), slice(10, 50))


def spots(sigma: float = 25) -> np.ndarray[Any, Any]:
    draw = np.random.default_rng(0)
    clean = np.zeros(SHAPE)
    clean[tuple(draw.integers(0, side, 90) for side in SHAPE)] = draw.uniform(2000, 60000, 90)
    noisy = 300 + gaussian_filter(clean, 1.6) + draw.normal(0, sigma, SHAPE)
    return np.clip(np.rint(noisy), 0, 65535).astype(np.uint16)


@pytest.fixture
def panel(tinc_viewer: Callable[..., Any], qtbot: Any) -> Iterator[SuggestPanel]:
    """The panel in a window that is shown."""
    viewer = tinc_viewer(show=True)
    viewer.add_image(spots())
    made = SuggestPanel()
    viewer.window.add_dock_widget(made, name="Suggest")
    yield made
    made.stop()
    WorkerBase.await_workers(10_000)


def finish(qtbot: Any, panel: SuggestPanel) -> None:
    qtbot.waitUntil(lambda: not panel.running, timeout=SECONDS)


def advised_text(panel: SuggestPanel) -> list[str]:
    return [label.text() for label in panel.findChildren(QLabel, "advised") if not label.isHidden()]


def test_rows_come_with_pictures_figures_and_the_advised_one_is_marked(panel: SuggestPanel, qtbot: Any) -> None:
    panel.start(spots(), REGION, ratios=[8, 16, 200])
    finish(qtbot, panel)
    assert [one.ratio for one in panel.tried] == [8, 16, 200]
    assert len(panel.buttons) == 3
    qtbot.waitUntil(lambda: bool(advised_text(panel)))  # drawn anew at the end
    [text] = advised_text(panel)
    assert text.startswith("16 times smaller: 7.68 kB, PSNR about ")
    assert "16 times smaller" in panel.status.text()
    shown = [label for label in panel.findChildren(QLabel) if not label.pixmap().isNull() and not label.isHidden()]
    assert len(shown) == 9
    bar = panel.findChild(QScrollArea).horizontalScrollBar()
    qtbot.waitUntil(lambda: not bar.maximum())  # nothing is cut off
    assert all(max(label.pixmap().width(), label.pixmap().height()) == 96 for label in shown)


def test_one_click_takes_a_ratio_over(panel: SuggestPanel, qtbot: Any) -> None:
    panel.start(spots(), REGION, ratios=[8, 32])
    finish(qtbot, panel)
    taken = Mock()
    panel.taken.connect(taken)
    panel.buttons[1].click()
    taken.assert_called_once_with(32.0)


def test_ratios_are_tried_in_another_thread_than_the_windows(panel: SuggestPanel, qtbot: Any, drivers: Any) -> None:
    steps = drivers(advise, "advise_steps")
    panel.start(spots(), REGION, ratios=[8, 16])
    finish(qtbot, panel)
    assert len(steps) > 4
    assert threading.main_thread() not in steps


def test_it_can_be_stopped_and_started_again(panel: SuggestPanel, qtbot: Any) -> None:
    panel.start(spots(), REGION, ratios=[4, 8, 16, 32, 64])
    qtbot.waitUntil(lambda: len(panel.tried) == 1, timeout=SECONDS)
    ended = Mock()
    panel.ended.connect(ended)
    panel.stop()
    ended.assert_called_once_with()
    assert (panel.running, panel.status.text()) == (False, "Stopped.")
    qtbot.wait(300)
    assert len(panel.buttons) == 1
    panel.start(spots(), REGION, ratios=[50])
    panel.start(spots(), REGION, ratios=[40])  # the last word counts
    finish(qtbot, panel)
    assert [one.ratio for one in panel.tried] == [40]


def test_what_cannot_be_tried_is_told_in_words(panel: SuggestPanel, qtbot: Any) -> None:
    panel.start(np.full(SHAPE, 7, np.uint16), REGION)
    finish(qtbot, panel)
    assert "one value only" in panel.status.text()
    assert panel.buttons == []


def test_an_error_of_ours_ends_the_work_and_is_told(
    panel: SuggestPanel, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker swallows every RuntimeError that leaves its generator."""

    def broken(*args: Any, **settings: Any) -> Iterator[Any]:
        raise RuntimeError("no luck")
        yield

    monkeypatch.setattr(advise, "advise_steps", broken)
    panel.start(spots(), REGION)
    finish(qtbot, panel)
    assert "RuntimeError: no luck" in panel.status.text()


def test_without_noise_the_user_is_sent_to_the_pictures(panel: SuggestPanel, qtbot: Any) -> None:
    panel.start(spots(0), REGION, ratios=[16])
    finish(qtbot, panel)
    assert "everything lost is structure: see the pictures" in panel.status.text()


def test_where_every_ratio_loses_structure_none_is_marked(panel: SuggestPanel, qtbot: Any) -> None:
    panel.start(spots(), REGION, ratios=[250])
    finish(qtbot, panel)
    assert "tructure is lost" in panel.status.text()
    assert advised_text(panel) == []


def test_a_lazy_array_is_tried_like_one_in_memory(panel: SuggestPanel, qtbot: Any) -> None:
    panel.start(da.from_array(spots(), chunks=16), REGION, ratios=[16])
    finish(qtbot, panel)
    [one] = panel.tried
    np.testing.assert_array_equal(one.original, spots()[REGION])


def test_a_closed_panel_stops_its_work(tinc_viewer: Callable[..., Any], qtbot: Any) -> None:
    viewer = tinc_viewer(show=True)
    panel = SuggestPanel()
    dock = viewer.window.add_dock_widget(panel, name="Suggest")
    panel.start(spots(), REGION, ratios=[2, 4, 8, 16, 32, 64])
    job = panel._job
    assert job is not None
    viewer.window.remove_dock_widget(dock)
    panel.deleteLater()
    del panel
    qtbot.waitUntil(lambda: job.control.discarded, timeout=SECONDS)
    WorkerBase.await_workers(10_000)


def test_pictures_share_one_contrast_and_one_scale_of_errors() -> None:
    rows = [step for step in advise.advise_steps(spots(), region=REGION, ratios=[8, 200]) if isinstance(step, Tried)]
    drawn = rows_of([row.planes for row in rows])
    assert all(part.shape == (40, 40, 3) and part.dtype == np.uint8 for row in drawn for part in row)
    np.testing.assert_array_equal(drawn[0][0], drawn[1][0])
    plane = rows[0].planes[0].astype(float)
    dark, bright = plane <= np.percentile(plane, 0.5), plane >= np.percentile(plane, 99.5)
    assert not drawn[0][0][dark].any()
    assert (drawn[0][0][bright] == 255).all()
    errors = [row.planes[2] for row in rows]
    too_dark = errors[1] > 0
    assert (drawn[1][2][too_dark][:, 2] == 0).all()  # no blue
    assert drawn[0][2].mean() < drawn[1][2].mean()


def test_what_was_tried_is_saved_as_a_page(
    panel: SuggestPanel, qtbot: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert not panel.save_button.isEnabled()
    panel.start(spots(), REGION, ratios=[8])
    assert not panel.save_button.isEnabled()
    finish(qtbot, panel)
    monkeypatch.setattr(suggest, "ask_path", lambda *_: tmp_path / "page.html")
    panel.save_button.click()
    assert "data:image/png" in (tmp_path / "page.html").read_text()

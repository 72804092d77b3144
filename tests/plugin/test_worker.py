"""One compression in a thread: what it tells, how it stops, and that nothing gets lost when it fails."""

from __future__ import annotations

import threading
from typing import Any

import dask.array as da
import numpy as np
import pytest
import torch

from napari_tinc.arrays.metadata import Metadata
from napari_tinc.encode import compression as story
from napari_tinc.encode.trial import TRAINING_STEPS
from napari_tinc.errors import TrainingError
from napari_tinc.plugin.compress import worker
from napari_tinc.plugin.compress.preview import View
from napari_tinc.plugin.compress.worker import Control, Discarded, Failed, Finished, Job, Previewed, compress_events
from napari_tinc.settings import Settings
from napari_tinc.target import Target

# The package offers a function of the same name, which hides the module.


def waves(shape: tuple[int, ...] = (12, 24, 20)) -> np.ndarray[Any, Any]:
    grid = np.stack(np.meshgrid(*(np.linspace(0, 3, n) for n in shape), indexing="ij"))
    return np.rint(2000 + 1500 * np.sin(grid.sum(0))).astype("u2")


def job_of(data: Any, preset: str = "fast", ratio: float = 8, **options: Any) -> Job:
    settings = Settings(preset, device="cpu", seed=1, model="tinc")
    return Job(data, Target.ratio(ratio), Metadata.default(data.ndim, "waves"), settings, **options)


def run(job: Job, control: Control, react: Any = None) -> tuple[list[Any], Any]:
    events, steps = [], compress_events(job, control)
    while True:
        try:
            event = next(steps)
        except StopIteration as stop:
            return events, stop.value
        events.append(event)
        if react is not None:
            react(event)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the preset ``fast`` a matter of a second; what is tested then does not depend on the quality."""
    monkeypatch.setitem(TRAINING_STEPS, "fast", 40)


@pytest.fixture
def talkative(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hear of every step of training."""
    monkeypatch.setattr("napari_tinc.networks.training._YIELD_SECONDS", 0.0)


@pytest.mark.usefixtures("quick", "talkative")
def test_a_result_comes_with_figures_that_are_true():
    data = waves()
    events, outcome = run(job_of(data), Control())
    assert isinstance(outcome, Finished)
    phases = list(dict.fromkeys(event.phase for event in events if event is not None))
    assert phases == ["preparing", "training", "quantising", "measuring"]
    report, decoded = outcome.report, outcome.volume.decode().astype(np.float64)
    error = np.mean((decoded - data) ** 2)
    assert report.psnr == pytest.approx(10 * np.log10(float(np.ptp(data)) ** 2 / error), abs=0.01)
    assert report.raw_bytes == 12 * 24 * 20 * 2
    assert report.file_bytes == len(outcome.volume.to_bytes()) <= report.raw_bytes / 8
    assert 0 < report.ssim <= 1
    assert report.ssim_part == ""
    assert report.worst_psnr <= report.psnr + 0.5
    assert report.seconds > 0


@pytest.mark.usefixtures("quick")
def test_ssim_of_a_large_volume_is_taken_from_its_middle_and_says_so(monkeypatch):
    monkeypatch.setattr(worker, "_SSIM_VOXELS", 4 * 24 * 20)
    _, outcome = run(job_of(waves()), Control())
    assert outcome.report.ssim_part == "z 4:8"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("shapes do not match"), "shapes do not match"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "another device"),
        (MemoryError("Unable to allocate 3 TiB"), "another device"),
        (TrainingError("training collapsed 3 times"), "training collapsed 3 times"),
    ],
)
def test_an_error_in_the_library_becomes_an_outcome_in_words(monkeypatch, error, said):
    def fail(*_: Any, **__: Any) -> Any:
        raise error
        yield

    monkeypatch.setattr(story, "compress_steps", fail)
    _, outcome = run(job_of(waves()), Control())
    assert isinstance(outcome, Failed)
    assert said in outcome.message
    assert outcome.error is error


def test_a_volume_that_is_refused_says_why():
    data = waves().astype("f4")
    data[3, 4, 5] = np.nan
    _, outcome = run(job_of(data), Control())
    assert isinstance(outcome, Failed)
    assert "expected" in outcome.message


def test_stopped_before_the_first_step_nothing_is_computed(monkeypatch):
    monkeypatch.setattr(story, "compress_steps", lambda *_, **__: pytest.fail("it was computed"))
    control = Control()
    control.discard()
    _, outcome = run(job_of(waves()), control)
    assert isinstance(outcome, Discarded)


@pytest.mark.usefixtures("talkative")
def test_dropped_while_training_it_ends_at_the_next_step():
    control, after = Control(), []

    def drop(event: Any) -> None:
        if control.discarded:
            after.append(event)
        if event is not None and event.phase == "training" and event.step == 3:
            control.discard()

    _, outcome = run(job_of(waves(), preset="best"), control, drop)
    assert isinstance(outcome, Discarded)
    assert after == []


@pytest.mark.usefixtures("talkative")
def test_finished_early_it_keeps_what_was_learnt():
    control, data = Control(), waves()

    def finish(event: Any) -> None:
        if event is not None and event.phase == "training" and event.step == 60:
            control.finish()

    events, outcome = run(job_of(data, preset="best"), control, finish)
    assert isinstance(outcome, Finished)
    assert max(event.step for event in events if event is not None and event.phase == "training") <= 61
    # Predicting the mean everywhere gives about 9 dB.
    assert outcome.report.psnr > 12


@pytest.mark.usefixtures("talkative")
def test_finished_early_towards_a_psnr_it_keeps_the_round_it_is_in():
    control = Control()

    def finish(event: Any) -> None:
        if event is not None and event.phase == "training" and event.step == 40:
            control.finish()

    job = Job(waves(), Target.psnr(70), Metadata.default(3), Settings("best", device="cpu"))
    _, outcome = run(job, control, finish)
    assert isinstance(outcome, Finished)


@pytest.mark.usefixtures("quick")
def test_what_happens_to_the_layers_array_meanwhile_does_no_harm():
    untouched, overwritten = waves(), waves()
    _, expected = run(job_of(untouched), Control())

    def overwrite(event: Any) -> None:
        if event is not None:
            overwritten[:] = 0

    _, outcome = run(job_of(overwritten), Control(), overwrite)
    assert outcome.volume.to_bytes() == expected.volume.to_bytes()


@pytest.mark.usefixtures("quick")
def test_every_chunk_of_a_dask_layer_is_computed_once():
    data, computed = waves(), []

    def note(block: Any) -> Any:
        computed.append(threading.current_thread())
        return block

    lazy = da.from_array(data, chunks=(5, 24, 20)).map_blocks(note, dtype=data.dtype, meta=np.empty((0,) * 3, "u2"))
    events, outcome = run(job_of(lazy), Control())
    assert isinstance(outcome, Finished)
    assert len(computed) == 3
    assert events[0] is None


@pytest.mark.usefixtures("quick")
def test_marked_voxels_come_out_better():
    noise = np.random.default_rng(0).integers(0, 4000, (8, 16, 16)).astype("u2")
    mask = np.zeros(noise.shape, "u1")
    mask[:, :8] = 1

    def error(outcome: Finished) -> float:
        return float(np.mean((outcome.volume.decode()[:, :8].astype(float) - noise[:, :8]) ** 2))

    plain, marked = (
        run(job_of(noise, ratio=6, **options), Control())[1] for options in ({}, {"mask": mask, "mask_weight": 50})
    )
    assert error(marked) < error(plain)


@pytest.mark.usefixtures("quick", "talkative")
def test_the_preview_shows_the_plane_asked_for_and_gets_better():
    control, data = Control(), waves()
    control.view = View((3, slice(None), slice(None)), 1.0)
    shown: list[np.ndarray[Any, Any]] = []

    def look(event: Any) -> None:
        if isinstance(event, Previewed):
            shown.append(event.image)
            control.view = (
                View((4, slice(None), slice(None)), 0.5) if len(shown) % 2 else View((3, *[slice(None)] * 2), 1.0)
            )

    settings = Settings("fast", device="cpu", time_limit=3.0, model="tinc")
    job = Job(data, Target.ratio(8), Metadata.default(3), settings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TRAINING_STEPS, "fast", 100000)
        run(job, control, look)
    assert shown[0].shape == (24, 20)
    assert shown[1].shape == (12, 10)
    errors = [np.abs(image - data[3].astype(float)).mean() for image in shown[::2]]
    assert errors[-1] < 0.5 * errors[0]


def test_previews_take_at_most_a_tenth_of_the_time(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(worker.time, "monotonic", lambda: clock[0])
    pacer, shown = worker._Pacer(), 0

    def decode(*_: Any) -> Any:
        clock[0] += 0.05
        return np.zeros(1)

    for step in range(1000):  # the user never stops scrolling
        clock[0] += 0.01
        view = View((step,), 1.0)
        if pacer.due(view):
            pacer.timed(view, decode)
            shown += 1
    assert shown > 5
    assert 0.05 * shown <= 0.1 * clock[0]


def test_a_new_plane_is_previewed_before_the_second_is_over(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(worker.time, "monotonic", lambda: clock[0])
    pacer = worker._Pacer()
    pacer.timed(View((1,), 1.0), lambda *_: np.zeros(1))
    clock[0] = 0.35
    assert not pacer.due(View((1,), 1.0))
    assert pacer.due(View((2,), 1.0))
    clock[0] = 1.1
    assert pacer.due(View((1,), 1.0))


@pytest.mark.usefixtures("quick")
def test_torchs_threads_are_given_back():
    torch.set_num_threads(2)
    try:
        run(job_of(waves()), Control())
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def test_told_to_quit_the_thread_ends_and_closes_the_compression(qtbot, monkeypatch):
    closed = threading.Event()

    def endless(*_: Any, **__: Any) -> Any:
        try:
            while True:
                yield story.Progress("training", 1, 10, 1.0, 1.0, 1.0, 1.0, 1.0)
        finally:
            closed.set()

    monkeypatch.setattr(story, "compress_steps", endless)
    events: list[Any] = []
    finished: list[bool] = []
    thread = worker.start(job_of(waves()), Control(), events.append, events.append, lambda: finished.append(True))
    qtbot.waitUntil(lambda: len(events) > 5, timeout=20000)
    thread.quit()
    qtbot.waitUntil(lambda: bool(finished), timeout=5000)
    del thread
    qtbot.waitUntil(closed.is_set, timeout=5000)

"""The time that a compression will take, told before it begins from what was measured on this machine."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from synthetic import blobs

from napari_tinc.encode import compression as story
from napari_tinc.encode import speeds
from napari_tinc.encode.speeds import Run, estimate, remember
from napari_tinc.errors import InputError
from napari_tinc.settings import Settings
from napari_tinc.target import Target

FAST = Run("fast", "auto", "cpu", "uint16", 10**6, False, 0.6)


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Begin without any runs, in a process whose first run is over."""
    path = tmp_path / "cache" / "speeds.json"
    monkeypatch.setattr(speeds, "store", lambda kind="speeds": path)
    monkeypatch.setattr(speeds, "_runs", itertools.count(1))
    return path


def test_what_was_never_measured_is_unknown() -> None:
    assert estimate(10**6, np.uint16) is None
    remember(FAST)
    assert estimate(10**6, np.uint16, "balanced", "tinc+wavelet") is None
    assert estimate(10**6, np.uint16) is not None


def test_a_run_like_an_earlier_one_takes_about_as_long() -> None:
    for seconds in (0.5, 0.6, 0.7):
        remember(Run("fast", "auto", "cpu", "uint16", 10**6, False, seconds))
    found = estimate(10**6, np.uint16)
    assert found is not None
    assert 0.3 < found.low < 0.5
    assert found.high is not None
    assert 0.7 < found.high < 1.1


def test_time_grows_with_the_voxels_and_is_less_certain_far_from_what_was_measured() -> None:
    remember(FAST)
    same, far = estimate(10**6, np.uint16), estimate(64 * 10**6, np.uint16)
    assert same is not None
    assert far is not None
    assert same.high is not None
    assert far.high is not None
    assert far.low < 64 * 0.6 < far.high
    assert far.high / far.low > same.high / same.low


def test_presets_that_may_train_take_from_a_trial_to_a_whole_training() -> None:
    remember(FAST)
    first = estimate(10**6, np.uint16, "balanced")
    assert first is not None
    assert first.high is None  # at least so long; nobody knows how long
    remember(Run("balanced", "auto", "cpu", "uint16", 10**6, False, 6.0))
    remember(Run("balanced", "auto", "cpu", "uint16", 10**6, True, 90.0))
    both = estimate(10**6, np.uint16, "balanced")
    assert both is not None
    assert both.low < 6 < 90 < (both.high or 0)


def test_other_devices_do_not_tell_the_time_of_this_one() -> None:
    remember(Run("best", "tinc", "cuda", "uint16", 10**6, True, 9.0))
    assert estimate(10**6, np.uint16, "best", "tinc", "cpu") is None
    assert estimate(10**6, np.uint16, "best", "tinc", "cuda") is not None
    assert estimate(10**6, np.uint16, "best", "tinc", "auto") is not None


def test_a_compression_is_remembered_but_not_one_that_was_cut_short() -> None:
    volume = blobs((16, 20, 24))
    story.compress(volume, Target.ratio(12), device="cpu", time_limit=60)
    steps = story.compress_steps(volume, Target.ratio(12), Settings(device="cpu"), should_stop=lambda: True)
    list(steps)
    next(story.compress_steps(volume, Target.ratio(12), Settings(device="cpu")))
    assert speeds.remembered() == []
    story.compress(volume, Target.ratio(12), device="cpu")
    [run] = speeds.remembered()
    assert (run.preset, run.model, run.dtype, run.voxels) == ("fast", "auto", "uint16", volume.size)
    assert not run.trained
    assert 0 < run.seconds < 60


def test_calibrating_makes_the_first_estimate_possible_and_is_done_once() -> None:
    story.calibrate()
    assert estimate(64**3, np.uint16) is not None
    story.calibrate()
    assert len(speeds.remembered()) == 1


def test_the_first_run_of_a_process_counts_only_where_loading_is_a_small_part(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(speeds, "_runs", itertools.count())
    remember(FAST)
    assert speeds.remembered() == []
    monkeypatch.setattr(speeds, "_runs", itertools.count())
    remember(Run("fast", "auto", "cpu", "uint16", 10**8, False, 60.0))
    assert len(speeds.remembered()) == 1


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[1]", b'[{"preset": 1}]', b"[" * 10**5, json.dumps([{"a": 1}]).encode(), b"null"]
)
def test_a_damaged_cache_is_as_good_as_none(content: bytes, store: Path) -> None:
    store.parent.mkdir()
    store.write_bytes(content)
    assert estimate(10**6, np.uint16) is None
    remember(FAST)
    assert speeds.remembered() == [FAST]


def test_a_cache_that_cannot_be_written_stops_nothing(store: Path) -> None:
    store.parent.write_text("a file where the folder should be")
    remember(FAST)
    assert speeds.remembered() == []


def test_no_voxels_are_refused() -> None:
    with pytest.raises(InputError, match="at least one voxel"):
        estimate(0, np.uint16)


def test_an_estimate_loads_no_torch() -> None:
    code = (
        "import sys; from napari_tinc.encode.speeds import estimate; estimate(10, 'uint8');"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

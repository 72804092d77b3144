"""Presets that train: a trial of seconds says whether networks may pay; if not, the file of ``fast`` comes at once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from synthetic import blobs

from napari_tinc.encode import compression as story
from napari_tinc.encode import training, trial
from napari_tinc.progress import Progress
from napari_tinc.settings import Settings
from napari_tinc.system.steps import complete
from napari_tinc.target import Target

NOISE = np.random.default_rng(3).integers(0, 1000, (24, 30, 28), np.uint16)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Optimiser steps asked of every training."""
    asked: list[int] = []
    prepare = training.prepare_training

    def noted(draft: Any, bits: float, steps: int, *rest: Any) -> Any:
        asked.append(steps)
        return prepare(draft, bits, steps, *rest)

    monkeypatch.setattr(training, "prepare_training", noted)
    return asked


def compressed(volume: Any, preset: str) -> tuple[Any, list[Progress]]:
    seen: list[Progress] = []
    steps = story.compress_steps(volume, Target.ratio(12), Settings(preset=preset, device="cpu"))
    return complete(steps, seen.append), seen


def test_where_networks_cannot_pay_a_file_as_good_as_that_of_fast_comes_after_two_short_trainings(
    trained: list[int],
) -> None:
    fast, _ = compressed(NOISE, "fast")
    assert trained == []
    result, seen = compressed(NOISE, "balanced")
    assert trained == [75, 150]
    assert result.nbytes <= NOISE.nbytes / 12
    # A few bytes say what the trial found; directions may be better than the wavelets.
    assert float(result.provenance["psnr"]) > float(fast.provenance["psnr"]) - 0.1
    assert result.header.model == fast.header.model
    assert float(result.provenance["promised_dB"]) < trial.WORTH
    assert {"trying", "coding"} <= {progress.phase for progress in seen}
    assert [progress.note for progress in seen if progress.note] == [story.NO_NETWORKS]


def test_where_networks_may_pay_they_are_trained(trained: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(story.TRAINING_STEPS, "fast", 40)
    monkeypatch.setitem(story.TRAINING_STEPS, "balanced", 160)
    monkeypatch.setattr(trial, "extrapolated", lambda gains, doublings: 1.4)
    result, seen = compressed(blobs((24, 30, 28)), "balanced")
    assert trained[:3] == [75, 150, 40]
    assert result.provenance["promised_dB"] == 1.4
    assert not any(progress.note for progress in seen)


def test_a_trial_can_be_stopped_and_the_file_of_fast_remains(trained: list[int]) -> None:
    volume = blobs((24, 30, 28))
    steps = story.compress_steps(
        volume, Target.ratio(12), Settings(preset="best", device="cpu"), should_stop=lambda: len(trained) > 0
    )
    result = complete(steps)
    assert trained == [75]
    np.testing.assert_array_equal(result.decode(), compressed(volume, "fast")[0].decode())


def test_every_doubling_ahead_is_hoped_to_be_worth_what_the_last_one_was() -> None:
    assert trial.extrapolated([-1.8, -1.0], 3) == pytest.approx(-1.0 + 3 * 0.8)
    assert trial.extrapolated([-1.8, -1.0], -1) == -1.0


def test_a_volume_too_small_for_networks_is_not_tried(trained: list[int]) -> None:
    volume = blobs((6, 8, 8)).astype(np.uint8)
    fast, best = (story.compress(volume, Target.size(260), preset=preset, device="cpu") for preset in ("fast", "best"))
    assert trained == []
    assert replace(best.header, provenance={}) == replace(fast.header, provenance={})

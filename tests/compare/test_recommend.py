"""What is recommended, that auto does the same, and that the verdict is honest."""

from __future__ import annotations

import math
from dataclasses import fields

import numpy as np
import pytest
from synthetic import blobs

from napari_tinc.compare.candidates import Candidate
from napari_tinc.compare.measures import Measures, Truth
from napari_tinc.compare.recommend import NOISE_CONSISTENCY, Facts, answer, facts_of, recommend, verdicts
from napari_tinc.compare.results import Result
from napari_tinc.encode.compression import compress
from napari_tinc.format import BETWEEN
from napari_tinc.target import Target


def result(candidate: Candidate, psnr: float, ratio: float = 64.0, seconds: float = 0.5) -> Result:
    numbers = dict.fromkeys((field.name for field in fields(Measures)), math.nan) | {"psnr": psnr}
    costs = {"encode_seconds": seconds, "decode_seconds": 0.1, "peak_bytes": 1.0}
    return Result(candidate, ratio, 1000, costs=costs, measures=Measures(**numbers), octants=np.array([[psnr]]))


SHALLOW, EVEN, AUTO = (Candidate.tinc(f"{name}/equal") for name in ("shallow", "even", "auto"))


@pytest.mark.parametrize(("consistency", "strategy"), [(0.9, "shallow"), (0.65, "even"), (0.3, "deep"), (None, "even")])
def test_the_recommendation_names_its_numbers(consistency, strategy):
    advice = recommend(Facts(consistency, 0.25))
    assert advice.strategy == f"{strategy}/equal"
    assert "25%" in advice.reason
    assert consistency is None or f"{consistency:.2f}" in advice.reason


def test_auto_compresses_with_what_is_recommended():
    volume = blobs((32, 32, 32))
    facts = facts_of(Truth(volume, "zyx"))
    compressed = compress(volume, Target.ratio(10), preset="fast", time_limit=0.2, device="cpu", model="tinc")
    assert compressed.provenance["consistency"] == pytest.approx(facts.consistency, abs=0.005)
    assert BETWEEN[compressed.header.between] == recommend(facts).between


def test_white_noise_scores_what_the_advice_warns_of():
    noise = np.random.default_rng(0).normal(size=(48, 48, 48)).astype("f4")
    facts = facts_of(Truth(noise, "zyx"))
    assert facts.consistency == pytest.approx(NOISE_CONSISTENCY, abs=0.01)
    assert "noise alone" in recommend(facts).reason
    assert "noise alone" not in recommend(Facts(0.95, 0.5)).reason


def test_foreground_is_the_share_above_the_noise():
    volume = np.random.default_rng(0).normal(100, 2, (32, 32, 32))
    volume[:8] += 500
    assert facts_of(Truth(volume.astype("f4"), "zyx")).foreground == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize(
    ("even", "right", "said"),
    [(29.0, True, "was the best of 2"), (30.05, True, "within 0.05 dB"), (31.0, False, "1.00 dB better")],
)
def test_the_verdict_says_whether_it_was_right(even, right, said):
    (verdict,) = verdicts([result(SHALLOW, 30.0), result(EVEN, even)], Facts(0.9, 0.5))
    assert verdict.right is right
    assert said in verdict.text


@pytest.mark.parametrize(
    ("detail", "said"), [(34.05, "none of ours is more than 0.1 dB better"), (35.0, "1.00 dB better")]
)
def test_the_verdict_says_how_the_default_did(detail, said):
    found = [result(SHALLOW, 30.0), result(EVEN, 29.0), result(Candidate.tinc("default"), 34.0)]
    (verdict,) = verdicts([*found, result(Candidate.tinc("wavelet"), detail)], Facts(0.9, 0.5))
    assert verdict.right, "among networks"
    assert "was the best of 2 network strategies" in verdict.text
    assert "The default, default fast, has 34.00 dB: " in verdict.text
    assert said in verdict.text


DEFAULT, SPERR, AV1 = Candidate.tinc("default"), Candidate("sperr"), Candidate("av1")


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (
            [result(SHALLOW, 30.0), result(DEFAULT, 34.0), result(SPERR, 33.5)],
            "use Compress with preset fast and model auto: 34.00 dB in 0.5 s; the codec sperr reaches 33.50 dB, "
            "0.50 dB less.",
        ),
        (
            [result(DEFAULT, 34.0), result(AV1, 34.5, seconds=7.0)],
            "use the codec av1: 34.50 dB in 7.0 s; Compress with preset fast and model auto reaches 34.00 dB, "
            "0.50 dB less.",
        ),
        (
            [result(DEFAULT, 34.0), result(AV1, 34.05)],
            "use Compress with preset fast and model auto: 34.00 dB in 0.5 s; the codec av1 reaches 34.05 dB, "
            "0.05 dB more.",
        ),
        (
            [result(SPERR, 33.0, seconds=9.0), result(AV1, 32.95, seconds=2.0)],
            "use the codec av1: 32.95 dB in 2.0 s.",
        ),
        (
            [result(DEFAULT, math.inf), result(AV1, 50.0)],
            "use Compress with preset fast and model auto: no loss in 0.5 s; the codec av1 reaches 50.00 dB.",
        ),
        (
            [result(DEFAULT, math.inf), result(AV1, math.inf)],
            "use Compress with preset fast and model auto: no loss in 0.5 s; the codec av1 reaches no loss.",
        ),
        (
            [result(EVEN, 31.0)],
            "use Compress with preset fast and model tinc, even between levels, equal within levels: 31.00 dB in "
            "0.5 s.",
        ),
    ],
)
def test_the_answer_names_what_to_choose_and_what_it_comes_to(found, said):
    assert answer(found) == f"At 64 times smaller {said}"


def test_the_answer_is_one_for_every_ratio_and_none_where_nothing_has_finished():
    lines = answer([result(DEFAULT, 34.0), result(SPERR, 35.0, 256.0)]).splitlines()
    assert [line.split(" use ")[0] for line in lines] == ["At 64 times smaller", "At 256 times smaller"]
    assert answer([Result(SPERR, 64.0, 1000, problem="unavailable")]) == ""


def test_auto_counts_as_what_it_stands_for_and_a_better_peer_is_named():
    found = [result(AUTO, 30.0), result(EVEN, 29.0), result(Candidate("av1"), 34.5)]
    (verdict,) = verdicts(found, Facts(0.9, 0.5))
    assert verdict.right
    assert "av1 with 34.50 dB" in verdict.text


def test_a_candidate_without_loss_is_better_than_any_other_and_its_name_says_so():
    exact = result(DEFAULT, math.inf)
    (verdict,) = verdicts([exact, result(EVEN, 30.0), result(SHALLOW, 31.0)], Facts(0.9, 0.5))
    assert "The default, default fast, has no loss: none of ours is more than 0.1 dB better." in verdict.text
    (verdict,) = verdicts([result(DEFAULT, 40.0), result(Candidate.tinc("wavelet"), math.inf)], Facts(0.9, 0.5))
    assert "The default, default fast, has 40.00 dB: wavelet fast loses nothing." in verdict.text


def test_without_the_recommended_candidate_there_is_no_verdict_and_ratios_are_judged_apart():
    found = [result(EVEN, 30.0), result(EVEN, 25.0, 256), result(SHALLOW, 25.5, 256)]
    first, second = verdicts(found, Facts(0.9, 0.5))
    assert (first.target_ratio, first.right) == (64, None)
    assert (second.target_ratio, second.right) == (256, True)

"""The comparison as a user meets it: equal bytes, one table, stop and go on, nothing measured twice."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import imagecodecs
import numpy as np
import psutil
import pytest
from comparisons import RATIOS, quick
from skimage.metrics import peak_signal_noise_ratio
from synthetic import blobs

from napari_tinc.arrays.metadata import Metadata
from napari_tinc.compare import peers, process, video
from napari_tinc.compare.candidates import OF_FAMILIES, STRATEGIES, Candidate, candidates, default_candidates
from napari_tinc.compare.engine import Comparison
from napari_tinc.compare.results import COLUMNS
from napari_tinc.encode.compression import compress
from napari_tinc.errors import InputError, TincError
from napari_tinc.format import BETWEEN
from napari_tinc.settings import Settings
from napari_tinc.target import Target

SLOW = Candidate.tinc("deep/equal@1", "best", device="cpu")


def everything(comparison: Comparison, **options) -> list:
    return list(comparison.run(**options))


def workers_of(pid: int) -> list[psutil.Process]:
    found = []
    for child in psutil.Process(pid).children(recursive=True):
        try:
            if "napari_tinc.compare.worker" in child.cmdline():
                found.append(child)
        except psutil.NoSuchProcess:
            continue
    return found


@pytest.fixture
def no_processes(monkeypatch):
    """Any candidate that would really run fails the test."""

    def refuse(*arguments, **options):
        raise AssertionError("a worker was started")

    monkeypatch.setattr(process, "run", refuse)


def test_no_file_is_over_budget_and_ours_use_it_up(finished):
    for result in finished.results:
        assert result.ok, result.problem
        assert result.nbytes <= result.budget == int(finished.truth.array.nbytes / result.target_ratio)
        if result.candidate.codec in ("tinc", "sperr"):
            assert result.nbytes >= 0.97 * result.budget


def test_the_table_is_tidy_and_complete(finished):
    table = finished.table()
    assert tuple(table.columns) == COLUMNS
    assert list(zip(table["target_ratio"], table["candidate"], strict=True)) == [
        (ratio, candidate.name) for ratio in RATIOS for candidate in finished.candidates
    ]
    assert (table["problem"] == "").all()
    numbers = table[["psnr", "psnr_dtype", "ssim", "dice", "cldice", "dice_mask", "encode_seconds", "peak_bytes"]]
    assert np.isfinite(numbers.to_numpy(float)).all()
    assert table["psnr_clean"].isna().all()


def test_the_numbers_are_those_of_the_decoded_file(finished, volume):
    for result in finished.results:
        decoded, measures = result.decode(), result.measures
        reference = peak_signal_noise_ratio(volume.astype(float), decoded.astype(float), data_range=np.ptp(volume))
        assert measures.psnr == pytest.approx(reference)
        assert measures.max_error == np.abs(volume.astype(int) - decoded.astype(int)).max()
        truth, found = volume > 2000, decoded >= finished.truth.thresholds[0]
        assert measures.dice_mask == pytest.approx(2 * (truth & found).sum() / (truth.sum() + found.sum()))
        assert result.path.stat().st_size == result.nbytes


def test_octants_lie_on_one_grid_for_all(finished, volume):
    tree, result = finished.truth.octants, finished.results[2]
    difference = np.square(volume.astype(float) - result.decode())
    for box, cell in zip(tree.boxes(tree.depth), tree.grid_index(tree.depth), strict=True):
        expected = 10 * math.log10(float(np.ptp(volume)) ** 2 / difference[box].mean())
        assert result.octants[0][tuple(cell)] == pytest.approx(expected)
    assert result.measures.worst_octant_psnr == result.octants.min()
    bar = float(np.median(result.octants))
    row = finished.table(bar).iloc[2]
    assert row["octants_below_bar"] == pytest.approx((result.octants < bar).mean())


def test_one_of_ours_opens_as_a_compressed_volume_and_a_peer_does_not(finished):
    ours, peer = finished.result("even/equal@1 fast", 12.0), finished.result("sperr", 12.0)
    np.testing.assert_array_equal(ours.volume().decode(), ours.decode())
    with pytest.raises(InputError, match="sperr"):
        peer.volume()


def test_stored_results_come_back_without_a_worker(finished, volume, cache, no_processes):
    again = Comparison(volume, candidates=finished.candidates, ratios=RATIOS, mask=volume > 2000, cache=cache)
    events = everything(again)
    assert [event.kind for event in events] == ["finished"] * 8
    assert all(event.result.stored for event in events)
    assert again.table().equals(finished.table())


def test_another_mask_measures_again_but_makes_no_new_file(finished, volume, cache):
    chosen = [finished.candidates[2]]
    other = Comparison(volume, candidates=chosen, ratios=RATIOS[:1], mask=volume > 3000, clean=volume, cache=cache)
    everything(other)
    before, after = finished.results[2], other.results[0]
    assert after.to_bytes() == before.to_bytes()
    assert after.costs == before.costs
    assert after.measures.dice == before.measures.dice
    assert after.measures.dice_mask != before.measures.dice_mask
    assert after.measures.psnr_clean == after.measures.psnr


def test_another_volume_finds_nothing(finished, volume, cache):
    changed = volume.copy()
    changed[0, 0, 0] += 1
    for array, metadata in ((changed, None), (volume, Metadata("zyx", (2.0, 1.0, 1.0), ("", "", "")))):
        other = Comparison(array, metadata=metadata, candidates=finished.candidates, ratios=RATIOS, cache=cache)
        assert list(other.stored()) == []


@pytest.mark.parametrize("damage", ["file", "json", "gone"])
def test_what_is_damaged_in_the_cache_is_made_again(volume, tmp_path, damage):
    def compared() -> Comparison:
        return Comparison(volume, candidates=[Candidate("sperr")], ratios=RATIOS[:1], cache=tmp_path)

    first = compared()
    everything(first)
    path = first.results[0].path
    whole = path.read_bytes()
    if damage == "file":
        path.write_bytes(whole[:-1])
    elif damage == "json":
        path.with_suffix(".json").write_text('{"encode_')
    else:
        path.unlink()
    second = compared()
    assert list(second.stored()) == []
    everything(second)
    assert second.results[0].to_bytes() == whole


def test_stopping_ends_the_running_and_keeps_the_finished(volume, tmp_path, no_leftovers):
    def compared() -> Comparison:
        return Comparison(volume, candidates=[Candidate("sperr"), SLOW], ratios=RATIOS[:1], cache=tmp_path)

    comparison = compared()
    events = comparison.run()
    for event in events:
        if event.candidate == SLOW and event.phase == "training":
            break
    assert workers_of(os.getpid())
    events.close()
    assert not workers_of(os.getpid())
    assert [result.candidate.name for result in comparison.results] == ["sperr"]
    assert [result.candidate.name for result in compared().stored()] == ["sperr"]


@pytest.fixture
def no_leftovers(tmp_path, monkeypatch):
    """Temporary folders are gone afterwards."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    yield
    assert list(folder.iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="kills a process group")
def test_after_a_crash_no_worker_lives_on_and_the_finished_are_there(tmp_path):
    program = tmp_path / "crash.py"
    program.write_text(
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from synthetic import blobs\nfrom napari_tinc import Candidate, Comparison\n"
        "slow = Candidate.tinc('deep/equal@1', 'best', device='cpu')\n"
        "both = [Candidate('sperr'), slow]\n"
        "comparison = Comparison(blobs((24, 30, 27)), candidates=both, ratios=[12], cache=sys.argv[2])\n"
        "for event in comparison.run(): print(event.phase, flush=True)\n"
    )
    command = [sys.executable, str(program), str(Path(__file__).parents[1]), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as crashing:
        for line in crashing.stdout:
            if line.strip() == "training":
                break
        orphans = workers_of(crashing.pid)
        crashing.send_signal(signal.SIGKILL)
    assert orphans
    assert psutil.wait_procs(orphans, timeout=5)[1] == []
    stored = Comparison(blobs((24, 30, 27)), candidates=[Candidate("sperr")], ratios=[12], cache=tmp_path).stored()
    assert [result.candidate.name for result in stored] == ["sperr"]


def test_without_any_peer_all_are_listed_with_the_reason(volume, tmp_path, monkeypatch):
    for name in ("SPERR", "SZ3", "ZFP", "JPEG2K", "JPEGXL"):
        monkeypatch.setattr(getattr(imagecodecs, name), "available", False)
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    video.missing.cache_clear()
    try:
        chosen = [quick(), *map(Candidate, peers.PEERS)]
        comparison = Comparison(volume, candidates=chosen, ratios=RATIOS[:1], cache=tmp_path)
        everything(comparison)
    finally:
        video.missing.cache_clear()
    table = comparison.table().set_index("candidate")
    assert table.loc["even/equal@1 fast", "problem"] == ""
    for name in peers.PEERS:
        assert table.loc[name, "problem"].startswith("unavailable: ")
        assert math.isnan(table.loc[name, "psnr"])


def test_what_cannot_reach_the_budget_is_a_row_that_says_so_and_is_remembered(volume, tmp_path):
    chosen = [quick(), Candidate("hevc")]
    comparison = Comparison(volume, candidates=chosen, ratios=[400.0], cache=tmp_path)
    everything(comparison)
    assert "expected a budget of at least" in comparison.results[0].problem
    assert "at its coarsest setting" in comparison.results[1].problem
    again = Comparison(volume, candidates=chosen, ratios=[400.0], cache=tmp_path)
    assert [result.problem for result in again.stored()] == [result.problem for result in comparison.results]
    with pytest.raises(InputError, match="coarsest"):
        comparison.results[1].decode()


def test_a_worker_that_dies_is_a_row_that_says_so_and_the_others_go_on(volume, tmp_path, monkeypatch):
    real, program = process.subprocess.Popen, "import os, sys; sys.stderr.write('out of luck'); os.abort()"
    commands = iter([[sys.executable, "-c", program]])
    monkeypatch.setattr(
        process.subprocess, "Popen", lambda command, **options: real(next(commands, command), **options)
    )
    comparison = Comparison(
        volume, candidates=[Candidate("sz3"), Candidate("sperr")], ratios=RATIOS[:1], cache=tmp_path
    )
    everything(comparison)
    assert comparison.results[0].problem.startswith("failed: ")
    assert "out of luck" in comparison.results[0].problem
    assert comparison.results[1].ok
    again = Comparison(volume, candidates=[Candidate("sz3")], ratios=RATIOS[:1], cache=tmp_path)
    assert list(again.stored()) == [], "a crash is no result to remember"


def test_channels_and_time_are_compared_as_well(tmp_path):
    array = np.stack([blobs((12, 20, 20)), blobs((12, 20, 20), seed=1)], axis=1)
    metadata = Metadata("zcyx", (1.0,) * 4, ("",) * 4)
    comparison = Comparison(array, metadata=metadata, candidates=[Candidate("zfp")], ratios=[4], cache=tmp_path)
    everything(comparison)
    result = comparison.results[0]
    assert result.decode().shape == array.shape
    assert result.octants.shape[0] == 2
    assert len(comparison.truth.thresholds) == 2


def test_workers_of_a_cluster_give_the_same_files(finished, volume, tmp_path):
    distributed = pytest.importorskip("distributed")
    chosen = [Candidate("sperr"), Candidate("av1")]
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None
    ) as cluster:
        comparison = Comparison(volume, candidates=chosen, ratios=RATIOS[:1], mask=volume > 2000, cache=tmp_path)
        everything(comparison, scheduler=cluster.scheduler_address)
        for result in comparison.results:
            known = finished.result(result.candidate.name, 12.0)
            assert result.to_bytes() == known.to_bytes()
            assert math.isnan(known.measures.psnr_clean), "no clean volume was given"
            assert replace(result.measures, psnr_clean=0) == replace(known.measures, psnr_clean=0)
        slow = Comparison(volume, candidates=[SLOW], ratios=RATIOS[:1], cache=tmp_path)
        events = slow.run(scheduler=cluster.scheduler_address)
        while not workers_of(os.getpid()):
            next(events)
        events.close()
        deadline = time.monotonic() + 5
        while workers_of(os.getpid()) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not workers_of(os.getpid())


def test_a_scheduler_needs_its_package(volume, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    comparison = Comparison(volume, candidates=[Candidate("sperr")], cache=tmp_path)
    with pytest.raises(InputError, match="pip install"):
        everything(comparison, scheduler="tcp://127.0.0.1:8786")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"ratios": []}, "at least one ratio"),
        ({"ratios": [0.5]}, "smaller than the volume"),
        ({"candidates": []}, "at least one strategy"),
        ({"candidates": [Candidate("sperr"), Candidate("sperr")]}, "two called 'sperr'"),
        ({"mask": np.zeros((3, 3, 3))}, "mask of the volume's shape"),
        ({"clean": np.zeros((3, 3, 3))}, "clean volume of the volume's shape"),
    ],
)
def test_what_makes_no_sense_is_refused(volume, options, said):
    with pytest.raises(TincError, match=said):
        Comparison(volume, **options)


def test_a_volume_of_one_value_is_refused():
    with pytest.raises(InputError, match="7 everywhere"):
        Comparison(np.full((8, 8, 8), 7, "u1"))


def test_no_jobs_are_refused(volume, tmp_path):
    with pytest.raises(InputError, match="at least one job"):
        everything(Comparison(volume, candidates=[Candidate("sperr")], cache=tmp_path), jobs=0)


def test_auto_is_made_once_and_has_the_bytes_of_what_it_stands_for(volume, tmp_path, monkeypatch):
    small, made, real = volume[:8, :12, :12], [], process.run
    monkeypatch.setattr(process, "run", lambda job, *rest: made.append(job) or real(job, *rest))
    fixed = {"preset": "fast", "device": "cpu"}  # no time limit: the bytes are to be the same
    auto = Candidate.tinc("auto/equal@1", **fixed)
    reference = compress(small, Target.ratio(6), levels=1, model="tinc", **fixed)
    other = Candidate.tinc(f"{BETWEEN[reference.header.between]}/equal@1", **fixed)

    def compared(*chosen: Candidate) -> Comparison:
        comparison = Comparison(small, candidates=chosen, ratios=[6.0], cache=tmp_path)
        last = everything(comparison)[-1]
        assert last.done == last.total == len(chosen)
        return comparison

    both = compared(auto, other)
    assert [one.to_bytes() for one in both.results] == [reference.to_bytes()] * 2
    assert list(both.table()["same_as"]) == [other.name, ""]
    (alone,) = compared(auto).results
    assert (alone.stored, alone.label) == (True, f"auto/equal@1 fast = {other.name}")
    assert alone.to_bytes() == reference.to_bytes()
    assert len(made) == 1, "trained once, found again under both names"


def test_strategies_are_read_and_named_alike():
    assert Candidate.tinc("shallow/importance@3", "best").settings == Settings(
        "best", "shallow", "importance", 3, model="tinc"
    )
    assert Candidate.tinc("auto").settings == Settings("fast", "auto", "equal", model="tinc")
    for name in (*STRATEGIES, *OF_FAMILIES, "deep/variance@2", "even/equal@1"):
        assert Candidate.tinc(name).name == f"{name} fast"
    assert [candidate.name for candidate in default_candidates()] == [
        *(f"{name} fast" for name in STRATEGIES), *peers.PEERS
    ]  # fmt: skip
    assert candidates(["siren", "siren"], ["sperr"])[1] == Candidate("sperr")


@pytest.mark.parametrize("text", ["sideways/equal", "even/best", "even/equal@x", "even/equal@99", "even/map"])
def test_a_strategy_that_is_none_is_refused(text):
    with pytest.raises(InputError, match="expected"):
        Candidate.tinc(text)


def test_the_cache_holds_json_that_says_what_it_cost(finished):
    said = json.loads(finished.results[0].path.with_suffix(".json").read_text())
    assert said["encode_seconds"] > 0
    # Linux tells; a training run needs more than the volume's own 39 kB, and less than a gigabyte.
    assert 1e6 < said["peak_bytes"] < 1e9


def test_a_cache_that_cannot_be_written_to_is_an_error_in_words(volume, tmp_path):
    (tmp_path / "file").write_text("no folder")
    comparison = Comparison(volume, candidates=[Candidate("sperr")], ratios=RATIOS[:1], cache=tmp_path / "file")
    with pytest.raises(InputError, match="expected to keep results"):
        everything(comparison)
    assert not workers_of(os.getpid())

"""Many files in one go: what fails stops nothing else, nothing is lost, and the end says what became of each."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from synthetic import blobs
from typer.testing import CliRunner, Result

from napari_tinc.cli.app import app
from napari_tinc.encode import batch
from napari_tinc.encode.batch import Job, Options, compress_files, find_jobs
from napari_tinc.encode.speeds import Estimate
from napari_tinc.errors import InputError
from napari_tinc.settings import Settings
from napari_tinc.system.steps import complete
from napari_tinc.target import Target
from napari_tinc.volume import CompressedVolume

VOLUME = blobs((6, 24, 20))
OPTIONS = Options(Target.ratio(8), Settings(device="cpu"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three volumes, one of them damaged, and a file that is none."""
    where = tmp_path / "in"
    where.mkdir()
    tifffile.imwrite(where / "a.ome.tif", VOLUME, photometric="minisblack")
    (where / "b.tif").write_bytes(b"II*\0 cut short")
    np.save(where / "c.npy", VOLUME[:, ::-1])
    (where / "notes.txt").write_text("not a volume")
    return where


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(app, ["compress", *map(str, arguments)])
    assert "Traceback" not in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result


def test_a_folder_is_compressed_and_a_damaged_file_stops_nothing(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    result = run(folder, "--out-dir", out, "--ratio", 8, "--device", "cpu")
    assert result.exit_code == 1
    assert sorted(path.name for path in out.iterdir()) == ["a.tinc", "c.tinc"]
    assert CompressedVolume.open(out / "c.tinc").shape == VOLUME.shape
    lines = result.stdout.splitlines()
    assert [line.startswith("failed: ") for line in lines] == [False, True, False, False]
    assert "b.tif" in lines[1]
    assert lines[-1] == "2 of 3 volumes compressed, 1 failed"


def test_files_by_name_all_succeed_and_json_tells_of_each(folder: Path, tmp_path: Path) -> None:
    result = run(folder / "a.ome.tif", folder / "c.npy", "--out-dir", tmp_path, "--ratio", 8, "--json")
    assert result.exit_code == 0
    assert result.stderr == ""
    said = json.loads(result.stdout)
    assert (said["done"], said["failed"]) == (2, 0)
    for entry, name in zip(said["files"], ("a.tinc", "c.tinc"), strict=True):
        assert entry["output"] == str(tmp_path / name)
        assert entry["file_bytes"] == (tmp_path / name).stat().st_size <= VOLUME.nbytes / 8
        assert entry["psnr"] > 20


def test_outputs_that_exist_are_kept_unless_told_otherwise(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "a.tinc").write_bytes(b"precious")
    result = run(folder / "a.ome.tif", folder / "c.npy", "--out-dir", tmp_path, "--ratio", 8, "--json")
    assert result.exit_code == 1
    first, second = json.loads(result.stdout)["files"]
    assert "--overwrite" in first["error"]
    assert "error" not in second
    assert (tmp_path / "a.tinc").read_bytes() == b"precious"
    assert run(folder / "a.ome.tif", "--out-dir", tmp_path, "--ratio", 8, "--overwrite").exit_code == 0
    assert (tmp_path / "a.tinc").read_bytes() != b"precious"


@pytest.mark.parametrize("names", [("x.tif", "x.npy"), ("x.tif", "X.ome.tif")])
def test_two_volumes_that_would_become_one_file_are_refused_before_any_work(
    names: tuple[str, str], tmp_path: Path
) -> None:
    result = run(*names, "--out-dir", tmp_path / "out", "--ratio", 8)
    assert result.exit_code == 1
    assert "x.tif" in result.stderr
    assert "rename one" in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_named_twice_is_compressed_once(folder: Path, tmp_path: Path) -> None:
    jobs = find_jobs([folder, folder / "c.npy"], tmp_path)
    assert [job.output.name for job in jobs] == ["a.tinc", "b.tinc", "c.tinc"]


def test_a_folder_without_volumes_and_too_many_names_are_refused(tmp_path: Path) -> None:
    assert "got none" in run(tmp_path, "--out-dir", tmp_path / "out").stderr
    assert "--out-dir" in run("a.tif", "b.tif", "c.tif").stderr
    assert "--out-dir" in run("a.tif", "b.tif").stderr


def test_what_goes_wrong_in_one_file_alone_is_told_in_words(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A defect of ours, a label image, and a folder that cannot be made."""
    compress_file, calls = batch.compress_file, []

    def faulty(job: Job, options: Options) -> object:
        calls.append(job)
        if len(calls) == 1:
            raise ZeroDivisionError("division by zero")
        return compress_file(job, options)

    monkeypatch.setattr(batch, "compress_file", faulty)
    np.save(folder / "labels.npy", np.kron(np.arange(27).reshape(3, 3, 3), np.ones((4, 4, 20))).astype("i4"))
    good = Job(folder / "c.npy", tmp_path / "c.tinc")
    jobs = [
        Job(folder / "a.ome.tif", tmp_path / "a.tinc"),
        Job(folder / "labels.npy", tmp_path / "labels.tinc"),
        Job(folder / "c.npy", folder / "notes.txt" / "c.tinc"),
        good,
    ]
    steps = []
    results = complete(compress_files(jobs, OPTIONS), steps.append)
    assert [bool(done.problem) for done in results] == [True, True, True, False]
    assert "report this as a bug" in results[0].problem
    assert "label image" in results[1].problem
    assert "folder" in results[2].problem
    assert results[3].job == good
    assert [step.done for step in steps if step.done is not None] == results
    assert {step.number for step in steps if step.progress is not None} >= {4}
    assert all(step.total == 4 for step in steps)


def test_closing_a_batch_keeps_what_is_finished_and_leaves_no_half_file(folder: Path, tmp_path: Path) -> None:
    jobs = [Job(folder / "a.ome.tif", tmp_path / "a.tinc"), Job(folder / "c.npy", tmp_path / "c.tinc")]
    steps = compress_files(jobs, OPTIONS)
    for step in steps:
        if step.number == 2 and step.progress is not None:
            break
    steps.close()
    assert [path.name for path in tmp_path.glob("*.*")] == ["a.tinc"]
    assert CompressedVolume.open(tmp_path / "a.tinc").shape == VOLUME.shape


def test_a_long_compression_says_so_at_its_start(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "estimate", lambda *args, **settings: Estimate(20.0, 150.0))
    result = run(folder / "c.npy", tmp_path / "c.tinc", "--ratio", 8)
    assert result.stderr.splitlines()[0] == "expected to take 20 s to 2 min"
    monkeypatch.setattr(batch, "estimate", lambda *args, **settings: Estimate(1.0, 3.0))
    result = run(folder / "c.npy", tmp_path / "d.tinc", "--ratio", 8)
    assert "expected" not in result.stderr


def test_a_missing_file_is_one_failure(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        find_jobs([], tmp_path)
    [done] = complete(compress_files(find_jobs([tmp_path / "none.tif"], tmp_path), OPTIONS))
    assert "none.tif" in done.problem

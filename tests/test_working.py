"""What a killed process leaves is removed by the next one; what a living one works on is not."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from synthetic import blobs

from napari_tinc import InputError, Metadata, read_volume, write_volume
from napari_tinc.compare.candidates import Candidate
from napari_tinc.compare.engine import Comparison
from napari_tinc.format import write_atomic
from napari_tinc.system import output
from napari_tinc.system.working import working_folder

fcntl = pytest.importorskip("fcntl", reason="the system has no locks on folders")

SAVING = """
import sys
from napari_tinc.system.output import replacing
with replacing(sys.argv[1], True) as partial:
    partial.write_bytes(b"half")
    print("begun", flush=True)
    sys.stdin.read()
"""


def begun(*command: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    return process


def wait_until_unlocked(folders: list[Path]) -> None:
    """Wait for a child that was born as its parent was killed: at first it holds its parent's locks."""
    for folder in folders:
        descriptor = os.open(folder, os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        os.close(descriptor)


def hidden(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith((".", "tinc-"))]


def test_what_a_killed_save_has_left_is_removed_by_the_next_one(tmp_path: Path) -> None:
    path = tmp_path / "a.tinc"
    path.write_bytes(b"old")
    with begun(SAVING, str(path)) as killed:
        killed.kill()
    assert len(hidden(tmp_path)) == 1
    assert path.read_bytes() == b"old"
    write_atomic(tmp_path / "b.tinc", b"new", overwrite=False)
    assert hidden(tmp_path) == []
    assert path.read_bytes() == b"old"


def test_what_another_process_is_still_saving_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.tinc"
    with begun(SAVING, str(path)) as other:
        write_atomic(tmp_path / "b.tinc", b"new", overwrite=False)
        assert len(hidden(tmp_path)) == 1
        other.communicate("")
    assert path.read_bytes() == b"half"
    assert hidden(tmp_path) == []


def test_only_what_has_our_name_is_removed(tmp_path: Path) -> None:
    others = [".tinc-part-of-my-thesis", ".tinc-part-0123456789abcdef.bak", "tinc-part-0123456789abcdef"]
    for name in others:
        (tmp_path / name).mkdir()
    precious = tmp_path / "precious"
    precious.mkdir()
    (tmp_path / f"{output.PARTIAL_PREFIX}0123456789abcdef").symlink_to(precious)
    (precious / "data").write_text("kept")
    write_atomic(tmp_path / "b.tinc", b"new", overwrite=False)
    assert all((tmp_path / name).is_dir() for name in others)
    assert (precious / "data").read_text() == "kept"


def test_many_at_a_time_do_not_take_one_another_for_dead(tmp_path: Path) -> None:
    failed: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(60):
                with working_folder(tmp_path, "tinc-test-") as folder:
                    (folder / "file").write_text("mine")
                    assert (folder / "file").read_text() == "mine"
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert hidden(tmp_path) == []


COMPARING = """
import sys
import numpy as np
from napari_tinc.compare.candidates import Candidate
from napari_tinc.compare.engine import Comparison
volume = np.random.default_rng(0).integers(0, 999, (24, 40, 40)).astype("u2")
for event in Comparison(volume, candidates=[Candidate("sperr")], ratios=(8,), cache=sys.argv[1]).run():
    print("begun", flush=True)
    sys.stdin.read()
"""


def test_the_volume_of_a_killed_comparison_is_removed_by_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    with begun(COMPARING, str(tmp_path / "cache")) as killed:
        killed.kill()
    left = [path for path in scratch.iterdir() if path.name.startswith("tinc-compare-")]
    assert any((path / "original.npy").exists() for path in left)
    wait_until_unlocked(left)
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    comparison = Comparison(blobs((8, 20, 20)), candidates=[Candidate("sperr")], ratios=(8,), cache=tmp_path / "cache")
    with closing(comparison.run()) as events:
        next(events)
    assert not [path for path in scratch.iterdir() if path.name.startswith("tinc-compare-")]


def test_a_comparison_without_room_for_its_volume_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    comparison = Comparison(blobs((8, 20, 20)), candidates=[Candidate("sperr")], ratios=(8,), cache=tmp_path / "cache")
    with pytest.raises(InputError, match="TMPDIR"):
        list(comparison.run())


CONSTANTS = [np.full((8, 64, 64), value, "u2") for value in (1, 2)]


def overwritten_until(stopped: threading.Event, path: Path) -> None:
    number = 0
    while not stopped.is_set():
        number += 1
        write_volume(path, CONSTANTS[number % 2], Metadata.default(3), overwrite=True)


def test_a_zarr_that_is_overwritten_while_it_is_read_is_never_mixed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(
        importlib.import_module("napari_tinc.files.zarr").CHUNK, "z", 1
    )  # many chunks, for a long time of reading
    path = tmp_path / "a.zarr"
    write_volume(path, CONSTANTS[0], Metadata.default(3))
    stopped = threading.Event()
    writer = threading.Thread(target=overwritten_until, args=(stopped, path))
    writer.start()
    refused: list[str] = []
    try:
        for _ in range(60):
            try:
                data = read_volume(path).data
            except InputError as error:
                refused.append(str(error))
            else:
                assert data.min() == data.max() in (1, 2)
    finally:
        stopped.set()
        writer.join()
    assert all("replaced" in text or "complete" in text for text in refused)
    assert read_volume(path).data.min() in (1, 2)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.zarr"]


def test_where_names_cannot_be_swapped_in_one_step_the_old_zarr_survives_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.zarr"
    write_volume(path, CONSTANTS[0], Metadata.default(3))
    monkeypatch.setattr(output, "_SWAPS", {})
    write_volume(path, CONSTANTS[1], Metadata.default(3), overwrite=True)
    assert (read_volume(path).data == 2).all()
    rename = os.replace

    def full(source: Path, target: Path) -> None:
        if Path(source).parent.name.startswith(output.PARTIAL_PREFIX):
            raise OSError("no")
        rename(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(InputError):
        write_volume(path, CONSTANTS[0], Metadata.default(3), overwrite=True)
    assert (read_volume(path).data == 2).all()
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.zarr"]


SWAPPING = """
import sys
import numpy as np
from napari_tinc import Metadata, write_volume
print("begun", flush=True)
while True:
    for value in (1, 2):
        write_volume(sys.argv[1], np.full((2, 64, 64), value, "u2"), Metadata.default(3), overwrite=True)
"""


def test_a_killed_overwrite_of_a_zarr_leaves_one_that_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    write_volume(path, CONSTANTS[0], Metadata.default(3))
    for delay in (0.05, 0.11, 0.23):
        with begun(SWAPPING, str(path)) as killed:
            threading.Event().wait(delay)
            killed.kill()
        data = read_volume(path).data
        assert data.min() == data.max() in (1, 2)

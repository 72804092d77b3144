"""Whole OME-Zarr images: the size asked for, what is kept besides the voxels, and going on after anything happens."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
import zarr

from napari_tinc import CompressedVolume, InputError, Metadata, Progress, Target, write_volume
from napari_tinc.arrays.metadata import Display
from napari_tinc.chunks import shards
from napari_tinc.chunks.array import Options, compress_array
from napari_tinc.chunks.engine import Threads
from napari_tinc.chunks.grid import grid_of
from napari_tinc.chunks.image import of_array, of_zarr
from napari_tinc.chunks.manifest import UNFINISHED, Manifest, read_manifest
from napari_tinc.chunks.shards import FIELDS
from napari_tinc.errors import BudgetError
from napari_tinc.files.zarr import described
from napari_tinc.samples import neuron_phantom
from napari_tinc.settings import Settings
from napari_tinc.system.steps import complete

SHAPE = (40, 300, 70)
PLACE = Metadata(
    "zyx", (2.0, 0.5, 0.5), ("micrometer",) * 3, ("GFP",), "neuron", Display(translate=(4.0, 0.0, -8.0))
)  # fmt: skip


@pytest.fixture(scope="module")
def voxels() -> np.ndarray:
    return neuron_phantom(SHAPE).noisy


@pytest.fixture
def source(tmp_path: Path, voxels: np.ndarray) -> Path:
    path = tmp_path / "in.zarr"
    write_volume(path, voxels, PLACE)
    return path


def made(source: Path, output: Path, target: Target, **options: Any) -> Manifest:
    steps = compress_array(of_zarr(source), output, Options(target, chunk=32, **options), name=str(source))
    return complete(steps)


def size_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def content_of(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize("strict", [False, True])
def test_a_ratio_is_that_of_everything_on_the_disk(
    source: Path, tmp_path: Path, voxels: np.ndarray, strict: bool
) -> None:
    made(source, tmp_path / "out.zarr", Target.ratio(20), strict=strict)
    size = size_of(tmp_path / "out.zarr")
    assert size <= (1.0 if strict else 1.02) * voxels.nbytes / 20
    assert size >= 0.9 * voxels.nbytes / 20
    assert not (tmp_path / f"out.zarr{UNFINISHED}").exists()


def test_every_chunk_is_a_file_of_one_step_and_the_manifest_says_what_it_lost(
    source: Path, tmp_path: Path, voxels: np.ndarray
) -> None:
    manifest = made(source, tmp_path / "out.zarr", Target.step(25.0), shard=32)
    decoded = zarr.open_group(tmp_path / "out.zarr")["0"][...]
    grid = grid_of(SHAPE, "zyx", 32, 32)
    span = float(voxels.max()) - float(voxels.min())
    for number in range(grid.count):
        cell, region = grid.shard_cell(number), grid.shard_region(number)
        volume = CompressedVolume.open(tmp_path / "out.zarr" / "0" / "c" / "/".join(map(str, cell)))
        np.testing.assert_array_equal(volume.decode(), decoded[region])
        error = voxels[region].astype(float) - decoded[region]
        assert manifest.psnr()[cell] == pytest.approx(20 * np.log10(span) - 10 * np.log10((error**2).mean()))
        assert manifest.field("largest")[cell] == np.abs(error).max()
        assert manifest.field("nbytes")[cell] == volume.nbytes
        inside, there = (a >= manifest.facts["threshold"] for a in (voxels[region], decoded[region]))
        dice = 2 * (inside & there).sum() / (inside.sum() + there.sum()) if (inside | there).any() else 1.0
        assert manifest.dice()[cell] == pytest.approx(dice)
    everywhere = voxels.astype(float) - decoded
    assert manifest.facts["psnr"] == pytest.approx(20 * np.log10(span) - 10 * np.log10((everywhere**2).mean()))


def test_levels_are_means_of_the_original_and_lie_where_they_should(
    source: Path, tmp_path: Path, voxels: np.ndarray
) -> None:
    made(source, tmp_path / "out.zarr", Target.step(10.0))
    before, after = described(source), described(tmp_path / "out.zarr")
    assert [level.shape for level in after[0]] == [level.shape for level in before[0]]
    assert len(after[0]) > 1
    assert after[2] == before[2]
    for fine, coarse in zip(before[0], after[0], strict=True):
        assert np.sqrt(((fine[...].astype(float) - coarse[...]) ** 2).mean()) <= 10.0 / 3
    kept, given = (zarr.open_group(path).attrs["ome"] for path in (tmp_path / "out.zarr", source))
    assert kept == given


def test_coarse_levels_are_made_where_there_are_none(tmp_path: Path, voxels: np.ndarray) -> None:
    plain = zarr.create_array(tmp_path / "plain.zarr", shape=SHAPE, chunks=(16, 64, 70), dtype=voxels.dtype)
    plain[...] = voxels
    made(tmp_path / "plain.zarr", tmp_path / "out.zarr", Target.step(10.0))
    levels, letters, said = described(tmp_path / "out.zarr")
    assert letters == "zyx"
    assert [level.shape for level in levels] == [SHAPE, (40, 150, 70)]
    halves = voxels.reshape(40, 150, 2, 70).mean(axis=2)
    assert np.sqrt(((levels[1][...] - halves) ** 2).mean()) <= 10.0 / 3
    transforms = zarr.open_group(tmp_path / "out.zarr").attrs["ome"]["multiscales"][0]["datasets"][1]
    assert transforms["coordinateTransformations"][1] == {"type": "translation", "translation": [0.0, 0.5, 0.0]}
    assert said.name == "plain"


def test_labels_and_what_nobody_knows_are_kept(source: Path, tmp_path: Path) -> None:
    group = zarr.open_group(source)
    group.attrs.put(group.attrs.asdict() | {"microscope": {"objective": 25}})
    labels = group.create_group("labels")
    labels.attrs.put({"ome": {"version": "0.5", "labels": ["cells"]}})
    cells = labels.create_group("cells")
    cells.attrs.put(
        {"ome": {"version": "0.5", "image-label": {"colors": []}, "multiscales": [{"datasets": [{"path": "0"}]}]}}
    )
    ids = np.arange(np.prod(SHAPE), dtype=np.uint32).reshape(SHAPE)
    cells.create_array("0", data=ids)
    made(source, tmp_path / "out.zarr", Target.step(40.0))
    out = zarr.open_group(tmp_path / "out.zarr")
    assert out.attrs["microscope"] == {"objective": 25}
    np.testing.assert_array_equal(out["labels/cells/0"][...], ids)
    assert out["labels"].attrs["ome"]["labels"] == ["cells"]
    assert out["labels/cells"].attrs["ome"]["image-label"] == {"colors": []}


def test_version_0_4_comes_out_as_0_5(tmp_path: Path, voxels: np.ndarray) -> None:
    group = zarr.open_group(tmp_path / "old.zarr", mode="w", zarr_format=2)
    axes = [{"name": letter, "type": "space", "unit": "micrometer"} for letter in "zyx"]
    datasets = [{"path": "s0", "coordinateTransformations": [{"type": "scale", "scale": [2.0, 1.0, 1.0]}]}]
    multiscale = {"version": "0.4", "name": "old", "axes": axes, "datasets": datasets, "extra": 7}
    group.attrs.put({"multiscales": [multiscale], "omero": {"channels": []}, "note": "kept"})
    group.create_array("s0", shape=SHAPE, dtype=">u2")[...] = voxels
    made(tmp_path / "old.zarr", tmp_path / "out.zarr", Target.step(25.0))
    attributes = zarr.open_group(tmp_path / "out.zarr").attrs
    assert attributes["ome"]["version"] == "0.5"
    assert attributes["ome"]["multiscales"][0]["extra"] == 7
    assert attributes["note"] == "kept"
    levels, _, said = described(tmp_path / "out.zarr")
    assert said.steps["z"] == (2.0, "micrometer")
    assert levels[0].dtype == np.uint16


def test_a_part_and_a_coarser_level(source: Path, tmp_path: Path, voxels: np.ndarray) -> None:
    part = of_zarr(source).part((slice(8, 40), slice(100, 200), slice(0, 70)))
    complete(compress_array(part, tmp_path / "part.zarr", Options(Target.step(20.0), chunk=32)))
    levels, _, said = described(tmp_path / "part.zarr")
    assert np.abs(levels[0][...].astype(float) - voxels[8:, 100:200]).mean() < 10
    assert said.positions == {"z": 4.0 + 8 * 2.0, "y": 50.0, "x": -8.0}
    complete(compress_array(of_zarr(source, 1), tmp_path / "coarse.zarr", Options(Target.step(20.0), chunk=32)))
    assert described(tmp_path / "coarse.zarr")[0][0].shape == (40, 150, 70)
    assert described(tmp_path / "coarse.zarr")[2].steps["y"] == (1.0, "micrometer")


@pytest.mark.parametrize(
    ("shape", "axes"), [((90, 70), "yx"), ((2, 3, 9, 40, 50), "tczyx"), ((3, 65, 33), "cyx"), ((1, 1, 17), "zyx")]
)
def test_arrays_of_any_axes(tmp_path: Path, shape: tuple[int, ...], axes: str) -> None:
    random_voxels = np.random.default_rng(0).gamma(2, 100, shape).astype(np.float32)
    metadata = Metadata(axes, (1.0,) * len(axes), ("",) * len(axes))
    steps = compress_array(
        of_array(random_voxels, metadata), tmp_path / "out.zarr", Options(Target.step(60.0), chunk=32)
    )
    manifest = complete(steps)
    decoded = zarr.open_group(tmp_path / "out.zarr")["0"][...]
    assert np.sqrt(((decoded - random_voxels) ** 2).mean()) <= 0.4 * 60
    assert manifest.facts["chunks"] == np.prod(manifest.levels[0].shape[1:])


def test_empty_chunks_take_no_bytes_and_those_that_are_not_finite_are_exact(tmp_path: Path) -> None:
    volume = np.zeros((32, 32, 96), np.float32)
    volume[:, :, 32:64] = np.random.default_rng(0).normal(100, 10, (32, 32, 32))
    volume[:, :, 64:] = np.random.default_rng(1).normal(100, 10, (32, 32, 32))
    volume[3, 4, 70] = np.nan
    metadata = Metadata.default(3)
    manifest = complete(
        compress_array(of_array(volume, metadata), tmp_path / "out.zarr", Options(Target.step(10.0), chunk=32))
    )
    assert manifest.field("nbytes")[0, 0, 0] == 0
    assert manifest.field("exact").ravel().tolist() == [0, 0, 1]
    decoded = zarr.open_group(tmp_path / "out.zarr")["0"][...]
    np.testing.assert_array_equal(decoded[:, :, 64:], volume[:, :, 64:])
    assert not decoded[:, :, :32].any()


def test_networks_take_as_many_bytes_as_wavelets_would(source: Path, tmp_path: Path) -> None:
    small = of_zarr(source).part((slice(0, 24), slice(0, 24), slice(0, 24)))
    settings = Settings("fast", model="tinc", provenance=False)
    wavelets = complete(compress_array(small, tmp_path / "w.zarr", Options(Target.step(8.0), chunk=32)))
    networks = complete(compress_array(small, tmp_path / "n.zarr", Options(Target.step(8.0), settings, chunk=32)))
    assert (networks.field("nbytes") <= wavelets.field("nbytes")).all()
    assert (networks.field("nbytes") > 0.8 * wavelets.field("nbytes")).all()


class Stopping(Threads):
    """Fails after so many tasks, as a full disk or a lost connection would."""

    def __init__(self, tasks: int) -> None:
        self.left = tasks

    def run(self, function: Any, tasks: Any) -> Iterator[tuple[int, Any]]:
        for number, task in enumerate(tasks):
            if self.left == 0:
                raise InputError("stopped")
            self.left -= 1
            yield number, function(*task)


def test_whatever_stops_it_the_same_command_goes_on_to_the_same_bytes(source: Path, tmp_path: Path) -> None:
    made(source, tmp_path / "whole.zarr", Target.ratio(20))
    output = tmp_path / "out.zarr"
    options = Options(Target.ratio(20), chunk=32)
    stops = 0
    for tasks in (0, 30, 55, 70):
        with pytest.raises(InputError, match="stopped"):
            complete(compress_array(of_zarr(source), output, options, Stopping(tasks), str(source)))
        stops += 1
        assert not output.exists()
        with pytest.raises(InputError, match="unfinished"):
            read_manifest(tmp_path / f"out.zarr{UNFINISHED}")
    complete(compress_array(of_zarr(source), output, options, name=str(source)))
    assert stops == 4
    ours, whole = content_of(output), content_of(tmp_path / "whole.zarr")
    assert ours == whole


def test_only_what_is_missing_is_done_again(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = Options(Target.step(25.0), chunk=32)
    count = grid_of(SHAPE, "zyx", 32, None).count
    with pytest.raises(InputError, match="stopped"):
        complete(compress_array(of_zarr(source), tmp_path / "out.zarr", options, Stopping(count - 1), str(source)))
    coded: list[object] = []
    code = shards.code_chunk
    monkeypatch.setattr(shards, "code_chunk", lambda *args, **kinds: coded.append(args) or code(*args, **kinds))
    complete(compress_array(of_zarr(source), tmp_path / "out.zarr", options, name=str(source)))
    coarse = grid_of((40, 150, 70), "zyx", 32, None)
    assert len(coded) == 1 + np.prod(coarse.chunks)


_COMMAND = [sys.executable, "-m", "napari_tinc", "compress", "--ratio", "20", "--chunk", "32", "--json"]


@pytest.mark.slow
def test_killed_at_any_moment_it_goes_on(source: Path, tmp_path: Path) -> None:
    made(source, tmp_path / "whole.zarr", Target.ratio(20))
    command = [*_COMMAND, str(source), str(tmp_path / "out.zarr")]
    for seconds in (3.0, 9.0):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
    subprocess.run(command, check=True, capture_output=True)
    assert content_of(tmp_path / "out.zarr") == content_of(tmp_path / "whole.zarr")


def test_workers_make_the_same_bytes_and_may_die(source: Path, tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    from napari_tinc.chunks.engine import Cluster
    from napari_tinc.system.cluster import local_workers

    made(source, tmp_path / "whole.zarr", Target.ratio(20))
    killed: list[int] = []

    def kill(progress: Progress) -> None:
        if progress.phase == "coding" and progress.step in (5, 20) and len(killed) < 2:
            pid = next(iter(client.run(os.getpid).values()))
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)

    with local_workers(2) as client:
        assert isinstance(client, distributed.Client)
        steps = compress_array(
            of_zarr(source), tmp_path / "out.zarr", Options(Target.ratio(20), chunk=32), Cluster(client), str(source)
        )
        complete(steps, kill)
    assert killed
    assert content_of(tmp_path / "out.zarr") == content_of(tmp_path / "whole.zarr")


def test_what_is_not_ours_is_never_touched(source: Path, tmp_path: Path) -> None:
    before = content_of(source)
    for overwrite in (False, True):
        with pytest.raises(InputError):
            made(source, source, Target.step(25.0), overwrite=overwrite)
    foreign = tmp_path / f"out.zarr{UNFINISHED}"
    foreign.mkdir()
    (foreign / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="of another one"):
        made(source, tmp_path / "out.zarr", Target.step(25.0))
    assert content_of(foreign) == {"notes.txt": b"mine"}
    assert content_of(source) == before


def test_a_finished_array_is_replaced_only_when_asked(source: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.zarr"
    made(source, output, Target.step(25.0))
    before = content_of(output)
    with pytest.raises(InputError, match="exists"):
        made(source, output, Target.step(50.0))
    assert content_of(output) == before
    made(source, output, Target.step(50.0), overwrite=True)
    manifest = read_manifest(output)
    assert manifest is not None
    assert manifest.facts["step"] == 50.0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.zarr", "out.zarr"]


def test_an_unfinished_array_of_another_command_is_refused(source: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="stopped"):
        complete(
            compress_array(
                of_zarr(source), tmp_path / "out.zarr", Options(Target.step(25.0), chunk=32), Stopping(2), "a"
            )
        )
    with pytest.raises(InputError, match="of another one"):
        complete(compress_array(of_zarr(source), tmp_path / "out.zarr", Options(Target.step(26.0), chunk=32), name="a"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (Options(Target.psnr(40)), "a step gives one fidelity"),
        (Options(Target.ratio(20), chunk=33), "even chunk"),
        (Options(Target.ratio(20), chunk=64, shard=100), "multiple of the chunk"),
    ],
)
def test_options_that_cannot_be_used(source: Path, tmp_path: Path, options: Options, message: str) -> None:
    with pytest.raises(InputError, match=message):
        complete(compress_array(of_zarr(source), tmp_path / "out.zarr", options))
    assert not (tmp_path / f"out.zarr{UNFINISHED}").exists()


def test_a_target_out_of_reach(source: Path, tmp_path: Path) -> None:
    with pytest.raises(BudgetError):
        made(source, tmp_path / "out.zarr", Target.ratio(5000))


def test_a_full_disk_is_said_in_one_line_and_loses_nothing(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(source, tmp_path / "whole.zarr", Target.step(25.0))
    written: list[Path] = []
    replace = os.replace

    def full(partial: Path, path: Path) -> None:
        written.append(path)
        if len(written) == 20:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(partial, path)

    with monkeypatch.context() as patch:
        patch.setattr(shards.os, "replace", full)
        with pytest.raises(InputError, match="No space left on device; make room"):
            made(source, tmp_path / "out.zarr", Target.step(25.0))
    assert not (tmp_path / "out.zarr").exists()
    made(source, tmp_path / "out.zarr", Target.step(25.0))
    assert content_of(tmp_path / "out.zarr") == content_of(tmp_path / "whole.zarr")


def test_what_a_kill_leaves_of_a_file_is_not_in_the_array(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(source, tmp_path / "whole.zarr", Target.step(25.0))
    replace, killed = os.replace, KeyboardInterrupt()

    def kill(partial: Path, path: Path) -> None:
        if len(list((tmp_path / f"out.zarr{UNFINISHED}").glob("0/c/*/*/*"))) == 5:
            monkeypatch.setattr(Path, "unlink", lambda *args, **kinds: None)  # nothing is tidied after a kill
            raise killed
        replace(partial, path)

    with monkeypatch.context() as patch:
        patch.setattr(shards.os, "replace", kill)
        with pytest.raises(KeyboardInterrupt):
            made(source, tmp_path / "out.zarr", Target.step(25.0))
    monkeypatch.undo()
    made(source, tmp_path / "out.zarr", Target.step(25.0))
    assert content_of(tmp_path / "out.zarr") == content_of(tmp_path / "whole.zarr")


def test_a_zarr_may_be_one_of_several_volumes(source: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.random.default_rng(0).normal(0, 9, (16, 16, 16)).astype("f4"))
    command = [sys.executable, "-m", "napari_tinc", "compress", "a.npy", "in.zarr", "--out-dir", ".", "--ratio", "8"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    assert CompressedVolume.open(tmp_path / "in.tinc").shape == SHAPE


def test_a_source_that_vanishes_is_said_in_one_line(source: Path, tmp_path: Path) -> None:
    image = of_zarr(source)
    for file in (source / "0" / "c").rglob("*"):
        if file.is_file():
            file.write_bytes(b"broken")
    with pytest.raises(InputError, match="expected"):
        complete(compress_array(image, tmp_path / "out.zarr", Options(Target.step(25.0), chunk=32), name=str(source)))


def test_fields_are_those_of_the_manifest(source: Path, tmp_path: Path) -> None:
    manifest = made(source, tmp_path / "out.zarr", Target.step(25.0))
    stored = zarr.open_group(tmp_path / "out.zarr")["napari-tinc/0"]
    assert stored.attrs["fields"] == list(FIELDS)
    np.testing.assert_array_equal(stored[...], manifest.levels[0])


def test_the_command_line_shows_and_decodes_it(source: Path, tmp_path: Path) -> None:
    manifest = made(source, tmp_path / "out.zarr", Target.step(25.0))

    def run(*arguments: str) -> dict[str, Any]:
        command = [sys.executable, "-m", "napari_tinc", *arguments, "--json"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        said: dict[str, Any] = json.loads(done.stdout)
        return said

    said = run("info", "out.zarr")
    assert said["psnr"] == manifest.facts["psnr"]
    assert said["file_bytes"] == size_of(tmp_path / "out.zarr")
    worst = [chunk["psnr"] for chunk in said["worst_chunks"]]
    np.testing.assert_allclose(worst, np.sort(manifest.psnr(), axis=None)[:5])
    ends = [[int(side.split(":")[1]) for side in chunk["region"].split(",")] for chunk in said["worst_chunks"]]
    assert (np.array(ends) <= SHAPE).all()
    run("decompress", "out.zarr", "part.npy", "--region", "3:9,100:200,:")
    part = zarr.open_group(tmp_path / "out.zarr")["0"][3:9, 100:200]
    np.testing.assert_array_equal(np.load(tmp_path / "part.npy"), part)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """A server of HTTP that serves the folder."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as served:
        thread = Thread(target=served.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{served.server_address[1]}"
        served.shutdown()
        thread.join()


def test_a_source_behind_http(source: Path, tmp_path: Path, server: str) -> None:
    made(source, tmp_path / "local.zarr", Target.step(25.0))
    command = [sys.executable, "-m", "napari_tinc", "compress", f"{server}/in.zarr", str(tmp_path / "out.zarr")]
    done = subprocess.run([*command, "--step", "25", "--chunk", "32"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for level in ("0", "1"):
        ours, local = (zarr.open_group(tmp_path / name)[level][...] for name in ("out.zarr", "local.zarr"))
        np.testing.assert_array_equal(ours, local)
    missing = subprocess.run(
        [*command[:-2], f"{server}/none.zarr", str(tmp_path / "none.zarr")], capture_output=True, text=True
    )
    assert missing.returncode == 1
    assert "expected a Zarr at http://" in missing.stderr
    assert len(missing.stderr.strip().splitlines()) == 1


def test_a_source_in_s3(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moto = pytest.importorskip("moto.server")
    s3fs = pytest.importorskip("s3fs")
    served = moto.ThreadedMotoServer(port=0)
    served.start()
    try:
        host, port = served.get_host_and_port()
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b",
            "AWS_DEFAULT_REGION": "us-east-1",
        }.items():  # fmt: skip
            monkeypatch.setenv(name, value)
        bucket = s3fs.S3FileSystem(skip_instance_cache=True)
        bucket.mkdir("scans")
        bucket.put(str(source), "scans/in.zarr", recursive=True)
        steps = compress_array(
            of_zarr("s3://scans/in.zarr"), tmp_path / "out.zarr", Options(Target.step(25.0), chunk=32)
        )
        complete(steps)
    finally:
        served.stop()
    made(source, tmp_path / "local.zarr", Target.step(25.0))
    ours, local = (zarr.open_group(tmp_path / name)["0"][...] for name in ("out.zarr", "local.zarr"))
    np.testing.assert_array_equal(ours, local)

"""The command line as a user meets it; compression itself is played by a stand-in, which these tests are not about."""

from __future__ import annotations

import io
import json
import math
import os
import re
import signal
import stat
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import tifffile
from hostile import constant_frame
from typer.testing import CliRunner

from napari_tinc import format as frames
from napari_tinc.arrays.metadata import Metadata
from napari_tinc.choices import DEVICES, FAMILIES, MODELS, PRESETS, WITHIN
from napari_tinc.cli.app import app, parse_region
from napari_tinc.errors import InputError, TrainingError
from napari_tinc.settings import Settings
from napari_tinc.target import Target

STEP = {"phase": "training", "loss": 0.1, "psnr": 30.0, "best_psnr": 31.0, "seconds": 1.0}


@dataclass(frozen=True)
class Progress:
    phase: str
    step: int
    steps: int
    loss: float
    psnr: float
    best_psnr: float
    seconds: float
    eta: float
    note: str = ""


@dataclass(frozen=True)
class Octant:
    box: tuple[slice, ...]
    item: int
    level: int
    psnr: float
    max_error: float
    nbytes: float
    dice: float


@dataclass
class StandIn:
    """Holds the array itself where a compressed volume holds its model."""

    array: np.ndarray
    metadata: Metadata
    nbytes: int = 1000

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    @property
    def raw_nbytes(self) -> int:
        return self.array.nbytes

    @property
    def ratio(self) -> float:
        return self.raw_nbytes / self.nbytes

    @property
    def provenance(self) -> dict[str, float]:
        return {"psnr": 33.5}

    @property
    def octants(self) -> tuple[Octant, ...]:
        depth = self.shape[0]
        rest = tuple(slice(0, size) for size in self.shape[1:])
        halves = (slice(0, depth // 2), slice(depth // 2, depth))
        return tuple(Octant((half, *rest), 0, 1, 30.0 + i, 1.0, 500.0, 1.0) for i, half in enumerate(halves))

    def save(self, path: Path, overwrite: bool = False) -> None:
        Path(path).write_bytes(bytes(self.nbytes))

    def decode(self, region=None, scale: float = 1.0) -> np.ndarray:
        step = round(1 / scale)
        return self.array[region][..., ::step, ::step]


@pytest.fixture
def calls(monkeypatch):
    """Replace the rooms behind the command line, and note what they were asked."""
    asked: list[tuple] = []
    volume = np.arange(8 * 16 * 20).reshape(8, 16, 20).astype("u2")
    opened = StandIn(volume, Metadata("zyx", (2.0, 0.5, 0.5), ("micrometer",) * 3))

    def compress_steps(array, target, settings, **options):
        asked.append((array, target, settings, options))
        for step in range(100):
            yield Progress(step=step + 1, steps=100, eta=math.nan if step == 0 else 3.0, **STEP)
        return StandIn(array, options["metadata"])

    class CompressedVolume:
        open = staticmethod(lambda path, device="auto", partial=False: opened)

    rooms = {
        "encode.compression": {"compress_steps": compress_steps, "Progress": Progress},
        "volume": {"CompressedVolume": CompressedVolume, "Octant": Octant},
    }
    for name, contents in rooms.items():
        room = ModuleType(f"napari_tinc.{name}")
        vars(room).update(contents)
        monkeypatch.setitem(sys.modules, f"napari_tinc.{name}", room)
    return asked


@pytest.fixture
def source(tmp_path) -> Path:
    path = tmp_path / "in.tif"
    volume = np.random.Generator(np.random.PCG64(0)).integers(100, 900, (8, 16, 20)).astype("u2")
    tifffile.imwrite(path, volume, metadata={"axes": "ZYX"}, photometric="minisblack")
    return path


def run(*arguments: object):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert "Traceback" not in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result


def refusal(*arguments: object) -> str:
    """Return the one line on stderr, having checked that with --json it is the one object on stdout."""
    plain = run(*arguments)
    assert (plain.exit_code, plain.stdout) == (1, "")
    assert plain.stderr.startswith("error: expected ")
    assert plain.stderr.count("\n") == 1
    as_json = run(*arguments, "--json")
    assert (as_json.exit_code, as_json.stderr) == (1, "")
    assert "error: " + json.loads(as_json.stdout)["error"] + "\n" == plain.stderr
    return plain.stderr


def write_frame(path: Path, value: int = 7) -> Path:
    """Write a real .tinc file: a constant volume, which needs no training, with one quality segment."""
    item = frames.ItemRange(value, value, 0, 0)
    metadata = Metadata("zyx", (2.0, 0.5, 0.5), ("micrometer",) * 3, name="cell")
    header = frames.Header(
        (8, 16, 20), "u2", metadata, (item,), ((True, True, True),), frames.MODEL_CONSTANT, b"", 0, 0, {"seed": 3}
    )
    segment = frames.Segment(frames.KIND_QUALITY, 0, 0, bytes(range(100)))
    path.write_bytes(frames.pack(frames.Frame(header, (segment,))))
    return path


# --- compress


def test_compress_passes_on_what_was_asked(tmp_path, source, calls):
    tifffile.imwrite(tmp_path / "mask.tif", np.ones((8, 16, 20), "u1"), photometric="minisblack")
    options = "--psnr 40 --preset best --between 1,0.8,1.5 --within importance --levels 3 --device cpu --seed 7"
    options += f" --time-limit 60 --model tinc+wavelet --axes tyx --weights {tmp_path / 'mask.tif'}"
    result = run("compress", source, tmp_path / "out.tinc", *options.split())
    assert result.exit_code == 0
    [(array, target, settings, asked)] = calls
    np.testing.assert_array_equal(array, tifffile.imread(source))
    assert target == Target.psnr(40.0)
    assert asked.pop("metadata").axes == "tyx"
    np.testing.assert_array_equal(asked.pop("weights"), np.ones((8, 16, 20)))
    assert not asked
    assert settings == Settings("best", (1.0, 0.8, 1.5), "importance", 3, "cpu", 7, 60.0, "tinc+wavelet")


@pytest.mark.parametrize(
    ("options", "target"),
    [
        ("", Target.ratio(64)),
        ("--ratio 128", Target.ratio(128)),
        ("--bytes 8192", Target.size(8192)),
        ("--bits-per-voxel 0.5", Target.bits_per_voxel(0.5)),
    ],
)
def test_every_way_to_say_how_small(tmp_path, source, calls, options, target):
    run("compress", source, tmp_path / "out.tinc", *options.split())
    assert calls[0][1] == target


def test_compress_prints_one_json_object_and_no_progress(tmp_path, source, calls):
    result = run("compress", source, tmp_path / "out.tinc", "--json")
    said = json.loads(result.stdout)
    assert result.stderr == ""
    assert said["raw_bytes"] == 8 * 16 * 20 * 2
    assert said["file_bytes"] == (tmp_path / "out.tinc").stat().st_size
    assert said["ratio"] == pytest.approx(said["raw_bytes"] / said["file_bytes"])


def test_progress_off_a_terminal_is_a_few_lines_on_stderr(tmp_path, source, calls):
    result = run("compress", source, tmp_path / "out.tinc")
    assert 10 <= result.stderr.count("\n") <= 12
    assert "31.00 dB" in result.stderr
    assert "training" not in result.stdout


def test_progress_on_a_terminal_is_a_bar_on_stderr(tmp_path, source, calls, monkeypatch, capsys):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    with pytest.raises(SystemExit) as ended:
        app(["compress", str(source), str(tmp_path / "out.tinc")])
    assert ended.value.code == 0
    assert "━" in sys.stderr.getvalue()
    assert "training 10 %" not in sys.stderr.getvalue()
    assert "training" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "options",
    [
        "--ratio 64 --psnr 40",
        "--between wide",
    ],
)
def test_a_wrong_setting_is_refused_before_the_file_is_read(tmp_path, calls, options):
    refusal("compress", tmp_path / "not read.tif", tmp_path / "out.tinc", *options.split())
    assert calls == []


@pytest.mark.parametrize("options", ["--preset quick", "--within random", "--device tpu", "--model magic"])
def test_a_value_that_is_no_choice_is_refused_with_the_choices(tmp_path, calls, options):
    option, value = options.split()
    result = run("compress", tmp_path / "not read.tif", tmp_path / "out.tinc", option, value)
    assert result.exit_code == 2
    choices = {"--preset": PRESETS, "--within": WITHIN, "--device": DEVICES, "--model": MODELS}[option]
    shown = "".join(result.stderr.split())
    assert option in shown
    assert all(f"'{choice}'" in shown.replace("│", "") for choice in choices)
    assert calls == []


def test_an_output_that_exists_is_refused_before_compression_starts(tmp_path, source, calls):
    (tmp_path / "out.tinc").write_bytes(b"precious")
    assert "--overwrite" in refusal("compress", source, tmp_path / "out.tinc")
    assert calls == []
    assert (tmp_path / "out.tinc").read_bytes() == b"precious"
    assert run("compress", source, tmp_path / "out.tinc", "--overwrite").exit_code == 0
    assert (tmp_path / "out.tinc").stat().st_size == 1000


def test_an_output_that_cannot_be_written_is_refused_before_compression_starts(tmp_path, source, calls):
    refusal("compress", source, tmp_path / "none" / "out.tinc")
    refusal("compress", source, source / "out.tinc")
    refusal("compress", source, tmp_path / "out.tif")
    assert calls == []


def test_a_volume_that_cannot_be_compressed_is_refused(tmp_path, calls):
    refusal("compress", tmp_path / "none.tif", tmp_path / "out.tinc")
    np.save(tmp_path / "nan.npy", np.full((4, 4, 4), np.nan, "f4"))
    assert "NaN" in refusal("compress", tmp_path / "nan.npy", tmp_path / "out.tinc")
    np.save(tmp_path / "mask.npy", np.zeros((4, 4, 4), bool))
    assert "bool" in refusal("compress", tmp_path / "mask.npy", tmp_path / "out.tinc")
    assert calls == []


@pytest.mark.parametrize("family", FAMILIES)
def test_a_budget_too_small_for_a_family_is_refused_before_it_trains(tmp_path, source, family):
    result = run("compress", source, tmp_path / "out.tinc", "--bytes", 130, "--model", family)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "training" not in result.stderr
    said = result.stderr.splitlines()[-1]
    assert re.fullmatch(r"error: expected a budget of at least \d+ bytes for this volume, got 130", said)
    assert not (tmp_path / "out.tinc").exists()


def test_labels_are_refused_unless_forced(tmp_path, calls):
    np.save(tmp_path / "labels.npy", np.kron(np.arange(27).reshape(3, 3, 3), np.ones((4, 4, 20))).astype("i4"))
    assert "--force" in refusal("compress", tmp_path / "labels.npy", tmp_path / "out.tinc")
    assert run("compress", tmp_path / "labels.npy", tmp_path / "out.tinc", "--force").exit_code == 0


def test_a_training_error_is_one_line(tmp_path, source, calls, monkeypatch):
    def collapse(array, target, settings, **options):
        raise TrainingError("expected the loss to fall, got NaN; use another seed")
        yield

    monkeypatch.setattr(sys.modules["napari_tinc.encode.compression"], "compress_steps", collapse)
    assert "another seed" in refusal("compress", source, tmp_path / "out.tinc")


def test_ctrl_c_ends_with_130_and_one_line_and_leaves_nothing(tmp_path, source, calls, monkeypatch):
    def interrupted(array, target, settings, **options):
        yield Progress(step=1, steps=100, eta=1.0, **STEP)
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["napari_tinc.encode.compression"], "compress_steps", interrupted)
    result = run("compress", source, tmp_path / "out.tinc")
    assert result.exit_code == 130
    assert result.stderr.splitlines()[-1] == "interrupted: no unfinished file is left"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.tif"]
    as_json = run("compress", source, tmp_path / "out.tinc", "--json")
    assert (as_json.exit_code, json.loads(as_json.stdout)) == (
        130,
        {"error": "interrupted: no unfinished file is left"},
    )


# --- decompress


def test_decompress_writes_the_volume_with_its_voxel_size(tmp_path, calls):
    result = run("decompress", tmp_path / "in.tinc", tmp_path / "out.ome.tif", "--json")
    assert json.loads(result.stdout)["shape"] == [8, 16, 20]
    with tifffile.TiffFile(tmp_path / "out.ome.tif") as tif:
        np.testing.assert_array_equal(tif.asarray(), np.arange(8 * 16 * 20).reshape(8, 16, 20))
        assert 'PhysicalSizeZ="2.0"' in tif.ome_metadata


def test_decompress_of_a_region_at_half_size_doubles_the_voxel_size(tmp_path, calls):
    region = ("--region", "2:6,0:8,4:20", "--scale", "0.5")
    assert run("decompress", tmp_path / "in.tinc", tmp_path / "out.tif", *region).exit_code == 0
    with tifffile.TiffFile(tmp_path / "out.tif") as tif:
        expected = np.arange(8 * 16 * 20).reshape(8, 16, 20)[2:6, 0:8:2, 4:20:2]
        np.testing.assert_array_equal(tif.asarray(), expected)
        assert 'PhysicalSizeX="1.0"' in tif.ome_metadata
        assert 'PhysicalSizeZ="2.0"' in tif.ome_metadata


def test_decompress_refuses_what_it_cannot_do(tmp_path, calls):
    (tmp_path / "here.tif").touch()
    assert "--overwrite" in refusal("decompress", tmp_path / "in.tinc", tmp_path / "here.tif")
    assert ".zarr" in refusal("decompress", tmp_path / "in.tinc", tmp_path / "out.png")
    assert "--scale" in refusal("decompress", tmp_path / "in.tinc", tmp_path / "out.tif", "--scale", "0")
    assert "--region" in refusal("decompress", tmp_path / "in.tinc", tmp_path / "out.tif", "--region", "0:99,:,:")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here.tif"]


def test_decompress_passes_on_the_device_of_a_file_and_refuses_that_of_an_ome_zarr(tmp_path, calls, monkeypatch):
    asked, volume = [], sys.modules["napari_tinc.volume"].CompressedVolume
    opened = volume.open("x")
    monkeypatch.setattr(volume, "open", staticmethod(lambda *arguments: asked.append(arguments) or opened))
    assert run("decompress", tmp_path / "in.tinc", tmp_path / "out.npy", "--device", "cuda").exit_code == 0
    assert asked == [(str(tmp_path / "in.tinc"), "cuda", False)]
    (tmp_path / "in.zarr").mkdir()
    assert "--device" in refusal("decompress", tmp_path / "in.zarr", tmp_path / "other.npy", "--device", "cuda")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, (slice(0, 2), slice(0, 8), slice(0, 16), slice(0, 20))),
        ("1:5,:,3:", (slice(0, 2), slice(1, 5), slice(0, 16), slice(3, 20))),
        ("1,:4,5:6,0:20", (slice(1, 2), slice(0, 4), slice(5, 6), slice(0, 20))),
    ],
)
def test_regions_are_read(text, expected):
    assert parse_region(text, "czyx", (2, 8, 16, 20)) == expected


@pytest.mark.parametrize(
    "text", ["", "0:1", "0:9,:,:", "5:5,:,:", "5:4,:,:", "-1:4,:,:", "a:b,:,:", "0:1:2,:,:", "8,:,:"]
)
def test_regions_outside_the_volume_or_malformed_are_refused(text):
    with pytest.raises(InputError, match="--region"):
        parse_region(text, "zyx", (8, 16, 20))


# --- info and check


def test_info_says_what_the_file_holds(tmp_path):
    path = write_frame(tmp_path / "a.tinc")
    said = json.loads(run("info", path, "--json").stdout)
    assert said["shape"] == [8, 16, 20]
    assert said["axes"] == "zyx"
    assert said["voxel_size"] == [2.0, 0.5, 0.5]
    assert said["raw_bytes"] == 8 * 16 * 20 * 2
    assert said["file_bytes"] == path.stat().st_size
    assert (said["model"], said["levels"], said["octants"]) == ("constant", 2, 8)
    assert said["provenance"] == {"seed": 3}
    assert "micrometer" in run("info", path).stdout


@pytest.mark.parametrize(("between", "within"), [(4, 5), (15, 15), (3, 3)])
def test_info_names_strategies_of_later_versions_by_their_number(tmp_path, between, within):
    (tmp_path / "a.tinc").write_bytes(constant_frame((2, 3, 4), between=between, within=within))
    said = json.loads(run("info", tmp_path / "a.tinc", "--json").stdout)
    assert said["between levels"] == (f"unknown ({between})" if between > 3 else "ratios")
    assert said["within a level"] == (f"unknown ({within})" if within > 3 else "map")


def test_names_cannot_forge_lines_or_steer_the_terminal(tmp_path):
    forged = "cells\x1b]0;owned\a\nratio    1e9"
    (tmp_path / "a.tinc").write_bytes(constant_frame((2, 3, 4), name=forged, units=("\x1b[2J", "", "\u202e")))
    shown = run("info", tmp_path / "a.tinc").stdout
    assert all(line.isprintable() for line in shown.split("\n"))
    assert shown.count("\nratio ") == 1
    assert r"cells\x1b]0;owned\x07\nratio" in shown
    refused = run("info", tmp_path / "no\x1b[31m\nfile.tinc")
    assert refused.stderr.count("\n") == 1
    assert refused.stderr.strip().isprintable()


def test_check_passes_an_intact_file(tmp_path):
    path = write_frame(tmp_path / "a.tinc")
    assert "intact" in run("check", path).stdout
    assert json.loads(run("check", path, "--json").stdout)["ok"] is True


def test_check_names_the_damaged_segment_and_exits_with_1(tmp_path):
    path = write_frame(tmp_path / "a.tinc")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    result = run("check", path)
    assert result.exit_code == 1
    assert "quality" in result.stdout
    as_json = run("check", path, "--json")
    assert as_json.exit_code == 1
    said = json.loads(as_json.stdout)
    assert [segment["ok"] for segment in said["segments"]] == [True, False]


@pytest.mark.parametrize("command", ["info", "check"])
def test_a_file_that_is_no_tinc_is_refused(tmp_path, command):
    (tmp_path / "a.tinc").write_bytes(b"something else altogether")
    for name in ("a.tinc", "none.tinc"):
        assert run(command, tmp_path / name).stderr.count("\n") == 1
        assert "error" in json.loads(run(command, tmp_path / name, "--json").stdout)
        assert run(command, tmp_path / name).exit_code == 1


def test_help_info_and_check_do_not_wait_for_torch(tmp_path):
    path = str(write_frame(tmp_path / "a.tinc"))
    code = (
        "import sys, contextlib; from napari_tinc.cli.app import app\n"
        f"for words in (['--help'], ['info', {path!r}], ['check', {path!r}]):\n"
        "    with contextlib.suppress(SystemExit): app(words)\n"
        "sys.exit('torch' in sys.modules or 'tifffile' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_version_is_printed():
    assert run("--version").stdout.startswith("napari-tinc ")


def test_a_process_reports_errors_by_its_exit_code_too(tmp_path):
    command = [sys.executable, "-m", "napari_tinc", "info", str(tmp_path / "none.tinc")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: expected a readable .tinc file")
    assert "Traceback" not in done.stderr


# --- demo


@pytest.fixture
def demo(calls, monkeypatch):
    """Give the demo its rooms as stand-ins, and forget the module afterwards."""
    figure = ModuleType("napari_tinc.figure")
    figure.save_figure = lambda path, *panels: Path(path).write_bytes(b"png")
    monkeypatch.setitem(sys.modules, "napari_tinc.figure", figure)
    monkeypatch.delitem(sys.modules, "napari_tinc.cli.demo", raising=False)
    import napari_tinc.cli.demo as module

    volume = np.random.Generator(np.random.PCG64(0)).integers(0, 900, (16, 16, 20)).astype("u2")
    monkeypatch.setattr(module.samples, "load", lambda name: (volume, Metadata.default(3, name)))
    monkeypatch.setattr(module, "decode_in_new_process", lambda file: (volume + np.uint16(3), 0.25))
    yield module
    sys.modules.pop("napari_tinc.cli.demo", None)


def test_demo_reports_what_the_round_trip_cost(tmp_path, demo):
    result = run("demo", "--out-dir", tmp_path, "--json")
    said = json.loads(result.stdout)
    assert said["file_bytes"] == (tmp_path / "demo.tinc").stat().st_size
    assert said["ratio"] == pytest.approx(16 * 16 * 20 * 2 / 1000)
    assert said["psnr"] == pytest.approx(20 * math.log10(899 / 3), abs=0.05)
    assert (said["worst_octant_psnr"], said["worst_octant_box"]) == (30.0, "0:8, 0:16, 0:20")
    assert said["decode_seconds"] == 0.25
    assert sorted(path.name for path in tmp_path.iterdir()) == ["demo.png", "demo.tinc"]
    assert "--overwrite" in refusal("demo", "--out-dir", tmp_path)
    table = run("demo", "--out-dir", tmp_path, "--overwrite").stdout
    for row in ("raw bytes", "file bytes", "ratio", "psnr", "ssim", "encode seconds", "decode seconds", "worst octant"):
        assert row in table


def test_demo_interrupted_or_failing_leaves_nothing(tmp_path, demo, monkeypatch):
    def interrupted(file):
        assert file.exists()
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "decode_in_new_process", interrupted)
    assert run("demo", "--out-dir", tmp_path).exit_code == 130
    assert list(tmp_path.iterdir()) == []


def test_demo_of_an_unknown_sample_is_refused(tmp_path, demo):
    assert "neuron" in refusal("demo", "--sample", "liver", "--out-dir", tmp_path)


def test_octants_are_laid_out_as_they_lie_in_space(demo):
    boxes = [(z, y) for z in (slice(0, 3), slice(3, 5)) for y in (slice(0, 4), slice(4, 8), slice(8, 9))]
    octants = [Octant(box, 0, 1, float(i), 0.0, 0.0, 1.0) for i, box in enumerate(boxes)]
    grid, edges = demo.octant_grid([*reversed(octants), Octant(boxes[0], 1, 1, 99.0, 0.0, 0.0, 1.0)])
    np.testing.assert_array_equal(grid, [[0, 1, 2], [3, 4, 5]])
    assert [list(edge) for edge in edges] == [[0, 3, 5], [0, 4, 8, 9]]


# --- processes


def start(*arguments: object, **options) -> subprocess.Popen:
    command = [sys.executable, "-m", "napari_tinc", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


@pytest.fixture
def large(tmp_path) -> Path:
    """A volume that takes some seconds to compress."""
    rng = np.random.Generator(np.random.PCG64(0))
    np.save(tmp_path / "in.npy", rng.integers(0, 60000, (96, 96, 96), dtype="u2"))
    return tmp_path / "in.npy"


@pytest.mark.parametrize(("number", "word", "code"), [("SIGINT", "interrupted", 130), ("SIGTERM", "terminated", 143)])
def test_a_command_that_is_asked_to_end_says_so_and_leaves_nothing(tmp_path, large, number, word, code):
    process = start("compress", large, tmp_path / "out.tinc", "--preset", "fast")
    process.stderr.readline()  # it has begun
    process.send_signal(getattr(signal, number))
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code
    assert errors.splitlines()[-1] == f"{word}: no unfinished file is left"
    assert [path.name for path in tmp_path.iterdir()] == ["in.npy"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_stdout_is_one_line_on_stderr(tmp_path):
    path = write_frame(tmp_path / "a.tinc")
    for options in ((), ("--json",)):
        with open("/dev/full", "w") as full:
            done = subprocess.run(
                [sys.executable, "-m", "napari_tinc", "info", path, *options],
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
            )
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
        assert "No space left" in done.stderr


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="needs a device without an end")
@pytest.mark.parametrize("command", ["info", "check"])
def test_a_device_without_an_end_is_refused_at_once(command):
    result = run(command, "/dev/zero")
    assert result.exit_code == 1
    assert "not a .tinc file" in result.stderr


@pytest.mark.parametrize("value", ["inf"])
def test_a_memory_limit_without_a_limit_is_refused(tmp_path, source, calls, value):
    result = run("compress", source, tmp_path / "out.tinc", "--memory-limit", value)
    assert result.exit_code == 1
    assert "expected --memory-limit" in result.stderr


def test_a_ratio_below_all_numbers_is_refused(tmp_path, source):
    result = run("compress", source, tmp_path / "out.tinc", "--ratio", "1e-308")
    assert result.exit_code == 1
    assert "smaller than the volume" in result.stderr


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no pipes with names")
@pytest.mark.parametrize("name", ["out.tinc", "out.npy", "out.tif", "out.zarr"])
def test_a_pipe_as_output_is_refused_and_stays_a_pipe(tmp_path, name):
    os.mkfifo(tmp_path / name)
    result = run("decompress", write_frame(tmp_path / "a.tinc"), tmp_path / name, "--overwrite")
    assert result.exit_code == 1
    assert ("pipe or device" in result.stderr) == (name != "out.tinc")
    with pytest.raises(InputError, match="pipe or device"):
        frames.write_atomic(tmp_path / name, b"", True)
    assert stat.S_ISFIFO((tmp_path / name).stat().st_mode)


FULL = """
import resource, runpy
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
runpy.run_module("napari_tinc", run_name="__main__")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="the system sets no such limits")
@pytest.mark.parametrize("name", ["out.npy", "out.tif", "out.zarr"])
def test_a_full_disk_is_called_full_whatever_is_written(tmp_path, name):
    rng = np.random.Generator(np.random.PCG64(0))
    (tmp_path / "a.tinc").write_bytes(constant_frame((40, 50, 60), "u2"))
    arguments = ["decompress", str(tmp_path / "a.tinc"), str(tmp_path / name)]
    if name == "out.zarr":  # whose chunks are compressed: a constant takes no room
        from napari_tinc.encode.compression import compress
        from napari_tinc.target import Target

        compress(rng.integers(0, 60000, (40, 80, 90), dtype="u2"), Target.ratio(2), preset="fast").save(
            tmp_path / "a.tinc", True
        )
    done = subprocess.run([sys.executable, "-c", FULL, *arguments], capture_output=True, text=True)
    assert done.returncode == 1
    assert "free some space" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["a.tinc"]

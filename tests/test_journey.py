"""The command line with nothing replaced: from an OME-TIFF to a .tinc file and back, in processes of their own."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from synthetic import blobs

from napari_tinc import CompressedVolume, Metadata, read_volume, write_volume


def tinc(*arguments: object, ok: bool = True) -> dict[str, Any]:
    command = [sys.executable, "-m", "napari_tinc", *map(str, arguments), "--json"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (run.returncode == 0) == ok, run.stderr
    assert "Traceback" not in run.stderr
    said: dict[str, Any] = json.loads(run.stdout)
    return said


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A two-channel stack and the file it became."""
    folder = tmp_path_factory.mktemp("journey")
    channels = [blobs((10, 30, 28), seed=seed) for seed in (1, 2)]
    metadata = Metadata("czyx", (1.0, 2.0, 0.5, 0.5), ("", *("micrometer",) * 3), ("red", "green"), "stack")
    write_volume(folder / "in.ome.tif", np.stack(channels), metadata)
    tinc("compress", folder / "in.ome.tif", folder / "out.tinc", "--ratio", 12, "--preset", "fast", "--time-limit", 3)
    return folder


def test_the_file_on_disk_is_within_the_ratio_asked_for(folder: Path) -> None:
    raw = tifffile.imread(folder / "in.ome.tif").nbytes
    assert 0.97 * raw / 12 <= (folder / "out.tinc").stat().st_size <= raw / 12


def test_what_is_known_of_the_volume_survives_the_round_trip(folder: Path) -> None:
    tinc("decompress", folder / "out.tinc", folder / "back.ome.tif")
    original, back = read_volume(folder / "in.ome.tif"), read_volume(folder / "back.ome.tif")
    assert back.data.shape == original.data.shape
    assert back.data.dtype == original.data.dtype
    assert back.metadata.axes == "czyx"
    assert back.metadata.voxel_size == original.metadata.voxel_size
    assert back.metadata.units == original.metadata.units
    assert back.metadata.channel_names == ("red", "green")


def test_a_region_on_the_command_line_is_the_region_of_the_library(folder: Path) -> None:
    tinc("decompress", folder / "out.tinc", folder / "part.npy", "--region", "1:2,3:7,5:20,0:28")
    expected = CompressedVolume.open(folder / "out.tinc").decode((slice(1, 2), slice(3, 7), slice(5, 20)))
    assert np.abs(np.load(folder / "part.npy").astype(int) - expected.astype(int)).max() <= 1


def test_info_and_check_describe_the_file(folder: Path) -> None:
    said = tinc("info", folder / "out.tinc")
    assert (said["shape"], said["axes"], said["within a level"]) == ([2, 10, 30, 28], "czyx", "equal")
    assert said["file_bytes"] == (folder / "out.tinc").stat().st_size
    assert tinc("check", folder / "out.tinc")["ok"]


def test_damage_is_named_and_never_decoded(folder: Path) -> None:
    data = bytearray((folder / "out.tinc").read_bytes())
    data[-3] ^= 1
    (folder / "damaged.tinc").write_bytes(data)
    said = tinc("check", folder / "damaged.tinc", ok=False)
    assert [segment["name"] for segment in said["segments"] if not segment["ok"]]
    assert "error" in tinc("decompress", folder / "damaged.tinc", folder / "never.npy", ok=False)
    assert not (folder / "never.npy").exists()

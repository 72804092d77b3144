"""``napari-tinc info`` on arrays that others have written with our codec."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from synthetic import blobs
from typer.testing import CliRunner

from napari_tinc import FormatError, InputError, TincCodec
from napari_tinc.chunks.census import census
from napari_tinc.cli.app import app

SHAPE, CHUNK = (16, 32, 50), (8, 16, 16)


@pytest.fixture(params=[None, (16, 32, 32)], ids=["plain", "sharded"])
def array(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """Of 2 × 2 × 4 chunks: one with a hole, two of one value, one that is not stored, twelve lossy ones."""
    voxels = blobs(SHAPE, dtype="f4") + np.float32(1)
    voxels[:8, :16, :16] = np.nan
    voxels[8:, :16, :16] = 3
    voxels[8:, 16:, :16] = 4
    voxels[:8, 16:, 16:32] = 0
    return zarr.create_array(
        tmp_path / "a.zarr", data=voxels, chunks=CHUNK, shards=request.param,
        serializer=TincCodec(step=0.5), compressors=None,
    )  # fmt: skip


def test_chunks_are_counted_by_kind(array: Any, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["info", str(tmp_path / "a.zarr"), "--json"])
    said = json.loads(result.stdout)
    counted = {key: value for key, value in said.items() if key.endswith("chunks")}
    expected = {"chunks": 16, "lossy_chunks": 12, "constant_chunks": 2, "exact_chunks": 1, "empty_chunks": 1}
    assert counted == expected
    size = sum(path.stat().st_size for path in (tmp_path / "a.zarr").rglob("*") if path.is_file())
    assert (said["file_bytes"], said["raw_bytes"]) == (size, array.size * 4)
    assert said["ratio"] == pytest.approx(said["raw_bytes"] / size)
    assert "exact chunks" in CliRunner().invoke(app, ["info", str(tmp_path / "a.zarr")]).stdout


def test_damage_is_named(array: Any, tmp_path: Path) -> None:
    largest = max(
        (path for path in (tmp_path / "a.zarr" / "c").rglob("*") if path.is_file()), key=lambda p: p.stat().st_size
    )
    data = largest.read_bytes()
    largest.write_bytes(data[: len(data) // 2])
    with pytest.raises(FormatError):
        census(array, tmp_path / "a.zarr")
    largest.write_bytes(b"")
    with pytest.raises(FormatError):
        census(array, tmp_path / "a.zarr")


def test_an_index_that_only_zarr_can_read_is_refused(tmp_path: Path) -> None:
    shards = zarr.codecs.ShardingCodec(
        chunk_shape=CHUNK,
        codecs=[TincCodec(step=0.5)],
        index_codecs=[zarr.codecs.BytesCodec(), zarr.codecs.ZstdCodec()],
    )
    voxels = blobs((16, 32, 32))
    array = zarr.create_array(
        tmp_path / "a.zarr", data=voxels, chunks=(16, 32, 32), serializer=shards, compressors=None
    )
    with pytest.raises(InputError, match="index"):
        census(array, tmp_path / "a.zarr")


def test_other_codecs_are_named_as_such(tmp_path: Path) -> None:
    array = zarr.create_array(tmp_path / "a.zarr", data=blobs((8, 9, 10)), chunks=(8, 9, 10))
    assert census(array, tmp_path / "a.zarr") is None
    result = CliRunner().invoke(app, ["info", str(tmp_path / "a.zarr")])
    assert result.exit_code != 0
    assert "other chunks" in result.output

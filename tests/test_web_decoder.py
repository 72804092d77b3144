"""The decoder of web pages and Python's decide alike: what is damaged, and what voxels are.

Files are damaged with checksums that hold, so that what is behind the checksums is reached; ``web/tests/judge.ts`` says
what the TypeScript decoder makes of them.
"""

from __future__ import annotations

import base64
import json
import math
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from golden.make import blob
from mutators import edited, with_payload

from napari_tinc import CompressedVolume, FormatError, TincCodec
from napari_tinc.format import (
    KIND_DIRECTIONAL,
    KIND_WAVELETS,
    MAGIC,
    MODEL_EXACT,
    MODEL_PREDICTIVE,
    VERSION,
    parse,
)
from napari_tinc.format.cursor import Cursor, u32, varint
from napari_tinc.format.table import crc32c

ROOT = Path(__file__).parents[1]
GOLDEN = sorted((ROOT / "tests/golden").glob("*.tinc"))
NETWORKS = (
    "coinpp",
    "deflate",
    "grid",
    "hybrid",
    "mixed",
    "nerv",
    "neurcomp",
    "sci",
    "siren",
    "tucker",
    "v1-yx",
    "v1-z",
)
DECODED = [path for path in GOLDEN if not any(word in path.stem for word in NETWORKS)]
TRIES = int(os.environ.get("TINC_TRIES", "6"))
MOST_VOXELS = 2**21


@pytest.fixture(scope="session")
def built() -> Path:
    """Return the folder of the built tests of ``web/``."""
    folder = ROOT / "web/build/tests"
    if shutil.which("node") is None or not folder.exists():
        pytest.skip("needs node, and `node build.mjs tests` in web/: scripts/test does both")
    return folder


class Judge:
    """The TypeScript decoder in a process of its own."""

    def __init__(self, script: Path) -> None:
        self.process = subprocess.Popen(["node", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __call__(self, data: bytes) -> Any:
        """Say what becomes of a file."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(base64.b64encode(data).decode() + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


@pytest.fixture(scope="module")
def judge(built: Path) -> Iterator[Judge]:
    asked = Judge(built / "judge.mjs")
    with asked.process:
        yield asked
        assert asked.process.stdin is not None
        asked.process.stdin.close()


def resealed(data: bytes, source: random.Random) -> bytes:
    """Damage the header, and put a checksum on it that holds."""
    cursor = Cursor(data, len(MAGIC) + 1, "the file")
    header = edited(cursor.take(cursor.varint("length"), "header"), source)
    head = MAGIC + bytes([VERSION]) + varint(len(header)) + header
    return head + u32(crc32c(head)) + data[cursor.position + 4 :]


def python_says(data: bytes) -> np.ndarray | None:
    """Return all voxels, none of a large volume, or nothing at all if the file is refused."""
    try:
        volume = CompressedVolume(data)
        assert volume.octants
        return volume.decode() if math.prod(volume.shape) <= MOST_VOXELS else np.zeros(0)
    except FormatError:
        return None


@pytest.mark.parametrize("path", DECODED, ids=lambda path: path.stem)
def test_damaged_files_are_refused_by_both_decoders_or_by_neither(path: Path, judge: Judge) -> None:
    source, data = random.Random(path.stem), path.read_bytes()
    frame = parse(data)
    tried = [(data, True)]
    for _ in range(TRIES):
        tried.append((resealed(data, source), True))
        for index, segment in enumerate(frame.segments):
            # Damaged coefficients may be millions of times the range, and then decoders round differently.
            exact = segment.kind not in (KIND_WAVELETS, KIND_DIRECTIONAL)
            tried.append((with_payload(frame, index, edited(segment.payload, source)), exact))
    for damaged, comparable in tried:
        said, voxels = judge(damaged), python_says(damaged)
        if voxels is None:
            assert "error" in said, damaged.hex()
        elif voxels.size and "unsupported" not in said:
            assert "items" in said, (said, damaged.hex())
            if comparable:
                compare(voxels, said, parse(damaged).header.model in (MODEL_EXACT, MODEL_PREDICTIVE))


def compare(voxels: np.ndarray, said: Any, exact: bool) -> None:
    places = [i for i, axis in enumerate(said["axes"]) if axis in "tc"]
    items = np.moveaxis(voxels, places, range(len(places))).reshape(len(said["items"]), -1).astype(float)
    for mine, theirs in zip(items, said["items"], strict=True):
        told = np.array([float(value) for value in theirs])
        step = max(1, len(mine) // 400)
        if exact:
            np.testing.assert_array_equal(told, mine[::step])
        else:
            tolerance = 1.0 if voxels.dtype.kind != "f" else 1e-4 * float(np.ptp(mine))
            np.testing.assert_allclose(told, mine[::step], rtol=1e-6, atol=tolerance)


def test_zarrita_reads_arrays_and_ome_zarr_through_the_codec(built: Path, tmp_path: Path) -> None:
    volume = (1000 * blob(40, 48, 44)).astype(np.uint16)
    expected = {}
    arrays = {
        "lossy": (volume, TincCodec(step=20)),
        "exact": (volume.astype(np.float32), TincCodec(max_error=0)),
        "channels": (np.stack([volume, volume[::-1]]), TincCodec(step=20, axes="czyx")),
        "exact64": (volume.astype(np.int64)[:8], TincCodec(step=1)),
    }
    for name, (data, codec) in arrays.items():
        chunks = (16,) * 3 if data.ndim == 3 else (1, 16, 16, 16)
        array = zarr.create_array(
            tmp_path / name, data=data, chunks=chunks, serializer=codec, compressors=None, fill_value=0
        )
        expected[name] = array[:]
    np.save(tmp_path / "volume.npy", volume)
    made = ["compress", "volume.npy", "image.zarr", "--step", "20", "--chunk", "16", "--shard", "32"]
    subprocess.run([sys.executable, "-m", "napari_tinc", *made], cwd=tmp_path, check=True, capture_output=True)
    image = zarr.open_group(tmp_path / "image.zarr", mode="r")
    expected |= {f"image.zarr@{level}": image[level][:] for level in image.array_keys()}
    np.savez(tmp_path / "expected.npz", **expected)
    environment = os.environ | {"TINC_ZARR": str(tmp_path)}
    done = subprocess.run(["node", "--test", built / "zarr.test.mjs"], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout

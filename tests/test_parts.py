"""Parts of files: what a beginning decodes to, and how little of a file on a server is read."""

from __future__ import annotations

import json
import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mutators import edited
from range_server import serving
from typer.testing import CliRunner

from napari_tinc import CompressedVolume, FormatError, InputError, Target, TincError, compress, samples
from napari_tinc.arrays.metadata import Metadata
from napari_tinc.cli.app import app
from napari_tinc.measures.metrics import psnr
from napari_tinc.volume import InMemory

Array = np.ndarray[Any, Any]


@pytest.fixture(scope="module")
def vessel() -> tuple[Array, bytes]:
    original = samples.vessel_tree((64, 128, 128), seed=3).noisy
    return original, compress(original, Target.ratio(16), model="wavelet").to_bytes()


def beginning(content: bytes, size: int, folder: Path) -> Path:
    path = folder / "a.tinc"
    path.write_bytes(content[:size])
    return path


# --- the beginning of a file


def test_a_longer_beginning_decodes_to_more(vessel: tuple[Array, bytes], tmp_path: Path) -> None:
    original, content = vessel
    reached, blocks = [], []
    for share in (0.15, 0.4, 0.7, 0.95):
        volume = CompressedVolume.open(beginning(content, int(share * len(content)), tmp_path), partial=True)
        assert volume.held is not None
        blocks.append(volume.held.blocks)
        reached.append(psnr(original, volume.decode()))
    assert reached == sorted(reached)
    assert blocks == sorted(blocks)
    assert blocks[0] < blocks[-1] < volume.held.all_blocks
    assert reached[-1] > reached[0] + 1
    whole = CompressedVolume.open(beginning(content, len(content), tmp_path), partial=True)
    assert whole.held is None
    assert whole.to_bytes() == content


def test_scales_that_are_complete_decode_as_from_the_whole_file(vessel: tuple[Array, bytes], tmp_path: Path) -> None:
    _, content = vessel
    volume = CompressedVolume.open(beginning(content, int(0.5 * len(content)), tmp_path), partial=True)
    assert volume.held is not None
    scale = volume.held.scale
    assert 0 < scale < 1
    np.testing.assert_array_equal(volume.decode(scale=scale), CompressedVolume(content).decode(scale=scale))


def test_a_beginning_is_told_from_a_file_and_from_a_cut_one(vessel: tuple[Array, bytes], tmp_path: Path) -> None:
    _, content = vessel
    path = beginning(content, len(content) // 2, tmp_path)
    with pytest.raises(FormatError, match=r"are missing; fetch it again, or take what it holds with partial=True"):
        CompressedVolume.open(path)
    volume = CompressedVolume.open(path, partial=True)
    assert volume.nbytes == len(content)
    assert volume.provenance["partial"] == f"{len(content) // 2} of {len(content)} bytes"
    assert "psnr" not in volume.provenance  # that of the whole
    [octant] = volume.octants  # nothing is known of it
    low, high = volume.value_ranges[0]
    assert (octant.psnr, octant.max_error, octant.dice) == (0, high - low, 0)
    with pytest.raises(InputError, match="expected a whole file"):
        volume.save(tmp_path / "b.tinc")
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(volume)).decode(), volume.decode())


def test_info_says_what_a_beginning_holds_and_decompress_takes_it_if_told_to(
    vessel: tuple[Array, bytes], tmp_path: Path
) -> None:
    _, content = vessel
    path = beginning(content, len(content) // 2, tmp_path)
    shown = CliRunner().invoke(app, ["info", str(path)])
    assert f"{len(content) // 2} of {len(content)} bytes" in shown.stdout
    said = json.loads(CliRunner().invoke(app, ["info", "--json", str(path)]).stdout)
    assert said["incomplete"]["blocks"] < said["incomplete"]["all_blocks"]
    assert "incomplete" not in json.loads(
        CliRunner().invoke(app, ["info", "--json", str(beginning(content, len(content), tmp_path))]).stdout
    )
    path = beginning(content, len(content) // 2, tmp_path)
    output = tmp_path / "out.npy"
    assert CliRunner().invoke(app, ["decompress", str(path), str(output)]).exit_code == 1
    assert not output.exists()
    assert CliRunner().invoke(app, ["decompress", str(path), str(output), "--partial"]).exit_code == 0
    np.testing.assert_array_equal(np.load(output), CompressedVolume.open(path, partial=True).decode())


def test_channels_that_are_not_there_are_flat_and_named(tmp_path: Path) -> None:
    noisy = samples.vessel_tree((16, 48, 48), seed=4).noisy
    metadata = Metadata("czyx", (1.0,) * 4, ("",) * 4)
    content = compress(np.stack([noisy, noisy]), Target.ratio(16), metadata=metadata, model="wavelet").to_bytes()
    volume = CompressedVolume.open(beginning(content, len(content) // 2, tmp_path), partial=True)
    assert volume.held is not None
    assert volume.held.items == 1
    assert "1 of 2 channels and time points" in volume.held.missing
    first, second = volume.decode()
    assert first.std() > 0
    assert second.std() == 0
    assert second.mean() == pytest.approx(noisy.mean(), rel=0.01)


@pytest.mark.parametrize("target", [Target.max_error(0), Target.ratio(8)])
def test_what_does_not_decode_in_part_says_so(target: Target, tmp_path: Path) -> None:
    if target.kind == "max_error":
        content = compress(samples.vessel_tree((16, 32, 32)).noisy, target).to_bytes()
        size, said = len(content) - 1, "only wavelets decode in part"
    else:
        content = compress(samples.vessel_tree((16, 32, 32)).noisy, target, model="wavelet").to_bytes()
        size, said = len(content) // 40, "truncated"
    with pytest.raises(FormatError, match=said):
        CompressedVolume.open(beginning(content, size, tmp_path), partial=True)


def test_damaged_beginnings_end_in_words_or_in_voxels(tmp_path: Path) -> None:
    noisy = samples.vessel_tree((16, 40, 40), seed=4).noisy
    content = compress(noisy, Target.ratio(8), model="wavelet").to_bytes()
    source = random.Random(5)
    decoded = 0
    for _ in range(60):
        prefix = content[: source.randrange(1, len(content))]
        damaged = prefix if source.random() < 0.2 else edited(prefix, source)
        try:
            volume = CompressedVolume.open(beginning(damaged, len(damaged), tmp_path), partial=True)
            assert volume.decode().shape == noisy.shape
            decoded += 1
        except TincError:
            continue
    assert decoded > 8


def test_damage_that_no_checksum_tells_is_voxels_or_an_error_in_words() -> None:
    """As of a file on a server, of whose coefficients only ranges are read."""
    noisy = samples.vessel_tree((16, 40, 40), seed=4).noisy
    content = compress(noisy, Target.ratio(8), model="wavelet").to_bytes()
    source = random.Random(6)
    decoded = 0
    for _ in range(40):
        damaged = bytearray(content)
        for _ in range(source.randint(1, 30)):
            damaged[source.randrange(200, len(damaged))] = source.randrange(256)
        try:
            volume = CompressedVolume._of(InMemory(bytes(damaged)), "cpu", False)
            found = volume.decode()
            low, high = volume.value_ranges[0]
            assert low <= found.min() <= found.max() <= high
            decoded += 1
        except TincError:
            continue
    assert decoded > 5


# --- files on a server


def test_a_view_of_a_file_on_a_server_reads_the_head_and_its_own_blocks(vessel: tuple[Array, bytes]) -> None:
    _, content = vessel
    local = CompressedVolume(content)
    with serving({"a.tinc": content}) as server:
        remote = CompressedVolume.open(f"{server.url}/a.tinc")
        assert (remote.shape, remote.nbytes, dict(remote.provenance)) == (
            local.shape, local.nbytes, dict(local.provenance),
        )  # fmt: skip
        assert server.nbytes <= 4096
        region = (slice(0, 16), slice(0, 20), slice(0, 20))
        np.testing.assert_array_equal(remote.decode(region), local.decode(region))
        # Its blocks, the head that was read before, and little else.
        assert server.nbytes <= local.region_bytes(region) + 2 * 4096 + 2**13
        assert server.nbytes < len(content) / 2
        before = server.nbytes
        np.testing.assert_array_equal(remote.decode(region), local.decode(region))
        assert server.nbytes == before  # nothing is read twice
        coarse = remote.decode(scale=0.25)
        np.testing.assert_array_equal(coarse, local.decode(scale=0.25))
        assert server.nbytes < len(content) / 2
        np.testing.assert_array_equal(remote.decode(), local.decode())
        assert [one.psnr for one in remote.octants] == [one.psnr for one in local.octants]
        assert remote.to_bytes() == content


def test_info_on_an_address_reads_the_head_alone(vessel: tuple[Array, bytes]) -> None:
    _, content = vessel
    with serving({"a.tinc": content}) as server:
        result = CliRunner().invoke(app, ["info", "--json", f"{server.url}/a.tinc"])
        assert result.exit_code == 0, result.stderr
        assert json.loads(result.stdout)["file_bytes"] == len(content)
        assert server.nbytes < len(content) / 3


def test_a_beginning_on_a_server_and_other_kinds_of_files_are_read_as_here(vessel: tuple[Array, bytes]) -> None:
    _, content = vessel
    lossless = compress(samples.vessel_tree((16, 32, 32)).noisy, Target.max_error(0)).to_bytes()
    half = content[: len(content) // 2]
    with serving({"half.tinc": half, "exact.tinc": lossless}) as server:
        with pytest.raises(FormatError, match="are missing"):
            CompressedVolume.open(f"{server.url}/half.tinc")
        volume = CompressedVolume.open(f"{server.url}/half.tinc", partial=True)
        assert volume.held is not None
        assert volume.decode((0,)).shape == volume.shape[1:]
        remote = CompressedVolume.open(f"{server.url}/exact.tinc")
        np.testing.assert_array_equal(remote.decode(), CompressedVolume(lossless).decode())
        copied = pickle.loads(pickle.dumps(remote))
        np.testing.assert_array_equal(copied.decode((3,)), remote.decode((3,)))


def test_what_cannot_be_read_from_afar_is_told_in_words(vessel: tuple[Array, bytes]) -> None:
    _, content = vessel
    with (
        serving({"a.tinc": content}, ranges=False) as server,
        pytest.raises(InputError, match=r"download|check the address"),
    ):
        CompressedVolume.open(f"{server.url}/a.tinc").decode((0,))
    with serving({"b.tinc": b"no such file" * 99}) as server:
        with pytest.raises(InputError, match="check the address"):
            CompressedVolume.open(f"{server.url}/a.tinc")
        with pytest.raises(FormatError, match=r"not a \.tinc file"):
            CompressedVolume.open(f"{server.url}/b.tinc")
    with pytest.raises(InputError, match="expected an address"):
        CompressedVolume.open("nosuchscheme://a.tinc")


def test_damage_on_a_server_is_found_where_a_whole_part_is_read() -> None:
    lossless = bytearray(compress(samples.vessel_tree((16, 32, 32)).noisy, Target.max_error(0)).to_bytes())
    lossless[-10] ^= 1
    with serving({"a.tinc": bytes(lossless)}) as server, pytest.raises(FormatError, match="checksum does not hold"):
        CompressedVolume.open(f"{server.url}/a.tinc").decode()

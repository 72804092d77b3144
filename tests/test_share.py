"""Web pages of compressed volumes: what they hold, what is refused, and, in a real browser, what they show."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr
from click.testing import Result
from hostile import constant_frame
from typer.testing import CliRunner

from napari_tinc import CompressedVolume, FormatError, InputError, Metadata, Target, compress
from napari_tinc.chunks.array import Options, compress_array
from napari_tinc.chunks.image import of_array
from napari_tinc.chunks.view import CompressedArray
from napari_tinc.cli.app import app
from napari_tinc.quality import parse_quality
from napari_tinc.share import MOST_EMBEDDED, Shareable, ShareableArray, write_folder, write_page
from napari_tinc.share import page as pages

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests/golden"
SAMPLE = GOLDEN / "v1-detail-zyx-u2.tinc"
TEMPLATE = ROOT / "napari_tinc/share/page.html"
MOST_OVERHEAD = 150_000
HOSTILE = "</script><script>globalThis.pwned=1</script><img src=x onerror='globalThis.pwned=1'>@@DATA@@"


def embedded(page: str) -> list[bytes]:
    found = re.findall(r'<script type="application/octet-stream" id="data-\d">([^<]*)</script>', page)
    return [base64.b64decode(text, validate=True) for text in found]


def test_a_page_holds_the_file_byte_for_byte_and_little_else(tmp_path: Path) -> None:
    size = write_page(tmp_path / "out.html", [Shareable.read(SAMPLE)])
    page = (tmp_path / "out.html").read_text(encoding="utf-8")
    assert embedded(page) == [SAMPLE.read_bytes()]
    assert size == (tmp_path / "out.html").stat().st_size
    assert size - len(base64.b64encode(SAMPLE.read_bytes())) < MOST_OVERHEAD
    assert "connect-src 'none'" in page
    assert not re.search(r"@@[A-Z_]+@@|https?://", page)


def test_names_from_files_end_no_tag_and_are_no_marks_of_the_template(tmp_path: Path) -> None:
    files = [Shareable(HOSTILE, SAMPLE.read_bytes(), HOSTILE, True)]
    write_page(tmp_path / "out.html", files)
    page = (tmp_path / "out.html").read_text(encoding="utf-8")
    assert "<img" not in page
    assert page.count("</script>") == 3
    assert embedded(page) == [SAMPLE.read_bytes()]
    listed = re.search(r'id="files">([^<]*)</script>', page)
    assert listed is not None
    assert json.loads(listed[1])[0]["name"] == HOSTILE


def test_damaged_and_large_files_and_existing_pages_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bad.tinc").write_bytes(SAMPLE.read_bytes()[:-1])
    with pytest.raises(FormatError, match="expected"):
        Shareable.read(tmp_path / "bad.tinc")
    (tmp_path / "out.html").write_text("mine")
    files = [Shareable.read(SAMPLE)]
    with pytest.raises(InputError, match="exists"):
        write_page(tmp_path / "out.html", files)
    assert (tmp_path / "out.html").read_text() == "mine"
    monkeypatch.setattr(pages, "MOST_EMBEDDED", 100)
    with pytest.raises(InputError, match="folder instead"):
        write_page(tmp_path / "large.html", files)
    assert MOST_EMBEDDED > 100


def test_a_folder_holds_the_page_and_the_file_beside_it(tmp_path: Path) -> None:
    files = [Shareable.read(SAMPLE)]
    size = write_folder(tmp_path / "site", files)
    page = (tmp_path / "site/index.html").read_text(encoding="utf-8")
    assert (tmp_path / "site" / SAMPLE.name).read_bytes() == SAMPLE.read_bytes()
    assert "connect-src 'self'" in page
    assert embedded(page) == []
    assert size == sum(path.stat().st_size for path in (tmp_path / "site").iterdir())
    with pytest.raises(InputError, match="exists"):
        write_folder(tmp_path / "site", files)
    write_folder(tmp_path / "site", files, overwrite=True)
    with pytest.raises(InputError, match="different names"):
        write_folder(tmp_path / "other", files * 2)
    assert not (tmp_path / "other").exists()


def test_the_command_makes_pages_and_folders_and_says_what_pages_do_not_show(tmp_path: Path) -> None:
    def run(*arguments: str) -> dict[str, object]:
        done = CliRunner().invoke(app, ["share", *arguments, "--json"])
        assert done.exit_code == 0, done.output
        said = json.loads(done.output)
        assert isinstance(said, dict)
        return said

    other = str(GOLDEN / "v1-masked-zyx-u2.tinc")
    said = run(str(SAMPLE), str(tmp_path / "out.html"), "--with", other)
    assert said["bytes"] == (tmp_path / "out.html").stat().st_size
    assert len(embedded((tmp_path / "out.html").read_text())) == 2
    assert "note" not in said
    run(str(SAMPLE), str(tmp_path / "site"))
    assert (tmp_path / "site/index.html").exists()
    assert "network" in str(run(str(GOLDEN / "v1-siren-zyx-u2.tinc"), str(tmp_path / "net.html"))["note"])


def structured(*shape: int, seed: int = 0) -> np.ndarray:
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    smooth = sum(np.sin(7 * axis * (i + 1)) for i, axis in enumerate(axes))
    noise = np.random.default_rng(seed).normal(0, 0.3, shape)
    return np.round(2000 + 500 * (smooth + noise)).astype("u2")


def make_pages(folder: Path) -> None:
    """Write the pages that web/tests/browser.test.ts opens, and what it expects of them."""

    def page(name: str, volumes: list[CompressedVolume]) -> None:
        files = [Shareable.of(f"{name}.tinc" if not i else "second.tinc", v.to_bytes()) for i, v in enumerate(volumes)]
        write_page(folder / f"{name}.html", files)
        (folder / f"{name}.tinc").write_bytes(files[0].data)

    array = structured(40, 96, 104)
    volume = compress(array, Target.step(150), metadata=Metadata.default(3, "sample"))
    page("volume", [volume])
    np.savez(folder / "volume.npz", decoded=volume.decode())
    exact = compress(structured(6, 150, 200), Target.max_error(0))  # more than one piece of a plane
    page("exact", [exact])
    np.savez(folder / "exact.npz", decoded=exact.decode())
    page("two", [volume, compress(array, Target.step(900))])
    page("network", [CompressedVolume.open(GOLDEN / "v1-siren-zyx-u2.tinc")])
    page("image", [compress(structured(90, 120), Target.step(100))])
    moving = np.stack([structured(9, 40, 40, seed=i) for i in range(3)])
    page("time", [compress(moving, Target.step(100), metadata=Metadata("tzyx", (1.0,) * 4, ("",) * 4))])
    named = replace(Metadata.default(3, HOSTILE), units=(HOSTILE,) * 3)
    page("hostile", [compress(array[:16, :32, :32], Target.step(100), metadata=named)])
    large = compress(structured(160, 160, 160), Target.step(100))
    write_folder(folder / "folder", [Shareable.of("volume.tinc", large.to_bytes())])
    # Two channels, two levels, chunks of zeros in every shard; and chunks that are files.
    channels = np.stack([structured(30, 52, 269, seed=i) for i in range(2)])
    channels[..., 96:128] = 0
    make_array(folder, "array", channels, "czyx", shard=64)
    make_array(folder, "chunks", channels[0, :, :, :80], "zyx", shard=32)


def make_array(folder: Path, name: str, array: np.ndarray, axes: str, shard: int) -> Path:
    """Write an OME-Zarr and its page into the folder `name`, and the voxels of its levels beside it."""
    store = folder / f"{name}.ome.zarr"
    image = of_array(array, replace(Metadata.default(array.ndim, name), axes=axes))
    for _ in compress_array(image, store, Options(Target.step(150), chunk=32, shard=shard)):
        pass
    made = CompressedArray.open(store)
    assert made is not None
    write_folder(folder / name, [ShareableArray.read(store)])
    levels = {str(number): level[:] for number, level in enumerate(made.levels)}
    np.savez(folder / f"{name}.npz", range=np.array(made.value_ranges[0]), **levels)
    return store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an OME-Zarr of 2 × 2 × 2 chunks, of which one holds zeros."""
    array = structured(40, 40, 40)
    array[:32, :32, :32] = 0
    return make_array(tmp_path_factory.mktemp("array"), "small", array, "zyx", shard=32)


def test_an_array_is_copied_beside_its_page_or_left_where_it_is(store: Path, tmp_path: Path) -> None:
    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, ["share", *arguments, "--json"])

    site = tmp_path / "site"
    said = json.loads(run(str(store), str(site)).output)
    copied = {path.relative_to(site / store.name): path.read_bytes() for path in files_of(site / store.name)}
    assert copied == {path.relative_to(store): path.read_bytes() for path in files_of(store)}
    assert said["bytes"] == sum(path.stat().st_size for path in files_of(site))
    assert "exists" in run(str(store), str(site)).output
    before = (site / store.name / "zarr.json").stat().st_ino
    assert run(str(site / store.name), str(site), "--overwrite").exit_code == 0
    assert (site / store.name / "zarr.json").stat().st_ino == before
    refused = run(str(store), str(tmp_path / "out.html"))
    assert refused.exit_code != 0
    assert "expected a folder for the page of an OME-Zarr" in refused.output
    assert not (tmp_path / "out.html").exists()


def files_of(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_page_is_told_of_an_array_what_its_manifest_knows(store: Path) -> None:
    said = ShareableArray.read(store).description
    array = CompressedArray.open(store)
    assert array is not None
    quality = parse_quality(base64.b64decode(said["quality"][0]), 8)
    psnr = array.manifest.psnr().ravel()
    assert np.isinf(quality.psnr[0])
    np.testing.assert_allclose(quality.psnr[1:], psnr[1:], atol=0.25)
    span = np.ptp(said["items"][0])
    assert (span * 10 ** (-quality.peak / 20) >= array.manifest.field("largest").ravel()).all()
    (level,) = said["levels"]
    assert base64.b64decode(level["empty"]) == b"\x01"
    assert (level["shape"], level["chunk"], level["halvings"]) == ((40, 40, 40), (32, 32, 32), [0, 0, 0])
    assert "inside" not in level


def test_arrays_that_pages_do_not_show_are_refused_or_said_to_be(store: Path, tmp_path: Path) -> None:
    def changed(name: str, file: str, old: str, new: str) -> Path:
        copy = tmp_path / name
        shutil.copytree(store, copy)
        text = (copy / file).read_text()
        assert old in text
        (copy / file).write_text(text.replace(old, new))
        return copy

    network = changed("network.zarr", "zarr.json", '"model": "auto"', '"model": "siren"')
    assert not ShareableArray.read(network).decoded
    with pytest.raises(FormatError, match="as napari-tinc writes them"):
        ShareableArray.read(changed("keys.zarr", "0/zarr.json", '"separator": "/"', '"separator": "."'))
    with pytest.raises(FormatError, match="version"):
        ShareableArray.read(changed("version.zarr", "zarr.json", '"version": 1', '"version": 2'))
    zarr.create_array(tmp_path / "plain.zarr", data=np.zeros((4, 4)))
    with pytest.raises(InputError, match="compress it first"):
        ShareableArray.read(tmp_path / "plain.zarr")
    array = structured(40, 40, 40)
    thirds = replace(of_array(array, Metadata.default(3)), levels=(array, array[::3, ::3, ::3]))
    thirds.attributes["ome"]["multiscales"][0]["datasets"] *= 2
    thirds.attributes["ome"]["multiscales"][0]["datasets"][1] = {
        "path": "1",
        "coordinateTransformations": [{"type": "scale", "scale": [3.0] * 3}],
    }
    uneven = replace(thirds, shapes=((40, 40, 40), (14, 14, 14)))
    for _ in compress_array(uneven, tmp_path / "thirds.zarr", Options(Target.step(150), chunk=32)):
        pass
    with pytest.raises(InputError, match="half the size"):
        ShareableArray.read(tmp_path / "thirds.zarr")


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node: scripts/test provides it")
def test_pages_show_volumes_in_a_real_browser(tmp_path: Path) -> None:
    script = ROOT / "web/build/tests/browser.test.mjs"
    if not script.exists():
        pytest.skip("needs `node build.mjs tests` in web/: scripts/test does it")
    make_pages(tmp_path)
    environment = os.environ | {"TINC_PAGES": str(tmp_path)}
    command = ["node", "--test", "--test-timeout=60000", script, script.with_name("array.test.mjs")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node: scripts/test provides it")
def test_the_shipped_page_is_what_its_sources_give() -> None:
    if not (ROOT / "web/node_modules").exists():
        pytest.skip("needs `npm ci` in web/: scripts/test does it")
    done = subprocess.run(["node", "build.mjs", "print"], cwd=ROOT / "web", capture_output=True, check=True)
    assert done.stdout == TEMPLATE.read_bytes(), "run `npm run build` in web/ and commit napari_tinc/share/page.html"


def test_constant_files_have_a_page(tmp_path: Path) -> None:
    assert write_page(tmp_path / "out.html", [Shareable.of("one", constant_frame((4, 5, 6)))]) > 0

"""What the pages tell a user to type works: commands, programs, options, and the names that they import."""

from __future__ import annotations

import ast
import contextlib
import importlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile
from synthetic import blobs
from typer.testing import CliRunner

from napari_tinc import CompressedVolume
from napari_tinc.cli.app import app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
README = PAGES[0].read_text()
# What a test adds to a command of the README so that it takes seconds.
SHORT = {"compare": ["--strategies", "wavelet", "--peers", "sperr"]}


def blocks(page: str, *languages: str) -> list[str]:
    """Fenced blocks of a page, in order."""
    found = re.findall(r"^```(\w*)\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    return [body for language, body in found if language in languages]


def lines(block: str) -> list[list[str]]:
    """Words of every command of a block, without its comment."""
    return [words for line in block.splitlines() if (words := shlex.split(line, comments=True))]


def commands(page: str) -> Iterator[list[str]]:
    """Words of every command of a page, be it in a block or in a sentence."""
    for block in blocks(page, "bash", "sh"):
        if "python -c" not in block:
            yield from lines(block)
    for text in re.findall(r"(?<!`)`((?:napari-tinc|python|xvfb-run) [^`]+)`(?!`)", page):
        yield shlex.split(text)


def run(words: list[str], folder: Path) -> str:
    """Run a command in a folder with a cache of its own, and return what it has said."""
    environment = os.environ | {"XDG_CACHE_HOME": str(folder / "cache")}
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The files that the README speaks of."""
    (tmp_path / "folder").mkdir()
    volumes = {
        "stack.ome.tif": np.pad(blobs((16, 60, 60)), ((0, 0), (200, 40), (200, 40)), constant_values=300),
        "stack.tif": blobs((20, 64, 60)), "a.tif": blobs((16, 40, 40)), "folder/b.tif": blobs((16, 30, 40)),
    }  # fmt: skip
    for name, volume in volumes.items():
        tifffile.imwrite(tmp_path / name, volume, photometric="minisblack")
    return tmp_path


def ours(words: list[str]) -> list[str]:
    assert words[0] == "napari-tinc", f"{words[0]} is unknown here: teach this test to run it"
    return [sys.executable, "-m", "napari_tinc", *words[1:], *SHORT.get(words[1], [])]


def test_the_commands_of_the_readme_work_one_after_the_other(tmp_path: Path) -> None:
    install, _, use, test = blocks(README, "bash")
    for words in lines(use):
        if words[0] == "cp":
            shutil.copy(ROOT / words[1], tmp_path / words[2])
        elif words[0] != "source":
            assert run(ours(words), tmp_path), words
    made = {path.name for path in tmp_path.iterdir()}
    assert made >= {"stack.tinc", "part.ome.tif", "report.html"}
    assert tifffile.imread(tmp_path / "part.ome.tif").shape == (16, 40, 40)
    for words in lines(install)[:1] + lines(test):
        assert os.access(ROOT / words[0], os.X_OK), words


def test_the_demo_of_the_readme_works(tmp_path: Path) -> None:
    """All that ``scripts/demo`` does after it has set everything up."""
    *_, setup, demo = (ROOT / "scripts" / "demo").read_text().splitlines()
    assert setup == '"$top/scripts/setup"'
    words = shlex.split(demo.replace('"$@"', "--sample brain").replace('"$top/.venv/bin/napari-tinc"', "napari-tinc"))
    assert words[:2] == ["exec", "napari-tinc"]
    assert "worst octant" in run(ours(words[1:]), tmp_path)
    assert sorted(path.suffix for path in tmp_path.glob("demo.*")) == [".png", ".tinc"]


def test_the_python_of_the_readme_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (block,) = blocks(README, "python")
    known: dict[str, object] = {}
    exec(block, known)
    assert (tmp_path / "brain.tinc").stat().st_size <= 64**3 * 2 / 64
    assert isinstance(known["plane"], np.ndarray)
    assert isinstance(known["small"], np.ndarray)
    assert (known["plane"].shape, known["small"].shape) == ((64, 64), (16, 16, 16))


def test_the_python_of_the_page_on_zarr_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (block,) = blocks((ROOT / "docs" / "zarr.md").read_text(), "python")
    known: dict[str, object] = {"volume": blobs((20, 40, 50))}
    exec(block, known)
    assert isinstance(known["plane"], np.ndarray)
    assert known["plane"].shape == (40, 50)
    assert CompressedVolume.open(tmp_path / "a.zarr" / "c" / "0" / "0" / "0").shape == (20, 40, 50)


def test_the_journey_without_napari_works(tmp_path: Path) -> None:
    said = run([sys.executable, str(ROOT / "docs" / "headless.py")], tmp_path)
    assert "reopened neuron.tinc: a plane (128, 128)" in said


@pytest.mark.parametrize("name", ["metrics.md", "zarr.md"])
def test_numbers_that_a_program_in_a_page_prints_are_those_below_it(name: str) -> None:
    page = (ROOT / "docs" / name).read_text()
    programs = [block.split('"', 1)[1].rsplit('"', 1)[0] for block in blocks(page, "sh")]
    for program, expected in zip(programs, blocks(page, "text"), strict=True):
        with contextlib.redirect_stdout(io.StringIO()) as said:
            exec(program, {})
        assert said.getvalue() == expected


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_option_in_a_page_is_one_of_its_command(page: Path) -> None:
    for words in commands(page.read_text()):
        options = {word for word in words if word.startswith("--")}
        if words[0] == "napari-tinc":
            known = CliRunner().invoke(app, [words[1], "--help"], env={"COLUMNS": "200"}).output
        elif any(word.startswith("benchmarks/") for word in words):
            known = (ROOT / next(word for word in words if word.startswith("benchmarks/"))).read_text()
        else:
            continue
        assert {option for option in options if option not in known} == set(), words


def imports(source: str) -> Iterator[tuple[str, str]]:
    """Modules of ours that a program imports, and what it takes from them; those in its strings, too."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "napari_tinc":
            yield from ((node.module, alias.name) for alias in node.names)
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names if alias.name.split(".")[0] == "napari_tinc")
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            for module, names in re.findall(r"\bfrom (napari_tinc[\w.]*) import ([\w, ]+)", node.value):
                yield from ((module, name.strip().split(" ")[0]) for name in names.split(",") if name.strip())


PROGRAMS = [path for folder in ("tests", "benchmarks", "docs", "scripts") for path in (ROOT / folder).rglob("*.py")]


def test_what_programs_in_strings_pages_and_scripts_import_is_there() -> None:
    """A program that nothing but a test of minutes runs would keep a module's old name."""
    sources = {str(path.relative_to(ROOT)): path.read_text() for path in PROGRAMS}
    for page in PAGES:
        sources |= {f"{page.name}, {i}": block for i, block in enumerate(blocks(page.read_text(), "python"))}
    missing = []
    for name, source in sources.items():
        for module, wanted in set(imports(source)):
            try:
                found = importlib.import_module(module)
                if wanted and not hasattr(found, wanted):
                    importlib.import_module(f"{module}.{wanted}")
            except ImportError as error:
                missing.append(f"{name}: {error}")
    assert missing == []

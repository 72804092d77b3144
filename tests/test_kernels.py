"""Compiled functions: machine code from the disk starts at once, and is made anew when what it came from changes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from napari_tinc import kernels
from napari_tinc.wavelets import coefficients

_PROGRAM = """
import sys
import numpy as np
import outer
from napari_tinc.cli.terminal import reporting

hits = outer.twice_and_one.stats.cache_hits
with reporting("json" in sys.argv):
    print(outer.twice_and_one(np.arange(3)), *hits.values(), "numba.np.linalg" in sys.modules)
"""


@pytest.fixture
def run(tmp_path: Path) -> object:
    (tmp_path / "inner.py").write_text(
        "from napari_tinc.kernels import part\n\n@part()\ndef twice(x):\n    return 2 * x\n"
    )
    (tmp_path / "outer.py").write_text(
        "from inner import twice\nfrom napari_tinc.kernels import compiled\n\n"
        "@compiled\ndef twice_and_one(x):\n    return twice(x[2]) + 1\n"
    )

    def program(*arguments: str, said: str | None = None) -> str:
        command = [sys.executable, "-c", _PROGRAM, *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        assert said is None or done.stderr == said
        return done.stdout.strip()

    return program


def test_the_command_line_says_once_that_it_compiles(run) -> None:  # type: ignore[no-untyped-def]
    run(said="the coder is compiled for this machine, once after an installation: some seconds\n")
    run(said="")


def test_nothing_is_said_of_it_where_json_is_wanted(run) -> None:  # type: ignore[no-untyped-def]
    run("json", said="")


def test_code_from_the_cache_loads_none_of_the_registries(run) -> None:  # type: ignore[no-untyped-def]
    assert run() == "5 True"  # compiled
    assert run() == "5 1 False"


def test_an_edit_in_another_file_is_seen(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    run()
    inner = tmp_path / "inner.py"
    inner.write_text(inner.read_text().replace("2 * x", "3 * x"))
    assert run() == "7 True"


def test_a_file_written_anew_with_the_same_text_is_not_compiled_again(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    run()
    for name in ("inner.py", "outer.py"):
        file = tmp_path / name
        file.write_text(file.read_text())
    assert run() == "5 1 False"


def test_an_edit_of_what_is_spelt_out_for_the_compiler_is_seen() -> None:
    files = {Path(file).name for file in kernels._files(coefficients._decode_block.py_func)}
    assert files == {"coefficients.py", "cells.py", "mixing.py", "vectors.py"}

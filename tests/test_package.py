"""What importing the package loads, and which names it offers."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import napari_tinc

HEAVY = ("torch", "napari", "qtpy", "PyQt5", "PyQt6", "PySide2", "PySide6", "numpy", "skimage", "tifffile")


def loaded_by(statement: str) -> set[str]:
    """Modules that a fresh interpreter holds after a statement."""
    program = f"import sys\n{statement}\nprint(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(result.stdout.split())


def test_importing_the_package_loads_neither_torch_nor_napari_nor_qt() -> None:
    assert not loaded_by("import napari_tinc").intersection(HEAVY)


def test_parsing_a_frame_needs_no_torch() -> None:
    assert not loaded_by("import napari_tinc.format").intersection({"torch", "numpy", "napari", "qtpy"})


def test_work_without_a_display_loads_neither_napari_nor_qt() -> None:
    found = loaded_by("import napari_tinc.encode.compression, napari_tinc.lazy, napari_tinc.cli.app, napari_tinc.files")
    assert not found.intersection({"napari", "qtpy", "PyQt5", "PyQt6", "PySide2", "PySide6", "magicgui", "superqt"})


def test_wavelets_are_compressed_and_decoded_without_what_takes_long_to_load() -> None:
    work = """import numpy as np
from napari_tinc import CompressedVolume, Target, compress
volume = np.arange(4096, dtype=np.uint16).reshape(16, 16, 16)
CompressedVolume(compress(volume, Target.ratio(8), preset="fast").to_bytes()).decode()"""
    slow = {"torch", "scipy.ndimage", "scipy.stats", "skimage"}
    assert not loaded_by(work).intersection(slow)
    assert not slow.intersection(loaded_by("import napari_tinc.cli.app, napari_tinc.measures.noise"))
    golden = next((Path(__file__).parent / "golden").glob("*.tinc"))
    about = (
        f"from napari_tinc import CompressedVolume\nprint(CompressedVolume.open({str(golden)!r}, partial=True).kinds)"
    )
    assert not loaded_by(about).intersection({*slow, "numba"}), "of a whole file only what it says of itself"


def test_a_public_name_means_the_same_whatever_was_imported_before() -> None:
    """Importing a submodule puts it on the package: a public function of its name would turn into a module."""
    homes = {napari_tinc._HOMES[name] for name in napari_tinc.__all__}
    assert not homes.intersection(napari_tinc.__all__)


@pytest.mark.parametrize("name", napari_tinc.__all__)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    value = getattr(napari_tinc, name)
    assert value.__doc__


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        getattr(napari_tinc, "nothing")  # noqa: B009


def test_errors_are_what_callers_may_catch() -> None:
    errors = importlib.import_module("napari_tinc.errors")
    for name in ("InputError", "FormatError", "BudgetError"):
        assert issubclass(getattr(errors, name), errors.TincError)
        assert issubclass(getattr(errors, name), ValueError)
    assert issubclass(errors.TrainingError, RuntimeError)

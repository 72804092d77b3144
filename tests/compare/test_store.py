"""Stored results are found as long as nothing has changed that they depend on."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import napari_tinc
from napari_tinc.compare import store

PACKAGE = Path(napari_tinc.__file__).parent
# What a worker imports besides, and no byte or measure depends on: how files are written, work is stopped and its time
# is estimated.
HARMLESS = {"errors", "progress", "samples", "system"}


@pytest.fixture
def changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], bool]:
    """Tell whether the key is another one after a module was changed."""
    copy = tmp_path / "napari_tinc"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(store, "files", lambda name: tmp_path / name)
    assert store.code_key.__wrapped__() == store.code_key()

    def change(name: str) -> bool:
        before = store.code_key.__wrapped__()
        path = copy / name
        path.write_bytes((path.read_bytes() if path.exists() else b"") + b"\n# changed\n")
        return store.code_key.__wrapped__() != before

    return change


def test_a_change_of_what_decides_the_bytes_is_another_key(changed: Callable[[str], bool]) -> None:
    for name in store._DECIDING:
        modules = (PACKAGE / name).rglob("*.py") if (PACKAGE / name).is_dir() else [PACKAGE / f"{name}.py"]
        assert all(changed(str(module.relative_to(PACKAGE))) for module in modules)
    assert changed("networks/families/another.py"), "a module that is new counts as well"


def test_a_change_of_what_only_shows_them_is_not(changed: Callable[[str], bool]) -> None:
    shown = [path for room in ("plugin", "cli", "advice", "files") for path in (PACKAGE / room).rglob("*.py")]
    assert len(shown) > 50
    for path in [*shown, PACKAGE / "lazy.py", PACKAGE / "compare/report.py", PACKAGE / "compare/store.py"]:
        assert not changed(str(path.relative_to(PACKAGE)))
    assert not changed("encode/README.md")
    assert not changed("../docs.md")


def test_whatever_makes_and_measures_a_file_decides_the_bytes() -> None:
    grimp = pytest.importorskip("grimp")  # of import-linter
    needed = grimp.build_graph("napari_tinc", cache_dir=None).find_upstream_modules("napari_tinc.compare.worker")
    names = [module.removeprefix("napari_tinc.").replace(".", "/") for module in needed]
    listed = (*store._DECIDING, *HARMLESS)
    assert not [name for name in names if not any(name == one or name.startswith(f"{one}/") for one in listed)]
    assert len(names) > 30

"""Finished results on disk: found again by the content of the volume, the settings and the version of the code.

A folder per volume; in it, per candidate and budget, the file itself and a JSON of what making it cost, and per set of
truths (threshold, mask, clean volume) a JSON of the measures. Everything is written atomically, the JSON after its
file: what a crash leaves behind is either complete or not there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from platformdirs import user_cache_path

from napari_tinc.compare.candidates import Candidate
from napari_tinc.errors import InputError
from napari_tinc.system.output import write_atomic

_DIGEST_BYTES = 16
_CHUNK_VOXELS = 1 << 22
# Rooms and modules that compressed bytes, or what is measured of them, depend on.
_DECIDING = (
    *("arrays", "directional", "encode", "format", "geometry", "masks", "measures", "networks", "predictive"),
    *("choices", "decoding", "exact", "kernels", "layers", "limits", "mixing", "partial", "postfilter", "quality"),
    *("lanes", "on_device", "quantiser", "restoration", "settings", "target", "vectors", "volume", "wavelets"),
    *("compare/container", "compare/measures", "compare/memory", "compare/peers", "compare/video", "compare/worker"),
)


def default_folder() -> Path:
    """Where results are kept if nobody says otherwise: the user's cache folder."""
    return user_cache_path("napari-tinc", appauthor=False) / "compare"


def array_key(array: NDArray[Any] | None, *said: str) -> str:
    """Hash of an array's dtype, shape and voxels, and of what else is said of it."""
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    digest.update("\0".join(said).encode())
    if array is not None:
        digest.update(f"{array.dtype.str} {array.shape}".encode())
        flat = array.reshape(-1) if array.flags.c_contiguous else array.ravel()
        for start in range(0, flat.size, _CHUNK_VOXELS):
            digest.update(np.ascontiguousarray(flat[start : start + _CHUNK_VOXELS]).data)
    return digest.hexdigest()


@cache
def code_key() -> str:
    """Hash of the sources that results depend on, and the versions of the codecs' packages."""
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    sources = files("napari_tinc")
    for name in _DECIDING:
        room = sources / name
        for path, source in _modules(room, name) if room.is_dir() else [(name, (sources / f"{name}.py").read_bytes())]:
            digest.update(path.encode() + source)
    for package in ("torch", "imagecodecs", "imageio-ffmpeg", "scikit-image"):
        digest.update(f"{package} {_version(package)}".encode())
    return digest.hexdigest()


class Store:
    """The results of one volume.

    Parameters
    ----------
    folder : Path
        The cache; made when something is written.
    volume : str
        Key of the volume and its metadata.
    truth : str
        Key of what it is measured against.
    """

    def __init__(self, folder: Path, volume: str, truth: str) -> None:
        self._folder = folder / volume
        self._truth = truth

    def path(self, candidate: Candidate, budget: int) -> Path:
        """Where the file of a candidate is, or goes."""
        said = json.dumps([candidate.as_dict(), budget, code_key()])
        name = hashlib.blake2b(said.encode(), digest_size=_DIGEST_BYTES).hexdigest()
        return self._folder / f"{name}{'.tinc' if candidate.codec == 'tinc' else '.peer'}"

    def coded(self, candidate: Candidate, budget: int) -> dict[str, Any] | None:
        """What making the file cost; None if it was not made, or is damaged."""
        path = self.path(candidate, budget)
        said = _read_json(path.with_suffix(".json"))
        if said is None or "problem" in said:
            return said
        try:
            intact = _file_key(path.read_bytes()) == said.get("digest")
        except OSError:
            return None
        return said if intact else None

    def measured(self, candidate: Candidate, budget: int) -> dict[str, Any] | None:
        """What was measured on the file against these truths; None if nothing was."""
        return _read_json(self._measures_path(candidate, budget))

    def keep_file(self, candidate: Candidate, budget: int, data: bytes, costs: Mapping[str, Any]) -> None:
        """Write a file and what making it cost."""
        self._make_folder()
        path = self.path(candidate, budget)
        write_atomic(path, data, overwrite=True)
        _write_json(path.with_suffix(".json"), {**costs, "digest": _file_key(data)})

    def keep_problem(self, candidate: Candidate, budget: int, problem: str) -> None:
        """Write that a candidate cannot reach the budget."""
        self._make_folder()
        _write_json(self.path(candidate, budget).with_suffix(".json"), {"problem": problem})

    def keep_measures(self, candidate: Candidate, budget: int, measures: Mapping[str, Any]) -> None:
        """Write what was measured on a file."""
        _write_json(self._measures_path(candidate, budget), measures)

    def _make_folder(self) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"expected to keep results in {self._folder}, got {error.strerror}; choose a folder you may write to"
            ) from error

    def _measures_path(self, candidate: Candidate, budget: int) -> Path:
        path = self.path(candidate, budget)
        return path.with_name(f"{path.stem}-{self._truth}.json")


def _file_key(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES).hexdigest()


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        said = json.loads(path.read_bytes())
    except (OSError, ValueError):  # not there, or damaged: it is made again
        return None
    return said if isinstance(said, dict) else None


def _write_json(path: Path, said: Mapping[str, Any]) -> None:
    write_atomic(path, json.dumps(said).encode(), overwrite=True)


def _modules(room: Traversable, path: str) -> Iterator[tuple[str, bytes]]:
    for entry in sorted(room.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir():
            yield from _modules(entry, f"{path}/{entry.name}")
        elif entry.name.endswith(".py"):
            yield f"{path}/{entry.name}", entry.read_bytes()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"

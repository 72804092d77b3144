"""The whole round trip on a sample: compress, decode the file alone in a new process, measure, draw."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_tinc import samples
from napari_tinc.encode.compression import compress_steps
from napari_tinc.errors import InputError, TincError
from napari_tinc.figure import save_figure
from napari_tinc.files import check_output
from napari_tinc.measures import metrics
from napari_tinc.progress import Progress
from napari_tinc.settings import Settings
from napari_tinc.system.output import PARTIAL_PREFIX
from napari_tinc.system.working import working_folder
from napari_tinc.target import Target
from napari_tinc.volume import CompressedVolume, Octant

FILE_NAME = "demo.tinc"
FIGURE_NAME = "demo.png"


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What one round trip cost: sizes in bytes, times in seconds, qualities in dB (SSIM at most 1)."""

    sample: str
    raw_bytes: int
    file_bytes: int
    ratio: float
    psnr: float
    ssim: float
    encode_seconds: float
    decode_seconds: float
    worst_octant_psnr: float
    worst_octant_box: str
    file: str
    figure: str


def run_demo(
    sample: str,
    ratio: float,
    preset: str,
    folder: Path,
    overwrite: bool,
    run: Callable[[Generator[Progress, None, CompressedVolume]], CompressedVolume],
) -> DemoResult:
    """Compress a sample into ``demo.tinc``, decode that file in a new process, and draw ``demo.png``.

    Parameters
    ----------
    sample : str
        One of ``napari_tinc.samples.NAMES``.
    ratio : float
        Raw bytes over file bytes to reach.
    preset : str
        ``fast``, ``balanced`` or ``best``.
    folder : Path
        Where both files go.
    overwrite : bool
        Replace files of an earlier run.
    run : callable
        Drives the compression to its end, showing its progress.

    Returns
    -------
    DemoResult
        Sizes, times and qualities, measured on what the new process decoded.

    Raises
    ------
    TincError
        A file exists, the folder cannot be written to, or a step fails.
    """
    file, figure = folder / FILE_NAME, folder / FIGURE_NAME
    _check_request(sample, (file, figure), overwrite)
    original, metadata = samples.load(sample)
    start = time.perf_counter()
    compressed = run(compress_steps(original, Target.ratio(ratio), Settings(preset), metadata=metadata))
    encode_seconds = time.perf_counter() - start
    decoded, decode_seconds = _publish(compressed, sample, original, file, figure)
    file_bytes = file.stat().st_size
    worst = min(compressed.octants, key=lambda octant: octant.psnr)
    return DemoResult(
        sample=sample,
        raw_bytes=original.nbytes,
        file_bytes=file_bytes,
        ratio=original.nbytes / file_bytes,
        psnr=metrics.psnr(original, decoded),
        ssim=metrics.ssim(original, decoded),
        encode_seconds=encode_seconds,
        decode_seconds=decode_seconds,
        worst_octant_psnr=worst.psnr,
        worst_octant_box=", ".join(f"{part.start}:{part.stop}" for part in worst.box),
        file=str(file),
        figure=str(figure),
    )


def _check_request(sample: str, outputs: Sequence[Path], overwrite: bool) -> None:
    if sample not in samples.NAMES:
        raise InputError(f"expected a sample among {', '.join(samples.NAMES)}, got {sample!r}; choose one of them")
    for path in outputs:
        check_output(path, overwrite)


def _publish(
    compressed: CompressedVolume, sample: str, original: NDArray[Any], file: Path, figure: Path
) -> tuple[NDArray[Any], float]:
    """Write both files; they take their places together at the end, so that Ctrl-C leaves nothing behind."""
    with working_folder(file.parent, PARTIAL_PREFIX) as partial:
        new_file, new_figure = partial / file.name, partial / figure.name
        compressed.save(new_file)
        decoded, decode_seconds = decode_in_new_process(new_file)
        ratio = original.nbytes / new_file.stat().st_size
        title = f"{sample}: {ratio:.1f} times smaller, {metrics.psnr(original, decoded):.2f} dB"
        save_figure(new_figure, original, decoded, *octant_grid(compressed.octants), title)
        os.replace(new_file, file)
        os.replace(new_figure, figure)
    return decoded, decode_seconds


def decode_in_new_process(file: Path) -> tuple[NDArray[Any], float]:
    """Decode a ``.tinc`` file in a process that knows nothing but the file.

    Returns
    -------
    decoded : ndarray
        The voxels.
    seconds : float
        What the process spent on decoding, without its start.

    Raises
    ------
    TincError
        The process failed; the text is its own.
    """
    with working_folder(Path(tempfile.gettempdir()), "tinc-demo-") as folder:
        target = folder / "decoded.npy"
        command = [sys.executable, "-m", "napari_tinc", "decompress", str(file), str(target), "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        try:
            said = json.loads(done.stdout)
        except ValueError:
            said = {"error": " ".join(done.stderr.split()[-40:])}
        if done.returncode != 0 or "error" in said:
            reason = said.get("error", f"exit code {done.returncode}")
            raise TincError(f"expected {file.name} to decode in a new process, got: {reason}; report this as a bug")
        return np.load(target, allow_pickle=False), float(said["seconds"])


def octant_grid(octants: Sequence[Octant]) -> tuple[NDArray[np.float64], tuple[NDArray[np.int64], ...]]:
    """Arrange the PSNR of the first item's octants as they lie in space.

    Returns
    -------
    grid : ndarray of float64
        PSNR in dB, one entry per octant, as many axes as the octants have.
    edges : tuple of ndarray of int64
        Where the octants begin and end along every axis: one more than the grid is long.
    """
    boxes = [(octant.box, octant.psnr) for octant in octants if octant.item == 0]
    ndim = len(boxes[0][0])
    edges = tuple(
        np.unique([position for box, _ in boxes for position in (box[axis].start, box[axis].stop)])
        for axis in range(ndim)
    )
    grid = np.full([len(edge) - 1 for edge in edges], np.nan)
    for box, psnr in boxes:
        grid[tuple(np.searchsorted(edge, part.start) for edge, part in zip(edges, box, strict=True))] = psnr
    return grid, edges

"""Compress files: one, or many of which none stops the others."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from napari_tinc.encode.speeds import estimate
from napari_tinc.errors import InputError, TincError
from napari_tinc.settings import Settings
from napari_tinc.system.output import check_output, is_zarr
from napari_tinc.system.steps import relay

# torch and the readers of volumes take seconds to import.
if TYPE_CHECKING:
    from napari_tinc.progress import Progress
    from napari_tinc.target import Target
    from napari_tinc.volume import CompressedVolume

logger = logging.getLogger(__name__)

Array = npt.NDArray[Any]

SUFFIX = ".tinc"
# A user wants to know before so long a wait.
_LONG_SECONDS = 10.0
# What a folder is searched for; a file that is named is read whatever its name.
_VOLUMES = (".tif", ".tiff", ".npy", ".zarr")


@dataclass(frozen=True, slots=True)
class Job:
    """A file to compress.

    Parameters
    ----------
    source : Path
        A TIFF, NPY or (OME-)Zarr volume.
    output : Path
        The ``.tinc`` file to write.
    """

    source: Path
    output: Path


@dataclass(frozen=True, slots=True)
class Options:
    """How to compress files.

    Parameters
    ----------
    target : Target
    settings : Settings
    weights : ndarray, optional
        Weight of every voxel in the loss, see :func:`napari_tinc.encode.compression.compress_steps`.
    axes : str, optional
        Axis letters where a file is silent or wrong.
    overwrite : bool
        Whether outputs that exist are replaced.
    accept_labels : bool
        Whether what looks like a label image is compressed.
    """

    target: Target
    settings: Settings = field(default_factory=Settings)
    weights: Array | None = None
    axes: str | None = None
    overwrite: bool = False
    accept_labels: bool = False


@dataclass(frozen=True, slots=True)
class Done:
    """What became of a file.

    Parameters
    ----------
    job : Job
    problem : str
        Why there is no output; empty if there is one.
    raw_bytes, file_bytes : int
    psnr, worst_octant_psnr : float
        In dB over the volume's own range.
    seconds : float
        From opening the file to closing the output.
    """

    job: Job
    problem: str = ""
    raw_bytes: int = 0
    file_bytes: int = 0
    psnr: float = math.nan
    worst_octant_psnr: float = math.nan
    seconds: float = math.nan

    @property
    def ratio(self) -> float:
        """Raw bytes over file bytes; nan without an output."""
        return self.raw_bytes / self.file_bytes if self.file_bytes else math.nan


@dataclass(frozen=True, slots=True)
class Step:
    """How far a batch is: while file ``number`` of ``total`` is worked on, and once more when it is done.

    Parameters
    ----------
    job : Job
    number, total : int
        Counted from 1.
    progress : Progress or None
        Of the compression; None once it has ended.
    done : Done or None
        What became of the file; None until it has ended.
    """

    job: Job
    number: int
    total: int
    progress: Progress | None = None
    done: Done | None = None


def find_jobs(sources: Sequence[Path], folder: Path) -> list[Job]:
    """Name an output for every volume; look into folders, but not into those inside them.

    Parameters
    ----------
    sources : sequence of Path
        Volumes, and folders of volumes: TIFF and NPY files and Zarrs, in the order of their names.
    folder : Path
        Where the outputs go, each named after its volume.

    Raises
    ------
    InputError
        If there is nothing to compress, or two volumes would become the same file.
    """
    found: list[Path] = []
    for source in sources:
        found += _volumes_in(source) if source.is_dir() and not is_zarr(source) else [source]
    found = list(dict.fromkeys(found))
    if not found:
        raise InputError("expected at least one volume to compress, got none: name files, or folders that hold some")
    claimed: dict[str, Path] = {}
    for source in found:
        # Some file systems do not tell a from A.
        name = f"{_stem(source)}{SUFFIX}"
        other = claimed.setdefault(name.casefold(), source)
        if other != source:
            raise InputError(
                f"expected volumes of different names, got {other} and {source}, which would both become {name}: "
                "rename one, or compress them into different folders"
            )
    return [Job(source, folder / f"{_stem(source)}{SUFFIX}") for source in found]


def compress_file(job: Job, options: Options) -> Generator[Progress, None, Done]:
    """Compress one file step by step.

    Raises
    ------
    TincError
        As the reader of volumes, `compress_steps` or the writer; also for what looks like a label image, and an output
        that exists.
    """
    from napari_tinc.arrays.inputs import check_not_labels, check_volume
    from napari_tinc.files import read_volume

    began = time.perf_counter()
    check_output(job.output, options.overwrite)
    volume = read_volume(job.source, options.axes)
    check_volume(volume.data, volume.metadata)
    if not options.accept_labels:
        check_not_labels(volume.data)
    from napari_tinc.encode.compression import compress_steps
    from napari_tinc.progress import Progress

    if (note := _time_note(volume.data, options)) is not None:
        yield note
    steps = compress_steps(
        volume.data, options.target, options.settings, metadata=volume.metadata, weights=options.weights
    )
    compressed: CompressedVolume = yield from steps
    yield Progress.unmeasured("saving", 0, 1)  # the last moment to be stopped
    compressed.save(job.output, overwrite=options.overwrite)
    worst = min((octant.psnr for octant in compressed.octants), default=math.nan)
    psnr, seconds = float(compressed.provenance["psnr"]), time.perf_counter() - began
    return Done(job, "", compressed.raw_nbytes, compressed.nbytes, psnr, worst, seconds)


def compress_files(jobs: Sequence[Job], options: Options) -> Generator[Step, None, list[Done]]:
    """Compress files one by one, step by step. Closing the generator leaves finished outputs, and no half ones.

    Parameters
    ----------
    jobs : sequence of Job
        See `find_jobs`.
    options : Options

    Yields
    ------
    Step

    Returns
    -------
    list of Done
        One per job; a job that failed has its problem in words, and did not stop the others.
    """
    results = []
    for number, job in enumerate(jobs, 1):

        def told(progress: Progress, job: Job = job, number: int = number) -> Step:
            return Step(job, number, len(jobs), progress)

        try:
            job.output.parent.mkdir(parents=True, exist_ok=True)
            done = yield from relay(compress_file(job, options), told)
        except TincError as error:
            done = Done(job, str(error))
        except OSError as error:
            done = Done(job, f"expected a folder for {job.output}, got: {error.strerror}; name another one")
        except Exception as error:
            logger.exception("compressing %s failed", job.source)
            reason = " ".join(str(error).split())[:200]
            done = Done(job, f"{type(error).__name__}: {reason}; please report this as a bug")
        results.append(done)
        yield Step(job, number, len(jobs), done=done)
    return results


def _time_note(array: Array, options: Options) -> Progress | None:
    """Say how long it will take, where that is long and known."""
    from napari_tinc.progress import Progress

    settings = options.settings
    if options.target.kind == "psnr" or settings.time_limit is not None:
        return None
    expected = estimate(array.size, array.dtype, settings.preset, settings.model, settings.device)
    if expected is None or (expected.high or expected.low) < _LONG_SECONDS:
        return None
    return Progress.unmeasured("preparing", 0, 1, f"expected to take {expected.text()}")


def _volumes_in(folder: Path) -> list[Path]:
    try:
        return sorted(
            path
            for path in folder.iterdir()
            if path.suffix.lower() in _VOLUMES and not path.name.startswith(".") and (path.is_file() or is_zarr(path))
        )
    except OSError as error:
        raise InputError(f"expected a folder of volumes, got {folder}: {error.strerror}; check the path") from error


def _stem(source: Path) -> str:
    """Name without what says the format: ``stack.ome.tif`` is ``stack``."""
    stem = source.stem
    return stem[: -len(".ome")] if stem.lower().endswith(".ome") else stem


__all__ = ["SUFFIX", "Done", "Job", "Options", "Step", "compress_file", "compress_files", "find_jobs"]

"""Choose where tensors live, and how many threads torch takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock, local

import torch

from napari_tinc.errors import InputError
from napari_tinc.system.forks import after_fork
from napari_tinc.system.threads import all_cores, is_forked, works_beside_others

DEVICES = ("auto", "cpu", "cuda", "mps")
# How many settings of torch's threads are in force, and what held before the first of them.
_lock, _here = Lock(), local()
_open, _before = 0, 1


def resolve_device(name: str) -> torch.device:
    """Turn a device's name into a device; ``"auto"`` takes CUDA, then MPS, then the CPU.

    Raises
    ------
    InputError
        If the name is unknown or the device is not there.
    """
    kind, colon, number = name.partition(":") if isinstance(name, str) else ("", "", "")
    if kind not in DEVICES:
        raise InputError(f"expected a device among {DEVICES}, got {name!r}")
    if colon and not (kind == "cuda" and number.isdecimal() and int(number) < torch.cuda.device_count()):
        raise InputError(f"expected one of {torch.cuda.device_count()} CUDA devices, got {name!r}: count them from 0")
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if kind == "auto":
        return torch.device(next(candidate for candidate in ("cuda", "mps", "cpu") if available[candidate]))
    if not available[kind]:
        raise InputError(f"expected a {kind} device, got none that torch can use: choose 'cpu' or 'auto'")
    return torch.device(name)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Tell an allocation failure of any device from other runtime errors."""
    texts = ("allocate memory", "not enough memory", "out of memory")  # CPU on Linux and Windows, MPS
    return isinstance(error, torch.cuda.OutOfMemoryError) or any(text in str(error) for text in texts)


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 products are native, and so faster than float32 ones, on a device."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
        return supported is not None and bool(supported())
    return False


@contextmanager
def one_core_free() -> Iterator[None]:
    """Let torch use all cores of this process but one, or fewer where it was told so, while the block runs.

    Its threads wait for one another at every operation. Where something else wants one of their cores, be it a window
    that is drawn, all of them wait for the scheduler each time: ``benchmarks/threads.py``. Torch keeps the setting
    for every thread by itself. A forked process has only the thread that forked, and others would be waited for; and
    where boxes are worked on side by side, others have work.
    """
    alone = is_forked() or works_beside_others()
    with _threads(lambda own: 1 if alone else max(1, min(own, all_cores() - 1))):
        yield


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use the calling thread alone while the block runs: others work beside it."""
    with _threads(lambda own: 1):
        yield


@contextmanager
def _threads(count: Callable[[int], int]) -> Iterator[None]:
    """Set torch's threads, from those of the calling thread, while the block runs.

    A new thread begins with what any other has set last. Where that was set here, it is not its own: it gets what
    held before, lest one thread be left to all that come.
    """
    global _open, _before
    with _lock:
        threads = torch.get_num_threads()
        if not _open:
            _before = threads
        elif not hasattr(_here, "seen"):
            threads = _before
        _open, _here.seen = _open + 1, True
        torch.set_num_threads(count(threads))
    try:
        yield
    finally:
        with _lock:
            torch.set_num_threads(threads)
            _open = max(0, _open - 1)  # a child forked meanwhile began anew


def _begin_anew() -> None:
    """Nothing is in force in a forked process but what its thread has set."""
    global _lock, _open
    _lock, _open = Lock(), 0


after_fork(_begin_anew)

"""A process forked from one that has decoded, or is decoding, decodes as well: what `multiprocessing` does on Linux."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from synthetic import blobs

from napari_tinc.encode.compression import compress
from napari_tinc.target import Target
from napari_tinc.volume import CompressedVolume

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the system cannot fork")
SECONDS = 20


def in_child(volume: CompressedVolume) -> np.ndarray:
    """Decode in a forked process; fail if it does not end."""
    context = multiprocessing.get_context("fork")
    with context.Pool(1) as pool:
        decoded: np.ndarray = pool.apply_async(volume.decode).get(SECONDS)
    return decoded


def forked_and_waited_for(work: object) -> int:
    """Run a function in a forked process without copying its arguments; return its exit code, or kill it."""
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join(SECONDS)
    hangs = process.is_alive()
    process.kill()
    process.join()
    assert not hangs
    assert process.exitcode is not None
    return process.exitcode


@contextmanager
def held(lock: threading.Lock) -> Iterator[None]:
    """Let another thread hold a lock, as one that is decoding does."""
    holding, over = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            holding.set()
            over.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    holding.wait()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_a_pool_of_processes_decodes_what_its_parent_has_decoded(any_model: CompressedVolume) -> None:
    expected = any_model.decode()
    np.testing.assert_array_equal(in_child(any_model), expected)


def test_a_volume_that_another_thread_decodes_at_the_moment_of_the_fork_is_decoded(any_model: CompressedVolume) -> None:
    expected = any_model.decode()

    def decode() -> None:
        np.testing.assert_array_equal(any_model.decode(), expected)
        assert len(any_model.octants) == any_model.tree.leaves

    with held(any_model._lock):
        assert forked_and_waited_for(decode) == 0


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="cached properties have no locks any more")
def test_properties_that_another_thread_computes_at_the_moment_of_the_fork_can_be_asked_for() -> None:
    volume = compress(blobs((12, 13, 14)), Target.size(900), preset="fast", device="cpu", model="wavelet")

    def ask() -> None:
        assert len(volume.octants) == volume.tree.leaves

    with held(type(volume).__dict__["octants"].lock):
        assert forked_and_waited_for(ask) == 0


TORCH = """
import multiprocessing, sys, torch
from napari_tinc.networks import device
from napari_tinc.volume import CompressedVolume

device.all_cores = lambda: 5  # so that four threads are allowed, whatever machine this is
torch.set_num_threads(4)
left = torch.rand(2000, 2000)
(left @ left).sum()  # starts torch's team of threads
volume = CompressedVolume.open(sys.argv[1], "cpu")
expected = volume.decode()

def decode():
    assert (volume.decode() == expected).all()

for round in range(2):
    process = multiprocessing.get_context("fork").Process(target=decode)
    process.start()
    process.join(60)
    if process.exitcode != 0:
        process.kill()
        sys.exit(f"exit code {process.exitcode}")
assert torch.get_num_threads() == 4
"""


def test_networks_are_decoded_after_torch_has_used_its_threads(compressed: CompressedVolume, tmp_path) -> None:
    compressed.save(tmp_path / "a.tinc")
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    command = [sys.executable, "-c", TORCH, str(tmp_path / "a.tinc")]
    run = subprocess.run(command, capture_output=True, text=True, timeout=200, env=environment)
    assert run.returncode == 0, run.stderr

"""Several at a time, and the same again: comparisons that share a store, a cluster that loses workers, trainings."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import closing
from typing import Any

from attacks.kills import VOLUME
from napari_tinc.compare.candidates import Candidate
from napari_tinc.compare.engine import Comparison

TRAINING = """
import hashlib
import numpy as np
import torch
from napari_tinc import Target, compress
torch.set_num_threads(1)
grid = np.stack(np.meshgrid(*(np.linspace(0, 9, n) for n in (16, 24, 28)), indexing="ij"))
volume = (3000 * np.exp(-((grid - 4) ** 2).sum(0) / 9)).astype(np.int16)
data = compress(volume, Target.ratio(12), preset="fast", model="tinc+wavelet", device="cpu").to_bytes()
print(hashlib.sha256(data).hexdigest())
"""
PEERS = ("sperr", "sz3", "zfp")


def share_store(count: int) -> dict[str, Any]:
    """Run two comparisons of one volume on one store at the same time; both find what one alone finds."""
    found: list[str] = []
    for _ in range(count):
        with tempfile.TemporaryDirectory() as cache:
            tables: list[Any] = []
            failed: list[BaseException] = []

            def run(cache: str = cache, tables: list[Any] = tables, failed: list[BaseException] = failed) -> None:
                try:
                    comparison = Comparison(
                        VOLUME, candidates=[Candidate(p) for p in PEERS], ratios=(20, 40), cache=cache
                    )
                    for _ in comparison.run():
                        pass
                    tables.append([(r.label, r.target_ratio, r.nbytes, r.measures.psnr) for r in comparison.results])
                except BaseException as error:
                    failed.append(error)

            threads = [threading.Thread(target=run) for _ in range(2)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            if failed or len(tables) != 2 or tables[0] != tables[1] or len(tables[0]) != 2 * len(PEERS):
                found.append(f"two comparisons: {failed or tables}")
    return {"pairs": count, "found": found}


def kill_cluster_workers(count: int) -> dict[str, Any]:
    """Kill a worker of a real scheduler while it runs candidates; the others do its work, or its loss is a result."""
    if not count:
        return {"kills": 0, "found": []}
    from distributed import LocalCluster

    found: list[str] = []
    for number in range(count):
        with (
            LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster,
            tempfile.TemporaryDirectory() as cache,
        ):
            comparison = _comparison(cache)
            victims = [worker.pid for worker in cluster.workers.values()]
            started, killed = time.monotonic(), False
            with closing(comparison.run(scheduler=cluster.scheduler_address)) as events:
                for _ in events:
                    if not killed and time.monotonic() - started > 1 + number:
                        os.kill(victims[0], 9)
                        killed = True
                    if time.monotonic() - started > 240:
                        found.append(f"cluster {number}: not done after four minutes")
                        break
            if len(comparison.results) != 2 * len(PEERS) and not found:
                found.append(f"cluster {number}: {len(comparison.results)} results of {2 * len(PEERS)}")
    return {"kills": count, "found": found}


def repeat_training(count: int) -> dict[str, Any]:
    """Train the same network in new processes; all files are the same, byte for byte."""
    digests = set()
    for _ in range(count):
        done = subprocess.run([sys.executable, "-c", TRAINING], capture_output=True, text=True, check=True)
        digests.add(done.stdout.strip())
    return {"trainings": count, "found": [f"{len(digests)} different files of one training"] * (len(digests) > 1)}


def _comparison(cache: str) -> Comparison:
    return Comparison(VOLUME, candidates=[Candidate(peer) for peer in PEERS], ratios=(20, 40), cache=cache)


__all__ = ["kill_cluster_workers", "repeat_training", "share_store"]

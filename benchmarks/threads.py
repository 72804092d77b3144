"""Training steps a second by torch's threads, while other processes keep some of the cores busy.

    python benchmarks/threads.py

Every row is a process of its own: how OpenMP's threads wait is settled when torch is imported. What else runs on the
machine counts, too, so the load before each row is printed with it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from itertools import product

MEASURE = """
import sys, time
import torch
from napari_tinc import Target, samples
from napari_tinc.encode import compression
from napari_tinc.networks import device
from napari_tinc.settings import Settings
device.all_cores = lambda: int(sys.argv[1]) + 1  # as many threads as asked for
torch.set_num_threads(int(sys.argv[1]))
volume, metadata = samples.load("brain")
started = None
for progress in compression.compress_steps(volume, Target.ratio(64), Settings("best", device="cpu"), metadata=metadata):
    if progress.phase != "training":
        continue
    if started is None:
        started, first = time.perf_counter(), progress.step
    elif time.perf_counter() - started > float(sys.argv[2]):
        break
print((progress.step - first) / (time.perf_counter() - started))
"""


def steps_a_second(threads: int, waiting: str, busy: int, seconds: float) -> float:
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(busy)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    if waiting:
        environment["OMP_WAIT_POLICY"] = waiting
    command = [sys.executable, "-W", "ignore", "-c", MEASURE, str(threads), str(seconds)]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    finally:
        for other in others:
            other.kill()
            other.wait()
    return float(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5, help="of training for every row")
    parser.add_argument("--busy", type=int, nargs="+", default=[0, 1], help="other processes")
    parser.add_argument("--threads", type=int, nargs="+", help="by default one, all cores, and all but one")
    parser.add_argument("--waiting", nargs="+", default=["", "passive"], help="OMP_WAIT_POLICY")
    args = parser.parse_args()
    seconds, cores = args.seconds, os.cpu_count() or 1
    print(f"{cores} cores")
    numbers = args.threads or sorted({1, cores - 1, cores} - {0})
    for busy, threads, waiting in product(args.busy, numbers, args.waiting):
        load = os.getloadavg()[0]
        rate = steps_a_second(threads, waiting, busy, seconds)
        print(f"{busy} busy processes, {threads} threads, waiting {waiting or 'as torch has it'}: "
              f"{rate:.0f} steps/s (load before {load:.1f})", flush=True)  # fmt: skip
        time.sleep(1)


if __name__ == "__main__":
    main()

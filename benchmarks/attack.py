"""Attack everything that reads or writes files; say what was found. ``docs/reliability.md`` has the numbers of a run.

python benchmarks/attack.py                                              # the whole programme
python benchmarks/attack.py --frames 500 --files 200 --kills 3 --runs 0  # a short one

Every attack has a number: ``--only frames 0 123`` repeats one.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests")]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=200_000, help="hostile .tinc files")
    parser.add_argument("--files", type=int, default=10_000, help="hostile TIFF, NPY and Zarr files")
    parser.add_argument("--kills", type=int, default=100, help="kills of each of: compress, decompress, saves")
    parser.add_argument(
        "--runs", type=int, default=5, help="kills of comparisons, of cluster workers; repetitions of a training"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument(
        "--only", nargs=3, metavar=("PART", "SEED", "NUMBER"), help="one attack, here, with its traceback"
    )
    parser.add_argument("--batch", nargs=5, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.batch:
        return batch(*given.batch)
    if given.only:
        part, seed, number = given.only
        print(attack_of(part)(int(seed), int(number)))
        return 0
    return programme(given)


def attack_of(part: str):
    """Return what attacks with a seed and a number."""
    if part == "frames":
        from attacks import frames

        frames.prepare()
        return frames.attack
    from attacks import volumes

    return volumes.attack


def batch(part: str, seed: str, first: str, last: str, said: str) -> int:
    from attacks.batches import attack_all

    from napari_tinc.errors import FormatError, TincError

    attack = attack_of(part)
    allowed = (FormatError,) if part == "frames" else (TincError,)
    attack_all(lambda number: attack(int(seed), number), range(int(first), int(last)), Path(said), allowed)
    return 0


def programme(given: argparse.Namespace) -> int:
    from attacks import kills, runs
    from attacks.batches import run_batches

    parts = {
        "hostile frames": lambda: run_batches("frames", given.seed, given.frames, 2500, given.processes),
        "hostile files of other formats": lambda: run_batches("files", given.seed, given.files, 500, given.processes),
        "kills of compress": lambda: kills.kill_compress(given.kills, given.seed, given.processes),
        "kills of decompress": lambda: kills.kill_decompress(given.kills, given.seed, given.processes),
        "kills of saves": lambda: kills.kill_saves(given.kills, given.seed, given.processes),
        "kills of comparisons": lambda: kills.kill_comparisons(given.runs, given.seed),
        "kills of demo": lambda: kills.kill_demo(given.runs, given.seed, given.processes),
        "two comparisons on one store": lambda: runs.share_store(min(given.runs, 1)),
        "kills of cluster workers": lambda: runs.kill_cluster_workers(min(given.runs, 2)),
        "the same training again": lambda: runs.repeat_training(given.runs),
    }
    found = 0
    for name, run in parts.items():
        started = time.monotonic()
        result = run()
        found += len(result["found"])
        result["seconds"] = round(time.monotonic() - started)
        print(json.dumps({"part": name} | result), flush=True)
    print("nothing to report" if not found else f"{found} found")
    return min(found, 1)


if __name__ == "__main__":
    sys.exit(main())

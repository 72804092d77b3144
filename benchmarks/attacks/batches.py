"""Attack in processes of their own: one that crashes or hangs is a finding, not the end of the programme."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path

ROOT = Path(__file__).parents[2]
# What one file may cost: processor seconds, bytes of address space beyond the start, bytes of a file on disk.
SECONDS, MEMORY, DISK = 10.0, 3 * 2**30, 2**30
_SILENCE = 120.0

Attack = Callable[[int], str]


def attack_all(attack: Attack, numbers: Iterable[int], said: Path, allowed: tuple[type[BaseException], ...]) -> None:
    """Attack with every number; write what is found, and how far it is, to a file of JSON lines."""
    with open("/proc/self/statm") as file:
        size = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (DISK, resource.RLIM_INFINITY))
    slowest = 0.0
    with said.open("a", buffering=1) as report:
        for number in numbers:
            report.write(json.dumps({"at": number}) + "\n")
            started = time.process_time()
            outcome = "passed"
            try:
                outcome = attack(number)
            except allowed as error:
                outcome = f"refused: {type(error).__name__}"
                if "\n" in str(error) or len(str(error)) > 1000:
                    report.write(
                        json.dumps({"found": f"the text of an error: {str(error)[:100]!r}", "at": number}) + "\n"
                    )
            except BaseException as error:
                where = " < ".join(
                    f"{f.filename.rpartition('/')[2]}:{f.lineno}"
                    for f in traceback.extract_tb(error.__traceback__)[::-1][:4]
                )
                text = f"{type(error).__name__}: {str(error)[:120]} at {where}"
                report.write(json.dumps({"found": text, "at": number}) + "\n")
                outcome = "failed"
            spent = time.process_time() - started
            slowest = max(slowest, spent)
            if spent > SECONDS:
                report.write(json.dumps({"found": f"{spent:.1f} s of processor time", "at": number}) + "\n")
            report.write(json.dumps({"outcome": outcome}) + "\n")
        report.write(json.dumps({"done": True, "slowest": slowest}) + "\n")


def run_batches(part: str, seed: int, count: int, per_batch: int, processes: int) -> dict[str, object]:
    """Attack ``count`` times in batches; return how often, what came of it, and what was found."""
    ranges = [(first, min(first + per_batch, count)) for first in range(0, count, per_batch)]
    outcomes: dict[str, int] = {}
    found: list[str] = []
    slowest = 0.0
    with tempfile.TemporaryDirectory() as folder:
        waiting, running = ranges[::-1], list[tuple[subprocess.Popen[bytes], Path, tuple[int, int]]]()
        while waiting or running:
            while waiting and len(running) < processes:
                first, last = waiting.pop()
                said = Path(folder, f"{first}.jsonl")
                said.touch()
                command = [
                    sys.executable,
                    str(ROOT / "benchmarks" / "attack.py"),
                    "--batch",
                    part,
                    str(seed),
                    str(first),
                    str(last),
                    str(said),
                ]
                environment = os.environ | {"OMP_NUM_THREADS": "1", "TMPDIR": folder}
                running.append(
                    (subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL), said, (first, last))
                )
            time.sleep(0.2)
            for process, said, (_, last) in list(running):
                silent = time.time() - said.stat().st_mtime > _SILENCE
                if process.poll() is None and not silent:
                    continue
                process.kill()
                process.wait()
                running.remove((process, said, (_, last)))
                lines = [json.loads(line) for line in said.read_text().splitlines()]
                for line in lines:
                    if "outcome" in line:
                        outcomes[line["outcome"]] = outcomes.get(line["outcome"], 0) + 1
                    if "found" in line:
                        found.append(f"{part} {seed} {line['at']}: {line['found']}")
                    slowest = max(slowest, line.get("slowest", 0.0))
                if not (lines and lines[-1].get("done")):
                    at = next((line["at"] for line in reversed(lines) if "at" in line and "found" not in line), None)
                    what = "no word for two minutes" if silent else f"ended with code {process.returncode}"
                    found.append(f"{part} {seed} {at}: {what}")
                    if at is not None and at + 1 < last:
                        waiting.append((at + 1, last))
    return {
        "attacks": sum(outcomes.values()),
        "outcomes": outcomes,
        "slowest_seconds": round(slowest, 2),
        "found": found,
    }

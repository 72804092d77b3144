"""Peak memory of this process and of the ffmpeg processes it started, as Linux counts it; unknown elsewhere."""

from __future__ import annotations

import math
import re
import subprocess
import time
from pathlib import Path

_POLL_SECONDS = 0.005
_child_peak = 0.0


def own_peak() -> float:
    """Largest resident size of this process so far in bytes; nan where the system does not tell.

    ``ru_maxrss`` would not do: a new process starts with its parent's.
    """
    return _peak("self")


def child_peak() -> float:
    """Largest resident size of any watched child so far in bytes; 0 if there was none."""
    return _child_peak


def watch_child(process: subprocess.Popen[bytes]) -> None:
    """Note how large a child becomes until it ends; it is looked at every few milliseconds."""
    global _child_peak
    while process.returncode is None:
        found = _peak(str(process.pid))
        if math.isnan(found):  # it has ended, or the system does not tell
            return
        _child_peak = max(_child_peak, found)
        time.sleep(_POLL_SECONDS)


def _peak(process: str) -> float:
    try:
        status = Path("/proc", process, "status").read_text()
    except OSError:
        return math.nan
    line = re.search(r"^VmHWM:\s*(\d+) kB", status, re.MULTILINE)
    return 1024.0 * int(line[1]) if line else math.nan

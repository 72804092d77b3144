"""What reading a Zarr in many small chunks costs, beside what zarr itself needs.

python benchmarks/reading.py
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path

import numpy as np
import zarr

from napari_tinc.arrays.scratch import to_array

if __name__ == "__main__":
    volume = np.random.default_rng(0).integers(0, 99, (384, 384, 384), dtype="u2")
    with tempfile.TemporaryDirectory() as folder:
        array = zarr.create_array(Path(folder, "a.zarr"), data=volume, chunks=(16, 16, 16))
        seconds = {}
        for name, read in (("zarr", lambda: array[...]), ("to_array", lambda: to_array(array))):
            started = time.perf_counter()
            assert (read() == volume).all()
            seconds[name] = round(time.perf_counter() - started, 1)
    print(json.dumps({"chunks": 24**3, "seconds": seconds}))

"""How fast files are made and read: ours beside SPERR, HEVC and AV1, in one run; and where our time goes.

    OMP_NUM_THREADS=1 python benchmarks/speed_peers.py --ratio 128 [VOLUME.tif …]

Without volumes: simulated ones of 4 Mvoxel (16 bits, sparse) and 17 Mvoxel (8 bits, noisy). Every codec's setting is
searched first, untimed, and fills the same budget; then one encoding at that setting and one decoding are timed, best
of three (of one beyond ten seconds). Ours has no setting: its search is part of its time. Seconds are of the processor,
child processes included, so that threads do not count; "wall" is ours by the clock, with as many threads as
OMP_NUM_THREADS allows. The stages are profiled in a run of their own without threads. The volume is compressed once
before, so that kernels are compiled.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import tifffile

from napari_tinc import CompressedVolume, Target, compress, samples
from napari_tinc.compare import peers
from napari_tinc.system import threads

PEERS = ("sperr", "hevc", "av1")
LONG = 10.0
# Functions by stage; what is not named is "other".
STAGES = {
    "entropy coding": ("_encode_block", "_decode_block", "_look_above", "_known"),
    "transform": ("_lift_forward", "_split_lines", "_split", "_merge", "merge", "band_of"),
    "coefficients between": ("_dequantise", "dequantise", "at", "_add", "pieces"),
    "filter": ("_gather", "_restore", "apply", "best", "_intervals"),
    "conversion": ("to_intensities", "_fill", "read"),
    "guess of the step": ("cost", "of", "searchsorted", "sort"),
    "measuring": ("add", "_compare", "_difference", "histogram", "reduceat"),
}


def sparse() -> np.ndarray:
    return samples.neuron_phantom((64, 256, 256)).noisy


def noisy() -> np.ndarray:
    volume = samples.neuron_phantom((256, 256, 256)).noisy.astype(np.float32)
    return np.clip(volume * (255 / np.quantile(volume, 0.9999)), 0, 255).astype(np.uint8)


def processor_seconds() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def timed(function: Callable[[], Any], clock: Callable[[], float]) -> tuple[Any, float]:
    """Best of three, of one if it takes long."""
    best, result = float("inf"), None
    for _ in range(3):
        began = clock()
        result = function()
        best = min(best, clock() - began)
        if best > LONG:
            break
    return result, best


def psnr(volume: np.ndarray, decoded: np.ndarray) -> float:
    error = np.square(volume.astype(np.float64) - decoded).mean()
    return float(20 * np.log10((float(volume.max()) - float(volume.min())) / np.sqrt(error)))


def ours(volume: np.ndarray, ratio: float) -> None:
    data, encode = timed(lambda: compress(volume, Target.ratio(ratio)).to_bytes(), processor_seconds)
    decoded, decode = timed(lambda: CompressedVolume(data).decode(), processor_seconds)
    show("ours", volume, len(data), decoded, encode, decode)
    _, encode = timed(lambda: compress(volume, Target.ratio(ratio)), time.perf_counter)
    _, decode = timed(lambda: CompressedVolume(data).decode(), time.perf_counter)
    show(f"wall, {threads.usable_cores()} threads", volume, len(data), decoded, encode, decode)


def peer(name: str, volume: np.ndarray, ratio: float) -> None:
    codec = peers.named(name)
    if (missing := codec.missing()) is not None:
        print(f"{name}: {missing}")
        return
    budget = int(volume.nbytes / ratio)
    fitted = peers.fit(codec, volume, "zyx", budget)
    low, high = float(volume.min()), float(volume.max())
    item = ((volume - np.float32(low)) / np.float32(high - low)).astype(np.float32)
    size = len(fitted.data)
    way = min(codec.ways, key=lambda way: abs(len(way(item, fitted.setting)) - size))  # the one that was best
    data, encode = timed(lambda: way(item, fitted.setting), processor_seconds)
    decoded, decode = timed(lambda: codec.decode(data, volume.shape), processor_seconds)
    whole = np.clip(np.rint(decoded * (high - low) + low), low, high)
    show(name, volume, len(data), whole, encode, decode)


def show(name: str, volume: np.ndarray, nbytes: int, decoded: np.ndarray, encode: float, decode: float) -> None:
    speeds = [volume.size / seconds / 1e6 for seconds in (encode, decode)]
    print(
        f"| {name} | {volume.nbytes / nbytes:.1f} | {psnr(volume, decoded):.2f} | {speeds[0]:.1f} | {speeds[1]:.1f} |"
    )


@contextmanager
def without_threads() -> Iterator[None]:
    """Work on blocks and boxes where they are given out, for the profiler to see."""
    with (
        mock.patch.object(threads.block_threads(), "_pool", None),
        mock.patch.object(threads, "usable_cores", return_value=1),
    ):
        yield


def stages(title: str, volume: np.ndarray, function: Callable[[], Any]) -> None:
    profile = cProfile.Profile(timer=time.process_time)
    with without_threads():
        profile.runcall(function)
    found: dict[str, float] = {}
    rows: Any = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    for (_, _, name), (_, _, own, _, _) in rows.items():
        stage = next((stage for stage, names in STAGES.items() if name.strip("<>").split()[-1] in names), "other")
        found[stage] = found.get(stage, 0.0) + own
    total = sum(found.values())
    shares = ", ".join(
        f"{stage} {seconds / total:.0%}" for stage, seconds in sorted(found.items(), key=lambda pair: -pair[1])
    )
    print(f"{title}: {1e9 * total / volume.size:.0f} ns a voxel under the profiler: {shares}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("volumes", nargs="*", type=Path)
    parser.add_argument("--ratio", type=float, default=128)
    parser.add_argument("--peers", nargs="*", default=PEERS, choices=PEERS)
    parser.add_argument("--short", action="store_true", help="a small volume, to see that it works")
    arguments = parser.parse_args()
    volumes = {path.stem: tifffile.imread(path) for path in arguments.volumes} or {"sparse": sparse(), "noisy": noisy()}
    if arguments.short:
        volumes = {"short": samples.neuron_phantom((16, 64, 64)).noisy}
    for name, volume in volumes.items():
        compress(volume, Target.ratio(arguments.ratio)).decode()
        print(f"\n{name}, {volume.size / 1e6:.1f} Mvoxel, {volume.dtype}\n")
        print("| | ratio | PSNR, dB | encoding, Mvoxel/s | decoding, Mvoxel/s |\n|---|---|---|---|---|")
        ours(volume, arguments.ratio)
        for one in arguments.peers:
            peer(one, volume, arguments.ratio)
        data = compress(volume, Target.ratio(arguments.ratio)).to_bytes()
        print()
        stages("encoding", volume, partial(compress, volume, Target.ratio(arguments.ratio)))
        stages("decoding", volume, partial(CompressedVolume(data).decode))


if __name__ == "__main__":
    main()

"""All that a GPU changes, measured in one run beside the CPU of the same machine.

    python benchmarks/gpu.py
    python benchmarks/gpu.py --device cpu --small    # a self test of this program, where there is no GPU

Prints Markdown: seconds and PSNR of every preset; decoded voxels a second, of networks and of wavelets; the first phase
of training in bfloat16 and in float32; the largest memory that torch held on the device. The volume is a simulated,
noisy vessel stack; networks alone are trained (model ``tinc``), for wavelets are encoded on the CPU. For decoding,
networks hold random parameters: speed does not depend on their values. The CPU's part takes a quarter of an hour.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import numpy as np
import torch
from speed import best_of, synthetic

from napari_tinc import CompressedVolume, InputError, Target, compress, samples
from napari_tinc.measures import metrics
from napari_tinc.networks import training
from napari_tinc.networks.device import has_fast_bfloat16, resolve_device

PRESETS = ("fast", "balanced", "best")


@contextmanager
def peak_memory(device: torch.device, what: str) -> Iterator[None]:
    """Print the most that torch held on a GPU while the block ran."""
    if device.type != "cuda":
        yield
        return
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    yield
    torch.cuda.synchronize(device)
    print(f"\nmemory on the GPU, {what}: {torch.cuda.max_memory_allocated(device) / 2**20:.0f} MiB at most", flush=True)


def encoded(volume: np.ndarray, ratio: float, device: str, preset: str, limit: float | None) -> tuple[float, float]:
    """Seconds and PSNR of a whole compression."""
    started = time.perf_counter()
    file = compress(volume, Target.ratio(ratio), preset=preset, device=device, model="tinc", time_limit=limit)
    seconds = time.perf_counter() - started
    return seconds, metrics.psnr(volume, file.decode())


def encoding(volume: np.ndarray, ratio: float, device: torch.device, limit: float | None) -> None:
    million = volume.size / 1e6
    print(
        f"\n| encode {million:.2f} Mvoxel at {ratio:g} | {device} | cpu | times faster |\n|---|---|---|---|", flush=True
    )
    for preset in PRESETS:
        (ours, ours_psnr), (theirs, theirs_psnr) = (
            encoded(volume, ratio, str(d), preset, limit) for d in (device, "cpu")
        )
        print(f"| {preset} | {ours:.1f} s, {ours_psnr:.2f} dB | {theirs:.1f} s, {theirs_psnr:.2f} dB "
              f"| {theirs / ours:.1f} |", flush=True)  # fmt: skip


def decoding(side: int, ratio: float, device: torch.device) -> None:
    print(
        f"\n| decode at {ratio:g} | {device}, Mvoxel/s | cpu, Mvoxel/s | times faster |\n|---|---|---|---|", flush=True
    )
    data = synthetic((side,) * 3, ratio).to_bytes()
    ours, theirs = (CompressedVolume(data, str(d)) for d in (device, "cpu"))
    planes = [lambda v=volume: v.decode((side // 2,)) for volume in (ours, theirs)]
    wholes = [volume.decode for volume in (ours, theirs)]
    for name, voxels, (one, other) in ((f"{side}³", side**3, wholes), ("a plane of it", side**2, planes)):
        one(), other()  # load parameters and kernels
        rates = [voxels / best_of(decode) / 1e6 for decode in (one, other)]
        print(f"| {name} | {rates[0]:.1f} | {rates[1]:.1f} | {rates[0] / rates[1]:.1f} |", flush=True)


def wavelets(shape: tuple[int, int, int], ratio: float, device: torch.device) -> None:
    """Decode a file of wavelets there (with torch, on the CPU too) and with the CPU's kernels."""
    volume = np.asarray(samples.vessel_tree(shape).noisy)
    data = compress(volume, Target.ratio(ratio), preset="fast").to_bytes()
    print(
        f"\n| decode wavelets, {shape} at {ratio:g} | {device}, Mvoxel/s | cpu, Mvoxel/s | times faster |\n"
        "|---|---|---|---|", flush=True,
    )  # fmt: skip
    with mock.patch("napari_tinc.networks.device.resolve_device", return_value=device):
        known = [CompressedVolume(data, name) for name in ("cuda", "cpu")]
        whole = [file.decode() for file in known]  # kernels, and blocks that are known then
        cases = {
            "from the file": (volume.size, [lambda n=n: CompressedVolume(data, n).decode() for n in ("cuda", "cpu")]),
            "blocks known": (volume.size, [file.decode for file in known]),
            "a plane, blocks known": (volume[0].size, [lambda f=f: f.decode((shape[0] // 2,)) for f in known]),
        }
        for name, (voxels, decodes) in cases.items():
            one, other = (voxels / best_of(decode) / 1e6 for decode in decodes)
            print(f"| {name} | {one:.1f} | {other:.1f} | {one / other:.1f} |", flush=True)
    difference = np.abs(np.subtract(*(decoded.astype(np.int64) for decoded in whole))).max()
    print(f"\nlargest difference between both: {difference} grey levels", flush=True)


def reduced(volume: np.ndarray, ratio: float, device: torch.device, limit: float | None) -> None:
    print(f"\n| first phase, fast, {device} | seconds | PSNR |\n|---|---|---|", flush=True)
    for name, bfloat16 in (("float32", False), ("bfloat16", True)):
        with mock.patch.object(training, "has_fast_bfloat16", return_value=bfloat16):
            seconds, psnr = encoded(volume, ratio, str(device), "fast", limit)
        print(f"| {name} | {seconds:.1f} | {psnr:.2f} dB |", flush=True)
    print(f"\nby default: {'bfloat16' if has_fast_bfloat16(device) else 'float32'}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="a few seconds of it, to see that it works")
    args = parser.parse_args()
    try:
        device = resolve_device(args.device)
    except InputError as error:
        print(f"error: {error}; `--device cpu --small` tests this program", file=sys.stderr)
        return 1
    shape, side, ratio, limit = ((16, 64, 64), 32, 16, 0.3) if args.small else ((64, 128, 128), 256, 128, None)
    volume = np.asarray(samples.vessel_tree(shape).noisy)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    print(f"{name}, torch {torch.__version__}, {torch.get_num_threads()} threads on the CPU", flush=True)
    encoded(volume[:16, :64, :64], 16, str(device), "fast", 0.2)  # kernels
    with peak_memory(device, f"training on {volume.size / 1e6:.2f} Mvoxel"):
        encoding(volume, ratio, device, limit)
    with peak_memory(device, f"decoding {side}³"):
        decoding(side, ratio, device)
    block = (32, 64, 64) if args.small else (256, 512, 512)
    with peak_memory(device, "decoding wavelets"):
        wavelets(block, ratio, device)
    reduced(volume, ratio, device, limit)
    return 0


if __name__ == "__main__":
    sys.exit(main())

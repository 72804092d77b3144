"""Choose where tensors live."""

from __future__ import annotations

import torch

from napari_tinc.errors import InputError

DEVICES = ("auto", "cpu", "cuda", "mps")


def resolve_device(name: str) -> torch.device:
    """Turn a device's name into a device; ``"auto"`` takes CUDA, then MPS, then the CPU.

    Raises
    ------
    InputError
        If the name is unknown or the device is not there.
    """
    kind = name.split(":")[0]
    if kind not in DEVICES:
        raise InputError(f"expected a device among {DEVICES}, got {name!r}")
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if kind == "auto":
        return torch.device(next(candidate for candidate in ("cuda", "mps", "cpu") if there[candidate]))
    if not there[kind]:
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

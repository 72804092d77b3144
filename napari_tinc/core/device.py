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

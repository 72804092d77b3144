"""Whether CUDA is at hand, asked without loading torch, which takes longer than most files take to decode."""

from __future__ import annotations

import sys

from napari_tinc.system.threads import is_forked


def cuda_is_at_hand() -> bool:
    """Whether torch is loaded already and finds CUDA; a forked process cannot use its parent's."""
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    is_available = getattr(cuda, "is_available", None)  # missing while another thread is loading torch
    return is_available is not None and not is_forked() and bool(is_available())

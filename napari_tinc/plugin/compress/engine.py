"""Load what compresses and decodes, and compile its coder, without holding up the window."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

# The result layer's module included: it imports what needs torch when it is used.
_MODULES = ("encode.compression", "lazy", "plugin.layers.results")
_SUFFIX = {"linux": "so", "darwin": "dylib"}
THREAD = "tinc-engine"


def load() -> None:
    """Import torch and what is built on it; seconds, the first time.

    Not before it is needed, for napari's start must not pay for it.
    """
    if "torch" not in sys.modules:
        _load_libraries()
    with _uncollected():
        for name in _MODULES:
            import_module(f"napari_tinc.{name}")


def _load_libraries() -> None:
    """Load torch's libraries as a foreign function, which does not hold Python's global lock.

    ``import`` does hold it, for some tenths of a second, and finds them loaded now; so does ``ctypes.CDLL``, given
    their path. On Windows torch itself loads them so. Where this fails, ``import`` finds out why. What the window would
    wait without this, or without the pause of the collector, ``benchmarks/plugin_latency.py torch`` measures.
    """
    spec = find_spec("torch")
    if spec is None or spec.origin is None or sys.platform not in _SUFFIX:
        return
    library = Path(spec.origin).parent / "lib" / f"libtorch_python.{_SUFFIX[sys.platform]}"
    dlopen = ctypes.CDLL(None).dlopen
    dlopen.argtypes, dlopen.restype = (ctypes.c_char_p, ctypes.c_int), ctypes.c_void_p
    dlopen(os.fsencode(library), os.RTLD_NOW)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Collect no garbage meanwhile, and do not look at what is new afterwards: it is modules, and stays.

    They make objects by the hundred thousand, and the window stands still while the collector looks at all of them.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.unfreeze()  # which leaves everything in the oldest generation; there is no other way to put it there
        if collecting:
            gc.enable()


@cache
def prepared() -> Future[None]:
    """Load and compile everything in a thread, once; return what tells when that is done."""
    done: Future[None] = Future()

    def prepare() -> None:
        try:
            with _uncollected():
                load()
                warm_up()
        except Exception as error:  # raised by whoever asks for the result
            done.set_exception(error)
        else:
            done.set_result(None)

    threading.Thread(target=prepare, name=THREAD, daemon=True).start()
    return done


def warm_up() -> None:
    """Compress and decode a tiny volume: after an installation that compiles the coder, which takes a while."""
    import numpy as np

    from napari_tinc.encode.compression import calibrate, compress
    from napari_tinc.networks import entropy
    from napari_tinc.target import Target

    noise = np.random.default_rng(0).normal(size=(48, 48, 48))
    waves = np.add.outer(np.add.outer(*[np.sin(np.arange(48) / 5)] * 2), np.sin(np.arange(48) / 5))
    # With edges, for which a filter pays.
    volume = compress(
        (100 * (waves > 0) + 5 * noise + 50).astype(np.uint8), Target.ratio(30), preset="fast", device="cpu"
    )
    volume.decode((3,))
    volume.decode((3,), 0.5)
    symbols = np.array([0, 1, -1, 0], np.int32)
    entropy.decode_symbols(entropy.encode_symbols([symbols], [[(1, 4)]], [1]), [[(1, 4)]], [1])
    calibrate()


__all__ = ["THREAD", "load", "prepared", "warm_up"]

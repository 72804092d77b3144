"""Functions compiled with numba, which start at once where their machine code is in numba's cache.

numba fills all its registries before it looks into its cache: 0.4 of the 1.1 CPU seconds that a small file took to
decode. Code that is already compiled needs none of them. And numba knows a function's cached code by the time and size
of the file that the function is in, so that it misses edits of what it calls elsewhere; here it is the text of all of
them.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

from numba import njit
from numba.core.caching import FunctionCache
from numba.core.dispatcher import Dispatcher
from numba.core.extending import _Intrinsic
from numba.core.runtime.nrt import rtsys

logger = logging.getLogger(__name__)
_compiled = partial(njit, nogil=True, error_model="numpy", no_cfunc_wrapper=True)
# For what is called from a compiled function only. It makes no arrays, and so does not count who holds those that it is
# given: numba would at every call, one after the other and for all threads to see, for as long as a decision takes.
part = partial(_compiled, no_cpython_wrapper=True, _nrt=False)


def compiled(function: Callable[..., Any]) -> Any:
    """Compile for Python to call: without the interpreter's lock, kept on disk, errors of arithmetic as numpy's."""
    kernel: Any = _compiled(function)
    kernel._cache = _Cache(function)
    return kernel


class _Cache(FunctionCache):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)  # type: ignore[no-untyped-call]
        self._cache_file._source_stamp = _stamp(function)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """As numba's own, without filling its registries."""
        rtsys.initialize(target_context)
        with self._guard_against_spurious_io_errors():
            found = self._load_overload(sig, target_context)  # type: ignore[no-untyped-call]
        if found is None:
            _tell()
        return found


@cache
def _tell() -> None:
    logger.info("the coder is compiled for this machine, once after an installation: some seconds")


def _stamp(function: Callable[..., Any]) -> str:
    """Fingerprint of this file and those that a function and all compiled functions that it calls are in."""
    files = sorted({__file__, *_files(function)})
    return hashlib.sha256(b"\0".join(Path(file).read_bytes() for file in files)).hexdigest()


def _files(function: Callable[..., Any]) -> Iterator[str]:
    yield function.__code__.co_filename
    for name in function.__code__.co_names:
        called = function.__globals__.get(name)
        if isinstance(called, Dispatcher):
            yield from _files(called.py_func)
        elif isinstance(called, _Intrinsic):
            yield called._defn.__code__.co_filename

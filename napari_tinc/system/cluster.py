"""Connecting to a ``distributed`` scheduler."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from napari_tinc.errors import InputError

_CONNECT_SECONDS = 10


def distributed() -> Any:
    """Return the package.

    Raises
    ------
    InputError
        If it is not installed.
    """
    try:
        return import_module("distributed")
    except ImportError:
        raise InputError(
            "expected the package distributed for a scheduler, got none: pip install 'napari-tinc[cluster]'"
        ) from None


def connect(address: str) -> Any:
    """Return a client of the scheduler at an address.

    Raises
    ------
    InputError
        If ``distributed`` is not installed or nobody answers.
    """
    try:
        return distributed().Client(address, timeout=_CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise InputError(f"expected a scheduler at {address}, got {error}; check the address") from error


@contextmanager
def local_workers(count: int) -> Iterator[Any]:
    """Start so many worker processes of one thread each on this machine; give a client of them."""
    package = distributed()
    with (
        package.LocalCluster(n_workers=count, threads_per_worker=1, dashboard_address=":0", processes=True) as cluster,
        package.Client(cluster, set_as_default=False) as client,
    ):
        yield client


__all__ = ["connect", "distributed", "local_workers"]

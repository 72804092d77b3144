"""What a forked process cannot use of its parent's: threads, of which it has none, and locks that they held."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cached_property
from threading import RLock
from typing import TypeVar

Class = TypeVar("Class", bound=type)


def after_fork(renew: Callable[[], None]) -> None:
    """Call a function first thing in every process that is forked from this one."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=renew)


def with_fresh_locks(owner: Class) -> Class:
    """Renew the locks of a class's cached properties in forked processes; since Python 3.12 they have none."""
    locked = [value for value in vars(owner).values() if isinstance(value, cached_property) and hasattr(value, "lock")]

    def renew() -> None:
        for value in locked:
            value.lock = RLock()

    after_fork(renew)
    return owner


__all__ = ["after_fork", "with_fresh_locks"]

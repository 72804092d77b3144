"""A table that a benchmark appends to, row by row: what was measured stays when it is stopped."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal


@contextmanager
def appending(
    path: Path, columns: Sequence[str], others: Literal["raise", "ignore"] = "raise"
) -> Iterator[Callable[[Mapping[str, object]], None]]:
    """Yield what writes a row at once, below those that are there; ``others`` says what to do with other columns."""
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction=others)
        if file.tell() == 0:
            writer.writeheader()

        def append(row: Mapping[str, object]) -> None:
            writer.writerow(row)
            file.flush()

        yield append


__all__ = ["appending"]

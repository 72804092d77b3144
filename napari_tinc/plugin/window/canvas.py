"""Several changes to a viewer's layers, and one drawing of its canvas."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any


@contextmanager
def laid_out_once(viewer: Any, removing: bool = False) -> Iterator[None]:
    """Let napari arrange its canvas once at the end, and not for every layer that is added, shown, hidden or moved.

    Whether there is a grid should be switched last, for titles are put into its cells as they are.

    Parameters
    ----------
    viewer : ViewerModel
    removing : bool
        Whether layers are removed meanwhile. At the end, napari 0.9 collects all of the process's garbage, so that
        their buffers are gone before anything is drawn. That takes tenths of a second, and where nothing was removed it
        is kept from looking.
    """
    with ExitStack() as after, viewer.layers.batched_update():
        yield
        if not removing:
            gc.freeze()  # what is frozen is not looked at
            after.callback(gc.unfreeze)


__all__ = ["laid_out_once"]

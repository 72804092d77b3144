"""The canvas that napari draws layers on: what has to be heeded when several of them change at once."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from qtpy.QtOpenGLWidgets import QOpenGLWidget


def claim_canvas(viewer: Any) -> None:
    """Make the OpenGL context of a viewer's canvas the current one; call it before layers are removed.

    When a layer goes, napari 0.9 deletes its buffers at once, in whatever context is current: after something was
    drawn that is Qt's own, not the canvas's. The canvas then draws from buffers that are gone, and the process ends
    (seen with Mesa, after two removals in one turn of the event loop).

    Parameters
    ----------
    viewer : ViewerModel
        One without a window has no canvas: nothing is done.
    """
    window = getattr(viewer, "window", None)
    if window is None:
        return
    for canvas in window.main_menu.window().findChildren(QOpenGLWidget):
        if canvas.isValid():
            canvas.makeCurrent()


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
        if removing:
            claim_canvas(viewer)
        else:
            gc.freeze()  # what is frozen is not looked at
            after.callback(gc.unfreeze)


__all__ = ["claim_canvas", "laid_out_once"]

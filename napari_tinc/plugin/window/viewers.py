"""The viewer behind napari's proxy, and what it needs to survive the removal of layers."""

from __future__ import annotations

from typing import Any
from weakref import WeakSet, ref

from qtpy.compat import isalive
from qtpy.QtOpenGLWidgets import QOpenGLWidget

from napari_tinc.plugin.menus.context_menu import offer_compress

_guarded: WeakSet[Any] = WeakSet()


def raw_viewer(viewer: Any) -> Any:
    """Return a viewer that can be worked with, at every door through which napari hands us one.

    Widgets that are opened from napari's menu get a proxy, and so is every layer that is reached through it: ``is`` and
    dictionaries of layers do not work with them, and as our package's name starts with ``napari``, even our own arrays
    are wrapped.

    Parameters
    ----------
    viewer : napari.Viewer, its proxy, or napari.components.ViewerModel
    """
    viewer = getattr(viewer, "__wrapped__", viewer)
    guard_removals(viewer)
    if hasattr(viewer, "window"):
        offer_compress()
    return viewer


def guard_removals(viewer: Any) -> None:
    """Make a viewer survive the removal of layers, by its user or by us; may be called again and again.

    napari 0.9 frees the shaders, buffers and textures of a layer as soon as it is removed. That happens in whatever
    OpenGL context Qt made current last, which usually is the one that puts the window together and not the canvas's
    own. Mesa's drivers (software rendering, Intel, AMD) then crash at one of the next draws. Making the canvas's
    context current before anything is removed is enough.

    Parameters
    ----------
    viewer : napari.Viewer or napari.components.ViewerModel
        A model without a window needs no guard.
    """
    if viewer in _guarded or not hasattr(viewer, "window"):
        return
    _guarded.add(viewer)
    known = ref(viewer.window._qt_window)

    def make_current() -> None:
        window = known()
        # Layers may be removed after the window was closed.
        if window is not None and isalive(window):  # type: ignore[no-untyped-call]
            for canvas in window.findChildren(QOpenGLWidget):
                canvas.makeCurrent()

    viewer.layers.events.removing.connect(make_current)


__all__ = ["guard_removals", "raw_viewer"]

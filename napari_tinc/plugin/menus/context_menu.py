"""*Compress…* in the context menu of the layer list.

napari drops what a manifest contributes to that menu, so the entry is added when the plugin is first used in a session.
"""

from __future__ import annotations

from typing import Any

from app_model.expressions import parse_expression
from app_model.types import Action, MenuRule
from napari import Viewer
from napari._app_model import get_app_model
from napari.layers import Image

from napari_tinc.plugin.window.preferences import PLUGIN

COMPRESS_WIDGET = "Compress"  # as the manifest calls it
COMMAND = f"{PLUGIN}.compress_clicked"
_MENU, _GROUP = "napari/layers/context", "1_conversion"


def offer_compress() -> None:
    """Add the entry, unless it is there."""
    app = get_app_model()
    if COMMAND not in app.registered_actions:
        app.register_action(
            Action(
                id=COMMAND,
                title="Compress…",
                callback=compress_clicked,
                menus=[MenuRule(id=_MENU, group=_GROUP)],
                enablement=parse_expression("num_selected_image_layers >= 1"),
            )
        )


def compress_clicked(viewer: Viewer) -> None:
    """Open the compress widget on the layer that was clicked."""
    active: Any = viewer.layers.selection.active
    _, widget = viewer.window.add_plugin_dock_widget(PLUGIN, COMPRESS_WIDGET, tabify=True)
    if isinstance(active, Image) and active in widget.form.fields["source"].choices:
        widget.form.fields["source"].value = active


__all__ = ["COMMAND", "compress_clicked", "offer_compress"]

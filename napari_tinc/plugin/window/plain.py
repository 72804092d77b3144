"""Text that Qt must not take for HTML: names of layers, texts of errors."""

from __future__ import annotations

from html import escape

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QLabel


def plain_label(text: str = "", wrapped: bool = False) -> QLabel:
    """Return a label that shows its text as it is."""
    label = QLabel(text)
    label.setTextFormat(Qt.TextFormat.PlainText)
    label.setWordWrap(wrapped)
    return label


def plain_tip(text: str) -> str:
    """Return what a tool tip shows as this text; tips cannot be told to be plain."""
    return f"<span>{escape(text)}</span>" if text else ""


__all__ = ["plain_label", "plain_tip"]

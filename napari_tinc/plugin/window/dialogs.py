"""Asking for the name of a file to write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFileDialog, QMessageBox

from napari_tinc.errors import InputError


def ask_path(parent: Any, title: str, name: str, suffix: str, kind: str) -> Path | None:
    """Ask where to write; the dialog asks before something is replaced.

    Parameters
    ----------
    parent : QWidget or None
    title : str
    name : str
        Proposed, without suffix.
    suffix : str
        Completes a name that has another or none, such as ``".csv"``.
    kind : str
        What such files are called.

    Returns
    -------
    Path or None
        None if the user changed their mind.

    Raises
    ------
    InputError
        If the completed name exists: the dialog has not asked about that one.
    """
    path, _ = QFileDialog.getSaveFileName(parent, title, f"{name}{suffix}", f"{kind} (*{suffix})")
    if not path:
        return None
    target = Path(path) if Path(path).suffix.lower() == suffix else Path(f"{path}{suffix}")
    if str(target) != path and target.exists():
        raise InputError(f"expected a new file, got {target}, which exists; choose it in the dialog to replace it")
    return target


def ask_whether(parent: Any, title: str, text: str, yes: str) -> bool:
    """Ask a question whose safe answer is no; ``yes`` names what is done otherwise."""
    box = QMessageBox(QMessageBox.Icon.Warning, title, text, QMessageBox.StandardButton.Cancel, parent)
    agree = box.addButton(yes, QMessageBox.ButtonRole.AcceptRole)
    box.setTextFormat(Qt.TextFormat.PlainText)
    box.exec()
    return box.clickedButton() is agree

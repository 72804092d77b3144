"""Small pictures in a window."""

from __future__ import annotations

from typing import Any

import numpy as np
from qtpy.QtCore import Qt
from qtpy.QtGui import QImage, QPixmap

Array = np.ndarray[Any, Any]


def pixmap(pixels: Array, side: int) -> QPixmap:
    """Turn a picture into one whose longer side has ``side`` pixels; voxels stay visible."""
    rows, columns, _ = pixels.shape
    image = QImage(np.ascontiguousarray(pixels).tobytes(), columns, rows, 3 * columns, QImage.Format.Format_RGB888)
    return QPixmap.fromImage(image).scaled(
        side, side, Qt.AspectRatioMode.KeepAspectRatio, Qt.TransformationMode.FastTransformation
    )


__all__ = ["pixmap"]

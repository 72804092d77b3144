"""Small pictures of planes: intensities in gray, errors from blue (too bright) to orange (too dark)."""

from __future__ import annotations

from typing import Any

import numpy as np
from qtpy.QtCore import Qt
from qtpy.QtGui import QImage, QPixmap

Array = np.ndarray[Any, Any]


def gray(plane: Array, low: float, high: float) -> Array:
    """Draw a plane from black (``low``) to white (``high``).

    Returns
    -------
    ndarray of uint8, shape (rows, columns, 3)
    """
    shade = np.clip((plane.astype(np.float64) - low) / ((high - low) or 1.0), 0, 1)
    return np.repeat((255 * shade).astype(np.uint8)[..., None], 3, axis=2)


def error_colours(error: Array, limit: float) -> Array:
    """Draw original minus decoded: blue where it is ``-limit``, orange where it is ``limit``.

    Returns
    -------
    ndarray of uint8, shape (rows, columns, 3)
    """
    share = np.clip(error / (limit or 1.0), -1, 1)
    parts = np.stack([np.clip(share, 0, 1), 0.55 * np.abs(share), np.clip(-share, 0, 1)], axis=-1)
    return (255 * parts).astype(np.uint8)


def pixmap(pixels: Array, side: int) -> QPixmap:
    """Turn a picture into one whose longer side has ``side`` pixels; voxels stay visible."""
    rows, columns, _ = pixels.shape
    image = QImage(np.ascontiguousarray(pixels).tobytes(), columns, rows, 3 * columns, QImage.Format.Format_RGB888)
    return QPixmap.fromImage(image).scaled(
        side, side, Qt.AspectRatioMode.KeepAspectRatio, Qt.TransformationMode.FastTransformation
    )


__all__ = ["error_colours", "gray", "pixmap"]

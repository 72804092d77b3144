"""Planes as small pictures: intensities in gray, errors from blue (too bright) to orange (too dark)."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import imagecodecs
import numpy as np

Array = np.ndarray[Any, Any]

_PERCENTILES = (0.5, 99.5)


def rows_of(planes: Sequence[tuple[Array, Array, Array]]) -> list[tuple[Array, Array, Array]]:
    """Draw original, decoded and error, a row for every try: all in one contrast, and errors on one scale.

    Parameters
    ----------
    planes : sequence of three ndarrays, 2-D
        Original, decoded, and original minus decoded.

    Returns
    -------
    list of three ndarrays of uint8, shape (rows, columns, 3)
    """
    low, high = np.percentile(planes[0][0], _PERCENTILES)
    limit = float(np.percentile([np.abs(error) for _, _, error in planes], _PERCENTILES[1])) or 1.0
    return [
        (gray(original, low, high), gray(decoded, low, high), error_colours(error, limit))
        for original, decoded, error in planes
    ]


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


def png_url(pixels: Array) -> str:
    """Put a picture into a web page: an address that holds all of it."""
    return f"data:image/png;base64,{base64.b64encode(imagecodecs.png_encode(np.ascontiguousarray(pixels))).decode()}"


__all__ = ["error_colours", "gray", "png_url", "rows_of"]

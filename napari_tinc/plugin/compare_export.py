"""Files of a comparison: table, plot, grid and report; each written whole or not at all."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_tinc.output import write_atomic

if TYPE_CHECKING:
    from napari_tinc.compare.engine import Comparison

# Key, text of the menu, suffix, what such files are called.
EXPORTS = (
    ("csv", "Table (CSV)…", ".csv", "Table"),
    ("plot_png", "Plot (PNG)…", ".png", "Picture"),
    ("plot_svg", "Plot (SVG)…", ".svg", "Picture"),
    ("canvas", "Viewer as it is, such as the grid (PNG)…", ".png", "Picture"),
    ("report", "Report (HTML)…", ".html", "Report"),
)


def writer(key: str, comparison: Comparison, bar: float, measure: str, canvas: Any) -> Callable[[], bytes]:
    """Return what makes the content of a file; it takes seconds at most, and no window.

    Parameters
    ----------
    key : str
        One of :data:`EXPORTS`.
    comparison : Comparison
    bar : float
        PSNR in dB that an octant should have.
    measure : str
        What is plotted.
    canvas : ndarray or None
        The screenshot for ``"canvas"``.
    """

    def picture(form: str) -> bytes:
        from napari_tinc.compare import pictures

        buffer = io.BytesIO()
        pictures.rate_distortion(comparison.table(bar), (measure,)).savefig(buffer, format=form, dpi=150)
        return buffer.getvalue()

    def report() -> bytes:
        from napari_tinc.compare.report import html_report

        return html_report(comparison, bar).encode()

    def screenshot() -> bytes:
        import imagecodecs
        import numpy as np

        return bytes(imagecodecs.png_encode(np.ascontiguousarray(canvas)))

    makers: dict[str, Callable[[], bytes]] = {
        "csv": lambda: comparison.table(bar).to_csv(index=False).encode(),
        "plot_png": lambda: picture("png"),
        "plot_svg": lambda: picture("svg"),
        "canvas": screenshot,
        "report": report,
    }
    return makers[key]


def write(path: Path, make: Callable[[], bytes]) -> Path:
    """Make a file's content and write it; the user has agreed to replace what is there."""
    write_atomic(path, make(), overwrite=True)
    return path

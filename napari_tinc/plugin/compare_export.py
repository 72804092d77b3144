"""Files of a comparison: table, plot, grid and report; each written whole or not at all."""

from __future__ import annotations

import io
from base64 import b64encode
from collections.abc import Callable, Sequence
from html import escape
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
    ("canvas_svg", "Viewer as it is, such as the grid (SVG)…", ".svg", "Picture"),
    ("report", "Report (HTML)…", ".html", "Report"),
)


Titles = Sequence[tuple[float, float, str]]

_TITLE_PIXELS = 14


def writer(
    key: str, comparison: Comparison, bar: float, measure: str, canvas: Any, titles: Titles = ()
) -> Callable[[], bytes]:
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
        The screenshot for ``"canvas"`` and ``"canvas_svg"``.
    titles : sequence of (float, float, str)
        For ``"canvas_svg"``, see :meth:`napari_tinc.plugin.compare_views.CandidateViews.picture`.
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
        "canvas_svg": lambda: titled(screenshot(), canvas.shape[:2], titles),
        "report": report,
    }
    return makers[key]


def titled(png: bytes, shape: tuple[int, int], titles: Titles) -> bytes:
    """Put a picture into an SVG, with titles that stay text."""
    height, width = shape
    texts = "".join(
        f'<text x="{x * width + 6:.1f}" y="{y * height + 1.3 * _TITLE_PIXELS:.1f}">{escape(text)}</text>'
        for x, y, text in titles
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">'
        f'<image width="{width}" height="{height}" href="data:image/png;base64,{b64encode(png).decode()}"/>'
        f'<g font-family="sans-serif" font-size="{_TITLE_PIXELS}" fill="white">{texts}</g></svg>\n'
    ).encode()


def write(path: Path, make: Callable[[], bytes]) -> Path:
    """Make a file's content and write it; the user has agreed to replace what is there."""
    write_atomic(path, make(), overwrite=True)
    return path

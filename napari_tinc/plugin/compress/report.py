"""What a compression came to, in figures and in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_tinc.system.text import decibels_text

if TYPE_CHECKING:
    from napari_tinc.plugin.compress.losses import Loss


@dataclass(frozen=True, slots=True)
class Report:
    """What a compression came to.

    Parameters
    ----------
    raw_bytes, file_bytes : int
    psnr : float
        dB over the volume's own range.
    ssim : float
    ssim_part : str
        Empty if SSIM covers the whole volume, else what it covers.
    seconds : float
        From pressing the button to the result.
    worst_psnr : float
        dB, of the worst octant.
    worst_box : str
        Where it lies, in voxels.
    kept : str
        A sentence on the structure that is kept; empty if there is none.
    losses : tuple of Loss
        The worst octants, to be looked at.
    max_error : float or None
        That the file guarantees, in intensity units.
    noise, advice : str
        What was found of noise, and what was advised; empty if the file does not tell.
    """

    raw_bytes: int
    file_bytes: int
    psnr: float
    ssim: float
    ssim_part: str
    seconds: float
    worst_psnr: float
    worst_box: str
    kept: str = ""
    losses: tuple[Loss, ...] = ()
    max_error: float | None = None
    noise: str = ""
    advice: str = ""

    def rows(self) -> list[tuple[str, str]]:
        """Return label and text of every row of the result card."""
        ssim = f"{self.ssim:.4f}" + (f" ({self.ssim_part})" if self.ssim_part else "")
        promised = [] if self.max_error is None else [("Largest error", f"at most {self.max_error:g}, guaranteed")]
        told = [(label, text) for label, text in (("Noise", self.noise), ("Advice", self.advice)) if text]
        worst = [("Worst octant", decibels_text(self.worst_psnr, 1)), ("at", self.worst_box)]
        return [
            ("Raw size", size_text(self.raw_bytes)),
            ("File size", size_text(self.file_bytes)),
            ("Ratio", f"{self.raw_bytes / self.file_bytes:.1f}"),
            ("PSNR", decibels_text(self.psnr, 2)),
            ("SSIM", ssim),
            ("Time", duration_text(self.seconds)),
            *promised,
            *told,
            *(worst if math.isfinite(self.worst_psnr) else []),
        ]


def size_text(nbytes: float) -> str:
    """Write a number of bytes for people: ``"8.19 kB"``."""
    for unit in ("B", "kB", "MB", "GB"):
        if nbytes < 1000:
            return f"{nbytes:.0f} {unit}" if unit == "B" else f"{nbytes:.3g} {unit}"
        nbytes /= 1000
    return f"{nbytes:.3g} TB"


def duration_text(seconds: float) -> str:
    """Write a time for people: ``"4.2 s"``, ``"3 min 20 s"``, ``"2 h 5 min"``; empty if it is not known."""
    if not math.isfinite(seconds):
        return ""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = int(seconds // 60)
    return f"{minutes} min {seconds % 60:.0f} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def worst_octant_text(box: Sequence[slice], item: int, items: int) -> str:
    """Name an octant by its voxels, and its channel or time point where there are several."""
    text = ", ".join(f"{part.start}:{part.stop}" for part in box)
    return f"[{text}] of item {item}" if items > 1 else f"[{text}]"

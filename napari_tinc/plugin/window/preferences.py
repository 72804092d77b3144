"""What the user set on napari's Preferences page, and what was used last."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from napari.settings import get_plugin_settings
from napari.utils import resize_dask_cache

from napari_tinc.target import Target

PLUGIN = "napari-tinc"


@dataclass(frozen=True, slots=True)
class Preferences:
    """How to compress if nobody says otherwise, and how much memory decoded voxels may take.

    Parameters
    ----------
    preset, device : str
        See :func:`napari_tinc.encode.compression.compress_steps`.
    target_kind : str
        A kind of :class:`napari_tinc.target.Target`.
    target_value : float
        Its value.
    scheduler : str
        Address of the ``distributed`` scheduler whose workers make OME-Zarrs; threads of napari do if it is empty.
    cache_megabytes : int
        Limit of napari's cache of decoded chunks; 0 leaves it to napari.
    """

    preset: str = "fast"
    device: str = "auto"
    target_kind: str = "ratio"
    target_value: float = 64.0
    scheduler: str = ""
    cache_megabytes: int = 0

    @property
    def target(self) -> Target:
        """Size or quality to aim at."""
        return Target(self.target_kind, self.target_value)


def read() -> Preferences:
    """Return the user's preferences, or the defaults where napari does not know the plugin (a bare checkout)."""
    pages = get_plugin_settings()
    if PLUGIN not in pages:
        return Preferences()
    compression, memory = pages[PLUGIN].compression, pages[PLUGIN].memory
    return Preferences(
        compression.preset,
        compression.device,
        compression.target_kind,
        compression.target_value,
        compression.scheduler.strip(),
        memory.cache_megabytes,
    )


def remember(preset: str, device: str, target: Target) -> None:
    """Keep the settings of a compression: they are the widget's and the writer's next ones."""
    pages: dict[str, Any] = get_plugin_settings()
    if PLUGIN not in pages:
        return
    page = pages[PLUGIN].compression
    page.preset, page.device = preset, device
    page.target_kind, page.target_value = target.kind, target.value


def limit_cache() -> None:
    """Give napari's cache of decoded chunks the size that the user wants; there is no other cache."""
    megabytes = read().cache_megabytes
    if megabytes:
        resize_dask_cache(megabytes * 10**6)

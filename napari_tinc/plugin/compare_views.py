"""Looking at candidates: alone, in a grid, in turn, split in one image, and which is best where."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from napari_tinc.errors import InputError
from napari_tinc.plugin import compare_layers
from napari_tinc.plugin.compare import Comparison, stop_views
from napari_tinc.plugin.compare_model import Row
from napari_tinc.plugin.compress_model import full_resolution
from napari_tinc.plugin.flicker import Flicker
from napari_tinc.plugin.layers import place_of
from napari_tinc.plugin.split import Split


class CandidateViews:
    """What a comparison shows in a viewer; at most one grid, flicker or split at a time.

    Parameters
    ----------
    viewer : ViewerModel
    source : Image
        The original's layer.
    axes : str
        Of its volume.
    shape : tuple of int
        Of its volume.
    """

    def __init__(self, viewer: Any, source: Any, axes: str, shape: tuple[int, ...]) -> None:
        self.viewer, self._source, self._axes, self._shape = viewer, source, axes, shape
        self.grid: Comparison | None = None
        self.octant_limits = 0.0, 1.0  # dB, of the colours in the grid
        self.split: Split | None = None

    @property
    def source(self) -> Any:
        """The original's layer.

        Raises
        ------
        InputError
            If it was deleted.
        """
        if self._source not in self.viewer.layers:
            raise InputError("expected the source layer in the viewer, got none; it was deleted: compare again")
        return self._source

    def missing(self, rows: Sequence[Row]) -> list[Row]:
        """Rows whose volume is not in the viewer yet."""
        return [row for row in rows if not compare_layers.find_candidate(self.viewer, row, self.source)]

    def show(self, row: Row, content: Any = None) -> Any:
        """Put a candidate's volume into the viewer, or find it there; return its (first channel's) layer."""
        layers = compare_layers.find_candidate(self.viewer, row, self.source)
        if not layers:
            layers = compare_layers.add_candidate(self.viewer, row, content, self._axes, self.source)
        self.viewer.layers.selection.active = layers[0]
        return layers[0]

    def reveal(self, row: Row) -> bool:
        """Make the layer of a candidate active, if it has one."""
        if self._source not in self.viewer.layers:
            return False
        layers = compare_layers.find_candidate(self.viewer, row, self._source)
        if layers:
            self.viewer.layers.selection.active = layers[0]
        return bool(layers)

    def stop(self) -> None:
        """Go back to the single view."""
        stop_views(self.viewer)

    def show_grid(self, rows: Sequence[Row], overlays: bool) -> list[tuple[str, str, float]]:
        """Show original and candidates side by side, each with its octants' quality if ``overlays``.

        Over the original lies which of them is best, if they are several of one ratio; what is returned is the legend
        of that: name, colour, share.
        """
        layers = [self.show(row) for row in rows]
        self.stop()
        grids = self._octants(rows)
        best = self._best(rows, grids)
        best.visible = False
        maps = compare_layers.heat_maps(grids, layers)
        comparable = len(rows) > 1 and len({row.ratio for row in rows}) == 1
        if not comparable:  # nothing to tell: the partner only fills the original's cell
            best.opacity = 0.0
        for layer in (best, *maps):
            self.viewer.add_layer(layer)
        low, high = maps[0].contrast_limits
        self.octant_limits = float(low), float(high)
        self.grid = Comparison(
            self.viewer,
            [[self.source, best], *([a, b] for a, b in zip(layers, maps, strict=True))],
            temporary=True,
            overlays=overlays,
        )
        self.viewer.layers.selection.active = layers[0]
        return compare_layers.shares(best, [row.name for row in rows]) if comparable else []

    @property
    def in_grid(self) -> bool:
        """Whether the grid is shown."""
        return self.grid is not None and self.grid.running

    def picture(self) -> tuple[Any, list[tuple[float, float, str]]]:
        """Take a picture of the canvas without titles.

        Returns
        -------
        pixels : ndarray of uint8, shape (height, width, 4)
        titles : list of (float, float, str)
            Of a grid: left and upper end of every cell as shares of the width and the height, and what is in it.
        """
        if self.grid is None or not self.in_grid:
            return self.viewer.screenshot(flash=False), []
        return self.grid.picture()

    def show_overlays(self, shown: bool) -> None:
        """Show or hide the octants' quality in the grid."""
        if self.grid is not None and self.in_grid:
            self.grid.show_overlays(shown)

    def flicker(self, rows: Sequence[Row]) -> None:
        """Show two candidates in turn, or one and the original."""
        layers = [self.show(row) for row in rows]
        first = layers[0] if len(layers) > 1 else self.source
        Flicker(self.viewer, first, layers[-1])

    def show_split(self, row: Row, share: float) -> None:
        """Show the original left of a cut and a candidate right of it."""
        decoded = self.show(row)
        original = full_resolution(self.source)
        self.split = Split(self.viewer, original, decoded, share)

    def move_split(self, share: float) -> None:
        """Move the cut."""
        if self.split is not None and self.split.running:
            self.split.move(share)

    def show_best(self, rows: Sequence[Row]) -> list[tuple[str, str, float]]:
        """Add a map of which candidate is best in every octant; return its legend: name, colour, share."""
        best = self._best(rows, self._octants(rows))
        self.stop()
        for layer in [one for one in self.viewer.layers if one.metadata.get(_BEST)]:
            self.viewer.layers.remove(layer)
        best.metadata[_BEST] = True
        self.viewer.add_layer(best)
        return compare_layers.shares(best, [row.name for row in rows])

    def _octants(self, rows: Sequence[Row]) -> list[Any]:
        if not rows:
            raise InputError("expected a finished candidate, got none; select some in the table")
        found = [row.result.octants for row in rows if row.result is not None and row.result.octants is not None]
        return [compare_layers.octant_grid(octants, self._shape, self._axes) for octants in found]

    def _best(self, rows: Sequence[Row], grids: Sequence[Any]) -> Any:
        place = place_of(self.source, self._axes)
        assert place is not None
        return compare_layers.best_map(grids, [row.name for row in rows], self._sides(), place)

    def _sides(self) -> tuple[int, ...]:
        return tuple(side for side, axis in zip(self._shape, self._axes, strict=True) if axis != "c")


_BEST = "tinc_best"

__all__ = ["CandidateViews"]

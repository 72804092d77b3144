"""Looking at candidates: alone, in a grid, in turn, split in one image, and which is best where."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from napari_tinc.errors import InputError
from napari_tinc.plugin.compare import layers as compare_layers
from napari_tinc.plugin.compare.model import Row
from napari_tinc.plugin.layers.flicker import Flicker
from napari_tinc.plugin.layers.side_by_side import Comparison, stop_views
from napari_tinc.plugin.layers.split import Split
from napari_tinc.plugin.window.canvas import laid_out_once


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
    def present(self) -> bool:
        """Whether the original's layer is still in the viewer."""
        return self._source in self.viewer.layers

    @property
    def source(self) -> Any:
        """The original's layer.

        Raises
        ------
        InputError
            If it was deleted.
        """
        if not self.present:
            raise InputError("expected the source layer in the viewer, got none; it was deleted: compare again")
        return self._source

    def missing(self, rows: Sequence[Row]) -> list[Row]:
        """Rows whose volume is not in the viewer yet."""
        return [row for row in rows if compare_layers.find_candidate(self.viewer, row, self.source) is None]

    def add(self, rows: Sequence[Row], contents: Sequence[Any]) -> None:
        """Put candidates' volumes into the viewer; see :func:`napari_tinc.plugin.compare.worker.content_of`."""
        with laid_out_once(self.viewer):
            for row, content in zip(rows, contents, strict=True):
                compare_layers.add_candidate(self.viewer, row, content, self.source)

    def show(self, row: Row) -> Any:
        """Make the layer of a candidate, which is in the viewer, active, and return it."""
        layer = compare_layers.find_candidate(self.viewer, row, self.source)
        self.viewer.layers.selection.active = layer
        return layer

    def reveal(self, row: Row) -> None:
        """Make the layer of a candidate active, if it has one."""
        layer = compare_layers.find_candidate(self.viewer, row, self._source)
        if layer is not None:
            self.viewer.layers.selection.active = layer

    def stop(self) -> None:
        """Go back to the single view."""
        stop_views(self.viewer)

    def show_grid(self, rows: Sequence[Row], overlays: bool) -> list[tuple[str, str, float]]:
        """Show original and candidates side by side, each with its octants' quality if ``overlays``.

        Over the original lies which of them is best, if they are several of one ratio; what is returned is the legend
        of that: name, colour, share.
        """
        layers = [self.show(row) for row in rows]
        grids = self._octants(rows)
        best = compare_layers.best_map(grids, [row.name for row in rows], self.source)
        maps = compare_layers.heat_maps(grids, layers)
        comparable = len(rows) > 1 and len({row.ratio for row in rows}) == 1
        if not comparable:  # nothing to tell: the partner only fills the original's cell
            best.opacity = 0.0
        self.octant_limits = float(maps[0].contrast_limits[0]), float(maps[0].contrast_limits[1])
        cells = [[self.source, best], *([a, b] for a, b in zip(layers, maps, strict=True))]
        self.grid = Comparison(self.viewer, cells, temporary=True, overlays=overlays)
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
        self.split = Split(self.viewer, self.source, decoded, share)

    def move_split(self, share: float) -> None:
        """Move the cut."""
        if self.split is not None and self.split.running:
            self.split.move(share)

    def show_best(self, rows: Sequence[Row]) -> list[tuple[str, str, float]]:
        """Add a map of which candidate is best in every octant; return its legend: name, colour, share."""
        best = compare_layers.best_map(self._octants(rows), [row.name for row in rows], self.source)
        best.metadata[_BEST] = True
        self.stop()
        active = self.viewer.layers.selection.active
        with laid_out_once(self.viewer, removing=True):
            for layer in [one for one in self.viewer.layers if one.metadata.get(_BEST)]:
                self.viewer.layers.remove(layer)
            self.viewer.add_layer(best)
        self.viewer.layers.selection.active = active if active in self.viewer.layers else self.source
        best.visible = True
        return compare_layers.shares(best, [row.name for row in rows])

    def _octants(self, rows: Sequence[Row]) -> list[Any]:
        if not rows:
            raise InputError("expected a finished candidate, got none; select some in the table")
        found = [row.result.octants for row in rows if row.result is not None and row.result.octants is not None]
        return [compare_layers.octant_grid(octants, self._shape, self._axes) for octants in found]


_BEST = "tinc_best"

__all__ = ["CandidateViews"]

"""What the user does with finished candidates: look at them, alone or together, and write files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from napari.utils.notifications import show_error, show_info

from napari_tinc.errors import InputError, TincError
from napari_tinc.plugin.compare.export import EXPORTS, Legend, write, writer
from napari_tinc.plugin.compare.model import CompareModel, Row
from napari_tinc.plugin.compare.parts import Controls, Findings, legend_of
from napari_tinc.plugin.compare.table import CandidateTable
from napari_tinc.plugin.compare.views import CandidateViews
from napari_tinc.plugin.compare.worker import Aside, content_of
from napari_tinc.plugin.window.dialogs import ask_path

_MOST_CELLS = 9
_BEST_ROWS = 3


class CandidateActions:
    """The buttons below the table.

    Parameters
    ----------
    model : CompareModel
    table : CandidateTable
    controls : Controls
    findings : Findings
    aside : Aside
        Where files are decoded and written.
    """

    def __init__(
        self, model: CompareModel, table: CandidateTable, controls: Controls, findings: Findings, aside: Aside
    ) -> None:
        self._model, self._table, self._controls, self._findings = model, table, controls, findings
        self._aside = aside
        self.views: CandidateViews | None = None
        self._grid_legend: Legend = ()  # shown while its octants are

    def selected_rows(self) -> list[Row]:
        """Finished rows that are selected in the table, in its order; of those that share a file the first one."""
        return _once([row for row in (self._model.rows[i] for i in self._table.chosen_rows()) if row.ok])

    def press(self, key: str) -> None:
        """Do what a button says; see :data:`napari_tinc.plugin.compare.parts.BUTTONS`.

        Raises
        ------
        TincError
            If it cannot be done with what is selected.
        """
        actions: dict[str, Callable[[], None]] = {
            "show": self._show, "grid": self._grid, "flicker": self._flicker, "split": self._split,
            "best": self._best, "single": self._single,
        }  # fmt: skip
        actions[key]()

    def show_row(self, index: int) -> None:
        """Put the candidate of a row into the viewer, if it has a file."""
        if self._model.rows[index].ok:
            attempt(partial(self._open, [self._model.rows[index]], lambda: None))

    def reveal(self, row: Row) -> None:
        """Make the layer of a candidate active, if it is in the viewer."""
        if self.views is not None and row.ok:
            self.views.reveal(row)

    def toggle_octants(self, shown: bool) -> None:
        """Show or hide the octants' quality in the grid."""
        if self.views is not None and self.views.in_grid:
            self.views.show_overlays(shown)
            self._controls.explain(self._grid_legend if shown else ())

    def move_split(self, share: float) -> None:
        """Move the cut of the split view."""
        if self.views is not None:
            self.views.move_split(share)

    def export(self, key: str) -> None:
        """Ask for a name and write a file of what has finished; ``key`` is one of ``EXPORTS``."""
        attempt(partial(self._export, key))

    def _show(self) -> None:
        self._open(self.selected_rows(), lambda: None)

    def _grid(self) -> None:
        """Without a selection the best ones."""
        rows = (self.selected_rows() or _different(self._ranked())[:_BEST_ROWS])[: _MOST_CELLS - 1]

        def arrange() -> None:
            coloured = self._controls.octants.isChecked()
            found = self._shown().show_grid(rows, coloured)
            self._grid_legend = legend_of(found, rows[0].ratio, self._shown().octant_limits)
            self._controls.explain(self._grid_legend if coloured else ())

        self._open(rows, arrange)

    def _flicker(self) -> None:
        rows = self.selected_rows()[:2]

        def arrange() -> None:
            self._shown().flicker(rows)
            self._controls.explain(())

        self._open(rows, arrange)

    def _split(self) -> None:
        rows = self.selected_rows()[:1]

        def arrange() -> None:
            self._shown().show_split(rows[0], self._controls.share)
            self._controls.explain(())

        self._open(rows, arrange)

    def _single(self) -> None:
        if self._shown().in_grid:
            self._controls.explain(())
        self._shown().stop()

    def _best(self) -> None:
        """Of the selected ones, or of all at one ratio."""
        rows = self.selected_rows()
        if len(rows) < 2:
            ranked = self._ranked()
            rows = [row for row in ranked if row.ratio == ranked[0].ratio]
        elif len({row.ratio for row in rows}) > 1:
            raise InputError("expected candidates at one ratio, got several ratios; select rows of one")
        self._controls.explain(legend_of(self._shown().show_best(rows), rows[0].ratio))

    def _ranked(self) -> list[Row]:
        return _once(sorted((row for row in self._model.rows if row.ok), key=lambda row: -row.values["psnr"]))

    def _shown(self) -> CandidateViews:
        if self.views is None:
            raise InputError("expected a comparison, got none yet; press Compare first")
        return self.views

    def _open(self, rows: Sequence[Row], then: Callable[[], None]) -> None:
        """Open, in a thread, what is not in the viewer yet; then show it and go on."""
        views = self._shown()
        if not rows:
            raise InputError("expected finished candidates, got none selected; select rows of the table")
        missing = views.missing(rows)

        def opened(contents: Sequence[Any]) -> None:
            views.add(missing, contents)
            views.show(rows[0])
            then()

        if not missing:
            opened([])
            return
        results = [row.result for row in missing if row.result is not None]
        self._aside.run(
            f"decoding {', '.join(row.name for row in missing)}",
            lambda: [content_of(result) for result in results],
            lambda contents: attempt(partial(opened, contents)),
        )

    def _export(self, key: str) -> None:
        comparison = self._model.comparison
        if comparison is None:
            raise InputError("expected a comparison, got none yet; press Compare first")
        suffix, kind = next((suffix, kind) for name, _, suffix, kind in EXPORTS if name == key)
        canvas, titles = self._shown().picture() if key == "canvas_svg" else (None, [])
        if key == "canvas":
            canvas = self._shown().viewer.screenshot(flash=False)
        path = ask_path(self._table, "Export", f"{comparison.metadata.name or 'volume'} compared", suffix, kind)
        if path is not None:
            make = writer(
                key,
                comparison,
                self._model.choice.bar,
                self._findings.measure,
                canvas,
                titles,
                self._controls.explained,
            )
            self._aside.run(f"writing {path.name}", partial(write, path, make), _tell_written)


def _once(rows: Sequence[Row]) -> list[Row]:
    """Every file once: ``auto`` has that of another row."""
    first: dict[Path | None, Row] = {}
    for row in rows:
        first.setdefault(row.result.path if row.result is not None else None, row)
    return list(first.values())


def _different(rows: Sequence[Row]) -> list[Row]:
    """Of those that look the same, as far as their PSNR is shown, the first one."""
    first: dict[tuple[float, str], Row] = {}
    for row in rows:
        first.setdefault((row.ratio, f"{row.values['psnr']:.2f}"), row)
    return list(first.values())


def _tell_written(path: Path) -> None:
    show_info(f"Saved {path}")


def attempt(action: Callable[[], None]) -> None:
    """Do something; what the library refuses becomes a notification."""
    try:
        action()
    except TincError as error:
        show_error(str(error))


__all__ = ["CandidateActions", "attempt"]

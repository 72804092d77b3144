from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from skimage.io import imread

from napari_tinc import figure as drawing
from napari_tinc.errors import InputError
from napari_tinc.figure import save_figure

Volume = npt.NDArray[np.uint16]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Collect the figures, to look at what their panels hold."""
    figures: list[Figure] = []

    def collecting(*args: Any, **kwargs: Any) -> Figure:
        figures.append(Figure(*args, **kwargs))
        return figures[-1]

    monkeypatch.setattr(drawing, "Figure", collecting)
    return figures


def pair(shape: tuple[int, ...] = (9, 20, 30)) -> tuple[Volume, Volume]:
    rng = np.random.default_rng(0)
    return rng.integers(0, 60000, shape).astype(np.uint16), rng.integers(0, 60000, shape).astype(np.uint16)


def edges_of(shape: tuple[int, ...]) -> list[npt.NDArray[np.int64]]:
    return [np.unique([0, length // 2, length]) for length in shape]


def save(path: Path, original: Volume, decoded: Volume, spatial: int = 3, psnr: float | None = None) -> None:
    edges = edges_of(original.shape[-spatial:])
    grid = tuple(len(axis_edges) - 1 for axis_edges in edges)
    values = 30 + np.arange(np.prod(grid), dtype=float).reshape(grid) if psnr is None else np.full(grid, psnr)
    save_figure(path, original, decoded, values, edges, "a_title with $ and {")


def shown(panel: Axes) -> npt.NDArray[Any]:
    return np.asarray((panel.images or panel.collections)[0].get_array())


def test_the_panels_show_projections_along_z(tmp_path: Path, drawn: list[Figure]) -> None:
    original, decoded = pair()
    save(tmp_path / "a.png", original, decoded)
    first, second, error, octants = drawn[0].axes[:4]
    assert np.array_equal(shown(first), original.max(axis=0))
    assert np.array_equal(shown(second), decoded.max(axis=0))
    exact = np.abs(original.astype(np.int64) - decoded.astype(np.int64)).max(axis=0)
    assert np.array_equal(shown(error), exact)
    # The grid counts up from 30 and z is its first axis, so the worst octants are those of the first plane.
    assert np.array_equal(np.ravel(shown(octants)), [30, 31, 32, 33])


def test_original_and_decoded_share_one_robust_contrast(tmp_path: Path, drawn: list[Figure]) -> None:
    original, decoded = pair()
    original[original > 1000] //= 60
    original[4, 3, 3] = 65535
    save(tmp_path / "a.png", original, decoded)
    limits = [axes.images[0].get_clim() for axes in drawn[0].axes[:2]]
    assert limits[0] == limits[1]
    assert limits[0][1] < 1100


def test_nothing_is_cut_off(tmp_path: Path, drawn: list[Figure]) -> None:
    for shape in [(9, 20, 30), (2, 8, 120), (2, 120, 8)]:
        save(tmp_path / "a.png", *pair(shape))
        page, content = drawn[-1].bbox, drawn[-1].get_tightbbox().transformed(drawn[-1].dpi_scale_trans)
        assert content.x0 >= page.x0
        assert content.y0 >= page.y0
        assert content.x1 <= page.x1
        assert content.y1 <= page.y1


@pytest.mark.parametrize("psnr", [40.0, np.inf, -np.inf, np.nan])
def test_a_uniform_quality_and_no_error_can_be_drawn(tmp_path: Path, psnr: float) -> None:
    flat = np.full((4, 12, 12), 7, np.uint16)
    save(tmp_path / "a.png", flat, flat, psnr=psnr)
    assert imread(tmp_path / "a.png").ndim == 3


def test_octants_without_error_are_marked_and_leave_the_scale_to_the_others(
    tmp_path: Path, drawn: list[Figure]
) -> None:
    original, decoded = pair((20, 30))
    psnr = np.array([[np.inf, 31.0], [35.0, 33.0]])
    save_figure(tmp_path / "a.png", original, decoded, psnr, edges_of((20, 30)), "")
    octants = drawn[0].axes[3]
    assert octants.collections[0].get_clim() == (31, 35)
    assert "grey: no error" in octants.get_title()


@pytest.mark.parametrize(
    ("shape", "spatial"), [((20, 30), 2), ((3, 20, 30), 2), ((2, 3, 5, 20, 30), 3), ((1, 1, 1), 3)]
)
def test_other_arrangements_show_their_first_item(
    tmp_path: Path, drawn: list[Figure], shape: tuple[int, ...], spatial: int
) -> None:
    original, decoded = pair(shape)
    save(tmp_path / "a.png", original, decoded, spatial)
    item = original.reshape(-1, *shape[-spatial:])[0]
    expected = item.max(axis=0) if spatial == 3 else item
    assert np.array_equal(shown(drawn[0].axes[0]), expected)


def test_a_failed_drawing_leaves_the_old_picture_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    save(path, *pair())
    before = path.read_bytes()
    assert before.startswith(b"\x89PNG")

    def fail(*args: object, **kwargs: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        save(path, *pair((4, 20, 30)))
    assert path.read_bytes() == before
    assert [child.name for child in tmp_path.iterdir()] == ["a.png"]


def test_a_missing_folder_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="folder"):
        save(tmp_path / "none" / "a.png", *pair())


def test_octants_of_another_volume_are_refused(tmp_path: Path) -> None:
    original, decoded = pair((20, 30))
    with pytest.raises(InputError, match="one PSNR per octant"):
        save_figure(tmp_path / "a.png", original, decoded, np.zeros((3, 3)), edges_of((20, 30)), "")
    with pytest.raises(InputError, match="same shape"):
        save_figure(tmp_path / "a.png", original, decoded[1:], np.zeros((2, 2)), edges_of((20, 30)), "")

"""Original and decoded side by side."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from napari.components import ViewerModel

from napari_tinc.plugin.layers.flicker import toggle_flicker
from napari_tinc.plugin.layers.overlays import show_quality
from napari_tinc.plugin.layers.results import add_result
from napari_tinc.plugin.layers.side_by_side import toggle_comparison


@pytest.fixture
def pair(stack: Any) -> tuple[ViewerModel, Any, Any]:
    viewer = ViewerModel()
    source = viewer.add_image(stack.decode(), name="raw", scale=(2, 0.5, 0.5), units=("um",) * 3)
    result = add_result(viewer, stack, source)
    return viewer, source, result


def cells(viewer: ViewerModel) -> list[list[str]]:
    """Names of the visible layers in every cell of the grid, left to right."""
    shown = viewer.canvas.grid.iter_viewboxes(viewer.layers)
    return [[viewer.layers[i].name for i in inside if viewer.layers[i].visible] for _, inside in shown]


def test_original_and_decoded_stand_side_by_side_under_their_names(pair: tuple[ViewerModel, Any, Any]) -> None:
    viewer, source, result = pair
    toggle_comparison(viewer, source, result)
    assert viewer.canvas.grid.actual_shape(viewer.layers) == (1, 2)
    assert cells(viewer) == [["raw"], [result.name]]
    assert source.name_overlay.visible
    assert result.name_overlay.visible


def test_contrast_and_colours_are_shared_while_they_are_compared_and_not_after(
    pair: tuple[ViewerModel, Any, Any],
) -> None:
    viewer, source, result = pair
    source.contrast_limits, source.colormap, source.gamma = (900, 2000), "viridis", 0.7
    result.contrast_limits, result.colormap = (0, 9000), "magenta"
    toggle_comparison(viewer, source, result)
    for layer in (source, result):  # those of the original, from the start
        assert tuple(layer.contrast_limits) == (900, 2000)
        assert (layer.colormap.name, layer.gamma) == ("viridis", 0.7)
    source.contrast_limits = (700, 1900)
    assert tuple(result.contrast_limits) == (700, 1900)
    result.colormap = "magma"
    assert source.colormap.name == "magma"
    toggle_comparison(viewer, source, result)
    result.contrast_limits = (100, 200)
    assert tuple(source.contrast_limits) == (700, 1900)


def test_a_second_press_leaves_the_viewer_as_it_was(pair: tuple[ViewerModel, Any, Any]) -> None:
    viewer, source, result = pair
    show_quality(viewer, result)
    source.visible = False
    viewer.canvas.grid.stride = 3
    before = [layer.visible for layer in viewer.layers]
    toggle_comparison(viewer, source, result)
    assert [layer.name for layer in viewer.layers if layer.visible] == ["raw", result.name]
    toggle_comparison(viewer, source, result)
    assert [layer.visible for layer in viewer.layers] == before
    assert (viewer.canvas.grid.enabled, viewer.canvas.grid.stride) == (False, 3)
    assert not source.name_overlay.visible
    assert not shown_together(result)


def shown_together(layer: Any) -> bool:
    return "tinc_view" in layer.metadata


def test_a_comparison_in_three_dimensions_is_not_joined_by_the_overlay(pair: tuple[ViewerModel, Any, Any]) -> None:
    viewer, source, result = pair
    heat_map = show_quality(viewer, result)[0]
    viewer.dims.ndisplay = 3
    boxes = show_quality(viewer, result)[3]
    viewer.dims.ndisplay = 2
    toggle_comparison(viewer, source, result)
    viewer.dims.ndisplay = 3
    assert cells(viewer) == [["raw"], [result.name]]
    toggle_comparison(viewer, source, result)
    assert boxes.visible
    assert not heat_map.visible


@pytest.mark.parametrize("leave", ["grid", "source", "result"])
def test_leaving_the_grid_or_deleting_a_layer_ends_it(pair: tuple[ViewerModel, Any, Any], leave: str) -> None:
    viewer, source, result = pair
    toggle_comparison(viewer, source, result)
    if leave == "grid":
        viewer.canvas.grid.enabled = False
    else:
        viewer.layers.remove(source if leave == "source" else result)
    assert not shown_together(result)
    assert not viewer.canvas.grid.enabled
    source.contrast_limits = (5, 6)
    assert tuple(result.contrast_limits) != (5, 6)


def test_comparing_another_result_ends_the_first(pair: tuple[ViewerModel, Any, Any], stack: Any) -> None:
    viewer, source, first = pair
    second = add_result(viewer, stack, source)
    toggle_comparison(viewer, source, first)
    toggle_comparison(viewer, source, second)
    assert cells(viewer) == [["raw"], [second.name]]
    assert not shown_together(first)
    toggle_comparison(viewer, source, second)
    assert [layer.visible for layer in viewer.layers] == [True, True, True]
    assert copy.deepcopy(second.metadata).get("tinc_view") is None


def test_a_result_with_channels_is_compared_with_its_source(movie: Any) -> None:
    viewer = ViewerModel()
    source = viewer.add_image(movie.decode(), name="raw")
    result = add_result(viewer, movie, source)
    toggle_comparison(viewer, source, result)
    assert cells(viewer) == [["raw"], [result.name]]


def camera_of(viewer: ViewerModel) -> tuple[Any, ...]:
    camera = viewer.scene.camera
    return (*camera.center, camera.zoom, *camera.angles)


@pytest.mark.parametrize("ndisplay", [2, 3])
def test_where_one_looked_stays_in_sight_on_the_way_in_and_out(
    pair: tuple[ViewerModel, Any, Any], ndisplay: int
) -> None:
    viewer, source, result = pair
    viewer.canvas.size = (400, 900)
    viewer.dims.ndisplay = ndisplay
    viewer.reset_view()
    camera = viewer.scene.camera
    camera.zoom *= 3
    camera.center = (*camera.center[:-1], camera.center[-1] - 4)
    camera.angles = (10, 20, 30)
    before = camera_of(viewer)
    toggle_comparison(viewer, source, result)
    np.testing.assert_allclose(camera_of(viewer), before)
    toggle_comparison(viewer, source, result)
    np.testing.assert_allclose(camera_of(viewer), before)


@pytest.mark.parametrize("ndisplay", [2, 3])
def test_who_saw_everything_sees_everything_in_the_cells_and_afterwards(
    pair: tuple[ViewerModel, Any, Any], ndisplay: int
) -> None:
    viewer, source, result = pair
    viewer.canvas.size = (900, 400)  # two cells side by side are narrower than high
    viewer.dims.ndisplay = ndisplay
    viewer.reset_view()
    before = camera_of(viewer)
    toggle_comparison(viewer, source, result)
    smaller = viewer.scene.camera.zoom
    assert smaller < before[3]
    viewer.fit_to_view()
    assert viewer.scene.camera.zoom == pytest.approx(smaller)
    viewer.scene.camera.zoom *= 2  # the user comes nearer
    toggle_comparison(viewer, source, result)
    np.testing.assert_allclose(camera_of(viewer), (*before[:3], 2 * before[3], *before[4:]))


def test_flicker_says_on_the_canvas_which_of_the_two_is_shown(tinc_viewer: Callable[..., Any], stack: Any) -> None:
    viewer = tinc_viewer(show=True)
    source = viewer.add_image(stack.decode(), name="raw", scale=(2, 0.5, 0.5), units=("um",) * 3)
    result = add_result(viewer, stack, source)
    result.data = source.data  # so that nothing but the name differs
    plain = picture(viewer)
    toggle_flicker(viewer, source, result)
    flicker = result.metadata["tinc_view"]
    seen = []
    for _ in range(2):
        (shown,) = [layer for layer in viewer.layers if layer.visible]
        seen.append((shown.name, picture(viewer)))
        flicker._swap()
    assert {name for name, _ in seen} == {"raw", result.name}
    changed = [np.abs(shot - plain) for _, shot in seen]
    assert all(one.max() > 50 for one in changed), "a name on the canvas"
    assert np.abs(seen[0][1] - seen[1][1]).max() > 50, "another name"
    toggle_flicker(viewer, source, result)
    assert not source.name_overlay.visible
    assert not result.name_overlay.visible


def picture(viewer: Any) -> Any:
    return viewer.screenshot(flash=False)[..., :3].astype(int)


def test_both_halves_of_the_window_show_the_same_picture(
    tinc_viewer: Callable[..., Any], qtbot: Any, stack: Any
) -> None:
    viewer = tinc_viewer(show=True)
    source = viewer.add_image(stack.decode(), name="raw", scale=(2, 0.5, 0.5), units=("um",) * 3)
    result = add_result(viewer, stack, source)
    toggle_comparison(viewer, source, result)
    for layer in (source, result):
        layer.name_overlay.visible = False  # the titles differ
    qtbot.wait(200)
    picture = viewer.screenshot(flash=False)[..., :3].astype(int)
    middle = picture.shape[1] // 2
    left, right = picture[:, :middle], picture[:, -middle:]
    assert np.ptp(left) > 100
    assert np.abs(left - right).mean() < 2

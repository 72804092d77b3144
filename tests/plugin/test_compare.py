"""Original and decoded side by side."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from napari.components import ViewerModel

from napari_tinc.plugin.compare import toggle_comparison
from napari_tinc.plugin.layers import add_result
from napari_tinc.plugin.overlays import show_quality


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
    toggle_comparison(viewer, source, result)
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
    assert "tinc_comparison" not in result.metadata


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
    assert "tinc_comparison" not in result.metadata
    assert not viewer.canvas.grid.enabled
    source.contrast_limits = (5, 6)
    assert tuple(result.contrast_limits) != (5, 6)


def test_comparing_another_result_ends_the_first(pair: tuple[ViewerModel, Any, Any], stack: Any) -> None:
    viewer, source, first = pair
    second = add_result(viewer, stack, source)
    toggle_comparison(viewer, source, first)
    toggle_comparison(viewer, source, second)
    assert cells(viewer) == [["raw"], [second.name]]
    assert "tinc_comparison" not in first.metadata
    toggle_comparison(viewer, source, second)
    assert [layer.visible for layer in viewer.layers] == [True, True, True]
    assert copy.deepcopy(second.metadata).get("tinc_comparison") is None


def test_a_result_with_channels_is_compared_with_its_source(movie: Any) -> None:
    viewer = ViewerModel()
    source = viewer.add_image(movie.decode(), name="raw")
    result = add_result(viewer, movie, source)
    toggle_comparison(viewer, source, result)
    assert cells(viewer) == [["raw"], [result.name]]


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

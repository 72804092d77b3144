"""Centreline Dice against cases counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from napari_tinc.errors import InputError
from napari_tinc.measures.centreline import centreline_dice


def tube(radius: int, length: int = 40) -> np.ndarray:
    """A tube along x."""
    y, x = np.mgrid[:21, :21] - 10
    disc = y**2 + x**2 <= radius**2
    volume = np.zeros((21, 21, length + 10), bool)
    volume[..., 5:-5] = disc[..., None]
    return volume


def test_equal_volumes_score_one():
    assert centreline_dice(tube(3), tube(3)) == 1


def test_thickness_does_not_matter_where_dice_falls():
    thick, thin = tube(5), tube(2)
    assert centreline_dice(thick, thin) > 0.95
    assert 2 * (thick & thin).sum() / (thick.sum() + thin.sum()) < 0.4


def test_lines_one_voxel_wide_are_their_own_skeletons():
    truth, found = np.zeros((3, 5, 30), bool), np.zeros((3, 5, 30), bool)
    truth[1, 2, 5:25] = True  # 20 voxels
    found[1, 2, 17:29] = True  # 12 voxels, 8 of them in the truth
    precision, sensitivity = 8 / 12, 8 / 20
    expected = 2 * precision * sensitivity / (precision + sensitivity)
    assert centreline_dice(truth, found) == pytest.approx(expected)


def test_what_lies_apart_scores_nothing():
    truth, found = np.zeros((20, 20), bool), np.zeros((20, 20), bool)
    truth[3, 2:18], found[12, 2:18] = True, True
    assert centreline_dice(truth, found) == 0


@pytest.mark.parametrize(("first", "second", "score"), [(0, 0, 1), (0, 1, 0), (1, 0, 0)])
def test_without_foreground(first, second, score):
    assert centreline_dice(np.full((4, 4, 4), first), np.full((4, 4, 4), second)) == score


def test_shapes_must_agree():
    with pytest.raises(InputError, match="one shape"):
        centreline_dice(np.zeros((4, 4)), np.zeros((4, 5)))

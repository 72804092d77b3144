"""Masks: which voxels of an item are all of one background value, coded without loss."""

"""Voxels without loss, or with a largest error: predicted from their neighbours, and coded by context mixing."""

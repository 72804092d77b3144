"""Volumes as arrays, in memory, in files or in chunks: axes, metadata, boxes, and what may be compressed."""

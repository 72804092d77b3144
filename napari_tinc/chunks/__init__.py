"""Arrays of many chunks, each of them a frame: the codec for Zarr, and whole OME-Zarr images."""

"""What napari finds by the manifest: readers, writer, commands, samples."""

"""napari-tinc: volumes as octrees of small neural networks."""

"""Numbers: the tree, the network, training, quantisation, entropy coding, metrics. No files, no napari."""

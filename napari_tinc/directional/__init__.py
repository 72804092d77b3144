"""The directional layer: a tree of blocks, continued along directions from their neighbours, and cosine transforms."""

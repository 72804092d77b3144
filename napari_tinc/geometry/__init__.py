"""The octree, and which samples of which leaves make up a region."""

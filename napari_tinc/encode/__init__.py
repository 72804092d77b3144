"""One compression, top to bottom; and many files, one after the other."""

"""The widget that compares codecs."""

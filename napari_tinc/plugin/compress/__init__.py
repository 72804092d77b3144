"""The widget that compresses a layer."""

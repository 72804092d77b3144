"""Settings, codecs and ratios on one volume at equal bytes."""

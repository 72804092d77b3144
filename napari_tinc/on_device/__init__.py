"""Wavelets on a GPU."""

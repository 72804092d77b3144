"""The wavelet layer: transform, blocks of quantised coefficients, their context coder, and the search for the step."""

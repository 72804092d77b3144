"""Results as layers: where they lie, how they sharpen, and what is shown over and beside them."""

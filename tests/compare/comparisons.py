"""What the tests of the comparison share."""

from napari_tinc.compare.candidates import Candidate

RATIOS = (12.0, 24.0)
SHAPE = (24, 30, 27)


def quick(strategy: str = "even/equal@1") -> Candidate:
    """One of ours that trains for a moment."""
    return Candidate.tinc(strategy, "fast", device="cpu", time_limit=0.3)

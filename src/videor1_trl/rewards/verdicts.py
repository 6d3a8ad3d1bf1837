"""What an accuracy says about a completion: right, wrong, or nothing."""

import math


def as_verdict(accuracy: float | None) -> float:
    """The accuracy, with NaN, which is above no threshold, for no verdict."""
    return math.nan if accuracy is None else float(accuracy)


def check_threshold(threshold: float) -> None:
    if not 0 <= threshold < 1:
        raise ValueError(f"threshold ({threshold}) must be in [0, 1): correct means an accuracy above it. Use 0.5.")

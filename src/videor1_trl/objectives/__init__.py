"""Temporal objectives: what the contrast of a group is worth, one small file each, and their metrics. No model code."""

"""Before T-GRPO: rationales and their supervised training. Imports neither `evaluation` nor `planning`."""

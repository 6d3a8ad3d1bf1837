"""The dry run: what a run will do and need, before it starts. Imports neither `cold_start` nor `evaluation`."""

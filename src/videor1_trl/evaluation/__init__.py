"""Questions of benchmarks, their run, scores and intervals. Imports neither `cold_start` nor `planning`."""

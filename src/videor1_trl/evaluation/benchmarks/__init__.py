"""The benchmarks, one file each. What is public is exported here; nothing here imports how they are run or scored."""

from .catalogue import BENCHMARKS, load_benchmark


__all__ = ["BENCHMARKS", "load_benchmark"]

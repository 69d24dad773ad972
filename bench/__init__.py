"""The benchmark: ours beside the usual ways and the ceilings, in one run, on one machine (docs/benchmarks.md)."""

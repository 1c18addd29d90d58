"""Benchmarks that the installed command line runs, and what those of `benchmarks/` share."""

"""Benchmarks against peers; not part of the package."""

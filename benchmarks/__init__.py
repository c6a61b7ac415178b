"""Measurements against the peers, a command per table: ``python -m benchmarks.pca --help``."""

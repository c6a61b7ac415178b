"""Clusters people can trust, look at, name and use as labels, from millions of image descriptors."""

__version__ = "0.1.0"

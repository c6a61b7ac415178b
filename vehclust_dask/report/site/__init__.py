"""The report as a static folder: pages that open from a disk, without a network."""

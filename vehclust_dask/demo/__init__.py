"""A synthetic twin of the case: four descriptor sets, drawn photos and the truth about them."""

from __future__ import annotations

from vehclust_dask.demo.write import DemoSummary, write_demo

__all__ = ["DemoSummary", "write_demo"]

"""A smaller job than the one of the whole tests, on the same case."""

from __future__ import annotations

from tests.end_to_end.conftest import case, start

__all__ = ["case", "start"]

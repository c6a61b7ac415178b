"""The case of the whole tests."""

from __future__ import annotations

from tests.end_to_end.conftest import case, start

__all__ = ["case", "start"]

"""The words of the pages: one file of messages per language."""

from __future__ import annotations

import functools
import json
from importlib import resources
from typing import Any

LANGUAGES = ("en", "ru")


@functools.cache
def messages(language: str) -> dict[str, str]:
    """Return the messages of a language; what it lacks is told in English."""
    found = _read("en")
    return found | _read(language) if language != "en" else found


def _read(language: str) -> dict[str, str]:
    folder = resources.files("vehclust_dask.report.site") / "messages"
    text = (folder / f"{language}.json").read_text(encoding="utf-8")
    read: dict[str, str] = json.loads(text)
    return read


class Words:
    """Turns keys into words of one language.

    Parameters
    ----------
    language : {'en', 'ru'}
    """

    def __init__(self, language: str) -> None:
        self.language = language
        self._messages = messages(language)

    def __call__(self, key: str, **values: Any) -> str:
        """Return the message of a key with its values filled in."""
        return self._messages[key].format(**values)

    def part(self, prefix: str) -> dict[str, str]:
        """Return the messages whose keys begin so: what a script on the page says."""
        return {key: text for key, text in self._messages.items() if key.startswith(prefix)}

    def number(self, value: float | None, digits: int = 3) -> str:
        """Return a number as people read it: thousands apart, no needless digits."""
        if value is None or value != value:
            return "–"
        whole = float(value).is_integer() or abs(value) >= 1000
        text = f"{value:,.0f}" if whole else f"{value:.{digits}g}"
        return text.replace(",", "\u202f") if self.language == "ru" else text

    def share(self, value: float | None) -> str:
        """Return a share in per cent."""
        if value is None or value != value:
            return "–"
        digits = 0 if value >= 0.1 else 1
        return (
            f"{100 * value:.{digits}f}\u202f%"
            if self.language == "ru"
            else f"{100 * value:.{digits}f} %"
        )

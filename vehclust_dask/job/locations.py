"""Where the files of a job lie: the work folder's placeholder, the data folder, URLs."""

from __future__ import annotations

import difflib
import os
import re
from dataclasses import dataclass
from typing import Any

from vehclust_dask.job.reading import Place

PLACEHOLDER = "{workdir}"


@dataclass(frozen=True)
class Locations:
    """Turns what a job says of its files into absolute paths and URLs.

    Parameters
    ----------
    workdir : str
        What ``{workdir}`` stands for: a path or a URL.
    folder : str or None
        Where relative files lie; None for the current folder.
    """

    workdir: str
    folder: str | None = None

    def file(self, place: Place) -> str:
        """Return the absolute path or the URL of the file named there."""
        return absolute(self.replaced(place), self.folder)

    def replaced(self, place: Place) -> str:
        """Return the text there with the work folder in its place.

        Raises
        ------
        UsageError
            For a placeholder that looks misspelt.
        """
        text = place.text()
        for word in re.findall(r"\{\w*\}", text):
            if word != PLACEHOLDER and difflib.get_close_matches(word, [PLACEHOLDER], cutoff=0.6):
                place.refuse(f"'{word}' is no placeholder; did you mean '{PLACEHOLDER}'?")
        return text.replace(PLACEHOLDER, absolute(self.workdir).rstrip("/"))


def absolute(text: str, folder: str | None = None) -> str:
    """Return a URL as it is and a path as an absolute one; ``~`` is the home folder."""
    if "://" in text:
        return text
    path = os.path.expanduser(text)
    if folder is not None and "://" in folder and not os.path.isabs(path):
        return f"{folder.rstrip('/')}/{path}"
    return os.path.abspath(os.path.join(folder or "", path))


def portable(value: Any, workdir: str) -> Any:
    """Return nested records as sorted mappings and lists, files below the work folder without it.

    Parameters
    ----------
    value : object
        Mappings, tuples, lists, text, numbers, None.
    workdir : str
        What the placeholder stood for; empty for none.
    """
    if isinstance(value, dict):
        return {key: portable(value[key], workdir) for key in sorted(value)}
    if isinstance(value, list | tuple):
        return [portable(item, workdir) for item in value]
    root = absolute(workdir).rstrip("/") if workdir else ""
    if isinstance(value, str) and root and f"{value}/".startswith(f"{root}/"):
        return PLACEHOLDER + value[len(root) :]
    return value

"""Strict YAML: a file as a tree of places that say where they stand when they are refused."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import yaml

from vehclust_dask.errors import UsageError, nearest

T = TypeVar("T")

#: Names become folders and files on any system.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", re.ASCII)


class _StrictLoader(yaml.SafeLoader):
    """A safe loader without YAML 1.1's surprises.

    ``no``, ``on`` and ``none`` are words, ``1e-4`` is a number, ``2:50`` is not 170, a date is
    text; a key given twice and an explicit tag are refused.
    """

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - yaml's own way

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose a node that carries no tag of its own."""
        event = self.peek_event()
        if getattr(event, "tag", None) is not None:
            problem = f"the tag {event.tag} is not allowed; write the plain value"
            raise yaml.composer.ComposerError(None, None, problem, event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Construct a mapping whose keys are all different."""
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                problem = "a key must be a word"
            elif key.value in seen:
                problem = f"the key '{key.value}' stands here twice; keep one of them"
            else:
                seen.add(key.value)
                continue
            raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
        return super().construct_mapping(node, deep=deep)


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?(?:0|[1-9][0-9]{0,17})", list("-+0123456789")),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?", list("-+.0123456789")),
    ("float", r"[-+]?[0-9]+[eE][-+]?[0-9]+", list("-+0123456789")),
    ("merge", r"<<", ["<"]),
):
    _StrictLoader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), _first
    )


@dataclass(frozen=True)
class Place:
    """A value of a job file together with its file and its dotted place.

    Parameters
    ----------
    file : str
        The file as the person named it.
    where : str
        Dotted place, ``studies.osnet-150.reduce``; empty for the whole file.
    value : object
        What stands there; None when nothing does.
    """

    file: str
    where: str
    value: Any

    def refuse(self, sentence: str) -> NoReturn:
        """Raise the UsageError that names file and place."""
        place = f"{self.where}: " if self.where else ""
        raise UsageError(f"{self.file}: {place}{sentence}")

    def wrong(self, expected: str) -> NoReturn:
        """Raise the UsageError for a value of the wrong kind."""
        self.refuse(f"got {show(self.value)}, expected {expected}")

    @property
    def given(self) -> bool:
        """Tell whether anything stands here; null and ``~`` count as nothing."""
        return self.value is not None

    def __getitem__(self, key: str) -> Place:
        """Return the place of one key, whether or not anything stands there."""
        where = f"{self.where}.{key}" if self.where else key
        return Place(self.file, where, self.value.get(key))

    def mapping(self, allowed: Iterable[str]) -> Place:
        """Return itself once it is known to be a mapping of allowed keys; nothing is an empty one.

        Raises
        ------
        UsageError
            For anything else, naming the nearest allowed key.
        """
        keys = list(allowed)
        mapping = self._as_mapping(f"a mapping with {', '.join(keys)}")
        for key, _ in mapping._entries():
            if key not in keys:
                self.refuse(f"unknown key '{key}'; {nearest(key, keys)}")
        return mapping

    def named(self, noun: str) -> tuple[tuple[str, Place], ...]:
        """Return name and place of every entry of a mapping from names; nothing gives none.

        Raises
        ------
        UsageError
            If a name cannot be a folder's, or two differ in case alone.
        """
        seen: dict[str, str] = {}
        entries = tuple(self._as_mapping(f"a mapping from {noun} names")._entries())
        for name, _ in entries:
            check_name(self, name)
            if other := seen.get(name.lower()):
                self.refuse(f"'{other}' and '{name}' differ only in case; rename one of them")
            seen[name.lower()] = name
        return entries

    def items(self) -> tuple[Place, ...]:
        """Return the places of a list; a single value counts as a list of one, nothing as none."""
        if self.value is None:
            return ()
        if not isinstance(self.value, list):
            return (self,)
        return tuple(Place(self.file, f"{self.where}[{i}]", v) for i, v in enumerate(self.value))

    def maybe(self, read: Callable[[Place], T]) -> T | None:
        """Return what ``read`` makes of it, None when nothing stands here."""
        return read(self) if self.given else None

    def text(self, default: str | None = None) -> str:
        """Return text that is not empty."""
        value = self._or(default)
        if not isinstance(value, str):
            # Without quotes, YAML takes {workdir} for a mapping.
            plain = isinstance(value, bool | int | float) or value == {"workdir": None}
            self.wrong("text; put it in quotes" if plain else "text")
        if not value.strip():
            self.wrong("text that is not empty")
        return value

    def choice(self, allowed: tuple[str, ...], default: str | None = None) -> str:
        """Return one of the allowed words."""
        value = self._or(default)
        if value not in allowed:
            hint = nearest(value, allowed) if isinstance(value, str) else ""
            self.refuse(f"{show(value)} is not known; {hint or 'allowed: ' + ', '.join(allowed)}")
        return str(value)

    def whole(self, default: int | None = None, *, least: int, most: int | None = None) -> int:
        """Return a whole number between ``least`` and ``most``."""
        value = self._or(default)
        span = f"of {least} or more" if most is None else f"from {least} to {most}"
        right_kind = isinstance(value, int) and not isinstance(value, bool)
        if not right_kind or value < least or (most is not None and value > most):
            self.wrong(f"a whole number {span}")
        return int(value)

    def number(self, default: float | None = None) -> float:
        """Return a finite number of 0 or more."""
        value = self._or(default)
        right_kind = isinstance(value, int | float) and not isinstance(value, bool)
        if not right_kind or not math.isfinite(value) or value < 0:
            self.wrong("a number of 0 or more")
        return float(value)

    def flag(self, default: bool | None = None) -> bool:
        """Return true or false."""
        value = self._or(default)
        if not isinstance(value, bool):
            self.wrong("true or false")
        return value

    def _entries(self) -> Iterator[tuple[str, Place]]:
        """Iterate over keys and places of a mapping, in the order of the file."""
        for key in self.value:
            if not isinstance(key, str):
                self.refuse(f"the key {show(key)} is not text; put it in quotes")
            yield key, self[key]

    def _or(self, default: T | None) -> Any:
        if self.value is None and default is None:
            self.refuse("is missing")
        return default if self.value is None else self.value

    def _as_mapping(self, expected: str) -> Place:
        if self.value is None:
            return Place(self.file, self.where, {})
        if not isinstance(self.value, dict):
            self.wrong(expected)
        return self


def check_name(place: Place, name: str) -> str:
    """Return a name that can be a folder's on any system, or refuse it."""
    if not NAME.fullmatch(name):
        place.refuse(
            f"'{name}' cannot name a folder; use letters, digits, '.', '_' and '-', "
            "a letter or digit first, 100 characters at most"
        )
    return name


def refuse_repeats(place: Place, words: tuple[str, ...]) -> None:
    """Refuse a list in which a word stands twice."""
    for word in words:
        if words.count(word) > 1:
            place.refuse(f"'{word}' stands here twice; keep one of them")


def show(value: object) -> str:
    """Write a value for a sentence; lists and mappings only by their kind."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    text = str(value)
    short = text if len(text) <= 80 else f"{text[:77]}..."
    return f"'{short}'" if isinstance(value, str) else short


def read_yaml(path: Path) -> Place:
    """Return the whole YAML file as a place that holds a mapping.

    Raises
    ------
    UsageError
        If the file is absent, no YAML (with line and column) or no mapping.
    """
    file = str(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"{file}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{file}: is not UTF-8 text (byte {error.start}); save it so") from error
    try:
        # The loader is a SafeLoader that knows fewer things.
        value = yaml.load(text, Loader=_StrictLoader)
    except yaml.MarkedYAMLError as error:
        raise UsageError(f"{file}: {_syntax(error, text)}") from error
    except yaml.reader.ReaderError as error:
        at = f"character {error.position}"
        raise UsageError(f"{file}: holds a character that YAML forbids ({at})") from error
    except RecursionError as error:
        raise UsageError(f"{file}: is nested too deeply to be a job") from error
    if not isinstance(value, dict):
        raise UsageError(f"{file}: holds {show(value)}, expected a mapping such as 'name: ...'")
    return Place(file, "", value)


def _syntax(error: yaml.MarkedYAMLError, text: str) -> str:
    """Say in one sentence where the YAML breaks and why."""
    mark = error.problem_mark or error.context_mark
    if mark is None:
        return f"is no YAML ({error.problem})"
    sentence = f"line {mark.line + 1}, column {mark.column + 1}: "
    sentence += ", ".join(part for part in (error.context, error.problem) if part)
    lines = text.splitlines()
    line = lines[mark.line] if mark.line < len(lines) else ""
    if re.search(r"[:\[,-]\s*\{workdir\}", line):
        sentence += '; a value that begins with {workdir} needs quotes: "{workdir}/..."'
    return sentence

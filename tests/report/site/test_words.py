"""Both languages say the same things, with the same gaps to fill."""

import re
import string
from importlib import resources
from pathlib import Path

import pytest

from vehclust_dask.report.site.words import LANGUAGES, Words, _read

READMES = ("README.md", "README.ru.md")
SITE = resources.files("vehclust_dask.report.site")


def gaps(message: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(message) if name is not None}


def test_messages__have_the_same_keys() -> None:
    english, russian = _read("en"), _read("ru")
    assert sorted(english) == sorted(russian)
    assert all(text.strip() for text in russian.values())


def test_messages__have_the_same_gaps() -> None:
    english, russian = _read("en"), _read("ru")
    differ = {key for key in english if gaps(english[key]) != gaps(russian[key])}
    assert not differ


def test_messages__russian_is_russian() -> None:
    kept = {"overview.title", "score.ami", "score.bic"}
    latin = {
        key
        for key, text in _read("ru").items()
        if not re.search("[а-я]", text) and not key.endswith(".csv")
    }
    assert latin == kept


@pytest.mark.parametrize("language", LANGUAGES)
def test_messages__lie_in_alphabetical_order(language: str) -> None:
    keys = list(_read(language))
    assert keys == sorted(keys)


def test_messages__every_key_a_template_names_is_there() -> None:
    known = set(_read("en"))
    named = set()
    for file in (SITE / "templates").iterdir():
        named |= set(re.findall(r"""t\('([\w.-]+)'[,)]""", file.read_text(encoding="utf-8")))
    assert named
    assert named <= known


@pytest.mark.parametrize(("script", "prefix"), [("outliers", "outliers.js"), ("cross", "cross.js")])
def test_messages__scripts_find_their_words(script: str, prefix: str) -> None:
    text = (SITE / "static" / f"{script}.js").read_text(encoding="utf-8")
    named = {f"{prefix}.{key}" for key in re.findall(r"""\bsay\("([\w-]+)\"""", text)}
    there = {key for key in _read("en") if key.startswith(f"{prefix}.")}
    if script == "outliers":
        # Two that are told of a list are named by the caller.
        named |= {f"{prefix}.copied", f"{prefix}.saved"}
    assert named == there


def test_words__numbers_of_russian_have_thin_gaps() -> None:
    assert Words("ru").number(1234567) == "1\u202f234\u202f567"
    assert Words("en").number(1234567) == "1,234,567"
    assert Words("ru").share(0.5) == "50\u202f%"


def test_readme__both_languages_show_the_same_code_links_and_pictures() -> None:
    root = Path(__file__).parents[3]
    english, russian = ((root / name).read_text(encoding="utf-8") for name in READMES)
    assert all(
        f"({name})" in text for name, text in zip(READMES[::-1], (english, russian), strict=True)
    )
    links = [
        sorted(set(re.findall(r"\]\(([^)]+)\)", text)) - set(READMES))
        for text in (english, russian)
    ]
    assert links[0] == links[1]
    assert english.count("\n## ") == russian.count("\n## ")
    for text in (english, russian):
        assert text.count("\n```") % 2 == 0
    code = [
        [" ".join(re.sub(r"#.*", "", line).split()) for line in _code(text)]
        for text in (english, russian)
    ]
    assert code[0] == code[1]


def _code(text: str) -> list[str]:
    """Return the lines of YAML and Python."""
    blocks = re.findall(r"```(?:yaml|python)\n(.*?)```", text, re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]

"""Pages in Portuguese: the sections, commands, tables and links of the English page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS, PORTUGUESE = ROOT / "docs", ROOT / "docs" / "pt-BR"
PAIRS = {ROOT / "README.pt-BR.md": ROOT / "README.md"} | {
    page: DOCS / "first-steps.md"
    if page.name == "primeiros-passos.md"
    else DOCS / page.relative_to(PORTUGUESE)
    for page in sorted(PORTUGUESE.rglob("*.md"))
}
BLOCK = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.S | re.M)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def levels(text: str) -> list[int]:
    """The level of each heading, in order; those of code blocks are comments."""
    return [len(marks) for marks in re.findall(r"^(#+) ", BLOCK.sub("", text), re.M)]


def code(text: str) -> list[tuple[str, list[str]]]:
    """(language, lines) of each block, without comments: those are for the reader."""
    return [
        (language, [re.split(r"(?:^|\s\s)# ", line)[0].rstrip() for line in body.splitlines()])
        for language, body in BLOCK.findall(text)
    ]


def rows(text: str) -> list[int]:
    """Columns of each row of the tables, in order."""
    lines = re.findall(r"^\|.*\|$", BLOCK.sub("", text), re.M)
    return [len(re.split(r"(?<!\\)\|", line)) - 2 for line in lines]


def spans(text: str) -> list[str]:
    """Words of code in the text: names, options, keys; their order is the language's."""
    return sorted(re.findall(r"`([^`\n]+)`", BLOCK.sub("", text)))


def targets(page: Path) -> list[Path | str]:
    """Where a page's links lead; a page in Portuguese counts as its English one."""
    found: list[Path | str] = []
    for link in LINK.findall(BLOCK.sub("", page.read_text("utf-8"))):
        path = (page.parent / link.partition("#")[0]).resolve()
        english = PAIRS.get(path, path)
        found.append(link if "://" in link else f"{english}#{link.partition('#')[2]}")
    return sorted(map(str, found))


@pytest.mark.parametrize("page", PAIRS, ids=lambda page: str(page.relative_to(ROOT)))
def test_both_languages_say_the_same(page: Path) -> None:
    """A section, a command, a row or a link that one of the languages lacks."""
    here, there = page.read_text("utf-8"), PAIRS[page].read_text("utf-8")
    assert levels(here) == levels(there)
    assert code(here) == code(there)
    assert rows(here) == rows(there)
    assert spans(here) == spans(there)
    switch = {str(page), str(PAIRS[page])}
    assert [t for t in targets(page) if t.rstrip("#") not in switch] == [
        t for t in targets(PAIRS[page]) if t.rstrip("#") not in switch
    ]


def test_pages_are_found_and_english_ones_are_not_taken_for_portuguese() -> None:
    """A list of pages that is empty, and a translation that was not made."""
    assert len(PAIRS) >= 2
    for page, english in PAIRS.items():
        words = page.read_text("utf-8").lower().split()
        assert words.count("de") + words.count("que") > words.count("of") + words.count("the")
        assert page.read_text("utf-8") != english.read_text("utf-8")


def test_a_difference_is_found() -> None:
    """Comparisons that see nothing: a comment apart, code has to be equal."""
    assert code("```sh\nls  # files\n```") == code("```sh\nls  # arquivos\n```")
    assert code("```sh\nls -l\n```") != code("```sh\nls\n```")
    assert levels("# a\n## b\n```sh\n# c\n```") == [1, 2]
    assert rows("| a \\| b | c |\n") == [2]

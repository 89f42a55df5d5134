"""One vocabulary: the field's words in every text that a user reads.

The reader is a trader or an engineer. A phrase that only we use costs each of them a look.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from cppncripto_strategy.cli import cli

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").glob("*.*")]
)
SOURCES = [
    path
    for folder in ("cppncripto_strategy", "feeds", "indicators", "models", "runs", "benchmarks")
    for path in sorted((ROOT / folder).rglob("*"))
    if path.suffix in (".py", ".toml") and not any(p.is_symlink() for p in path.parents)
]
# Phrase -> what to write instead.
WORDS = {
    r"\bfor(e)?tell(s|ing)?\b|\bforetold\b": "predict, forecast",
    r"\btold\b": "reported",
    r"\b(row|line|file|page|object|report|seed) an? (?!time|probability)\w+": "one ... per ...",
    r"\b(bps|costs?|slippage|fees?) a side\b": "per side",
    r"\bdeepest drawdown\b|\bdeepest fall\b": "maximum drawdown",
    r"\bgrowth a year\b": "CAGR",
    r"\bturnover a year\b": "annual turnover",
    r"\bleast notional\b": "minimum notional",
    r"\bmend(s|ed|ing)?\b": "repair",
    r"\bgo(es)? on where\b|\bgoes on with\b": "resume",
    r"\bin(to)? force\b": "active",
    r"\bspeaks?\b": "produce",
    r"\bcheapest\b|\bdear(er|est)?\b": "lowest-cost, more expensive",
    r"\busual distance\b": "baseline distance",
    r"\bupside down\b": "sign-flipped, mirrored",
    r"\bfor ever\b": "always",
    r"\bday's turn\b": "daily rollover",
    r"\bknows? nobody\b": "imports nothing above it",
}
FORBIDDEN = re.compile("|".join(f"(?:{phrase})" for phrase in WORDS), re.IGNORECASE)


def offenders(text: str) -> list[str]:
    """Each forbidden phrase of a text with the words around it."""
    flat = " ".join(text.split())
    return [flat[max(0, m.start() - 30) : m.end() + 20] for m in FORBIDDEN.finditer(flat)]


def helps(command: click.Command, name: str) -> Iterator[tuple[str, str]]:
    """(command, everything its --help says) of a command and of those below it."""
    # click keeps the first help option that a command was asked for: with the names it is used by.
    names = cli.context_settings["help_option_names"]
    yield name, command.get_help(click.Context(command, info_name=name, help_option_names=names))
    if isinstance(command, click.Group):
        context = click.Context(command, info_name=name)
        for inner in command.list_commands(context):
            found = command.get_command(context, inner)
            assert found is not None
            yield from helps(found, f"{name} {inner}")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pages_use_the_words_of_the_field(page: Path) -> None:
    """A word of our own in a page that does not explain it."""
    assert offenders(page.read_text("utf-8")) == []


def test_command_help_uses_the_words_of_the_field() -> None:
    """A word of our own where a user asks what a command does."""
    found = dict(helps(cli, "cppn-bt"))
    assert len(found) > 10
    assert {name: words for name, text in found.items() if (words := offenders(text))} == {}


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """(line, text) of every docstring, message and label of a source, or a whole recipe."""
    source = path.read_text("utf-8")
    if path.suffix == ".toml":
        yield 1, source
        return
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


def test_the_package_uses_the_words_of_the_field() -> None:
    """A word of our own in a message, a label or a docstring."""
    assert len(SOURCES) > 100
    found = [
        f"{path.relative_to(ROOT)}:{line}: {phrase}"
        for path in SOURCES
        for line, text in texts(path)
        for phrase in offenders(text)
    ]
    assert found == []


def test_a_forbidden_phrase_is_found_across_a_line_break() -> None:
    """A scanner that reads line by line and misses half of them."""
    assert offenders("the account's deepest\n   drawdown") == ["the account's deepest drawdown"]
    assert len(offenders("costs bps a side, one row a symbol, told")) == 3

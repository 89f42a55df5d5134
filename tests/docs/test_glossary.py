"""The glossary: alphabetical, one entry per term, and it explains our own words."""

from __future__ import annotations

import re
from pathlib import Path

GLOSSARY = Path(__file__).parents[2] / "docs" / "glossary.md"
ENTRIES = dict(re.findall(r"^- \*\*(.+?)\*\*(.*?)(?=^- |\Z)", GLOSSARY.read_text(), re.M | re.S))
OUR_WORDS = ("Planted", "Painted", "House", "Setup", "Marker", "Bundle", "Recipe", "Recall", "mu")


def test_entries_stand_in_alphabetical_order() -> None:
    """A term that is not where a reader looks for it."""
    names = list(ENTRIES)
    assert len(names) > 60
    assert names == sorted(names, key=str.lower)


def test_every_entry_is_a_sentence() -> None:
    """A term with a heading and no explanation."""
    for term, text in ENTRIES.items():
        assert len(text.split()) >= 3, term
        assert text.strip().endswith("."), term


def test_our_own_words_are_explained_and_marked() -> None:
    """A word that no other project uses, met by a reader who cannot look it up."""
    for word in OUR_WORDS:
        assert "*ours*" in ENTRIES[word], word


def test_words_of_the_field_as_used_here_are_there() -> None:
    """A word with a special meaning here, left to guessing."""
    words = "Session Rollover Embargo Purge Drift Round trip Hit ratio Precision Trial Deflated"
    for word in words.split():
        assert any(term.startswith(word) or word in term for term in ENTRIES), word

"""The threat model names the test of every claim, and those tests are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text("utf-8")
ROWS = [
    row.strip("|").rsplit("|", 1)
    for row in PAGE.splitlines()
    if row.startswith("| ") and re.search(r"`(alerts/)?test_", row)
]
NAMED = re.compile(r"`((?:alerts/)?test_\w+\.py)`(?: in `tests/`)?(?:: ([^;`]+))?")
CITED = [
    pytest.param(name, phrase, id=f"{name}: {phrase}")
    for _, tests in ROWS
    for name, phrases in NAMED.findall(tests)
    for phrase in (phrases.split(",") if phrases.strip() else [""])
]


def source(name: str) -> str:
    """A test file of the desk, or of the house."""
    paths = [ROOT / "tests" / "strategy" / "desk" / name, ROOT / "tests" / name]
    return next(path.read_text("utf-8") for path in paths if path.exists())


@pytest.mark.parametrize(("name", "phrase"), CITED)
def test_cited_test_exists(name: str, phrase: str) -> None:
    """A claim whose test was renamed, or never written."""
    wanted = re.sub(r"\W+", "_", phrase.strip().lower()).strip("_")
    assert re.search(rf"def test_\w*{wanted}", source(name)), wanted


def test_every_claim_has_a_test() -> None:
    """A promise in the threat model that nothing holds."""
    assert len(ROWS) > 25
    claims = [row for row in PAGE.splitlines() if re.match(r"\| (?!claim \||what \||-)", row)]
    assets = 3
    assert len(claims) == len(ROWS) + assets

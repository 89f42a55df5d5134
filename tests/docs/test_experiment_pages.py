"""The experiment log: dated pages, an index that names each, tables as the command writes them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cppncripto_strategy.experiments.page import CELL_COLUMNS

FOLDER = Path(__file__).parents[2] / "docs" / "experiments"
PAGES = sorted(path for path in FOLDER.glob("*.md") if path.name != "README.md")
COMPARED = [page for page in PAGES if re.search(r"-e\d-", page.name)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_page_bears_its_date_and_stands_in_the_index(page: Path) -> None:
    """A result without a date, or one that the index leaves out because it was not pleasant."""
    date = page.name[:10]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", date)
    assert f"un on {date}" in page.read_text("utf-8").replace("\n", " ")
    assert f"| {date} | [" in (FOLDER / "README.md").read_text("utf-8")
    assert f"]({page.name})" in (FOLDER / "README.md").read_text("utf-8")


@pytest.mark.parametrize("page", COMPARED, ids=lambda page: page.stem)
def test_cells_are_a_table_of_the_command(page: Path) -> None:
    """A table typed or trimmed by hand: `cppn-bt experiment --markdown` would write another."""
    known = [heading for heading, _ in CELL_COLUMNS.values()]
    text = page.read_text("utf-8")
    heads = re.findall(r"^\| (Arm \| Seed \| .*) \|$", text, flags=re.M)
    assert len(heads) == len(re.findall(r"^recipe: ", text, flags=re.M)) > 0  # one per market
    for head in heads:
        columns = head.split(" | ")
        assert columns == [name for name in known if name in columns]


@pytest.mark.parametrize("page", COMPARED, ids=lambda page: page.stem)
def test_each_arm_has_a_row_for_each_seed(page: Path) -> None:
    """A seed that did not please, left out."""
    for section in page.read_text("utf-8").split("\n## ")[1:]:
        (listed,) = re.findall(r"^seeds: ([\d, ]+?) *$", section, flags=re.M)
        cells = re.findall(r"^\| ([a-z0-9][a-z0-9 ]*) \| (\d+) \|", section, flags=re.M)
        arms = {arm for arm, _ in cells}
        assert len(arms) >= 2
        assert sorted(cells) == sorted((arm, seed) for arm in arms for seed in listed.split(", "))

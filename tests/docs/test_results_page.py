"""docs/reference/results.md: its tables are the tables that a run writes."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest

from cppncripto_strategy.results import TABLES, empty_table

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "results.md").read_text("utf-8")
SECTIONS = dict(re.findall(r"^## `(\w+)\.parquet`\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S))
# Columns that a run adds to those it must have: the bundle, and the vector.
MORE = {"embeddings": ["model_hash", "drift", "e0", "e127"]}
TYPES = {"text": "str", "int64": "int64", "float64": "float64"}


def columns(section: str) -> list[tuple[str, str]]:
    """(column, type) of a section's table, in its order."""
    rows = re.findall(r"^\| (`.+?`) \| (\w+) \|", section, re.M)
    return [(name, kind) for names, kind in rows for name in re.findall(r"`(\w+)`", names)]


@pytest.mark.parametrize("name", SECTIONS)
def test_columns_are_those_of_the_code(name: str) -> None:
    """A column that was added or renamed, and is not on the page; an order that is another."""
    listed = [column for column, _ in columns(SECTIONS[name])]
    assert listed == [*TABLES[name], *MORE.get(name, [])]


@pytest.mark.parametrize("name", SECTIONS)
def test_types_are_those_of_the_code(name: str) -> None:
    """A type that a reader of the Parquet file does not find."""
    table = empty_table(name)
    kinds = {column: TYPES[kind] for column, kind in columns(SECTIONS[name])}
    # `age_ms` is a number that may be undefined, and so is float64 in what is written.
    expected = {column: str(dtype) for column, dtype in table.dtypes.items()} | {
        "age_ms": "float64"
    }
    assert {name: kind for name, kind in kinds.items() if name in table.columns} == {
        name: "str" if expected[name] in ("object", "str", "string") else expected[name]
        for name in table.columns
    }
    assert isinstance(table, pd.DataFrame)


def test_every_table_is_on_the_page() -> None:
    """A file that a run leaves, and that no reader is told about."""
    assert {"signals", "fills", "trades", "equity", "embeddings", "evidence"} == set(SECTIONS)
    for name in TABLES:
        assert f"`{name}.parquet`" in PAGE

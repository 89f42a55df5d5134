"""The results folder: what is written is read back, and half a run is not taken for a run."""

from __future__ import annotations

import json
import os
import tomllib

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cppncripto_strategy import results
from cppncripto_strategy.errors import RecipeError, SessionError


def small_result(**changes):
    tables = {name: results.empty_table(name) for name in results.TABLES}
    tables["equity"] = pd.DataFrame(
        {
            "close_time_ms": np.array([300_000, 600_000]),
            "equity": [100.0, 101.25],
            "cash": [100.0, 50.0],
            "exposure": [0.0, 0.5],
        }
    )
    given = {
        "recipe": {"name": "small", "micro": {"window": 60, "rates": [0.1, 0.2]}},
        "manifest": {"seed": 7, "versions": {"torch": "2.9"}},
        "metrics": {"strategy": {"sharpe": None, "total_return": 0.0125}},
        "gaps": [{"symbol": "BTCUSDT", "start_ms": 0, "end_ms": 300_000, "candles": 1}],
        "bundles": [{"hash": "abc", "trained_until_ms": 5, "validation_loss": 1.02}],
        "planted": {"ceiling_hit_ratio": 0.655},
        **tables,
    }
    return results.RunResult(**{**given, **changes})


def test_results_read_back_equal_what_was_written(tmp_path):
    """Dies here: a table, a gap or a bundle that does not survive the folder."""
    before = small_result()
    results.write_results(before, tmp_path / "run")
    after = results.read_results(tmp_path / "run")
    for name in results.TABLES:
        pd.testing.assert_frame_equal(getattr(before, name), getattr(after, name))
    for name in ("recipe", "manifest", "metrics", "gaps", "bundles", "planted"):
        assert getattr(before, name) == getattr(after, name)


def test_optional_tables_may_be_absent(tmp_path):
    """Dies here: a run without the second arm that cannot be read back."""
    results.write_results(
        small_result(equity_without_macro=None, embeddings=None, planted=None), tmp_path
    )
    after = results.read_results(tmp_path)
    assert (after.equity_without_macro, after.embeddings, after.planted) == (None, None, None)


def test_run_killed_before_its_manifest_is_refused(tmp_path, monkeypatch):
    """Dies here: the tables of a killed run taken for results."""

    def killed(path, value):
        if path.name == results.METRICS_FILE:
            raise KeyboardInterrupt

    monkeypatch.setattr(results, "write_json", killed)
    with pytest.raises(KeyboardInterrupt):
        results.write_results(small_result(), tmp_path)
    with pytest.raises(SessionError, match=r"manifest\.json is written last"):
        results.read_results(tmp_path)


def test_failed_write_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch):
    """Dies here: a file truncated by a full disk."""
    path = tmp_path / "metrics.json"
    results.write_json(path, {"a": 1})

    def full_disk(handle):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="no space"):
        results.write_json(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 1}
    assert [item.name for item in tmp_path.iterdir()] == ["metrics.json"]


def test_table_without_a_column_is_refused_by_name():
    """Dies here: a report that fails deep inside because a column was renamed."""
    with pytest.raises(SessionError, match=r"equity table lacks the columns \['cash'\]"):
        small_result(equity=small_result().equity.drop(columns="cash"))


def test_missing_table_is_named(tmp_path):
    """Dies here: a folder copied in part that reads as a run without trades."""
    results.write_results(small_result(), tmp_path)
    (tmp_path / "trades.parquet").unlink()
    with pytest.raises(SessionError, match=r"lacks trades\.parquet"):
        results.read_results(tmp_path)


def test_json_has_null_for_what_is_not_a_number(tmp_path):
    """Dies here: NaN in metrics.json, which strict parsers refuse."""
    path = tmp_path / "m.json"
    results.write_json(
        path,
        {"a": math_nan(), "b": np.float32("inf"), "c": np.int64(3), "d": (np.bool_(True), None)},
    )
    text = path.read_text()
    assert json.loads(text, parse_constant=pytest.fail) == {
        "a": None,
        "b": None,
        "c": 3,
        "d": [True, None],
    }


def math_nan():
    return float("nan")


scalars = st.one_of(
    st.booleans(),
    st.integers(-(2**62), 2**62),
    st.floats(allow_nan=False),
    st.text(st.characters(exclude_categories=["Cs"])),
)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4), max_leaves=6)
keys = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
tables = st.recursive(
    st.dictionaries(keys, values, max_size=4),
    lambda inner: st.dictionaries(keys, st.one_of(values, inner), max_size=4),
    max_leaves=8,
)


@given(tables)
def test_toml_reads_back_as_it_was(content):
    """Dies here: a recipe whose quotes, dots or control characters break its own record."""
    assert tomllib.loads(results.to_toml(content)) == content


def test_toml_leaves_out_none_and_refuses_what_it_cannot_hold():
    """Dies here: the text "None" in a recipe, read back as a string."""
    assert results.to_toml({"a": None, "b": {"c": 1}}) == "[b]\nc = 1\n"
    with pytest.raises(RecipeError, match="cannot hold"):
        results.to_toml({"a": object()})

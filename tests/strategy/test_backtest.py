"""A run that fails says why in its log."""

import json

import pytest

from cppncripto_strategy import backtest
from cppncripto_strategy.errors import RecipeError, TrainingError
from cppncripto_strategy.locks import FileLock


def test_failed_run_leaves_its_reason_in_the_log(hourly, tmp_path):
    """A results folder that says nothing about why it is empty."""
    recipe = hourly.recipe(candles={"source": "planted", "planted": {"days": 20}})
    with pytest.raises(TrainingError):
        backtest.run_backtest(recipe, tmp_path / "out")
    lines = [json.loads(x) for x in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    assert lines[-1]["level"] == "error"
    assert "nothing is left to trade" in lines[-1]["message"]


def test_crash_is_named_in_the_log_too(hourly, tmp_path, monkeypatch):
    """A log that ends in the middle, and nobody knows why."""
    recipe = hourly.recipe(candles={"source": "planted", "planted": {"days": 20}})
    monkeypatch.setattr(backtest, "checked_span", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        backtest.run_backtest(recipe, tmp_path / "out")
    last = json.loads((tmp_path / "out" / "log.jsonl").read_text().splitlines()[-1])
    assert last["message"] == "run failed: ZeroDivisionError: division by zero"


def test_folder_of_a_running_backtest_is_left_alone(hourly, tmp_path):
    """Two runs into one folder: the log of one beside the tables of the other."""
    out = tmp_path / "out"
    with (
        FileLock.take(out / ".lock", "it", RecipeError, ""),
        pytest.raises(RecipeError, match=r"in use by this process.*a folder of its own"),
    ):
        backtest.run_backtest(hourly.recipe(), out)
    assert list(out.iterdir()) == []

"""A run that fails says why in its log."""

import json
from datetime import datetime

import pytest

from cppncripto_strategy import backtest, paths
from cppncripto_strategy.cli import main
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


def test_two_refusals_of_one_second_leave_a_reason_each(tmp_path, monkeypatch, capsys):
    """Refusals that share a folder and a log, or leave one that says nothing."""
    moment = datetime(2026, 11, 27, 10, 30)

    class Still(datetime):
        @classmethod
        def now(cls, tz=None):
            return moment

    monkeypatch.setattr(paths, "datetime", Still)
    recipe = 'symbols = ["A"]\ninterval = "1h"\ncandles.source = "planted"\n'
    reasons = {}
    for days, folder in ((20, "20261127T103000Z"), (21, "20261127T103000Z-2")):
        (tmp_path / "short.toml").write_text(f"{recipe}candles.planted.days = {days}\n")
        with pytest.raises(SystemExit, match="1"):
            main(["run", str(tmp_path / "short.toml")])
        left = tmp_path / "short" / folder
        assert [path.name for path in left.iterdir()] == ["log.jsonl"]
        reasons[days] = json.loads((left / "log.jsonl").read_text().splitlines()[-1])["message"]
        assert "nothing is left to trade" in reasons[days]
        assert capsys.readouterr().err.count("nothing is left to trade") == 1
    assert reasons[20] != reasons[21]
    assert len(list((tmp_path / "short").iterdir())) == 2


def test_stopped_run_says_so_in_its_log(hourly, tmp_path, monkeypatch):
    """A log that ends in the middle after Ctrl-C, as after a kill."""
    recipe = hourly.recipe(candles={"source": "planted", "planted": {"days": 20}})

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(backtest, "checked_span", interrupt)
    with pytest.raises(KeyboardInterrupt):
        backtest.run_backtest(recipe, tmp_path / "out")
    last = json.loads((tmp_path / "out" / "log.jsonl").read_text().splitlines()[-1])
    assert last["message"] == "stopped by a signal"


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

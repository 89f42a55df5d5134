"""`cppn-bt check`: a recipe in, verdicts and an exit status out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from cppncripto_strategy.arrays import FloatArray
from cppncripto_strategy.checks.plan import candles_of, plan_of
from cppncripto_strategy.checks.suite import CHECKS, run_checks
from cppncripto_strategy.commands import check
from cppncripto_strategy.errors import CppnError
from cppncripto_strategy.feeds.candles import Candles
from cppncripto_strategy.feeds.planted import PlantedSettings, generate
from cppncripto_strategy.indicators import AdaptiveThreshold
from cppncripto_strategy.models.inputs import sessions
from cppncripto_strategy.models.inputs.features import compute_features
from cppncripto_strategy.models.inputs.grid import CandleGrid
from cppncripto_strategy.models.judging.leaks import LeakVerdict
from cppncripto_strategy.recipe import load_recipe

RECIPE = """
symbols = ["AAA", "BBB"]
seed = 4
[candles]
source = "planted"
planted.days = 48
[macro]
long_window = 288
epochs = 1
[micro]
epochs = 2
initialisations = 1
short_window = 24
[label]
horizon = 6
[walkforward]
train_days = 14
validate_days = 4
retrain_days = 7
[threshold]
window = 400
"""


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(RECIPE)
    return path


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(check.command, [str(argument) for argument in arguments])


def test_a_clean_recipe_passes_and_prints_one_document(recipe: Path) -> None:
    """Kills prose on stdout beside the JSON, and verdicts that lose their check."""
    result = run(recipe, "--json", "--only", "prefix", "--only", "perturbation")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert (document["recipe"], document["seed"], document["passed"]) == ("small", 4, True)
    found = [(row["check"], row["subject"]) for row in document["verdicts"]]
    assert found == [
        ("prefix", "AAA"),
        ("prefix", "BBB"),
        ("prefix", "orders"),
        ("perturbation", "training"),
        ("perturbation", "AAA"),
        ("perturbation", "BBB"),
        ("perturbation", "orders"),
    ]
    assert all(
        row["passed"] and row["first_offending_time_ms"] is None for row in document["verdicts"]
    )


def centred_return(grid: CandleGrid, names: tuple[str, ...]) -> FloatArray:
    """LEAK: log_return is the mean of this candle's and the next one's."""
    features = compute_features(grid, names)
    column = features[:, names.index("log_return")]
    column[:-1] = (column[:-1] + column[1:]) / 2
    return features


def test_a_leak_is_printed_with_its_first_value_and_fails(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kills a failed check that exits with 0, or does not say where to look."""
    monkeypatch.setattr(sessions, "compute_features", centred_return)
    result = run(recipe, "--symbols", "AAA", "--only", "prefix")
    assert result.exit_code == 1
    words = " ".join(result.stdout.split())
    assert "FAILED" in words
    assert "AAA log_return at the close of 2023-" in words
    assert "1 of 1 checks failed: prefix" in words
    result = run(recipe, "--symbols", "AAA", "--only", "prefix", "--json")
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert not document["passed"]
    (row,) = [row for row in document["verdicts"] if row["subject"] == "AAA"]
    assert row["first_offending_time_ms"] % 300_000 == 0
    assert isinstance(row["first_offending_value"], float)


def test_a_threshold_that_backtrader_draws_from_the_whole_series_is_caught(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kills a look-ahead that sits in an indicator, past everything the models compute."""

    def whole_series(self: Any, start: int, end: int) -> None:
        """LEAK: quantiles of every score there will ever be."""
        scores = np.asarray(self.data.lines[0].array[start:end])
        known = scores[~np.isnan(scores)]
        upper, lower = np.quantile(known, [0.85, 0.15]) if len(known) else (np.nan, np.nan)
        for row in range(start, end):
            self.lines.upper.array[row], self.lines.lower.array[row] = upper, lower
        self._done = end

    monkeypatch.setattr(AdaptiveThreshold, "once", whole_series)
    plan = plan_of(load_recipe(recipe))
    verdicts = run_checks(plan, only=["prefix", "perturbation"])
    failed = [(verdict.name, verdict.subject) for verdict in verdicts if not verdict.passed]
    assert failed == [("prefix", "orders"), ("perturbation", "orders")]
    assert all("upper" in verdict.detail for verdict in verdicts if not verdict.passed)


def test_a_value_that_was_undefined_is_null_in_json() -> None:
    """Kills a document that no strict JSON reader takes, because it holds NaN."""
    verdict = LeakVerdict("prefix", False, "gone", 5, float("nan"), "orders")
    assert json.loads(json.dumps(check._plain(verdict), allow_nan=False)) == {
        "check": "prefix",
        "subject": "orders",
        "passed": False,
        "detail": "gone",
        "first_offending_time_ms": 5,
        "first_offending_value": None,
    }


def test_the_candles_of_a_folder_are_checked_instead_of_the_recipes(
    recipe: Path, tmp_path: Path
) -> None:
    """Kills an option that is read and forgotten: these candles have another length and a gap."""
    import pyarrow.parquet as pq

    folder = tmp_path / "candles"
    folder.mkdir()
    market = generate(PlantedSettings(days=40, seed=9))
    kept = np.ones(len(market.candles), np.bool_)
    kept[5000:5010] = False
    candles: Candles = market.candles[kept]
    pq.write_table(candles.to_arrow(), folder / "XYZ-5m.parquet")
    result = run(
        recipe,
        *("--candles", folder, "--symbols", "XYZ", "--timerange", "20230130-20230208"),
        *("--seed", "2", "--only", "embedding time-shift", "--only", "prefix", "--json"),
    )
    document = json.loads(result.stdout)
    assert document["seed"] == 2
    exact = [row for row in document["verdicts"] if "XYZ" in row["subject"]]
    assert [row["check"] for row in exact] == ["prefix", "embedding time-shift"]
    assert all(row["passed"] for row in exact)


def test_the_plan_is_the_recipes_own(recipe: Path) -> None:
    """Kills a check of default networks in place of the recipe's."""
    plan = plan_of(load_recipe(recipe))
    assert list(plan.grids) == ["AAA", "BBB"]
    assert plan.learn.session.long_window == 288
    assert plan.learn.short_window == 24
    assert plan.learn.use_macro
    assert (plan.threshold.window, plan.threshold.least_scores) == (400, 57)
    assert plan.seed == 4
    recipe.write_text(RECIPE.replace("[macro]", "[macro]\nenabled = false"))
    assert not plan_of(load_recipe(recipe)).learn.use_macro


def test_candles_survive_the_way_over_the_grid(recipe: Path) -> None:
    """Kills orders that are checked on other candles than those that were read."""
    market = generate(PlantedSettings(days=2, seed=1))
    kept = np.ones(len(market.candles), np.bool_)
    kept[100:110] = False
    candles = market.candles[kept]
    back = candles_of(CandleGrid.from_candles(candles, 300_000))
    for name in ("open_time", "open", "high", "low", "close", "volume", "taker_buy_volume"):
        np.testing.assert_array_equal(getattr(back, name), getattr(candles, name))


def test_a_recipe_that_cannot_be_read_is_one_error(tmp_path: Path) -> None:
    """Kills a traceback for a mistyped path, and a check that passes on nothing."""
    result = run(tmp_path / "absent.toml")
    assert isinstance(result.exception, CppnError)
    assert "absent.toml" in str(result.exception)
    assert run("--only", "midnight").exit_code == 2


EXACT = ("--only", "prefix", "--only", "perturbation", "--only", "start-invariance")


@pytest.mark.slow
def test_the_demo_passes_the_exact_checks() -> None:
    """Kills a shipped recipe that leaks; its statistical checks take a minute more."""
    result = run(*EXACT, "--json")
    assert result.exit_code == 0, result.output
    checked = {row["check"] for row in json.loads(result.stdout)["verdicts"]}
    assert checked == {"prefix", "perturbation", "start-invariance"}


@pytest.mark.slow
@pytest.mark.real
def test_the_real_recipe_passes_the_exact_checks_on_real_candles() -> None:
    """Kills a leak that only real gaps, ticks and prices bring out."""
    market = os.environ.get("CPPN_BT_REAL_MARKET")
    if not market:
        pytest.skip("CPPN_BT_REAL_MARKET does not point at real candles")
    result = run("real", "--candles", Path(market) / "candles", *EXACT, "--json")
    assert result.exit_code == 0, result.output
    subjects = {row["subject"] for row in json.loads(result.stdout)["verdicts"]}
    assert subjects == {"BTCUSDT", "ETHUSDT", "training", "orders"}


def test_the_command_knows_every_check_without_importing_torch() -> None:
    """Kills a check that --only cannot name, and a help text that takes seconds."""
    assert check.CHECK_NAMES == CHECKS
    code = (
        "import sys; import cppncripto_strategy.commands.check;"
        "print([m for m in ('torch', 'backtrader', 'pandas') if m in sys.modules])"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"

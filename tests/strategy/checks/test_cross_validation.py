"""Cross-validation of a recipe: no network sees the days it trades; paths are what was traded."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from cppncripto_strategy.checks.cross_validation import CrossPlan, cross_validate
from cppncripto_strategy.commands import check
from cppncripto_strategy.errors import TrainingError
from cppncripto_strategy.evaluation.cross_paths import Folds
from cppncripto_strategy.evaluation.returns import daily_returns
from cppncripto_strategy.feeds.clock import DAY_MS
from cppncripto_strategy.market import Market
from cppncripto_strategy.models.bundle import BundleTimeline
from cppncripto_strategy.recipe import parse_recipe
from cppncripto_strategy.replay import replay

DAYS = 74
RECIPE = {
    "name": "small",
    "symbols": ["AAA"],
    "interval": "15m",
    "seed": 4,
    "candles": {"source": "planted", "planted": {"days": DAYS, "mu": 1.0, "sigma": 0.004}},
    "macro": {"long_window": 288, "epochs": 1},
    "micro": {"epochs": 2, "initialisations": 1, "short_window": 16},
    "label": {"horizon": 6},
    "walkforward": {"train_days": 14, "validate_days": 4},
    "threshold": {"window": 200},
    "strategy": {"hold_candles": 6, "evidence": "wait"},
}
FOLDS = Folds(4, 2)


def silent(done, total, text):
    """No progress."""


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def plan():
    return CrossPlan.of(parse_recipe(RECIPE, "small"), FOLDS)


def with_other_candles(plan, start_ms, end_ms):
    """The plan on a market in which candles that open in [start, end) cost half as much more."""
    [(name, candles)] = plan.market.candles.items()
    inside = (candles.open_time >= start_ms) & (candles.open_time < end_ms)
    factor = np.where(inside, 1.5, 1.0)
    columns = {c: getattr(candles, c) * factor for c in ("open", "high", "low", "close", "volume")}
    other = dataclasses.replace(candles, **columns)
    return dataclasses.replace(plan, market=Market({name: other}, plan.market.planted))


def test_networks_never_see_what_they_trade_nor_what_lies_close_behind_it(plan):
    """Dies here: a feature, scaler, label or embedding made from a tested day or its outcomes."""
    tested = (0, 2)
    hidden_ms = (plan.purge + plan.embargo) * plan.recipe.interval_ms
    assert plan.purge == 6
    known = plan.learned_without(tested, silent).model_hash
    group = plan.groups[2]
    changed = with_other_candles(plan, group.start_ms, group.end_ms + hidden_ms)
    assert changed.learned_without(tested, silent).model_hash == known
    # The same change a candle longer, or a candle earlier, is seen: the test can fail.
    step = plan.recipe.interval_ms
    for first, last in ((0, step), (-step, 0)):
        longer = with_other_candles(plan, group.start_ms + first, group.end_ms + hidden_ms + last)
        assert longer.learned_without(tested, silent).model_hash != known


def test_last_group_earns_what_a_backtest_of_the_same_networks_earns(plan):
    """Dies here: trades of another account, other costs, or days shifted by one."""
    last = plan.groups[3]
    bundle = plan.learned_without((3,), silent)
    assert bundle.info.trained_until_ms == last.start_ms
    traded = plan.traded(last, bundle)
    equity = replay(plan.recipe, plan.market.every, BundleTimeline((bundle,)), last).tables(last)
    expected = daily_returns(equity["equity"])
    assert traded.tolist() == expected.tolist()
    assert len(traded) == (last.end_ms - last.start_ms) // DAY_MS
    assert traded.any()  # it traded, though the recipe waits for evidence


def test_paths_page_and_document_come_from_one_command(tmp_path, monkeypatch):
    """Dies here: a page of other numbers than the document, or days tested twice or never."""
    monkeypatch.chdir(tmp_path)
    recipe = parse_recipe(RECIPE, "small")
    done = []
    found = cross_validate(recipe, Folds(3, 2), lambda *report: done.append(report[0]))
    assert found.paths.shape[0] == 2
    assert np.isfinite(found.paths).all()
    assert done == sorted(done)
    assert done[-1] <= 3000
    from cppncripto_strategy.results import to_toml

    (tmp_path / "small.toml").write_text(to_toml(recipe.to_plain()))
    result = CliRunner().invoke(check.command, ["small.toml", "--cpcv", "--groups", "3", "--json"])
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["sharpes"] == pytest.approx(list(found.spread.sharpes))
    assert (document["trainings"], document["days"]) == (3, found.paths.shape[1])
    assert json.loads((tmp_path / "small" / "cpcv.json").read_text()) == document
    page = (tmp_path / "small" / "cpcv.html").read_text("utf-8")
    assert document["words"][1] in page.replace("−", "-")


@pytest.mark.parametrize(
    ("folds", "said"),
    [(Folds(20, 2), "days are too few for 20 groups"), (Folds(13, 2), "13 groups of 5")],
)
def test_groups_too_short_are_refused_before_training(folds, said):
    """Dies here: a Sharpe ratio of two days, or a fold without a day to validate on."""
    values = {**RECIPE, "walkforward": {"train_days": 14, "validate_days": 6}}
    with pytest.raises(TrainingError, match=said):
        CrossPlan.of(parse_recipe(values, "small"), folds)


def test_a_check_is_not_chosen_beside_paths():
    """Dies here: an option that is read and forgotten."""
    result = CliRunner().invoke(check.command, ["demo", "--cpcv", "--only", "prefix"])
    assert result.exit_code == 2
    assert "leave --only out" in result.output

"""Runs that cannot mean anything are refused before training, each in a sentence with numbers."""

import dataclasses
import logging

import numpy as np
import pytest
import torch

from cppncripto_strategy import backtest
from cppncripto_strategy.checks.plan import plan_of
from cppncripto_strategy.errors import CandleError, RecipeError, TrainingError
from cppncripto_strategy.evolution.search import prepare
from cppncripto_strategy.experiments.cells import Arm
from cppncripto_strategy.experiments.runner import RecipeRunner
from cppncripto_strategy.market import Market, traded_span
from cppncripto_strategy.paper.networks import todays_bundle
from cppncripto_strategy.preflight import check_live, checked_span

WALK = {"train_days": 20, "validate_days": 20, "retrain_days": 7}
SPAN_DAYS = (70, 80)


@pytest.fixture
def recipe(hourly):
    """Builds a sound hourly recipe with changes."""

    def make(**changes):
        values = {"timerange": hourly.timerange(*SPAN_DAYS), "walkforward": WALK}
        return hourly.recipe(**{**values, **changes})

    return make


@pytest.fixture
def market(toy):
    return Market({"A": toy.candles(days=90)})


def flat(candles, first=0, last=None):
    """The same candles, standing still from one row to another."""
    columns = {}
    for name in ("open", "high", "low", "close"):
        values = getattr(candles, name).copy()
        values[first:last] = 7.5
        columns[name] = values
    return dataclasses.replace(candles, **columns)


def test_sound_recipe_passes_in_silence(recipe, market, caplog):
    """A check that refuses, or nags about, a run with nothing wrong in it."""
    assert checked_span(recipe(), market) == traded_span(recipe(), market)
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]


def test_labels_of_one_class_are_refused_with_the_largest_move(recipe, market):
    """An hour of training on labels that all say hold; the network learns to say hold."""
    with pytest.raises(TrainingError) as caught:
        checked_span(recipe(label={"horizon": 6, "threshold_bps": 9000}), market)
    text = str(caught.value)
    # 20 training days before 20 of validation, of the stamp at or before day 70; 6 candles of
    # each boundary have no label yet.
    assert f"all {20 * 24 + 1 - 6:,} labels of the training days" in text
    assert "are 'hold'" in text
    assert "lower label.threshold_bps = 9000" in text
    close = market.candles["A"].close
    largest = np.abs(close[6:] / close[:-6] - 1).max() * 1e4
    said = float(text.split("candles is ")[1].split(" bps")[0])
    assert 0 < said <= largest + 0.05


@pytest.mark.parametrize(
    ("label", "fix"),
    [
        ({"kind": "barrier", "barrier_bps": 9000}, r"lower label\.barrier_bps = 9000"),
        ({"kind": "trade", "horizon": 1}, r"raise label\.horizon, or lower broker\.fee_bps"),
    ],
)
def test_other_kinds_of_label_name_their_own_setting(recipe, market, label, fix):
    """Advice to change a setting that the label does not read."""
    with pytest.raises(TrainingError, match=fix):
        checked_span(recipe(label=label, broker={"fee_bps": 2000}), market)


def test_regression_does_not_care_for_classes(recipe, market):
    """A threshold that the head never reads refuses a run."""
    label = {"horizon": 6, "threshold_bps": 9000}
    checked_span(recipe(label=label, micro={"head": "regression"}), market)


def test_one_class_among_validation_days_is_only_warned_of(recipe, market, caplog):
    """A quiet month refused, though training saw moves."""
    first = SPAN_DAYS[0] - WALK["validate_days"]
    quiet = flat(market.candles["A"], first * 24 - 1, SPAN_DAYS[0] * 24)
    checked_span(recipe(walkforward={**WALK, "retrain_days": 1}), Market({"A": quiet}))
    assert "labels of the validation days 2023-02-20 to 2023-03-12 are 'hold'" in caplog.text


def test_threshold_window_that_never_fills_is_refused_or_warned_of(recipe, market, caplog):
    """A run without one signal; quantiles of fewer scores than were asked for."""
    days = SPAN_DAYS[1] - SPAN_DAYS[0]
    reach = 401 + min(7, days) * 24
    with pytest.raises(TrainingError, match=rf"no signal could ever come.*at most {7 * reach:,}"):
        checked_span(recipe(threshold={"window": 7 * (reach + 1)}), market)
    assert not caplog.records
    checked_span(recipe(threshold={"window": 7 * reach}), market)
    assert f"never fills: a bundle brings 401 scores and meets {7 * 24}" in caplog.text
    caplog.clear()
    checked_span(recipe(threshold={"window": reach}), market)
    checked_span(recipe(threshold={"window": 10**6, "mode": "static"}), market)
    assert not caplog.records


def test_market_that_never_moves_is_refused(recipe, market, hourly):
    """Networks trained on a stablecoin of stuck candles."""
    with pytest.raises(TrainingError, match=r"A never moves in the first training days .*are 7\.5"):
        checked_span(recipe(), Market({"A": flat(market.candles["A"])}))


def test_market_that_stops_moving_where_it_is_traded_is_warned_of(recipe, market, hourly, caplog):
    """A feed that died: a report of a flat account, and no word why."""
    first = SPAN_DAYS[0] * 24
    checked_span(recipe(), Market({"A": flat(market.candles["A"], first)}))
    assert (
        "A never moves in the traded span 2023-03-12 to 2023-03-22: all 240 closes" in caplog.text
    )


@pytest.mark.parametrize("horizon", [20 * 24, 10**9])
def test_horizon_beyond_the_training_days_is_refused_at_once(recipe, market, horizon):
    """A label nobody can know; a horizon of 10**9 candles that is computed for ever."""
    with pytest.raises(TrainingError, match=r"label\.horizon = .* beyond the 480 candles"):
        checked_span(recipe(label={"horizon": horizon}), market)


def test_embargo_longer_than_validation_names_the_days_that_would_do(recipe, market):
    """MacroNet trained for an hour, and then no candle to validate MicroNet on."""
    with pytest.raises(TrainingError) as caught:
        checked_span(recipe(walkforward={**WALK, "validate_days": 12}), market)
    text = str(caught.value)
    assert "walkforward.validate_days = 12 is 288 candles" in text
    enough = int(text.split("to at least ")[1].split(",")[0])
    checked_span(recipe(walkforward={**WALK, "validate_days": enough}), market)
    with pytest.raises(TrainingError, match="none is left to validate on"):
        checked_span(recipe(walkforward={**WALK, "validate_days": enough - 1}), market)


def test_symbol_without_a_candle_in_the_span_is_found_before_training(recipe, market, toy):
    """A delisted symbol found after both networks were trained for every month."""
    both = {**market.candles, "GONE": toy.candles(days=60)}
    with pytest.raises(TrainingError, match=r"GONE has no candle in the traded span 2023-03-12 to"):
        checked_span(recipe(symbols=["A", "GONE"]), Market(both))


def test_symbol_without_a_training_candle_is_warned_of(recipe, market, toy, caplog):
    """A new symbol traded by networks that never saw it, without a word."""
    late = market.candles["A"].between(*(market.candles["A"].open_time[[69 * 24, -1]]))
    checked_span(recipe(symbols=["A", "NEW"]), Market({**market.candles, "NEW": late}))
    assert "NEW has no candle in the first training days" in caplog.text


def test_market_symbol_without_candles_is_refused_and_with_few_warned_of(
    recipe, market, toy, hourly, caplog
):
    """Networks trained for an hour on a market that has no candle where they learn."""
    mine = recipe(features={"market": "M"})
    whole = toy.candles(days=90, seed=3)

    def beside(kept):
        return Market(market.candles, beside={"M": whole[kept]})

    checked_span(mine, beside(np.ones(len(whole), np.bool_)))
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]
    late = whole.open_time >= hourly.day(SPAN_DAYS[0])
    with pytest.raises(TrainingError, match=r"market symbol M .* has 0% .* first training days"):
        checked_span(mine, beside(late))
    some = np.arange(len(whole)) % 3 == 0
    checked_span(mine, beside(some | ~late))
    assert "M (features.market) has 3" in caplog.text
    assert "traded span" in caplog.text


def test_all_problems_are_listed_at_once(recipe, market):
    """One problem mended, an hour later the next."""
    settings = recipe(label={"horizon": 10_000}, threshold={"window": 10**6}, walkforward={**WALK})
    with pytest.raises(TrainingError) as caught:
        checked_span(settings, Market({"A": flat(market.candles["A"])}))
    lines = str(caught.value).splitlines()
    assert lines[0] == "this run could not mean anything, for 4 reasons:"
    for line, word in zip(
        lines[1:], ("never moves", "horizon", "validate_days", "window"), strict=True
    ):
        assert word in line


def test_span_that_cannot_be_keeps_its_own_error_or_joins_the_list(recipe, market, hourly):
    """A timerange beyond the candles hides everything else that is wrong."""
    beyond = {"timerange": hourly.timerange(100, 120)}
    with pytest.raises(CandleError, match=r"candles end at .*before timerange"):
        checked_span(recipe(**beyond), market)
    with pytest.raises(TrainingError, match=r"2 reasons:(.|\n)*horizon(.|\n)*candles end at"):
        checked_span(
            recipe(**beyond, label={"horizon": 481}, walkforward={**WALK, "validate_days": 60}),
            market,
        )


BROKEN = {
    "candles": {"source": "planted", "planted": {"days": 90}},
    "label": {"horizon": 6, "threshold_bps": 9000},
}


@pytest.mark.parametrize(
    "start",
    [
        lambda recipe, out: backtest.run_backtest(recipe, out),
        lambda recipe, out: plan_of(recipe),
        lambda recipe, out: prepare(recipe),
        lambda recipe, out: RecipeRunner(recipe, out).check([Arm("a")]),
    ],
    ids=["run", "check", "evolve", "experiment"],
)
def test_every_kind_of_run_asks_before_it_trains(recipe, tmp_path, start, monkeypatch):
    """A door without the check: hours of training for nothing."""
    monkeypatch.setattr("cppncripto_strategy.models.learning.learner.learn_bundle", None)
    with pytest.raises(TrainingError, match="are 'hold'"):
        start(recipe(**BROKEN), tmp_path / "out")


def test_paper_asks_too_and_needs_no_candle_of_today(recipe, market, hourly, tmp_path):
    """A paper session refused because today is not over; one that learns nothing."""
    check_live(recipe(), market, hourly.day(90))
    broken = recipe(label=BROKEN["label"])
    with pytest.raises(TrainingError, match="are 'hold'"):
        todays_bundle(broken, market, hourly.day(90), tmp_path, None)


def test_an_arm_that_means_nothing_is_named_before_the_first_is_trained(recipe, tmp_path):
    """Three arms trained, and the fourth cannot be."""
    runner = RecipeRunner(recipe(candles=BROKEN["candles"]), tmp_path)
    with pytest.raises(TrainingError, match="arm 'far'"):
        runner.check([Arm("near"), Arm("far", {"label.horizon": 480})])


def test_accelerator_that_is_not_there_is_refused_before_training(recipe, market, monkeypatch):
    """Candles laid out and labelled, and then a traceback of torch."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RecipeError, match="set it to 'auto' or 'cpu'"):
        checked_span(recipe(device="cuda"), market)
    assert checked_span(recipe(device="auto"), market) == traded_span(recipe(), market)
    assert recipe(device="auto").learn_settings().device == "auto"

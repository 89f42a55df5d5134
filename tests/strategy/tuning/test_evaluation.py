"""Steps of a candidate: candles that end before the seal, and no training where none is due."""

import dataclasses

import numpy as np
import pytest

from cppncripto_strategy.errors import CandleError, TrainingError
from cppncripto_strategy.evaluation.proper_scores import log_loss
from cppncripto_strategy.feeds.clock import DAY_MS, Span
from cppncripto_strategy.market import load_market
from cppncripto_strategy.models.learning import retraining
from cppncripto_strategy.recipe_search import SearchRecipe
from cppncripto_strategy.tuning.evaluation import Ground, evaluate
from cppncripto_strategy.tuning.plan import cut, make_plan
from cppncripto_strategy.tuning.space import read_space


@pytest.fixture(scope="module")
def plan(tiny, tmp_path_factory):
    recipe = tiny.recipe()
    return make_plan(recipe, read_space(recipe.space), tmp_path_factory.mktemp("bundles"))


@pytest.fixture(scope="module")
def ground(plan):
    return Ground(plan, plan.inner_market())


def test_windows_and_seal_are_whole_days_one_after_another():
    """A day in two windows, or a window that reaches into the sealed days."""
    start = 20_000 * DAY_MS
    span = Span(start, start + 47 * DAY_MS + 5 * 3_600_000)
    windows, sealed = cut(span, SearchRecipe(windows=4, sealed_days=9))
    assert [(w.end_ms - w.start_ms) // DAY_MS for w in windows] == [9] * 4
    ends = [w.end_ms for w in windows]
    assert [w.start_ms for w in windows[1:]] == ends[:-1]
    assert sealed == Span(ends[-1], ends[-1] + 9 * DAY_MS)
    assert sealed.end_ms <= span.end_ms
    with pytest.raises(TrainingError, match="47 days: 40 sealed ones leave 7 for 4 windows"):
        cut(span, SearchRecipe(windows=4, sealed_days=40))


def test_candidates_get_no_candle_of_the_sealed_days(plan, tiny):
    """The hold-out seen through a label, or through the fill of a last order."""
    market = plan.inner_market()
    whole = load_market(tiny.recipe())
    for symbol, candles in market.candles.items():
        closes = candles.open_time + 3_600_000
        assert closes.max() == plan.sealed.start_ms
        assert whole.candles[symbol].open_time[-1] > plan.sealed.start_ms
    opened = plan.whole_market()
    assert opened.candles["PLANTED"].open_time[-1] + 3_600_000 == plan.sealed.end_ms


def test_worker_with_other_candles_ends_the_search(plan):
    """Candidates judged on two markets and compared, because a machine had other candles."""
    other = dataclasses.replace(plan, candles_sha256=64 * "0")
    with pytest.raises(CandleError, match="others than those that the search was planned on"):
        evaluate(other, {}, 0, 0)


def test_a_step_is_reproducible_and_strategy_keys_train_nothing(plan, ground, monkeypatch):
    """A search over thresholds that trains both networks for each candidate."""
    first = ground.step({}, 1, 0)
    assert first.train_s > 0
    monkeypatch.setattr(retraining, "learn_bundle", _refuse)
    again = ground.step({"threshold.quantile": 0.1, "strategy.hold_candles": 5}, 1, 0)
    assert (again.loss, again.networks) == (first.loss, first.networks)
    assert again.daily != first.daily
    fresh = Ground(plan, plan.inner_market())  # another process: bundles come from the disk
    repeated = fresh.step({}, 1, 0)
    assert repeated.to_plain() | {"train_s": 0, "trade_s": 0} == first.to_plain() | {
        "train_s": 0,
        "trade_s": 0,
    }


def _refuse(*_, **__):
    raise AssertionError("a network was trained")


def test_what_is_kept_of_a_step_does_not_move_the_next(plan, ground):
    """Scores or a loss of another window, seed or label, taken from memory."""
    changes = {"threshold.quantile": 0.08, "strategy.hold_candles": 4}
    for window, seed in ((1, 0), (0, 0)):
        ground.step({}, window, seed)  # leaves its scores
        fresh = Ground(plan, plan.inner_market()).step(changes, window, seed).to_plain()
        kept = ground.step(changes, window, seed).to_plain()
        for seconds in ("train_s", "trade_s"):
            fresh.pop(seconds), kept.pop(seconds)
        assert kept == fresh


def test_the_loss_is_that_of_labels_and_probabilities(plan, ground):
    """Labels one candle beside the probabilities: every loss near the constant's."""
    from cppncripto_strategy.models.inputs.grid import CandleGrid
    from cppncripto_strategy.replay import replay

    step = ground.step({}, 1, 0)
    span = plan.windows[1]
    recipe = plan.traded({}, span)
    settings = recipe.learn_settings()
    timeline = ground._networks(recipe, settings, span)
    signals = replay(recipe, ground.market.every, timeline, span).tables(span)["signals"]
    grid = CandleGrid.from_candles(ground.market.candles["PLANTED"], recipe.interval_ms)
    labels = settings.label.compute(grid)
    by_close = dict(zip(grid.close_time.tolist(), range(len(grid)), strict=True))
    losses = []
    for row in signals.itertuples():
        at = by_close[row.close_time_ms]
        if labels.valid[at] and not np.isnan(row.p_buy):
            losses.append(log_loss([row.p_buy], [row.p_sell], [labels.target[at]])[0])
    assert step.candles == len(losses) > 100
    assert step.loss == pytest.approx(sum(losses))


def test_an_impossible_candidate_says_why(plan):
    """A traceback from another machine, and the end of a night's search."""
    refused = evaluate(plan, {"micro.short_window": 3}, 0, 0)["refused"]
    assert "short_window" in refused

"""Twenty random recipes on candles with gaps: two engines, one account."""

from __future__ import annotations

import dataclasses
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from cppncripto_strategy.crosscheck.record import AccountCheck, check_account
from cppncripto_strategy.crosscheck.run import record_of, rule_books
from cppncripto_strategy.feeds.clock import Span
from cppncripto_strategy.replay import replay

SEEDS = range(20)
STEPS = ("0.00001", "0.001", "0.03", "0.7", "1")


def random_changes(rng: np.random.Generator) -> dict[str, Any]:
    """Tables of a recipe: rules, costs, exchange's steps, each drawn."""
    hold, short = int(rng.choice([0, 2, 5, 12])), bool(rng.random() < 0.25)
    step, waits = str(rng.choice(STEPS)), bool(rng.random() < 0.3)
    rules = {"quantity_step": step, "min_quantity": step}
    rules["min_notional"] = str(rng.choice(["5", "90", "700"]))
    if rng.random() < 0.3:
        rules["max_quantity"] = str(float(step) * int(rng.integers(20, 60)))
    strategy = {
        "fraction": float(rng.choice([0.3, 0.6, 0.95, 1.0])),
        "hold_candles": hold,
        "renew_hold": bool(rng.random() < 0.4),
        "min_hold": int(rng.integers(0, hold + 1)),
        "cooldown_candles": int(rng.choice([0, 0, 1, 7])),
        "stop_pct": float(rng.choice([0.0, 0.3, 1.5])),
        "max_daily_loss_pct": float(rng.choice([0.0, 0.5, 2.0])),
        "evidence": "wait" if waits else "trade",
        "allow_short": short,
    }
    return {
        "strategy": strategy,
        "threshold": {"window": 60, "quantile": float(rng.choice([0.05, 0.2, 0.4]))},
        # Networks of random numbers: any day that went well counts as evidence, so that some open.
        "evidence": {"alpha": 0.99, "horizon": 3, "per": str(rng.choice(["account", "symbol"]))},
        "broker": {
            "cash": float(rng.choice([900.0, 10_000.0, 250_000.0])),
            "fee_bps": 0.0 if waits else float(rng.choice([0.0, 7.5, 10.0])),
            "slippage_bps": 0.0 if waits else float(rng.choice([0.0, 1.0, 13.0])),
            "fill_without_trades": bool(rng.random() < 0.3),
            "filters": {name: dict(rules) for name in ("A", "B")},
        },
    }


def check(recipe: Any, candles: Any, passed: Any, span: Span) -> AccountCheck:
    """The account of a pass by the second engine."""
    rules = rule_books(passed.filters)
    return check_account(record_of(recipe, candles, rules, "account", passed.tables(span)))


@pytest.mark.parametrize("seed", SEEDS)
def test_two_engines_make_one_account(hourly: Any, traded: Any, seed: int) -> None:
    """A fill, a fee or a rule that one of two independent writings has wrong."""
    rng = np.random.default_rng(seed)
    _, candles, timeline = traded
    # Nobody traded in some candles.
    quiet = {
        name: dataclasses.replace(
            series, volume=np.where(rng.random(len(series.open_time)) < 0.03, 0.0, series.volume)
        )
        for name, series in candles.items()
    }
    recipe = hourly.recipe(symbols=["A", "B"], **random_changes(rng))
    span = Span(timeline.first_session_ms, hourly.day(34))
    passed = replay(recipe, quiet, timeline, span)
    found = check(recipe, quiet, passed, span)
    assert [str(difference) for difference in found.differences] == []
    assert found.compared["orders"] == len(passed.strategy.fills)


def test_short_that_cannot_be_covered_is_one_thing_to_both(hourly: Any, traded: Any) -> None:
    """A cover for which one engine lends cash and the other does not; a debt that nobody sees."""
    _, candles, timeline = traded
    recipe = hourly.recipe(
        symbols=["A", "B"],
        strategy={"hold_candles": 5, "fraction": 0.9, "allow_short": True},
        broker={"cash": 10_000.0},
    )
    span = Span(timeline.first_session_ms, hourly.day(34))
    fills = replay(recipe, candles, timeline, span).strategy.fills
    first = fills[(fills["status"] == "filled") & (fills["side"] == "sell")].iloc[0]
    # Nothing before this moment changes, so that short is open when its price is ten times higher.
    risen = {name: tenfold(series, int(first["executed_ms"])) for name, series in candles.items()}
    passed = replay(recipe, risen, timeline, span)
    after = passed.strategy.fills
    assert (after["reason"] == "insufficient_cash").any()
    assert after["detail"].str.endswith(": cash").any()
    assert passed.strategy.equity["cash"].min() > -1e-9
    assert passed.strategy.equity["equity"].min() < 0
    assert [str(d) for d in check(recipe, risen, passed, span).differences] == []


def tenfold(candles: Any, from_ms: int) -> Any:
    """The same candles, ten times as dear from one moment on."""
    factor = np.where(candles.open_time >= from_ms, 10.0, 1.0)
    names = ("open", "high", "low", "close")
    return candles.replace(**{name: getattr(candles, name) * factor for name in names})


def test_position_too_small_to_sell_is_one_thing_to_both(hourly: Any, traded: Any) -> None:
    """A position under the minimum notional that one engine sells, or never adds to."""
    _, candles, timeline = traded
    rules = {"quantity_step": "0.001", "min_quantity": "0.001", "min_notional": "700"}
    recipe = hourly.recipe(
        symbols=["A", "B"],
        strategy={"hold_candles": 2, "fraction": 0.3},
        broker={"cash": 2_338.0, "filters": dict.fromkeys(("A", "B"), rules)},
    )
    span = Span(timeline.first_session_ms, hourly.day(34))
    passed = replay(recipe, candles, timeline, span)
    fills = passed.strategy.fills
    filled = fills[fills["status"] == "filled"]
    sides = [group["side"].tolist() for _, group in filled.groupby("symbol")]
    assert any(pair == ("buy", "buy") for row in sides for pair in pairwise(row))
    assert [str(d) for d in check(recipe, candles, passed, span).differences] == []

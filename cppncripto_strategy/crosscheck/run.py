"""The accounts of a run's folder: what each has on record, and what it could know.

The account that traded is read from the folder. Of the one without the embedding only the equity is
kept, so its networks, which are kept, trade again to give its scores, orders and round trips; so do
those of an account whose sizes follow a forecast, to give the forecast. The account under the other
rule about evidence has the first one's signals. Candles come from where the recipe reads them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cppncripto_strategy.arrays import FloatArray, IntArray
from cppncripto_strategy.crosscheck.differences import Difference
from cppncripto_strategy.crosscheck.moments import lost_candles, moments_of
from cppncripto_strategy.crosscheck.portfolio import require_installed
from cppncripto_strategy.crosscheck.record import (
    AccountCheck,
    AccountRecord,
    check_account,
    with_evidence,
    with_signs,
)
from cppncripto_strategy.crosscheck.terms import RuleBook, Rules, Terms
from cppncripto_strategy.errors import SessionError
from cppncripto_strategy.evaluation.account import Account, account_metrics
from cppncripto_strategy.feeds.candles import Candles
from cppncripto_strategy.feeds.clock import Span, nums_to_ms
from cppncripto_strategy.feeds.filters import KnownFilters
from cppncripto_strategy.lines import named_line, past_values
from cppncripto_strategy.market import Market, load_market, traded_span
from cppncripto_strategy.models.bundle import BundleTimeline, arm_folder
from cppncripto_strategy.progress import Progress
from cppncripto_strategy.recipe import Recipe, parse_recipe
from cppncripto_strategy.replay import Replay, replay
from cppncripto_strategy.results import RunResult, read_results
from cppncripto_strategy.symbol_rules import account_filters

Forecast = Mapping[str, tuple[IntArray, FloatArray]]
"""Symbol -> (closing times, UTC ms; forecast volatility of the day, NaN for none)."""


def check_run(folder: Path, progress: Progress = lambda *_: None) -> list[AccountCheck]:
    """Cross-check every account of a finished run.

    Parameters
    ----------
    progress : hears (done, total, text).

    Raises
    ------
    SessionError
        When the folder holds no finished run.
    RecipeError
        When vectorbt is not installed.
    CppnError
        When candles or networks of the run cannot be read.
    """
    require_installed()
    result = read_results(folder)
    checks = []
    for done, record in enumerate(records_of(result, folder)):
        progress(done, 3, record.name)
        checks.append(check_account(record))
    progress(1, 1, "done")
    return checks


def records_of(result: RunResult, folder: Path) -> Iterator[AccountRecord]:
    """The accounts of a run: the one that traded, without macro, under the other rule."""
    recipe = parse_recipe(result.recipe, str(folder / "recipe.toml"))
    market = load_market(recipe)
    span = traded_span(recipe, market)
    rules = _rules(recipe, market, span, result)
    main = "with macro" if result.uses_macro else "without macro"
    tables = {name: getattr(result, name) for name in ("signals", "fills", "trades", "equity")}
    forecast = None
    if recipe.strategy.sizing == "volatility":
        again = _again(recipe, market, span, folder, result.uses_macro)
        forecast = forecast_of(again)
    first = record_of(recipe, market.candles, rules, main, tables, forecast)
    yield replace(first, metrics=result.metrics["strategy"])
    if result.equity_without_macro is not None:
        bare = _again(recipe, market, span, folder, use_macro=False)
        found = record_of(
            recipe, market.candles, rules, "without macro", bare.tables(span), forecast_of(bare)
        )
        yield replace(found, equity=result.equity_without_macro)
    other = recipe.other_rule()
    if result.equity_other_rule is not None and other is not None:
        name = "waiting for evidence" if other.strategy.evidence == "wait" else "without waiting"
        beside = {"signals": result.signals, "equity": result.equity_other_rule}
        found = record_of(other, market.candles, rules, name, beside, forecast)
        reported = (result.metrics.get("evidence") or {}).get("other_rule") or {}
        yield replace(found, metrics=reported)


def _again(recipe: Recipe, market: Market, span: Span, folder: Path, use_macro: bool) -> Replay:
    """One of the run's accounts traded again by its own networks."""
    networks = folder / "bundles" / arm_folder(use_macro)
    if not networks.is_dir():
        raise SessionError(
            f"{networks} is not there: the account {'with' if use_macro else 'without'} the"
            " embedding cannot be checked without its networks. Run the recipe again"
        )
    return replay(recipe, market.every, BundleTimeline.load(networks), span)


def _rules(recipe: Recipe, market: Market, span: Span, result: RunResult) -> dict[str, RuleBook]:
    """Each symbol's rules: those on record, whatever the exchange has stated since."""
    today = account_filters(recipe, market.candles, span.start_ms)
    recorded = {str(row["symbol"]): row for row in result.filters}
    books = rule_books(today)
    for symbol, row in recorded.items():
        known = today.get(symbol)
        stated = None if known is None else known.to_plain()
        if stated is None or any(stated[name] != row.get(name) for name in _LIMITS):
            books[symbol] = RuleBook([(0, Rules.of_record(row))])
    return books


_LIMITS = ("quantity_step", "min_quantity", "max_quantity", "min_notional")


def rule_books(filters: Mapping[str, KnownFilters]) -> dict[str, RuleBook]:
    """Rules that do not change, by symbol."""
    return {symbol: RuleBook([(0, Rules.of(known.filters))]) for symbol, known in filters.items()}


def record_of(
    recipe: Recipe,
    candles: Mapping[str, Candles],
    rules: Mapping[str, RuleBook],
    name: str,
    tables: Mapping[str, pd.DataFrame],
    forecast: Forecast | None = None,
) -> AccountRecord:
    """A backtest's account from its tables.

    Parameters
    ----------
    candles : of the traded symbols, in their order.
    tables : signals, equity and, where they are on record, fills and trades.
    forecast : where sizes follow one.
    """
    terms = Terms.of(recipe)
    signals = with_signs(tables["signals"])
    symbols = [symbol for symbol in candles if symbol in recipe.symbols]
    rounds = np.unique(signals["close_time_ms"].to_numpy(np.int64))
    moments = moments_of(symbols, rounds.tolist(), signals, candles, terms.interval_ms)
    if recipe.strategy.evidence == "wait":
        moments = with_evidence(moments, signals, terms, recipe.evidence_settings())
    if forecast is not None:
        moments = replace(moments, volatility=_forecast_at(symbols, rounds, forecast))
    lost = lost_candles(signals, candles, terms.interval_ms)
    fills, trades = tables.get("fills"), tables.get("trades")
    metrics: dict[str, Any] = {}
    if fills is not None:
        metrics = asdict(account_metrics(Account(tables["equity"], fills, trades)))
    return AccountRecord(
        name,
        moments,
        terms,
        rules,
        signals,
        tables["equity"],
        metrics,
        fills,
        trades,
        known=tuple(Difference(at_ms, f"{s} candle", what, "") for at_ms, s, what in lost),
    )


def forecast_of(passed: Replay) -> Forecast:
    """The forecast volatility that each symbol's networks had at each candle."""
    found = {}
    for state in passed.strategy.states:
        line = named_line(getattr(state.score, "macro", None), "volatility")
        if line is not None:
            stamps = nums_to_ms(past_values(state.data.lines.datetime, state.bars))
            found[state.data._name] = (stamps, past_values(line, state.bars))
    return found


def _forecast_at(symbols: list[str], rounds: IntArray, forecast: Forecast) -> FloatArray:
    """(M, S) forecasts at the moments; NaN where there is no candle or no forecast."""
    values = np.full((len(rounds), len(symbols)), np.nan)
    for place, symbol in enumerate(symbols):
        if symbol in forecast:
            stamps, volatility = forecast[symbol]
            values[:, place] = pd.Series(volatility, index=stamps).reindex(rounds).to_numpy()
    return values

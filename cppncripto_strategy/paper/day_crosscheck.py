"""A session's account rebuilt by the second engine, whole or cut into its days.

What a session knows is in its folder: candles in the order in which they were shown, which of them
came too late to trade on, the exchange's rules as they changed, scores and thresholds. Everything
the account did is derived again from its first live candle on. Left out: the comparison itself
(`crosscheck`), and sessions it cannot follow: sizes by a forecast, which no journal keeps, and
entries that wait for evidence where candles came after newer ones.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cppncripto_strategy.crosscheck.moments import Moments
from cppncripto_strategy.crosscheck.portfolio import EXTRA, installed
from cppncripto_strategy.crosscheck.record import (
    AccountCheck,
    AccountRecord,
    check_account,
    with_evidence,
    with_signs,
)
from cppncripto_strategy.crosscheck.terms import RuleBook, Rules, Terms
from cppncripto_strategy.errors import CppnError, NothingLiveError, SessionError
from cppncripto_strategy.feeds.candles import COLUMNS
from cppncripto_strategy.feeds.clock import DAY_MS
from cppncripto_strategy.feeds.live.rounds import Round
from cppncripto_strategy.foreign import read_object, reading
from cppncripto_strategy.paper.create import options_of
from cppncripto_strategy.paper.recording import Recording
from cppncripto_strategy.paper.rule_changes import session_filters

log = logging.getLogger(__name__)

_OPEN, _CLOSE, _VOLUME = (COLUMNS.index(name) for name in ("open", "close", "volume"))
_OWN = (
    *("sizing", "target_volatility", "hold_candles", "renew_hold", "min_hold"),
    *("cooldown_candles", "stop_pct", "max_daily_loss_pct", "allow_short"),
)


def check_session(path: Path, options: Mapping[str, Any] | None = None) -> AccountCheck:
    """Rebuild a session's account from its first live candle to its last.

    Parameters
    ----------
    path : the session's folder; it may be running.
    options : of its strategy; None reads them from the folder.

    Raises
    ------
    NothingLiveError
        When nothing was live yet.
    SessionError
        When the rebuild could not know what the session knew.
    RecipeError
        When vectorbt is not installed.
    """
    strategy = options_of(path) if options is None else options
    return check_account(record_of_session(Recording.read(path), strategy))


def record_of_session(recording: Recording, options: Mapping[str, Any]) -> AccountRecord:
    """A session's account, with what it knew; raises as `check_session`."""
    if options["sizing"] == "volatility":
        raise SessionError("sizes followed a forecast, which a session's journals do not keep")
    waits = options["evidence"] == "wait"
    if waits and recording.late():
        raise SessionError("entries waited for evidence, and candles came after newer ones")
    facts = recording.facts
    untraded = options.get("untraded", ())
    symbols = tuple(symbol for symbol in facts.symbols if symbol not in untraded)
    terms = _terms(facts.interval_ms, len(symbols), facts.broker, options)
    signals = with_signs(recording.decisions(), options.get("traded_line", "score"))
    moments = _moments(recording, symbols, signals)
    if waits:
        moments = with_evidence(moments, signals, terms, options["evidence_settings"])
    tables = recording.tables()
    live_ms = recording.live_from_ms or 0
    return AccountRecord(
        "session",
        moments,
        terms,
        _rules(recording, symbols),
        signals[signals["close_time_ms"] >= live_ms],
        tables["equity"],
        {},
        tables["fills"],
        tables["trades"],
    )


def _terms(
    interval_ms: int, symbols: int, broker: Mapping[str, Any], options: Mapping[str, Any]
) -> Terms:
    return Terms(
        interval_ms=interval_ms,
        cash=broker["cash"],
        fee_bps=broker["fee_bps"],
        slippage_bps=broker["slippage_bps"],
        fill_without_trades=bool(broker.get("fill_without_trades", False)),
        share=options["fraction"] or 1.0 / symbols,
        **{name: options[name] for name in _OWN},
    )


def _rules(recording: Recording, symbols: tuple[str, ...]) -> dict[str, RuleBook]:
    """Each symbol's rules of the session's start, then its changes."""
    first = session_filters(recording.facts.filters)
    books = {symbol: [(0, Rules.of(first[symbol]) if symbol in first else Rules())]
             for symbol in symbols}  # fmt: skip
    for change in recording.rule_changes:
        for symbol, filters in session_filters([change.entry]).items():
            if symbol in books:
                books[symbol].append((change.close_ms, Rules.of(filters)))
    return {symbol: RuleBook(changes) for symbol, changes in books.items()}


def _moments(recording: Recording, symbols: tuple[str, ...], signals: pd.DataFrame) -> Moments:
    """The rounds since the session went live, in the order shown."""
    live_ms = recording.live_from_ms
    rounds = [] if live_ms is None else [p for p in recording.past if p[0].close_ms >= live_ms]
    if len(rounds) < 2:
        raise NothingLiveError("fewer than two live candles so far: nothing to cross-check")
    keys = zip(signals["symbol"], signals["close_time_ms"].tolist(), strict=True)
    sign = dict(zip(keys, signals["sign"].tolist(), strict=True))
    shape = (len(rounds), len(symbols))
    new = np.array([[s in moment.candles for s in symbols] for moment, _ in rounds])
    traded = np.array([[s in allowed for s in symbols] for _, allowed in rounds])
    signs = [[sign.get((s, moment.close_ms), 0) for s in symbols] for moment, _ in rounds]
    return Moments(
        symbols,
        np.array([moment.close_ms for moment, _ in rounds], dtype=np.int64),
        new,
        open=_column(rounds, symbols, _OPEN),
        close=_column(rounds, symbols, _CLOSE),
        volume=_column(rounds, symbols, _VOLUME),
        signal=np.array(signs, dtype=np.int64),
        may_trade=traded,
        may_enter=np.ones(shape, dtype=np.bool_),
        volatility=np.full(shape, np.nan),
    )


def _column(
    rounds: list[tuple[Round, frozenset[str]]], symbols: tuple[str, ...], place: int
) -> Any:
    """(M, S) one column of every round's candles; NaN where a symbol has none."""
    return np.array(
        [
            [m.candles[s][place] if s in m.candles else np.nan for s in symbols]
            for m, _ in rounds
        ],
        dtype=np.float64,
    )  # fmt: skip


class DayChecks:
    """Cuts one session's cross-check into days; it is made when the first day asks.

    Parameters
    ----------
    recording : the session's, as its day reports read it.
    options : gives the options of the session's strategy; asked once.
    """

    def __init__(self, recording: Recording, options: Callable[[], Mapping[str, Any]]) -> None:
        self._recording, self._options = recording, options
        self._made: AccountCheck | None = None
        self._why = "" if installed() else f"vectorbt is not installed: {EXTRA}"

    def of_day(self, day_ms: int) -> dict[str, Any]:
        """The part of the day that begins then (00:00 UTC), plain; why, where there is none."""
        if self._made is None and not self._why:
            self._make()
        if self._made is None:
            return {"checked": False, "why": self._why}
        return {"checked": True, **_of_day(self._made, day_ms)}

    def _make(self) -> None:
        try:
            self._made = check_account(record_of_session(self._recording, self._options()))
        except CppnError as reason:
            self._why = str(reason)
        except Exception as cause:  # a second engine's own fault costs no day its report
            log.warning("the cross-check failed", exc_info=True)
            self._why = f"{type(cause).__name__}: {cause}"


def _of_day(check: AccountCheck, day_ms: int) -> dict[str, Any]:
    inside = (check.moments.close_ms >= day_ms) & (check.moments.close_ms < day_ms + DAY_MS)
    orders = check.orders[check.orders["executed_ms"].between(day_ms, day_ms + DAY_MS - 1)]
    apart = [d for d in check.differences if day_ms <= d.at_ms < day_ms + DAY_MS]
    equity = check.executed.equity[inside]
    filled = orders[orders["status"] == "filled"]
    return {
        "same": not apart,
        "orders": len(orders),
        "filled": len(filled),
        "fees": float(filled["fee"].sum()),
        "equity": float(equity[-1]) if len(equity) else None,
        "differences": len(apart),
        "first_difference": str(apart[0]) if apart else None,
    }


def kept_checks(path: Path) -> Iterator[dict[str, Any]]:
    """The cross-check of every day that a session has reported, oldest first, with its `day`.

    Raises
    ------
    SessionError
        When a report is damaged.
    """
    for file in sorted((path / "days").glob("*.json")):
        with reading(file, "report of a day", SessionError):
            found = read_object(file).get("crosscheck")
        if found is not None:
            yield {"day": file.stem, **found}

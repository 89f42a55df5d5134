"""One account: from what it has on record to what the second engine says of it.

Left out: where the record comes from (`run`, and `paper.day_crosscheck` for a session).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from cppncripto_strategy.arrays import BoolArray
from cppncripto_strategy.crosscheck.differences import (
    Difference,
    equity_differences,
    money_tolerance,
    order_differences,
    rebuilt_table,
    signal_differences,
    trade_differences,
)
from cppncripto_strategy.crosscheck.moments import Moments, signals_from
from cppncripto_strategy.crosscheck.portfolio import Executed, execute
from cppncripto_strategy.crosscheck.rebuild import Rebuild
from cppncripto_strategy.crosscheck.terms import RuleBook, Terms
from cppncripto_strategy.evaluation.evidence import EvidenceSettings, weigh
from cppncripto_strategy.evaluation.shadow import Measure, daily_results
from cppncripto_strategy.feeds.clock import DAY_MS

_COMPARED = ("final_equity", "fees_paid", "max_drawdown")


@dataclass(frozen=True, slots=True, eq=False)
class AccountRecord:
    """What an account has on record, and what it could know.

    Parameters
    ----------
    name : "with macro", "without macro", ...
    signals : table as in `results`, with `sign` (see `with_signs`).
    equity : table with close_time_ms and equity.
    metrics : final_equity, fees_paid, max_drawdown, trades, orders_filled as reported; a missing
        one is not compared.
    fills, trades : tables as in `results`; None where only the equity is on record.
    known : differences found while the record was gathered, such as candles that have changed.
    """

    name: str
    moments: Moments
    terms: Terms
    rules: Mapping[str, RuleBook]
    signals: pd.DataFrame
    equity: pd.DataFrame
    metrics: Mapping[str, Any]
    fills: pd.DataFrame | None = None
    trades: pd.DataFrame | None = None
    known: tuple[Difference, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class AccountCheck:
    """One account cross-checked.

    Parameters
    ----------
    sides : what is compared -> (as reported, by vectorbt).
    compared : how many records of each kind were compared.
    differences : all of them, in order of time.
    orders : the rebuilt orders in the form of the `fills` table.
    """

    name: str
    sides: dict[str, tuple[float | None, float]]
    compared: dict[str, int]
    differences: list[Difference]
    executed: Executed
    orders: pd.DataFrame
    moments: Moments = field(repr=False)

    @property
    def same(self) -> bool:
        """True when nothing differs."""
        return not self.differences

    @property
    def first(self) -> Difference | None:
        """The earliest difference."""
        return self.differences[0] if self.differences else None

    def to_plain(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "account": self.name,
            "same": self.same,
            "compared": self.compared,
            "sides": {what: list(values) for what, values in self.sides.items()},
            "differences": len(self.differences),
            "first_difference": None if self.first is None else str(self.first),
        }


def with_signs(signals: pd.DataFrame, traded: str = "score") -> pd.DataFrame:
    """The table with `sign`: each score compared with its thresholds here."""
    lines = (signals[name].to_numpy(np.float64) for name in (traded, "upper", "lower"))
    return signals.assign(sign=signals_from(*lines))


def check_account(record: AccountRecord) -> AccountCheck:
    """Rebuild an account and compare it with its record.

    Raises
    ------
    RecipeError
        When vectorbt is not installed.
    """
    moments, terms = record.moments, record.terms
    orders = Rebuild(moments, terms, record.rules).run()
    executed = execute(moments, terms, orders)
    table = rebuilt_table(moments, orders, executed)
    sides = _sides(record, executed)
    differences = [*record.known, *_differences(record, executed, table), *_apart(record, sides)]
    differences.sort(key=lambda difference: difference.at_ms)
    compared = {
        "signals": len(record.signals),
        "orders": len(table) if record.fills is not None else 0,
        "round trips": len(executed.trades) if record.trades is not None else 0,
        "moments of equity": len(record.equity),
    }
    return AccountCheck(record.name, sides, compared, differences, executed, table, moments)


def _differences(
    record: AccountRecord, executed: Executed, table: pd.DataFrame
) -> Iterator[Difference]:
    terms = record.terms
    tolerance = money_tolerance(terms)
    yield from signal_differences(record.signals)
    if record.fills is not None:
        yield from order_differences(record.fills, table, terms.interval_ms)
    if record.trades is not None:
        yield from trade_differences(record.trades, executed.trades, tolerance)
    yield from equity_differences(record.equity, record.moments, executed.equity, tolerance)


def _sides(record: AccountRecord, executed: Executed) -> dict[str, tuple[float | None, float]]:
    """What a reader compares first, as reported and by vectorbt."""
    theirs = {
        "final_equity": float(executed.equity[-1]) if len(executed.equity) else record.terms.cash,
        "fees_paid": executed.fees,
        "max_drawdown": executed.max_drawdown if len(executed.equity) else 0.0,
        "trades": float(len(executed.trades)),
        "orders_filled": float(len(executed.fills)),
    }
    return {name: (record.metrics.get(name), value) for name, value in theirs.items()}


def _apart(
    record: AccountRecord, sides: Mapping[str, tuple[float | None, float]]
) -> Iterator[Difference]:
    """Where a reported number is not vectorbt's; dated at the end, where it is known."""
    end_ms = int(record.moments.close_ms[-1]) if len(record.moments.close_ms) else 0
    money = money_tolerance(record.terms)
    limits = {"max_drawdown": money / record.terms.cash, "trades": 0.0, "orders_filled": 0.0}
    for name, (ours, theirs) in sides.items():
        if ours is not None and not abs(ours - theirs) <= limits.get(name, money):
            yield Difference(end_ms, f"reported {name.replace('_', ' ')}", ours, theirs)


def with_evidence(
    moments: Moments, signals: pd.DataFrame, terms: Terms, settings: EvidenceSettings
) -> Moments:
    """The moments at which entries need not wait: evidence of all days before, weighed at once.

    Parameters
    ----------
    signals : table with symbol, close_time_ms, close and `sign`, from the first day that counts.
    """
    sells = settings.sides == "both" or terms.allow_short
    measure = Measure(settings.horizon, terms.interval_ms, terms.round_trip_bps, sells)
    judged = signals.assign(signal=signals["sign"])
    alone = settings.per == "symbol"
    groups = [(symbol,) for symbol in moments.symbols] if alone else [moments.symbols]
    opened = np.zeros(moments.new.shape, dtype=np.bool_)
    for group in groups:
        days = daily_results(judged, dict.fromkeys(group, measure))
        weighed = [(day_ms, day.mean_bps) for day_ms, day in days.items() if day.net_bps]
        x = np.array([settings.clipped(mean) for _, mean in weighed])
        path = weigh(x, settings, settings.needed(len(groups)))
        columns = [moments.symbols.index(symbol) for symbol in group]
        ended = np.array([day_ms for day_ms, _ in weighed], dtype=np.int64)
        opened[:, columns] = _open_at(moments, ended, path.open)[:, None]
    return replace(moments, may_enter=opened)


def _open_at(moments: Moments, days_ms: Any, opened: BoolArray) -> BoolArray:
    """(M,) whether the evidence is open: as it was after the latest day before the moment's."""
    today = np.maximum.accumulate(moments.close_ms) // DAY_MS * DAY_MS
    before = np.searchsorted(days_ms, today, side="left")
    return np.concatenate([[False], opened])[before]

"""Parity: a recorded paper session, replayed, must decide and trade the same.

Two replays. *Recorded order*: the rounds as they were shown, candle by candle; every decision,
embedding, fill and equity value must be equal to the last bit. *Backtest*: the same candles through
`ReplayFeed` and the indicators' batch path, as a backtest runs; orders and fills must be the same,
scores and equity equal within the arithmetic of batches. Both know what the session knew: which
candles it was too late to trade on.

Where a symbol's candles came after newer ones of others, a backtest has no such order of time. Its
scores, thresholds and signals do not depend on that order and are compared all the same; orders,
fills and equity are those of the backtest's scores shown in the session's order. What has no
counterpart is counted by name (`ParityReport.apart`). So are candles that differ from what the
exchange says now: restated ones, and gaps that were withdrawn.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import backtrader as bt
import numpy as np
import pandas as pd

from cppncripto_strategy.feeds.clock import ms_to_utc
from cppncripto_strategy.feeds.live.rounds import RecordedRounds
from cppncripto_strategy.feeds.replay import ReplayFeed, bar_close_ms
from cppncripto_strategy.paper.recorder import PaperStrategy, Recorder
from cppncripto_strategy.paper.recording import Recording
from cppncripto_strategy.paper.session import DERIVED, Collected, Record
from cppncripto_strategy.paper.trader import paper_cerebro, session_broker
from cppncripto_strategy.strategy import MacroMicroStrategy

# Batches sum in another order than single candles: float32 networks, scores in [-1, 1].
SCORE_TOLERANCE = 1e-4
MONEY_TOLERANCE = 0.005
_NUMBERS = ("score", "p_buy", "p_sell", "score_zero", "upper", "lower", "drift")
LOOKED_UP = ("score", "p_buy", "p_sell", "score_zero", "upper", "lower")
_ORDER_FIELDS = ("symbol", "created_ms", "executed_ms", "side", "status", "reason")


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not the same: where, what was recorded, what the replay gives."""

    replay: str
    table: str
    row: int
    field: str
    recorded: Any
    replayed: Any

    def __str__(self) -> str:
        return (
            f"{self.replay}: {self.table} {self.row}, {self.field}: recorded {self.recorded!r},"
            f" replayed {self.replayed!r}"
        )


@dataclass(frozen=True, slots=True)
class ParityReport:
    """What was compared and what differs.

    Parameters
    ----------
    compared : records compared, by replay and table.
    differences : all of them, in order.
    worst_score : largest difference of a score between batch and stream.
    notes : what could not be compared, and why; and what differs from the exchange of today.
    apart : how many of what had no counterpart in a backtest, by name.
    """

    compared: dict[str, int]
    differences: list[Difference]
    worst_score: float
    notes: list[str] = field(default_factory=list)
    apart: dict[str, int] = field(default_factory=dict)

    @property
    def same(self) -> bool:
        """True when nothing differs."""
        return not self.differences


def compare(session: Path, strategy: Mapping[str, Any]) -> ParityReport:
    """Replay a session both ways.

    Parameters
    ----------
    session : its folder.
    strategy : the options it ran with (score_factory, window, ...).

    Raises
    ------
    SessionError
        When the folder is no session or its journals are damaged.
    """
    recording = Recording.read(session)
    report = _joined(_recorded_order(recording, strategy), _backtest(recording, strategy))
    report.notes.extend(_not_as_today(recording))
    return report


def _not_as_today(recording: Recording) -> Iterator[str]:
    """Where a later fetch has other candles than the session, in sentences."""
    for gap in recording.withdrawn():
        yield (
            f"{gap['symbol']}: the candle of {ms_to_utc(gap['open_ms'])} was a gap and appeared"
            f" later; {gap['decided_without']} decisions were made without it until then, and the"
            " strategy never saw it"
        )
    for event in recording.events:
        if event["kind"] == "restated":
            yield (
                f"{event['symbol']}: the exchange restated the candle of"
                f" {ms_to_utc(event['open_ms'])} (close {event['first'][4]:g}, now"
                f" {event['now'][4]:g}); the session keeps the first values, a fetch has the others"
            )


def _joined(first: ParityReport, second: ParityReport) -> ParityReport:
    return ParityReport(
        first.compared | second.compared,
        first.differences + second.differences,
        max(first.worst_score, second.worst_score),
        first.notes + second.notes,
        first.apart | second.apart,
    )


def _recorded_order(recording: Recording, strategy: Mapping[str, Any]) -> ParityReport:
    """Round by round, as the session saw it; bit for bit."""
    again = _shown_again(recording, strategy)
    differences: list[Difference] = []
    compared = {}
    for name in DERIVED:
        recorded, replayed = recording.derived[name], again[name]
        compared[f"recorded order: {name}"] = len(recorded)
        differences += _of_records(name, recorded, replayed)
    return ParityReport(compared, differences, 0.0)


def _shown_again(recording: Recording, strategy: Mapping[str, Any]) -> dict[str, list[Record]]:
    """What a strategy derives from the rounds as they were shown."""
    facts = recording.facts
    source = RecordedRounds(recording.past)
    derived = {name: Collected() for name in DERIVED}
    cerebro = paper_cerebro(
        source,
        facts.symbols,
        facts.interval_ms,
        facts.broker,
        facts.filters,
        recording.rule_changes,
    )
    recorder = Recorder(derived, source)
    cerebro.addstrategy(PaperStrategy, recorder=recorder, keep_rows=False, **strategy)
    cerebro.run()
    return {name: sink.records for name, sink in derived.items()}


def _of_records(
    name: str, recorded: Sequence[Mapping[str, Any]], replayed: Sequence[Mapping[str, Any]]
) -> list[Difference]:
    differences = []
    for row, (ours, theirs) in enumerate(zip(recorded, replayed, strict=False)):
        differences += [
            Difference("recorded order", name, row, key, ours.get(key), theirs.get(key))
            for key in {**ours, **theirs}
            if ours.get(key) != theirs.get(key)
        ]
    # A session that was killed may lack its last records: the replay then has more, which is what
    # a restart would write. Fewer is a difference.
    if len(replayed) < len(recorded):
        differences.append(
            Difference("recorded order", name, len(replayed), "count", len(recorded), len(replayed))
        )
    return differences


def _backtest(recording: Recording, strategy: Mapping[str, Any]) -> ParityReport:
    """The candles as a backtest runs them; where some were late, in two steps."""
    replayed = _batch_run(recording, strategy)
    last_ms = max((moment.close_ms for moment, _ in recording.past), default=0)
    since = recording.live_from_ms or last_ms + 1
    tables = recording.tables()
    differences, worst = _of_signals(tables["signals"], _since(replayed.signals, since))
    compared = {"backtest: signals": len(tables["signals"])}
    fills, equity, evidence = replayed.fills, replayed.equity, replayed.evidence
    late = recording.late()
    how = "backtest"
    if late:
        how = "backtest's scores, order shown"
        shown = _shown_again(recording, _with_scores(replayed.signals, strategy))
        again = replace(recording, derived=shown).tables()
        fills, equity, evidence = again["fills"], again["equity"], again["evidence"]
    fills = _since(fills, since, "created_ms")
    # The end of a replay cancels what still rests; the session continues.
    fills = fills[fills["reason"] != "end"].reset_index(drop=True)
    differences += _of_fills(tables["fills"], fills)
    differences += _of_equity(tables["equity"], _since(equity, since))
    differences += _of_evidence(tables["evidence"], evidence)
    compared |= {f"{how}: {name}": len(tables[name]) for name in ("fills", "equity", "evidence")}
    notes = [
        f"{symbol}: {count} candles, closing {ms_to_utc(first)} to {ms_to_utc(last)}, came after"
        " newer ones of others, an order of time that a backtest does not have: fills and equity"
        " were compared with the backtest's scores in the order shown"
        for symbol, (count, first, last) in late.items()
    ]
    apart = {f"late candles of {symbol}": count for symbol, (count, *_) in late.items()}
    return ParityReport(compared, differences, worst, notes, apart)


class BatchScore(bt.Indicator):
    """Scores and thresholds that were computed before, looked up by closing time; NaN elsewhere.

    Params
    ------
    rows : close time (UTC ms) -> the lines' values.
    """

    lines: Any = ("score", "p_buy", "p_sell", "score_zero", "upper", "lower")
    params: Any = (("rows", None),)

    def next(self) -> None:
        """The present candle's."""
        nothing = (math.nan,) * len(LOOKED_UP)
        values = self.p.rows.get(bar_close_ms(self.data), nothing)
        for name, value in zip(LOOKED_UP, values, strict=True):
            getattr(self.lines, name)[0] = value


def _with_scores(signals: pd.DataFrame, strategy: Mapping[str, Any]) -> dict[str, Any]:
    """The strategy's options with a backtest's scores and thresholds in place of its own."""
    rows: dict[str, dict[int, tuple[float, ...]]] = {}
    columns = zip(*(signals[name].tolist() for name in LOOKED_UP), strict=True)
    stamps = zip(signals["symbol"], signals["close_time_ms"].tolist(), strict=True)
    for (symbol, close_ms), values in zip(stamps, columns, strict=True):
        rows.setdefault(symbol, {})[close_ms] = values
    make: Any = BatchScore  # its params become keywords by Backtrader's metaclass
    return {
        **strategy,
        "score_factory": lambda data: make(data, rows=rows.get(data._name, {})),
        "threshold_factory": lambda _traded, _data, score: score,
    }


def _batch_run(recording: Recording, strategy: Mapping[str, Any]) -> MacroMicroStrategy:
    """The candles as a backtest runs them: preloaded, indicators in batches."""
    facts = recording.facts
    allowed = {
        (symbol, moment.close_ms) for moment, symbols in recording.past for symbol in symbols
    }
    cerebro = bt.Cerebro(stdstats=False)
    cerebro.broker = session_broker(
        facts.broker,
        facts.filters,
        lambda data: (data._name, bar_close_ms(data)) in allowed,
        cerebro,
        recording.rule_changes,
    )
    for symbol, candles in recording.candles().items():
        if len(candles):
            cerebro.adddata(ReplayFeed(candles=candles, interval_ms=facts.interval_ms, name=symbol))
    cerebro.addstrategy(MacroMicroStrategy, **strategy)
    return cerebro.run()[0]  # type: ignore[no-any-return]


def _since(table: pd.DataFrame, start_ms: int, column: str = "close_time_ms") -> pd.DataFrame:
    return table[table[column] >= start_ms].reset_index(drop=True)


def _of_signals(recorded: pd.DataFrame, replayed: pd.DataFrame) -> tuple[list[Difference], float]:
    """Scores within tolerance, signals the same; rows matched by symbol and time."""
    both = recorded.merge(
        replayed, on=["symbol", "close_time_ms"], how="outer", suffixes=("", "_r"), indicator=True
    )
    differences = [
        Difference("backtest", "signals", int(row), "presence", both["_merge"].iloc[row], None)
        for row in np.flatnonzero((both["_merge"] != "both").to_numpy())
    ]
    both = both[both["_merge"] == "both"]
    worst = 0.0
    for name in _NUMBERS:
        ours, theirs = both[name].to_numpy(float), both[f"{name}_r"].to_numpy(float)
        apart = np.where(np.isnan(ours) & np.isnan(theirs), 0.0, np.abs(ours - theirs))
        apart = np.where(np.isnan(ours) != np.isnan(theirs), math.inf, apart)
        worst = max(worst, float(apart.max(initial=0.0)))
        differences += [
            Difference("backtest", "signals", int(row), name, ours[row], theirs[row])
            for row in np.flatnonzero(apart > SCORE_TOLERANCE)
        ]
    signal, other_signal = both["signal"].to_numpy(), both["signal_r"].to_numpy()
    differences += [
        Difference("backtest", "signals", int(row), "signal", signal[row], other_signal[row])
        for row in np.flatnonzero(signal != other_signal)
    ]
    return differences, worst


def _of_fills(recorded: pd.DataFrame, replayed: pd.DataFrame) -> list[Difference]:
    differences = []
    if len(recorded) != len(replayed):
        differences.append(
            Difference("backtest", "fills", min(len(recorded), len(replayed)), "count",
                       len(recorded), len(replayed))
        )  # fmt: skip
    pairs = zip(recorded.to_dict("records"), replayed.to_dict("records"), strict=False)
    for row, (ours, theirs) in enumerate(pairs):
        differences += [
            Difference("backtest", "fills", row, name, ours[name], theirs[name])
            for name in _ORDER_FIELDS
            if ours[name] != theirs[name]
        ]
        differences += [
            Difference("backtest", "fills", row, name, ours[name], theirs[name])
            for name in ("quantity", "price", "notional", "fee")
            if not _equal(ours[name], theirs[name], 1e-9 * max(1.0, abs(ours["notional"])))
        ]
    return differences


def _of_evidence(recorded: pd.DataFrame, replayed: pd.DataFrame) -> list[Difference]:
    """To the last bit: the same closes and signals make the same results."""
    pairs = zip(recorded.to_dict("records"), replayed.to_dict("records"), strict=False)
    differences = [
        Difference("backtest", "evidence", row, str(name), ours[name], theirs[name])
        for row, (ours, theirs) in enumerate(pairs)
        for name in ours
        if repr(ours[name]) != repr(theirs[name])
    ]
    if len(replayed) < len(recorded):
        counts = len(recorded), len(replayed)
        differences.append(Difference("backtest", "evidence", counts[1], "count", *counts))
    return differences


def _equal(first: float, second: float, tolerance: float) -> bool:
    return (math.isnan(first) and math.isnan(second)) or abs(first - second) <= tolerance


def _of_equity(recorded: pd.DataFrame, replayed: pd.DataFrame) -> list[Difference]:
    """To the cent."""
    both = recorded.merge(replayed, on="close_time_ms", how="inner", suffixes=("", "_r"))
    differences = []
    if len(both) != len(recorded):
        differences.append(
            Difference("backtest", "equity", 0, "count", len(recorded), len(replayed))
        )
    apart = np.abs(both["equity"].to_numpy() - both["equity_r"].to_numpy())
    differences += [
        Difference("backtest", "equity", int(row), ms_to_utc(int(both["close_time_ms"][row])),
                   float(both["equity"][row]), float(both["equity_r"][row]))
        for row in np.flatnonzero(apart > MONEY_TOLERANCE)
    ]  # fmt: skip
    return differences

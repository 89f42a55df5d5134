"""Paper sessions: recovery after a kill anywhere, missed orders, parity."""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import backtrader as bt
import numpy as np
import pandas as pd
import pytest

from cppncripto_strategy.errors import SessionError
from cppncripto_strategy.feeds.binance.endpoints import Retry, Sources
from cppncripto_strategy.feeds.binance.filters import symbol_info
from cppncripto_strategy.feeds.candles import Candles
from cppncripto_strategy.feeds.clock import DAY_MS, utc_to_ms
from cppncripto_strategy.feeds.filters import PLANTED_FILTERS
from cppncripto_strategy.feeds.live.journal import LineJournal, line_of, read_lines
from cppncripto_strategy.feeds.live.rounds import RecordedRounds, Round, rows_of
from cppncripto_strategy.feeds.live.stream_settings import StreamSettings
from cppncripto_strategy.feeds.loopback.exchange_settings import ExchangeSettings
from cppncripto_strategy.feeds.loopback.faults import Halt, RandomFaults, StreamFault
from cppncripto_strategy.feeds.loopback.market import ManualClock, SpeedClock
from cppncripto_strategy.feeds.loopback.server import ExchangeThread, LoopbackExchange
from cppncripto_strategy.feeds.replay import bar_close_ms
from cppncripto_strategy.paper.connection import Connection
from cppncripto_strategy.paper.parity import compare
from cppncripto_strategy.paper.recorder import PaperStrategy, Recorder
from cppncripto_strategy.paper.recording import Recording
from cppncripto_strategy.paper.session import (
    DERIVED,
    Collected,
    SessionFacts,
    SessionFolder,
    plain,
)
from cppncripto_strategy.paper.trader import (
    PaperSession,
    first_candle_ms,
    paper_cerebro,
)

STEP_MS = 300_000
START_MS = utc_to_ms("2024-05-01 20:00")
SYMBOLS = ("BTCUSDT", "ETHUSDT")
WARMUP = 30
COUNT = 110
CASH = 10_000.0
PATIENCE_S = 60.0
BROKER = {"cash": CASH, "fee_bps": 10.0, "slippage_bps": 1.0, "allow_short": False}
QUICK = StreamSettings(
    close_grace_s=0.05,
    stale_after_s=1e9,
    gap_confirm_s=0.05,
    still_s=0.05,
    refetch_s=0.02,
    watchdog_s=5.0,
    backoff_first_s=0.02,
    backoff_cap_s=0.1,
    poll_s=0.02,
    clock_refresh_s=0.1,
    close_timeout_s=0.1,
    settle_ms=0,
    clock_bound_ms=2**62,  # a clock stepped by hand jumps, which none of the exchange's does
)
RETRY = Retry(attempts=4, base_s=0.01, cap_s=0.05, timeout_s=0.5)


class FakeScore(bt.Indicator):
    """A score that is a plain function of the candle: what a session does with it is under test."""

    lines = ("score",)

    def __init__(self) -> None:
        super().__init__()
        self.lines.score = (self.data.close - self.data.open) / self.data.open


STRATEGY: dict[str, Any] = {
    "score_factory": FakeScore,
    "window": 40,
    "min_scores": 10,
    "quantile": 0.2,
    "fraction": 0.4,
    "hold_candles": 4,
    "stop_pct": 0.3,
}


def at(candle: int) -> int:
    """Open time of a candle by its number."""
    return START_MS + candle * STEP_MS


def walk(count: int, seed: int) -> Candles:
    """A random walk with every column, coarse enough to be exact in eight decimals."""
    rng = np.random.default_rng(seed)
    close = np.round(100 * np.exp(np.cumsum(rng.normal(0, 2e-3, count))), 2)
    open_ = np.concatenate([[100.0], close[:-1]])
    volume = np.round(rng.uniform(1, 9, count), 5)
    return Candles.from_columns(
        open_time=START_MS + STEP_MS * np.arange(count),
        open=open_,
        high=np.round(np.maximum(open_, close) + 0.1, 2),
        low=np.round(np.minimum(open_, close) - 0.1, 2),
        close=close,
        volume=volume,
        quote_volume=np.round(volume * close, 6),
        trades=rng.integers(1, 500, count),
        taker_buy_volume=np.round(volume * 0.4, 5),
        taker_buy_quote_volume=np.round(volume * 0.4 * close, 6),
    )


def facts(**changes: Any) -> SessionFacts:
    """A session that starts at candle 0."""
    rules = [symbol_info(symbol, PLANTED_FILTERS.filters) for symbol in SYMBOLS]
    values: dict[str, Any] = {
        "symbols": SYMBOLS,
        "interval": "5m",
        "first_ms": START_MS,
        "created_ms": at(WARMUP),
        "broker": BROKER,
        "filters": rules,
    }
    return SessionFacts(**{**values, **changes})


@contextmanager
def market(*faults: StreamFault, **options: Any) -> Iterator[ExchangeThread]:
    """An exchange on which the warm-up has just closed."""
    candles = {symbol: walk(COUNT, seed) for seed, symbol in enumerate(SYMBOLS)}
    exchange = LoopbackExchange(
        candles, clock=ManualClock(at(WARMUP)), settings=ExchangeSettings(**options)
    )
    exchange.script(*faults)
    with ExchangeThread(exchange) as host:
        yield host


class Stepper(threading.Thread):
    """Lets the next candle close once the last one was shown; stops a session that is stuck."""

    def __init__(self, host: ExchangeThread, session: PaperSession, shown_ms: int) -> None:
        super().__init__(daemon=True)
        self.host, self.session, self.shown_ms = host, session, shown_ms
        self.over = threading.Event()
        self.stuck = False

    def run(self) -> None:
        exchange, stream = self.host.exchange, self.session.stream
        deadline = time.monotonic() + PATIENCE_S
        while not self.over.wait(0.001):
            now_ms = exchange.now_ms() // STEP_MS * STEP_MS
            # Only a newer candle shows that one does not exist.
            halted = any(
                exchange.market.row_opening_at(symbol, now_ms - STEP_MS) is None
                for symbol in SYMBOLS
            )
            if (self.shown_ms >= now_ms or halted) and stream.connected:
                self.host.advance_to(now_ms + STEP_MS)
                deadline = time.monotonic() + PATIENCE_S
            if time.monotonic() > deadline:
                self.stuck = True
                self.session.stop()
                return


def trade(
    host: ExchangeThread,
    path: Path,
    until: int,
    on_event: Callable[[dict[str, Any]], None] = lambda _event: None,
    settings: StreamSettings = QUICK,
) -> None:
    """Run until candle `until` has closed; each candle closes once the last was shown."""
    exists = (path / "session.json").exists()
    folder = SessionFolder(path) if exists else SessionFolder.create(path, facts())

    opened = folder.opened

    def shown(moment: Any, allowed: frozenset[str], last: bool = True) -> None:
        """The next candle may close once it is written that this round was shown, not before."""
        opened(moment, allowed, last)
        stepper.shown_ms = moment.close_ms

    folder.opened = shown  # type: ignore[method-assign]
    with folder:
        last_ms = folder.past[-1][0].close_ms if folder.past else START_MS
        session = PaperSession(
            folder,
            STRATEGY,
            Connection(
                Sources(host.archive_url, host.rest_url, host.stream_url),
                settings,
                RETRY,
                random.Random(1),
            ),
            on_event=on_event,
            until_ms=at(until + 1),
        )
        stepper = Stepper(host, session, last_ms)
        stepper.start()
        try:
            session.run()
        finally:
            stepper.over.set()
            stepper.join()
        assert not stepper.stuck, (session.stream.counters, session.view)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A session that nothing disturbed."""
    path = tmp_path_factory.mktemp("paper") / "whole"
    with market() as host:
        trade(host, path, COUNT - 2)
    return path


def ledger(path: Path) -> dict[str, pd.DataFrame]:
    """The session's tables."""
    return Recording.read(path).tables()


def same(one: Path, other: Path) -> None:
    """Two sessions saw, decided and traded the same."""
    first, second = Recording.read(one), Recording.read(other)
    assert first.past == second.past
    assert first.derived == second.derived


def test_session_trades_and_every_candle_is_recorded_once(uninterrupted: Path) -> None:
    """A recovery test over a session without trades would prove nothing."""
    recording = Recording.read(uninterrupted)
    for seed, symbol in enumerate(SYMBOLS):
        expected = rows_of(walk(COUNT, seed)[: COUNT - 1])
        assert rows_of(recording.candles()[symbol]) == expected
    tables = recording.tables()
    filled = tables["fills"][tables["fills"]["status"] == "filled"]
    assert len(filled) >= 20
    assert len(tables["trades"]) >= 8
    assert recording.live_from_ms == at(WARMUP)
    assert recording.missed().empty
    assert recording.downtime() == []


def test_fills_obey_the_accounts_arithmetic(uninterrupted: Path) -> None:
    """Cash recomputed by hand from fills alone must end where the session's cash ended."""
    tables = ledger(uninterrupted)
    candles = {s: walk(COUNT, n) for n, s in enumerate(SYMBOLS)}
    cash = CASH
    for fill in tables["fills"].to_dict("records"):
        if fill["status"] != "filled":
            continue
        held = candles[fill["symbol"]]
        row = int(np.searchsorted(held.open_time, fill["executed_ms"] - STEP_MS))
        sign = 1 if fill["side"] == "buy" else -1
        assert fill["executed_ms"] - STEP_MS >= fill["created_ms"]
        assert fill["price"] == pytest.approx(held.open[row] * (1 + sign * 1e-4), rel=1e-12)
        assert fill["quantity"] == pytest.approx(round(fill["quantity"] / 1e-5) * 1e-5, abs=1e-12)
        cash -= sign * fill["quantity"] * fill["price"]
        cash -= fill["quantity"] * fill["price"] * 1e-3
    assert tables["equity"]["cash"].iloc[-1] == pytest.approx(cash, abs=1e-6)


class KilledError(Exception):
    """The process died here."""


class Killer:
    """Lets the n-th write of any journal tear at a random byte, and every later one vanish."""

    def __init__(self, after: int, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left, self.rng, self.dead = after, random.Random(seed), False
        append = LineJournal.append

        def killed(journal: Any, records: Sequence[Any], synced: bool | None = None) -> None:
            if self.dead:
                raise KilledError
            self.left -= 1
            if self.left > 0 or not records:
                append(journal, records, synced)
                return
            self.dead = True
            whole = b"".join(line_of(record) for record in records)
            journal._file.write(whole[: self.rng.randrange(len(whole) + 1)])
            journal._file.flush()
            raise KilledError

        monkeypatch.setattr(LineJournal, "append", killed)


@pytest.mark.parametrize("seed", range(20))
def test_killed_at_a_random_write_and_restarted_before_the_next_close(
    seed: int, uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever write the kill tears, the restarted session's books equal the undisturbed ones."""
    path = tmp_path / "killed"
    after = random.Random(seed).randrange(2, 3 * COUNT)  # of some four writes a candle
    with market() as host:
        with monkeypatch.context() as patch:
            Killer(after, seed, patch)
            with pytest.raises(KilledError):
                trade(host, path, COUNT - 2)
        trade(host, path, COUNT - 2)
    same(path, uninterrupted)


def test_killed_again_and_again(
    uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second kill during the recovery from the first must be as harmless."""
    path = tmp_path / "killed"
    with market() as host:
        for seed in range(6):
            with monkeypatch.context() as patch:
                Killer(70, seed, patch)
                with pytest.raises(KilledError):
                    trade(host, path, COUNT - 2)
        trade(host, path, COUNT - 2)
    same(path, uninterrupted)


def test_candles_that_closed_while_it_was_down_are_shown_but_not_traded(
    uninterrupted: Path, tmp_path: Path
) -> None:
    """No candle lost, nothing invented: what would have been ordered then is listed as missed."""
    path = tmp_path / "down"
    with market() as host:
        trade(host, path, 59)
        host.advance_to(at(71))  # candles 60 to 70 close with nobody there
        trade(host, path, COUNT - 2)
    recording = Recording.read(path)
    for seed, symbol in enumerate(SYMBOLS):
        assert rows_of(recording.candles()[symbol]) == rows_of(walk(COUNT, seed)[: COUNT - 1])
    down = recording.downtime()
    # Candle 60 closed in time for nobody; the last one, 70, was still fresh at the restart.
    assert [(one["start_ms"], one["end_ms"], one["rounds"]) for one in down] == [
        (at(61), at(70), 10)
    ] or down[0]["rounds"] in (9, 10)
    missed = recording.missed()
    assert not missed.empty
    assert missed["created_ms"].between(down[0]["start_ms"], down[0]["end_ms"]).all()
    fills = ledger(path)["fills"]
    created = fills[fills["status"] == "filled"]["created_ms"]
    assert not created.between(down[0]["start_ms"], down[0]["end_ms"]).any()
    whole = ledger(uninterrupted)["signals"]
    pd.testing.assert_frame_equal(ledger(path)["signals"], whole)
    assert compare(path, STRATEGY).same


def test_parity_of_an_undisturbed_session_shows_no_difference(uninterrupted: Path) -> None:
    """Streaming and batch, session and backtest: one path."""
    report = compare(uninterrupted, STRATEGY)
    assert [str(one) for one in report.differences] == []
    assert report.compared["recorded order: decisions"] == 2 * (COUNT - 1)
    assert report.compared["backtest: fills"] >= 20
    assert report.notes == []


@pytest.mark.parametrize(
    ("journal", "change"),
    [
        ("fills", lambda record: {**record, "quantity": record["quantity"] + 1e-5}),
        ("decisions", lambda record: {**record, "score": (record["score"] or 0.0) + 1e-3}),
        ("equity", lambda record: {**record, "equity": record["equity"] + 0.01}),
    ],
)
def test_parity_finds_a_difference_of_one_number(
    journal: str, change: Any, uninterrupted: Path, tmp_path: Path
) -> None:
    """A parity check that cannot fail is no check."""
    path = copy_of(uninterrupted, tmp_path)
    file = path / f"{journal}.jsonl"
    records = read_lines(file)
    place = len(records) - 20
    while journal == "fills" and records[place]["status"] != "filled":
        place -= 1
    records[place] = change(records[place])
    file.write_bytes(b"".join(line_of(record) for record in records))
    report = compare(path, STRATEGY)
    assert {one.replay for one in report.differences} == {"recorded order", "backtest"}
    assert all(one.table in (journal, "signals") for one in report.differences)


def test_parity_finds_another_strategy(uninterrupted: Path) -> None:
    """A changed setting must not pass as the same session."""
    assert not compare(uninterrupted, {**STRATEGY, "hold_candles": 5}).same


def copy_of(session: Path, folder: Path) -> Path:
    """A copy of a session's files."""
    path = folder / "copy"
    path.mkdir()
    for file in session.iterdir():
        if file.is_file():
            (path / file.name).write_bytes(file.read_bytes())
    return path


def test_resuming_with_another_strategy_is_refused(
    uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A state that was not rebuilt must not trade on."""
    path = copy_of(uninterrupted, tmp_path)
    monkeypatch.setitem(STRATEGY, "quantile", 0.3)
    with market() as host, pytest.raises(SessionError, match="the replay gives"):
        trade(host, path, COUNT - 2)


def test_maintenance_and_a_late_symbol_leave_parity_whole(tmp_path: Path) -> None:
    """Gaps and catching up change the order of bars; the recorded order must replay the same."""
    path = tmp_path / "gaps"
    halts = (Halt(at(50), at(53)), Halt(at(70), at(71), "ETHUSDT"))
    with market(StreamFault("missed_close", at(60), at(62)), halts=halts) as host:
        trade(host, path, COUNT - 2)
    recording = Recording.read(path)
    assert [(gap["symbol"], gap["candles"]) for gap in recording.gaps()] == [
        ("BTCUSDT", 3),
        ("ETHUSDT", 3),
        ("ETHUSDT", 1),
    ]
    report = compare(path, STRATEGY)
    assert [str(one) for one in report.differences] == []


def test_symbol_that_was_left_behind_replays_in_the_order_it_came(tmp_path: Path) -> None:
    """Its candles came after newer ones of the other: a replay by time would see the future."""
    path = tmp_path / "late"
    late = StreamFault("late", at(50), at(54), symbol="ETHUSDT", delay_ms=5 * STEP_MS)
    impatient = dataclasses.replace(QUICK, stale_after_s=0.1)
    with market(late) as host:
        trade(host, path, COUNT - 2, settings=impatient)
    recording = Recording.read(path)
    behind = [one for one, _ in recording.past if one.catch_up]
    assert behind
    assert all(set(one.candles) == {"ETHUSDT"} for one in behind)
    assert not any(allowed for one, allowed in recording.past if one.catch_up)
    for seed, symbol in enumerate(SYMBOLS):
        assert rows_of(recording.candles()[symbol]) == rows_of(walk(COUNT, seed)[: COUNT - 1])
    report = compare(path, STRATEGY)
    assert [str(one) for one in report.differences] == []
    assert report.apart == {"late candles of ETHUSDT": sum(len(one.candles) for one in behind)}
    assert "ETHUSDT" in report.notes[0]
    # One late symbol switches nothing off: every signal, fill and mark has been compared.
    tables = recording.tables()
    shown = "backtest's scores, order shown"
    assert report.compared["backtest: signals"] == len(tables["signals"]) >= 2 * (COUNT - 32)
    assert report.compared[f"{shown}: fills"] == len(tables["fills"]) >= 20
    assert report.compared[f"{shown}: equity"] == len(tables["equity"]) >= COUNT - 32
    records = read_lines(path / "fills.jsonl")
    last = max(n for n, record in enumerate(records) if record["status"] == "filled")
    records[last]["price"] += 0.01
    (path / "fills.jsonl").write_bytes(b"".join(line_of(record) for record in records))
    found = {one.replay for one in compare(path, STRATEGY).differences}
    assert found == {"recorded order", "backtest"}


def test_gap_published_before_a_restart_can_still_be_withdrawn(tmp_path: Path) -> None:
    """A restart that has forgotten what it called a gap, and drops the candle as a stale one."""
    path, candles = tmp_path / "gaps", rows_of(walk(3, 0))
    gaps = [Round(at(n + 1), {"BTCUSDT": candles[n]}, ("ETHUSDT",)) for n in range(2)]
    late = Round(at(1), {}, catch_up=True, withdrawn={"ETHUSDT": candles[0]})
    with SessionFolder.create(path, facts()) as folder:
        folder.journal([*gaps, late])
    with SessionFolder(path) as folder:
        assert {"BTCUSDT": [], "ETHUSDT": [at(1)]} == folder.standing_gaps()
        stream = PaperSession(folder, STRATEGY).stream
        stream._assembly.accept(stream._assembly.series["ETHUSDT"], candles[1])
        (withdrawn,) = stream._assembly.complete()
        assert {"ETHUSDT": candles[1]} == withdrawn.withdrawn


def test_second_process_is_refused(tmp_path: Path) -> None:
    """Two writers would interleave their journals."""
    with (
        SessionFolder.create(tmp_path / "one", facts()),
        pytest.raises(SessionError, match="in use"),
    ):
        SessionFolder(tmp_path / "one")


def test_session_is_made_once(tmp_path: Path) -> None:
    """A typed name must not overwrite a session."""
    SessionFolder.create(tmp_path / "one", facts()).close()
    with pytest.raises(SessionError, match="already"):
        SessionFolder.create(tmp_path / "one", facts())


def test_folder_that_is_no_session_is_named(tmp_path: Path) -> None:
    """A misspelt name must not look like an empty session."""
    with pytest.raises(SessionError, match="no paper session"):
        Recording.read(tmp_path)


def test_altered_order_of_rounds_is_refused(uninterrupted: Path, tmp_path: Path) -> None:
    """Candles that do not match what was shown must not be replayed as if they did."""
    path = copy_of(uninterrupted, tmp_path)
    records = read_lines(path / "rounds.jsonl")
    records[40], records[41] = records[41], records[40]
    content = b"".join(line_of(record) for record in records)
    (path / "rounds.jsonl").write_bytes(content)
    with pytest.raises(SessionError, match="altered"):
        Recording.read(path)


def test_events_tell_of_decisions_and_fills_but_not_of_the_past(tmp_path: Path) -> None:
    """A listener that hears replayed fills again would send them again."""
    path = tmp_path / "events"
    heard: list[dict[str, Any]] = []
    with market() as host:
        trade(host, path, 50, on_event=heard.append)
        before = len(heard)
        trade(host, path, 60, on_event=heard.append)
    stamps = [event["close_time_ms"] for event in heard[before:] if event["kind"] == "decision"]
    assert stamps
    assert min(stamps) > at(51)
    json.dumps([plain(event) for event in heard], allow_nan=False)


def test_latency_and_connection_are_written_of_live_rounds_alone(tmp_path: Path) -> None:
    """A replay that is timed as if it were live; a connection that nobody can look up."""
    path = tmp_path / "timed"
    with market() as host:
        trade(host, path, 50)
        trade(host, path, 60)
    recording = Recording.read(path)
    traded = [moment.close_ms for moment, allowed in recording.past if allowed]
    timed = [row["t"] for row in read_lines(path / "latency.jsonl")]
    assert timed
    assert timed == [close_ms for close_ms in traded if close_ms in set(timed)]
    assert all(0 < row["s"] < 60 and row["lag"] >= 0 for row in read_lines(path / "latency.jsonl"))
    said = [event for event in recording.events if event["kind"] == "connected"]
    assert [event["away_s"] for event in said] == [None, None]


def test_first_candle_covers_the_warm_up_before_todays_midnight() -> None:
    """One candle short and the first session could not be scored."""
    now_ms = utc_to_ms("2024-05-03 17:05")
    first = first_candle_ms(now_ms, STEP_MS, warmup=1440, earlier_days=2)
    assert first == utc_to_ms("2024-04-26")


def test_long_session_keeps_no_finished_order() -> None:
    """Backtrader keeps every order, trade and fill for ever: a session of months would swell."""
    count = 1200
    held = {symbol: rows_of(walk(count, seed)) for seed, symbol in enumerate(SYMBOLS)}
    shown = [
        (Round(at(n + 1), {s: held[s][n] for s in SYMBOLS}), frozenset(SYMBOLS))
        for n in range(count)
    ]
    source = RecordedRounds(shown)
    derived = {name: Collected() for name in DERIVED}
    cerebro = paper_cerebro(source, SYMBOLS, STEP_MS, BROKER, ())
    recorder = Recorder(derived, source)
    cerebro.addstrategy(PaperStrategy, recorder=recorder, keep_rows=False, **STRATEGY)
    strategy = cerebro.run()[0]
    fills = len(derived["fills"].records)
    gc.collect()
    orders = [thing for thing in gc.get_objects() if issubclass(type(thing), bt.order.OrderBase)]
    mine = [order for order in orders if order.owner is strategy]
    assert fills >= 200
    assert len(mine) <= 3 * len(SYMBOLS)
    # Only what the end of the run itself cancelled.
    assert all(fill.reason == "end" for fill in strategy.broker.fills)
    assert strategy.broker.ledger == []


def test_symbol_that_is_removed_stops_alone_and_changed_rules_are_obeyed(tmp_path: Path) -> None:
    """One symbol that ends the session, or whose position is lost sight of; steps of yesterday."""
    stop, back, change = WARMUP + 20, WARMUP + 40, WARMUP + 50
    path, heard = tmp_path / "attacked", list[dict[str, Any]]()
    quick = dataclasses.replace(QUICK, info_every_s=0.05, retry_first_s=0.05, retry_cap_s=0.1)
    with market(
        StreamFault("removed", at(stop), at(back), symbol="ETHUSDT"),
        StreamFault("new_rules", at(change), at(COUNT), symbol="BTCUSDT"),
    ) as host:
        trade(host, path, COUNT - 2, heard.append, quick)
    recording = Recording.read(path)
    kinds = {event["kind"]: event for event in recording.events}
    assert kinds["symbol_stopped"]["symbol"] == kinds["symbol_back"]["symbol"] == "ETHUSDT"
    assert kinds["symbol_stopped"]["position"] >= 0
    assert {"symbol_stopped", "symbol_back", "rules_changed"} <= {e["kind"] for e in heard}
    for seed, symbol in enumerate(SYMBOLS):
        assert rows_of(recording.candles()[symbol]) == rows_of(walk(COUNT, seed)[: COUNT - 1])
    filled = [fill for fill in recording.derived["fills"] if fill["status"] == "filled"]
    within = [f for f in filled if at(stop + 4) < f["executed_ms"] <= at(back - 2)]
    assert {fill["symbol"] for fill in within} == {"BTCUSDT"}
    [later] = [c for c in recording.rule_changes if c.close_ms > at(change)]
    assert later.entry["symbol"] == "BTCUSDT"
    report = compare(path, STRATEGY)
    assert [str(one) for one in report.differences] == []


# How many candles the soak lasts; a campaign asks for more: CPPN_BT_PAPER_SOAK=2000.
SOAK_COUNT = int(os.environ.get("CPPN_BT_PAPER_SOAK", "500"))
# A busy machine needs longer, or no candle is fresh when it is shown.
SOAK_CANDLE_S = float(os.environ.get("CPPN_BT_SOAK_CANDLE_S", "0.06"))
SOAK_SYMBOLS = ("BTCUSDT", "ETHUSDT", "BNBUSDT")
SOAK_STREAM = {
    "abort": 0.035,
    "close_1001": 0.003,
    "shutdown": 0.003,
    "half_open": 0.001,
    "malformed": 0.03,
    "odd": 0.02,
    "duplicate": 0.05,
    "stale": 0.05,
    "missed_close": 0.05,
    "broken_candle": 0.01,
    "misaligned": 0.01,
    "restated": 0.03,
    "future_close": 0.05,
}
# Left out: what orders a wait of a minute or more, and answers too large for a market this fast.
SOAK_OFTEN = (
    "403",
    "500",
    "503",
    "502_html",
    "200_html",
    "empty",
    "bad_json",
    "truncated",
    "reset",
)
SOAK_REST = dict.fromkeys(SOAK_OFTEN, 0.02) | {"hang": 0.003, "418": 0.002, "429": 0.004}
# What lasts for twelve candles: wrong clocks, symbols that go, rules that change, a dark exchange.
SOAK_LASTING: tuple[tuple[str, str | None, int], ...] = (
    ("late", "ETHUSDT", 15 * STEP_MS),
    ("clock_off", None, DAY_MS),
    ("clock_off", None, -DAY_MS),
    ("clock_jumps", None, DAY_MS),
    ("event_times_off", None, DAY_MS),
    ("event_times_frozen", None, 0),
    ("event_times_off", None, -DAY_MS),
    ("close_times_off", "BTCUSDT", 60_000),
    ("removed", "BNBUSDT", 0),
    ("refused", "ETHUSDT", 0),
    ("omitted", "BTCUSDT", 0),
    ("new_rules", "BTCUSDT", 0),
    ("blackout", None, 0),
)


def soak_faults() -> list[StreamFault]:
    """The lasting faults in turn, and two candles hidden until long after they are called gaps.

    None in the last slots: what they hold back is delivered before the soak ends.
    """
    hidden = StreamFault("hidden", at(210), at(212), symbol="ETHUSDT", delay_ms=60 * STEP_MS)
    lasting = [
        StreamFault(kind, at(20 * n + 5), at(20 * n + 17), symbol=symbol, delay_ms=delay_ms)
        for n in range(WARMUP // 20 + 1, SOAK_COUNT // 20 - 3)
        for kind, symbol, delay_ms in [SOAK_LASTING[n % len(SOAK_LASTING)]]
    ]
    return [*lasting, hidden]


@pytest.mark.slow
def test_soak_loses_nothing_and_its_replay_is_the_same(tmp_path: Path) -> None:
    """Everything at once: no candle lost, doubled, unclosed or out of step; parity whole."""
    speed = STEP_MS / 1000 / SOAK_CANDLE_S
    candles = {symbol: walk(SOAK_COUNT, seed) for seed, symbol in enumerate(SOAK_SYMBOLS)}
    halts = (Halt(at(150), at(156)), Halt(at(310), at(313), "ETHUSDT"))
    exchange = LoopbackExchange(
        candles,
        clock=SpeedClock(at(WARMUP), speed),
        settings=ExchangeSettings(wait_for_subscriber=True, halts=halts, attempts_limit=10**6),
        faults=RandomFaults(23, rest=SOAK_REST, stream=SOAK_STREAM),
    )
    exchange.script(*soak_faults())
    path = tmp_path / "soak"

    def stop_at_the_end(strategy: PaperStrategy) -> None:
        """Not before the symbol that is furthest behind is there."""
        if all(len(data) and bar_close_ms(data) >= exchange.end_ms for data in strategy.datas):
            session.stop()

    with (
        ExchangeThread(exchange) as host,
        SessionFolder.create(path, facts(symbols=SOAK_SYMBOLS, filters=())) as folder,
    ):
        session = PaperSession(
            folder,
            STRATEGY,
            Connection(
                Sources(host.archive_url, host.rest_url, host.stream_url),
                StreamSettings.for_speed(speed),
                RETRY,
                random.Random(5),
            ),
            after_round=stop_at_the_end,
        )
        guard = threading.Timer(120 + 6 * SOAK_COUNT * SOAK_CANDLE_S, session.stop)
        guard.start()
        session.run()
        guard.cancel()
    struck = exchange.faults.struck
    print(f"{sum(struck.values())} faults: {dict(struck)}")
    assert sum(struck.values()) >= 1.5 * SOAK_COUNT
    assert {f"rest:{kind}" for kind in SOAK_OFTEN} <= set(struck)
    lasting = {kind for kind, *_ in SOAK_LASTING} - {"blackout"}  # which strikes as other kinds
    assert {f"stream:{kind}" for kind in lasting} <= set(struck)
    recording = Recording.read(path)
    _expect_the_truth(recording, exchange)
    tables = recording.tables()
    # How many of its orders were sent in time is a matter of how busy the machine is.
    assert len(tables["fills"]) >= SOAK_COUNT // 4
    print(len(tables["trades"]), "trades")
    report = compare(path, STRATEGY)
    print(report.compared, report.apart, report.notes)
    assert [str(one) for one in report.differences] == []
    assert all(count for name, count in report.compared.items() if "embeddings" not in name)


def _expect_the_truth(recording: Recording, exchange: LoopbackExchange) -> None:
    """Each candle shown or withdrawn, once, in order, as the exchange has it; true gaps named."""
    withdrawn = [(one["symbol"], one["row"]) for one in recording.withdrawn()]
    print(len(withdrawn), "false gaps withdrawn,", recording.gaps())
    for symbol, held in exchange.candles.items():
        shown = rows_of(recording.candles()[symbol])
        late = [tuple(row) for name, row in withdrawn if name == symbol]
        assert [row[0] for row in shown] == sorted({row[0] for row in shown})
        assert sorted([*shown, *late]) == rows_of(held)
    assert sum(gap["candles"] for gap in recording.gaps()) == 3 * 6 + 3
    stamps = [one.close_ms for one, _ in recording.past if not one.catch_up]
    assert stamps == [at(n + 1) for n in range(len(stamps))]

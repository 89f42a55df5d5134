"""Sessions as their journals tell them, while they grow and when they are damaged."""

from __future__ import annotations

import json
import os
import platform
from statistics import median

import pytest

from cppncripto_strategy.desk import sessions
from cppncripto_strategy.desk.figures import session_figure
from cppncripto_strategy.desk.listing import Listing
from cppncripto_strategy.desk.sessions import SessionWatch
from cppncripto_strategy.paper.recording import Recording


def watch_of(root) -> SessionWatch:
    [entry] = Listing(root).of("session")
    return SessionWatch(entry)


def test_numbers_are_those_that_the_reports_are_made_of(results, desk):
    """A page that counts otherwise than `cppn-bt paper --report` does."""
    seen = watch_of(results).summary()
    recording = Recording.read(results / "paper" / "real")
    tables = recording.tables()
    assert seen.problem == ""
    assert seen.rounds == len(recording.past) == desk.rounds
    assert seen.live_from is not None
    assert seen.live_from.ms == recording.live_from_ms == desk.close_ms(desk.live_from)
    assert seen.missed == len(recording.missed()) == 1
    assert seen.fills == (tables["fills"]["status"] == "filled").sum()
    assert seen.refused == (tables["fills"]["reason"] == "min_notional").sum() == 1
    assert seen.gaps == sum(gap["candles"] for gap in recording.gaps()) == 1
    account = tables["equity"]["equity"].to_numpy()
    assert seen.equity == account[-1]
    assert seen.total_return == pytest.approx(account[-1] / account[0] - 1)
    peaks = [1 - value / max(account[: i + 1]) for i, value in enumerate(account)]
    assert seen.max_drawdown == pytest.approx(max(peaks))
    assert seen.drawdown == pytest.approx(peaks[-1])


def test_detail_says_how_every_symbol_stands(results, desk):
    """A stale number, or one of another symbol."""
    detail = watch_of(results).detail()
    assert [now.symbol for now in detail.now] == list(desk.symbols)
    last = desk.rounds - 1
    assert detail.now[0].close == 101.0 + last
    assert detail.now[0].close_time is not None
    assert detail.now[0].close_time.ms == desk.close_ms(last)
    assert detail.now[0].position == pytest.approx(0.5 * detail.fills)
    assert detail.now[0].embedding_age_s == 3_600
    assert [event.kind for event in detail.events][:2] == ["stop", "symbol_back"]
    assert "traded again" in detail.events[1].what
    assert "connected again after 4.0 s" in detail.events[2].what


def test_connection_and_latency_are_those_of_the_journals(copy_of, desk):
    """A lost connection that shows as connected; a median made of the warm-up."""
    folder, now = copy_of / "paper" / "real", [0.0]
    [entry] = Listing(copy_of).of("session")
    watch = SessionWatch(entry, clock=lambda: now[0])
    seen, live = watch.summary(), set(range(desk.live_from, desk.rounds)) - set(desk.down)
    taken = sorted(desk.latency_s(number) for number in live)
    assert (seen.connection, seen.reconnects) == ("none", 1)  # it has stopped
    assert (seen.latency_s, seen.latency_p99_s) == (median(taken), taken[-1])
    assert seen.lag_s == 0.5
    folded = watch.look()
    assert folded.timed == sum(folded.latency_counts) == len(live)
    assert folded.timed_s == pytest.approx(sum(taken))
    (folder / ".lock").write_text(json.dumps({"pid": os.getpid(), "host": platform.node()}))
    for kind, state in (("start", "connecting"), ("connected", "connected"),
                        ("connection_lost", "lost"), ("connected", "connected")):  # fmt: skip
        more = {"away_s": 1.0} if kind == "connected" else {}
        desk.append(folder, {"events": [{"kind": kind, "at_ms": 1, **more}]})
        now[0] += 1.0
        assert watch.summary().connection == state
    assert watch.summary().reconnects == 3
    (folder / ".lock").unlink()  # killed: it said nothing
    assert watch.summary().connection == "none"


def test_a_growing_session_is_followed(copy_of, desk):
    """A page that shows yesterday until it is restarted, or counts a candle twice."""
    now = [0.0]
    [entry] = Listing(copy_of).of("session")
    watch = SessionWatch(entry, clock=lambda: now[0])
    before = watch.summary()
    for number in range(desk.rounds, desk.rounds + 5):
        desk.append(entry.path, desk.round_records(number))
        now[0] += 1.0
        after = watch.summary()
        assert after.rounds == number + 1
        assert after.equity == desk.equity(number)
    assert after.fills == before.fills + 1


def test_what_one_reader_walks_through_no_other_changes(copy_of, desk):
    """Fifty viewers at once, and a page that fails because another one looked meanwhile."""
    now = [0.0]
    [entry] = Listing(copy_of).of("session")
    watch = SessionWatch(entry, clock=lambda: now[0])
    folded = watch.look()
    walked = [iter(folded.equity), iter(folded.candles["AUSDT"]), iter(folded.events)]
    count, timed = len(folded.equity), list(folded.latency_counts)
    for each in walked:
        next(each)
    desk.append(entry.path, desk.round_records(desk.rounds))
    desk.append(entry.path, {"events": [{"kind": "symbol_back", "at_ms": 1, "symbol": "AUSDT"}]})
    now[0] += 1.0
    assert len(watch.look().equity) == count + 1
    assert watch.look() is watch.look()
    for each in walked:
        next(each)
    assert len(folded.equity) == count
    assert folded.latency_counts == timed


def test_memory_does_not_grow_with_age(copy_of, desk, monkeypatch):
    """A session of months that fills the desk's memory."""
    monkeypatch.setattr(sessions, "CANDLES_KEPT", 7)
    monkeypatch.setattr(sessions, "EQUITY_KEPT", 9)
    folded = watch_of(copy_of).look()
    assert len(folded.equity) == 9
    assert set(folded.judged) == set(desk.symbols)  # of each the last one, whole
    assert {len(kept) for kept in folded.candles.values()} == {7}
    assert {len(kept) for kept in folded.scores.values()} == {7}


def test_a_charts_drawdown_is_the_sessions(copy_of, desk, monkeypatch):
    """A fall from a peak before the first candle of a chart, drawn as none."""
    monkeypatch.setattr(sessions, "CANDLES_KEPT", 3)
    watch = watch_of(copy_of)
    figure = session_figure(watch.look(), "AUSDT", desk.step_ms)
    [drawn] = [trace["y"] for trace in figure["data"] if trace["name"] == "drawdown"]
    account = [desk.equity(number) for number in range(desk.live_from, desk.rounds)]
    assert len(drawn) == 3
    assert max(account[-3:]) < max(account)
    assert drawn == pytest.approx([value / max(account) - 1 for value in account[-3:]])


@pytest.mark.parametrize(
    ("lock", "kinds", "state"),
    [
        ({"pid": os.getpid(), "host": platform.node()}, ["start"], "running"),
        ({"pid": 2**22 + 1, "host": platform.node()}, ["start"], "died"),
        ({"pid": 2**22 + 1, "host": platform.node()}, ["start", "stop"], "stopped"),
        ({"pid": 1, "host": "elsewhere"}, ["start"], "unknown"),
        (None, ["start", "stop"], "stopped"),
        (None, ["start"], "died"),
        ("{half", ["start"], "unknown"),
    ],
)
def test_state_of_the_process(copy_of, desk, lock, kinds, state):
    """A dead session called running, a running one called dead."""
    folder = copy_of / "paper" / "real"
    (folder / "events.jsonl").unlink()
    desk.append(folder, {"events": [{"kind": kind, "at_ms": 1} for kind in kinds]})
    if lock is not None:
        (folder / ".lock").write_text(lock if isinstance(lock, str) else json.dumps(lock))
    assert watch_of(copy_of).summary().state == state


@pytest.mark.parametrize("name", ["session.json", "rounds.jsonl", "fills.jsonl", "events.jsonl"])
@pytest.mark.parametrize(
    "damage",
    [b"", b"\0" * 4_096, b'{"a": 1}\n', b"[" * 100_000, None],
    ids=["empty", "zeros", "no checksum", "deep", "folder"],
)
def test_damage_gives_a_row_with_its_reason(copy_of, name, damage):
    """A half-written file that takes the whole page down."""
    path = copy_of / "paper" / "real" / name
    if damage is None:
        path.unlink()
        path.mkdir()
    else:
        path.write_bytes(damage)
    watch = watch_of(copy_of) if path.is_file() or name != "session.json" else None
    if watch is None:
        return  # a folder without the file is no session
    seen, detail = watch.summary(), watch.detail()
    assert seen.name == detail.name == "paper/real"
    if name == "session.json" or (damage and b"\n" in damage):
        assert seen.problem
        assert str(copy_of) not in seen.problem


def test_records_of_another_kind_are_left_out(copy_of, desk):
    """A record with a sound checksum and nothing of what its journal holds."""
    folder = copy_of / "paper" / "real"
    for name in ("rounds", "opened", "equity", "fills", "decisions", "evidence", "events"):
        desk.append(folder, {name: [{}, {"t": "x", "c": 3}, {"symbol": [], "kind": 1, "bet": {}}]})
    seen = watch_of(copy_of).detail()
    assert seen.rounds == desk.rounds
    assert "damaged lines are left out" in seen.problem

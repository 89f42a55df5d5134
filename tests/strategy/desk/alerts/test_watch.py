"""Everything that can happen to a session, seen from outside: each alert once, and no other."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cppncripto_strategy.desk.alerts.kinds import KINDS
from cppncripto_strategy.errors import DeskError
from cppncripto_strategy.feeds.clock import DAY_MS

FAULTS, SEED = 200, 20
IN_TIME_MS = 5_000
# Seconds after which each fault has to be known, besides the five.
CONNECTION_S, SILENT_S = 20, 60
Expected = Iterator[tuple[str, ...]]
"""A fault yields the kinds ("gap", or "gap AUSDT") that its last act must give rise to."""


def gap(s: Any, rng: random.Random, _watched: Any) -> Expected:
    symbol = rng.choice(("AUSDT", "BUSDT"))
    s.round(gaps=(symbol,))
    yield (f"gap {symbol}",)


def stale(s: Any, rng: random.Random, _watched: Any) -> Expected:
    symbol = rng.choice(("AUSDT", "BUSDT"))
    s.round(stale=(symbol,))
    yield (f"stale {symbol}",)
    s.round(stale=(symbol,))
    yield ()
    s.round(s.close_ms, catch_up=True)
    s.round()
    yield ()


def warm_up(s: Any, _rng: random.Random, _watched: Any) -> Expected:
    s.round(live=False)
    yield ()


def fill(s: Any, rng: random.Random, _watched: Any) -> Expected:
    count = rng.randrange(1, 4)
    for _ in range(count):
        s.add("fills", **s.fill("filled", "signal"))
    yield ("fill AUSDT",) * count


def missed(s: Any, _rng: random.Random, _watched: Any) -> Expected:
    s.add("fills", **s.fill("refused", "can_trade"))
    yield ("missed AUSDT",)


def refused(s: Any, _rng: random.Random, _watched: Any) -> Expected:
    s.add("fills", **s.fill("refused", "min_notional"))
    yield ()


def daily_loss(s: Any, _rng: random.Random, _watched: Any) -> Expected:
    s.round(s.midnight())
    yield ("summary",)
    s.add("fills", **s.fill("refused", "daily_loss"))
    yield ("daily_loss AUSDT",)
    s.add("fills", **s.fill("refused", "daily_loss", "BUSDT"))
    yield ()


def died(s: Any, _rng: random.Random, _watched: Any) -> Expected:
    s.die()
    yield ("died",)
    s.start()
    yield ("started",)


def died_and_back(s: Any, _rng: random.Random, _watched: Any) -> Expected:
    s.die()
    s.start()
    yield ("died", "started")


def stopped(s: Any, _rng: random.Random, _watched: Any) -> Expected:
    s.stop()
    yield ("stopped",)
    s.start()
    yield ("started",)


def failed(s: Any, _rng: random.Random, _watched: Any) -> Expected:
    s.stop("error")
    yield ("died",)
    s.start()
    yield ("started",)


def blinked(s: Any, _rng: random.Random, watched: Any) -> Expected:
    s.folder.event("connection_lost", reason="OSError: reset")
    watched.wait(CONNECTION_S - 10)
    s.folder.event("connected", away_s=10.0)
    yield ()


def lost(s: Any, _rng: random.Random, watched: Any) -> Expected:
    s.folder.event("connection_lost", reason="OSError: reset")
    watched.wait(CONNECTION_S - 1)
    yield ("connection_lost",)
    watched.wait(2 * SILENT_S)  # silent, too: that is known already
    s.folder.event("connected", away_s=60.0)
    yield ("connection_back",)


def silent(s: Any, _rng: random.Random, watched: Any) -> Expected:
    watched.wait(SILENT_S - 2)
    yield ("silent",)
    watched.wait(SILENT_S)
    s.round()
    yield ()


def rollover(s: Any, _rng: random.Random, _watched: Any) -> Expected:
    day_ms = s.round(s.midnight())
    for symbol in ("AUSDT", "BUSDT"):
        s.add("embeddings", symbol=symbol, session_ms=day_ms, valid_from_ms=day_ms, vector=[0.0])
    yield ("summary",)


def rollover_failed(s: Any, _rng: random.Random, _watched: Any) -> Expected:
    day_ms = s.round(s.midnight())
    s.add("embeddings", symbol="AUSDT", session_ms=day_ms, valid_from_ms=day_ms - DAY_MS)
    yield "summary", "rollover_failed AUSDT"


def evidence(s: Any, _rng: random.Random, _watched: Any) -> Expected:
    for is_open, expected in ((0, ()), (1, ("evidence",)), (1, ()), (0, ("evidence",))):
        day_ms = s.close_ms // DAY_MS * DAY_MS
        s.add("evidence", bet="account", session_ms=day_ms, wealth=3.0, needed=20.0, open=is_open)
        yield expected


def repaired(s: Any, rng: random.Random, _watched: Any) -> Expected:
    repair = rng.choice(("keep", "retrain", "recalibrate", "retrain_macro"))
    s.folder.event("retraining decided", session_ms=0, repair=repair, reason="drift", drift=2.0)
    yield () if repair in ("keep", "retrain") else ("drift_repair",)


def not_retrained(s: Any, _rng: random.Random, _watched: Any) -> Expected:
    s.folder.event("retraining failed", session_ms=0, reason="too few days")
    yield ("retraining_failed",)


def exchange(s: Any, _rng: random.Random, _watched: Any) -> Expected:
    s.folder.event("symbol_stopped", symbol="AUSDT", reason="BREAK", retry_s=30.0, running=2)
    s.folder.event("retraining", session_ms=0)
    yield ("exchange AUSDT",)


def disk(_s: Any, _rng: random.Random, watched: Any) -> Expected:
    roomy, watched.free = watched.free, 10**8
    yield ("disk",)
    watched.free = 101 * 10**7
    yield ()
    watched.free = roomy
    yield ()


def damaged(s: Any, _rng: random.Random, _watched: Any) -> Expected:
    s.raw("fills", b"00000000 {}\n")
    yield ("damaged",)


def torn(s: Any, _rng: random.Random, watched: Any) -> Expected:
    line = watched.line_of(s.fill("filled", "signal"))
    s.raw("fills", line[:40])
    yield ()
    s.raw("fills", line[40:])
    yield ("fill AUSDT",)


EVERY: tuple[Callable[..., Expected], ...] = (
    gap, stale, warm_up, fill, missed, refused, daily_loss, died, died_and_back, stopped, failed,
    blinked, lost, silent, rollover, rollover_failed, evidence, repaired, not_retrained, exchange,
    disk, damaged, torn,
)  # fmt: skip


def named(alert: dict[str, Any]) -> str:
    """Kind and symbol."""
    return f"{alert['kind']} {alert['symbol']}".strip()


@pytest.mark.slow
def test_two_hundred_faults_each_alert_within_five_seconds_once_and_no_other(watched, acting):
    """A death that nobody hears of, a fill that comes twice, an alert about nothing; with watchers
    that are killed at any moment."""
    rig, rng = watched(), random.Random(SEED)
    rig.line_of = acting.line_of
    session = rig.session()
    session.start()
    session.round()
    rig.wait(5)
    assert [named(alert) for _, alert in rig.inbox.alerts] == ["started"]
    struck: Counter[str] = Counter()
    for number in range(FAULTS):
        fault = EVERY[number] if number < len(EVERY) else rng.choice(EVERY)
        struck[fault.__name__] += 1
        session.round()
        seen = len(rig.inbox.messages)
        for expected in fault(session, rng, rig):
            if rng.random() < 0.2:
                rig.restart()
            rig.inbox.killing = "before" if rng.random() < 0.1 else ""
            rig.wait(IN_TIME_MS / 1000)
            came = [named(a) for _, m in rig.inbox.messages[seen:] for a in m["alerts"]]
            assert Counter(came) == Counter(expected), (number, fault.__name__)
            seen = len(rig.inbox.messages)
    ids = [alert["id"] for _, alert in rig.inbox.alerts]
    assert len(set(ids)) == len(ids)
    kinds = {alert["kind"] for _, alert in rig.inbox.alerts}
    assert kinds == set(KINDS)
    assert len(struck) == len(EVERY)


def test_a_kill_repeats_only_what_was_in_the_air_and_says_so(watched):
    """An alert that a kill swallows; a repetition that looks like a second death."""
    rig = watched()
    session = rig.session()
    session.start()
    rig.wait(6)
    for moment in ("before", "after"):
        session.round()
        rig.inbox.killing = moment
        session.add("fills", **session.fill("filled", "signal"))
        rig.wait(8)
    fills = [m for _, m in rig.inbox.messages if m["kind"] == "fill"]
    # Killed before the target had it: once, perhaps again. After: it comes again, with its own id.
    assert [m["again"] for m in fills] == [True, False, True]
    assert fills[1]["alerts"] == fills[2]["alerts"] != fills[0]["alerts"]


def test_what_lay_there_before_anybody_watched_is_history(watched, results, tmp_path):
    """A first start that sends a year of fills; a second one that sends them after all."""
    import shutil

    rig = watched()
    rig.state_file.unlink()
    shutil.copytree(results / "paper", rig.root / "paper")
    rig.restart()
    rig.wait(10)
    rig.restart()
    rig.wait(10)
    assert rig.inbox.messages == []


def test_a_session_that_begins_while_nobody_looks_is_reported_from_its_beginning(watched):
    """A session of the night that died before the watcher was started again."""
    rig = watched()
    session = rig.session("paper/night")
    session.start()
    session.round()
    session.add("fills", **session.fill("filled", "signal"))
    session.die()
    rig.restart()
    rig.wait(6)
    assert sorted(named(alert) for _, alert in rig.inbox.alerts) == [
        "died", "fill AUSDT", "started",
    ]  # fmt: skip
    assert {alert["session"] for _, alert in rig.inbox.alerts} == {"paper/night"}


def test_a_journal_that_is_computed_again_is_not_reported_again(watched):
    """`fills.jsonl` moved away as the manual says, and every fill of a month is sent again."""
    rig = watched()
    session = rig.session()
    session.start()
    session.round()
    for _ in range(3):
        session.add("fills", **session.fill("filled", "signal"))
        session.round()
    rig.wait(6)
    path = session.path / "fills.jsonl"
    before, count = path.read_bytes(), len(rig.inbox.alerts)
    path.rename(path.with_suffix(".old"))
    rig.wait(1)
    path.write_bytes(before)
    rig.wait(6)
    assert len(rig.inbox.alerts) == count
    session.raw("fills", rig_line(session))
    rig.wait(6)
    assert [named(alert) for _, alert in rig.inbox.alerts[count:]] == ["fill AUSDT"]


def rig_line(session: Any) -> bytes:
    """A fill as its journal has it."""
    from cppncripto_strategy.feeds.live.journal import line_of

    return line_of(session.fill("filled", "signal"))


def test_another_session_under_the_same_name_is_another_one(watched):
    """A session thrown away and made anew, whose first days nobody hears of."""
    import shutil

    rig = watched()
    session = rig.session()
    session.start()
    session.round()
    session.stop()
    rig.wait(6)
    shutil.rmtree(session.path)
    rig.wait(6)
    again = rig.session()
    again.start()
    again.round()
    again.add("fills", **again.fill("filled", "signal"))
    rig.wait(6)
    assert [named(a) for _, a in rig.inbox.alerts][-2:] == ["started", "fill AUSDT"]


def test_a_connection_lost_while_nobody_looked_is_reported_in_the_past(watched):
    """An hour without candles at night that nobody ever learns of."""
    rig = watched()
    session = rig.session()
    session.start()
    rig.wait(6)
    session.folder.event("connection_lost", reason="OSError")
    rig.clock.ms += 90_000
    session.folder.event("connected", away_s=90.0)
    rig.restart()
    rig.wait(6)
    [*_, (_, last)] = rig.inbox.alerts
    assert last["kind"] == "connection_lost"
    assert "was not connected for 90 s" in last["text"]


def test_a_session_that_never_connects_is_reported(watched):
    """An address that is wrong: the session runs, and waits without end."""
    rig = watched()
    session = rig.session()
    from cppncripto_strategy.paper.session import session_lock

    lock = session_lock(session.path)
    session.folder.event("start", resumed=False, rounds=0)
    rig.wait(CONNECTION_S + 6)
    lock.release()
    assert [named(alert) for _, alert in rig.inbox.alerts] == ["started", "connection_lost"]


def test_a_full_disk_is_reported_although_nothing_can_be_remembered(watched, monkeypatch):
    """The one alert that matters now, held back because its state cannot be written."""
    rig = watched()

    def refuse(_path: Any, _state: Any) -> None:
        raise DeskError("alerts.json cannot be written: No space left on device")

    monkeypatch.setattr("cppncripto_strategy.desk.alerts.watch.save_state", refuse)
    rig.free = 0
    rig.wait(3)
    assert [named(alert) for _, alert in rig.inbox.alerts] == ["disk"]


def test_watching_changes_nothing_under_the_folder(watched):
    """A watcher whose lock keeps a session from starting, or that leaves files among results."""
    rig = watched()
    session = rig.session()
    session.start()
    session.round()

    def tree() -> dict[str, tuple[int, bytes]]:
        files = (path for path in rig.root.rglob("*") if path.is_file())
        return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}

    before = tree()
    rig.wait(10)
    assert tree() == before
    assert len(rig.inbox.alerts) == 1
    assert [path.name for path in rig.state_file.parent.iterdir()] == ["alerts.json"]


def test_damaged_state_is_refused(watched):
    """A state that was changed by hand, and everything is sent again."""
    rig = watched()
    rig.state_file.write_text(rig.state_file.read_text().replace("0", "1", 1))
    with pytest.raises(DeskError, match="Move it away"):
        rig.restart()


def test_a_target_gets_the_kinds_that_it_asks_for(watched):
    """A pager that rings at every fill."""
    target = [{"name": "inbox", "command": ["never-run"], "kinds": ["died"]}]
    rig = watched(target=target)
    session = rig.session()
    session.start()
    session.round()
    session.add("fills", **session.fill("filled", "signal"))
    session.die()
    rig.wait(6)
    assert [named(alert) for _, alert in rig.inbox.alerts] == ["died"]


def test_an_unreadable_session_hides_no_other(watched, caplog):
    """One damaged folder, and the watcher is blind."""
    rig = watched()
    (rig.root / "paper" / "bad").mkdir(parents=True)
    (rig.root / "paper" / "bad" / "session.json").write_text("{")
    session = rig.session("paper/good")
    session.start()
    rig.wait(6)
    assert [named(alert) for _, alert in rig.inbox.alerts] == ["started"]
    assert caplog.text.count("paper/bad") == 1 + caplog.text.count("paper/bad/session.json")

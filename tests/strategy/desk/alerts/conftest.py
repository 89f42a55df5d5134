"""A session that lives on a clock of the test's, and a watcher of its folder."""

from __future__ import annotations

import os
import shutil
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("apprise")

from cppncripto_strategy.desk.alerts import watch
from cppncripto_strategy.desk.alerts.settings import AlertSettings
from cppncripto_strategy.feeds.clock import DAY_MS, utc_to_ms
from cppncripto_strategy.feeds.live.journal import line_of
from cppncripto_strategy.feeds.live.rounds import Round
from cppncripto_strategy.paper import session as paper_session
from cppncripto_strategy.paper.session import SessionFacts, SessionFolder, session_lock

STEP_MS = 300_000
SYMBOLS = ("AUSDT", "BUSDT", "CUSDT")
BEGAN_MS = utc_to_ms("2024-05-20 10:00")


class Clock:
    """This machine's time, which the test moves."""

    def __init__(self) -> None:
        self.ms = utc_to_ms("2026-01-01 12:00")

    def __call__(self) -> int:
        return self.ms


class Acted:
    """A session as its own writers leave it, from the first live round on."""

    def __init__(self, path: Path, clock: Clock) -> None:
        facts = SessionFacts(
            symbols=SYMBOLS, interval="5m", first_ms=BEGAN_MS, created_ms=BEGAN_MS,
            broker={"cash": 1e4, "fee_bps": 10.0, "slippage_bps": 1.0, "allow_short": False},
        )  # fmt: skip
        SessionFolder.create(path, facts).close()
        self.path, self.clock = path, clock
        self.close_ms, self.lock = BEGAN_MS, None
        self.folder = SessionFolder(path, locked=True)

    def start(self) -> None:
        """Its process begins, and is connected."""
        self.lock = session_lock(self.path)
        self.folder.event("start", resumed=bool(self.folder.shown), rounds=self.folder.shown)
        self.folder.event("connected", away_s=None)

    def die(self) -> None:
        """kill -9: the lock is free, and nothing was said."""
        self.lock.release()
        self.lock = None

    def stop(self, reason: str = "stopped") -> None:
        """It ends and says so."""
        self.folder.event("stop", reason=reason, rounds=self.folder.shown)
        self.die()

    def round(self, to_ms: int | None = None, live: bool = True, **more: Any) -> int:
        """One more round, or the one that closes at `to_ms`; its close."""
        self.close_ms = self.close_ms + STEP_MS if to_ms is None else to_ms
        absent = {*more.get("gaps", ()), *more.get("stale", ())}
        row = (self.close_ms - STEP_MS, 1.0, 2.0, 0.5, 1.5, 1.0, 1.0, 1, 1.0, 1.0)
        candles = {symbol: row for symbol in SYMBOLS if symbol not in absent}
        moment = Round(self.close_ms, candles, **more)
        self.folder.journal([moment])
        self.folder.opened(moment, frozenset(candles) if live else frozenset())
        if not moment.catch_up:
            self.folder.derived["equity"].add({"t": self.close_ms, "equity": 1e4, "cash": 1e4})
        self.folder.settle()
        os.utime(self.path / "rounds.jsonl", ns=(self.clock.ms * 10**6,) * 2)
        return self.close_ms

    def add(self, journal: str, **record: Any) -> None:
        """A record of what follows from rounds."""
        self.folder.derived[journal].add(record)
        self.folder.settle()

    def fill(self, status: str, reason: str, symbol: str = "AUSDT") -> dict[str, Any]:
        """A row of fills.jsonl, not written yet."""
        return {
            "symbol": symbol, "created_ms": self.close_ms, "executed_ms": self.close_ms + 1,
            "side": "buy", "quantity": 0.5, "price": 100.0 if status == "filled" else None,
            "notional": 50.0, "fee": 0.05, "reference_price": 100.0, "reason": reason,
            "status": status, "detail": "2 % of the day's starting equity was lost",
        }  # fmt: skip

    def raw(self, journal: str, content: bytes) -> None:
        """Bytes at the end of a journal, as a disk or a kill may leave them."""
        with (self.path / f"{journal}.jsonl").open("ab") as file:
            file.write(content)

    def midnight(self) -> int:
        """The next 00:00 UTC of its candles."""
        return (self.close_ms // DAY_MS + 1) * DAY_MS


class Landed:
    """A message whose outcome is known at once."""

    def __init__(self, reason: str) -> None:
        self._reason = reason

    def result(self) -> str:
        return self._reason


class Inbox:
    """A target: what arrived, when; may refuse, and may kill the watcher."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.messages: list[tuple[int, dict[str, Any]]] = []
        self.refusals: deque[str] = deque()
        self.killing: str = ""

    def send(self, message: dict[str, Any]) -> str:
        killing, self.killing = self.killing, ""
        if killing == "before":
            raise Killed
        refusal = self.refusals.popleft() if self.refusals else ""
        if not refusal:
            self.messages.append((self._clock.ms, message))
        if killing == "after":
            raise Killed
        return refusal

    @property
    def alerts(self) -> list[tuple[int, dict[str, Any]]]:
        """(when it arrived, alert) of everything."""
        return [(ms, alert) for ms, message in self.messages for alert in message["alerts"]]


class Killed(BaseException):
    """kill -9, at a moment of the test's choosing."""


def parsed(values: dict[str, Any] | None = None) -> AlertSettings:
    """Settings with one target, and limits that tests count with."""
    limits = {"connection_lost_s": 20, "silent_s": 60, "disk_free_gb": 1}
    target = [{"name": "inbox", "command": ["never-run"]}]
    return AlertSettings.model_validate({"limits": limits, "target": target, **(values or {})})


class Watched:
    """A folder, its sessions, a clock, an inbox, and watchers one after the other."""

    def __init__(self, root: Path, state_file: Path, settings: AlertSettings) -> None:
        self.root, self.state_file, self.settings = root, state_file, settings
        self.clock = Clock()
        self.inbox = Inbox(self.clock)
        self.free = 10 * watch.GB

    def session(self, name: str = "paper/real") -> Acted:
        """A new session of this folder."""
        return Acted(self.root / name, self.clock)

    def restart(self) -> None:
        """A new watcher, which knows what is on disk."""
        self.watcher = watch.Watcher(
            self.root, self.settings, {"inbox": self.inbox}, self.state_file, self.clock,
            fly=lambda sender, message: Landed(sender.send(message)),
        )  # fmt: skip

    def look(self) -> None:
        """One look; a watcher that is killed in it is started again."""
        try:
            self.watcher.look()
        except Killed:
            self.restart()

    def wait(self, seconds: float, until: Callable[[], bool] = lambda: False) -> None:
        """Looks, twice a second."""
        end_ms = self.clock.ms + round(seconds * 1000)
        while self.clock.ms < end_ms and not until():
            self.clock.ms += 500
            self.look()


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Watched]:
    """Function of settings: `Watched`, on whose clock the session's writers note events."""

    def made(**settings: Any) -> Watched:
        found = Watched(tmp_path / "results", tmp_path / "state" / "alerts.json", parsed(settings))
        found.root.mkdir()
        wall = SimpleNamespace(time=lambda: found.clock.ms / 1000, monotonic=found.clock)
        monkeypatch.setattr(paper_session, "time", wall)
        # Thousands of looks: what a power cut leaves is other tests' business.
        monkeypatch.setattr(os, "fsync", lambda _handle: None)
        monkeypatch.setattr(os, "fdatasync", lambda _handle: None)
        monkeypatch.setattr(
            shutil, "disk_usage", lambda _path: SimpleNamespace(total=0, used=0, free=found.free)
        )
        found.restart()
        found.look()
        return found

    return made


@pytest.fixture(scope="session")
def acting() -> SimpleNamespace:
    """What tests of the session need besides."""
    return SimpleNamespace(symbols=SYMBOLS, step_ms=STEP_MS, line_of=line_of, parsed=parsed)

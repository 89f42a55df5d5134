"""What a session does once a day beside its trading: the day's report, and a checked checkpoint.

Both, and then the report's cross-check, are made by a process of its own, behind everything else
(`os.nice(19)`), so that no candle waits for them; the session itself only takes the SHA-256 of its
state, once a day, after the orders of that round are made. What the process has to say comes back
through a pipe and is heard between two rounds. What could not be made, because the session stopped
first, is made by the next start's. Left out: what stands in a report (`session_report`), how a
checkpoint is checked (`checking`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cppncripto_strategy.errors import CheckpointError, CppnError, SessionError
from cppncripto_strategy.feeds.clock import DAY_MS, ms_to_utc, utc_to_ms
from cppncripto_strategy.foreign import read_object, reading
from cppncripto_strategy.paper.beside import FAILED, Beside, Says
from cppncripto_strategy.paper.checking import next_checkpoint
from cppncripto_strategy.paper.create import options_of
from cppncripto_strategy.paper.day_crosscheck import DayChecks
from cppncripto_strategy.paper.packing import digest_of
from cppncripto_strategy.paper.recorder import Event, PaperStrategy
from cppncripto_strategy.paper.recording import Recording
from cppncripto_strategy.paper.session_report import day_report
from cppncripto_strategy.paper.trader import PaperSession
from cppncripto_strategy.results import write_json

log = logging.getLogger(__name__)

REPORT = "day"
CHECKPOINT, REFUSED = "checkpoint", "checkpoint refused"
# Seconds that the end of a session waits for a day's report under way.
PATIENCE_S = 20.0


class DayReports:
    """Starts the day's process once a day and hears what it has to say; lives as long as a session.

    Parameters
    ----------
    path : the session's folder.
    on_event : hears {"kind": "day", ...} of each report.
    """

    def __init__(self, path: Path, on_event: Event) -> None:
        self._path, self._on_event = path, on_event
        self._process: Beside | None = None
        self._day: int | None = None
        self._session: PaperSession | None = None

    def attach(self, session: PaperSession) -> None:
        """The session whose days are reported, before it runs."""
        self._session = session
        checkpoint = session.folder.checkpoint
        self._day = None if checkpoint is None else checkpoint.close_ms // DAY_MS

    def after_round(self, strategy: PaperStrategy) -> None:
        """Once the first round of a day is over, and no other waits, see to the day before."""
        session = self._session
        if session is None or session.source.replaying:
            return
        self._hear()
        moment = session.source.current
        if moment is None or moment.catch_up or session.source.waiting() or self._process:
            return
        day = moment.close_ms // DAY_MS
        if self._day is None:
            # Checkpoints begin with the first midnight; a restart's first day has none to wait for.
            self._day = day if not session.folder.resumed else day - 1
        if day > self._day:
            self._day = day
            self._begin(strategy, day * DAY_MS, session.folder.shown)

    def _begin(self, strategy: PaperStrategy, until_ms: int, rounds: int) -> None:
        try:
            digest = digest_of(strategy.snapshot())
        except CppnError as error:
            self._note(REFUSED, reason=str(error))
            digest = None
        self._process = Beside(see_to_day, str(self._path), until_ms, rounds, digest)

    def _hear(self) -> None:
        """Pass on what the process said; let go of it once it has ended."""
        if self._process is None:
            return
        ended = not self._process.running
        for event in self._process.events():
            self._pass_on(event)
        if ended:
            self._process = None

    def _pass_on(self, event: dict[str, Any]) -> None:
        if event["kind"] == REPORT:
            self._on_event(event)
        elif event["kind"] == FAILED:
            self._note("day process failed", reason=event["reason"])
        else:
            self._note(**event)

    def _note(self, kind: str, **facts: Any) -> None:
        assert self._session is not None
        log.info("%s: %s", kind, facts)
        self._session.folder.event(kind, **facts)

    def stop(self) -> None:
        """Wait a while for what is under way; what is not done then is left to the next start."""
        if self._process is None:
            return
        self._process.stop(PATIENCE_S)
        self._hear()


def see_to_day(session: str, until_ms: int, rounds: int, digest: str | None, says: Says) -> None:
    """Report the days that are over, make a checkpoint, then cross-check; in a process of its own.

    The second engine comes last: it takes seconds to load, and no report or restart needs it.

    Parameters
    ----------
    session : its folder. until_ms : 00:00 UTC of the day that has begun.
    rounds, digest : as `checking.next_checkpoint` takes them; no checkpoint when digest is None.
    says : hears events, each a dictionary with its `kind`.
    """
    path = Path(session)
    for report in missing_reports(path, until_ms):
        says({"kind": REPORT, **report})
    if digest is not None:
        says(_checkpoint(path, rounds, digest))
    add_crosschecks(path)


def missing_reports(path: Path, until_ms: int) -> Iterator[dict[str, Any]]:
    """Write the reports of the days that are over and have none; yields each of them."""
    recording = Recording.read(path)
    live_ms = recording.live_from_ms
    if live_ms is None:
        return
    for day_ms in range(live_ms // DAY_MS * DAY_MS, until_ms, DAY_MS):
        file = path / "days" / f"{ms_to_utc(day_ms)[:10]}.json"
        if file.exists():
            continue
        report = day_report(path, day_ms, recording)
        if report["candles"]:
            file.parent.mkdir(exist_ok=True)
            write_json(file, report)
            yield report


def add_crosschecks(path: Path) -> None:
    """Add to each day's report its cross-check by the second engine, or why there is none."""
    unchecked = {}
    for file in sorted((path / "days").glob("*.json")):
        with reading(file, "report of a day", SessionError):
            report = read_object(file)
        if "crosscheck" not in report:
            unchecked[file] = report
    if not unchecked:
        return
    checks = DayChecks(Recording.read(path), lambda: options_of(path))
    for file, report in unchecked.items():
        write_json(file, report | {"crosscheck": checks.of_day(utc_to_ms(file.stem))})


def _checkpoint(path: Path, rounds: int, digest: str) -> dict[str, Any]:
    """Make the next checkpoint, from the one before or else from the beginning; what came of it."""
    reasons: list[str] = []
    for whole in (False, True):
        try:
            made = next_checkpoint(path, options_of(path), rounds, digest, whole)
        except CheckpointError as error:
            reasons.append(str(error))
            continue
        made.save(path)
        return {"kind": CHECKPOINT, "rounds": rounds, "close_ms": made.close_ms, "not": reasons}
    return {"kind": REFUSED, "rounds": rounds, "reason": "; ".join(dict.fromkeys(reasons))}

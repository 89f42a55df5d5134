"""The watcher: looks at every session of a folder and at its disk, and sends alerts to targets.

It takes no lock of a session and asks it nothing. One look: read what is new, put alerts into the
queues, save both in one write, and only then hand messages over; a target that is slow or down
delays neither the next look nor another target.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from cppncripto_strategy.desk.alerts.delivery import Sender, wanted_by
from cppncripto_strategy.desk.alerts.kinds import Alert
from cppncripto_strategy.desk.alerts.outbox import Outbox
from cppncripto_strategy.desk.alerts.session import SessionAlerts
from cppncripto_strategy.desk.alerts.settings import AlertSettings
from cppncripto_strategy.desk.alerts.state import State, load_state, save_state
from cppncripto_strategy.desk.listing import SESSION, Listing
from cppncripto_strategy.errors import CppnError, DeskError

log = logging.getLogger(__name__)

# Seconds between two looks, and after which the folder is searched for new sessions.
LOOK_S, LIST_S = 0.5, 1.0
# Senders bound their own time; this is for one that does not keep its bound.
FLIGHT_S = 300.0
# At the end, what flies is waited for so long; what has not landed is sent again at the next start.
FAREWELL_S = 5.0
# A disk is roomy again with so much more than the limit: at the limit it would come and go.
ROOMY = 1.1
GB = 10**9


class Flight(Protocol):
    """A message on its way."""

    def result(self) -> str | None:
        """The reason why it did not arrive, empty when it did; None while it flies."""


class ThreadFlight:
    """Sends in a thread of its own, which does not keep the process alive, nor is waited for
    without end."""

    def __init__(self, sender: Sender, message: dict[str, Any]) -> None:
        self._reason: str | None = None
        self._until_s = time.monotonic() + FLIGHT_S
        self._sender, self._message = sender, message
        threading.Thread(target=self._run, name="alert", daemon=True).start()

    def _run(self) -> None:
        try:
            self._reason = self._sender.send(self._message)
        except Exception as error:  # a message must not stay in the air
            self._reason = type(error).__name__

    def result(self) -> str | None:
        """As `Flight`."""
        if self._reason is None and time.monotonic() > self._until_s:
            return f"it did not end within {FLIGHT_S:.0f} s"
        return self._reason


class Watcher:
    """Looks, remembers and tells; lives as long as its process, used by one thread.

    Parameters
    ----------
    folder : results, as for the desk.
    settings : what is reported, when, to whom.
    senders : name -> how a target is reached.
    state_file : where it remembers; what a first start finds there is history and not reported.
    now_ms : this machine's time, UTC milliseconds.
    fly : begins to send a message.

    Raises
    ------
    DeskError
        When the state is damaged.
    """

    def __init__(
        self,
        folder: Path,
        settings: AlertSettings,
        senders: Mapping[str, Sender],
        state_file: Path,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        fly: Callable[[Sender, dict[str, Any]], Flight] = ThreadFlight,
    ) -> None:
        self._folder, self._settings, self._senders = folder, settings, senders
        self._state_file, self._now_ms, self._fly = state_file, now_ms, fly
        kept = load_state(state_file)
        self._first = kept is None
        kept = kept or {"sessions": {}, "outboxes": {}, "disk_low": False}
        self._kept: dict[str, Any] = kept["sessions"]
        self._disk_low: bool = kept["disk_low"]
        self._outboxes = {
            name: Outbox(name, settings, kept["outboxes"].get(name)) for name in senders
        }
        self._flights: dict[str, Flight] = {}
        self._wanted = {name: set(wanted_by(settings, name)) for name in senders}
        self._listing = Listing(folder, lambda: now_ms() / 1000, LIST_S)
        self._sessions: dict[str, SessionAlerts] = {}
        self._complained: set[str] = set()
        self._saved: State | None = None

    def look(self) -> list[Alert]:
        """One look; returns what it found."""
        now_ms = self._now_ms()
        found = [*self._of_sessions(now_ms), *self._of_disk(now_ms)]
        self._first = False
        for alert in found:
            for name, outbox in self._outboxes.items():
                if alert.kind in self._wanted[name]:
                    outbox.put(alert, now_ms)
        self._save()
        self._deliver(now_ms)
        return found

    def run(self, stopping: threading.Event, look_s: float = LOOK_S) -> None:
        """Look until stopped, by the event or a signal; what flies then is waited for a while."""
        try:
            while not stopping.is_set():
                try:
                    self.look()
                except CppnError as error:  # the watcher is what must go on
                    self._complain(str(error))
                stopping.wait(look_s)
        finally:
            self._land()

    def _land(self) -> None:
        until_s = time.monotonic() + FAREWELL_S
        while self._flights and time.monotonic() < until_s:
            self._hear(self._now_ms())
            time.sleep(0.05)
        self._save()

    def _of_sessions(self, now_ms: int) -> list[Alert]:
        found: list[Alert] = []
        for entry in self._listing.of(SESSION):
            try:
                session = self._session(entry.name, entry.path)
                alerts = session.look(now_ms)
            except CppnError as error:
                self._complain(f"{entry.name}: {error}")
                continue
            # What lay there before anybody watched is history; so is what began in it.
            if session.known:
                found += alerts
            session.known = True
        return found

    def _session(self, name: str, path: Path) -> SessionAlerts:
        known = self._sessions.get(name)
        if known is not None and known.replaced:
            self._kept[name] = self._sessions.pop(name).record()
        if name not in self._sessions:
            made = SessionAlerts(path, name, self._settings.limits, self._kept.get(name))
            made.known = made.known or not self._first
            self._sessions[name] = made
        return self._sessions[name]

    def _of_disk(self, now_ms: int) -> Sequence[Alert]:
        limit = self._settings.limits.disk_free_gb * GB
        try:
            free = shutil.disk_usage(self._folder).free
        except OSError as error:
            self._complain(f"{self._folder}: {error.strerror}")
            return ()
        if self._disk_low:
            self._disk_low = free < limit * ROOMY
            return ()
        if free >= limit:
            return ()
        self._disk_low = True
        id = hashlib.sha256(f"disk\n{self._folder}\n{now_ms}".encode()).hexdigest()[:16]
        text = f"{free / GB:.1f} GB are free where the sessions write; then they stop"
        return [Alert(id, "disk", "", "", now_ms, text)]

    def _save(self) -> None:
        """Put what was read and what waits on disk, where it changed."""
        self._kept.update({name: one.record() for name, one in self._sessions.items()})
        state = {
            "sessions": dict(self._kept),
            "outboxes": {name: outbox.record() for name, outbox in self._outboxes.items()},
            "disk_low": self._disk_low,
        }
        if state == self._saved:
            return
        try:
            save_state(self._state_file, state)
            self._saved = state
        except DeskError as error:
            # That the disk is full has to be said all the same, at worst twice.
            self._complain(f"{error}; after a restart alerts may be repeated")

    def _deliver(self, now_ms: int) -> None:
        self._hear(now_ms)
        due = {name: outbox.due(now_ms) for name, outbox in self._outboxes.items()}
        self._save()  # that they fly is known before they do
        for name, message in due.items():
            if message is not None:
                self._flights[name] = self._fly(self._senders[name], message)

    def _hear(self, now_ms: int) -> None:
        for name, flight in list(self._flights.items()):
            reason = flight.result()
            if reason is None:
                continue
            del self._flights[name]
            if reason:
                self._outboxes[name].failed(reason, now_ms)
            else:
                self._outboxes[name].arrived()

    def _complain(self, text: str) -> None:
        """Once per reason: it is looked at twice a second."""
        if text not in self._complained:
            self._complained.add(text)
            log.error("%s", text)

"""What waits for one target, and which message is due: batches, quiet hours, retries, bounds.

A message is on disk as "flying" before it leaves. Killed meanwhile, a watcher cannot know whether
it arrived, so it is sent again and says so; every other alert is sent once.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from cppncripto_strategy.desk.alerts.kinds import CRITICAL, INFO, KINDS, URGENT, Alert
from cppncripto_strategy.desk.alerts.settings import AlertSettings, Quiet
from cppncripto_strategy.feeds.clock import HOUR_MS, SECOND_MS

log = logging.getLogger(__name__)

FORMAT = 1
# Sentences in one message; the alerts themselves are all in it for a program.
LINES = 20


class Outbox:
    """The alerts of one target; lives as long as its watcher.

    Parameters
    ----------
    name : the target's.
    settings : patience, quiet hours, bounds.
    kept : `record` of another one of this target, to continue from.

    Attributes
    ----------
    dropped : alerts that never arrive, since the last message that said so.
    """

    def __init__(
        self, name: str, settings: AlertSettings, kept: dict[str, Any] | None = None
    ) -> None:
        kept = kept or {}
        self.name, self._settings = name, settings
        self._waiting: list[tuple[int, Alert]] = [
            (since_ms, Alert.of(record)) for since_ms, record in kept.get("waiting", ())
        ]
        self._sending: list[dict[str, Any]] = list(kept.get("sending", ()))
        self.dropped: int = kept.get("dropped", 0)
        for entry in self._sending:
            if entry["flying"]:  # when its watcher ended; whether it arrived is not known
                entry["message"]["again"] = True
                entry["flying"], entry["next_ms"] = False, 0

    def record(self) -> dict[str, Any]:
        """All of it as JSON holds it."""
        return {
            "waiting": [[since_ms, alert.record()] for since_ms, alert in self._waiting],
            "sending": [{**entry, "message": dict(entry["message"])} for entry in self._sending],
            "dropped": self.dropped,
        }

    @property
    def empty(self) -> bool:
        """Whether nothing waits and nothing is being sent."""
        return not self._waiting and not self._sending

    def put(self, alert: Alert, now_ms: int) -> None:
        """An alert joins the queue; where it is full, the oldest one that matters least leaves."""
        self._waiting.append((now_ms, alert))
        if len(self._waiting) > self._settings.delivery.queue:
            least = next((n for n, (_, a) in enumerate(self._waiting) if a.severity != CRITICAL), 0)
            del self._waiting[least]
            self._lost(1, "its queue is full")

    def due(self, now_ms: int) -> dict[str, Any] | None:
        """The message to send now, marked as flying; None when there is none, or one flies.

        While a message is tried again only critical ones are made beside it: a target that is down
        gets what gathered meanwhile in few messages.
        """
        if any(entry["flying"] for entry in self._sending):
            return None
        message = self._next_message(now_ms, URGENT if self._sending else tuple(KINDS))
        if message is not None:
            entry: dict[str, Any] = {
                "message": message,
                "first_ms": now_ms,
                "next_ms": 0,
                "failures": 0,
            }
            self._sending.insert(0, {**entry, "flying": False})
        most_ms = round(self._settings.delivery.retry_most_s * SECOND_MS)
        for entry in self._sending:
            # A clock that was set back must not hold anything up.
            if not 0 < entry["next_ms"] - now_ms <= most_ms:
                entry["flying"] = True
                flying: dict[str, Any] = entry["message"]
                return flying
        return None

    def arrived(self) -> None:
        """The message that flew has arrived."""
        entry = self._landed()
        self.dropped -= entry["message"]["dropped"]
        self._sending.remove(entry)

    def failed(self, reason: str, now_ms: int) -> None:
        """It has not; it is sent again later, until it is given up."""
        entry, patience = self._landed(), self._settings.delivery
        if now_ms - entry["first_ms"] >= patience.give_up_h * HOUR_MS:
            self._sending.remove(entry)
            self._lost(len(entry["message"]["alerts"]), f"they never arrived ({reason})")
            return
        doubled = patience.retry_first_s * 2 ** min(entry["failures"], 30)
        wait_s = min(patience.retry_most_s, doubled)
        entry["failures"] += 1
        entry["next_ms"] = now_ms + round(wait_s * SECOND_MS)
        log.warning("target %s: not delivered (%s), again in %.0f s", self.name, reason, wait_s)

    def _landed(self) -> dict[str, Any]:
        [entry] = [entry for entry in self._sending if entry["flying"]]
        entry["flying"] = False
        return entry

    def _lost(self, count: int, why: str) -> None:
        self.dropped += count
        log.error("target %s: %d alerts dropped, %s", self.name, count, why)

    def _next_message(self, now_ms: int, kinds: Sequence[str]) -> dict[str, Any] | None:
        """All waiting alerts of the first of these kinds that need not wait any longer."""
        quiet = is_quiet(self._settings.quiet, now_ms)
        for kind in dict.fromkeys(alert.kind for _, alert in self._waiting):
            since_ms = min(at_ms for at_ms, alert in self._waiting if alert.kind == kind)
            window_s = 0.0 if kind in URGENT else self._settings.delivery.batch_s
            held = (
                quiet and self._settings.quiet and kind not in self._settings.quiet.breaks_through
            )
            if kind not in kinds or held or 0 <= now_ms - since_ms < window_s * SECOND_MS:
                continue
            alerts = [alert for _, alert in self._waiting if alert.kind == kind]
            self._waiting = [entry for entry in self._waiting if entry[1].kind != kind]
            return message_of(kind, alerts, self.dropped)
        return None


def is_quiet(quiet: Quiet | None, now_ms: int) -> bool:
    """Whether a moment (UTC ms) lies in quiet hours, by the clock of their time zone."""
    if quiet is None:
        return False
    zone = ZoneInfo(quiet.timezone)
    local = datetime.fromtimestamp(now_ms / 1000, UTC).astimezone(zone).time()
    if quiet.start <= quiet.end:
        return quiet.start <= local < quiet.end
    return local >= quiet.start or local < quiet.end


def message_of(kind: str, alerts: list[Alert], dropped: int = 0) -> dict[str, Any]:
    """Alerts of one kind as a message.

    format, id (of the message), kind, severity, title, alerts, dropped (alerts that never arrive),
    again (whether it may be a repetition). `words_of` makes sentences of it.
    """
    names = list(dict.fromkeys(alert.session for alert in alerts if alert.session))
    whose = names[0] if len(names) == 1 else f"{len(names)} sessions" if names else "this machine"
    count = f" ({len(alerts)})" if len(alerts) > 1 else ""
    severity = KINDS[kind][0] if kind in KINDS else INFO
    return {
        "format": FORMAT,
        "id": hashlib.sha256("".join(alert.id for alert in alerts).encode()).hexdigest()[:16],
        "kind": kind,
        "severity": severity,
        "title": f"{whose}: {kind.replace('_', ' ')}{count}",
        "alerts": [alert.record() for alert in alerts],
        "dropped": dropped,
        "again": False,
    }


def words_of(message: dict[str, Any]) -> str:
    """A message's sentences, one per line, at most twenty alerts."""
    alerts = message["alerts"]
    several = len({alert["session"] for alert in alerts}) > 1
    lines = [
        f"{alert['session']}: {alert['text']}" if several else alert["text"]
        for alert in alerts[:LINES]
    ]
    if len(alerts) > LINES:
        lines.append(f"and {len(alerts) - LINES} more")
    if message["dropped"]:
        lines.append(f"{message['dropped']} earlier alerts were dropped: the log says why")
    if message["again"]:
        lines.append("This may be a repetition: the watcher was killed while it sent it.")
    return "\n".join(lines)

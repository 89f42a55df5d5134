"""What an alert is, and every kind there is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

INFO, WARNING, CRITICAL = "info", "warning", "critical"

# Kind -> how much it matters, and what it says. Critical ones are sent at once and break quiet
# hours, unless the settings say otherwise.
KINDS: dict[str, tuple[str, str]] = {
    "started": (INFO, "a session's process began"),
    "stopped": (INFO, "a session was stopped, and said so"),
    "died": (CRITICAL, "a session's process is gone and never said so, or ended with an error"),
    "silent": (CRITICAL, "a session runs, and has written no candle for too long"),
    "connection_lost": (CRITICAL, "no connection to the exchange for longer than allowed"),
    "connection_back": (INFO, "connected again, after an alert that it was lost"),
    "stale": (WARNING, "a symbol's candle is late while others have theirs"),
    "gap": (WARNING, "a candle that the exchange never gave"),
    "exchange": (WARNING, "the exchange stopped a symbol, changed rules, or its clocks disagree"),
    "rollover_failed": (WARNING, "a day began with the embedding of an earlier one"),
    "fill": (INFO, "an order was filled"),
    "missed": (WARNING, "an order was not sent: its candle was seen too late"),
    "daily_loss": (CRITICAL, "the daily loss limit was reached: no entries until 00:00 UTC"),
    "drift_repair": (INFO, "drift asked for a repair of the networks"),
    "retraining_failed": (WARNING, "networks could not be retrained; the old ones stay"),
    "evidence": (INFO, "the evidence for a bet was opened or closed"),
    "summary": (INFO, "a UTC day of a session in numbers"),
    "disk": (CRITICAL, "the disk is nearly full"),
    "damaged": (CRITICAL, "lines of a session's journal are damaged"),
}
URGENT = tuple(kind for kind, (severity, _) in KINDS.items() if severity == CRITICAL)


@dataclass(frozen=True, slots=True)
class Alert:
    """Something that somebody should know.

    Parameters
    ----------
    id : the same for the same occurrence, always; another for any other.
    kind : of `KINDS`.
    session : the session's name below the watched folder; empty for the disk.
    symbol : empty where it concerns no single one.
    at_ms : when it happened, UTC milliseconds: of a candle's close by the exchange's clock, else
        by this machine's.
    text : one sentence without the session's name.
    """

    id: str
    kind: str
    session: str
    symbol: str
    at_ms: int
    text: str

    def record(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Alert:
        """What `record` was made of. Raises KeyError or TypeError where it is none."""
        return cls(**record)

    @property
    def severity(self) -> str:
        """How much it matters."""
        return KINDS[self.kind][0]

"""A session's journals as alerts: what each row means, given the rows before it.

A `Story` is all that a watcher remembers of a session: small, and JSON, so that it is kept over
restarts together with the byte up to which each journal was read. Rows from before the session
went live are history and give no alert.

Left out: reading the journals, and what only looking from outside shows (`watch`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from cppncripto_strategy.desk.journals import Record
from cppncripto_strategy.feeds.clock import DAY_MS, SECOND_MS, ms_to_utc
from cppncripto_strategy.paper.exchange_events import in_words

# What an alert is made of, but for the session's name: kind, symbol, at_ms, text.
Reported = Iterator[tuple[str, str, int, str]]
_CONNECTION = ("connected", "connection_lost")
_NO_REPAIR = ("keep", "retrain")  # drift is small; the calendar asked


@dataclass(slots=True)
class Story:
    """What is known of a session from the rows so far.

    Parameters
    ----------
    live_ms : close of the first round that might be traded on; None before.
    run, run_ms : the last of "start" and "stop", and when (local, UTC ms).
    died_reported : an alert said that this run's process is gone.
    linked_ms : when it was connected last (local, UTC ms).
    lost_ms : since when (local, UTC ms) there is no connection; None while there is one.
    lost_limit_ms : how long the connection may be lost, of the settings.
    lost_reported, silent_reported : whether an alert said so.
    stale : symbols that were late in the last round.
    evidence : bet -> whether it was open at the day weighed last.
    loss_day : day (UTC ms) whose loss limit was reported.
    day_ms, day_equity : the day that runs, and the equity with which it began.
    counts : day (as text) -> fills, missed orders, gaps.
    last_ms : of each journal, the newest time read; what is computed again is not reported again.
    """

    live_ms: int | None = None
    run: str = ""
    run_ms: int = 0
    died_reported: bool = False
    linked_ms: int = 0
    lost_ms: int | None = None
    lost_limit_ms: int = 60_000
    lost_reported: bool = False
    silent_reported: bool = False
    stale: list[str] = field(default_factory=list)
    evidence: dict[str, bool] = field(default_factory=dict)
    loss_day: int = -1
    day_ms: int | None = None
    day_equity: float = 0.0
    counts: dict[str, list[int]] = field(default_factory=dict)
    last_ms: dict[str, int] = field(default_factory=dict)

    def live(self, close_ms: int) -> bool:
        """Whether a round counts: the session was live by then."""
        return self.live_ms is not None and close_ms >= self.live_ms

    def count(self, ms: int, which: int) -> None:
        """One more fill (0), missed order (1) or gap (2) of the day."""
        self.counts.setdefault(str(ms // DAY_MS), [0, 0, 0])[which] += 1


def opened(story: Story, row: Record) -> Reported:
    """A round was shown: from the first one that may be traded on, the session is live."""
    if story.live_ms is None and row["a"]:
        story.live_ms = int(row["t"])
    yield from ()


def rounds(story: Story, row: Record) -> Reported:
    """Candles came: gaps, and symbols that begin to be late."""
    close_ms = int(row["t"])
    story.silent_reported = False
    if not story.live(close_ms):
        return
    for symbol in row.get("g", ()):
        story.count(close_ms, 2)
        at = ms_to_utc(close_ms)
        yield "gap", str(symbol), close_ms, f"the candle of {symbol} that closed at {at} is missing"
    if not row.get("u"):
        late = [str(symbol) for symbol in row.get("s", ())]
        for symbol in late:
            if symbol not in story.stale:
                yield "stale", symbol, close_ms, f"{symbol} is late while others have their candle"
        story.stale = late


def fills(story: Story, row: Record) -> Reported:
    """An order was filled, or could not be sent."""
    symbol, ms = str(row["symbol"]), int(row["executed_ms"])
    if not story.live(int(row["created_ms"])):
        return
    order = f"{row['side']} {float(row['quantity']):g} {symbol}"
    if row["status"] == "filled":
        story.count(ms, 0)
        yield "fill", symbol, ms, f"{order} at {float(row['price']):g} ({row['reason']})"
    elif row["reason"] == "can_trade":
        story.count(ms, 1)
        yield "missed", symbol, ms, f"{order} was not sent: its candle was seen too late"
    elif row["reason"] == "daily_loss" and (day := ms // DAY_MS * DAY_MS) != story.loss_day:
        story.loss_day = day
        yield "daily_loss", symbol, ms, str(row["detail"])


def equity(story: Story, row: Record) -> Reported:
    """The account after a round; the first one of a day ends the day before."""
    close_ms, value = int(row["t"]), float(row["equity"])
    if not story.live(close_ms):
        return
    day_ms = close_ms // DAY_MS * DAY_MS
    before_ms = story.day_ms
    if before_ms is not None and day_ms > before_ms:
        yield "summary", "", close_ms, _summary(story, before_ms, value)
        for day in [day for day in story.counts if int(day) * DAY_MS < day_ms]:
            del story.counts[day]
    if before_ms is None or day_ms > before_ms:
        story.day_ms, story.day_equity = day_ms, value


def _summary(story: Story, day_ms: int, value: float) -> str:
    filled, missed, gaps = story.counts.get(str(day_ms // DAY_MS), (0, 0, 0))
    change = value / story.day_equity - 1 if story.day_equity else 0.0
    return (
        f"{ms_to_utc(day_ms)[:10]}: {100 * change:+.2f} %, equity {value:,.2f}, fills {filled},"
        f" missed orders {missed}, gaps {gaps}"
    )


def embeddings(story: Story, row: Record) -> Reported:
    """A day's active embedding: valid from an earlier day, its rollover failed."""
    session_ms, valid_ms = int(row["session_ms"]), int(row["valid_from_ms"])
    if story.live(session_ms) and valid_ms < session_ms:
        symbol = str(row["symbol"])
        text = f"the rollover of {symbol} failed: its embedding is of {ms_to_utc(valid_ms)[:10]}"
        yield "rollover_failed", symbol, session_ms, text


def evidence(story: Story, row: Record) -> Reported:
    """A day was weighed: evidence that begins or ends."""
    bet, is_open, day_ms = str(row["bet"]), bool(row["open"]), int(row["session_ms"])
    before, story.evidence[bet] = story.evidence.get(bet, False), is_open
    if is_open != before and story.live(day_ms + DAY_MS):
        wealth, needed = float(row["wealth"]), float(row["needed"])
        state = "there is evidence" if is_open else "the evidence is gone"
        yield "evidence", "", day_ms, f"{bet}: {state} ({wealth:.2f} of {needed:.0f})"


def events(story: Story, row: Record) -> Reported:
    """Starts, stops, the connection, retraining, and what the exchange did."""
    kind, at_ms = str(row["kind"]), int(row["at_ms"])
    if kind in ("start", "stop"):
        yield from _run(story, row, kind, at_ms)
    elif kind in _CONNECTION:
        yield from _link(story, kind, at_ms)
    elif kind == "retraining failed":
        yield "retraining_failed", "", at_ms, f"retraining failed: {row['reason']}"
    elif kind == "retraining decided" and row["repair"] not in _NO_REPAIR:
        yield "drift_repair", "", at_ms, f"drift asks to {row['repair']}: {row['reason']}"
    elif words := in_words(row):
        yield "exchange", str(row.get("symbol") or ""), at_ms, words


def _run(story: Story, row: Record, kind: str, at_ms: int) -> Reported:
    if kind == "start":
        if story.run == "start" and not story.died_reported:
            yield "died", "", at_ms, "the process before this one is gone and never said so"
        yield "started", "", at_ms, "resumed" if row.get("resumed") else "started"
    elif row.get("reason") == "error":
        yield "died", "", at_ms, "ended with an error: its log says which"
    else:
        yield "stopped", "", at_ms, f"stopped: {row.get('reason', '')}"
    story.run, story.run_ms, story.died_reported = kind, at_ms, False
    story.lost_ms = at_ms if kind == "start" else None
    story.lost_reported = story.silent_reported = False


def _link(story: Story, kind: str, at_ms: int) -> Reported:
    if kind == "connection_lost":
        story.lost_ms = at_ms
        return
    since_ms, reported, story.linked_ms = story.lost_ms, story.lost_reported, at_ms
    story.lost_ms, story.lost_reported = None, False
    if since_ms is None:
        return
    away_s = (at_ms - since_ms) / SECOND_MS
    if reported:
        yield "connection_back", "", at_ms, f"connected again after {away_s:.0f} s"
    elif at_ms - since_ms >= story.lost_limit_ms:  # nobody looked meanwhile
        yield "connection_lost", "", at_ms, f"was not connected for {away_s:.0f} s, and is again"


# Journal -> what a row of it means, and the field that says when. What a round's other journals
# say of it is read before its `opened` and `rounds`, and folded after them.
ROWS: dict[str, tuple[Callable[[Story, Record], Reported], str]] = {
    "events": (events, "at_ms"),
    "opened": (opened, "t"),
    "rounds": (rounds, "t"),
    "equity": (equity, "t"),
    "fills": (fills, "executed_ms"),
    "embeddings": (embeddings, "session_ms"),
    "evidence": (evidence, "session_ms"),
}


def fold(story: Story, journal: str, row: Record, again: bool) -> list[tuple[str, str, int, str]]:
    """What a row gives rise to; nothing where a journal is read again up to what was read before.

    Raises
    ------
    KeyError, TypeError, ValueError, AttributeError
        When the row is not what its journal holds.
    """
    meaning, when = ROWS[journal]
    at_ms = int(row[when])
    if again and at_ms <= story.last_ms.get(journal, -1):
        return []
    reported = list(meaning(story, row))
    story.last_ms[journal] = max(at_ms, story.last_ms.get(journal, -1))
    return reported


def story_of(record: dict[str, Any]) -> Story:
    """What `dataclasses.asdict` made of a story. Raises TypeError where it is none."""
    return Story(**record)

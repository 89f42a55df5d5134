"""Closed candles on their way into rounds: in order per symbol, together across symbols.

A round is complete when every symbol's candle of a closing time is here, proved absent, or late
beyond a deadline; then the symbol is stale until it has caught up. No sockets, no REST, no disk:
the stream feeds it and publishes what is complete.
"""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import Sequence

from cppncripto_strategy.feeds.candles import Candles, Row, row_problem
from cppncripto_strategy.feeds.clock import Span, ms_to_utc
from cppncripto_strategy.feeds.live.notices import GapWithdrawn, Listener, Restated, unheard
from cppncripto_strategy.feeds.live.rounds import Round, now_s, rows_of
from cppncripto_strategy.feeds.live.series import Series
from cppncripto_strategy.feeds.live.stream_settings import StreamPlan, StreamSettings

log = logging.getLogger(__name__)

# Candles that have just closed, and the one that forms, are the present.
_PRESENT_CANDLES = 3


class Assembly:
    """The candles of several symbols; lives as long as its stream, touched only from its loop.

    Parameters
    ----------
    plan : the symbols, the next candle of each, the gaps published before, and the candles that
        are here already.
    patience : how long what is late, absent or doubtful is waited for.
    counters : counts rejected, withdrawn, restated, stale_frames, duplicates, catch_up, stale and
        unfinished.
    tell : hears of restated candles and withdrawn gaps.

    Attributes
    ----------
    series : symbol -> its state.
    gap_list : (symbol, open time) of every gap published.
    """

    def __init__(
        self,
        plan: StreamPlan,
        patience: StreamSettings,
        counters: Counter[str],
        tell: Listener = unheard,
    ) -> None:
        first = plan.first_open
        self.series = {
            symbol: Series(symbol, open_ms, plan.interval_ms, plan.gaps.get(symbol, ()))
            for symbol, open_ms in first.items()
        }
        for symbol, candles in plan.known.items():
            rows = rows_of(candles.between(first[symbol], 2**62))
            self.series[symbol].pending.update({int(row[0]): row for row in rows})
        self.interval_ms, self.patience = plan.interval_ms, patience
        self.counters = counters
        self.gap_list: list[tuple[str, int]] = []
        self._tell = tell
        self._anchor_ms = plan.start_ms
        self._frontier = plan.start_ms  # open time of the next round
        self._waiting = (-1, 0.0)  # the round waited for, since when (monotonic seconds)
        self._joining_s: float | None = None  # since when candles wait for others to catch up
        self._received_s = 0.0
        self._past_ms = 0  # rounds that open before it are of the past

    def accept(self, series: Series, row: Row) -> None:
        """A closed candle from the stream or REST."""
        open_ms = int(row[0])
        problem = self.problem(row)
        if problem is not None:
            self.counters["rejected"] += 1
            log.warning("%s %s: %s", series.symbol, ms_to_utc(open_ms), problem)
        elif open_ms in series.gaps:
            del series.gaps[open_ms]
            series.withdrawn[open_ms] = row
        elif (first := series.first_values(open_ms)) is not None:
            self._again(series, first, row)
        elif open_ms < series.next_open:
            self.counters["stale_frames"] += 1
        else:
            series.put(row)
            self._received_s = now_s()

    def problem(self, row: Row) -> str | None:
        """The rule a row breaks, or None."""
        return row_problem(row, self.interval_ms, self._anchor_ms)

    def _again(self, series: Series, first: Row, row: Row) -> None:
        """A closed candle that was here before: the first values stay."""
        open_ms = int(row[0])
        shown = open_ms < series.next_open
        self.counters["stale_frames" if shown else "duplicates"] += 1
        if _same(series.restated.get(open_ms, first), row):
            return
        series.restated[open_ms] = row
        self.counters["restated"] += 1
        log.warning("%s %s came again with other values", series.symbol, ms_to_utc(open_ms))
        self._tell(Restated(series.symbol, open_ms, first, row))

    def lacking(self, series: Series, closed_ms: int) -> list[Span]:
        """The stretches of closed slots that are not resolved, oldest first."""
        spans: list[Span] = []
        for open_ms in series.unresolved(closed_ms):
            if spans and spans[-1].end_ms == open_ms:
                spans[-1] = Span(spans[-1].start_ms, open_ms + self.interval_ms)
            else:
                spans.append(Span(open_ms, open_ms + self.interval_ms))
        return spans

    def take_read(self, series: Series, candles: Candles, span: Span, closed_ms: int) -> None:
        """A complete REST answer about a span and what follows it: its final candles are accepted,
        and slots of the span that it passes over are evidence of a gap.

        Parameters
        ----------
        candles : as the exchange shows them, the forming one included.
        span : the slots that were lacking.
        closed_ms : the time that had come when the answer was asked for, less the margin.
        """
        at_s = now_s()
        rows = rows_of(candles)
        newest = next((int(row[0]) for row in reversed(rows) if self.problem(row) is None), -1)
        series.see(newest)
        unfinished = set()
        for row in rows:
            open_ms = int(row[0])
            if open_ms + self.interval_ms > closed_ms:
                continue
            if open_ms < series.next_open or open_ms in series.pending:
                self._review(series, row, newest)
            elif series.final(row, open_ms < newest, at_s, self.patience):
                self.accept(series, row)
            else:
                unfinished.add(open_ms)
                self.counters["unfinished"] += 1
        for open_ms in range(span.start_ms, min(span.end_ms, newest), self.interval_ms):
            closed = series.next_open <= open_ms <= closed_ms - self.interval_ms
            if closed and open_ms not in series.pending and open_ms not in unfinished:
                traded = series.traded(open_ms)
                confirm_s = self.patience.doubt_s if traded else self.patience.gap_confirm_s
                series.note_absent(open_ms, at_s, confirm_s)

    def review(self, series: Series, candles: Candles) -> None:
        """Candles read again after they were shown: a gap among them may be withdrawn."""
        rows = rows_of(candles)
        newest = max((int(row[0]) for row in rows), default=-1)
        for row in rows:
            if int(row[0]) < series.next_open:
                self._review(series, row, newest)

    def _review(self, series: Series, row: Row, newest: int) -> None:
        """Compare a row with what is known; REST may lag behind with the newest it shows."""
        first = series.first_values(int(row[0]))
        if int(row[0]) >= newest:
            return
        if int(row[0]) in series.gaps or (first is not None and not _same(first, row)):
            self.accept(series, row)

    def complete(self, now_ms: int = 0) -> list[Round]:
        """The rounds that are complete now, oldest first; each is given once.

        `now_ms` is the exchange's time, which divides the past from the present: nobody trades
        on the past, so there symbols whose past is still being read are waited for longer.
        """
        self._past_ms = now_ms - _PRESENT_CANDLES * self.interval_ms
        rounds: list[Round] = []
        while True:
            rounds += self._catch_up()
            following = self._next_round()
            if following is None:
                return rounds
            rounds.append(following)

    def note_published(self, rounds: Sequence[Round]) -> None:
        """Count rounds that are on disk and shown, and remember their gaps."""
        self.counters["published"] += len(rounds)
        for published in rounds:
            open_ms = published.close_ms - self.interval_ms
            self.gap_list += [(symbol, open_ms) for symbol in published.gaps]
            for symbol in published.gaps:
                self.series[symbol].note_gap(open_ms)
            for symbol, row in published.withdrawn.items():
                self.counters["withdrawn"] += 1
                log.error("%s %s was called a gap and exists", symbol, ms_to_utc(open_ms))
                self._tell(GapWithdrawn(symbol, open_ms, row))
        self.counters["gaps"] = len(self.gap_list)

    def _catch_up(self) -> list[Round]:
        """Rounds of what is older than the frontier and here by now, one per closing time."""
        if not self._joined():
            return []
        candles: dict[int, dict[str, Row]] = {}
        gaps: dict[int, list[str]] = {}
        withdrawn: dict[int, dict[str, Row]] = {}
        for symbol, series in self.series.items():
            while series.next_open < self._frontier and series.resolved(series.next_open):
                open_ms = series.next_open
                row = self._take(series, open_ms)
                if row is None:
                    gaps.setdefault(open_ms, []).append(symbol)
                else:
                    candles.setdefault(open_ms, {})[symbol] = row
                self.counters["catch_up"] += 1
            for open_ms, row in series.withdrawn.items():
                withdrawn.setdefault(open_ms, {})[symbol] = row
            series.withdrawn.clear()
        return [
            Round(
                open_ms + self.interval_ms,
                candles.get(open_ms, {}),
                tuple(gaps.get(open_ms, ())),
                catch_up=True,
                withdrawn=withdrawn.get(open_ms, {}),
                received_s=self._received_s,
            )
            for open_ms in sorted({*candles, *gaps, *withdrawn})
        ]

    def _joined(self) -> bool:
        """Whether what waits to catch up has waited long enough for the other symbols."""
        behind = [s for s in self.series.values() if s.next_open < self._frontier]
        ready = [s for s in behind if s.resolved(s.next_open)]
        if len(ready) == len(behind):
            self._joining_s = None
            return True
        if not ready:
            self._joining_s = None
            return any(series.withdrawn for series in self.series.values())
        if self._joining_s is None:
            self._joining_s = now_s()
        reading = any(s.backfilling and s.next_open < self._past_ms for s in behind)
        longest_s = self.patience.backfill_s if reading else self.patience.close_grace_s
        if now_s() - self._joining_s < longest_s:
            return False
        self._joining_s = None
        return True

    def _next_round(self) -> Round | None:
        """The round at the frontier, or None while it must be waited for."""
        open_ms = self._frontier
        behind = [s for s in self.series.values() if s.next_open < open_ms]
        level = [s for s in self.series.values() if s.next_open == open_ms]
        missing = [s for s in level if not s.resolved(open_ms)]
        if len(missing) == len(level):
            return None
        awaited = [s for s in missing if not s.stopped]
        if awaited and not self._too_late(open_ms, level, awaited):
            return None
        late = tuple(s.symbol for s in (*behind, *missing))
        candles, gaps = {}, []
        for series in level:
            if series in missing:
                self.counters["stale"] += 1
                log.warning("%s is late and stale from here", series.symbol)
                continue
            row = self._take(series, open_ms)
            if row is None:
                gaps.append(series.symbol)
            else:
                candles[series.symbol] = row
        self._frontier += self.interval_ms
        return Round(self._frontier, candles, tuple(gaps), late, received_s=self._received_s)

    def _too_late(self, open_ms: int, level: Sequence[Series], awaited: Sequence[Series]) -> bool:
        """Whether the others have waited long enough for a late symbol.

        When no symbol has this candle, the exchange or our line to it is down: all wait. The
        wait begins when the first one has it, not at its close: after an outage all are old.
        """
        if not any(open_ms in series.pending for series in level):
            return False
        if self._waiting[0] != open_ms:
            self._waiting = (open_ms, time.monotonic())
        reading = open_ms < self._past_ms and any(series.backfilling for series in awaited)
        longest_s = self.patience.backfill_s if reading else self.patience.stale_after_s
        return time.monotonic() - self._waiting[1] > longest_s

    def _take(self, series: Series, open_ms: int) -> Row | None:
        row = series.take(open_ms)
        if row is None:
            log.warning("%s %s does not exist", series.symbol, ms_to_utc(open_ms))
        return row


def _same(first: Row, now: Row) -> bool:
    """Whether two rows of one candle agree; a value unknown to either (NaN) is no difference."""
    return all(a == b or math.isnan(a) or math.isnan(b) for a, b in zip(first, now, strict=True))

"""Closed candles on their way into rounds: in order per symbol, together across symbols.

A round is complete when every symbol's candle of a closing time is here, proved absent, or late
beyond a deadline; then the symbol is stale until it has caught up. No sockets, no REST, no disk:
the stream feeds it and publishes what is complete.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Sequence

from cppncripto_strategy.feeds.candles import Candles
from cppncripto_strategy.feeds.clock import Span, ms_to_utc
from cppncripto_strategy.feeds.live.rounds import Round, Row, now_s, row_problem, rows_of
from cppncripto_strategy.feeds.live.stream_settings import StreamPlan

log = logging.getLogger(__name__)


class Series:
    """One symbol: what is expected next, what has arrived, what seems not to exist.

    Lives as long as the stream; touched only from the stream's loop.
    """

    def __init__(self, symbol: str, next_open: int) -> None:
        self.symbol = symbol
        self.next_open = next_open
        self.pending: dict[int, Row] = {}
        self.absent: dict[int, tuple[float, int]] = {}  # open -> (first seen absent, reads)
        self.newest_seen = next_open  # open time of the newest candle any frame spoke of
        self.fetching = False
        self.fetch_now = False
        self.not_before_s = 0.0

    def resolved(self, open_ms: int) -> bool:
        """Whether this slot's candle is here or proved absent."""
        return open_ms in self.pending or self.absent.get(open_ms, (0.0, 0))[1] >= 2

    def note_absent(self, open_ms: int, at_s: float, confirm_s: float) -> None:
        """A successful REST read shows no candle here; twice, apart, is a proof."""
        first_s, reads = self.absent.get(open_ms, (at_s, 0))
        if reads == 0 or at_s - first_s >= confirm_s:
            self.absent[open_ms] = (first_s, reads + 1)


class Assembly:
    """The candles of several symbols; lives as long as its stream, touched only from its loop.

    Parameters
    ----------
    plan : the symbols, the next candle of each, and the candles that are here already.
    stale_after_s : wall seconds that symbols with a candle wait for one without.
    counters : counts rejected, false_gaps, stale_frames, duplicates, catch_up and stale.

    Attributes
    ----------
    series : symbol -> its state.
    gap_list : (symbol, open time) of every gap published.
    """

    def __init__(
        self,
        plan: StreamPlan,
        stale_after_s: float,
        counters: Counter[str],
    ) -> None:
        first = plan.first_open
        self.series = {symbol: Series(symbol, open_ms) for symbol, open_ms in first.items()}
        for symbol, candles in plan.known.items():
            rows = rows_of(candles.between(first[symbol], 2**62))
            self.series[symbol].pending.update({int(row[0]): row for row in rows})
        self.interval_ms, self.stale_after_s = plan.interval_ms, stale_after_s
        self.counters = counters
        self.gap_list: list[tuple[str, int]] = []
        self._anchor_ms = plan.start_ms
        self._frontier = plan.start_ms  # open time of the next round
        self._waiting = (-1, 0.0)  # the round waited for, since when (monotonic seconds)
        self._received_s = 0.0

    def accept(self, series: Series, row: Row) -> None:
        """A closed candle from the stream or REST."""
        open_ms = int(row[0])
        problem = row_problem(row, self.interval_ms, self._anchor_ms)
        if problem is not None:
            self.counters["rejected"] += 1
            log.warning("%s %s: %s", series.symbol, ms_to_utc(open_ms), problem)
        elif open_ms < series.next_open:
            late = (series.symbol, open_ms) in self.gap_list[-1000:]
            self.counters["false_gaps" if late else "stale_frames"] += 1
            if late:
                log.error(
                    "%s %s came after two REST reads had shown that it does not exist",
                    series.symbol,
                    ms_to_utc(open_ms),
                )
        elif open_ms in series.pending:
            self.counters["duplicates"] += 1
        else:
            series.pending[open_ms] = row
            series.newest_seen = max(series.newest_seen, open_ms)
            series.absent.pop(open_ms, None)
            self._received_s = now_s()

    def lacking(self, series: Series, closed_until_ms: int) -> list[Span]:
        """The stretches of closed slots that are not resolved, oldest first."""
        spans: list[Span] = []
        open_ms = series.next_open
        while open_ms + self.interval_ms <= closed_until_ms:
            if not series.resolved(open_ms):
                if spans and spans[-1].end_ms == open_ms:
                    spans[-1] = Span(spans[-1].start_ms, open_ms + self.interval_ms)
                else:
                    spans.append(Span(open_ms, open_ms + self.interval_ms))
            open_ms += self.interval_ms
        return spans

    def take_read(
        self, series: Series, candles: Candles, span: Span, confirm_s: tuple[float, float]
    ) -> None:
        """A complete REST read of a span: what it holds, and what it shows to be absent.

        Parameters
        ----------
        confirm_s : minimum seconds between two reads that prove a gap, and the same while nothing
            newer of the symbol was seen.
        """
        for row in rows_of(candles):
            if int(row[0]) not in series.pending:
                self.accept(series, row)
        present = set(candles.open_time.tolist())
        at_s = time.monotonic()
        for open_ms in range(span.start_ms, span.end_ms, self.interval_ms):
            if open_ms not in present and open_ms >= series.next_open:
                silent = series.newest_seen <= open_ms
                series.note_absent(open_ms, at_s, confirm_s[silent])

    def complete(self) -> list[Round]:
        """The rounds that are complete now, oldest first; each is given once."""
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
        self.counters["gaps"] = len(self.gap_list)

    def _catch_up(self) -> list[Round]:
        """Rounds of stale symbols' candles that have arrived by now, in order of time."""
        rounds = []
        for series in self.series.values():
            while series.next_open < self._frontier and series.resolved(series.next_open):
                open_ms = series.next_open
                row = self._take(series, open_ms)
                candles = {} if row is None else {series.symbol: row}
                gaps = (series.symbol,) if row is None else ()
                rounds.append(
                    Round(open_ms + self.interval_ms, candles, gaps, (), True, self._received_s)
                )
                self.counters["catch_up"] += 1
        return sorted(rounds, key=lambda late: late.close_ms)

    def _next_round(self) -> Round | None:
        """The round at the frontier, or None while it must be waited for."""
        open_ms = self._frontier
        behind = [s for s in self.series.values() if s.next_open < open_ms]
        level = [s for s in self.series.values() if s.next_open == open_ms]
        missing = [s for s in level if not s.resolved(open_ms)]
        if not level:
            return None
        if missing and not self._too_late(open_ms, level):
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

    def _too_late(self, open_ms: int, level: Sequence[Series]) -> bool:
        """Whether the others have waited long enough for a late symbol.

        When no symbol has this candle, the exchange or our line to it is down: all wait. The
        wait begins when the first one has it, not at its close: after an outage all are old.
        """
        if not any(open_ms in series.pending for series in level):
            return False
        if self._waiting[0] != open_ms:
            self._waiting = (open_ms, time.monotonic())
        return time.monotonic() - self._waiting[1] > self.stale_after_s

    def _take(self, series: Series, open_ms: int) -> Row | None:
        series.next_open = open_ms + self.interval_ms
        absent = series.absent.pop(open_ms, None)
        row = series.pending.pop(open_ms, None)
        if row is None:
            log.warning("%s %s does not exist (%s)", series.symbol, ms_to_utc(open_ms), absent)
        return row

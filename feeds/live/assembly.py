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
from collections.abc import Collection, Sequence

from cppncripto_strategy.feeds.candles import Candles, Row, row_problem
from cppncripto_strategy.feeds.clock import Span, ms_to_utc
from cppncripto_strategy.feeds.live.notices import GapWithdrawn, Listener, Restated, unheard
from cppncripto_strategy.feeds.live.rounds import Round, now_s, rows_of
from cppncripto_strategy.feeds.live.stream_settings import StreamPlan

log = logging.getLogger(__name__)


# Candles shown of each symbol that are remembered, so that one that comes again is compared.
REMEMBERED = 64
# Published gaps of each symbol that a late candle may still withdraw.
_GAPS_REMEMBERED = 10_000


class Series:
    """One symbol: what is expected next, what has arrived, what seems not to exist.

    Lives as long as the stream; touched only from the stream's loop.
    """

    def __init__(self, symbol: str, next_open: int, gaps: Collection[int] = ()) -> None:
        self.symbol = symbol
        self.next_open = next_open
        self.pending: dict[int, Row] = {}
        self.absent: dict[int, tuple[float, int]] = {}  # open -> (first seen absent, reads)
        self.shown: dict[int, Row] = {}  # the latest published, oldest first
        self.restated: dict[int, Row] = {}  # the values last reported of a candle that came again
        self.gaps = dict.fromkeys(sorted(gaps))  # published and not withdrawn, in order
        self.withdrawn: dict[int, Row] = {}  # candles of former gaps, not published yet
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

    def first_values(self, open_ms: int) -> Row | None:
        """The candle as it was first received, while it is remembered."""
        return self.pending.get(open_ms) or self.shown.get(open_ms)

    def take(self, open_ms: int, interval_ms: int) -> Row | None:
        """The candle of the next slot, None for a gap; the one after it comes next."""
        self.next_open = open_ms + interval_ms
        row = self.pending.pop(open_ms, None)
        if row is not None:
            self.shown[open_ms] = row
            while len(self.shown) > REMEMBERED:
                oldest = next(iter(self.shown))
                del self.shown[oldest]
                self.restated.pop(oldest, None)
        return row

    def note_gap(self, open_ms: int) -> None:
        """A gap was published; a candle that appears there withdraws it."""
        self.gaps[open_ms] = None
        while len(self.gaps) > _GAPS_REMEMBERED:
            del self.gaps[next(iter(self.gaps))]


class Assembly:
    """The candles of several symbols; lives as long as its stream, touched only from its loop.

    Parameters
    ----------
    plan : the symbols, the next candle of each, the gaps published before, and the candles that
        are here already.
    stale_after_s : wall seconds that symbols with a candle wait for one without.
    counters : counts rejected, withdrawn, restated, stale_frames, duplicates, catch_up and stale.
    tell : hears of restated candles and withdrawn gaps.
    join_s : wall seconds that candles which catch up wait for those of other symbols, so that one
        closing time is one round.

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
        tell: Listener = unheard,
        join_s: float = 0.0,
    ) -> None:
        first = plan.first_open
        self.series = {
            symbol: Series(symbol, open_ms, plan.gaps.get(symbol, ()))
            for symbol, open_ms in first.items()
        }
        for symbol, candles in plan.known.items():
            rows = rows_of(candles.between(first[symbol], 2**62))
            self.series[symbol].pending.update({int(row[0]): row for row in rows})
        self.interval_ms, self.stale_after_s, self.join_s = plan.interval_ms, stale_after_s, join_s
        self.counters = counters
        self.gap_list: list[tuple[str, int]] = []
        self._tell = tell
        self._anchor_ms = plan.start_ms
        self._frontier = plan.start_ms  # open time of the next round
        self._waiting = (-1, 0.0)  # the round waited for, since when (monotonic seconds)
        self._joining_s: float | None = None  # since when candles wait for others to catch up
        self._received_s = 0.0

    def accept(self, series: Series, row: Row) -> None:
        """A closed candle from the stream or REST."""
        open_ms = int(row[0])
        problem = row_problem(row, self.interval_ms, self._anchor_ms)
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
            series.pending[open_ms] = row
            series.newest_seen = max(series.newest_seen, open_ms)
            series.absent.pop(open_ms, None)
            self._received_s = now_s()

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
        if now_s() - self._joining_s < self.join_s:
            return False
        self._joining_s = None
        return True

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
        absent = series.absent.pop(open_ms, None)
        row = series.take(open_ms, self.interval_ms)
        if row is None:
            log.warning("%s %s does not exist (%s)", series.symbol, ms_to_utc(open_ms), absent)
        return row


def _same(first: Row, now: Row) -> bool:
    """Whether two rows of one candle agree; a value unknown to either (NaN) is no difference."""
    return all(a == b or math.isnan(a) or math.isnan(b) for a, b in zip(first, now, strict=True))

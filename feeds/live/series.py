"""One symbol of a live stream: what is expected, what has arrived, and what it proves.

Two questions are decided here from evidence, never from a clock alone. Is a REST row final? Only
with at least as many trades as the last frame of its candle had, and once REST has moved on. Does
a candle not exist? Only when one REST answer shows a newer candle and not this one, twice, some
time apart; and where the trade ids of its neighbours leave room for trades in between, it did
exist, and is doubted for longer.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from cppncripto_strategy.feeds.candles import Row
from cppncripto_strategy.feeds.live.stream_settings import StreamSettings

# Candles shown of each symbol that are remembered, so that one that comes again is compared.
REMEMBERED = 64
# Published gaps of each symbol that a late candle may still withdraw.
GAPS_REMEMBERED = 10_000
_GLIMPSES_REMEMBERED = 5_000
# So many missing candles in a row are asked about by the trade ids around them.
_FARTHEST_NEIGHBOUR = 100
_TRADES = 7  # place of the number of trades in a row


@dataclass(frozen=True, slots=True)
class Glimpse:
    """The last frame of a candle.

    Parameters
    ----------
    row : its values then, in the order of `candles.COLUMNS`.
    first_trade, last_trade : trade ids; None where the frame states none.
    """

    row: Row
    first_trade: int | None = None
    last_trade: int | None = None

    @property
    def trades(self) -> float:
        """Its number of trades then."""
        return self.row[_TRADES]


class Series:
    """One symbol; lives as long as the stream, touched only from the stream's loop.

    Parameters
    ----------
    symbol : which.
    next_open : open time of the next candle wanted, UTC milliseconds.
    interval_ms : of its candles.
    gaps : open times of gaps published before and not withdrawn.
    """

    def __init__(
        self, symbol: str, next_open: int, interval_ms: int, gaps: Collection[int] = ()
    ) -> None:
        self.symbol, self.interval_ms = symbol, interval_ms
        self.next_open = next_open
        self.pending: dict[int, Row] = {}
        self.absent: dict[int, tuple[float, int]] = {}  # open -> (first seen absent, reads)
        self.shown: dict[int, Row] = {}  # the latest published, oldest first
        self.restated: dict[int, Row] = {}  # the values last reported of a candle that came again
        self.gaps = dict.fromkeys(sorted(gaps))  # published and not withdrawn, in order
        self.withdrawn: dict[int, Row] = {}  # candles of former gaps, not published yet
        self.newest_seen = next_open  # open time of the newest candle any frame or row showed
        self.stopped = False  # not waited for and not traded (`health`)
        self.backfilling = True  # what the past holds of it is being read for the first time
        self.glimpses: dict[int, Glimpse] = {}  # the last frame of the newest candles
        self._doubted: dict[int, float] = {}  # since when a row with too few trades is refused
        self._still: dict[int, tuple[Row, float]] = {}  # REST's newest row, and since when

    def resolved(self, open_ms: int) -> bool:
        """Whether this slot's candle is here or proved absent."""
        return open_ms in self.pending or self.absent.get(open_ms, (0.0, 0))[1] >= 2

    def unresolved(self, closed_ms: int) -> Iterator[int]:
        """Open times of the closed slots that are not resolved, oldest first."""
        open_ms = self.next_open
        while open_ms + self.interval_ms <= closed_ms:
            if not self.resolved(open_ms):
                yield open_ms
            open_ms += self.interval_ms

    def first_unresolved(self) -> int:
        """Open time of the first slot, closed or not, that is not resolved."""
        open_ms = self.next_open
        while self.resolved(open_ms):
            open_ms += self.interval_ms
        return open_ms

    # What has arrived ---------------------------------------------------------------------------

    def see(self, open_ms: int) -> None:
        """A frame or a row shows this candle."""
        self.newest_seen = max(self.newest_seen, open_ms)

    def glimpse(self, glimpse: Glimpse) -> bool:
        """A frame of a candle, forming or closed; False when an earlier one had more trades."""
        open_ms = int(glimpse.row[0])
        known = self.glimpses.get(open_ms)
        if known is not None and glimpse.trades < known.trades:
            return False
        self.glimpses[open_ms] = glimpse
        while len(self.glimpses) > _GLIMPSES_REMEMBERED:
            del self.glimpses[min(self.glimpses)]
        return True

    def forget_glimpses(self) -> None:
        """Let go of the frames of candles that are over, but for the last one's trade ids."""
        oldest = self.next_open - self.interval_ms
        for open_ms in [each for each in self.glimpses if each < oldest]:
            del self.glimpses[open_ms]

    def put(self, row: Row) -> None:
        """A closed candle that was not here before."""
        open_ms = int(row[0])
        self.pending[open_ms] = row
        self.see(open_ms)
        self.absent.pop(open_ms, None)
        self._doubted.pop(open_ms, None)

    def first_values(self, open_ms: int) -> Row | None:
        """The candle as it was first received, while it is remembered."""
        return self.pending.get(open_ms) or self.shown.get(open_ms)

    def take(self, open_ms: int) -> Row | None:
        """The candle of the next slot, None for a gap; the one after it comes next."""
        self.next_open = open_ms + self.interval_ms
        self.absent.pop(open_ms, None)
        row = self.pending.pop(open_ms, None)
        self.forget_glimpses()
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
        while len(self.gaps) > GAPS_REMEMBERED:
            del self.gaps[next(iter(self.gaps))]

    # Evidence -----------------------------------------------------------------------------------

    def final(self, row: Row, followed: bool, at_s: float, patience: StreamSettings) -> bool:
        """Whether a row of REST that should be closed is what it stays.

        It has the trades that its last frame had; one that still lacks them after `doubt_s` is what
        the exchange stands by. And the same answer shows a newer candle (`followed`); where none
        does, REST may lag behind, and the row must have been the same for `still_s`.
        """
        open_ms = int(row[0])
        seen = self.glimpses.get(open_ms)
        if seen is not None and row[_TRADES] < seen.trades:
            return at_s - self._doubted.setdefault(open_ms, at_s) >= patience.doubt_s
        if followed:
            return True
        before, since_s = self._still.get(open_ms, (row, at_s))
        self._still = {open_ms: (row, since_s if before == row else at_s)}
        return before == row and at_s - since_s >= patience.still_s

    def note_absent(self, open_ms: int, at_s: float, confirm_s: float) -> None:
        """A REST answer shows newer candles and not this one; twice, apart, is a proof."""
        first_s, reads = self.absent.get(open_ms, (at_s, 0))
        if reads == 0 or at_s - first_s >= confirm_s:
            self.absent[open_ms] = (first_s, reads + 1)

    def traded(self, open_ms: int) -> bool:
        """Whether trade ids show that a candle which is not here had trades.

        The exchange numbers a symbol's trades without holes: from the last trade before a stretch
        of missing candles to the first one after it, none may be left out. A frame of the candle
        itself that counted trades shows it as well.
        """
        own = self.glimpses.get(open_ms)
        if own is not None and own.trades > 0:
            return True
        before, after = self._neighbour(open_ms, -1), self._neighbour(open_ms, 1)
        if before is None or after is None:
            return False
        if before.last_trade is None or after.first_trade is None:
            return False
        return after.first_trade > before.last_trade + 1

    def _neighbour(self, open_ms: int, way: int) -> Glimpse | None:
        """The nearest glimpse; None where a candle known only from REST lies between."""
        step = way * self.interval_ms
        for _ in range(_FARTHEST_NEIGHBOUR):
            open_ms += step
            if open_ms in self.glimpses:
                return self.glimpses[open_ms]
            if self.first_values(open_ms) is not None:
                return None
        return None

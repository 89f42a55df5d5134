"""Which symbols run: one that the exchange refuses, bars or does not list stops alone.

A stopped symbol is not waited for and not traded; its candles are still taken where they come. It
is asked for again with growing waits, and is back when nothing stands against it any more.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from cppncripto_strategy.feeds.filters import TRADING
from cppncripto_strategy.feeds.live.notices import Listener, SymbolBack, SymbolStopped
from cppncripto_strategy.feeds.live.series import Series

log = logging.getLogger(__name__)

UNLISTED = "the exchange does not list it"


class Health:
    """What stands against each symbol; lives as long as its stream.

    Parameters
    ----------
    series : symbol -> its state; `stopped` is set here.
    first_s, cap_s : wall seconds until a refused symbol is asked for again, doubled each time.
    tell : hears of symbols that stop and come back.
    """

    def __init__(
        self, series: Mapping[str, Series], first_s: float, cap_s: float, tell: Listener
    ) -> None:
        self._series, self._first_s, self._cap_s, self._tell = series, first_s, cap_s, tell
        self._refused: dict[str, str] = {}  # what REST said
        self._barred: dict[str, str] = {}  # what exchangeInfo says
        self._waits: dict[str, float] = {}

    @property
    def running(self) -> int:
        """Symbols against which nothing stands."""
        return sum(not series.stopped for series in self._series.values())

    def refused(self, symbol: str, reason: str) -> float:
        """REST refuses to answer about it; wall seconds until it should be asked again."""
        wait_s = self._waits.get(symbol, self._first_s)
        self._waits[symbol] = min(self._cap_s, 2 * wait_s)
        self._refused[symbol] = reason
        self._look(symbol, wait_s)
        return wait_s

    def answered(self, symbol: str) -> None:
        """REST has answered about it."""
        self._waits.pop(symbol, None)
        if self._refused.pop(symbol, None) is not None:
            self._look(symbol, 0.0)

    def stated(self, symbol: str, status: str | None, retry_s: float) -> None:
        """Its status in exchangeInfo, None where it is not listed; read again in `retry_s`."""
        if status == TRADING:
            self._barred.pop(symbol, None)
        else:
            self._barred[symbol] = UNLISTED if status is None else f"its status is {status}"
        self._look(symbol, retry_s)

    def _look(self, symbol: str, retry_s: float) -> None:
        reasons = [each[symbol] for each in (self._refused, self._barred) if symbol in each]
        series = self._series[symbol]
        if series.stopped == bool(reasons):
            return
        series.stopped = bool(reasons)
        if not reasons:
            log.warning("%s is back", symbol)
            self._tell(SymbolBack(symbol))
            return
        log.warning("%s stops (%s); %d symbols still run", symbol, reasons[0], self.running)
        if not self.running:
            log.error("no symbol is left that runs: the stream keeps asking for each of them")
        self._tell(SymbolStopped(symbol, reasons[0], retry_s, self.running))

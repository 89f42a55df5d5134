"""What a fetch is asked to do, and what it reports: settings and results only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from cppncripto_strategy.feeds.binance.endpoints import Retry, Sources
from cppncripto_strategy.feeds.clock import Span
from cppncripto_strategy.feeds.history.ledger import Entry

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class FetchSettings:
    """How a fetch goes about it.

    Parameters
    ----------
    sources, retry : where to ask and how patiently.
    concurrency : months under way at once, over all symbols.
    archives : False takes everything from REST.
    absence_wait_s : seconds between the two REST reads that prove a slot empty.
    proof_age_ms : a slot younger than this is never called exchange-down.
    settle_ms : a candle counts as closed so long after its close, by the exchange's clock.
    """

    sources: Sources = field(default_factory=Sources)
    retry: Retry = field(default_factory=Retry)
    concurrency: int = 4
    archives: bool = True
    absence_wait_s: float = 5.0
    proof_age_ms: int = 600_000
    settle_ms: int = 2_000


@dataclass(frozen=True, slots=True)
class SeriesReport:
    """What a fetch did for one symbol, and what is known about its span now.

    Parameters
    ----------
    span : what was fetched: the span asked for, from the first candle the exchange ever had.
    expected, held : candles the span would hold without holes; candles it does hold.
    from_archives, from_rest : candles this fetch brought.
    rejected : candles that broke a rule and were quarantined.
    months_changed : months whose file is new or different.
    exchange_down, missing : ledger entries inside the span.
    seconds : wall time.
    error : why the fetch of this symbol stopped, '' when it did not.
    """

    symbol: str
    interval: str
    span: Span
    expected: int = 0
    held: int = 0
    from_archives: int = 0
    from_rest: int = 0
    rejected: int = 0
    months_changed: tuple[str, ...] = ()
    exchange_down: tuple[Entry, ...] = ()
    missing: tuple[Entry, ...] = ()
    seconds: float = 0.0
    error: str = ""

    @property
    def complete(self) -> bool:
        """True when every slot is stored or proved absent."""
        return not self.missing and not self.error

"""Candles over Binance's REST interface, through python-binance's AsyncClient.

One `RestGate` per process and address counts request weight and stops every request while the
exchange says so (429, 418). `RestClient` retries what can be retried with capped, jittered waits,
refuses every answer that is not what was asked for, and never returns a candle that may still be
forming: closed means open + interval <= the exchange's own clock. It needs no key and sends none.

A broken answer makes python-binance and aiohttp raise what they like; whatever that is, the request
is sent again. Answers are read within `bounds`, and redirects are not followed.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeVar

import aiohttp
import numpy as np
from binance.async_client import AsyncClient
from binance.exceptions import BinanceAPIException

from cppncripto_strategy.errors import SourceError
from cppncripto_strategy.feeds.binance.answers import (
    UNKNOWN_SYMBOL,
    Json,
    compact,
    error_body,
    read_pause_s,
    read_server_time,
    read_used_weight,
)
from cppncripto_strategy.feeds.binance.bounds import SPARE_ROWS
from cppncripto_strategy.feeds.binance.endpoints import (
    API_PATH,
    INFO,
    KLINES,
    TIME,
    WEIGHT_LIMIT,
    WEIGHTS,
    WINDOW_S,
    Retry,
    Sources,
    is_loopback,
)
from cppncripto_strategy.feeds.binance.filters import (
    info_parameters,
    read_info,
    read_statement,
    read_weight_limit,
)
from cppncripto_strategy.feeds.binance.klines import PAGE_ROWS, KlinesQuery, read_klines
from cppncripto_strategy.feeds.binance.receiving import ENCODINGS, BoundedResponse
from cppncripto_strategy.feeds.candles import Candles, Rejected, concat, split_valid
from cppncripto_strategy.feeds.clock import Span, fixed_anchor_ms, interval_to_ms

logger = logging.getLogger(__name__)

# Other programs behind the same address spend weight too; the rest of the limit is theirs.
WEIGHT_SHARE = 0.8
PAUSE_S = {429: 60.0, 418: 120.0}  # without a readable Retry-After
PAUSES_PER_CALL = 20
REREADS = 2
# Where the exchange says to wait for no time at all, the first wait is so long, the next ones twice
# as long each, up to what it would be without its word.
LEAST_PAUSE_S = 0.5
Answer = TypeVar("Answer")


class RefusedError(SourceError):
    """The exchange refuses this very request; sending it again changes nothing."""


class UnknownSymbolError(RefusedError):
    """The exchange does not know the symbol (any more)."""


class RestGate:
    """Request weight of one process and address, and the pauses the exchange ordered.

    Thread-safe, and free of any event loop: callers sleep for as long as `reserve` says. Lives as
    long as the process (`gate_for`).

    Parameters
    ----------
    limit : weight the exchange allows per window.
    window_s : seconds of that window.
    share : the part of the limit this process allows itself, 0 to 1.
    clock : monotonic seconds.
    """

    def __init__(
        self,
        limit: int = WEIGHT_LIMIT,
        window_s: float = WINDOW_S,
        share: float = WEIGHT_SHARE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limit, self.window_s, self.share = limit, window_s, share
        self._clock = clock
        self._lock = threading.Lock()
        self._used = 0
        self._window_end = 0.0
        self._paused_until = 0.0

    @property
    def used(self) -> int:
        """Weight spent in the present window, by our count and the exchange's, the larger."""
        return self._used

    def reserve(self, weight: int) -> float:
        """0.0 when a request of this weight may go now (it is then counted), else seconds to wait.

        After waiting, ask again: others may have gone first.
        """
        with self._lock:
            now = self._clock()
            if now < self._paused_until:
                return self._paused_until - now
            if now >= self._window_end:
                self._used, self._window_end = 0, now + self.window_s
            if self._used and self._used + weight > self.limit * self.share:
                return self._window_end - now
            self._used += weight
            return 0.0

    def report(self, used: int) -> None:
        """The exchange's own count of this window (as its answers carry it)."""
        with self._lock:
            self._used = max(self._used, used)

    def pause(self, seconds: float) -> None:
        """No request for so long; never shortens a pause already ordered."""
        with self._lock:
            self._paused_until = max(self._paused_until, self._clock() + seconds)


_GATES: dict[str, RestGate] = {}
_GATES_LOCK = threading.Lock()


def gate_for(rest_url: str) -> RestGate:
    """This process's one gate for an address."""
    with _GATES_LOCK:
        return _GATES.setdefault(rest_url, RestGate())


@dataclass(frozen=True, slots=True)
class RestRead:
    """One complete answer about a span.

    Parameters
    ----------
    span : what was asked for, [start_ms, end_ms); a slot without a candle does not exist there.
    candles : the closed, valid candles of the span.
    rejected : candles the exchange sent, more than once, that break a rule.
    read_ms : the exchange's time of the read.
    """

    span: Span
    candles: Candles
    rejected: tuple[Rejected, ...]
    read_ms: int


class RestClient:
    """Reads closed candles; an async context manager, bound to the running event loop.

    Parameters
    ----------
    sources, retry : where to ask and how patiently.
    gate : default the process's gate for this address.
    rng : source of the jitter.
    settle_ms : a candle counts as closed only so long after its close, by the exchange's clock.
    """

    def __init__(
        self,
        sources: Sources,
        retry: Retry | None = None,
        *,
        gate: RestGate | None = None,
        rng: random.Random | None = None,
        settle_ms: int = 2_000,
    ) -> None:
        self.sources, self.retry = sources, retry or Retry()
        self.gate = gate or gate_for(sources.rest_url)
        self.settle_ms = settle_ms
        self.requests = 0
        self._rng = rng or random.Random()
        self._client: AsyncClient | None = None
        self._clock: tuple[int, float] | None = None  # (server ms, monotonic s) of one moment

    async def __aenter__(self) -> RestClient:
        self._client = _client_class(self.sources.rest_url, self.gate)(
            session_params={
                "trust_env": not is_loopback(self.sources.rest_url),
                "response_class": BoundedResponse,
                "auto_decompress": False,  # that has no bound
            },
            requests_params={
                "timeout": aiohttp.ClientTimeout(total=self.retry.timeout_s),
                "allow_redirects": False,
            },
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._client is not None:
            await self._client.close_connection()
            self._client = None

    async def server_time_ms(self) -> int:
        """The exchange's time now, UTC milliseconds, asked of the exchange.

        Raises
        ------
        SourceError
            When the exchange does not answer.
        """
        answer = await self._call(
            "server time", WEIGHTS[TIME], read_server_time, lambda c: c.get_server_time()
        )
        # Pairing it with the moment of arrival puts us a little behind the exchange, never ahead,
        # so no forming candle passes for closed.
        self._clock = (answer, time.monotonic())
        return answer

    async def closed_until_ms(self, interval: str, anchor_ms: int | None = None) -> int:
        """The time before which every candle that opened has closed and settled (UTC ms).

        A grid time where the grid is known: by the interval, or by the anchor of the series.
        """
        if self._clock is None:
            await self.server_time_ms()
        interval_ms = interval_to_ms(interval)
        settled = self.now_ms() - self.settle_ms
        anchor = fixed_anchor_ms(interval_ms) if anchor_ms is None else anchor_ms
        if anchor is None:
            return settled - interval_ms + 1
        return settled - (settled - anchor) % interval_ms

    def now_ms(self) -> int:
        """The exchange's time by the last `server_time_ms` and our own steady clock since."""
        if self._clock is None:
            raise SourceError("the exchange's time is not known yet: ask server_time_ms() first")
        server_ms, at_s = self._clock
        return server_ms + int((time.monotonic() - at_s) * 1000)

    async def first_open_ms(self, symbol: str, interval: str) -> int | None:
        """Open time of the symbol's first candle; None when it has none.

        Raises
        ------
        UnknownSymbolError
            When the exchange does not know the symbol.
        SourceError
            When the exchange does not answer.
        """
        page = await self._page(symbol, interval, Span(0, self.now_ms()), rows=1)
        return int(page.open_time[0]) if len(page) else None

    async def read_limit(self, symbol: str) -> tuple[int, Json] | None:
        """Learn the exchange's weight limit, and that it knows the symbol.

        Returns
        -------
        (exchange time in UTC ms, the symbol's entry) as the same answer states them; None where it
        states no such entry.

        Raises
        ------
        UnknownSymbolError
            When the exchange does not know the symbol.
        SourceError
            When the exchange does not answer.
        """
        self.gate.limit, statement = await self._call(
            f"exchangeInfo of {symbol}",
            WEIGHTS[INFO],
            lambda answer: (read_weight_limit(answer), read_statement(answer, symbol)),
            lambda c: c._get(INFO, data=info_parameters(symbol)),
        )
        return statement

    async def exchange_info(self, symbols: Sequence[str]) -> dict[str, Any]:
        """exchangeInfo of these symbols, as sent: trading rules (filters) and status of each.

        Raises
        ------
        UnknownSymbolError
            When the exchange does not know one of them.
        SourceError
            When the exchange does not answer.
        """
        return await self._call(
            f"exchangeInfo of {', '.join(symbols)}",
            WEIGHTS[INFO],
            read_info,
            lambda c: c._get(INFO, data=info_parameters(*symbols)),
        )

    async def read(
        self, symbol: str, interval: str, span: Span, anchor_ms: int | None = None
    ) -> RestRead:
        """Every closed candle with span.start_ms <= open time < span.end_ms.

        `anchor_ms` is the series' own, where it is known; else it is learned from what is read.

        Candles that break a rule are asked for again, twice; what is still broken is returned as
        rejected and is not among the candles.

        Raises
        ------
        UnknownSymbolError
            When the exchange does not know the symbol.
        SourceError
            When the exchange does not answer as it should, after every retry.
        """
        interval_ms = interval_to_ms(interval)
        closed_until_ms = await self.closed_until_ms(interval, anchor_ms)
        whole = Span(span.start_ms, max(span.start_ms, min(span.end_ms, closed_until_ms)))
        pages = await self._pages(symbol, interval, whole)
        candles, rejected = split_valid(pages, interval_ms, anchor_ms)
        for _ in range(REREADS):
            if not rejected:
                break
            candles, rejected = await self._again(symbol, interval, candles, rejected, anchor_ms)
        return RestRead(whole, candles, tuple(rejected), self.now_ms())

    async def shown(self, symbol: str, interval: str, span: Span) -> Candles:
        """The candles of a span as the exchange shows them now, the forming one included.

        Nothing is judged: neither whether a candle has closed, nor its values. A candle that a
        newer one follows was shown together with it, in one answer: the last of a page is read
        again with the next, because it may have been forming.

        Raises
        ------
        RefusedError
            When the exchange does not know the symbol, or refuses to answer about it.
        SourceError
            When the exchange does not answer as it should, after every retry.
        """
        pages: list[Candles] = []
        start_ms, full = span.start_ms, True
        while full:
            page = await self._page(symbol, interval, Span(start_ms, span.end_ms))
            if pages:
                pages[-1] = pages[-1][:-1]
            pages.append(page)
            full = len(page) >= PAGE_ROWS
            start_ms = int(page.open_time[-1]) if full else span.end_ms
        return concat(pages)

    async def _again(
        self,
        symbol: str,
        interval: str,
        candles: Candles,
        rejected: list[Rejected],
        anchor_ms: int | None,
    ) -> tuple[Candles, list[Rejected]]:
        interval_ms = interval_to_ms(interval)
        first = min(candle.open_time for candle in rejected)
        last = max(candle.open_time for candle in rejected) + 1
        fresh, rejected = split_valid(
            await self._pages(symbol, interval, Span(first, last)), interval_ms, anchor_ms
        )
        kept = candles[(candles.open_time < first) | (candles.open_time >= last)]
        both = concat([kept, fresh])
        return both[np.argsort(both.open_time, kind="stable")], rejected

    async def _pages(self, symbol: str, interval: str, span: Span) -> Candles:
        pages, start_ms = [], span.start_ms
        most = (span.end_ms - span.start_ms) // interval_to_ms(interval) + 1 + SPARE_ROWS
        while start_ms < span.end_ms:
            page = await self._page(symbol, interval, Span(start_ms, span.end_ms))
            if len(page) == 0:
                break
            pages.append(page)
            if sum(map(len, pages)) > most:
                raise SourceError(f"{self.sources.rest_url} sends more candles than {span} has")
            last = int(page.open_time[-1])
            # Nothing fits between the last candle and the end; a shorter page proves nothing.
            start_ms = span.end_ms if last + interval_to_ms(interval) >= span.end_ms else last + 1
        return concat(pages)

    async def _page(self, symbol: str, interval: str, span: Span, rows: int = PAGE_ROWS) -> Candles:
        query = KlinesQuery(symbol, interval, span.start_ms, span.end_ms - 1, rows)
        return await self._call(
            f"klines of {symbol} {interval} from {span.start_ms}",
            WEIGHTS[KLINES],
            lambda answer: read_klines(answer, span),
            lambda client: client.get_klines(**query.parameters()),
        )

    async def _call(
        self,
        what: str,
        weight: int,
        read: Callable[[Any], Answer],
        send: Callable[[Any], Awaitable[Any]],
    ) -> Answer:
        """Send until `read` accepts the answer; see the module's docstring for the rules."""
        attempt, pauses, problem = 0, 0, ""
        while attempt < self.retry.attempts and pauses < PAUSES_PER_CALL:
            await self._pass_gate(weight, what)
            self.requests += 1
            try:
                async with asyncio.timeout(self.retry.timeout_s):
                    return read(await send(self._client))
            except BinanceAPIException as error:
                problem = f"status {error.status_code}, {str(error)[:300]}"
                if error.status_code in PAUSE_S:
                    self.gate.pause(_pause_s(error, pauses))
                    pauses += 1
                    logger.warning("%s: %s; all REST requests pause", what, problem)
                    continue
                _refuse_if_final(error, what)
            except Exception as error:  # whatever a broken answer makes the client raise
                problem = f"{type(error).__name__}: {str(error)[:300]}"
            logger.info("%s: attempt %d failed: %s", what, attempt + 1, problem)
            await asyncio.sleep(self.retry.wait_s(attempt, self._rng))
            attempt += 1
        raise SourceError(
            f"{self.sources.rest_url} gave no usable answer to {what} after {attempt} attempts and"
            f" {pauses} ordered pauses; the last problem was: {problem}. Try again later."
        )

    async def _pass_gate(self, weight: int, what: str) -> None:
        while (wait_s := self.gate.reserve(weight)) > 0:
            if wait_s > self.retry.longest_pause_s:
                raise SourceError(
                    f"{self.sources.rest_url} forbids requests for another {wait_s:.0f} s"
                    f" ({what}): it has banned this address for a while. Try again after that."
                )
            await asyncio.sleep(wait_s + self._rng.uniform(0.0, 0.05))


def _client_class(rest_url: str, gate: RestGate) -> type[Any]:
    """AsyncClient at another address, reporting used weight to the gate.

    The address must be a class attribute: an instance builds its URLs while it is made.
    """

    class Client(AsyncClient):
        API_URL = f"{rest_url.rstrip('/')}{API_PATH}"

        def _get_headers(self) -> dict[str, str]:
            return {**super()._get_headers(), "Accept-Encoding": ENCODINGS}

        async def _handle_response(self, response: aiohttp.ClientResponse) -> Any:
            used = read_used_weight(response.headers)
            if used is not None:
                gate.report(used)
            return await super()._handle_response(response)

    return Client


def _pause_s(error: BinanceAPIException, pauses: int) -> float:
    """How long to wait after a 429 or 418: what it says, else a guess; longer each time."""
    guess_s = PAUSE_S[error.status_code]
    said_s = read_pause_s(error.response.headers, str(error.message), int(time.time() * 1000))
    return guess_s if said_s is None else max(said_s, min(guess_s, LEAST_PAUSE_S * 2.0**pauses))


def _refuse_if_final(error: BinanceAPIException, what: str) -> None:
    """Raise for answers that no retry will change: 4xx other than firewall and time-outs."""
    if error.code == UNKNOWN_SYMBOL:
        raise UnknownSymbolError(f"the exchange does not know the symbol ({what})") from error
    if error.status_code in (400, 401, 404, 451):
        answer = compact(error_body(error.code, str(error.message)[:200]))
        raise RefusedError(f"the exchange refused {what}: {answer}") from error

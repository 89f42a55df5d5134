"""The loopback exchange's REST: answers, request weight, bans, and the faults that strike them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from decimal import Decimal
from urllib.parse import parse_qsl
from weakref import WeakKeyDictionary

from aiohttp import web

from cppncripto_strategy.feeds.binance.answers import (
    INVALID_INTERVAL,
    INVALID_SYMBOL,
    RETRY_AFTER,
    UNKNOWN_ERROR,
    Json,
    banned,
    compact,
    retry_after,
    server_time,
    too_many_requests,
    weight_headers,
)
from cppncripto_strategy.feeds.binance.endpoints import (
    API_PATH,
    API_VERSIONS,
    INFO,
    KLINES,
    PING,
    TIME,
    WEIGHTS,
)
from cppncripto_strategy.feeds.binance.filters import (
    exchange_info,
    read_info_parameters,
    symbol_info,
)
from cppncripto_strategy.feeds.binance.klines import Kline, KlinesQuery, query_problem
from cppncripto_strategy.feeds.filters import PLANTED_FILTERS, SymbolFilters
from cppncripto_strategy.feeds.loopback.damage import REST_TEXTS, RETRY_AFTERS, gzip_bomb
from cppncripto_strategy.feeds.loopback.faults import BREAKS, REST_FAULTS, FaultBook, RestFault
from cppncripto_strategy.feeds.loopback.market import Market
from cppncripto_strategy.feeds.loopback.transport import Requests
from cppncripto_strategy.feeds.loopback.wire import restated_kline

Query = dict[str, str]
Answer = Callable[[Query], tuple[int, object]]
# Every symbol has them.
_FILTERS = replace(PLANTED_FILTERS.filters, max_qty=Decimal("9000"), market_max_qty=Decimal("100"))
_HTML = {
    "200_html": (200, "<html><body>Be right back</body></html>"),
    "502_html": (502, "<html><h1>502 Bad Gateway</h1></html>"),
    "403": (403, "<html><h1>403 Forbidden</h1></html>"),
}

_UNDER_WAY_S = 1.0
"""How long a request sent before a ban may need to arrive, on a busy machine."""
_ANSWER_S = 0.1
"""How long after an answer its connection may bring what was decided before it was read."""


class RestDesk:
    """Answers REST requests; keeps the weight used and the active ban as long as it lives.

    Attributes
    ----------
    blocked : (from, until) of the last ban in monotonic seconds, and its status.
    violations : requests that came before a Retry-After had passed, from someone who knew of it.
    """

    def __init__(self, market: Market, faults: FaultBook, requests: Requests) -> None:
        self.market, self.faults, self.requests = market, faults, requests
        self.settings = market.settings
        self.blocked = (0.0, 0.0, 429)
        self.violations = 0
        self._told: WeakKeyDictionary[asyncio.Transport, float] = WeakKeyDictionary()
        self._weight = (0, 0)  # (window, used)
        self._asked_time = 0

    def routes(self) -> list[web.RouteDef]:
        """A route for every end point and version."""
        answers: dict[str, Answer] = {
            PING: lambda query: (200, {}),
            TIME: self._time,
            INFO: self._exchange_info,
            KLINES: self._klines,
        }
        return [
            web.get(f"{API_PATH}/{version}/{name}", self._guarded(name, answer))
            for version in API_VERSIONS
            for name, answer in answers.items()
        ]

    def _guarded(
        self, name: str, answer: Answer
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """A handler that counts weight, obeys bans and lets faults strike before it answers."""

        async def handle(request: web.Request) -> web.StreamResponse:
            query = dict(parse_qsl(request.query_string, keep_blank_values=True))
            weight = WEIGHTS[name]
            used = self._spend(weight)
            headers = weight_headers(used)
            refused = self._refusal(request.transport, used)
            fault = None if refused else self._fault(request, query)
            response: web.StreamResponse
            body: object
            if refused is not None:
                status, body, more = refused
                response = _json(status, body, headers | more)
            elif fault is not None:
                response = await self._struck(request, fault, headers, answer(query)[1])
            else:
                status, body = answer(query)
                response = _json(status, body, headers)
            self.requests.record(request, response.status, weight, fault)
            return response

        return handle

    def _fault(self, request: web.Request, query: Query) -> RestFault | None:
        fault = self.faults.for_request(
            request.path, query.get("symbol"), request.path_qs, REST_FAULTS
        )
        return RestFault("503") if self.faults.lasting("blackout", self.market.now_ms()) else fault

    def _spend(self, weight: int) -> int:
        window = int(time.monotonic() // self.settings.weight_window_s)
        used = self._weight[1] if self._weight[0] == window else 0
        self._weight = (window, used + weight)
        return used + weight

    def _refusal(
        self, connection: asyncio.Transport | None, used: int
    ) -> tuple[int, Json, dict[str, str]] | None:
        """429 or 418 while a Retry-After has not passed, or when the weight is spent."""
        now = time.monotonic()
        since, until, status = self.blocked
        if now < until:
            told = self._told.get(connection) if connection is not None else None
            # Requests already under way when the ban was announced are no violation. On a
            # connection that was told of it nothing is under way for long; on others a busy
            # machine may need a while.
            known = told if told is not None and told >= since else since + _UNDER_WAY_S
            self.violations += now > known + _ANSWER_S
            self._tell(connection, now)
            return self._block_answer(status, until - now)
        if used > self.settings.weight_limit:
            window_s = self.settings.weight_window_s
            return self._block(connection, 429, window_s - now % window_s)
        return None

    def _block(
        self, connection: asyncio.Transport | None, status: int, for_s: float
    ) -> tuple[int, Json, dict[str, str]]:
        now = time.monotonic()
        self.blocked = (now, now + for_s, status)
        self._tell(connection, now)
        return self._block_answer(status, for_s)

    def _tell(self, connection: asyncio.Transport | None, now: float) -> None:
        if connection is not None:
            self._told[connection] = now

    def _block_answer(self, status: int, for_s: float) -> tuple[int, Json, dict[str, str]]:
        header = retry_after(for_s)
        if status == 418:
            return status, banned(int((time.time() + for_s) * 1000)), header
        return status, too_many_requests(self.settings.weight_limit), header

    async def _struck(
        self, request: web.Request, fault: RestFault, headers: dict[str, str], body: object
    ) -> web.StreamResponse:
        """The answer that a fault makes of `body`."""
        kind = fault.kind
        if kind in ("429", "418"):
            status, refusal, more = self._block(request.transport, int(kind), fault.retry_after_s)
            return _json(status, refusal, headers | more)
        if kind in BREAKS:
            whole = compact(body).encode()
            return await self.requests.broken(request, kind, whole, "application/json")
        if kind in _HTML:
            status, text = _HTML[kind]
            return web.Response(status=status, text=text, content_type="text/html", headers=headers)
        if kind in REST_TEXTS:
            text = REST_TEXTS[kind]()
            return web.Response(text=text, content_type="application/json", headers=headers)
        if kind in RETRY_AFTERS:
            said = RETRY_AFTERS[kind]
            wait = {} if said is None else {RETRY_AFTER: said}
            return _json(429, too_many_requests(self.settings.weight_limit), headers | wait)
        if kind == "bomb":
            packed = {"Content-Encoding": "gzip"} | headers
            body = await asyncio.to_thread(gzip_bomb)
            return web.Response(body=body, content_type="application/json", headers=packed)
        return _json(int(kind), UNKNOWN_ERROR, headers)

    def _exchange_info(self, query: Query) -> tuple[int, object]:
        asked, market = read_info_parameters(query), self.market
        symbols = list(market.candles) if asked is None else asked
        if any(not self._knows(symbol) for symbol in symbols):
            return 400, INVALID_SYMBOL
        entries = [
            symbol_info(symbol, replace(self._rules(symbol), status=market.status(symbol)))
            for symbol in symbols
            if not self._strikes("omitted", symbol)
        ]
        return 200, exchange_info(self._stated_ms(), self.settings.weight_limit, entries)

    def _strikes(self, kind: str, symbol: str) -> bool:
        """Whether a lasting fault of this kind strikes the symbol now; counts it."""
        struck = self.faults.lasting(kind, self.market.now_ms(), symbol) is not None
        self.faults.struck[f"stream:{kind}"] += struck
        return struck

    def _knows(self, symbol: str) -> bool:
        return symbol in self.market.candles and not self._strikes("removed", symbol)

    def _rules(self, symbol: str) -> SymbolFilters:
        if not self._strikes("new_rules", symbol):
            return _FILTERS
        return replace(_FILTERS, lot_step=10 * _FILTERS.lot_step)

    def _time(self, query: Query) -> tuple[int, object]:
        self._asked_time += 1
        jumps = self._asked_time % 2 == 1
        jump_ms = self.faults.shift_ms("clock_jumps", self.market.now_ms()) if jumps else 0
        return 200, server_time(self._stated_ms() + jump_ms)

    def _stated_ms(self) -> int:
        """The exchange's time as REST states it."""
        now_ms = self.market.now_ms()
        return now_ms + self.faults.shift_ms("clock_off", now_ms)

    def _klines(self, query: Query) -> tuple[int, object]:
        problem = query_problem(query)
        if problem is not None:
            return 400, problem
        asked = KlinesQuery.read(query)
        if not self._knows(asked.symbol):
            return 400, INVALID_SYMBOL
        if self._strikes("refused", asked.symbol):
            return 400, UNKNOWN_ERROR
        if asked.interval != self.market.interval:
            return 400, INVALID_INTERVAL
        klines = self.market.visible(asked, self._rest_time_ms(asked.symbol))
        shown = [self._shown(kline, asked.symbol) for kline in klines]
        return 200, [kline.row() for kline in shown if kline is not None]

    def _shown(self, kline: Kline, symbol: str) -> Kline | None:
        """A candle as the faults that strike it let it be seen; None while it is hidden."""
        now_ms = self.market.now_ms()

        def strikes(kind: str) -> bool:
            return self.faults.on_candle(kind, kline.open_time, now_ms, symbol)

        if strikes("hidden"):
            return None
        if strikes("unfinished"):
            return replace(kline, trades=kline.trades // 2)
        return restated_kline(kline) if strikes("rest_restated") else kline

    def _rest_time_ms(self, symbol: str) -> int:
        now_ms = self.market.now_ms()
        late = self.faults.lasting("late", now_ms, symbol)
        return now_ms - self.settings.rest_lag_ms - (late.delay_ms if late else 0)


def _json(status: int, body: object, headers: Mapping[str, str]) -> web.Response:
    return web.Response(
        status=status,
        text=compact(body),
        content_type="application/json",
        charset="utf-8",
        headers=dict(headers),
    )
